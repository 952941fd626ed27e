"""Genes that nobody measured, on sections that no model has seen: what knowledge of genes is worth on real tissue.

    python benchmarks/zero_shot.py [--data FOLDER] [--cases C2 C3 C4 C5] [--folds 4] [--parts FOLDER]
        [--json benchmarks/figures.json] [--csv FILE] [--picture docs/_static/models/comtip.png] [--scatter FILE]

her2st, C2 to C5 of one patient: each left out in turn, and of the 250 genes chosen on the others a fold of whole
chromosomes, so that neither the genes nor the section were in the fit (replicates of one tumor, not new patients).
`comtip` and `bilinear` are told by gene sets (GO's biological processes, Hallmarks) and the full names of genes, by
spelling; `bilinear` also by either alone, and by the loadings of a PCA of the spots of A1, another patient's section.
All genes are known to all of these. Beside every model stand its controls (`sq_imputer.bench.leave_genes_out`): the
vectors dealt out to other genes, the ten genes most alike, the mean of all seen genes, and ridge on the genes
themselves. Settings are the defaults; those of `comtip` were chosen on A1.

A difference is per gene, the mean over its sections; its interval resamples genes, 10,000 times, all sections of a gene
together (2.5th and 97.5th percentile). It holds for other genes on these sections, with these folds and one permutation
a fold. With `--parts` every section and model is kept as it ends. `--picture` draws three markers of a left-out section
(plasma cells, stroma, tumor epithelium; not chosen by score), their chromosomes left out of the fit; `--scatter` draws
skill against how alike the nearest seen gene is.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import frozen
import maps
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import sq_imputer as sqi
from sq_imputer import GeneKnowledge, bench
from sq_imputer.genes.annotations import read_chromosomes
from sq_imputer.genes.panel import choose_genes
from sq_imputer.pl import _panels as draw
from sq_imputer.section.slide import Slide

N_GENES, MARKERS, REFERENCE = 250, ("IGKC", "FN1", "GNAS"), "A1"
METRICS = ("pearson", "pearson_given_depth")
MEAN, BOUND = "mean of seen genes", "ridge, measured"
DRAWS = 10_000


def folder(data: Path | None) -> Path:
    return data or Path(os.environ.get("SQ_IMPUTER_DATA", "../shared/data"))


def gene_info(data: Path | None) -> Path:
    return folder(data) / "genes" / "Homo_sapiens.gene_info.slim.tsv.gz"


def knowledge_of(data: Path | None) -> dict[str, GeneKnowledge]:
    """What the models are told: both together first."""
    sets = GeneKnowledge.from_gene_sets(sorted((folder(data) / "genes").glob("*.gmt")), name="GO")
    names = GeneKnowledge.from_gene_info(gene_info(data))
    (reference,) = sqi.datasets.her2st(None if data is None else data / "her2st", sections=(REFERENCE,)).values()
    (table,) = reference.tables.values()
    loadings = GeneKnowledge.from_anndata(table)
    aliases = names.aliases
    both = GeneKnowledge.concat([sets, names], name="GO + names")
    return {"GO + names": both, "GO": sets.with_aliases(aliases), "names": names, f"loadings of {REFERENCE}": loadings}


def models_of(known: dict[str, GeneKnowledge]) -> dict[str, sqi.Predictor]:
    comtip, bilinear = sqi.get_model("comtip"), sqi.get_model("bilinear")
    found = {"comtip, GO + names": comtip(comtip.Config(), known["GO + names"])}
    return found | {f"bilinear, {name}": bilinear(bilinear.Config(), told) for name, told in known.items()}


def common(panel: list[str], known: dict[str, GeneKnowledge]) -> list[str]:
    """Genes of the panel that all knowledge has, so that every model is asked for the same."""
    rows = [told.rows(panel) for told in known.values()]
    return [gene for gene, *where in zip(panel, *rows, strict=True) if all(row is not None for row in where)]


def table_of(case: bench.Case, known: dict[str, GeneKnowledge], args: argparse.Namespace) -> pd.DataFrame:
    """Scores per predictor and gene of a case, each model kept as it ends."""
    panel, tables = common(list(choose_genes(case.training, N_GENES)), known), []
    for name, model in models_of(known).items():
        path = args.parts / f"{name} {case.name}.csv" if args.parts else None
        if path is not None and path.exists():
            tables.append(pd.read_csv(path))
            continue
        start = time.process_time()
        how = {"genes": panel, "n_folds": args.folds, "chromosomes": str(gene_info(args.data)), "plan": plan(args)}
        found = bench.leave_genes_out([case], {name: model}, **how)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            found.to_csv(path, index=False)
        print(f"{case.name}, {name}: {len(panel)} genes, {time.process_time() - start:.0f} CPU-seconds", flush=True)
        tables.append(found)
    return pd.concat(tables, ignore_index=True).drop_duplicates(["case", "predictor", "gene"])


def plan(args: argparse.Namespace) -> sqi.Plan:
    return sqi.Plan(seed=args.seed, device=args.device, epochs=args.epochs, calibration=0, progress=False)


def difference(table: pd.DataFrame, one: str, other: str, metric: str = METRICS[1]) -> list[float]:
    """Mean over genes of one predictor less another, each the mean over its sections, and where 95 % of draws lie."""
    wide = table.pivot_table(index=["gene", "case"], columns="predictor", values=metric)
    each = (wide[one] - wide[other]).groupby("gene").mean().dropna().to_numpy()
    drawn = np.random.default_rng(0).integers(len(each), size=(DRAWS, len(each)))
    low, high = np.percentile(each[drawn].mean(axis=1), [2.5, 97.5])
    return [round(float(value), 3) for value in (each.mean(), low, high)]


def figures_of(table: pd.DataFrame, names: list[str]) -> dict[str, dict]:
    """Mean scores of every predictor, over sections, and how far models are from their controls and the bound."""
    means = table.groupby(["predictor", "case"])[list(METRICS)].mean().groupby("predictor").mean()
    found = {name: {key: round(float(row[key]), 3) for key in METRICS} for name, row in means.iterrows()}
    for name in names:
        found[name]["less permuted"] = difference(table, name, f"{name}, permuted")
        found[name]["less mean"] = difference(table, name, MEAN)
        found[name]["less measured"] = difference(table, name, BOUND)
    return found


def without_chromosomes(panel: list[str], args: argparse.Namespace) -> list[str]:
    """Genes that lie on other chromosomes than the markers."""
    where = read_chromosomes(gene_info(args.data))
    out = {where[gene] for gene in MARKERS}
    return [gene for gene in panel if where.get(gene) not in out]


def picture(cases: list[bench.Case], known: dict[str, GeneKnowledge], args: argparse.Namespace) -> None:
    """The markers as measured, as models say them that have not seen them, and as ridge says them that has."""
    case = cases[0]
    panel = common(list(choose_genes(case.training, N_GENES)), known)
    seen, genes = without_chromosomes(panel, args), list(MARKERS)
    test = case.test.take(np.flatnonzero(np.nan_to_num(case.test.depth) > 0)).with_genes(genes)
    values = {"measured": test.expression}
    for name, title in (("comtip", "comtip, not measured"), ("bilinear", "bilinear, not measured")):
        model = sqi.get_model(name)
        fitted = model(model.Config(), known["GO + names"]).fit([s.with_genes(seen) for s in case.training], plan(args))
        values[title] = fitted.for_genes(genes).predict(test, device=args.device).mean.numpy()
    measured = sqi.get_model("ridge")().fit([slide.with_genes(genes) for slide in case.training], plan(args))
    values["ridge, measured"] = measured.predict(test, device=args.device).mean.numpy()
    drawn = Ordinal(test, draw.background(test, {}), genes, values)
    figure, axes = maps.figure_of(len(genes), len(values), test)
    for gene, row in enumerate(axes):
        for ax, name in zip(row, values, strict=True):
            maps.gene_map(ax, drawn, name, gene, bar=False)
            said = drawn.score(name, gene)
            ax.set_title(f"{name}\n{said or ' '}" if gene == 0 else said)
        row[0].set_ylabel(genes[gene], fontstyle="italic", fontsize=maps.FONT + 4)
    draw.scale_bar(axes[-1][0])
    maps.write(figure, args.picture)


class Ordinal(maps.Maps):
    """Maps of which each has limits of its own: a gene that nobody measured has no level to be compared."""

    def limits(self, name: str, gene: int) -> tuple[float, float]:
        low, high = np.percentile(self.values[name][:, gene], [5, 95])
        return float(low), float(high)


def scatter(table: pd.DataFrame, names: list[str], path: Path) -> None:
    """Skill of every gene against the similarity of the seen gene most alike."""
    ax = sqi.pl.zero_shot(table, predictors=[names[0], f"{names[0]}, permuted"])
    ax.figure.savefig(path, dpi=110)
    plt.close(ax.figure)
    print(path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st and genes; or SQ_IMPUTER_DATA")
    parser.add_argument("--cases", nargs="+", default=["C2", "C3", "C4", "C5"])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=None, help="of comtip, for a quick look")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=Path, default=None, help="keep the table of every model and section here")
    parser.add_argument("--json", type=Path, default=None, help="put the figures into this file, which the docs quote")
    parser.add_argument("--csv", type=Path, default=None, help="write the per-gene table here")
    parser.add_argument("--picture", type=Path, default=None)
    parser.add_argument("--scatter", type=Path, default=None)
    return parser.parse_args()


def read(args: argparse.Namespace) -> list[bench.Case]:
    slides: list[Slide] = frozen.read("her2st", args.data)
    return [case for case in bench.leave_one_out(slides, share_patient=True) if case.name in args.cases]


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message=".*knows nothing of")  # such genes are left out beforehand
    cases, known = read(args), knowledge_of(args.data)
    if args.picture:
        picture(cases, known, args)
    if not (args.json or args.csv or args.scatter):
        return
    table, names = pd.concat([table_of(case, known, args) for case in cases], ignore_index=True), list(models_of(known))
    found = figures_of(table, names)
    print(pd.DataFrame(found).T.to_string())
    if args.csv:
        table.to_csv(args.csv, index=False)
    if args.scatter:
        scatter(table, names, args.scatter)
    if args.json:
        figures = json.loads(args.json.read_text()) | {"zero_shot": found}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
