"""Does a standard deviation hold? Squared error in its units, coverage of its intervals, and how sharp they are.

    python benchmarks/calibration.py [--data FOLDER] [--cases C3 C2+C3-C4 MOB1-MOB2 brain] [--models ridge mlp mclstexp]
        [--steps N] [--genes N] [--csv FILE] [--json benchmarks/figures.json] [--pictures FOLDER]

C3: one section of her2st out of fold, in five blocks beyond a buffer of the crop's extent. C2+C3-C4: two sections of
one tumor to a third; others so named can be asked for. MOB1-MOB2: one section of a mouse to another. brain: five
vertical strips of one section beyond the same buffer. Genes are chosen on the training rows of each case. z is
(measured - predicted) / sd: its mean square
is 1 where the standard deviation is right. 10 % and 90 % are quantiles over genes. Coverage is that of mean +- q sd
with q of the normal distribution, and for "measured 95%" with what the fit has measured on its left-out rows
(`history["sd_of_95"]`). Sharpness is the root mean square of sd in units of the gene's standard deviation
over the tested rows: of two models that hold, the sharper one says more. Every model runs with its defaults, but for
`--steps` and `--genes`, which make `stem` affordable on a CPU; rows so made are named after them. "by itself" is the
standard deviation as a model says it, before its size is measured on left-out training data. "counts alone" is no
model: counts drawn by Poisson at the depths of the tested rows and at each gene's mean rate there, against their exact
mean and standard deviation. How far its coverage is from the level is what the shape of counts costs an interval of
mean +- q sd, however right both are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import frozen
import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.genes.panel import choose_genes
from sq_imputer.predictor.calibrate import unsized
from sq_imputer.scores.splits import folds

LEVELS = (0.5, 0.8, 0.95)
MANY_LEVELS = np.linspace(0.05, 0.99, 48)
CASES = ("C3", "C2+C3-C4", "MOB1-MOB2", "brain")
BUFFER_UM = 150.0  # the default crop


@dataclass(frozen=True)
class Tested:
    """What was said of the rows of a case and what was measured, each `(n, G)`."""

    mean: np.ndarray
    std: np.ndarray
    truth: np.ndarray
    sd_of_95: np.ndarray | None = None  # (n, 1), how many the fit says hold 95 %

    @property
    def z(self) -> np.ndarray:
        return (self.truth - self.mean) / self.std

    def row(self) -> dict[str, float]:
        """A row of the table."""
        squares, spread = (self.z**2).mean(axis=0), self.truth.std(axis=0)
        vary = spread > 0
        found = {"mean z2": squares.mean(), "10 %": np.quantile(squares, 0.1), "90 %": np.quantile(squares, 0.9)}
        found |= {f"in {level:.0%}": self.coverage(level) for level in LEVELS}
        if self.sd_of_95 is not None:
            found["in measured 95%"] = float((np.abs(self.z) < self.sd_of_95).mean())
        return found | {"sharpness": np.sqrt(((self.std[:, vary] / spread[vary]) ** 2).mean())}

    def coverage(self, level: float) -> float:
        return float((np.abs(self.z) < norm.ppf(0.5 + level / 2)).mean())


def of_case(name: str, data: Path | None) -> list[bench.Case]:
    """Fits and tests of a case."""
    if name == "brain":
        return bench.strips_of(frozen.read("mouse_brain", data)[0], buffer_um=BUFFER_UM)
    slides = {slide.section: slide for slide in frozen.read("mob" if name.startswith("MOB") else "her2st", data)}
    if name == "C3":
        slide = slides["C3"]
        rows = scored(slide)
        splits = folds(slide.xy_um[rows], 5, buffer_um=BUFFER_UM)
        return [bench.Case(s.name, (slide.take(rows[s.train]),), slide, rows[s.test], True) for s in splits]
    known, test = name.rsplit("-", 1)
    return [bench.Case(test, tuple(slides[k] for k in known.split("+")), slides[test], scored(slides[test]), True)]


def scored(slide) -> np.ndarray:
    return np.flatnonzero(slide.measured & (np.nan_to_num(slide.depth) > 0))


def tested(cases: list[bench.Case], model: sqi.Predictor, n_genes: int, plan: sqi.Plan) -> tuple[Tested, Tested | None]:
    """All rows of all fits of a case, with the size that was measured and as the model says it by itself."""
    genes, parts, by_itself = choose_genes(cases[0].training, n_genes), [], True  # genes are those of the first fit
    for case in cases:
        fitted = type(model)(model.config).fit([slide.with_genes(genes) for slide in case.training], plan)
        said = fitted.predict(case.test, rows=case.rows, device=plan.device)
        raw = unsized(said.std, fitted.std_factor.cpu(), fitted.std_added.cpu()).numpy()
        by_itself = by_itself and bool((fitted.std_factor != 1).any())
        truth = case.test.with_genes(genes).expression[case.rows]
        reach = np.full((len(truth), 1), fitted.history["sd_of_95"])
        parts.append((said.mean.numpy(), said.std.numpy(), truth, reach, raw))
    mean, std, truth, reach, raw = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
    return Tested(mean, std, truth, reach), Tested(mean, raw, truth) if by_itself else None


def counts_alone(cases: list[bench.Case], n_genes: int, n_drawn: int = 200) -> Tested:
    """What would be measured of the tested rows if nothing but depth and chance told them apart."""
    genes, rng, parts = choose_genes(cases[0].training, n_genes), np.random.default_rng(0), []
    for case in cases:
        depth = case.test.depth[case.rows][:, None]
        share = np.expm1(case.test.with_genes(genes).expression[case.rows]) / 1e4
        rate = (share * depth).sum(axis=0) / depth.sum() * depth
        drawn = np.log1p(1e4 * rng.poisson(rate, (n_drawn, *rate.shape)) / depth)
        parts.append((drawn.mean(axis=0), drawn.std(axis=0), drawn[0]))
    mean, std, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Tested(mean, np.maximum(std, 1e-3), truth)


def models(names: list[str], steps: int | None) -> Iterator[tuple[str, sqi.Predictor]]:
    for name in names:
        model = sqi.get_model(name)
        if name == "stem" and steps:
            yield f"stem, {steps} steps", model(replace(model.Config(), steps=steps))
        else:
            yield name, model()


def pictures(found: dict[tuple[str, str], Tested], folder: Path) -> None:
    """Coverage against level, and error against standard deviation, a column per case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(case for case, _ in found))
    names = list(dict.fromkeys(name for _, name in found))
    figure, axes = plt.subplots(2, len(cases), figsize=(3.4 * len(cases), 6.6), squeeze=False, layout="constrained")
    for column, case in enumerate(cases):
        above, below = axes[:, column]
        above.plot([0, 1], [0, 1], color="0.6", lw=1)
        most = 0.0
        for (_, name), one in ((key, one) for key, one in found.items() if key[0] == case):
            color = f"C{names.index(name)}"
            above.plot(MANY_LEVELS, [one.coverage(level) for level in MANY_LEVELS], color=color, label=name)
            std, error = by_std(one)
            below.plot(std, error, "o-", ms=3, color=color, label=name)
            most = max(most, std.max(), error.max())
        below.plot([0, most], [0, most], color="0.6", lw=1)
        above.set(
            title=case, xlabel="level of the interval", ylabel="share of measurements inside" if not column else ""
        )
        below.set(xlabel="standard deviation", ylabel="root mean square error" if not column else "")
    axes[0, 0].legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "calibration.png", dpi=120)


