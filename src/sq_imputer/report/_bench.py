"""The report of a benchmark: what was asked, what came of it beside chance and baselines, and how to repeat it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.bench import BenchConfig, over_sections, protocol, scores_of
from sq_imputer.errors import MissingKey
from sq_imputer.report._page import Page, listed_once, said, with_intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

SCORES = ("pearson", "pearson_given_depth", "mse")
NO_INTERCEPT = (
    "It has no intercept, as published: its squared error holds the means of the genes, which baselines know."
)
TITLES = {
    "models": "Models",
    "zero_shot": "Genes and sections that were both left out",
    "expression": "Expression from features, by a linear probe",
}
BASELINES = ("mean", "depth only", "coordinates only", "mean of seen genes")


def bench(folder: str | Path) -> Path:
    """Write `report.html` into the folder of a benchmark: tables, pictures, config, versions, hashes.

    Parameters
    ----------
    folder
        As :func:`sq_imputer.bench.run_config` leaves it.

    Returns
    -------
    The file: it opens without a network.

    Raises
    ------
    MissingKey
        If the folder holds no finished benchmark.

    Examples
    --------
    >>> path = sqi.report.bench("bench_out")  # doctest: +SKIP
    """
    import pandas as pd

    folder = Path(folder)
    if not (folder / "results.parquet").is_file():
        raise MissingKey(f"no results in '{folder}'; run the benchmark first: sq-imputer bench run CONFIG.")
    config, results = BenchConfig.read(folder / "config.yaml"), pd.read_parquet(folder / "results.parquet")
    page = Page(f"sq_imputer benchmark: {config.protocol}")
    _about(page, config, results)
    for task in TITLES:
        if task in set(results["task"]):
            _scores(page, results, task)
    if "retrieval" in set(results["task"]):
        _retrieval(page, results[results["task"] == "retrieval"])
    if "batch" in set(results["task"]):
        _batch(page, results[results["task"] == "batch"])
    _repeat(page, folder)
    path = folder / "report.html"
    path.write_text(page.html(), encoding="utf-8")
    return path


def _about(page: Page, config: BenchConfig, results: DataFrame) -> None:
    how = protocol(config.protocol)
    single = results[results["section"] != "all"]  # what is said of all that a split tests is no case of its own
    cases = (single if len(single) else results).groupby("case")["shares_patient"].any()
    patients = f"; in {cases.sum()} of them a patient is in training and test" if cases.any() else ", of new patients"
    many, genes = "case" if len(cases) == 1 else "cases", config.n_genes or how.n_genes
    page.words(
        f"{len(cases)} {many}{patients}. Unit {config.unit}, {genes} genes chosen on the training sections of each "
        f"case, seeds {', '.join(map(str, config.seeds))}."
    )
    page.words(how.compares, note=True)


def _scores(page: Page, results: DataFrame, task: str) -> None:
    from sq_imputer import pl

    page.heading(TITLES[task])
    scores = scores_of(results, task)
    if task == "expression":
        probe = listed_once(results[results["task"] == task]["detail"])
        page.words(f"Probe {probe}. {NO_INTERCEPT if probe != 'ridge-cv' else ''}")
    means = over_sections(scores, [m for m in SCORES if m in scores], by=["predictor"])
    page.table(with_intervals(means, "predictor"))
    page.words(
        "Mean over genes and sections, [95 % interval over sections]: with fewer than ten sections it is a floor. "
        "A constant, such as the mean, has no correlation.",
        note=True,
    )
    ax = pl.leaderboard(scores, metric="pearson_given_depth", baselines=BASELINES)
    page.picture(ax.figure, f"Pearson given depth of every predictor of the task of {task}, with intervals")


def _retrieval(page: Page, found: DataFrame) -> None:
    page.heading("Retrieval of the other half of a pair")
    recalls = found[found["metric"].str.startswith("recall")]
    per = recalls.rename(columns={"metric": "k"})
    means = over_sections(per, ["value", "chance"], by=["subject", "detail", "k"])
    recall, chance = (means[means["metric"] == name] for name in ("value", "chance"))
    recall = recall.assign(chance=chance["mean"].to_numpy())
    cells = [f"{said(*row[:3])} ({row[3]:.3f})" for row in recall[["mean", "low", "high", "chance"]].to_numpy()]
    wide = recall.assign(cell=cells).pivot(index=["subject", "detail"], columns="k", values="cell")
    wide = wide.loc[list(dict.fromkeys(zip(recall["subject"], recall["detail"], strict=True))), recall["k"].unique()]
    wide = wide.reset_index().rename_axis(columns=None)
    page.table(wide.rename(columns={"detail": "direction, gallery"}))
    page.words(
        "In brackets chance. Recall in batches of 64 neighboring rows is not recall over a section: compare each with "
        "its chance.",
        note=True,
    )
    page.picture(_drawn(recall[recall["k"] == "recall@5"]), "Recall beside chance, for every gallery")


def _drawn(recall: DataFrame) -> Figure:
    import matplotlib.pyplot as plt

    labels = (recall["subject"] + ": " + recall["detail"]).to_numpy()
    figure, ax = plt.subplots(figsize=(8, 0.6 + 0.26 * len(labels)), layout="constrained")
    y = range(len(labels))[::-1]
    ax.hlines(y, recall["low"], recall["high"], colors="#0072B2", linewidth=2.5)
    ax.plot(recall["mean"], y, "o", color="#0072B2", label="recall of the first 5, 95 % interval")
    ax.plot(recall["chance"], y, "|", color="0.35", markersize=11, markeredgewidth=2, label="chance")
    ax.set_yticks(list(y), labels, fontsize="small")
    ax.set_xlim(left=0)
    ax.set_xlabel("Recall of the first 5, mean over sections")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _batch(page: Page, found: DataFrame) -> None:
    page.heading("What features say of the section instead of the tissue")
    means = found.groupby(["subject", "metric"], sort=False)[["value", "chance"]].mean().reset_index()
    page.table(means)
    page.words("Chance: what features have that do not know the section.", note=True)


def _repeat(page: Page, folder: Path) -> None:
    import pandas as pd

    page.heading("What training and test share")
    audit = pd.read_csv(folder / "audit.csv")
    page.words("Nothing: no patient, section, counts or crop.") if audit.empty else page.table(audit)
    page.heading("To repeat it")
    known = json.loads((folder / "provenance.json").read_text())
    page.code("sq-imputer bench run config.yaml --out again")
    page.listed([f"{name} {value}" for name, value in known["versions"].items()])
    page.words(f"Config {known['config']}; sha256 of the results {known['results_sha256']}.")
    page.code((folder / "config.yaml").read_text(encoding="utf-8"))
