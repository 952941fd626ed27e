"""Crops against what else reads a tile around a spot, on one slide, by CPU time.

    python benchmarks/crops.py --chunk 1024 --dir /tmp/slide
    python benchmarks/crops.py --quick

The slide is 20,000 x 20,000 px of H&E texture (`her2st/C2.jpg` under `SQ_IMPUTER_DATA`, else procedural) with a glass
rim, written as multiscale SpatialData, with 5,000 circles on a hexagonal lattice. Every measurement is a process of its
own, so that no method inherits threads or caches; methods alternate, and ratios are medians over rounds. CPU time is
user + system of all threads, after imports, opening and one crop to warm up; the files are in the page cache. Reading
one crop at a time costs the same for every crop, so those methods get a sample of the spots, spread over the slide.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

MPP, SIZE, COLUMNS = 0.5, 224, 64
PATCH = 2048
METHODS = {
    "limit": "zstd decode of the needed chunks, each once",
    "crops": "Crops",
    "tiles": "spatialdata ImageTilesDataset",
    "dask": "dask slice per spot",
    "openslide": "OpenSlide (JPEG TIFF)",
}
VARIANTS = {
    "half": "Crops, 2x extent (half resolution)",
    "resize": "Crops, 1.4x extent (resized)",
    "turn": "Crops, turned by 30 degrees",
    "shuffle": "Crops, shuffled",
}


# the slide


def texture(rng: np.random.Generator) -> np.ndarray:
    """(y, x, 3) uint8 to take patches from."""
    folder = os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(folder) / "her2st" / "C2.jpg"
    if path.exists():
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None
        return np.asarray(Image.open(path).convert("RGB"))
    print(f"no {path}: procedural texture (set SQ_IMPUTER_DATA for real H&E)")
    side = 2 * PATCH
    blobs = sum(np.kron(rng.random((side // s, side // s)), np.ones((s, s))) for s in (64, 16, 4)) / 3
    colors = np.array([[225, 160, 195], [95, 60, 140]], float)
    image = colors[0] + blobs[..., None] * (colors[1] - colors[0]) + rng.normal(0, 6, (side, side, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def pixels(folder: Path, side: int) -> np.ndarray:
    """(3, y, x) pixels of the slide, memory-mapped; made once."""
    path = folder / f"pixels_{side}.npy"
    if path.exists():
        return np.load(path, mmap_mode="r")
    rng = np.random.default_rng(0)
    source, rim = texture(rng), side // 40
    out = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.uint8, (3, side, side))
    for y in range(0, side, PATCH):
        for x in range(0, side, PATCH):
            patch = np.full((PATCH, PATCH, 3), 255)
            while (patch.mean(axis=2) > 225).mean() > 0.3:  # tissue, not glass
                top, left = (rng.integers(0, n - PATCH) for n in source.shape[:2])
                patch = source[top : top + PATCH, left : left + PATCH]
            patch = np.rot90(patch[:, :: rng.choice([-1, 1])], rng.integers(4)) * rng.uniform(0.9, 1.1, 3)
            fits = patch.clip(0, 255).astype(np.uint8).transpose(2, 0, 1)[:, : side - y, : side - x]
            out[:, y : y + PATCH, x : x + PATCH] = fits
    for edge in (np.s_[:, :rim], np.s_[:, -rim:], np.s_[:, :, :rim], np.s_[:, :, -rim:]):
        out[edge] = rng.integers(240, 246, out[edge].shape, np.uint8)
    out.flush()
    path.with_suffix(".part").rename(path)
    return np.load(path, mmap_mode="r")


def lattice(n: int, side: int) -> np.ndarray:
    """(n, 2) x, y of a hexagonal lattice that fills the slide."""
    columns = round(COLUMNS * (n / 5000) ** 0.5)
    row, column = np.divmod(np.arange(n), columns)
    pitch = (side - SIZE) / (columns + 0.5)
    step = (side - SIZE) / -(-n // columns)
    return SIZE / 2 + np.stack([(column + 0.5 * (row % 2)) * pitch, row * step], axis=1)


def make_store(folder: Path, side: int, chunk: int, n: int) -> Path:
    """The slide as SpatialData on disk, with pyramid and spots; made once."""
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale

    path = folder / f"slide_{side}_{chunk}.zarr"
    if path.exists():
        return path
    where = {"global": Identity(), "um": Scale([MPP, MPP], axes=("x", "y"))}
    image = Image2DModel.parse(
        da.from_array(pixels(folder, side), chunks=(3, chunk, chunk)),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2, 2, 2],
        chunks=(3, chunk, chunk),
        transformations=dict(where),
    )
    spots = ShapesModel.parse(lattice(n, side), geometry=0, radius=55 / MPP / 2, transformations=dict(where))
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    SpatialData(images={"he": image}, shapes={"spots": spots}).write(part)
    part.rename(path)
    return path


def make_tiff(folder: Path, side: int) -> Path | None:
    """The same pixels as pyramidal tiled JPEG TIFF; None without OpenSlide or tifffile."""
    if any(importlib.util.find_spec(name) is None for name in ("openslide", "tifffile", "imagecodecs")):
        print("OpenSlide skipped: needs openslide-python, openslide-bin, tifffile and imagecodecs")
        return None
    import tifffile

    path = folder / f"slide_{side}.tiff"
    if not path.exists():
        image = pixels(folder, side)
        options = {"tile": (256, 256), "compression": "jpeg", "compressionargs": {"level": 85}, "photometric": "rgb"}
        with tifffile.TiffWriter(path, bigtiff=True) as tiff:
            for factor in (1, 2, 4, 8):
                level = np.moveaxis(image[:, ::factor, ::factor], 0, 2)
                tiff.write(np.ascontiguousarray(level), subfiletype=factor > 1, **options)
    return path


# one measurement, in its own process


def clock(work) -> dict:
    """CPU and wall seconds of a call, with what it returns."""
    cpu, wall = time.process_time(), time.perf_counter()
    out = work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, **out}


def run_crops(options, kind: str = "crops") -> dict:
    import spatialdata as sd

    from sq_imputer.contract import CropSpec
    from sq_imputer.pixels.crops import Crops
    from sq_imputer.section.image import read_pyramid

    pyramid = read_pyramid(sd.read_zarr(options.store), "he")
    extent = SIZE * MPP * {"half": 2, "resize": 1.4}.get(kind, 1)
    turn = np.deg2rad(30 if kind == "turn" else 0)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centers = lattice(options.spots, options.side)

    def make(rows=slice(None)):
        return Crops(pyramid, centers[rows], CropSpec(extent, SIZE), mpp=MPP, axes=axes)

    for _ in make(slice(0, 2)):
        pass  # first use of everything
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # peak memory starts here
    before = memory("VmRSS")

    def work():
        crops, rng = make(), np.random.default_rng(0) if kind == "shuffle" else None
        n = sum(len(index) for index, _ in crops.batches(64, generator=rng))
        return {"n": n, "decodes": crops.decodes, "needed": crops.n_chunks, "level": crops.level}

    out = clock(work)
    out["growth"] = memory("VmHWM") - before
    sums = [zlib.crc32(crop) for crop in make(sample(options))[:]]
    return {**out, "sums": sums}


def run_tiles(options) -> dict:
    import spatialdata as sd
    from spatialdata.dataloader import ImageTilesDataset

    sdata = sd.read_zarr(options.store)
    tiles = ImageTilesDataset(
        sdata, {"spots": "he"}, {"spots": "global"}, tile_dim_in_units=SIZE, transform=lambda tile: tile["he"]
    )
    rows, kept = sample(options), []

    def pixels_of(row):
        return np.asarray(tiles[int(row)].data)

    pixels_of(rows[0])
    out = clock(lambda: kept.extend(pixels_of(row) for row in rows) or {"n": len(rows)})
    return {**out, "sums": [zlib.crc32(np.ascontiguousarray(tile)) for tile in kept]}


def run_dask(options) -> dict:
    import spatialdata as sd

    image = sd.read_zarr(options.store)["he"]["scale0"]["image"].data
    corners = np.floor(lattice(options.spots, options.side)[sample(options)] - SIZE / 2 + 0.5).astype(int).tolist()

    def one(x, y):
        return image[:, max(y, 0) : y + SIZE, max(x, 0) : x + SIZE].compute().shape[0]

    one(*corners[0])
    return clock(lambda: {"n": sum(1 for corner in corners if one(*corner))})


def run_openslide(options) -> dict:
    import openslide

    slide = openslide.OpenSlide(options.tiff)
    corners = np.floor(lattice(options.spots, options.side) - SIZE / 2 + 0.5).astype(int).tolist()[::2]

    def one(corner):
        return np.asarray(slide.read_region(corner, 0, (SIZE, SIZE)))[..., :3].transpose(2, 0, 1).shape[0]

    one(corners[0])
    return clock(lambda: {"n": sum(1 for corner in corners if one(corner))})


def run_limit(options) -> dict:
    from numcodecs import zstd

    corners = np.floor(lattice(options.spots, options.side) - SIZE / 2 + 0.5)
    ends = np.clip(np.stack([corners, corners + SIZE - 1], axis=1), 0, options.side - 1).astype(int) // options.chunk
    needed = {(y, x) for (x0, y0), (x1, y1) in ends.tolist() for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)}
    folder = Path(options.store) / "images" / "he"
    level = min(folder.glob("[s0-9]*"), key=lambda path: path.name)
    files = [level / "c" / "0" / str(y) / str(x) for y, x in sorted(needed)]

    def work():
        total = sum(len(zstd.decompress(path.read_bytes())) for path in files)
        return {"n": options.spots, "needed": len(files), "bytes": total}

    zstd.decompress(files[0].read_bytes())
    return clock(work)


def memory(what: str) -> float:
    """MB of this process, from the kernel."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def sample(options) -> np.ndarray:
    """Rows given to the methods that read one crop at a time."""
    return np.linspace(0, options.spots - 1, min(options.sample, options.spots)).astype(int)


