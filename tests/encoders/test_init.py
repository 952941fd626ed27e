from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from sq_imputer import encoders
from sq_imputer.encoders import Encoder, encoder_card, get_encoder, list_encoders, register_encoder
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.errors import BadInput, MissingKey


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(encoders, "_registered", {})


class MeanColor(Encoder):
    def encode(self, crops):
        return crops.float().mean((2, 3))


MEAN = replace(TEXTURE, name="mean-color", dim=3)


def test_listing_and_cards_import_neither_torch_nor_timm():
    code = (
        "import sys; from sq_imputer.encoders import list_encoders, encoder_card; "
        "print([encoder_card(name).license for name in list_encoders()]); "
        "print('heavy:', [m for m in ('torch', 'timm', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_encoders_asked_for_by_pathologists_have_cards():
    names = {"texture", "uni", "uni2-h", "virchow2", "phikon-v2", "h-optimus-0", "h-optimus-1", "gigapath", "conch"}
    assert names <= set(list_encoders())


def test_texture_is_had_by_name():
    encoder = get_encoder("texture")
    assert encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, encoder.card.dim)


def test_texture_has_no_weights_to_pass():
    with pytest.raises(BadInput, match="has no weights"):
        get_encoder("texture", weights="a.safetensors")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(MissingKey, match=r"no encoder 'resnet18'; there are .*'texture'.*timm:"):
        encoder_card("resnet18")


def test_a_registered_encoder_is_listed_and_built(registry):
    register_encoder(MEAN, lambda card, weights, revision: MeanColor(card, {"weights": weights}))
    assert "mean-color" in list_encoders()
    encoder = get_encoder("mean-color", weights="here.safetensors")
    assert encoder.provenance["weights"] == "here.safetensors"
    crops = torch.stack([torch.full((32, 32), value, dtype=torch.uint8) for value in (10, 20, 30)])[None]
    assert encoder(crops).tolist() == [[10.0, 20.0, 30.0]]


def test_a_name_is_given_once(registry):
    def build(card, weights, revision):
        return MeanColor(card, {})

    register_encoder(MEAN, build)
    register_encoder(MEAN, build)  # running a notebook cell twice is no error
    for card in (replace(MEAN, dim=4), TEXTURE, replace(MEAN, name="timm:resnet18")):
        with pytest.raises(BadInput, match="exists already"):
            register_encoder(card, build)


def test_a_card_that_nothing_can_build_is_refused(registry):
    with pytest.raises(BadInput, match="no `architecture`.*pass build="):
        register_encoder(MEAN)
