"""What features of one's own network cost beyond the network: `pp.embed` beside LazySlide's `feature_extraction`.

    python benchmarks/embed.py [--data FOLDER] [--rounds 3]      # the second part needs: pip install lazyslide tifffile

First: a torch module, a plain NumPy function and a timm encoder (random weights) by `pp.embed` on the spots of her2st
C2, on a grid without a table, and on the cells of visium_hd_crop: rows, width, CPU-seconds.

Second: the same module on the same tiles by both. C2 is written as a SpatialData store and as a tiled, lossless TIFF
of the same pixels; tiles are 224 pixels at the resolution of the scan, side by side: nothing is resampled. The
transform is torchvision's (to float, normalize), the module is small: what both cost by themselves, on the same crops
in memory, is measured in the same process and taken off. Every measurement is a process of its own, one thread, after
imports, opening and one call to warm up; CPU time is user + system; medians over rounds. The features of both are
compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Small(nn.Module):
    """One convolution and two poolings: 48 features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 24, 16, stride=16)

    def forward(self, images):
        found = self.convolution(images).relu()
        return torch.cat([found.mean(dim=(2, 3)), found.amax(dim=(2, 3))], dim=1)


def normalize(crops):
    """Of a batch of uint8 crops."""
    return (crops.float() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def colors(crops: np.ndarray) -> np.ndarray:
    """A function of arrays: mean and spread of each channel."""
    values = crops.reshape(len(crops), 3, -1)
    return np.concatenate([values.mean(axis=2), values.std(axis=2)], axis=1)


def rows(data: Path | None) -> list[str]:
    """Rows of the first table."""
    import sq_imputer as sqi

    section = sqi.datasets.her2st(None if data is None else data / "her2st", sections=("C2",))["C2"]
    sqi.pp.grid(section, spacing_um=200.0)
    spec = sqi.CropSpec(154.0, SIZE)
    found = []
    for name, encoder, more in encoders():
        for shapes in ("spots", "grid"):
            found.append(
                measured(section, name, encoder, {**more, "spec": spec, "shapes_key": shapes}, f"C2, {shapes}")
            )
        if (cells := colon(data)) is not None:
            found.append(measured(cells, name, encoder, {**more, **OF_COLON}, "visium_hd_crop, cells"))
    return found


OF_COLON = {"image_key": "crop_hires_image", "shapes_key": "crop_cell_segmentations", "table_key": None}


def encoders():
    """Names, encoders and what goes with them."""
    yield "module", Small(), {"name": "small", "transform": normalize}
    yield "NumPy function", colors, {"name": "colors"}
    if importlib.util.find_spec("timm") is not None:
        import timm
        from safetensors.torch import save_file

        torch.manual_seed(0)
        model = timm.create_model("test_vit", pretrained=False, num_classes=0)
        path = Path(tempfile.mkdtemp()) / "test_vit.safetensors"
        save_file(model.state_dict(), path)
        yield "timm:test_vit", "timm:test_vit", {"weights": path}


def colon(data: Path | None):
    """The crop of Visium HD, whose image has 34 µm per pixel: a test of the format."""
    import os

    import spatialdata_io

    import sq_imputer as sqi

    folder = (data or Path(os.environ["SQ_IMPUTER_DATA"])) / "visium_hd_crop"
    OF_COLON["spec"] = sqi.CropSpec(34.3 * SIZE, SIZE)
    return spatialdata_io.visium_hd(folder, dataset_id="crop", load_segmentations_only=False)


def measured(sdata, name: str, encoder, how: dict, where: str) -> str:
    import sq_imputer as sqi

    size = how["spec"].size_px
    if name.startswith("timm"):
        size = sqi.encoders.encoder_card(name).size_px
        how = {**how, "spec": sqi.CropSpec(how["spec"].extent_um, size)}
    start = time.process_time()
    sqi.pp.embed(sdata, encoder, **how)
    seconds = time.process_time() - start
    slot = how.get("name") or name.replace(":", "_")
    table = sdata.tables.get(f"{slot}_features")
    shape = table.shape if table is not None else sdata.tables["table"].obsm[f"X_{slot}"].shape
    if table is not None:
        del sdata.tables[f"{slot}_features"]
    return f"| {name} | {where} | {shape[0]} x {shape[1]} | {size} | {seconds:.2f} |"


# Beside LazySlide ---------------------------------------------------------------------------------


def prepare(folder: Path, data: Path | None) -> None:
    """C2 as a store and as a TIFF of the same pixels, and the tiles of both."""
    import geopandas as gpd
    import tifffile
    from shapely import Point
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel

    import sq_imputer as sqi

    section = sqi.datasets.her2st(None if data is None else data / "her2st", sections=("C2",))["C2"]
    pixels = section["he"]["scale0"].image.data.compute()
    tifffile.imwrite(
        folder / "c2.tif", pixels.transpose(1, 2, 0), tile=(256, 256), compression="deflate", photometric="rgb"
    )
    steps = [np.arange(SIZE, side - 2 * SIZE, SIZE) for side in pixels.shape[1:]]
    y, x = (axis.ravel() for axis in np.meshgrid(*steps, indexing="ij"))
    np.save(folder / "tiles.npy", np.stack([x, y], axis=1))
    centers = [Point(a + SIZE / 2, b + SIZE / 2) for a, b in zip(x, y, strict=True)]
    circles = gpd.GeoDataFrame({"radius": np.full(len(x), SIZE / 2)}, geometry=centers)
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), chunks=(3, 512, 512), c_coords=["r", "g", "b"])
    sdata = SpatialData(images={"he": image}, shapes={"tiles": ShapesModel.parse(circles)})
    sdata.write(folder / "c2.zarr")


