"""Does the smoothness of a gene among spots that look alike tell, before any model, how well it is predicted?

    python benchmarks/image_eps.py [--data FOLDER] [--json benchmarks/figures.json] [--picture FILE]

her2st C2 to C5 and the two mouse olfactory bulbs: one section is left out, `ridge` with its defaults is fitted on the
others of that individual. Mouse brain: five vertical strips beyond a buffer of 150 µm. Genes are the 250 most variable
of the training sections (mouse brain: 100). Pearson correlation over genes of the skill (Pearson, and given depth) with
`image_eps` of the section that is tested; and, to compare, with the noise ceiling, and with the quotient that is not
compared with displaced spots. Seconds are those of eps alone, without the features, for 250 genes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import frozen
import numpy as np
import pandas as pd

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.genes.panel import columns_for
from sq_imputer.scores import metrics, smoothness

SECTIONS = {"her2st": ("C2", "C3", "C4", "C5"), "mob": ("MOB1", "MOB2"), "mouse_brain": None}


def outcomes(name: str, data: Path | None):
    """Section, tested rows, measured, predicted by ridge, and names of the genes, of every section of a set."""
    slides = [s for s in frozen.read(name, data) if SECTIONS[name] is None or s.section in SECTIONS[name]]
    ridge = {"ridge": sqi.get_model("ridge")()}
    if len(slides) > 1:
        for found in bench.outcomes(bench.leave_one_out(slides, share_patient=True), ridge):
            yield found.case.test, found.case.rows, found.truth, found.predicted["ridge"], list(found.tested)
        return
    parts = list(bench.outcomes(bench.strips_of(slides[0], buffer_um=150.0), ridge, n_genes=100))
    genes = [gene for gene in parts[0].tested if all(gene in part.tested for part in parts)]
    columns = [[part.tested.index(gene) for gene in genes] for part in parts]
    truth = np.concatenate([part.truth[:, k] for part, k in zip(parts, columns, strict=True)])
    said = np.concatenate([part.predicted["ridge"][:, k] for part, k in zip(parts, columns, strict=True)])
    yield slides[0], np.concatenate([part.case.rows for part in parts]), truth, said, genes


def per_gene(slide, rows: np.ndarray, truth: np.ndarray, said: np.ndarray, genes: list[str]) -> tuple:
    """Skill, eps and ceiling of every gene, and seconds."""
    features = slide.all_features(sqi.get_model("ridge")().needs)[rows]
    depth, xy = slide.depth[rows], slide.xy_um[rows]
    start = time.perf_counter()
    eps = smoothness.image_eps(truth, features, xy, depth)
    seconds = time.perf_counter() - start
    graph, stays = smoothness.feature_graph(features), np.ones(len(rows), dtype=bool)
    counts = slide.counts.columns(columns_for(genes, slide.var_names, slide.section, slide.gene_ids))[rows]
    known = {
        "pearson": metrics.pearson(truth, said),
        "pearson_given_depth": metrics.pearson_given(truth, said, depth),
        **eps,
        "ceiling": metrics.noise_ceiling(counts, depth),
        "not displaced": -smoothness._log_quotient(metrics.centered(truth), stays, graph),
    }
    return pd.DataFrame(known, index=genes), seconds


def row(table: pd.DataFrame, seconds: float) -> dict[str, float]:
    """Correlations over genes."""
    r = table.corr()
    return {
        "eps": r.loc["image_eps", "pearson"],
        "eps given depth": r.loc["image_eps_given_depth", "pearson_given_depth"],
        "ceiling": r.loc["ceiling", "pearson"],
        "ceiling given depth": r.loc["ceiling", "pearson_given_depth"],
        "not displaced": r.loc["not displaced", "pearson"],
        "mean eps": table["image_eps"].mean(),
        "seconds": seconds,
    }


def picture(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Skill against eps, a panel per section."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tables), figsize=(2.6 * len(tables), 2.8), sharey=True, layout="constrained")
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        axis.scatter(table["image_eps"], table["pearson"], s=5, alpha=0.6, linewidths=0)
        axis.set(title=name, xlabel="image_eps")
        axis.axhline(0, color="gray", linewidth=0.5)
        axis.axvline(0, color="gray", linewidth=0.5)
    axes[0].set_ylabel("Pearson of ridge")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    tables, found = {}, {}
    for name in SECTIONS:
        for slide, *case in outcomes(name, arguments.data):
            section = "brain" if name == "mouse_brain" else slide.section
            tables[section], seconds = per_gene(slide, *case)
            found[section] = {key: round(float(value), 3) for key, value in row(tables[section], seconds).items()}
    print(pd.DataFrame(found).T.to_string())
    if arguments.picture:
        picture(tables, arguments.picture)
    if arguments.json:
        figures = json.loads(arguments.json.read_text())
        arguments.json.write_text(json.dumps({**figures, "image_eps": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
