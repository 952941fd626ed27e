"""Correction by measured spots: what is written, what informs it, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.store.provenance import pythonic

QUICK = {"n_folds": 3, "buffer_um": 100.0}


@pytest.fixture
def fading(partly, genes):
    """A section of which a quarter is not measured, and whose counts of two genes rise from left to right.

    No crop shows that; a spatial pattern of residuals does.
    """
    section, dropped = partly
    table = section.tables["table"]
    x = section.shapes["spots"].loc[table.obs["spot_id"]].geometry.x.to_numpy()
    counts = table.X.toarray()
    for gene in ("NUC1", "HK1"):
        column = table.var_names.get_loc(gene)
        counts[:, column] = np.rint(counts[:, column] * np.exp(2 * (x - x.mean()) / np.ptp(x)))
    table.X = type(table.X)(counts)
    return section, dropped


def test_a_pattern_that_the_image_does_not_show_is_carried_to_spots_that_were_not_measured(fading, spy, genes) -> None:
    section, dropped = fading
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    before = section.tables["imputed"].layers["spy"].copy()
    sqi.tl.correct(section, "spy", components=3)
    table = section.tables["imputed"]
    np.testing.assert_array_equal(table.layers["spy"], before)
    informed = table.obs["spy_corrected_informed"].to_numpy()
    np.testing.assert_array_equal(informed, ~table.obs["instance_id"].isin(dropped).to_numpy())
    x = table.obsm["spatial"][~informed, 0]
    gene = list(table.var_names).index("HK1")
    corrected = table.layers["spy_corrected"][~informed, gene]
    assert np.corrcoef(corrected, x)[0, 1] > 0.8 > np.corrcoef(before[~informed, gene], x)[0, 1]
    assert table.var["spy_corrected_slope"].between(0, 1).all()
    assert np.isfinite(table.layers["spy_corrected_std"]).all()
    scores = sqi.tl.score(section, ["spy", "spy_corrected"], baselines=False).set_index(["predictor", "gene"])["mse"]
    assert scores["spy_corrected"]["HK1"] < scores["spy"]["HK1"]
    assert pythonic(table.uns["sq_imputer"]["spy_corrected"])["corrected"]["of"] == "spy"


def test_a_measured_spot_says_nothing_of_itself(fading, spy, genes) -> None:
    """The correction there is the same whatever was measured, but for the parameters, which all spots share."""
    section, _ = fading
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table = section.tables["imputed"]
    row = int(np.flatnonzero(table.obs["measured"])[5])
    sqi.tl.correct(section, "spy", components=None)
    first = table.layers["spy_corrected"][row].copy()
    table.layers["measured"][row] += 0.5
    sqi.tl.correct(section, "spy", components=None, overwrite=True)
    assert np.abs(section.tables["imputed"].layers["spy_corrected"][row] - first).max() < 0.1


def test_sections_are_corrected_one_by_one(joined, spy, genes) -> None:
    sqi.tl.predict(joined, "spy", sections="region", genes=genes, leave_out="block", **QUICK)
    names = list(dict.fromkeys(joined.tables["imputed"].obs["section"]))
    sqi.tl.correct(joined, "spy", sections=names[:1], components=2)
    table = joined.tables["imputed"]
    same = (table.layers["spy_corrected"] == table.layers["spy"]).all(axis=1)
    pd.testing.assert_series_equal(
        pd.Series(~same), (table.obs["section"] == names[0]).reset_index(drop=True), check_names=False
    )


def test_a_backed_object_keeps_the_correction(stored, spy, genes) -> None:
    import spatialdata

    sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    sqi.tl.correct(stored, components=2)
    table = spatialdata.read_zarr(stored.path).tables["imputed"]
    np.testing.assert_array_equal(table.layers["spy_corrected"], stored.tables["imputed"].layers["spy_corrected"])
    assert pythonic(table.uns["sq_imputer"]["spy_corrected"])["corrected"]["components"] == 2


def test_features_of_several_names_tell_what_looks_alike(section, spy, genes) -> None:
    """One of them says where the model is off; the place does not."""
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table = section.tables["imputed"]
    rng = np.random.default_rng(0)
    kind = rng.choice([-1.0, 1.0], len(table))
    table.layers["measured"] = (table.layers["spy"] + kind[:, None] + rng.normal(0, 0.1, table.shape)).astype("float32")
    table.obsm["X_kind"], table.obsm["X_other"] = kind[:, None] * np.ones(3), rng.normal(0, 0.1, (len(table), 2))
    for name, features in (("alone", None), ("alike", ["X_other", "X_kind"])):
        sqi.tl.correct(section, "spy", features=features, components=1, layer_added=name)
    measured, table = table.layers["measured"], section.tables["imputed"]
    error = {name: ((table.layers[name] - measured) ** 2).mean() for name in ("alone", "alike")}
    assert error["alike"] < 0.1 < 0.5 < error["alone"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "none"}, "no prediction 'none'"),
        ({"features": "X_none"}, "no features 'X_none'"),
        ({"features": ["X_none"]}, "no features 'X_none'"),
        ({"layer_added": "spy"}, "has a layer 'spy' already"),
        ({"layer_added": "measured"}, "cannot name a prediction"),
        ({"components": 0}, "components is 0"),
    ],
)
def test_what_cannot_be_is_said(section, spy, genes, arguments, said) -> None:
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    with pytest.raises(sqi.SqImputerError, match=said):
        sqi.tl.correct(section, **arguments)


def test_it_takes_measured_spots_and_is_not_corrected_twice(section, spy, genes) -> None:
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    sqi.tl.correct(section, "spy", components=2)
    with pytest.raises(sqi.BadInput, match="corrected already"):
        sqi.tl.correct(section, "spy_corrected")
    section.tables["imputed"].layers["measured"][10:] = np.nan
    with pytest.raises(sqi.BadInput, match="has 10 spots that are measured"):
        sqi.tl.correct(section, "spy", overwrite=True)
