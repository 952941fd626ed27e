from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.errors import BadInput

CARD = replace(TEXTURE, name="three", dim=3, size_px=8, any_size=False)


class Three(Encoder):
    weight = torch.ones(1, requires_grad=True)

    def encode(self, crops):
        return crops.double().mean((2, 3)) * self.weight


def crops(*shape, dtype=torch.uint8):
    return torch.ones(shape, dtype=dtype)


def test_features_are_float32_and_carry_no_gradient():
    features = Three(CARD, {})(crops(2, 3, 8, 8))
    assert features.dtype == torch.float32 and not features.requires_grad


def test_no_crops_give_no_features():
    assert Three(CARD, {})(crops(0, 3, 8, 8)).shape == (0, 3)


@pytest.mark.parametrize("bad", [crops(2, 3, 8, 8, dtype=torch.float32), crops(3, 8, 8), crops(2, 4, 8, 8)])
def test_crops_of_another_type_or_shape_are_refused(bad):
    with pytest.raises(BadInput, match=r"uint8 crops of shape \(B, 3, S, S\)"):
        Three(CARD, {})(bad)


def test_crops_of_another_size_are_refused_with_the_spec_to_pass():
    with pytest.raises(BadInput, match=r"8 x 8 pixels, got \(16, 16\).*CropSpec\(extent_um=4, size_px=8\)"):
        Three(CARD, {})(crops(2, 3, 16, 16))


def test_features_of_another_width_than_the_card_says_are_refused():
    with pytest.raises(BadInput, match=r"gave features of shape \(2, 3\).*card says 5"):
        Three(replace(CARD, dim=5), {})(crops(2, 3, 8, 8))
