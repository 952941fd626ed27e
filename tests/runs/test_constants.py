"""A gene that is predicted as one number is written with a mark: it would make the p-values of all genes NaN."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.runs.constants import is_constant

QUICK = {"n_folds": 3, "buffer_um": 50.0}


@pytest.fixture
def silent_gene(section):
    """The section, in which nobody has a count of one gene."""
    table = section.tables["table"]
    counts = table.X.toarray()
    counts[:, table.var_names == "GLD1"] = 0
    table.X = type(table.X)(counts)
    return section


def test_what_does_not_vary_by_more_than_rounding_or_is_no_number_is_constant():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 1, (50, 5)).astype(np.float32)
    values[:, 1], values[:, 2], values[3, 3] = 4.0, 4 + 1e-7 * rng.normal(size=50), np.nan
    assert is_constant(values).tolist() == [False, True, True, True, False]


def test_a_constant_gene_is_marked_and_said(silent_gene, spy, genes):
    with pytest.warns(
        UserWarning, match=r"one value in all rows .* 1 of 7 genes: 'GLD1'.*~table.var\['spy_constant'\]"
    ):
        sqi.tl.predict(silent_gene, "spy", genes=genes, **QUICK)
    marked = silent_gene.tables["imputed"].var["spy_constant"]
    assert marked.dtype == bool and list(marked.index[marked]) == ["GLD1"]


def test_the_mark_is_replaced_with_the_layer_and_read_back(stored, spy, genes, tmp_path):
    sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    sqi.tl.predict(stored, "spy", genes=genes, layer_added="again", **QUICK)
    var = spatialdata.read_zarr(stored.path).tables["imputed"].var
    assert not var["spy_constant"].any() and not var["again_constant"].any()


def test_of_several_sections_one_in_which_it_is_constant_is_enough(joined, spy, genes):
    table = joined.tables["table"]
    counts = table.X.toarray()
    counts[np.ix_((table.obs["region"] == "spots-P2").to_numpy(), table.var_names == "GLD1")] = 0
    table.X = type(table.X)(counts)
    with pytest.warns(UserWarning, match="'GLD1'"):
        sqi.tl.predict(joined, "spy", sections="region", leave_out="block", genes=genes, **QUICK)
    assert joined.tables["imputed"].var["spy_constant"].sum() == 1


def test_squidpy_corrects_p_values_once_the_constant_is_left_out(silent_gene, spy, genes):
    import squidpy as sq

    with pytest.warns(UserWarning, match="'GLD1'"):
        sqi.tl.predict(silent_gene, "spy", genes=genes, **QUICK)
    table = silent_gene.tables["imputed"]
    sq.gr.spatial_neighbors(table)

    def corrected(part):
        found = sq.gr.spatial_autocorr(part, mode="moran", layer="spy", copy=True, show_progress_bar=False)
        return found["pval_norm_fdr_bh"]

    assert corrected(table).isna().all()
    assert np.isfinite(corrected(table[:, ~table.var["spy_constant"]].copy())).all()
