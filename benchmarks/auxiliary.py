"""Do auxiliary genes help? `agl` against itself without them and with all, by how many spots there are to learn from.

    python benchmarks/auxiliary.py [--data FOLDER] [--sets her2st mob mouse_brain] [--spots 80 200 0] [--draws 3]
        [--json benchmarks/figures.json] [--csv FILE]
    python benchmarks/auxiliary.py --cost [--data FOLDER] [--json benchmarks/figures.json]

Sections, strips and panels are those of `benchmarks/accuracy.py`: 250 genes, chosen on all training spots, of which the
first 50 are primary and scored. Of the training spots of a case so many are drawn, evenly over its sections (0: all
are taken, once). "none" is the same network fitted on the 50 alone, "all" on all 250 with equal weight (`cutoff=1`),
"learned" as `agl` is by default. Beside: `ridge` with its defaults on the 50. All are fitted on the same spots and
asked about the same. Differences are per gene, the mean over cases and draws; their intervals resample genes, 10,000
times. The 50 genes are one panel of one tissue, and the cases replicates: an interval holds for such genes there.

`--cost`: a fit on C3 to C5 with all genes that these have, 50 of them primary; CPU-seconds of one thread, features not
included, and the most memory that the process held.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import cases

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.genes.panel import choose_genes
from sq_imputer.scores import metrics

PRIMARY, PANEL = 50, 250
WAYS = ("none", "all", "learned", "ridge")


def fewer(case: bench.Case, n: int, seed: int) -> bench.Case:
    """The case with so many measured training spots, drawn evenly over the sections; 0 is all of them."""
    if not n:
        return case
    rng, kept = np.random.default_rng(seed), []
    for k, slide in enumerate(case.training):
        share = n // len(case.training) + (k < n % len(case.training))
        kept.append(slide.take(np.sort(rng.choice(np.flatnonzero(slide.measured), share, replace=False))))
    return replace(case, training=tuple(kept))


def model_of(way: str) -> sqi.Predictor:
    """`ridge`, or `agl` with its defaults or a cut-off that is given."""
    if way == "ridge":
        return sqi.get_model("ridge")()
    model = sqi.get_model("agl")
    return model(model.Config(primary=PRIMARY, cutoff=1.0 if way == "all" else None))


def tables(name: str, data: Path | None, sizes: list[int], draws: int) -> Iterator[pd.DataFrame]:
    """Skill of every primary gene, by case, number of spots, draw and way."""
    for case in cases(name, data):
        panel = choose_genes(case.training, PANEL)
        for n in sizes:
            for seed in range(draws if n else 1):
                drawn, plan = fewer(case, n, seed), sqi.Plan(seed=seed, device="cpu", progress=False)
                for way in WAYS:
                    genes = panel if way in ("all", "learned") else panel[:PRIMARY]
                    (found,) = bench.outcomes([drawn], {way: model_of(way)}, genes=genes, plan=plan)
                    said = found.predicted[way][:, :PRIMARY], found.truth[:, :PRIMARY]
                    skill = metrics.pearson_given(said[1], said[0], found.depth), metrics.pearson(said[1], said[0])
                    row = {"case": case.name, "spots": n, "draw": seed, "way": way, "gene": panel[:PRIMARY]}
                    yield pd.DataFrame(row | {"given depth": skill[0], "pearson": skill[1]})


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means by number of spots and way, and what is gained over "none", given depth, with its interval."""
    rng, rows = np.random.default_rng(0), []
    for n, part in table.groupby("spots", sort=False):
        by_gene = part.pivot_table(index="gene", columns="way", values="given depth")
        for way in WAYS:
            row = {"spots": n, "way": way, "pearson": part["pearson"][part["way"] == way].mean()}
            row["given depth"] = part["given depth"][part["way"] == way].mean()
            if way != "none":
                gain = (by_gene[way] - by_gene["none"]).dropna().to_numpy()
                means = gain[rng.integers(0, len(gain), (10_000, len(gain)))].mean(axis=1)
                low, high = np.quantile(means, (0.025, 0.975))
                row |= {"gain": gain.mean(), "low": low, "high": high}
            rows.append(row)
    return pd.DataFrame(rows)


def remember(path: Path, name: str, found: pd.DataFrame) -> None:
    figures = json.loads(path.read_text())
    rows = {f"{row.pop('spots')}/{row.pop('way')}": row for row in found.round(4).to_dict("records")}
    kept = {key: {k: v for k, v in row.items() if v == v} for key, row in rows.items()}
    figures.setdefault("auxiliary genes", {})[name] = kept
    path.write_text(json.dumps(figures, indent=1) + "\n")


def cost(data: Path | None) -> dict[str, float]:
    """What a fit takes with every gene of the sections as an auxiliary one."""
    training = next(case for case in cases("her2st", data) if case.name == "C2").training
    panel = choose_genes(training, PRIMARY)
    shared = set(training[0].var_names).intersection(*(slide.var_names for slide in training[1:]))
    slides = [slide.with_genes([*panel, *sorted(shared - set(panel))]) for slide in training]
    for slide in slides:
        for view in sqi.get_model("agl")().needs.views:
            slide.features("texture", view)
    start = time.process_time()
    model = sqi.get_model("agl")().fit(slides, sqi.Plan(device="cpu", progress=False))
    seconds = time.process_time() - start
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"auxiliary": len(model.genes) - PRIMARY, "rows": sum(map(len, slides)), "seconds": seconds, "peak_mib": mib}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--sets", nargs="+", default=["her2st", "mob", "mouse_brain"])
    parser.add_argument("--spots", nargs="+", type=int, default=[80, 200, 0])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--csv", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.cost:
        found = {name: round(value) for name, value in cost(args.data).items()}
        print(found)
        if args.json:
            figures = json.loads(args.json.read_text()) | {"auxiliary genes, cost": found}
            args.json.write_text(json.dumps(figures, indent=1) + "\n")
        return
    kept = []
    for name in args.sets:
        table = pd.concat(tables(name, args.data, args.spots, args.draws), ignore_index=True)
        kept.append(table.assign(set=name))
        print(f"{name}\n{summary(table).round(3).to_string(index=False)}", flush=True)
        if args.json:
            remember(args.json, name, summary(table))
    if args.csv:
        pd.concat(kept).to_csv(args.csv, index=False)


if __name__ == "__main__":
    main()
