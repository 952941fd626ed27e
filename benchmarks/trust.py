"""What is worth believing: correction by measured spots, intervals, and genes that are called reliable.

    python benchmarks/trust.py correct [--data FOLDER] [--json benchmarks/figures.json] [--sets her2st mouse_brain]

`correct`: some spots of a section are measured, the others are predicted and then corrected by these, as
:func:`sq_imputer.tl.correct` does with its defaults (`krige`, 20 components). her2st C2 to C5: `ridge` with its
defaults is fitted on the other three sections of the tumor. Mouse brain: `ridge` is fitted on the measured spots of the
same section; residuals are of five spatial blocks beyond a buffer of 150 µm, and the spots that were not measured are
predicted by the fit on all that were. Measured are 10, 25 or 50 % of the spots at random, or the left half. Genes are
chosen on the training rows. "interpolation" is the same kriging of what was measured, without any image. Mean Pearson
over genes at the spots that were not measured (given depth in brackets in the pages), mean over sections. Beside: the
share of measurements there within ± 1.96 of the corrected standard deviation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import frozen
import numpy as np
import pandas as pd
import torch

import sq_imputer as sqi
from sq_imputer.genes.panel import choose_genes
from sq_imputer.genes.units import counting_variance
from sq_imputer.scores import metrics
from sq_imputer.scores.splits import folds
from sq_imputer.tl._kriging import krige

LAYOUTS = ("10%", "25%", "50%", "half")
SECTIONS = ("C2", "C3", "C4", "C5")
BUFFER_UM = 150.0
PLAN = sqi.Plan(device="cpu")


def scored(slide) -> np.ndarray:
    return np.flatnonzero(slide.measured & (np.nan_to_num(slide.depth) > 0))


def measured(slide, layout: str, seed: int) -> np.ndarray:
    """Which of the rows with counts are taken to be measured."""
    rows = scored(slide)
    if layout == "half":
        x = slide.xy_um[rows, 0]
        return rows[x < np.median(x)]
    n = round(float(layout.rstrip("%")) / 100 * len(rows))
    return np.sort(np.random.default_rng(seed).permutation(rows)[:n])


def predicted(slide, known: np.ndarray, asked: np.ndarray, training: list, n_genes: int):
    """Genes, and what ridge says of known rows without having seen them and of the others."""
    ridge = sqi.get_model("ridge")
    if training:
        genes = choose_genes(training, n_genes)
        model = ridge().fit([one.with_genes(genes) for one in training], PLAN)
        said = [model.predict(slide, rows=rows, device="cpu").mean.numpy() for rows in (known, asked)]
        return genes, *said
    genes = choose_genes([slide.take(known)], n_genes)
    slide = slide.with_genes(genes)
    own = np.zeros((len(known), len(genes)), dtype=np.float32)
    for split in folds(slide.xy_um[known], 5, buffer_um=BUFFER_UM):
        model = ridge().fit([slide.take(known[split.train])], PLAN)
        own[split.test] = model.predict(slide, rows=known[split.test], device="cpu").mean.numpy()
    model = ridge().fit([slide.take(known)], PLAN)
    return genes, own, model.predict(slide, rows=asked, device="cpu").mean.numpy()


def corrected(slide, known: np.ndarray, asked: np.ndarray, own: np.ndarray, other: np.ndarray):
    """Kriging of the residuals, and the standard deviation of a measurement as `tl.correct` makes it."""
    y = slide.expression[known].astype(float)
    noise = counting_variance(own, slide.depth[known], slide.unit)
    field = krige(y - own, noise, slide.xy_um[known], slide.xy_um[asked])
    error = y - own - field.left_mean
    left = np.maximum((error**2).mean(axis=0) - field.left_var.mean(axis=0), 0.05 * (error**2).mean(axis=0))
    return other + field.mean, np.sqrt(field.var + left)


def case(slide, training: list, layout: str, n_genes: int, seed: int) -> list[dict]:
    """Scores of one section with some spots measured, at the others."""
    known = measured(slide, layout, seed)
    asked = np.setdiff1d(scored(slide), known)
    genes, own, other = predicted(slide, known, asked, training, n_genes)
    slide = slide.with_genes(genes)
    truth, depth = slide.expression[asked].astype(float), slide.depth[asked]
    start = time.process_time()
    mean, std = corrected(slide, known, asked, own, other)
    seconds = time.process_time() - start
    usual = np.repeat(slide.expression[known].mean(axis=0, dtype=float)[None], len(known), axis=0)
    alone, _ = corrected(slide, known, asked, usual, np.repeat(usual[:1], len(asked), axis=0))
    rows = []
    for name, said in (("prediction", other), ("interpolation", alone), ("corrected", mean)):
        plain, given = metrics.pearson(truth, said), metrics.pearson_given(truth, said, depth)
        for top in sorted({min(50, len(genes)), len(genes)}):
            scores = {"pearson": np.nanmean(plain[:top]), "pearson_given_depth": np.nanmean(given[:top])}
            rows.append({"layout": layout, "section": slide.section, "said": name, "top": top, **scores})
    rows[-1] |= {"seconds": seconds, "in 95%": float((np.abs(truth - mean) < 1.96 * std).mean())}
    return rows


def correct(sets: list[str], data: Path | None, layouts: list[str], n_seeds: int) -> dict[str, pd.DataFrame]:
    found = {}
    for name in sets:
        slides = [one for one in frozen.read(name, data) if name == "mouse_brain" or one.section in SECTIONS]
        n_genes, rows = (250, []) if len(slides) > 1 else (100, [])
        for layout in layouts:
            for slide in slides:
                training = [one for one in slides if one is not slide]
                for seed in range(1 if layout == "half" else n_seeds):
                    rows += case(slide, training, layout, n_genes, seed)
        table = pd.DataFrame(rows)
        found[name] = table.groupby(["layout", "top", "said"], sort=False).mean(numeric_only=True)
        print(f"{name}\n{found[name].round(3).to_string()}", flush=True)
    return found


def keep(path: Path, found: dict[str, pd.DataFrame]) -> None:
    """Put the figures of a part into the file."""
    figures = json.loads(path.read_text())
    for name, table in found.items():
        rows = {"/".join(map(str, index)): row.dropna().round(4).to_dict() for index, row in table.iterrows()}
        rows = {index: {key: value for key, value in row.items() if key != "seconds"} for index, row in rows.items()}
        figures.setdefault("correct", {})[name] = rows
    path.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("correct",))
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st and mbrain_visium, or frozen ones")
    parser.add_argument("--sets", nargs="+", default=["her2st", "mouse_brain"])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS))
    parser.add_argument("--seeds", type=int, default=1, help="random draws of measured spots per section")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = correct(args.sets, args.data, args.layouts, args.seeds)
    if args.json is not None:
        keep(args.json, found)


if __name__ == "__main__":
    main()