def by_std(one: Tested, n: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square of standard deviation and of error, in tenths of the values by standard deviation."""
    spread = np.where(one.truth.std(axis=0) > 0, one.truth.std(axis=0), np.nan)
    std, error = ((part / spread).ravel() for part in (one.std, one.truth - one.mean))
    order = np.argsort(std[np.isfinite(std)])
    std, error = (part[np.isfinite(part)][order] for part in (std, error))
    return tuple(np.array([np.sqrt((p**2).mean()) for p in np.array_split(part, n)]) for part in (std, error))


def remember(path: Path, table: pd.DataFrame) -> None:
    """Put the rows into the file that the documentation quotes; those of models that were not run stay."""
    figures = json.loads(path.read_text()) if path.exists() else {}
    for (case, name), row in table.iterrows():
        kept = {
            column: round(float(value), 3) for column, value in row.items() if column != "seconds" and value == value
        }
        known = figures.setdefault("calibration", {}).setdefault(case, {})
        known.pop(name, None)  # "counts alone" comes last
        known[name] = kept
    path.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=None, help="folder with her2st, ..., or frozen; or SQ_IMPUTER_DATA"
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES), help="of those above, or sections of her2st")
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "mclstexp", "stem"])
    parser.add_argument("--genes", type=int, default=None, help="250 if left out, of the brain 100")
    parser.add_argument("--steps", type=int, default=None, help="training steps of stem")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None, help="put the rows into this file, which the docs quote")
    parser.add_argument("--pictures", type=Path, default=None, help="draw calibration.png into this folder")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plan, found, rows = sqi.Plan(seed=args.seed, device=args.device, progress=False), {}, {}
    for case in args.cases:
        fits, n_genes = of_case(case, args.data), args.genes or (100 if case == "brain" else 250)
        for name, model in models(args.models, args.steps):
            start = time.monotonic()
            name = name if args.genes is None else f"{name}, {args.genes} genes"
            found[case, name], raw = tested(fits, model, n_genes, plan)
            rows[case, name] = found[case, name].row() | {"seconds": time.monotonic() - start}
            if raw is not None:
                rows[case, f"{name}, by itself"] = raw.row()
        rows[case, "counts alone"] = counts_alone(fits, n_genes).row()
        table = pd.DataFrame(rows).T
        print(table.round(3).to_string(), flush=True)
        if args.json:
            remember(args.json, table)
        if args.pictures:
            pictures(found, args.pictures)
    if args.csv:
        table.to_csv(args.csv)


if __name__ == "__main__":
    main()
