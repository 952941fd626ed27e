"""What the first blocks of README give on real sections, and what they cost: one section alone, and one to the next.

    python benchmarks/first_hours.py [--data FOLDER] [--models ridge] [--json benchmarks/figures.json]

her2st C2 out of fold in spatial blocks; then fitted on C2 and tested on C3, a serial cut of the same tumor. Mean
Pearson (and given depth) over the 250 genes that `tl.predict` chooses on C2, as `tl.score` has them, beside the
depth-only baseline. Seconds are of the processor, with one thread; the first call of each section also reads and
describes its image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time

import torch

import sq_imputer as sqi


def timed(call, *args, **how):
    """What a call returns, and the seconds of the processor that it took."""
    begun = process_time()
    found = call(*args, **how)
    return found, process_time() - begun


def scores(sdata, model: str, **how) -> dict:
    """Mean scores of a model and of the depth-only baseline."""
    table = sqi.tl.score(sdata, model, per="section", **how)
    means = table.pivot_table(index="predictor", columns="metric", values="mean")
    return {
        "pearson": means.loc[model, "pearson"],
        "pearson_given_depth": means.loc[model, "pearson_given_depth"],
        "depth only": means.loc["depth only", "pearson"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st")
    parser.add_argument("--models", nargs="+", default=["ridge"])
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for model in args.models:
        sections = sqi.datasets.her2st(None if args.data is None else args.data / "her2st", ["C2", "C3"])
        alone, other = sections.values()
        fitted, fit_s = timed(sqi.tl.fit, alone, model)
        _, predict_s = timed(sqi.tl.predict, other, fitted)
        _, folds_s = timed(sqi.tl.predict, alone, model)
        found = {"C2": scores(alone, model), "C2 to C3": scores(other, model, reference=alone)}
        print(
            f"{model}: fit C2 {fit_s:.0f} s, predict C3 {predict_s:.0f} s, C2 out of fold {folds_s:.0f} s", flush=True
        )
        for name, row in found.items():
            print(f"{model} {name}: " + ", ".join(f"{what} {value:.3f}" for what, value in row.items()), flush=True)
        if args.json is not None:
            figures = json.loads(args.json.read_text())
            kept = {name: {what: round(float(v), 3) for what, v in row.items()} for name, row in found.items()}
            figures.setdefault("first hours", {})[model] = kept
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
