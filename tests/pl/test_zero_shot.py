"""A dot per gene, averaged over sections, and the mean over the genes around."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl import zero_shot

matplotlib.use("agg")


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = [
        {"gene": f"g{k}", "predictor": name, "case": case, "similarity": k / 40, "pearson_given_depth": rng.normal()}
        for name in ("comtip", "comtip, permuted", "mean of seen genes")
        for case in "AB"
        for k in range(40)
    ]
    return pd.DataFrame(rows)


def test_dots_are_means_over_sections_and_the_line_is_the_mean_of_a_fifth_of_the_genes(table):
    ax = zero_shot(table)
    own = table[table["predictor"] == "comtip"].groupby("gene")["pearson_given_depth"].mean()
    own = own[[f"g{k}" for k in range(40)]].to_numpy()
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([np.arange(40) / 40, own]))
    line = ax.get_lines()[1]
    np.testing.assert_allclose(line.get_ydata(), [own[k : k + 8].mean() for k in range(33)])
    np.testing.assert_allclose(line.get_xdata()[0], np.arange(8).mean() / 40)


def test_the_first_predictor_and_its_control_are_drawn_unless_others_are_named(table):
    labels = [text.get_text() for text in zero_shot(table).get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == ["comtip", "comtip, permuted"]
    labels = [t.get_text() for t in zero_shot(table, predictors=["mean of seen genes"]).get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == ["mean of seen genes"]


def test_genes_without_a_score_are_not_drawn(table):
    table.loc[table["gene"] == "g3", "pearson_given_depth"] = np.nan
    assert len(zero_shot(table).collections[0].get_offsets()) == 39
    table["pearson_given_depth"] = np.nan
    assert zero_shot(table).get_legend().get_texts()[0].get_text() == "comtip: no score"


def test_what_is_not_there_is_named(table):
    with pytest.raises(MissingKey, match="no column 'r2'"):
        zero_shot(table, metric="r2")
    with pytest.raises(MissingKey, match="no predictor 'stem'; the table has 'comtip', 'comtip, permuted'"):
        zero_shot(table, predictors=["stem"])
    with pytest.raises(BadInput, match=r"expected a DataFrame, as bench\.leave_genes_out returns it"):
        zero_shot([1])
