"""Encoders of lazyslide-models: as a stand-in of its registry offers them, and, where it is installed, its own."""

from __future__ import annotations

import re
import sys
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.encoders import _zoo
from sq_imputer.encoders._shelf import same
from sq_imputer.runs.sections import records
from sq_imputer.store.provenance import pythonic


@pytest.fixture
def library(monkeypatch):
    zoo.install(monkeypatch, {**zoo.MODELS, "predictor": zoo.listed(zoo.Task.feature_prediction)(type("P", (), {}))})


def test_a_card_says_the_terms_of_the_registry(library):
    card = encoders.encoder_card("zoo:bound")
    assert (card.dim, card.license, card.commercial, card.gated) == (5, "MIT and CC-BY-NC-ND-4.0", False, True)
    assert card.slot == "zoo_bound" and encoders.encoder_card("zoo:free").commercial


def test_features_are_those_that_the_library_gives_of_single_images(library):
    encoder, crops = encoders.get_encoder("zoo:free"), zoo.pixels()
    model = zoo.Free()
    images = [model.get_transform()(crop.numpy().transpose(1, 2, 0)) for crop in crops]
    torch.testing.assert_close(encoder(crops), model.encode_image(torch.stack(images)))


def test_a_model_without_a_transform_is_given_the_pixels_and_may_answer_in_numpy(library):
    with pytest.warns(UserWarning, match="not for commercial use"):
        encoder = encoders.get_encoder("zoo:bound")
    crops = zoo.pixels()
    np.testing.assert_allclose(encoder(crops), zoo.Bound().encode_image(crops.float()), rtol=1e-5)


def test_terms_are_said_at_every_use_and_kept_with_the_features(library):
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"'zoo:bound' is under 'MIT and CC-BY-NC-ND-4.0'"):
            made_by = encoders.get_encoder("zoo:bound").provenance
    assert made_by["license"] == "MIT and CC-BY-NC-ND-4.0" and made_by["commercial"] is False
    assert made_by["library"] == "lazyslide-models 0.1.0" and len(made_by["canary"]) == 5
    assert same(made_by, {**made_by, "license": "MIT", "library": "lazyslide-models 0.1.1"})
    assert not same(made_by, {**made_by, "sha256": "0"})


def test_free_ones_warn_of_nothing(library):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoders.get_encoder("zoo:free")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("zoo:nope", sqi.MissingKey, "no model 'zoo:nope' in lazyslide-models 0.1.0; there are 'away', 'bound'"),
        ("zoo:predictor", sqi.MissingKey, "is for 'feature_prediction', not 'vision', 'multimodal'"),
        ("zoo:unsaid", sqi.BadInput, "does not say how wide the features of 'zoo:unsaid' are"),
        ("zoo:away", sqi.BadInput, "OSError: offline). Accept the terms at https://huggingface.co/a/b, log in"),
        ("zoo:wrong", sqi.BadInput, "gave features of shape (1, 6) for 1 crops; its card says 7"),
    ],
)
def test_what_cannot_be_had_is_said(library, name, error, said):
    with pytest.raises(error, match=re.escape(said)):
        encoders.get_encoder(name)


def test_weights_of_ones_own_and_taken_names_are_refused(library):
    with pytest.raises(sqi.BadInput, match="leave out weights= and revision="):
        encoders.get_encoder("zoo:free", weights="w.safetensors")
    with pytest.raises(sqi.BadInput, match="exists already"):
        encoders.register_encoder(encoders.encoder_card("zoo:free"))


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lazyslide_models", None)
    with pytest.raises(sqi.BadInput, match=r'pip install "sq-imputer\[zoo\]"'):
        encoders.encoder_card("zoo:uni")


def test_exported_programs_refuse_eval_and_are_asked_all_the_same(library):
    class Exported(torch.nn.Linear):
        def eval(self):
            raise NotImplementedError("Calling eval() is not supported yet.")

    model = zoo.Free()
    model.model = Exported(3, 6)
    assert _zoo.Zoo(encoders.encoder_card("zoo:free"), model)(zoo.pixels()).shape == (3, 6)


def test_a_model_fitted_on_its_features_predicts_and_keeps_the_terms(library, section):
    config = {"encoders": ("zoo:bound",), "context_um": ()}
    with pytest.warns(UserWarning, match="not for commercial use"):
        sqi.tl.predict(section, "ridge", genes=3, config=config, n_folds=2)
    table = section.tables["imputed"]
    made_by = pythonic(records(table)["ridge"])["encoders"]["0"]
    assert made_by["name"] == "zoo:bound" and made_by["license"].endswith("ND-4.0")
    assert table.obsm["X_zoo_bound"].shape == (len(table), 5)


# The real library ---------------------------------------------------------------------------------


def real():
    """The library itself; skips where it is not installed."""
    try:
        found = version("lazyslide-models")
    except PackageNotFoundError:
        pytest.skip("lazyslide-models is not installed")
    return found


def test_the_version_is_one_whose_protocol_is_known():
    found = tuple(map(int, real().split(".")[:2]))
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "lazyslide-models>=0.1,<0.2" in project["project"]["optional-dependencies"]["zoo"]
    assert (0, 1) <= found < (0, 2)


def test_the_registry_has_what_is_read_of_it():
    real()
    assert {"zoo:uni", "zoo:ctranspath", "zoo:gigapath", "zoo:phikonv2"} <= set(_zoo.known())
    for name in _zoo.known():
        assert encoders.encoder_card(name).license
    for name in ("path2space", "stpath", "deepspotm"):
        assert _zoo.model_of(f"zoo:{name}", ("feature_prediction", "tile_prediction"))


def test_its_transform_of_a_batch_is_that_of_its_images():
    real()
    from lazyslide_models.base import TimmModel

    model, crops = TimmModel("resnet10t", pretrained=False), zoo.pixels(2)
    images = [model.get_transform()(crop.numpy().transpose(1, 2, 0)) for crop in crops]
    torch.testing.assert_close(_zoo.batched(model.get_transform())(crops), torch.stack(images))
