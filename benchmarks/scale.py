"""Cells of one slide by the thousand: described together against window by window, interleaved, from store to store.

    python benchmarks/scale.py [--data FOLDER] [--side 40000] [--rows 10000 100000] [--genes 300] [--crops 60]
        [--json benchmarks/figures.json]
    python benchmarks/scale.py --simulate [--measured FILE]

her2st C3 is repeated, mirrored at its seams, to a square, which is written once, piece by piece, to a store with its
pyramid. Cells lie on it at 5,000 per mm², in a square as large as they need. `tl.predict` predicts all of them with the
default `ridge`, fitted on C3 as it is, into the store (dense=True), and a few of them window by window (dense=False),
each in a block of the slide of its own, which costs the same for every row. Every figure is of a process of its own:
seconds of its CPU within `tl.predict`, the most memory that it ever held, imports included, and what the table takes on
the disk. Agreement is Pearson's, per gene, of the few cells read in both ways: what a cell is described by together
does not hang on the other cells.

`--simulate` takes the costs that a run has left in `--measured` and tells time and cost of 1,000 slides of 100,000 x
100,000 px on 1 to 256 workers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

PER_MM2, MPP, CHUNK = 5000.0, 0.69, 1024
EURO_PER_HOUR = 0.04  # of a core
SHARED_GB_S = 10.0  # that all workers read of one file system together


def tissue(data: Path | None):
    """The section C3, and a tile of it that can be repeated `(3, 4096, 4096)`."""
    import sq_imputer as sqi

    sdata = sqi.datasets.her2st(None if data is None else data / "her2st", sections=("C3",))["C3"]
    image = sqi.Slide.from_sdata(sdata).frame.pyramid.levels[0]
    middle = np.asarray(image[:3, 3000:5048, 3000:5048])
    pair = np.concatenate([middle, middle[:, :, ::-1]], axis=2)
    return sdata, np.concatenate([pair, pair[:, ::-1]], axis=1)


def write_slide(folder: Path, data: Path | None, side: int, rows: list[int], genes: int) -> None:
    """A store with the slide and cells by thousands, and a model fitted on C3 beside it."""
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale

    import sq_imputer as sqi

    sdata, tile = tissue(data)
    sqi.tl.fit(sdata, "ridge", genes=genes).save(folder / "model")
    times = -(-side // tile.shape[1])
    whole = da.tile(da.from_array(tile, chunks=(3, CHUNK, CHUNK), name=False), (1, times, times))[:, :side, :side]
    place = {"global": Identity(), "um": Scale([MPP, MPP], axes=("x", "y"))}
    image = Image2DModel.parse(
        whole, dims=("c", "y", "x"), scale_factors=[2, 2, 2], chunks=(3, CHUNK, CHUNK), transformations=place
    )
    shapes = {}
    for n in rows:
        edge = np.sqrt(n / PER_MM2) * 1000 / MPP
        xy = np.random.default_rng(0).uniform(0, edge, (n, 2))
        xy = xy[np.argsort(xy[:, 1] // 200 * 1e6 + xy[:, 0])]  # as segmentation lists them, stripe by stripe
        shapes[f"cells{n}"] = ShapesModel.parse(xy, geometry=0, radius=7.0, transformations=place)
    SpatialData(images={"he": image}, shapes=shapes).write(folder / "slide.zarr")


def predict(folder: Path, n: int, crops: int, dense: bool) -> None:
    """One figure, printed as JSON: of all cells, or of some in memory, whose prediction is kept."""
    import torch

    import sq_imputer as sqi

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sdata, key = folder / "slide.zarr", f"cells{n}"
    if crops:
        sdata = sqi.io.read_zarr(sdata, elements=["he", key])
        rows = np.sort(np.random.default_rng(1).choice(n, crops, replace=False))
        sdata.shapes[key] = sdata.shapes[key].iloc[rows]
        sdata.path = None
    start = time.process_time()
    how = {"shapes_key": key, "table_key": None, "key_added": f"predicted{n}", "progress": False}
    sqi.tl.predict(sdata, folder / "model", mpp=MPP, dense=dense, overwrite=True, **how)
    seconds = time.process_time() - start
    if crops:
        np.save(folder / f"{n}-{dense}.npy", sdata.tables[f"predicted{n}"].layers["ridge"])
    size = {} if crops else {"disk_mb": on_disk(folder / "slide.zarr" / "tables" / f"predicted{n}")}
    print(json.dumps({"rows": crops or n, "seconds": seconds, "peak_mb": most_memory(), **size}))


def most_memory() -> float:
    """MiB that this process held at most: Linux starts what getrusage says with the peak of the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024


