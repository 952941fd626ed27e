from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from spatialdata import SpatialData

from sq_imputer import encoders
from sq_imputer.contract import Batch, CropSpec, Needs
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.errors import BadInput
from sq_imputer.pixels.chunks import Tiles
from sq_imputer.section.around import inside
from sq_imputer.section.slide import Slide

SPEC = CropSpec(40.0, 28)
NEEDS = Needs(SPEC, ("parts",), (80.0,), tokens=7, neighbors=3, whole_slide=True)


@pytest.fixture
def parts(monkeypatch):
    """An encoder named "parts" whose features are the mean color of a crop, and whose tokens that of every part."""

    class Parts(encoders.Encoder):
        def encode(self, crops):
            return crops.float().mean((2, 3))

        def places(self, crops, grid):
            return torch.nn.functional.adaptive_avg_pool2d(crops.float(), grid).movedim(1, -1)

    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)
    card = replace(TEXTURE, name="parts", dim=3)
    encoders.register_encoder(card, lambda card, weights, revision: Parts(card, {"weights": "none"}))


def test_a_batch_has_what_lies_in_and_around_its_rows(planted, parts):
    slide = Slide.from_sdata(planted.section())
    first, second = slide.batches(NEEDS, 5)
    assert first.features.shape == (5, 6) and first.tokens.shape == (5, 49, 3) and first.neighbors.shape == (5, 9, 3)
    assert first.inside.shape == (5, 9) and first.inside.dtype == torch.bool
    assert len(first.slides) == 1 and first.slides[0] is second.slides[0]
    whole = first.slides[0]
    assert whole.tokens.shape == (8, 6) and whole.places.shape == (8, 2)
    for batch in (first, second):
        torch.testing.assert_close(whole.tokens[batch.at[:, 1]], batch.features)


def test_tokens_run_from_the_top_left_and_their_mean_is_the_crop(planted, parts):
    slide = Slide.from_sdata(planted.section())
    (batch,) = slide.batches(replace(NEEDS, neighbors=0, whole_slide=False), rows=[6])
    crop = planted.window(planted.centers_um[6], 40)
    torch.testing.assert_close(batch.tokens.mean(1), batch.features[:, :3], rtol=1e-3, atol=0.1)
    grid = batch.tokens[0].numpy().reshape(7, 7, 3)
    corners = [grid[:3, :3], grid[:3, -3:], grid[-3:, :3]]
    expected = [crop[:, :17, :17], crop[:, :17, -17:], crop[:, -17:, :17]]
    for one, other in zip(corners, expected, strict=True):
        np.testing.assert_allclose(one.mean((0, 1)), other.mean((1, 2)), atol=4)


@pytest.mark.parametrize(
    "how", [{}, {"angle": 90, "flip": True}, {"angle": 30}], ids=["as drawn", "mirrored", "turned"]
)
def test_tiles_that_stick_out_of_the_image_are_said(planted, how):
    slide = Slide.from_sdata(planted.section(**how))
    said = inside(slide.frame, slide.centers_px, CropSpec(40.0, 28), 3)
    assert said[:, 4].all()  # the row's own
    if "angle" in how and how["angle"] == 30:  # a turned image is larger than the section
        return
    x, y = planted.centers_um[3]  # 260 of 320 µm, 60 of 240 µm: 40 + 20 µm to the right is the edge
    assert said[3].reshape(3, 3).all()
    assert not inside(slide.frame, slide.centers_px, CropSpec(42.0, 28), 3)[3].reshape(3, 3)[:, 2].any()


def test_a_part_of_a_section_belongs_to_the_whole(planted, parts):
    slide = Slide.from_sdata(planted.section())
    (every,) = slide.batches(NEEDS)
    (part,) = slide.take([5, 2]).take([1, 0]).batches(NEEDS)
    assert part.slides[0] is every.slides[0] and part.at.tolist() == [[0, 2], [0, 5]]
    for name in ("features", "tokens", "neighbors", "inside"):
        assert torch.equal(getattr(part, name), getattr(every, name)[[2, 5]]), name


def test_batches_of_several_sections_keep_whose_rows_they_are(planted, parts):
    one, other = (next(Slide.from_sdata(planted.section()).batches(NEEDS, 3)) for _ in range(2))
    whole = Batch.cat([one, other, one])
    assert len(whole.slides) == 2 and whole.at[:, 0].tolist() == [0] * 3 + [1] * 3 + [0] * 3
    assert whole[[4]].at.tolist() == [[1, 1]] and whole[[4]].slides == whole.slides


def test_a_second_fit_reads_no_pixels(planted, parts, monkeypatch):
    reads = []
    read = Tiles._read
    monkeypatch.setattr(Tiles, "_read", lambda self, *tile: reads.append(tile) or read(self, *tile))
    slide = Slide.from_sdata(planted.section())
    list(slide.batches(NEEDS))
    first = len(reads)
    assert first
    list(slide.batches(NEEDS)), list(slide.take([1, 2]).batches(NEEDS))
    slide.moments(NEEDS), slide.moments(NEEDS, tokens=True), slide.all_features(NEEDS)
    assert len(reads) == first


def test_needs_of_features_name_encoders():
    with pytest.raises(BadInput, match="Needs.encoders is empty; name some"):
        Needs(SPEC, tokens=7)
    with pytest.raises(BadInput, match="Needs.tokens is -1"):
        Needs(SPEC, ("texture",), tokens=-1)


def test_an_encoder_without_tokens_says_so(planted, counting):
    with pytest.raises(BadInput, match="'counting' has no tokens"):
        next(Slide.from_sdata(planted.section()).batches(Needs(SPEC, ("counting",), tokens=7)))


def test_a_section_object_is_unchanged(planted, parts, digest):
    sdata: SpatialData = planted.section()
    before = digest(sdata)
    list(Slide.from_sdata(sdata).batches(NEEDS))
    assert digest(sdata) == before
