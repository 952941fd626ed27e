"""A table of several sections read one by one: the same as each section alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from spatialdata.transformations import get_transformation

import sq_imputer as sqi
from sq_imputer.runs.views import elements_of, section_of, views_of

CONFIG = {"size_px": 32, "context_um": ()}


@pytest.fixture
def predicted(joined, genes):
    sqi.tl.predict(joined, "ridge", sections="region", genes=genes, config=CONFIG)
    return joined


def test_a_view_has_the_rows_and_the_provenance_of_its_section(predicted):
    whole = predicted.tables["imputed"]
    for name, view in views_of(predicted, "imputed").items():
        part = view.sdata.tables["imputed"]
        assert list(part.obs["section"].unique()) == [name]
        np.testing.assert_array_equal(part.layers["ridge"], whole.layers["ridge"][view.rows])
        assert part.uns["sq_imputer"]["ridge"]["shapes_key"] == name == part.uns["spatialdata_attrs"]["region"]


def test_one_section_is_the_object_itself(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, n_folds=3, buffer_um=50.0)
    assert section_of(section, "imputed", None) is section
    with pytest.raises(sqi.MissingKey, match="no section 'Q' in tables.'imputed'.; it has 'P1'"):
        section_of(section, "imputed", "Q")


def test_a_picture_of_one_needs_its_name(predicted):
    with pytest.raises(sqi.MissingKey, match="has 3 sections: 'spots-P1'.*Pass section="):
        sqi.pl.compare(predicted, ["NUC1"])
    assert sqi.pl.compare(predicted, ["NUC1"], section="spots-P2").shape == (1, 4)


def test_scores_of_each_section_stand_beside_baselines_of_the_others(predicted, patients, genes, small_ridge):
    scores = sqi.tl.score(predicted)
    assert set(scores["section"]) == {"spots-P1", "spots-P2", "spots-P3"} and "ridge on texture" in set(
        scores["predictor"]
    )
    others = [patients["P2"], patients["P3"]]
    sqi.tl.predict(patients["P1"], "ridge", reference=others, genes=genes, config=CONFIG)
    alone = sqi.tl.score(patients["P1"], reference=others)
    mine = scores[scores["section"] == "spots-P1"].reset_index(drop=True)
    columns = ["predictor", "gene", "pearson", "pearson_given_depth", "mse", "ceiling"]
    pd.testing.assert_frame_equal(mine[columns], alone[columns], atol=1e-5)
    means = scores[scores["predictor"] == "ridge"].groupby("gene")["pearson"].mean()
    np.testing.assert_allclose(predicted.tables["imputed"].var["ridge_pearson"], means.reindex(genes), atol=1e-6)
    assert set(sqi.tl.score(predicted, sections="spots-P2", baselines=False, per="section")["section"]) == {"spots-P2"}


def test_domains_are_found_over_all_sections_and_written_once(predicted, patients):
    sqi.tl.domains(predicted, n_domains=3, method="kmeans")
    column = predicted.tables["imputed"].obs["domain"]
    assert column.notna().all() and column.nunique() == 3
    views = {name: view.sdata for name, view in views_of(predicted, "imputed").items()}
    backwards = dict(reversed(views.items()))
    sqi.tl.domains(backwards, n_domains=3, method="kmeans", key_added="again")
    for name, view in views_of(predicted, "imputed").items():
        again = views[name].tables["imputed"].obs["again"].astype(str).to_numpy()
        np.testing.assert_array_equal(again, column.astype(str).to_numpy()[view.rows])


def test_domains_of_each_section_have_outlines_of_their_own(predicted):
    sqi.tl.domains(predicted, n_domains=3, method="kmeans", shapes_added="outlines")
    column = predicted.tables["imputed"].obs["domain"]
    for name, view in views_of(predicted, "imputed").items():
        found, spots = predicted.shapes[f"outlines_{name}"], predicted.shapes[name]
        domain = column.iloc[view.rows].astype(str).to_numpy()
        assert found["n_spots"].to_dict() == {one: (domain == one).sum() for one in found.index}
        at = view.sdata.tables["imputed"].obs["instance_id"].to_numpy()
        inside = [found.geometry[one].covers(spots.geometry[k]) for one, k in zip(domain, at, strict=True)]
        assert all(inside) and set(get_transformation(found, get_all=True)) == set(
            get_transformation(spots, get_all=True)
        )
    sqi.tl.domains(predicted, n_domains=2, method="kmeans", sections="spots-P2", key_added="one", shapes_added="alone")
    one = predicted.tables["imputed"].obs["one"]
    assert predicted.shapes["alone"]["n_spots"].to_dict() == one.value_counts().to_dict()
    with pytest.raises(sqi.BadInput, match="'outlines_spots-P1' is taken; .*overwrite=True.*shapes_added"):
        sqi.tl.domains(predicted, n_domains=3, key_added="third", shapes_added="outlines")


def test_names_that_no_element_can_have_are_numbered():
    assert elements_of("map", ["A", "b-1"]) == ["map_A", "map_b-1"]
    assert elements_of("map", ["A/1", "b"]) == elements_of("map", ["a", "A"]) == ["map_0", "map_1"]
