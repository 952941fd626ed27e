"""Models of others, by stand-ins of their protocol: what is asked of them, written, scored, and refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import zoo
from defaults import SMALL_CROPS, with_defaults

import sq_imputer as sqi
from sq_imputer import encoders, external
from sq_imputer.pixels import stains
from sq_imputer.runs.sections import records
from sq_imputer.section.slide import Slide

COARSE = {"coarsest_mpp": 9.0}  # the toy section has 1.25 µm per pixel
pytestmark = pytest.mark.filterwarnings("ignore:'zoo.* is under:UserWarning", "ignore:image 'he' has:UserWarning")


@pytest.fixture(autouse=True)
def library(monkeypatch):
    zoo.install(monkeypatch, zoo.FITTED)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The texture of the baselines sees one small crop, and no canary is sung by the stand-ins."""
    monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)
    with_defaults(monkeypatch, "ridge", SMALL_CROPS)


def spots(section) -> Slide:
    return Slide.from_sdata(section)


def test_every_adapter_has_a_card_that_says_license_and_limits():
    cards = external.cards()
    assert [card.name for card in cards] == ["deepspotm", "path2space", "stpath"]
    assert all(card.license != "BSD-3-Clause" and card.limits and card.doi for card in cards)


def test_deepspotm_is_asked_for_the_genes_wanted_of_crops_of_112_um(section):
    with pytest.warns(UserWarning, match="'zoo:deepspotm' is under 'PolyForm-Noncommercial-1.0.0 and CC-BY-NC-SA-4.0'"):
        sqi.tl.predict(section, "zoo:deepspotm", genes=["STR1", "NUC1"], config=COARSE)
    table = section.tables["imputed"]
    crops = torch.from_numpy(spots(section).crops(sqi.CropSpec(112.0, 224))[np.arange(len(table))])
    model = zoo.DeepSpotM()
    said = model.predict(torch.stack([model.get_transform()(crop.numpy().transpose(1, 2, 0)) for crop in crops]))
    expected = np.stack([said["STR1"], said["NUC1"]], axis=1)
    np.testing.assert_allclose(table.layers["deepspotm"], expected, atol=1e-6)
    assert list(table.var_names) == ["STR1", "NUC1"]


def test_path2space_sees_crops_in_one_stain_and_keeps_unit_and_terms(section):
    sqi.tl.predict(section, "zoo:path2space", config=COARSE)
    table = section.tables["imputed"]
    crops = spots(section).crops(sqi.CropSpec(100.0, 224))[np.arange(3)]
    seen = torch.from_numpy(np.stack([stains.normalized(crop) for crop in crops]))
    encoder = zoo.CTransPath()
    images = [encoder.get_transform()(crop.numpy().transpose(1, 2, 0)) for crop in seen]
    said = zoo.Path2Space().predict(encoder.encode_image(torch.stack(images)))
    np.testing.assert_allclose(table.layers["path2space"][:3, 0], said["NUC1"], atol=1e-5)
    record = records(table)["path2space"]
    assert record["license"] == "Apache-2.0; its encoder GPL-3.0" and not record["commercial"] and record["external"]
    assert record["layer_unit"] == "not stated by its authors" and record["unit"] == "log1p_cp10k"
    assert record["library"] == "lazyslide-models 0.1.0" and record["stain"] == "normalized crop by crop"
    assert record["weights_sha256"] and record["config"]["coarsest_mpp"] == 9.0
    assert record["ood"].startswith("missing: only its training data")
    assert np.isnan(table.obs["path2space_ood"]).all()  # nobody but its authors knows what it was fitted on
    assert np.isfinite(table.layers["measured"][:, :2]).all() and np.isnan(table.layers["measured"][:, 2]).all()


def test_terms_of_the_encoder_are_said_as_well(section):
    with pytest.warns(UserWarning, match="'zoo:ctranspath' is under 'GPL-3.0'"):
        external.predictor("zoo:path2space")


def test_stpath_sees_the_whole_section_whatever_rows_are_asked_for(section):
    config = {**COARSE, "organ": "Breast"}
    model = external.predictor("zoo:stpath", config, ["GLD1", "NUC1"])
    slide = spots(section)
    whole, some = model.predict(slide), model.predict(slide, rows=[5, 2])
    torch.testing.assert_close(some.mean, whole.mean[[5, 2]])
    assert model.unit == "log1p_counts" and model._asked.organ == "Breast"
    sqi.tl.predict(section, model, key_added="whole")
    np.testing.assert_allclose(section.tables["whole"].layers["stpath"], whole.mean, atol=1e-5)
    assert section.tables["whole"].obsm["X_zoo_gigapath"].shape == (len(slide), 1536)


