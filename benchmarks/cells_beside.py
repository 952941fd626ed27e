"""Features at cell spacing: `texture` of windows together beside LazySlide's own color and texture of tiles.

    python benchmarks/cells_beside.py --peer PYTHON [--data FOLDER] [--rows 50000] [--tiles 300]
        [--json benchmarks/figures.json]

`--peer` is a Python of its own that has lazyslide and tifffile. Cells at 5,000 per mm² lie on a piece of her2st C3 at
.69 µm per pixel, which is written as a SpatialData store and as a tiled, lossless TIFF of the same pixels. A cell's
tile is 150 µm wide (217 pixels). `pp.embed` describes all of them by the 231 numbers of `texture`. LazySlide describes
some, as each costs it the same: by the mean of red, green and blue (`split_rgb`, 3 numbers) and by `haralick_texture`
(5 numbers of gray levels), which need no weights either. Every figure is of a process of its own with one thread, after
imports, opening and one call to warm up: CPU-seconds, user and system.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

MPP, PER_MM2, EXTENT_UM = 0.69, 5000.0, 150.0
FEW = 5  # to warm up


def prepare(folder: Path, data: Path | None, n: int) -> None:
    """The piece as a store and as a TIFF, and where cells are."""
    import tifffile
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel

    import sq_imputer as sqi

    sdata = sqi.datasets.her2st(None if data is None else data / "her2st", sections=("C3",))["C3"]
    edge = int(np.sqrt(n / PER_MM2) * 1000 / MPP)
    margin = int(EXTENT_UM / MPP)
    side = edge + 2 * margin
    image = np.asarray(sqi.Slide.from_sdata(sdata).frame.pyramid.levels[0][:3, 3000 : 3000 + side, 3000 : 3000 + side])
    xy = np.random.default_rng(0).uniform(margin, margin + edge, (n, 2))
    np.save(folder / "cells.npy", xy)
    rgb = np.ascontiguousarray(image.transpose(1, 2, 0))
    tifffile.imwrite(folder / "piece.tif", rgb, tile=(256, 256), compression="deflate", photometric="rgb")
    parsed = Image2DModel.parse(image, dims=("c", "y", "x"), chunks=(3, 512, 512), c_coords=["r", "g", "b"])
    cells = ShapesModel.parse(xy, geometry=0, radius=7.0)
    SpatialData(images={"he": parsed}, shapes={"cells": cells}).write(folder / "piece.zarr")


def ours(folder: Path, _: int) -> dict[str, float]:
    """Rows per CPU-second of all cells."""
    import spatialdata
    import torch

    import sq_imputer as sqi

    torch.set_num_threads(1)
    sdata = spatialdata.read_zarr(folder / "piece.zarr")
    how = {"spec": sqi.CropSpec(EXTENT_UM, 224), "mpp": MPP, "shapes_key": "cells", "table_key": None, "device": "cpu"}
    few = spatialdata.SpatialData(images={"he": sdata["he"]}, shapes={"cells": sdata["cells"][:FEW]})
    sqi.pp.embed(few, "texture", **how)
    whole = spatialdata.SpatialData(images={"he": sdata["he"]}, shapes={"cells": sdata["cells"]})
    start = time.process_time()
    sqi.pp.embed(whole, "texture", **how)
    seconds = time.process_time() - start
    return {"sq_imputer, texture": len(sdata["cells"]) / seconds}


def theirs(folder: Path, n: int) -> dict[str, float]:
    """Rows per CPU-second of some tiles, by what LazySlide says of them without a network."""
    import geopandas as gpd
    import lazyslide as zs
    import torch
    from lazyslide.preprocess._tiles import _add_tiles
    from shapely import box
    from wsidata import TileSpec, open_wsi

    torch.set_num_threads(1)
    wsi, side = open_wsi(folder / "piece.tif", store=None), round(EXTENT_UM / MPP)
    corners = np.rint(np.load(folder / "cells.npy")[:n] - side / 2).astype(int)
    spec = TileSpec(height=side, width=side, stride_height=side, stride_width=side)
    squares = [box(x, y, x + side, y + side) for x, y in corners]
    tiles = gpd.GeoDataFrame({"tile_id": np.arange(n), "tissue_id": 0}, geometry=squares)
    _add_tiles(wsi, tiles, spec, "tiles")
    _add_tiles(wsi, tiles.iloc[:FEW], spec, "few")
    found = {}
    for model in ("split_rgb", "haralick_texture"):
        zs.tl.tile_prediction(wsi, model, tile_key="few", device="cpu", pbar=False)
        start = time.process_time()
        zs.tl.tile_prediction(wsi, model, tile_key="tiles", device="cpu", pbar=False)
        found[f"LazySlide, {model}"] = n / (time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--peer", default=sys.executable, help="a Python that has lazyslide")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--tiles", type=int, default=300)
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.one:
        who, folder = args.one
        print(json.dumps((ours if who == "ours" else theirs)(Path(folder), args.tiles)))
        return
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), args.data, args.rows)
        for who, python in (("ours", sys.executable), ("theirs", args.peer)):
            command = [python, __file__, "--one", who, name, "--tiles", str(args.tiles)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found |= json.loads(done.stdout.splitlines()[-1])
    for what, rate in found.items():
        print(f"{what}: {rate:.0f} rows per CPU-second")
    if args.json is not None:
        figures = json.loads(args.json.read_text())
        figures["cells beside LazySlide"] = {what: round(rate, 1) for what, rate in found.items()}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
