"""What models that look at the whole section cost by its rows: training steps, predictions, memory.

    python benchmarks/around.py [--models triplex bg_triplex dkan] [--rows 1000 10000 100000] [--spots 5000]
        [--json benchmarks/figures.json]
    python benchmarks/around.py --fit [--data FOLDER] [--models ...] [--json benchmarks/figures.json]

Spots lie 100 µm apart on a hexagonal lattice, 128 of them are measured (250 genes), so that an epoch is two steps of 64
rows, each of which looks at all rows of the section. Features and maps are made up: pixels are neither read nor
described, which costs the same for every row and model of the same views. A step is the difference of fits of 1 and 3
epochs, per step. "section" is a prediction of 64 rows, in which the section is looked at; "row" what each of 936 more
adds. `tl.predict` is asked for `--spots` spots of another section, result and table included, by a fitted model.
Every line is of a process of its own: seconds of its CPU, one core, and the most memory that it ever held, imports
included. Models have their defaults. `--fit`: a fit on real tissue, her2st C3 to C5 and 250 genes, where nothing is
known of the sections: "seen" is reading and describing their pixels, "fit" training on all rows, "error" the fits on
parts of them that size the standard deviation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scale import most_memory

PITCH_UM, MPP, MEASURED, GENES, BATCH = 100.0, 2.0, 128, 250, 64
EPOCHS = (1, 3)  # of the two fits
MORE = 1000  # rows of the longer prediction


def toy(n: int):
    """A section of so many spots, whose image is drawn where somebody looks."""
    import anndata as ad
    import dask.array as da
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    rng, side = np.random.default_rng(0), int(np.ceil(np.sqrt(n)))
    line, along = np.divmod(np.arange(n), side)
    xy = np.stack([along + line % 2 / 2, line * np.sqrt(3) / 2], axis=1) * PITCH_UM / MPP + 200
    place = {"global": Identity(), "um": Scale([MPP, MPP], axes=("x", "y"))}
    size = int(side * PITCH_UM / MPP) + 500
    pixels = da.random.default_rng(0).integers(80, 240, (3, size, size), dtype="uint8", chunks=(3, 1024, 1024))
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations=place)
    shapes = ShapesModel.parse(xy, geometry=0, radius=27.0, transformations=place)
    counts = ad.AnnData(rng.poisson(3.0, (MEASURED, GENES)).astype(np.float32))
    counts.obs_names, counts.var_names = [str(k) for k in range(MEASURED)], [f"G{k}" for k in range(GENES)]
    counts.obs["region"], counts.obs["spot"] = "spots", rng.choice(n, MEASURED, replace=False)
    counts.obs["region"] = counts.obs["region"].astype("category")
    table = TableModel.parse(counts, region="spots", region_key="region", instance_key="spot")
    return SpatialData(images={"he": image}, shapes={"spots": shapes}, tables={"table": table})


def make_up() -> None:
    """Let features be made up, those of tiles and parts of crops alike for all rows, and maps be empty."""
    from sq_imputer.section import seen

    def computed(slide, key, encode, neighbors, device, known=None):
        of_row = neighbors > 1 or isinstance(encode, seen.Tokens)
        shape = (1 if of_row else len(slide), *([neighbors**2] if neighbors > 1 else []), encode.card.dim)
        values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return seen.Known(np.broadcast_to(values, (len(slide), *shape[1:])), encode.provenance)

    def maps(frame, centers, needs, nuclei, label):
        return np.broadcast_to(np.uint8(0), (len(centers), 2, 4, needs.maps_px, needs.maps_px))

    seen.Seen._computed, seen.maps_of = computed, maps


def seconds(what: Callable):
    """What comes of it, and seconds of the CPU."""
    start = time.process_time()
    found = what()
    return found, time.process_time() - start


def unfitted(name: str, genes: list[str]):
    """A model with its defaults; one that needs to be told of genes is told how they are spelled."""
    import sq_imputer as sqi

    model = sqi.get_model(name)
    return model(model.Config(), *([sqi.GeneKnowledge.lexical(genes)] if name == "dkan" else []))


def costs(name: str, n: int, spots: bool) -> dict:
    """The figures of a model and a section of so many rows."""
    import torch

    import sq_imputer as sqi

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    make_up()
    sdata, genes = toy(n), [f"G{k}" for k in range(GENES)]
    model = unfitted(name, genes)

    def slide(of):
        return sqi.Slide.from_sdata(of, mpp=MPP).with_genes(genes, "log1p_cp10k")

    def fit(slide, epochs: int):
        plan = sqi.Plan(epochs=epochs, validation=0.0, calibration=0, device="cpu", progress=False)
        return seconds(lambda: model.fresh().fit(slide, plan))

    fitted, _ = fit(slide(toy(MEASURED)), 1)  # imports, and what is done once per process
    if spots:
        how = {"shapes_key": "spots", "table_key": None, "mpp": MPP, "device": "cpu", "progress": False}
        return {"spots": n, "seconds": round(seconds(lambda: sqi.tl.predict(sdata, fitted, **how))[1], 1)}
    seen, steps = slide(sdata), MEASURED // BATCH
    fitted, once = fit(seen, EPOCHS[0])
    step = (fit(seen, EPOCHS[1])[1] - once) / (steps * (EPOCHS[1] - EPOCHS[0]))
    section = seconds(lambda: fitted.predict(seen, rows=np.arange(BATCH), device="cpu"))[1]
    more = seconds(lambda: fitted.predict(seen, rows=np.arange(MORE), device="cpu"))[1]
    row = (more - section) / (MORE - BATCH)
    known = {"step, ms": step * 1000, "besides, s": once - steps * step, "section, s": section, "row, ms": row * 1000}
    return {name: round(value, 2) for name, value in known.items()} | {"peak, MiB": round(most_memory())}


def costs_of_fit(name: str, data: Path | None) -> dict:
    """Seconds of the parts of a fit on three sections of her2st."""
    import torch

    import sq_imputer as sqi
    from sq_imputer.predictor import calibrate

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sections = sqi.datasets.her2st(None if data is None else data / "her2st", ["C3", "C4", "C5"])
    slides = [sqi.Slide.from_sdata(section) for section in sections.values()]
    genes = sqi.genes.choose_genes(slides, GENES)
    slides = [slide.with_genes(genes) for slide in slides]
    model = unfitted(name, genes)
    plan = sqi.Plan(device="cpu", progress=False)
    once = sqi.Plan(device="cpu", progress=False, epochs=1, calibration=0)
    _, seen = seconds(lambda: model.fresh().fit(slides, once))
    error = 0.0

    def timed(*args, own=calibrate.measure) -> None:
        nonlocal error
        error += seconds(lambda: own(*args))[1]

    calibrate.measure = timed  # called once: its fits have a plan without it, which returns at once
    whole = seconds(lambda: model.fresh().fit(slides, plan))[1]
    rows = sum(map(len, slides))
    return {"rows": rows, "seen": round(seen), "fit": round(whole - error), "error": round(error)}


def measured(name: str, n: int, spots: bool) -> dict:
    command = [sys.executable, __file__, "--one", name, str(n), str(int(spots))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def keep(path: Path | None, title: str, name: str, found: dict) -> None:
    """Print figures, and bring a file of them up to date if there is one."""
    print(f"{title:>10} {name:10} {found}", flush=True)
    if path is not None:
        figures = json.loads(path.read_text())
        figures.setdefault("around", {}).setdefault(title, {})[name] = found
        path.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["triplex", "bg_triplex", "dkan"])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--spots", type=int, default=5_000, help="for tl.predict; 0 leaves it out")
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    parser.add_argument("--fit", action="store_true", help="of real tissue, and nothing else")
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fit:
        for name in args.models:
            keep(args.json, "tl.fit", name, costs_of_fit(name, args.data))
        return
    if args.one:
        print(json.dumps(costs(args.one[0], int(args.one[1]), args.one[2] == "1")))
        return
    asked = [(str(n), n, False) for n in args.rows] + [("tl.predict", args.spots, True)] * bool(args.spots)
    for title, n, spots in asked:
        for name in args.models:
            keep(args.json, title, name, measured(name, n, spots))


if __name__ == "__main__":
    main()