def measure(options) -> dict:
    if options.measure in ("crops", *VARIANTS):
        return run_crops(options, options.measure)
    return globals()[f"run_{options.measure}"](options)


# the table


def spawn(options, method: str, **changes) -> dict:
    """Measure in a fresh process."""
    settings = {**vars(options), **changes, "measure": method}
    flags = [f"--{name}={settings[name]}" for name in ("side", "chunk", "spots", "sample", "store", "tiff", "measure")]
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [sys.executable, __file__, *flags], env={**os.environ, **limits}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(options) -> None:
    methods = [name for name in METHODS if name != "openslide" or options.tiff]
    rounds = [{name: spawn(options, name) for name in methods} for _ in range(options.pairs)]

    def per_crop(one: dict, what: str = "cpu") -> float:
        return one[what] / one["n"]

    def median(of) -> float:
        return statistics.median(map(of, rounds))

    print(f"\n{'':44}{'crops/CPU-s':>12}{'crops/s':>10}{'crops':>8}{'Crops is (CPU)':>16}{'(wall)':>9}")
    for name in methods:
        rate, wall = (1 / median(lambda r, n=name, w=what: per_crop(r[n], w)) for what in ("cpu", "wall"))
        ratio, ratio_wall = (
            median(lambda r, n=name, w=what: per_crop(r[n], w) / per_crop(r["crops"], w)) for what in ("cpu", "wall")
        )
        print(f"{METHODS[name]:44}{rate:12.0f}{wall:10.0f}{rounds[0][name]['n']:8}{ratio:15.2f}x{ratio_wall:8.2f}x")
    crops, limit, tiles = (rounds[0][name] for name in ("crops", "limit", "tiles"))
    share = median(lambda r: r["limit"]["cpu"] / r["crops"]["cpu"])
    same = sum(a == b for a, b in zip(crops["sums"], tiles["sums"], strict=True))
    print(f"\nshare of the decode limit (CPU)    {share:.0%}")
    print(f"chunks decoded / needed            {crops['decodes']} / {limit['needed']}")
    print(f"pixels equal to ImageTilesDataset  {same} of {len(crops['sums'])} crops (it cuts crops at the border)")
    half = spawn(options, "half")
    print(f"chunks read at half resolution     {half['decodes']} (level {half['level']}) for twice the extent")
    for name, text in VARIANTS.items():
        one = half if name == "half" else spawn(options, name)
        print(f"{text:44}{one['n'] / one['cpu']:12.0f}{one['n'] / one['wall']:10.0f}   {one['decodes']} decodes")


