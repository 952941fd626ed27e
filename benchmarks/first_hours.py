"""What the first blocks of README give on real sections, and what they cost: one section alone, and one to the next.

    python benchmarks/first_hours.py [--data FOLDER] [--models ridge] [--json benchmarks/figures.json]
    python benchmarks/first_hours.py --costs toy C2 --models nsl ridge mlp mclstexp --json benchmarks/figures.json
    python benchmarks/first_hours.py --brain --json benchmarks/figures.json

her2st C2 out of fold in spatial blocks; then fitted on C2 and tested on C3, a serial cut of the same tumor. Mean
Pearson (and given depth) over the 250 genes that `tl.predict` chooses on C2, as `tl.score` has them, beside the
depth-only baseline. Seconds are of the processor, with one thread; the first call of each section also reads and
describes its image. With `--costs` there are no accuracies but the seconds of every step with defaults: one section is
read, fitted on, and the next one predicted and scored beside baselines. Every model begins with sections read anew. The
toy is tissue of 1.5 mm with nothing to decode; C2 is followed by C3. With `--brain` it is the mouse brain by itself:
read, predicted out of fold by `ridge`, scored beside baselines; then fitted on for one gene, which is predicted on a
lattice of 47 µm.
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


def two_sections(name: str, data: Path | None) -> list:
    """The section to fit on, and the next."""
    if name == "toy":
        return list(sqi.datasets.toy(2, size_px=2000).values())
    following = f"{name[0]}{int(name[1:]) + 1}"
    return list(sqi.datasets.her2st(None if data is None else data / "her2st", [name, following]).values())


def costs(model: str, name: str, data: Path | None) -> dict:
    """Seconds of the processor of every step, and the spots of both sections."""
    (one, other), load_s = timed(two_sections, name, data)
    fitted, fit_s = timed(sqi.tl.fit, one, model)
    _, predict_s = timed(sqi.tl.predict, other, fitted, allow_same_patient=True)
    _, score_s = timed(sqi.tl.score, other, reference=one)
    spots = [len(section.tables["table"]) for section in (one, other)]
    seconds = {"load": load_s / 2, "fit": fit_s, "predict": predict_s, "score": score_s}
    return {"spots": spots} | {what: round(value, 1) for what, value in seconds.items()}


def costs_of_brain(data: Path | None) -> dict:
    """Seconds of the processor for one large section by itself, and for one gene of it on a fine lattice."""
    sdata, load = timed(sqi.datasets.mouse_brain, None if data is None else data / "mbrain_visium")
    _, predict = timed(sqi.tl.predict, sdata, "ridge")
    _, score = timed(sqi.tl.score, sdata)
    gene = sdata.tables["imputed"].var_names[0]
    fitted, fit = timed(sqi.tl.fit, sdata, "ridge", genes=[gene])
    _, grid = timed(sqi.pp.grid, sdata, spacing_um=47.0, diameter_um=47.0)
    how = {"shapes_key": "grid", "table_key": None, "key_added": "fine"}
    _, fine = timed(sqi.tl.predict, sdata, fitted, **how)
    seconds = {"load": load, "predict": predict, "score": score, "fit": fit, "grid": grid, "fine": fine}
    known = {"spots": len(sdata.tables["table"]), "genes": sdata.tables["imputed"].n_vars}
    known["circles"] = len(sdata.shapes["grid"])
    return known | {what: round(value, 1) for what, value in seconds.items()}


def print_costs(args) -> None:
    """Print the costs of every model on every section, and keep them if asked to, each as soon as it is known."""
    for name in args.costs:
        for model in args.models:
            row = costs(model, name, args.data)
            print(f"{name} {model}: " + ", ".join(f"{what} {value}" for what, value in row.items()), flush=True)
            if args.json is not None:
                figures = json.loads(args.json.read_text())
                figures.setdefault("costs", {}).setdefault(name, {})[model] = row
                args.json.write_text(json.dumps(figures, indent=1) + "\n")


def print_brain(args) -> None:
    """Print the costs of the brain, and keep them if asked to."""
    row = costs_of_brain(args.data)
    print(", ".join(f"{what} {value}" for what, value in row.items()))
    if args.json is not None:
        figures = json.loads(args.json.read_text())
        figures["costs of the brain"] = row
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st")
    parser.add_argument("--models", nargs="+", default=["ridge"])
    parser.add_argument("--costs", nargs="+", metavar="SECTION", help="seconds of every step instead: toy, C2")
    parser.add_argument("--brain", action="store_true", help="seconds of the mouse brain instead")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.brain:
        return print_brain(args)
    if args.costs:
        return print_costs(args)
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
