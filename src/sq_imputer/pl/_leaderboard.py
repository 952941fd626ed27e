"""Models on sets: mean scores with their intervals, beside the baselines that they have to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, MissingKey, check_frame, check_number, listed
from sq_imputer.pl._skill import COLORS, LABELS
from sq_imputer.pl._text import plain
from sq_imputer.scores import tables as scoring
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

LOWER_IS_BETTER = {"mse": "Mean squared error (lower is better)"}
DASHES = (":", "--", "-", "-.")
HEADING = 1.2  # rows above the models of a set, for its name


@verb
def leaderboard(
    table: DataFrame | Mapping[str, DataFrame],
    *,
    metric: str = "pearson",
    top: int | None = None,
    baselines: Sequence[str] = ("mean", "depth only", "ridge"),
    ax: Axes | None = None,
) -> Axes:
    """Draw every model's mean score on every set with its 95 % interval, and the baselines as lines.

    Models have one order in all sets: best mean over sets on top. Numbers at the right are the means. Intervals are
    over cases (:func:`sq_imputer.scores.aggregate`): of fewer than about ten they are a floor, and a single case has
    none. A set whose cases have a patient in both training and test says so: its score is one of replicates.

    Parameters
    ----------
    table
        As :func:`sq_imputer.bench.run` returns it, with a column `set` if it holds several; or tables by name of the
        set.
    metric
        A score: `"pearson"`, `"pearson_given_depth"`, `"spearman"`, `"mse"`, `"r2"`.
    top
        Average over the first genes of each case's panel, which is ordered by variance on the training sections; over
        all if not given.
    baselines
        Predictors drawn as lines, where the table has them.
    ax
        Axes to draw on; a new figure if not given.

    Returns
    -------
    The Axes.

    Raises
    ------
    MissingKey
        If a table lacks the metric or another column.
    BadInput
        If there is no table, one has no rows, or `top` is less than 1.

    Examples
    --------
    >>> ax = sqi.pl.leaderboard(results)
    """
    import matplotlib.pyplot as plt
    import pandas as pd

    sets = _sets(table, metric, top)
    scores = pd.concat({name: _scores(part, metric) for name, part in sets.items()}, names=["set"]).reset_index()
    ranked = scores.groupby("predictor")["mean"].mean().sort_values(ascending=metric in LOWER_IS_BETTER)
    models = [name for name in ranked.index if name not in baselines] or list(ranked.index)
    lines = [name for name in baselines if name in ranked.index and name not in models]
    height = len(models) + HEADING
    if ax is None:
        ax = plt.subplots(figsize=(7.2, 1.1 + 0.3 * len(sets) * height), layout="constrained")[1]
    for k, (name, part) in enumerate(sets.items()):
        first, found = k * height + HEADING, scores[scores["set"] == name].set_index("predictor")
        _heading(ax, first - 0.9, name, _note(part))
        _lines(ax, (first - 0.45, first + len(models) - 0.55), found, lines)
        _points(ax, first, found.reindex(models))
    _finish(ax, models * len(sets), [k * height + HEADING + i for k in range(len(sets)) for i in range(len(models))])
    _legend(ax, {name: bool(ranked.notna()[name]) for name in lines})
    genes = "all genes" if top is None else f"first {top} genes"
    ax.set_xlabel(f"{LOWER_IS_BETTER.get(metric) or LABELS.get(metric, metric)}, mean over {genes}")
    return ax


def _sets(table, metric: str, top: int | None) -> dict[str, DataFrame]:
    """Tables by set, checked, of the first `top` genes."""
    for one in table.values() if isinstance(table, Mapping) else [table]:
        check_frame(one, "bench.run")
    if not isinstance(table, Mapping):
        table = dict(list(table.groupby("set", sort=False))) if "set" in table else {"": table}
    if top is not None:
        check_number("top", top, 1, whole=True)
    if metric not in scoring.METRICS:
        raise MissingKey(f"no score '{metric}'; there are {listed(scoring.METRICS)}. Pass metric=.")
    needed = ["gene", "predictor", "case", "shares_patient", metric, *(["rank"] if top is not None else [])]
    found = {}
    for name, part in table.items():
        lost = [column for column in needed if column not in part]
        if lost:
            raise MissingKey(
                f"no column {listed(lost)}; the table has {listed(part.columns, 14)}. Pass one of bench.run."
            )
        found[str(name)] = part if top is None else part[part["rank"] < top]
    if not found or any(part.empty for part in found.values()):
        raise BadInput("there is no score to draw. Pass tables of bench.run that have rows.")
    return found


def _scores(table: DataFrame, metric: str) -> DataFrame:
    found = scoring.aggregate(table, by="case")
    return found[found["metric"] == metric].set_index("predictor")


def _note(table: DataFrame) -> str:
    """How many cases, and whether they are tests on new patients."""
    shared = table.groupby("case")["shares_patient"].any()
    n, k = len(shared), int(shared.sum())
    cases = "1 case, no interval" if n == 1 else f"{n} cases"
    if not k:
        return cases
    return f"{cases}; patient also in training" + ("" if k == n else f" in {k}")


def _heading(ax: Axes, y: float, name: str, note: str) -> None:
    place = {"xycoords": ax.get_yaxis_transform(), "va": "center"}
    if not name:
        ax.annotate(note, (0.01, y), **place, fontsize="small", color="0.35")
        return
    title = ax.annotate(plain(name), (0.01, y), **place, fontweight="bold")
    beside = {"xycoords": title, "xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    ax.annotate(note, (1, 0.5), **beside, fontsize="small", color="0.35")


def _lines(ax: Axes, span: tuple[float, float], scores: DataFrame, names: Sequence[str]) -> None:
    for name, dash in zip(names, DASHES * len(names), strict=False):
        mean = scores["mean"].get(name, float("nan"))
        if mean == mean:
            ax.vlines(mean, *span, colors="0.35", linestyles=dash, linewidth=1.3, zorder=1)


def _points(ax: Axes, first: float, scores: DataFrame) -> None:
    y = [first + i for i in range(len(scores))]
    ax.hlines(y, scores["low"], scores["high"], colors=COLORS[0], linewidth=2.5, zorder=2)
    ax.plot(scores["mean"], y, "o", color=COLORS[0], markersize=6.5, markeredgecolor="white", zorder=3)
    for place, (mean, lost) in zip(y, scores[["mean", "n_nan"]].to_numpy(), strict=True):
        text = "no score" if mean != mean else f"{mean:.3f}" + (f", {lost:.0f} genes NaN" if lost else "")
        ax.annotate(text, (1.01, place), xycoords=ax.get_yaxis_transform(), va="center", fontsize="small")


def _finish(ax: Axes, names: Sequence[str], y: Sequence[float]) -> None:
    ax.set_yticks(y, [plain(name) for name in names])
    ax.set_ylim(max(y) + 0.6, -0.1)
    ax.margins(x=0.08)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _legend(ax: Axes, scored: Mapping[str, bool]) -> None:
    """One entry per baseline, also of one that is constant and has no correlation."""
    from matplotlib.lines import Line2D

    point = {"color": COLORS[0], "marker": "o", "markeredgecolor": "white", "linewidth": 2.5}
    entries = [Line2D([], [], **point, label="mean, 95 % interval")]
    for (name, has), dash in zip(scored.items(), DASHES * len(scored), strict=False):
        style = {"color": "0.35", "linewidth": 1.3, "linestyle": dash if has else "none"}
        entries.append(Line2D([], [], **style, label=plain(name if has else f"{name}: no score")))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0}
    ax.legend(handles=entries, frameon=False, fontsize="small", ncols=len(entries), **place)
