"""The library that counts are a part of belongs to the record: a table cut to a panel has lost it."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.runs.totals import share_of
from sq_imputer.section.slide import Slide

QUICK = {"n_folds": 3, "buffer_um": 50.0}
METRICS = ["pearson", "pearson_given_depth", "mse", "ceiling"]


def cut(sdata, genes):
    sdata.tables["table"] = sdata.tables["table"][:, genes].copy()


def test_total_counts_of_the_prediction_are_kept_with_it(section, spy, genes):
    depth = np.asarray(section.tables["table"].X.sum(axis=1)).ravel()
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    np.testing.assert_array_equal(section.tables["imputed"].obs["total_counts"], depth)
    sqi.pp.grid(section, spacing_um=150)
    sqi.tl.predict(section, "spy", genes=genes, shapes_key="grid", key_added="between")
    assert section.tables["between"].obs["total_counts"].isna().all()


def test_scores_baselines_and_ceiling_are_those_of_the_full_library(section, spy, genes, small_ridge):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    before = sqi.tl.score(section)
    cut(section, genes)
    with pytest.warns(UserWarning, match="total counts differ at 59 of 59 spots. Those of then are used"):
        after = sqi.tl.score(section)
    assert list(after["predictor"]) == list(before["predictor"])
    np.testing.assert_allclose(after[METRICS], before[METRICS], atol=1e-5)


def test_spots_that_have_counts_outside_the_panel_alone_are_scored_as_before(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table = section.tables["table"]
    counts = table.X.toarray()
    counts[np.ix_([3, 7], table.var_names.isin(genes))] = 0
    table.X = type(table.X)(counts)
    sqi.tl.predict(section, "spy", genes=genes, overwrite=True, **QUICK)
    before = sqi.tl.score(section, baselines=False)
    cut(section, genes)
    with pytest.warns(UserWarning, match="total counts differ|2 of 59 rows of section"):
        after = sqi.tl.score(section, baselines=False)
    assert (after["n_spots"] == 59).all()
    np.testing.assert_allclose(after[METRICS], before[METRICS], atol=1e-5)


def test_the_share_of_the_library_is_kept_with_the_model_and_compared(patients, spy, genes, tmp_path):
    target = patients.pop("P3")
    model = sqi.tl.fit(patients, "spy", genes=genes)
    shares = model.provenance["library_share"]
    table = patients["P1"].tables["table"]
    assert shares[0] == pytest.approx(table[:, genes].X.sum() / table.X.sum(), rel=1e-5)
    sqi.tl.predict(spatialdata.deepcopy(target), model)
    everything = list(target.tables["table"].var_names)
    others = [gene for gene in everything if gene not in genes]
    cut(target, genes + others[: len(everything) // 2 - len(genes) + 1])  # as many genes as are not said yet
    assert share_of(Slide.from_sdata(target), genes) > 0
    counts = target.tables["table"].X.toarray()
    counts[:, len(genes) :] = 0
    target.tables["table"].X = type(target.tables["table"].X)(counts)
    with pytest.warns(UserWarning, match=r"the 7 genes of the model are 100.0% of all counts of section 'P3', and .*%"):
        sqi.tl.predict(target, model)