def test_another_unit_is_scored_by_rank_and_not_by_error(section):
    sqi.tl.predict(section, "zoo:deepspotm", config=COARSE)
    with pytest.warns(UserWarning, match=r"'deepspotm' predicts in unit 'log1p_cpm'.*not by error \(mse, r2\)"):
        scores = sqi.tl.score(section)
    own = scores[scores["predictor"] == "deepspotm"]
    assert own[["mse", "r2"]].isna().all(axis=None) and own[["pearson", "spearman"]].notna().all(axis=None)
    assert own["pearson_given_depth"].notna().all() and own["image_eps"].notna().all()
    beside = scores[scores["predictor"] == "ridge on texture"]
    assert len(beside) == 3 and beside["mse"].notna().all()


def test_the_same_unit_is_scored_by_error_too(section):
    sqi.tl.predict(section, "zoo:stpath", config=COARSE)
    scores = sqi.tl.score(section, baselines=False)
    assert scores["mse"].notna().all()


def test_a_model_of_others_is_neither_fitted_nor_saved(section, tmp_path):
    model = external.predictor("zoo:stpath")
    with pytest.raises(sqi.BadInput, match="comes fitted: ask it by tl.predict"):
        sqi.tl.fit(section, model)
    with pytest.raises(sqi.BadInput, match="name it again: 'zoo:stpath'"):
        model.save(tmp_path / "model")


@pytest.mark.parametrize(
    ("model", "how", "error", "said"),
    [
        ("zoo:path2space", {}, sqi.BadInput, "and the model was made for 0.446; expected at most 0.67"),
        ("zoo:path2space", {"genes": ["NUC1", "nuc2"]}, sqi.MissingKey, "'path2space' does not predict 1 of 2 genes"),
        ("zoo:path2space", {"config": {"organ": "Skin"}}, sqi.BadInput, "path2space.Config has 'coarsest_mpp'"),
        ("zoo:path2space", {"genes": 5}, sqi.BadInput, "genes is 5, but this 'path2space'"),
        ("zoo:stpath", {"config": {"organ": "Moon"}}, sqi.BadInput, "ValueError: Unknown organ 'Moon'"),
        ("zoo:deepspotm", {"config": {"source": "bert"}}, sqi.BadInput, "source"),
        ("zoo:uni", {}, sqi.MissingKey, "models of others are 'zoo:deepspotm', 'zoo:path2space', 'zoo:stpath'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_computed(section, model, how, error, said):
    with pytest.raises(error, match=re.escape(said)):
        sqi.tl.predict(section, model, **how)
    assert "imputed" not in section.tables


def test_more_rows_than_the_library_takes_are_refused_in_its_words(section, monkeypatch):
    monkeypatch.setattr(zoo.STPath, "max_spots", 10)
    with pytest.raises(sqi.BadInput, match="refused 59 rows of a section: 59 tiles exceeds max_spots=10"):
        sqi.tl.predict(section, "zoo:stpath", config=COARSE)


def test_maps_of_a_model_of_others_are_refused_with_the_reason(section):
    with pytest.raises(sqi.BadInput, match="'deepspotm' .*is of others: no map is tested"):
        sqi.tl.explain(section, "NUC1", model="zoo:deepspotm")
    assert sqi.explain.available(external.predictor("zoo:deepspotm")) == ()


def test_a_killed_prediction_by_a_model_of_others_goes_on(stored, monkeypatch):
    monkeypatch.setattr("sq_imputer.store.journal.ROWS", 16)
    predict, asked = zoo.DeepSpotM.predict, []

    def failing(model, image):
        asked.append(len(image))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return predict(model, image)

    monkeypatch.setattr(zoo.DeepSpotM, "predict", failing)
    how = {"genes": ["NUC1", "STR1"], "config": COARSE, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        sqi.tl.predict(stored, "zoo:deepspotm", **how)
    sqi.tl.predict(stored, "zoo:deepspotm", **how)
    assert sum(asked) == 59 + asked[2]
    whole = stored.tables["imputed"].layers["deepspotm"].copy()
    sqi.tl.predict(stored, "zoo:deepspotm", **{**how, "resume": False}, overwrite=True)
    np.testing.assert_array_equal(stored.tables["imputed"].layers["deepspotm"], whole)
