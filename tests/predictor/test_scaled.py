from __future__ import annotations

from types import SimpleNamespace

import torch

from sq_imputer.contract import Batch, CropSpec, Needs, WholeSlide
from sq_imputer.predictor.scaled import CLIP_SD, Scaled

NEEDS = Needs(CropSpec(), ("texture",), tokens=1, neighbors=3, whole_slide=True)


def model() -> SimpleNamespace:
    """What training rows say: features of mean 2 and spread 2, tokens of mean 1 and spread 4."""
    two, one = torch.full((3,), 2.0), torch.ones(3)
    return SimpleNamespace(needs=NEEDS, feature_mean=two, feature_std=two, token_mean=one, token_std=4 * one)


def test_tiles_and_the_section_are_scaled_as_the_crop_and_tokens_by_their_own():
    whole = WholeSlide(torch.full((4, 3), 6.0), torch.zeros(4, 2, dtype=torch.int64))
    seen = {"features": torch.full((2, 3), 4.0), "tokens": torch.full((2, 1, 3), 9.0)}
    batch = Batch(torch.arange(2), **seen, neighbors=torch.full((2, 9, 3), 1e6), slides=(whole,))
    scale = Scaled(model(), None, "cpu")
    found = scale(batch)
    assert (found.features == 1).all() and (found.tokens == 2).all() and (found.slides[0].tokens == 2).all()
    assert (found.neighbors == CLIP_SD).all()
    assert scale(batch).slides[0] is found.slides[0]
    assert (batch.features == 4).all() and (whole.tokens == 6).all()
