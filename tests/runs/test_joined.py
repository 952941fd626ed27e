"""Objects that were joined after they were predicted keep their predictions for every verb."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.runs.sections import records

QUICK = {"n_folds": 3, "buffer_um": 50.0}


@pytest.fixture(scope="module")
def tables():
    """Tables of predictions by the name of a section: made once."""
    return {}


@pytest.fixture
def predicted(patients, spy, genes, tables):
    """Three sections, each predicted out of fold."""
    for name, sdata in patients.items():
        if name not in tables:
            sqi.tl.predict(sdata, "spy", genes=genes, **QUICK)
            tables[name] = sdata.tables["imputed"].copy()
        sdata.tables["imputed"] = tables[name].copy()
    return patients


def test_scores_are_those_of_the_sections(predicted, small_ridge):
    alone = {name: sqi.tl.score(sdata) for name, sdata in predicted.items()}
    together = sqi.tl.score(spatialdata.concatenate(predicted, concatenate_tables=True))
    for name, scores in alone.items():
        mine = together[together["section"] == name]
        np.testing.assert_allclose(mine["pearson"], scores["pearson"], rtol=1e-6)
        np.testing.assert_allclose(mine["ceiling"], scores["ceiling"], rtol=1e-6)


def test_provenance_is_kept_whole_under_the_names_of_now(predicted):
    before = records(predicted["P2"].tables["imputed"])["spy"]
    joined = spatialdata.concatenate(predicted, concatenate_tables=True)
    sqi.tl.score(joined, baselines=False)
    record = records(joined.tables["imputed"])["spy"]
    second = record["sections_predicted"]["1"]
    places = {"image_key": "he-P2", "shapes_key": "spots-P2", "table_key": "table"}
    assert {name: second[name] for name in places} == places
    for name in ("section", "mpp", "n_folds", "buffer_um", "leave_out", "fingerprints", "weights_sha256", "rows"):
        assert second[name] == before[name]
    assert (record["unit"], record["config"], record["genes"]) == (before["unit"], before["config"], before["genes"])


def test_domains_agreement_and_drawings_find_them(predicted, genes):
    joined = spatialdata.concatenate(predicted, concatenate_tables=True)
    with pytest.warns(UserWarning, match="out-of-fold"):
        sqi.tl.domains(joined, n_domains=3, method="kmeans")
        sqi.tl.domains(predicted, n_domains=3, method="kmeans")
    labels = joined.tables["imputed"].obs["domain"].astype(str).to_numpy()
    alone = np.concatenate([sdata.tables["imputed"].obs["domain"].astype(str) for sdata in predicted.values()])
    np.testing.assert_array_equal(labels, alone)
    assert len(sqi.tl.agreement(joined, n_random=2))
    assert sqi.pl.compare(joined, genes[0], section="P2") is not None
    assert sqi.pl.domains(joined, section="P3") is not None
    assert sqi.pl.genes_correlation(joined) is not None


def test_drawings_come_first_and_another_model_is_added(predicted, genes):
    joined = spatialdata.concatenate(predicted, concatenate_tables=True)
    assert sqi.pl.compare(joined, genes[0], section="P1") is not None
    sqi.tl.predict(joined, "spy", sections="region", leave_out="block", layer_added="again", genes=genes, **QUICK)
    table = joined.tables["imputed"]
    np.testing.assert_allclose(table.layers["again"], table.layers["spy"], atol=1e-5)


def test_tables_that_stay_apart_are_found_under_their_new_names(predicted, genes):
    alone = sqi.tl.score(predicted["P1"], baselines=False)
    joined = spatialdata.concatenate(predicted, concatenate_tables=False)
    scores = sqi.tl.score(joined, key="imputed-P1", baselines=False)
    np.testing.assert_allclose(scores["pearson"], alone["pearson"], rtol=1e-6)
    assert sqi.pl.compare(joined, genes[0], key="imputed-P1") is not None


def test_sections_of_one_name_are_told_apart_and_a_store_keeps_it_all(predicted, tmp_path):
    for sdata in predicted.values():
        sdata.tables["imputed"].obs["section"] = "slide"
        column = sdata.tables["imputed"].obs["spy_record"]
        text = column.cat.categories[0]
        name = f'"section": "{records(sdata.tables["imputed"])["spy"]["section"]}"'
        sdata.tables["imputed"].obs["spy_record"] = column.cat.rename_categories(
            {text: text.replace(name, '"section": "slide"')}
        )
    joined = spatialdata.concatenate(predicted, concatenate_tables=True)
    joined.write(tmp_path / "joined.zarr")
    joined = spatialdata.read_zarr(tmp_path / "joined.zarr")
    assert set(sqi.tl.score(joined, baselines=False)["section"]) == {"slide-1", "slide-2", "slide-3"}
    again = spatialdata.read_zarr(tmp_path / "joined.zarr")
    assert set(sqi.tl.score(again, baselines=False)["section"]) == {"slide-1", "slide-2", "slide-3"}


def test_reference_spots_of_models_that_retrieve_are_kept(patients, recalls, genes, tmp_path):
    columns = ["rank", "weight", "section", "patient", "reference_spot", "x_um", "y_um"]
    alone = {}
    for name, sdata in patients.items():
        sqi.tl.predict(sdata, "recalls", genes=genes, **QUICK)
        alone[name] = sqi.tl.retrieved(sdata, layer="recalls")[columns]
    joined = spatialdata.concatenate(patients, concatenate_tables=True)
    expected = pd.concat(alone.values(), ignore_index=True)
    pd.testing.assert_frame_equal(sqi.tl.retrieved(joined, layer="recalls")[columns], expected)
    joined.write(tmp_path / "joined.zarr")
    again = spatialdata.read_zarr(tmp_path / "joined.zarr")
    pd.testing.assert_frame_equal(sqi.tl.retrieved(again, layer="recalls")[columns], expected, check_dtype=False)
    twice = spatialdata.concatenate({"a": joined}, concatenate_tables=True)
    pd.testing.assert_frame_equal(sqi.tl.retrieved(twice, layer="recalls")[columns], expected)
