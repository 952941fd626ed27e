"""One ranked line per predictor, baselines in gray, genes without a score counted."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from sq_imputer.errors import MissingKey
from sq_imputer.pl import skill

matplotlib.use("agg")
import matplotlib.pyplot as plt


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = [
        {"gene": f"g{i}", "predictor": name, "section": section, "pearson": rng.uniform(), "pearson_given_depth": -0.1}
        for name in ("mean", "stem", "ridge on texture")
        for section in "AB"
        for i in range(20)
    ]
    table = pd.DataFrame(rows)
    table.loc[table["predictor"] == "mean", "pearson"] = np.nan
    table.loc[(table["predictor"] == "stem") & table["gene"].isin(["g3", "g7"]), "pearson"] = np.nan
    table["ceiling"] = 0.9
    return table


def lines(ax):
    return {line.get_label().split(":")[0]: line for line in ax.get_lines() if not line.get_label().startswith("_")}


def test_a_line_is_the_genes_of_a_predictor_averaged_over_sections_and_ranked(table):
    line = lines(skill(table))["stem"]
    expected = table.query("predictor == 'stem'").groupby("gene")["pearson"].mean().dropna()
    np.testing.assert_allclose(line.get_ydata(), np.sort(expected)[::-1])
    assert line.get_xdata().tolist() == list(range(1, 19))


def test_a_section_is_drawn_alone(table):
    expected = table.query("predictor == 'stem' and section == 'B'")["pearson"].dropna()
    np.testing.assert_allclose(lines(skill(table, section="B"))["stem"].get_ydata(), np.sort(expected)[::-1])
    with pytest.raises(MissingKey, match="no section 'C'; the score table has 'A', 'B'"):
        skill(table, section="C")


def test_genes_without_a_score_are_counted_in_the_legend(table):
    labels = [text.get_text() for text in skill(table).get_legend().get_texts()]
    assert any(label.startswith("stem: mean 0.") and label.endswith("2 of 20 genes NaN") for label in labels)
    assert "mean: no score, 20 of 20 genes NaN" in labels


def test_baselines_are_gray_and_models_are_not(table):
    drawn = lines(skill(table))
    red, green, blue = to_rgb(drawn["ridge on texture"].get_color())
    assert red == green == blue
    assert len(set(to_rgb(drawn["stem"].get_color()))) > 1
    drawn = lines(skill(table, baselines=("stem",)))
    assert len(set(to_rgb(drawn["stem"].get_color()))) == 1


def test_the_ceiling_stands_beside_plain_pearson_only(table):
    np.testing.assert_allclose(lines(skill(table))["noise ceiling"].get_ydata(), 0.9)
    given = skill(table, metric="pearson_given_depth")
    assert "noise ceiling" not in lines(given)
    assert "given depth" in given.get_ylabel()
    assert "noise ceiling" not in lines(skill(table.drop(columns="ceiling")))


@pytest.mark.parametrize("n_genes", [1, 2])
def test_one_or_two_genes_are_seen(table, n_genes):
    few = table[table["gene"].isin([f"g{i}" for i in range(n_genes)])]
    ax = skill(few)
    assert lines(ax)["stem"].get_marker() == "o"
    assert all(place == int(place) for place in ax.get_xticks())
    assert lines(skill(table))["stem"].get_marker() == "None"


def test_it_draws_on_the_axes_given(table):
    ax = plt.subplots()[1]
    assert skill(table, ax=ax) is ax


def test_a_metric_that_is_not_there_is_an_error(table):
    with pytest.raises(MissingKey, match="no column 'mae'; the score table has 'gene'"):
        skill(table, metric="mae")
