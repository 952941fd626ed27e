"""The report of a prediction: what is known of it is on the page, the object stays as it is."""

from __future__ import annotations

import re

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer import report
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.store.provenance import pythonic


@pytest.fixture(scope="module")
def predicted(small_ridges):
    """A toy section that ridge has predicted out of fold."""
    sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    sqi.tl.predict(sdata, "ridge", genes=["NUC1", "GLD1", "STR1"])
    return sdata


@pytest.fixture(scope="module")
def page(predicted, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "section.html"
    return report.prediction(predicted, path).read_text()


def test_scores_stand_beside_baselines_as_tl_score_gives_them(predicted, page):
    scores = sqi.tl.score(predicted, per="section")
    own = scores[(scores["predictor"] == "ridge") & (scores["metric"] == "pearson_given_depth")].iloc[0]
    assert f"{own['mean']:.3f} [{own['low']:.3f}, {own['high']:.3f}]" in page
    assert {"mean", "depth only", "ridge on texture"} <= set(re.findall(r"<td>([^<]*)</td>", page))


def test_the_page_says_where_the_numbers_come_from(predicted, page):
    record = pythonic(predicted.tables["imputed"].uns["sq_imputer"]["ridge"])
    assert all(one[:12] in page for one in record["weights_sha256"]) and ">texture<" in page
    for said in (record["unit"], record["how"], f"{predicted.tables['imputed'].n_obs} rows"):
        assert str(said) in page


def test_nothing_is_loaded_and_two_pictures_are_in_the_page(page):
    assert not re.search(r"(src|href)=\"?http", page) and page.count("data:image/png") == 2


def test_the_object_stays_as_it_is(predicted, tmp_path):
    table = predicted.tables["imputed"]
    var, layers = table.var.copy(), {name: np.array(layer) for name, layer in table.layers.items()}
    report.prediction(predicted, tmp_path / "again.html", genes="NUC1")
    assert predicted.tables["imputed"] is table and table.var.equals(var) and set(table.layers) == set(layers)


def test_genes_that_were_tested_are_counted_by_their_reason_and_domains_of_folds_are_doubted(predicted, tmp_path):
    sqi.tl.trust(predicted, "ridge", n_null=20)
    obs = predicted.tables["imputed"].obs
    obs["domain"] = (obs["ridge_fold"] % 2).astype(str).astype("category")
    page = report.prediction(predicted, tmp_path / "tested.html", genes="NUC1").read_text()
    reason = predicted.tables["imputed"].var["ridge_reason"].iloc[0]
    assert f"<td>{reason}</td>" in page and "was not tested" not in page
    assert "may follow the borders of the folds" in page
    del obs["domain"]


def test_what_was_not_measured_has_no_scores(predicted, tmp_path):
    sqi.pp.grid(predicted, spacing_um=300, diameter_um=100, key_added="grid")
    sqi.tl.predict(predicted, "ridge", reference=[predicted], allow_same_patient=True, genes=["NUC1"],
                   shapes_key="grid", key_added="between")  # fmt: skip
    page = report.prediction(predicted, tmp_path / "grid.html", key="between").read_text()
    assert "Nothing was measured here" in page and "data:image/png" in page


def test_a_file_that_is_there_and_names_that_are_not_are_refused(predicted, tmp_path):
    (tmp_path / "there.html").write_text("mine")
    with pytest.raises(BadInput, match="there.html' exists already; pass overwrite=True"):
        report.prediction(predicted, tmp_path / "there.html")
    assert (tmp_path / "there.html").read_text() == "mine"
    with pytest.raises(MissingKey, match="no 'XYZ' in tables\\['imputed'\\]"):
        report.prediction(predicted, tmp_path / "other.html", genes="XYZ")
    with pytest.raises(MissingKey, match="no prediction in tables\\['table'\\]"):
        report.prediction(predicted, tmp_path / "other.html", key="table")