def growth(options) -> None:
    print("\nspots      crops/CPU-s   memory growth, MB")
    for n in (options.spots, 4 * options.spots, 16 * options.spots):
        one = spawn(options, "crops", spots=n)
        print(f"{n:6} {one['n'] / one['cpu']:15.0f} {one['growth']:19.0f}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunk", type=int, default=1024, help="side of a chunk, in pixels (default: 1024)")
    parser.add_argument("--side", type=int, default=20_000, help="side of the slide, in pixels")
    parser.add_argument("--spots", type=int, default=5000, help="number of spots")
    parser.add_argument("--sample", type=int, default=200, help="spots read by the methods that read one at a time")
    parser.add_argument("--pairs", type=int, default=3, help="rounds over all methods")
    parser.add_argument("--dir", type=Path, help="where to keep the slide; a temporary folder if left out")
    parser.add_argument("--quick", action="store_true", help="4,096 px, 256 spots, one round")
    for name in ("measure", "store", "tiff"):
        parser.add_argument(f"--{name}", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.quick:
        options.side, options.spots, options.sample, options.pairs = 4096, 256, 40, 1
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    if options.measure:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory(prefix="sqi_bench") as temporary:
        folder = options.dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        options.store = str(make_store(folder, options.side, options.chunk, options.spots))
        options.tiff = str(make_tiff(folder, options.side) or "")
        side, chunk = options.side, options.chunk
        print(f"{side} x {side} px, chunks (3, {chunk}, {chunk}), {options.spots} spots, {SIZE} px")
        print(f"{options.pairs} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        compare(options)
        growth(options)
    other = Path(__file__).with_name("write.py")
    if other.exists():
        spec = importlib.util.spec_from_file_location("write_benchmark", other)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(["--rows", "500", "--repeats", "2"] if options.quick else [])


if __name__ == "__main__":
    main()
