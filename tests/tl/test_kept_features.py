"""Features that tables keep, across verbs: used where they are of this image and these weights, and only there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.encoders import texture
from sq_imputer.encoders._cards import TEXTURE

CONFIG = {"size_px": 32, "extent_um": 100.0, "context_um": (200.0, 300.0)}
ONE_VIEW = {"size_px": 32, "context_um": ()}  # what is solved grows with the cube of the features
PANEL = ["NUC1", "GLD1", "STR1"]


@pytest.fixture
def tinted(monkeypatch):
    """An encoder "tinted" of mean colors, times the first byte of its weights file; what was built, and how many crops
    it saw."""
    told = SimpleNamespace(built=[], seen=0)

    class Tinted(encoders.Encoder):
        def encode(self, crops):
            told.seen += len(crops)
            return crops.float().mean((2, 3)) * self.tint

    def build(card, weights, revision):
        content = Path(weights).read_bytes() if weights else b"\x01"
        told.built.append(weights)
        made = Tinted(card, {"name": card.name, "file": str(weights), "sha256": hashlib.sha256(content).hexdigest()})
        made.tint = content[0]
        return made

    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)  # which is no crop to be counted
    encoders.register_encoder(replace(TEXTURE, name="tinted", dim=3, source="someone/tinted"), build)
    return told


@pytest.fixture
def files(tmp_path):
    for k in (2, 3):
        (tmp_path / f"{k}.safetensors").write_bytes(bytes([k]))
    return [tmp_path / f"{k}.safetensors" for k in (2, 3)]


def predicted(sdata, model="ridge", **how) -> np.ndarray:
    sqi.tl.predict(sdata, model, genes=PANEL if isinstance(model, str) else None, overwrite=True, **how)
    return np.asarray(sdata.tables["imputed"].layers["ridge"]).copy()


def embedded(sdata, weights):
    sqi.pp.embed(sdata, "tinted", spec=sqi.CropSpec(100.0, 32), weights=weights)
    return sdata


def mirror(sdata) -> None:
    level = sdata.images["he"]["scale0"].image
    sdata.images["he"] = Image2DModel.parse(
        level.values[:, :, ::-1].copy(),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2],
        transformations=get_transformation(level, get_all=True),
    )


def test_an_encoder_is_built_once_for_all_sections_and_views(patients, tinted):
    config = {**CONFIG, "encoders": ("tinted",)}
    training = [patients["P2"], patients["P3"]]
    model = sqi.tl.fit(training, "ridge", genes=PANEL, config=config)
    assert tinted.built == [None] and tinted.seen == 3 * sum(len(one.shapes["spots"]) for one in training)
    sqi.tl.predict(patients["P1"], model)
    sqi.tl.predict(patients["P1"], "ridge", reference=training, genes=PANEL, config=config, layer_added="again")
    assert tinted.built == [None] * 3


def test_after_the_pixels_have_changed_features_are_computed_anew(patients):
    section, other = patients["P1"], patients["P2"]
    other_model = sqi.tl.fit(other, "ridge", genes=PANEL, config=ONE_VIEW | {"context_um": (200.0,)})
    old = predicted(section, other_model)
    assert np.array_equal(predicted(section, other_model), old)
    kept = np.asarray(section.tables["imputed"].obsm["X_texture"]).copy()
    mirror(section)
    new = predicted(section, other_model)
    del section.tables["imputed"]
    np.testing.assert_array_equal(new, predicted(section, other_model))
    assert np.abs(new - old).max() > 0.1
    assert not np.allclose(kept, section.tables["imputed"].obsm["X_texture"])


def test_features_of_two_weights_are_neither_mixed_nor_taken_for_each_other(patients, tinted, files):
    config = {**CONFIG, "context_um": (), "encoders": ("tinted",)}
    one, same, other = (embedded(patients[p], files[k]) for p, k in (("P1", 0), ("P2", 0), ("P3", 1)))
    seen = tinted.seen
    model = sqi.tl.fit([one, same], "ridge", genes=PANEL, config=config)
    assert model.encoded["tinted"]["sha256"] == hashlib.sha256(b"\x02").hexdigest() and tinted.seen == seen
    with pytest.raises(sqi.BadInput, match=r"'P3' were made by weights .*3.safetensors.* 'P1' by weights .*2.safetens"):
        sqi.tl.fit([one, other], "ridge", genes=PANEL, config=config)
    with pytest.raises(sqi.BadInput, match="'P3' were made by .* those of the fit of the model by weights"):
        sqi.tl.predict(other, model)
    assert tinted.seen == seen and "imputed" not in other.tables
    mean = predicted(other, model, weights=files[0])
    np.testing.assert_array_equal(predicted(embedded(other, files[0]), model), mean)
    record = sqi.io.pythonic(other.tables["imputed"].uns["sq_imputer"]["ridge"])
    assert record["encoders"]["0"]["sha256"] == model.encoded["tinted"]["sha256"]
    with pytest.raises(sqi.BadInput, match="weights='.*3.safetensors' has weights .*, but the fit of the model has"):
        sqi.tl.predict(other, model, overwrite=True, weights=files[1])
    sqi.tl.fit([one, other], "ridge", genes=PANEL, config=config, weights={"tinted": files[1]})


def test_a_model_asks_for_the_weights_of_its_fit(patients, tinted, files):
    config = {**CONFIG, "context_um": (), "encoders": ("tinted",)}
    model = sqi.tl.fit(patients["P1"], "ridge", genes=PANEL, config=config, weights=files[0])
    assert tinted.built == [files[0]]
    with pytest.raises(
        sqi.BadInput, match="encoder as it is here has weights .*, but the fit of the model has weights"
    ):
        sqi.tl.predict(patients["P2"], model)
    sqi.tl.predict(patients["P2"], model, weights=str(files[0]))
    how = {"model": model, "spots": patients["P2"].tables["table"].obs_names[:2], "grid": 2}
    sqi.tl.explain(patients["P2"], PANEL[0], weights=files[0], **how)
    with pytest.raises(sqi.BadInput, match="weights .*, but the fit of the model has weights"):
        sqi.tl.explain(patients["P2"], PANEL[0], weights=files[1], key_added="again", **how)
    with pytest.raises(sqi.BadInput, match="weights is given, but encoders 'texture' have none"):
        sqi.tl.fit(patients["P1"], "ridge", weights=files[0])
    with pytest.raises(sqi.BadInput, match="weights is given, but the model reads pixels"):
        sqi.tl.predict(patients["P1"], "nsl", weights=files[0])


def test_a_model_of_another_revision_is_to_be_fitted_again(patients, monkeypatch):
    how = {"config": ONE_VIEW, "n_folds": 2, "buffer_um": 100.0}
    model = sqi.tl.fit(patients["P1"], "ridge", genes=PANEL, config=ONE_VIEW)
    old = predicted(patients["P2"], "ridge", **how)
    kept = patients["P2"].tables["imputed"].obsm["X_texture"]
    patients["P2"].tables["imputed"].obsm["X_texture"] = np.asarray(kept) + 1  # as another revision would have it
    monkeypatch.setattr(texture, "REVISION", -7)
    with pytest.raises(
        sqi.BadInput, match="'texture': the encoder as it is here has revision -7, .* Fit the model again"
    ):
        sqi.tl.predict(patients["P2"], model, overwrite=True)
    np.testing.assert_array_equal(predicted(patients["P2"], "ridge", **how), old)


def test_a_run_is_not_resumed_with_another_revision(stored, monkeypatch):
    from sq_imputer.runs import run

    how = {"genes": PANEL, "config": ONE_VIEW, "resume": True}

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            sqi.tl.predict(stored, "ridge", **how)
    monkeypatch.setattr(texture, "REVISION", -7)
    with pytest.raises(sqi.BadInput, match="encoders.texture was 'revision .*', is 'revision -7'"):
        sqi.tl.predict(stored, "ridge", **how)


def test_what_was_made_of_another_picture_is_said(patients):
    section, training = patients["P1"], [patients["P2"], patients["P3"]]
    sqi.tl.predict(section, "ridge", reference=training, genes=PANEL, config=ONE_VIEW)
    sqi.tl.score(section, baselines=False)  # nothing has changed: warnings are errors here
    mirror(section)
    with pytest.warns(
        UserWarning, match="image 'he' is not what it was any more.* scores of 'ridge' are of the picture"
    ):
        sqi.tl.score(section, baselines=False)
    with pytest.warns(
        UserWarning, match="image 'he' is not what it was.* drawn below what was made of another picture"
    ):
        sqi.pl.compare(section, "NUC1")


def test_a_picture_that_a_model_was_fitted_on_is_of_its_patient_whatever_the_name(patients):
    section = patients["P1"]
    ridge = sqi.tl.fit([section, patients["P2"]], "ridge", genes=PANEL, config=ONE_VIEW)
    other = sqi.datasets.toy(1, size_px=300, mpp=1.25, seed=77)["P1"]
    del section.tables["table"]  # the same slide, as its picture alone
    section.attrs["patient"], other.attrs["patient"] = "somebody else", "a third"
    for one, shares in ((section, True), (other, False)):
        sqi.tl.predict(one, ridge, shapes_key="spots", table_key=None)
        assert one.tables["imputed"].uns["sq_imputer"]["ridge"]["shares_patient"] == shares
