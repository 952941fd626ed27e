"""The demo: the whole path on toy tissue, from an image with spots to a scored table, a picture and a store."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer import Plan, datasets, pl, pp, tl
from sq_imputer.device import one_thread
from sq_imputer.errors import BadInput
from sq_imputer.section.slide import Slide
from sq_imputer.tl._score import scored

if TYPE_CHECKING:
    from pandas import DataFrame
    from spatialdata import SpatialData

SMALL = {"hidden": 64, "members": 4, "epochs": 60}
MODELS = {"nsl": {"epochs": 40}, "mlp": SMALL, "ridge": None}  # with configs; the last one is drawn
SHOWN = ("NUC", "GLD", "STR")


def run(folder: Path, *, overwrite: bool = False, seed: int = 0) -> DataFrame:
    """Fit on two toy patients, predict the third at its spots and on a grid, and leave the results in a folder.

    Parameters
    ----------
    folder
        Where `score.csv`, `prediction.png` and `section.zarr` go.
    overwrite
        Replace what an earlier demo left there.
    seed
        Of the tissue and of the fits.

    Returns
    -------
    Means over genes with intervals over blocks, a row per predictor and metric, as :func:`sq_imputer.tl.score` says.
    """
    _make_room(folder, overwrite)
    with one_thread():  # all of it is small
        return _run(folder, seed)


def _run(folder: Path, seed: int) -> DataFrame:
    sections = datasets.toy(3, seed=seed)
    third = sections.pop("P3")
    third.write(folder / "section.zarr")
    pp.grid(third, spacing_um=75, diameter_um=45, key_added="grid")
    training = [Slide.from_sdata(sdata) for sdata in sections.values()]  # they keep the features of their crops
    genes, plan = 30, Plan(seed=seed)
    for name, config in MODELS.items():
        fitted = tl.fit(training, name, genes=genes, config=config, plan=plan)
        genes = fitted.genes
        tl.predict(third, fitted, plan=plan)
        tl.predict(third, fitted, shapes_key="grid", key_added="imputed_grid", plan=plan)
    scores = scored(third, reference=training, seed=seed)
    scores.per_gene.to_csv(folder / "score.csv", index=False)
    _draw(third, genes, folder / "prediction.png")
    return scores.per_section()


def _make_room(folder: Path, overwrite: bool) -> None:
    made = [folder / name for name in ("score.csv", "prediction.png", "section.zarr")]
    there = [path for path in made if path.exists()]
    if there and not overwrite:
        raise BadInput(f"'{there[0]}' exists already; pass --overwrite, or --folder another one.")
    for path in there:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


def _draw(sdata: SpatialData, genes: Sequence[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    chosen = [next(gene for gene in genes if gene.startswith(kind)) for kind in SHOWN]
    axes = pl.compare(sdata, chosen)
    axes[0][0].figure.savefig(path, dpi=120)
