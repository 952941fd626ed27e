from __future__ import annotations

from dataclasses import replace

import pytest

from sq_imputer.encoders._cards import BUILTIN, TEXTURE
from sq_imputer.errors import BadInput


@pytest.mark.parametrize("card", BUILTIN.values(), ids=BUILTIN)
def test_a_card_says_where_it_comes_from_and_what_it_costs(card):
    assert card.license and card.paper
    assert 0.2 <= card.mpp <= 1 and all(value > 0 for value in card.std)
    assert card.name == "texture" or (card.source and card.architecture and card.file.endswith(".safetensors"))
    assert not (card.commercial and "NC" in card.license)


def test_the_extent_is_size_times_resolution():
    assert TEXTURE.extent_um == 112


def test_the_slot_is_a_name_that_spatialdata_takes():
    assert replace(TEXTURE, name="timm:resnet18.a1_in1k").slot == "timm_resnet18.a1_in1k"


@pytest.mark.parametrize(("field", "value"), [("dim", 0), ("size_px", 0), ("mpp", 0.0), ("pool", "max")])
def test_an_impossible_card_is_refused(field, value):
    with pytest.raises(BadInput, match=field):
        replace(TEXTURE, **{field: value})


def test_the_options_of_a_card_cannot_be_changed():
    with pytest.raises(TypeError):
        BUILTIN["uni"].options["img_size"] = 448