def transform():
    from torchvision.transforms import v2

    return v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean=MEAN, std=STD)])


def alone(crops: np.ndarray) -> float:
    """CPU-seconds of transform and module on crops that lie in memory."""
    module, change = Small().eval(), transform()
    start = time.process_time()
    with torch.inference_mode():
        for first in range(0, len(crops), BATCH):
            module(change(torch.from_numpy(crops[first : first + BATCH])))
    return time.process_time() - start


def ours(folder: Path) -> tuple[np.ndarray, float, float]:
    import spatialdata

    import sq_imputer as sqi

    sdata = spatialdata.read_zarr(folder / "c2.zarr")
    how = {"name": "small", "transform": transform(), "spec": sqi.CropSpec(SIZE * 0.5, SIZE), "mpp": 0.5}
    how |= {"shapes_key": "tiles", "table_key": None, "device": "cpu"}
    crops = np.concatenate(
        [
            batch
            for _, batch in sqi.Slide.from_sdata(sdata, "he", "tiles", None, mpp=0.5).crops(how["spec"]).batches(BATCH)
        ]
    )
    alone(crops[:BATCH])
    module = alone(crops)
    del crops
    few = spatialdata.SpatialData(images={"he": sdata["he"]}, shapes={"tiles": sdata["tiles"][:5]})
    sqi.pp.embed(few, Small(), **how)
    sdata = spatialdata.SpatialData(
        images={"he": sdata["he"]}, shapes={"tiles": sdata["tiles"]}
    )  # in memory, as theirs
    start = time.process_time()
    sqi.pp.embed(sdata, Small(), **how)
    seconds = time.process_time() - start
    return np.asarray(sdata.tables["small_features"].X), seconds, module


def theirs(folder: Path) -> tuple[np.ndarray, float, float]:
    import geopandas as gpd
    import lazyslide as zs
    from lazyslide.preprocess._tiles import _add_tiles
    from shapely import box
    from wsidata import TileSpec, open_wsi

    wsi = open_wsi(folder / "c2.tif", store=None)
    corners = np.load(folder / "tiles.npy")
    tiles = gpd.GeoDataFrame(
        {"tile_id": np.arange(len(corners)), "tissue_id": 0},
        geometry=[box(x, y, x + SIZE, y + SIZE) for x, y in corners],
    )
    spec = TileSpec(height=SIZE, width=SIZE, stride_height=SIZE, stride_width=SIZE)
    _add_tiles(wsi, tiles, spec, "tiles")
    _add_tiles(wsi, tiles.iloc[:5], spec, "few")
    how = {"transform": transform(), "device": "cpu", "batch_size": BATCH, "pbar": False, "amp": False}
    zs.tl.feature_extraction(wsi, Small().eval(), tile_key="few", key_added="few_small", **how)
    start = time.process_time()
    zs.tl.feature_extraction(wsi, Small().eval(), tile_key="tiles", key_added="small", **how)
    seconds = time.process_time() - start
    return np.asarray(wsi.tables["small"].X), seconds, float("nan")


def beside(data: Path | None, n_rounds: int) -> str:
    """The second table."""
    with tempfile.TemporaryDirectory() as name:
        folder, found = Path(name), {"ours": [], "theirs": []}
        prepare(folder, data)
        for _ in range(n_rounds):
            for who, results in found.items():
                command = [sys.executable, __file__, "--one", who, "--folder", name]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results.append(json.loads(done.stdout.splitlines()[-1]))
        features = [np.load(folder / f"{who}.npy") for who in found]
        n = len(features[0])
    module = statistics.median(one["module"] for one in found["ours"])
    cost = {who: statistics.median(one["seconds"] for one in results) for who, results in found.items()}
    further = {who: seconds - module for who, seconds in cost.items()}
    lines = [f"{n} tiles of {SIZE} px; transform and module alone: {module:.2f} CPU-seconds"]
    for who, label in (("ours", "pp.embed"), ("theirs", "LazySlide feature_extraction")):
        lines.append(f"| {label} | {cost[who]:.2f} | {further[who]:.2f} | {1000 * further[who] / n:.2f} |")
    lines.append(f"ratio beyond the module: {further['theirs'] / further['ours']:.1f}")
    lines.append(f"largest difference of features: {np.abs(features[0] - features[1]).max():.2g}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if options.one:
        features, seconds, module = (ours if options.one == "ours" else theirs)(options.folder)
        np.save(options.folder / f"{options.one}.npy", features)
        print(json.dumps({"seconds": seconds, "module": module}))
        return
    print("| encoder | rows of | features | crop (px) | CPU-seconds |\n|---|---|---|---|---|")
    print("\n".join(rows(options.data)), flush=True)
    if all(importlib.util.find_spec(name) for name in ("lazyslide", "tifffile")):
        print(beside(options.data, options.rounds))


if __name__ == "__main__":
    main()
