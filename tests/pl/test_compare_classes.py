"""Classes are drawn as categories: measured, called, right or wrong, and how probable the call is."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from spatialdata.models import TableModel

from sq_imputer.errors import BadInput
from sq_imputer.pl import compare

matplotlib.use("agg")
import matplotlib.pyplot as plt

NAMES = ["gland", "stroma", "vessel"]
COLORS = ["#0072b2", "#e69f00", "#009e73"]


def results(section, n: int, names, layers: dict, kind: str, **record):
    """A table as `tl.predict` writes it, of spots, by hand."""
    table = AnnData(
        layers["ridge"],
        obs=pd.DataFrame({"region": pd.Categorical(["spots"] * n), "spot": range(n)}, index=list(map(str, range(n)))),
        var=pd.DataFrame({"kind": kind}, index=names),
        layers=layers,
    )
    told = {"image_key": "he", "mpp": 1.25, "table_key": "table", **record}
    table.uns["sq_imputer"] = {"ridge": told, "embeddings": {}}
    section.tables["result"] = TableModel.parse(table, region="spots", region_key="region", instance_key="spot")


@pytest.fixture
def called(section):
    """A section of which spot k is of class k mod 3, the first five unknown; every fourth is called wrongly."""
    n = len(section.shapes["spots"])
    truth = np.arange(n) % 3
    measured = np.eye(3, dtype=np.float32)[truth]
    measured[:5] = np.nan
    said = np.full((n, 3), 0.1, np.float32)
    said[np.arange(n), np.where(np.arange(n) % 4, truth, (truth + 1) % 3)] = 0.8
    where = {"where": "obs:tissue", "kind": "classes"}
    layers = {"measured": measured, "ridge": said, "ridge_std": np.sqrt(said * (1 - said))}
    results(section, n, NAMES, layers, "classes", unit="probability", target=where)
    table = section.tables["table"]
    table.obs["tissue"] = pd.Categorical(np.array(NAMES)[truth], categories=NAMES[::-1])
    table.uns["tissue_colors"] = COLORS[::-1]
    return section


def filled(ax):
    return next(part for part in ax.collections if part.get_array() is not None)


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_classes_are_drawn_with_the_colors_of_the_user_beside_right_and_wrong(called):
    axes = compare(called, key="result")
    n = len(called.shapes["spots"])
    assert [ax.get_title() for ax in axes[0]] == ["measured", "called", "right or wrong", "probability of the call"]
    axes[0, 0].figure.canvas.draw()
    expected = [COLORS[k % 3] for k in range(5, n)]
    assert [to_hex(color) for color in filled(axes[0, 0]).get_facecolors()] == expected
    assert [to_hex(handle.get_markerfacecolor()) for handle in axes[0, 1].get_legend().legend_handles] == COLORS
    wrong = sum(k % 4 == 0 for k in range(5, n))
    assert texts(axes[0, 2]) == [f"right ({n - 5 - wrong})", f"wrong ({wrong})", "not measured (5)"]
    np.testing.assert_array_equal(filled(axes[0, 2]).get_array(), np.arange(5, n) % 4 == 0)
    np.testing.assert_allclose(filled(axes[0, 3]).get_array(), 0.8)
    assert texts(axes[0, 0])[-1] == "not measured (5)" and len(texts(axes[0, 1])) == 3


def test_one_class_is_a_map_of_its_probability(called):
    axes = compare(called, "stroma", key="result", vmin=0, vmax=1, cmap="magma")
    assert [ax.get_title() for ax in axes[0]][:2] == ["measured", "predicted"] and axes.shape == (1, 4)
    np.testing.assert_allclose(filled(axes[0, 1]).get_array(), called.tables["result"].layers["ridge"][:, 1])
    assert filled(axes[0, 1]).get_clim() == (0, 1) and filled(axes[0, 1]).get_cmap().name == "magma"


def test_without_colors_of_the_user_those_of_the_calls_are_taken_else_scanpys(called):
    del called.tables["table"].uns["tissue_colors"]
    usual = compare(called, key="result", background=False)[0, 1].get_legend().legend_handles
    assert len({to_hex(handle.get_markerfacecolor()) for handle in usual}) == 3
    called.tables["result"].uns["ridge_tissue_colors"] = COLORS
    own = compare(called, key="result", background=False)[0, 1].get_legend().legend_handles
    assert [to_hex(handle.get_markerfacecolor()) for handle in own] == COLORS


def test_where_nothing_was_measured_the_call_and_its_probability_are_left(called):
    called.tables["result"].layers["measured"][:] = np.nan
    axes = compare(called, key="result")
    assert [ax.get_title() for ax in axes[0]] == ["called", "probability of the call"]
    assert [ax.get_title() for ax in compare(called, "gland", key="result")[0]] == ["predicted", "standard deviation"]
    assert compare(called, key="result", ax=[plt.subplots()[1]]).shape == (1, 1)


def test_a_prediction_in_another_unit_has_no_residual_and_colors_of_its_own(section):
    n = len(section.shapes["spots"])
    layers = {"measured": np.linspace(0, 1, n)[:, None], "ridge": np.linspace(50, 90, n)[:, None]}
    results(section, n, ["NUC1"], layers, "genes", unit="log1p_cp10k", layer_unit="score")
    axes = compare(section, "NUC1", key="result", background=False)
    assert [ax.get_title() for ax in axes[0]] == ["measured", "predicted"]
    assert [filled(ax).colorbar.ax.get_ylabel() for ax in axes[0]] == ["log1p_cp10k", "score"]
    assert filled(axes[0, 0]).get_clim()[1] <= 1 and filled(axes[0, 1]).get_clim()[0] >= 50


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"vmin": 1, "vmax": 0}, "colors would go from vmin 1 to vmax 0"),
        ({"vmax": "99%"}, "vmax is '99%'; expected a number, or a percentile such as 'p99'"),
        ({"cmap": "virids"}, "cmap is 'virids', which matplotlib does not have; did you mean 'viridis'"),
    ],
)
def test_colors_that_cannot_be_are_said(called, how, message):
    with pytest.raises(BadInput, match=message):
        compare(called, "gland", key="result", background=False, **how)


def test_percentiles_are_those_of_the_values_and_numbers_ask_for_a_name(called):
    axes = compare(called, "gland", key="result", background=False, vmax="p50")
    assert filled(axes[0, 0]).get_clim()[1] == pytest.approx(0.1)
    called.tables["result"].var["kind"] = "numbers"
    with pytest.raises(BadInput, match="is not of classes; they alone are drawn together. Pass genes="):
        compare(called, key="result")
