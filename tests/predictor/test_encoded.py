from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.contract import CropSpec, Needs
from sq_imputer.predictor import encoded

NEEDS = Needs(CropSpec(50, 32), ("a", "b"))
ONE, OTHER = {"sha256": "1" * 64, "file": "one.safetensors"}, {"sha256": "2" * 64, "file": "two.safetensors"}


def source(section: str, **made_by):
    return SimpleNamespace(section=section, encoded=lambda needs, device: made_by)


def test_all_sources_have_one_encoder_of_a_name():
    assert encoded.of_sources([source("s", a=ONE), source("t", a={**ONE, "timm": "9"})], NEEDS, "cpu") == {"a": ONE}
    with pytest.raises(
        sqi.BadInput, match=r"'a' are by weights 1{12} \(one.*in section 's', and by weights 2{12} \(two"
    ):
        encoded.of_sources([source("s", a=ONE), source("t", a=OTHER)], NEEDS, "cpu")


def test_sources_that_do_not_tell_fit_everything():
    assert encoded.of_sources([SimpleNamespace(section="s"), source("t", a={})], NEEDS, "cpu") == {"a": {}}


@pytest.mark.parametrize("junk", [None, [], "a", {"a": 3}, {"c": ONE}])
def test_what_a_file_says_may_be_anything(junk):
    assert encoded.of_fit({"encoders": junk}, NEEDS) == {}


def test_a_model_names_its_encoders_and_is_not_asked_by_others(toy_slides, monkeypatch, tmp_path):
    from sq_imputer.encoders import texture

    first, *_, last = toy_slides
    ridge = sqi.get_model("ridge")
    model = ridge(ridge.Config.small()).fit([first], sqi.Plan(device="cpu"))
    assert model.encoded["texture"]["revision"] == texture.REVISION
    model.save(tmp_path / "model")
    loaded = sqi.load(tmp_path / "model")
    assert loaded.encoded == model.encoded
    mean = loaded.predict(last, device="cpu").mean.numpy()
    np.testing.assert_allclose(mean, model.predict(last, device="cpu").mean.numpy(), atol=1e-5)
    loaded.provenance["encoders"]["texture"]["revision"] = -1
    with pytest.raises(sqi.BadInput, match="was fitted on features of encoder 'texture' by revision -1, .* fit again"):
        loaded.predict(last, device="cpu")
