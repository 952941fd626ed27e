"""What is worth believing: correction by measured spots, intervals, and genes that are called reliable.

    python benchmarks/trust.py correct --seeds 4 [--data FOLDER] [--json benchmarks/figures.json] [--sets her2st]
    python benchmarks/trust.py intervals unlike line chance [--data FOLDER] [--json benchmarks/figures.json]

`correct`: some spots of a section are measured, the others are predicted and then corrected by these, as
:func:`sq_imputer.tl.correct` does with its defaults. her2st C2 to C5: `ridge` with its defaults is fitted on the other
three sections of the tumor. Other patients: `ridge` fitted on these four, asked about A1 and B4, on which the settings
of the correction were chosen. Mouse brain: `ridge` is fitted on the measured spots of the same section; residuals are
of five spatial blocks beyond a buffer of 150 µm, and the spots that were not measured are predicted by the fit on all
that were. Measured are 10, 25 or 50 % of the spots at random, the left half, or all others of a spot. Genes are chosen
on the training rows. "interpolation" is the same kriging of what was measured, without any image; "features" corrects
with `features=` as well. Mean Pearson over genes at the spots that were not measured (given depth in brackets in the
pages), mean over sections and draws. Beside: the share of measurements there within ± 1.96 of the corrected standard
deviation.

`intervals`: what intervals of 90 % hold, as :func:`sq_imputer.tl.trust` makes them, around `ridge` with its defaults.
C2 to C5 and MOB: every section by the others, its intervals by the errors on the others. Mouse brain: blocks beyond
150 µm, intervals by the errors in other blocks. "C to B4" is another patient: fitted on C2 to C5, intervals by the
errors on these when each was left out. Genes are chosen on the training sections (on all, where they take turns).

`unlike`: the share of spots beyond 95 % of left-out training spots, of models fitted on some sections and asked about
another; above a fifth `tl.trust` flags the section. `line`: the same share on A1 and B4, the sections for choices, of
models fitted on three quarters of a section and asked about the fourth, or about the other patient: twelve ways to cut.

`chance`: of toy genes that do not depend on the image, the share that is called reliable at a false discovery rate of
5 %, and of all others; three tissues, `ridge` out of fold in five blocks.
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
from sq_imputer.runs import reliability
from sq_imputer.scores import conformal, metrics
from sq_imputer.scores.splits import folds
from sq_imputer.tl._correct import leading
from sq_imputer.tl._kriging import corrected

LAYOUTS = ("10%", "25%", "50%", "all others", "half")
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
    if layout == "all others":
        return rows
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


def mended(slide, known: np.ndarray, asked: np.ndarray, own: np.ndarray, other: np.ndarray, features: bool = False):
    """What is corrected, and the standard deviation of a measurement as `tl.correct` makes it."""
    y, places = slide.expression[known].astype(float), slide.xy_um
    if features:
        views = [slide.features("texture", spec) for spec in sqi.get_model("ridge")().needs.views]
        places = np.column_stack([places, leading(views)])
    found = corrected(y, own, other, places[known], places[asked], slide.depth[known], unit=slide.unit)
    return found, np.sqrt((found.left_var if asked is known else found.var) + found.rest)


def case(slide, training: list, layout: str, n_genes: int, seed: int) -> list[dict]:
    """Scores of one section with some spots measured, at the others."""
    known = measured(slide, layout, seed)
    asked = np.setdiff1d(scored(slide), known) if layout != "all others" else known
    genes, own, other = predicted(slide, known, asked, training, n_genes)
    slide = slide.with_genes(genes)
    truth, depth = slide.expression[asked].astype(float), slide.depth[asked]
    start = time.process_time()
    found, std = mended(slide, known, asked, own, other)
    seconds = time.process_time() - start
    usual = np.repeat(slide.expression[known].mean(axis=0, dtype=float)[None], len(known), axis=0)
    alone, _ = mended(slide, known, asked, usual, np.repeat(usual[:1], len(asked), axis=0))
    looks, _ = mended(slide, known, asked, own, other, features=True)
    compared, rows = {"interpolation": alone, "features": looks, "corrected": found}, []
    compared = {name: one.left_mean if asked is known else one.mean for name, one in compared.items()}
    for name, said in {"prediction": own if asked is known else other, **compared}.items():
        plain, given = metrics.pearson(truth, said), metrics.pearson_given(truth, said, depth)
        for top in sorted({min(50, len(genes)), len(genes)}):
            scores = {"pearson": np.nanmean(plain[:top]), "pearson_given_depth": np.nanmean(given[:top])}
            rows.append({"layout": layout, "section": slide.section, "said": name, "top": top, **scores})
    rows[-1] |= {"seconds": seconds, "in 95%": float((np.abs(truth - compared["corrected"]) < 1.96 * std).mean())}
    return rows


def correct(sets: list[str], data: Path | None, layouts: list[str], n_seeds: int) -> dict[str, pd.DataFrame]:
    found = {}
    for name in sets:
        known = frozen.read("her2st" if name == "other patients" else name, data)
        known = [one for one in known if name == "mouse_brain" or one.section in SECTIONS]
        slides = frozen.read("tuning", data) if name == "other patients" else known
        n_genes, rows = (250, []) if len(slides) > 1 else (100, [])
        for layout in layouts:
            for slide in slides:
                training = [one for one in known if one is not slide]
                for seed in range(n_seeds if layout.endswith("%") else 1):
                    rows += case(slide, training, layout, n_genes, seed)
        table = pd.DataFrame(rows)
        found[name] = table.groupby(["layout", "top", "said"], sort=False).mean(numeric_only=True)
        print(f"{name}\n{found[name].round(3).to_string()}", flush=True)
    return found


def left_out(slides: list, genes: list[str]) -> dict[str, np.ndarray]:
    """Measured, predicted and standard deviation of all scored rows, each section by the others; one section in blocks.

    Beside: the section or block of every row, which is judged by the errors of the others.
    """
    slides = [slide.with_genes(genes) for slide in slides]
    parts: dict[str, list] = {"y": [], "p": [], "std": [], "part": []}

    def ask(model, slide, rows, part) -> None:
        said = model.predict(slide, rows=rows, device="cpu")
        values = slide.expression[rows], said.mean.numpy(), said.std.numpy(), np.full(len(rows), part)
        for name, one in zip(parts, values, strict=True):
            parts[name].append(one)

    if len(slides) > 1:
        for k, slide in enumerate(slides):
            model = sqi.get_model("ridge")().fit([one for one in slides if one is not slide], PLAN)
            ask(model, slide, scored(slide), k)
    else:
        rows = scored(slides[0])
        for k, split in enumerate(folds(slides[0].xy_um[rows], 5, buffer_um=BUFFER_UM)):
            model = sqi.get_model("ridge")().fit([slides[0].take(rows[split.train])], PLAN)
            ask(model, slides[0], rows[split.test], k)
    return {name: np.concatenate(one) for name, one in parts.items()}


def held(y, p, std, wide, spread) -> dict[str, float]:
    """What intervals hold, over genes, and how wide they are in standard deviations of the genes."""
    lower, upper = np.maximum(p - wide * std, 0), np.maximum(p + wide * std, 0)
    inside = conformal.coverage(y, lower, upper)
    low, high = np.quantile(inside, (0.1, 0.9))
    width = float(np.mean((upper - lower).mean(axis=0) / spread))
    return {"held": float(inside.mean()), "10 %": float(low), "90 %": float(high), "width": width}


def intervals(data: Path | None) -> dict[str, dict]:
    """Coverage by case; of the left-out sections of C also each by itself."""
    found = {}
    read = {name: frozen.read(name, data) for name in ("her2st", "mob", "mouse_brain", "tuning")}
    breast = [one for one in read["her2st"] if one.section in SECTIONS]
    for name, slides in {"C2 to C5": breast, "MOB": read["mob"], "mouse brain": read["mouse_brain"]}.items():
        genes = choose_genes(slides, 250 if len(slides) > 1 else 100)
        known = left_out(slides, genes)
        error, spread = known["y"] - known["p"], known["y"].std(axis=0)
        wide = conformal.widths_of_parts(error, known["std"], known["part"], 0.9)[known["part"]]
        found[name] = held(known["y"], known["p"], known["std"], wide, spread)
        if slides is breast:
            for k, slide in enumerate(slides):
                own = known["part"] == k
                found[slide.section] = held(*(known[one][own] for one in ("y", "p", "std")), wide[own], spread)
            other = next(one for one in read["tuning"] if one.section == "B4").with_genes(genes)
            model = sqi.get_model("ridge")().fit([one.with_genes(genes) for one in slides], PLAN)
            said, rows = model.predict(other, rows=scored(other), device="cpu"), scored(other)
            y, whole = other.expression[rows], conformal.widths(error, known["std"], 0.9)
            found["C to B4"] = held(y, said.mean.numpy(), said.std.numpy(), whole, y.std(axis=0))
    return found


def beyond(training: list, asked: list) -> list[float]:
    """How many spots of each section lie beyond the edge of a model that is fitted on some."""
    genes = choose_genes(training, 20)
    model = sqi.get_model("ridge")().fit([one.with_genes(genes) for one in training], PLAN)
    return [reliability.beyond(model.predict(slide, device="cpu").ood.numpy()) for slide in asked]


def unlike(data: Path | None) -> dict[str, dict]:
    """How many spots lie beyond the edge, by what a model was fitted on and what it is asked about."""
    read = {name: frozen.read(name, data) for name in ("her2st", "mob", "mouse_brain", "tuning")}
    breast = {one.section: one for one in read["her2st"] if one.section in SECTIONS}
    bulb, brain = {one.section: one for one in read["mob"]}, read["mouse_brain"][0]
    other = {one.section: one for one in read["tuning"]}
    cases = [([b for name, b in breast.items() if name != one], [breast[one]]) for one in SECTIONS]
    cases += [(list(breast.values()), [*other.values(), *bulb.values(), brain])]
    cases += [([breast["C3"]], [breast["C4"]]), ([bulb["MOB1"]], [bulb["MOB2"], breast["C3"]])]
    found = {}
    for training, asked in cases:
        for slide, share in zip(asked, beyond(training, asked), strict=True):
            name = f"{', '.join(one.section for one in training)} to {slide.section}"
            found[name] = {"beyond": share, "flagged": bool(share > reliability.MOST_BEYOND)}
    return found


def parts_of(slide) -> list[list]:
    """A section in four strips along x, in four along y, and in quarters."""
    rows = scored(slide)
    x, y = slide.xy_um[rows].T
    quarter = 2 * (x > np.median(x)) + (y > np.median(y))
    strips = [np.searchsorted(np.quantile(along, (0.25, 0.5, 0.75)), along) for along in (x, y)]
    return [[slide.take(rows[of == k]) for k in range(4)] for of in (*strips, quarter)]


def where_to_draw_the_line(data: Path | None) -> dict[str, dict]:
    """Spots beyond the edge on the sections for choices: of a part by the other three, and of the other patient."""
    slides, found = frozen.read("tuning", data), {}
    for slide, other in (slides, slides[::-1]):
        shares: dict[str, list[float]] = {"itself": [], other.section: []}
        for parts in parts_of(slide):
            for part in parts:
                training = [one for one in parts if one is not part]
                for some, share in zip(shares.values(), beyond(training, [part, other]), strict=True):
                    some.append(share)
        for name, some in shares.items():
            found[f"parts of {slide.section} to {name}"] = dict(enumerate(sorted(some)))
    return found


def by_chance() -> dict[str, dict]:
    """Share of toy genes that are called reliable, by what they follow."""
    parts = []
    for seed in range(3):
        sdata = sqi.datasets.toy(1, size_px=900, mpp=2.0, n_genes=120, seed=seed)["P1"]
        genes = [gene for gene in sdata.tables["table"].var_names if not gene.startswith("HK")]
        sqi.tl.predict(sdata, "ridge", genes=genes, n_folds=5, progress=False)
        parts.append(sqi.tl.trust(sdata, level=None))
    table = pd.concat(parts)
    kind = np.where(table["gene"].str.startswith("IND"), "independent of the image", "of the image")
    return {
        name: {"genes": int((kind == name).sum()), "reliable": float(table["reliable"][kind == name].mean())}
        for name in set(kind)
    }


def keep_part(path: Path, part: str, found: dict[str, dict]) -> None:
    """Put the figures of another part into the file."""
    figures = json.loads(path.read_text())
    rounded = {
        name: {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for name, row in found.items()
    }
    figures[f"trust, {part}"] = rounded
    path.write_text(json.dumps(figures, indent=1) + "\n")


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
    parser.add_argument("parts", nargs="+", choices=("correct", "intervals", "unlike", "line", "chance"))
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st and mbrain_visium, or frozen ones")
    parser.add_argument("--sets", nargs="+", default=["her2st", "other patients", "mouse_brain"])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS))
    parser.add_argument("--seeds", type=int, default=1, help="random draws of measured spots per section")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if "correct" in args.parts:
        found = correct(args.sets, args.data, args.layouts, args.seeds)
        if args.json is not None:
            keep(args.json, found)
    others = {
        "intervals": lambda: intervals(args.data),
        "unlike": lambda: unlike(args.data),
        "line": lambda: where_to_draw_the_line(args.data),
        "chance": by_chance,
    }
    for part in (part for part in others if part in args.parts):
        found = others[part]()
        print(f"{part}\n{pd.DataFrame(found).T.to_string()}", flush=True)
        if args.json is not None:
            keep_part(args.json, part, found)


if __name__ == "__main__":
    main()