def on_disk(folder: Path) -> float:
    """MiB of the files of a table, those that have two names once."""
    found = {(s.st_dev, s.st_ino): s.st_size for s in (path.stat() for path in folder.rglob("*") if path.is_file())}
    return sum(found.values()) / 2**20


def measured(folder: Path, n: int, crops: int, dense: bool) -> dict:
    command = [sys.executable, __file__, "--one", str(folder), str(n), str(crops), str(int(dense))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def agreement(folder: Path, n: int) -> np.ndarray:
    """Pearson per gene of what both ways say of the same cells."""
    one, other = (np.load(folder / f"{n}-{dense}.npy") for dense in (True, False))
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)])


def run(args) -> None:
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        folder, found = Path(name), []
        write_slide(folder, args.data, args.side, args.rows, args.genes)
        for n in sorted(args.rows):
            few, all_ = measured(folder, n, args.crops, False), measured(folder, n, 0, True)
            measured(folder, n, args.crops, True)
            r = agreement(folder, n)
            rate, base = n / all_["seconds"], args.crops / few["seconds"]
            line = {"rows": n, "rate": rate, "crop_rate": base, "peak_mb": all_["peak_mb"], "least_r": float(r.min())}
            found.append({**line, "seconds": all_["seconds"], "median_r": float(np.median(r))})
            print(
                f"{n:>9,} rows: {rate:.0f} rows per CPU-second together, {base:.1f} by windows, {rate / base:.0f} x; "
                f"{all_['peak_mb']:.0f} MB, {all_['disk_mb']:.0f} on disk; r of genes {r.min():.4f} to {r.max():.4f}",
                flush=True,
            )
            if args.json is not None:
                keep(args.json, args.genes, all_, few, found[-1])
        args.measured.write_text(json.dumps(found, indent=2) + "\n")


def keep(path: Path, genes: int, all_: dict, few: dict, line: dict) -> None:
    """Bring the file of figures up to date."""
    figures = json.loads(path.read_text())
    into, more = figures["scale"], "" if genes == 300 else f", {genes:,} genes"
    for name, one in ((f"together, {all_['rows']:,}", all_), ("window by window", few)):
        known = {"rows": one["rows"], "seconds": round(one["seconds"], 1), "peak_mib": round(one["peak_mb"])}
        known |= {"disk_mib": round(one["disk_mb"])} if "disk_mb" in one else {}
        into[name + more] = known
    into["r of genes" + more] = {"median": round(line["median_r"], 5), "least": round(line["least_r"], 5)}
    path.write_text(json.dumps(figures, indent=1) + "\n")


def simulate(args) -> None:
    """Two costs, per pixel and per row, of the two largest runs; then arithmetic, and where it stops."""
    found = json.loads(args.measured.read_text())
    mm2 = np.array([one["rows"] / PER_MM2 for one in found])
    seconds = np.array([one["seconds"] for one in found])
    slope, fixed = np.polyfit(mm2, seconds, 1)
    print("measured beside the model, CPU-seconds:")
    for one, area in zip(found, mm2, strict=True):
        model = fixed + slope * area
        print(f"  {one['rows']:>9,} rows, {area:6.1f} mm²: {one['seconds']:7.0f} measured, {model:7.0f} by the model")
    side_mm = 100_000 * 0.25 / 1000  # a scan at 40x
    each, gb = fixed + slope * side_mm**2 * args.tissue, 3e10 / 1e9 * args.tissue
    print(f"100,000 x 100,000 px at .25 µm, {args.tissue:.0%} tissue: {each / 3600:.2f} core-hours, {gb:.0f} GB")
    for workers in 4 ** np.arange(5):
        hours = max(1000 * each / workers, 1000 * gb / SHARED_GB_S) / 3600
        cost = workers * hours * EURO_PER_HOUR
        print(f"  {workers:>4} workers: 1,000 slides in {hours:8.1f} h, {cost:7.0f} EUR at {EURO_PER_HOUR} a core-hour")
    most = each * SHARED_GB_S / gb
    print(f"reading at {SHARED_GB_S:g} GB/s in all is the limit from {most:,.0f} workers on")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--scratch", type=Path, default=None, help="for the store, 7 GB for a side of 40,000")
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--crops", type=int, default=60)
    parser.add_argument("--tissue", type=float, default=0.5, help="share of a slide, for --simulate")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    parser.add_argument("--measured", type=Path, default=Path("scale.json"))
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        predict(Path(args.one[0]), *map(int, args.one[1:3]), args.one[3] == "1")
    elif args.simulate:
        simulate(args)
    else:
        run(args)


if __name__ == "__main__":
    main()
