"""Two matrices in the order of the measured one, in the same colors, and their agreement in the title."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl import genes_correlation
from sq_imputer.scores.metrics import genes_correlation_agreement

matplotlib.use("agg")
import matplotlib.pyplot as plt

PLANTED = np.array([0, 1, 0, 1, 0, 1])  # two programs, interleaved


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    programs = rng.normal(size=(200, 2))
    measured = programs[:, PLANTED] + rng.normal(0, 0.5, (200, 6))
    return measured, programs[:, PLANTED] + rng.normal(0, 0.1, (200, 6))


def matrix(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array().filled(np.nan))


def names(ax) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels()]


def in_table(measured, predicted, n_unmeasured=0):
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from shapely import points
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel

    n, columns = measured.shape
    measured = measured.astype(np.float32)
    measured[:n_unmeasured] = np.nan
    predicted = predicted.astype(np.float32)
    obs = pd.DataFrame({"region": pd.Categorical(["spots"] * n), "instance_id": np.arange(n)})
    table = AnnData(
        predicted.copy(),
        obs=obs.set_index(obs.index.astype(str)),
        var=pd.DataFrame(index=[f"g{i}" for i in range(columns)]),
        layers={"measured": measured, "stem": predicted},
        uns={"sq_imputer": {"stem": {}}},
    )
    spots = GeoDataFrame({"radius": np.ones(n)}, geometry=list(points(np.random.default_rng(1).normal(size=(n, 2)))))
    return SpatialData(
        shapes={"spots": ShapesModel.parse(spots)},
        tables={"imputed": TableModel.parse(table, region="spots", region_key="region", instance_key="instance_id")},
    )


def test_planted_programs_stand_side_by_side_in_both(pair):
    left, right = genes_correlation(pair, genes=list("abcdef"))
    assert names(left) == names(right)
    program = [PLANTED["abcdef".index(name)] for name in names(left)]
    assert program in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def test_the_matrices_are_the_correlations_in_that_order_in_the_same_symmetric_colors(pair):
    axes = genes_correlation(pair, genes=list("abcdef"))
    order = ["abcdef".index(name) for name in names(axes[0])]
    for ax, side in zip(axes, pair, strict=True):
        expected = np.corrcoef(side[:, order], rowvar=False)
        off = ~np.eye(6, dtype=bool)
        np.testing.assert_allclose(matrix(ax)[off], expected[off])
        assert np.isnan(np.diag(matrix(ax))).all()
    (low, high), other = (ax.images[0].get_clim() for ax in axes)
    assert low == -high < 0 and other == (low, high)
    np.testing.assert_allclose(high, max(np.nanmax(np.abs(matrix(ax))) for ax in axes))


def test_the_agreement_is_that_of_the_metric_and_falls_where_genes_are_exchanged(pair):
    measured, predicted = pair
    exchanged = predicted[:, [1, 0, 3, 2, 4, 5]]
    titles = [genes_correlation((measured, side))[1].get_title() for side in (predicted, exchanged)]
    for title, side in zip(titles, (predicted, exchanged), strict=True):
        assert title.endswith(f"agreement {genes_correlation_agreement(measured, side):.2f}")
    assert float(titles[0].split()[-1]) > 0.9 > 0.5 > float(titles[1].split()[-1])


def test_the_most_variable_measured_genes_are_chosen_and_constant_ones_are_counted(pair):
    measured, predicted = pair[0] * [1, 5, 1, 5, 1, 5], pair[1].copy()
    predicted[:, 3] = 2.0
    axes = genes_correlation((measured, predicted), n=3)
    assert {"1", "5"} < set(names(axes[0])) and "3" not in names(axes[0])
    assert axes[0].get_title() == "measured\n3 genes, 200 spots, 1 constant left out"


def test_of_an_object_only_measured_spots_count_and_the_model_is_named(pair):
    sdata = in_table(*pair, n_unmeasured=50)
    axes = genes_correlation(sdata, genes=["g1", "g0", "g3"])
    assert sorted(names(axes[0])) == ["g0", "g1", "g3"]
    assert "3 genes, 150 spots" in axes[0].get_title()
    assert axes[1].get_title().startswith("predicted by stem\n")
    expected = np.corrcoef(pair[0][50:, [0, 1]].astype(np.float32), rowvar=False)[0, 1]
    at = [names(axes[0]).index(name) for name in ("g0", "g1")]
    np.testing.assert_allclose(matrix(axes[0])[*at], expected, atol=1e-6)
    assert len(names(genes_correlation(sdata)[0])) == 6


def test_names_are_left_out_where_they_would_run_into_each_other():
    both = np.random.default_rng(0).normal(size=(2, 30, 60))
    assert names(genes_correlation((both[0], both[1]), n=60)[0]) == []
    assert len(names(genes_correlation((both[0], both[1]), n=40)[0])) == 40


def test_it_draws_on_the_axes_given(pair):
    given = plt.subplots(1, 2)[1]
    axes = genes_correlation(pair, ax=given)
    assert list(axes) == list(given)


def test_errors_name_what_was_found(pair):
    measured, predicted = pair
    sdata = in_table(*pair)
    with pytest.raises(BadInput, match=r"measured is \(200, 6\), predicted \(200, 5\), with 6 genes"):
        genes_correlation((measured, predicted[:, :5]))
    with pytest.raises(BadInput, match="with 2 genes"):
        genes_correlation(pair, genes=["a", "b"])
    with pytest.raises(BadInput, match="0 of 6 genes vary on both sides; 3 are needed"):
        genes_correlation((measured, np.ones_like(measured)))
    with pytest.raises(BadInput, match="2 spots are both measured and predicted"):
        genes_correlation((measured[:2], predicted[:2]))
    with pytest.raises(BadInput, match="ax holds 3 Axes"):
        genes_correlation(pair, ax=plt.subplots(1, 3)[1])
    with pytest.raises(MissingKey, match="no gene 'ESR1' in table 'imputed'"):
        genes_correlation(sdata, genes=["ESR1", "g0", "g1"])
    with pytest.raises(MissingKey, match="no table 'x'; sdata has 'imputed'"):
        genes_correlation(sdata, key="x")
    del sdata.tables["imputed"].layers["measured"]
    with pytest.raises(MissingKey, match="nothing was measured at the shapes of table 'imputed'"):
        genes_correlation(sdata)


def test_genes_that_a_section_lacks_cost_no_spot(pair):
    measured, predicted = pair
    lacking = measured.copy()
    lacking[:, 2] = np.nan
    axes = genes_correlation((lacking, predicted))
    kept = np.delete(np.arange(measured.shape[1]), 2)
    np.testing.assert_array_equal(
        matrix(axes[0]), matrix(genes_correlation((measured[:, kept], predicted[:, kept]))[0])
    )
    assert f"{len(measured)} spots, 1 not measured left out" in axes[0].get_title()


def test_a_gene_that_one_of_two_sections_lacks_costs_the_gene_not_the_spots(pair):
    measured = pair[0].copy()
    measured[:80, 1] = np.nan
    axes = genes_correlation((measured, pair[1]))
    assert "200 spots" in axes[0].get_title() and "1 not measured left out" in axes[0].get_title()
    assert "1" not in names(axes[0])
