"""Every model has a point on every set, in one order; baselines are lines; what a score is of is said."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl import leaderboard
from sq_imputer.scores import tables as scoring

matplotlib.use("agg")
import matplotlib.pyplot as plt

MODELS = {"mean": np.nan, "depth only": 0.2, "ridge": 0.4, "worst": 0.3, "best": 0.5, "middle": 0.42}


def made(cases=("C2", "C3", "C4"), shared=True, models=MODELS, n_genes=10):
    """As `bench.run` returns it: the score falls with the rank of the gene."""
    rng = np.random.default_rng(0)
    rows = [
        {"case": case, "predictor": name, "gene": f"g{rank}", "rank": rank, "shares_patient": shared}
        | {"pearson": score - 0.01 * rank + rng.normal(0, 0.02), "mse": 1 - (0 if np.isnan(score) else score)}
        for case in cases
        for name, score in models.items()
        for rank in range(n_genes)
    ]
    return pd.DataFrame(rows)


def points(ax) -> list[np.ndarray]:
    """x of the points, set by set."""
    return [np.asarray(line.get_xdata(), dtype=float) for line in ax.get_lines()]


def spans(ax) -> list[np.ndarray]:
    """Ends of the intervals and of the lines of baselines, in order of drawing."""
    return [segment for part in ax.collections for segment in part.get_segments()]


def labels(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_points_and_intervals_are_those_of_aggregate_and_the_best_is_on_top():
    table = made()
    ax = leaderboard(table)
    expected = scoring.aggregate(table, by="case").query("metric == 'pearson'").set_index("predictor")
    names = ["best", "middle", "worst"]
    assert [text.get_text() for text in ax.get_yticklabels()] == names
    assert ax.get_yticks().tolist() == sorted(ax.get_yticks())
    assert ax.yaxis_inverted()
    np.testing.assert_allclose(points(ax)[0], expected.loc[names, "mean"])
    drawn = np.array([segment[:, 0] for segment in spans(ax)[-3:]])
    np.testing.assert_allclose(drawn, expected.loc[names, ["low", "high"]].astype(float))
    assert [f"{mean:.3f}" for mean in expected.loc[names, "mean"]] == labels(ax)[-3:]


def test_where_less_is_better_the_least_is_on_top():
    ax = leaderboard(made(), metric="mse")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["best", "middle", "worst"]
    assert points(ax)[0].tolist() == sorted(points(ax)[0])
    assert "lower is better" in ax.get_xlabel()


def test_baselines_are_lines_across_the_models_of_their_set():
    table = made()
    ax = leaderboard(table)
    expected = scoring.aggregate(table, by="case").query("metric == 'pearson'").set_index("predictor")["mean"]
    across = {round(segment[0, 0], 6): segment[:, 1] for segment in spans(ax) if segment[0, 0] == segment[1, 0]}
    for name in ("depth only", "ridge"):
        low, high = sorted(across[round(expected[name], 6)])
        assert low < min(ax.get_yticks()) and high > max(ax.get_yticks())
    assert [text.get_text() for text in ax.get_legend().get_texts()][1:] == ["mean: no score", "depth only", "ridge"]


def test_sets_have_the_same_order_and_a_model_that_is_missing_leaves_its_row_empty():
    less = {name: score for name, score in MODELS.items() if name != "middle"}
    ax = leaderboard({"breast": made(), "bulb": made(("M1", "M2"), models=less)})
    assert [text.get_text() for text in ax.get_yticklabels()] == ["best", "middle", "worst"] * 2
    assert np.isnan(points(ax)[1]).tolist() == [False, True, False]
    assert {"breast", "bulb", "no score"} <= set(labels(ax))
    column = pd.concat([made().assign(set="breast"), made(("M1", "M2"), models=less).assign(set="bulb")])
    np.testing.assert_array_equal(points(leaderboard(column)), points(ax))


@pytest.mark.parametrize(
    ("cases", "shared", "note"),
    [
        (("C2", "C3"), True, "2 cases; patient also in training"),
        (("C2", "C3"), False, "2 cases"),
        (("B4",), False, "1 case, no interval"),
    ],
)
def test_it_says_of_how_many_cases_a_score_is_and_whether_of_replicates(cases, shared, note):
    assert note in labels(leaderboard(made(cases, shared)))


def test_some_shared_patients_are_counted():
    mixed = pd.concat([made(("C2", "C3"), True), made(("B4",), False)])
    assert "3 cases; patient also in training in 2" in labels(leaderboard(mixed))


def test_top_takes_the_first_genes_of_the_panel_and_says_so():
    table = made()
    ax = leaderboard(table, top=3)
    expected = table[(table["rank"] < 3) & (table["predictor"] == "best")].groupby("case")["pearson"].mean().mean()
    np.testing.assert_allclose(points(ax)[0][0], expected)
    assert "first 3 genes" in ax.get_xlabel()


def test_genes_without_a_score_are_counted():
    table = made()
    table.loc[(table["predictor"] == "best") & table["gene"].isin(["g1", "g2"]), "pearson"] = np.nan
    assert any(text.endswith(", 2 genes NaN") for text in labels(leaderboard(table)))


def test_baselines_alone_are_points():
    ax = leaderboard(made(models={"mean": np.nan, "ridge": 0.4}))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["ridge", "mean"]


def test_it_draws_on_the_axes_given():
    ax = plt.subplots()[1]
    assert leaderboard(made(), ax=ax) is ax


@pytest.mark.parametrize(
    ("error", "table", "options", "message"),
    [
        (MissingKey, made(), {"metric": "mae"}, "no score 'mae'; there are 'pearson'"),
        (MissingKey, made(), {"metric": "r2"}, "no column 'r2'; the table has 'case'"),
        (MissingKey, made().drop(columns="rank"), {"top": 5}, "no column 'rank'"),
        (BadInput, made(), {"top": 0}, "top is 0"),
        (BadInput, {}, {}, "there is no score to draw"),
        (BadInput, made()[:0], {}, "there is no score to draw"),
    ],
)
def test_errors_name_what_was_found(error, table, options, message):
    with pytest.raises(error, match=message):
        leaderboard(table, **options)
