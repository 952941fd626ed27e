"""Accuracy on real tissue: models and baselines, Pearson per gene and Pearson given depth.

    python benchmarks/accuracy.py [--data FOLDER] [--sets her2st mob mouse_brain] [--models ridge mlp nsl stem mclstexp]
        [--device cpu] [--unit log1p_cp10k] [--csv FILE] [--cases C2] [--epochs 20]
        [--json benchmarks/figures.json] [--parts FOLDER]

her2st: sections C2 to C5 of one patient, each left out in turn (replicates of one tumor, not new patients). mob: two
sections of one mouse, each predicted from the other. mouse_brain: one section in five vertical strips. Genes are
chosen on the training sections of each case: of the 1000 highest that are detected in more than a tenth of the spots,
the most variable. Nothing is tuned on a test section: every model runs with its defaults. "genes" is the agreement of
the gene-gene correlations of predicted and measured, mean over cases. Means are scored, so that fits which size the
standard deviation are left out. `stem` wants a GPU: on a core a case takes 20 minutes; with `--parts` every model of a
case is kept as it ends and is not run again. With `--cases` some of the cases are run; with `--epochs` all models are
trained for so many, and nothing is held out to stop early, which takes a third of the time: a quick look. Figures go
under a name that says either.

`dkan` is told by gene sets, GO's biological processes and Hallmarks (of the human, also for mice: names but for case),
in the folder "genes" of the data. "dkan permuted" is told the same of other genes of the panel, "dkan lexical" how
genes are spelled, "dkan learned" nothing, and "dkan vector" is the published form, in which a spot is one key. `comtip`
is told by the same gene sets; its head is scored, as genes of the panel are measured. "triplex no neighbors" does not
see the tiles around a spot, "triplex no slide" not the other rows of the section ("bg_triplex no slide", ... as well).
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import frozen
import pandas as pd
import torch

import sq_imputer as sqi
from sq_imputer import GeneKnowledge, bench
from sq_imputer.genes.panel import choose_genes
from sq_imputer.scores import metrics
from sq_imputer.scores import tables as scoring

TOPS = {"her2st": (50, 250), "mob": (50, 250), "mouse_brain": (100,)}
METRICS = ("pearson", "pearson_given_depth", "mse")
WITHOUT = {"no neighbors": {"neighbors": 0}, "no slide": {"whole_slide": False}}


def cases(name: str, data: Path | None) -> list[bench.Case]:
    slides = frozen.read(name, data)
    return bench.strips_of(slides[0]) if len(slides) == 1 else bench.leave_one_out(slides, share_patient=True)


def gene_sets(data: Path | None) -> GeneKnowledge:
    """What GO and Hallmarks say of genes; names are found whatever their case."""
    folder = (data or Path(os.environ.get("SQ_IMPUTER_DATA", "../shared/data"))) / "genes"
    return GeneKnowledge.from_gene_sets(sorted(folder.glob("*.gmt")), name="go+hallmark").ignoring_case()


def of_dkan(how: str, told: GeneKnowledge, panel: list[str]) -> sqi.Predictor:
    """DKAN as it is, or with what it is told, or how it asks, changed."""
    model = sqi.get_model("dkan")
    if how == "learned":
        return model(model.Config(gene_vectors="learned"))
    told = {"permuted": told.only(panel).permuted(), "lexical": GeneKnowledge.lexical(panel)}.get(how, told)
    return model(model.Config(kv="vector") if how == "vector" else model.Config(), told)


def models(name: str, data: Path | None, panel: list[str]) -> dict[str, sqi.Predictor]:
    """The model of a name; of ridge, its variants as well."""
    if name.startswith("dkan"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*knows nothing of")  # the fit says it
            return {name: of_dkan(name.removeprefix("dkan").strip(), gene_sets(data), panel)}
    base, _, less = name.partition(" ")
    model = sqi.get_model(base)
    if less:
        return {name: model(model.Config(**WITHOUT[less]))}
    if name == "comtip":
        return {name: model(model.Config(), gene_sets(data))}
    found = {name: model()}
    if name == "ridge":
        found["ridge rbf"] = model(model.Config(kernel="rbf"))
        found["ridge no context"] = model(model.Config(context_um=()))
    return found


def summary(table: pd.DataFrame, tops: tuple[int, ...]) -> pd.DataFrame:
    columns = {}
    for top in tops:
        part = table[table["rank"] < top]
        means = scoring.aggregate(part, by="case").set_index(["predictor", "metric"])
        for metric in METRICS:
            for name in dict.fromkeys(table["predictor"]):
                row = means.loc[(name, metric)]
                columns.setdefault(f"{metric} top-{top}", {})[name] = (
                    f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
                    + (f" ({row['n_nan']} NaN)" if row["n_nan"] else "")
                )
    return pd.DataFrame(columns)


def remember(path: Path, name: str, tops: tuple[int, ...], table: pd.DataFrame) -> None:
    """Put the means into the file that the documentation quotes; those of models that were not run stay."""
    figures = json.loads(path.read_text()) if path.exists() else {}
    for top in tops:
        means = scoring.aggregate(table[table["rank"] < top], by="case").set_index(["predictor", "metric"])["mean"]
        for predictor in dict.fromkeys(table["predictor"]):
            found = {metric: round(float(means[predictor, metric]), 3) for metric in METRICS[:2]}
            if found["pearson"] == found["pearson"]:  # constants have none
                kept = {metric: value if value == value else None for metric, value in found.items()}
                figures.setdefault(name, {}).setdefault(f"top-{top}", {})[predictor] = kept
    path.write_text(json.dumps(figures, indent=1) + "\n")


def scored(outcome: bench.Outcome) -> pd.DataFrame:
    """Scores per predictor and gene of a case; its agreement of genes stands beside every one of them."""
    agreement = {
        name: metrics.genes_correlation_agreement(outcome.truth, said) for name, said in outcome.predicted.items()
    }
    table = outcome.table()
    return table.assign(agreement=table["predictor"].map(agreement))


def tables_of(
    cases: list[bench.Case], names: list[str], parts: Path | None, stem: str, run: Callable
) -> Iterator[pd.DataFrame]:
    """The table of every case and model, from the folder of parts where it is there."""
    for case in cases:
        for name in names:
            path = parts / f"{stem} {name} {case.name}.csv" if parts else None
            if path is None or not path.exists():
                table = scored(run(case, name))
                if path is not None:
                    parts.mkdir(parents=True, exist_ok=True)
                    table.to_csv(path, index=False)
                yield table
            else:
                yield pd.read_csv(path)


def outcome_of(case: bench.Case, name: str, data: Path | None, n_genes: int, **how) -> bench.Outcome:
    """The model of a name on a case, beside baselines; the panel is that of the training sections."""
    panel = list(choose_genes(case.training, n_genes))
    (found,) = bench.outcomes([case], models(name, data, panel), genes=panel, **how)
    return found


def genes_agreement(table: pd.DataFrame) -> pd.Series:
    return table.groupby(["predictor", "case"])["agreement"].first().groupby("predictor").mean().round(3)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=None, help="folder with her2st, mob, mbrain_visium; or SQ_IMPUTER_DATA"
    )
    parser.add_argument("--sets", nargs="+", default=list(TOPS))
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "nsl", "stem", "mclstexp"])
    parser.add_argument("--cases", nargs="+", default=None, help="only these sections or strips, such as C2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--unit", default="log1p_cp10k", help="or log2_counts, in which depth is part of every gene")
    parser.add_argument("--epochs", type=int, default=None, help="of every model, without stopping early")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=None, help="write the per-gene table here")
    parser.add_argument("--json", type=Path, default=None, help="put the means into this file, which the docs quote")
    parser.add_argument("--parts", type=Path, default=None, help="keep the table of every model and case here")
    return parser.parse_args()


def table_of(name: str, args: argparse.Namespace) -> tuple[pd.DataFrame, str]:
    """Scores of a set, and what they are called in the file of figures."""
    short = {"epochs": args.epochs, "validation": 0.0} if args.epochs else {}
    plan = sqi.Plan(seed=args.seed, device=args.device, calibration=0, **short)  # of the mean alone, it is the same
    run = partial(outcome_of, data=args.data, n_genes=max(TOPS[name]), unit=args.unit, plan=plan)
    how = [args.unit] * (args.unit != "log1p_cp10k") + [f"{args.epochs} epochs"] * bool(args.epochs)
    found = [case for case in cases(name, args.data) if args.cases is None or case.name in args.cases]
    stem = " ".join([name, *how, str(args.seed)])
    table = pd.concat(tables_of(found, args.models, args.parts, stem, run), ignore_index=True)
    table = table.drop_duplicates(["case", "predictor", "gene"])  # baselines are beside every model
    return table, ", ".join([name, *how, *([f"{' '.join(args.cases)} alone"] if args.cases else [])])


def main() -> None:
    args, tables = arguments(), []
    torch.set_num_threads(args.threads)
    for name in args.sets:
        start = time.monotonic()
        table, title = table_of(name, args)
        tables.append(table.assign(set=name))
        if args.json:
            remember(args.json, title, TOPS[name], table)
        split = "strips of one section" if name == "mouse_brain" else "leave one section out, same individual"
        print(f"\n{title}: {split}; {table['case'].nunique()} cases; {time.monotonic() - start:.0f} s")
        print(summary(table, TOPS[name]).assign(genes=genes_agreement(table)).to_string(), flush=True)
    if args.csv:
        pd.concat(tables).to_csv(args.csv, index=False)


if __name__ == "__main__":
    main()
