"""Whether maps follow their model, for every method and model, and the memory that a map of a whole slide takes.

    python benchmarks/explain.py faithfulness [--data FOLDER] [--models nsl ridge mlp mclstexp]
    python benchmarks/explain.py memory [--side 20000] [--folder FOLDER]

Faithfulness: models are fitted on C3-C5 of her2st (the patient of C2, so that scores would be those of replicates; maps
are compared with their own model, not with the truth) and explained on crops of C2, drawn by seed 0. Memory: a slide of
20,000 x 20,000 pixels of 0.5 um, four levels, drawn by repeating a toy section; NSL, one gene, at full resolution, in a
process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import sq_imputer as sqi
from sq_imputer import explain
from sq_imputer.genes.panel import choose_genes
from sq_imputer.section.slide import Slide
from sq_imputer.tl._structures import GLASS, density

GENES, N_GENES, CROPS = ("GNAS", "FN1"), 50, 12
PLAN = sqi.Plan(device="cpu", progress=False)


def faithfulness(args) -> None:
    sections = sqi.datasets.her2st(
        None if args.data is None else args.data / "her2st", sections=("C2", "C3", "C4", "C5")
    )
    slides = {name: Slide.from_sdata(sdata, section=name) for name, sdata in sections.items()}
    panel = list(dict.fromkeys([*GENES, *choose_genes([slides[name] for name in ("C3", "C4", "C5")], N_GENES)]))
    training = [slides[name].with_genes(panel) for name in ("C3", "C4", "C5")]
    test = slides["C2"]
    rows = np.sort(np.random.default_rng(0).choice(len(test), CROPS, replace=False))
    for name in args.models:
        start = time.time()
        model = sqi.get_model(name)().fit(training, PLAN)
        print(
            f"{name}: fitted in {time.time() - start:.0f} s; methods: {', '.join(explain.available(model))}", flush=True
        )
        moments = test.moments(model.needs) if model.needs.per_section else None
        sight = explain.Sight.of(model, GENES, moments)
        views = torch.from_numpy(np.stack([test.crops(view)[rows] for view in model.needs.views], axis=1))
        pixels = np.moveaxis(views[:, 0].numpy(), 1, -1)
        color = torch.tensor(pixels[density(pixels) > GLASS].mean(axis=0).round(), dtype=torch.uint8)
        for method in (method for method in explain.available(model) if method in explain.MAPS):
            start = time.time()
            found = pd.DataFrame(explain.faithfulness(sight, views, color, method), index=GENES)
            print(f"{name} {method} ({time.time() - start:.0f} s)\n{found.round(3).to_string()}", flush=True)


def draw(folder: Path, side: int) -> None:
    """A slide on disk, a model for it, and spots 100 um apart."""
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel
    from spatialdata.transformations import Identity, Scale

    toy = sqi.datasets.toy(1, size_px=2000, mpp=0.5, seed=3)["P1"]
    sqi.tl.fit(toy, "nsl", genes=["NUC1"], config={"size_px": 112, "epochs": 20}, plan=PLAN).save(folder / "model")
    tile = np.asarray(next(iter(toy.images["he"]["scale0"].ds.values())).data).astype(np.uint8)
    repeat = -(-side // tile.shape[1])
    image = da.tile(da.from_array(tile, chunks=(3, 1000, 1000)), (1, repeat, repeat))[:, :side, :side]
    places = {"global": Identity(), "um": Scale([0.5, 0.5], axes=("x", "y"))}
    he = Image2DModel.parse(
        image, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=places, scale_factors=[4, 4, 2]
    )
    steps = np.arange(200, side - 100, 200)
    centers = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2).astype(float)
    spots = ShapesModel.parse(centers, geometry=0, radius=55.0, transformations=places)
    SpatialData(images={"he": he}, shapes={"spots": spots}).write(folder / "slide.zarr")


def run(folder: Path) -> None:
    """Explain one gene, and say what the process has held at most."""
    import spatialdata

    sdata = spatialdata.read_zarr(folder / "slide.zarr")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.time()
    found = sqi.tl.explain(sdata, "NUC1", model=folder / "model", method="stains", mpp=0.5, device="cpu")
    peak, image = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, sdata.images["explanation"]
    print(f"{len(sdata.shapes['spots'])} crops, image {image.shape}, {image.nbytes / 1e9:.2f} GB as float32")
    print(f"peak {peak:.2f} GB, {before:.2f} GB of it before the call; {time.time() - start:.0f} s\n{found}")


def memory(args) -> None:
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for step in ("draw", "run"):
            subprocess.run([sys.executable, __file__, step, "--folder", folder, "--side", str(args.side)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faithfulness", "memory", "draw", "run"), help="draw and run: parts of memory")
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--models", nargs="+", default=["nsl", "ridge", "mlp", "mclstexp"])
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the slide is drawn; 3 GB")
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = {"draw": lambda: draw(args.folder, args.side), "run": lambda: run(args.folder)}
    steps.get(args.what, lambda: {"faithfulness": faithfulness, "memory": memory}[args.what](args))()


if __name__ == "__main__":
    main()
