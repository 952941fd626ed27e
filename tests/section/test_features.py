from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

from sq_imputer.contract import CropSpec
from sq_imputer.encoders import get_encoder
from sq_imputer.encoders._shelf import Shelf
from sq_imputer.errors import BadInput
from sq_imputer.pixels.dense import Dense
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section import features
from sq_imputer.section.slide import Slide
from sq_imputer.store.journal import Journal, Part

SPEC = CropSpec(40, 40)
WAYS = (None, True, False)
ROWS = np.arange(8)


@pytest.fixture
def kept(planted, counting):
    """A section whose table holds the features of its spots, as `pp.embed` writes them."""
    sdata = planted.section(angle=30)
    slide = Slide.from_sdata(sdata)
    values = slide.features("counting", SPEC)
    table = sdata.tables["table"]
    table.obsm["X_counting"] = values.copy()
    table.uns["sq_imputer"] = {"embeddings": {"X_counting": slide.record("counting", SPEC)}}
    counting.seen = 0
    return sdata


def test_features_come_in_the_order_of_the_rows(planted, counting):
    slide = Slide.from_sdata(planted.section())
    values = features.compute(slide.crops(SPEC), get_encoder("counting"), device="cpu")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, slide.crops(SPEC)[:].mean(axis=(2, 3)), rtol=1e-5)
    assert not torch.is_inference_mode_enabled()


def test_a_wider_context_has_its_own_name():
    assert features.key("texture", SPEC) == features.key("texture", SPEC, SPEC) == "X_texture"
    assert features.key("texture", CropSpec(400.5, 40), SPEC) == "X_texture_400.5um"


def test_features_of_some_rows_leave_the_others(planted):
    table = planted.table(ROWS)
    new = np.ones((2, 3), np.float32)
    full = features.in_rows(table, "X_a", np.array([5, 1]), new)
    assert np.flatnonzero(np.isfinite(full).all(axis=1)).tolist() == [1, 5]
    table.obsm["X_a"] = full
    full = features.in_rows(table, "X_a", np.array([0]), 2 * np.ones((1, 3), np.float32))
    np.testing.assert_array_equal(full[[0, 1, 5], 0], [2, 1, 1])
    assert np.isnan(table.obsm["X_a"][0]).all()
    wider = features.in_rows(table, "X_a", np.array([0]), np.ones((1, 4), np.float32))
    assert wider.shape == (8, 4) and np.isnan(wider[1:]).all()


def test_what_was_kept_is_used_instead_of_the_encoder(kept, counting):
    slide = Slide.from_sdata(kept)
    np.testing.assert_array_equal(slide.features("counting", SPEC), kept["table"].obsm["X_counting"])
    np.testing.assert_array_equal(slide.take([3]).features("counting", SPEC)[0], kept["table"].obsm["X_counting"][3])
    assert counting.seen == 0
    assert slide.made_by["counting"] == {**counting.provenance, "batch_size": 64, "dense": False}
    slide.features("counting", CropSpec(60, 40))
    assert counting.seen == 8


def test_what_was_kept_follows_the_rows_of_the_table(kept, counting):
    kept.tables["table"] = kept["table"][[4, 2, 0, 1, 3, 7, 6, 5]].copy()
    slide = Slide.from_sdata(kept)
    values = slide.features("counting", SPEC)
    assert counting.seen == 0
    np.testing.assert_allclose(values, slide.crops(SPEC)[:].mean(axis=(2, 3)), rtol=1e-5)


def other_pixels(sdata, planted):
    matrix, shape = planted.place(30)
    shape = shape[0] + 1, shape[1]
    sdata.images["he"] = planted.image(planted.draw(matrix, shape), {"um": planted.affine(matrix)})


def other_image(sdata, planted):
    sdata.images["other"] = sdata.images["he"]
    del sdata.images["he"]


def turned_image(sdata, planted):
    matrix, _ = planted.place(30)
    set_transformation(sdata["he"], planted.affine(matrix @ [[0, -1, 300], [1, 0, 0], [0, 0, 1]]), "um")


def moved_shapes(sdata, planted):
    set_transformation(sdata["spots"], Scale([0.9, 0.9], axes=("x", "y")), "um")


def other_system(sdata, planted):
    matrix, _ = planted.place(30)
    set_transformation(sdata["he"], {"microns": planted.affine(matrix)}, set_all=True)
    set_transformation(sdata["spots"], {"microns": Identity()}, set_all=True)


def removed(sdata, planted):
    del sdata["table"].obsm["X_counting"]


def mirrored_pixels(sdata, planted):
    level = sdata.images["he"]
    sdata.images["he"] = planted.image(np.asarray(level.data)[:, :, ::-1], get_transformation(level, get_all=True))


def other_encoder(sdata, planted):
    sdata["table"].uns["sq_imputer"]["embeddings"]["X_counting"]["provenance"]["weights"] = "others"


def nobody(sdata, planted):
    del sdata["table"].uns["sq_imputer"]["embeddings"]["X_counting"]["provenance"]


CHANGES = [
    mirrored_pixels,
    other_encoder,
    nobody,
    other_pixels,
    other_image,
    turned_image,
    moved_shapes,
    other_system,
    removed,
]


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_what_was_kept_is_not_used_for_other_crops(kept, planted, counting, change):
    change(kept, planted)
    slide = Slide.from_sdata(kept, outside="pad")
    values = slide.features("counting", SPEC)
    assert counting.seen == 8
    np.testing.assert_allclose(values, slide.crops(SPEC)[:].mean(axis=(2, 3)), rtol=1e-5)


def test_what_was_kept_is_of_places_that_only_rounding_moved(kept, counting):
    shapes = kept.shapes["spots"]
    shapes["geometry"] = shapes.geometry.translate(1e-9, -1e-9)
    Slide.from_sdata(kept).features("counting", SPEC)
    assert counting.seen == 0


def test_what_was_kept_waits_until_it_is_asked_for(kept, counting, monkeypatch):
    monkeypatch.setattr(Pyramid, "fingerprint", property(lambda self: pytest.fail("pixels were read")))
    Slide.from_sdata(kept).features("counting", CropSpec(60, 40))


def test_what_was_kept_is_not_used_at_another_pixel_size(kept, counting):
    Slide.from_sdata(kept, mpp=1.01).features("counting", SPEC)
    assert counting.seen == 8
    Slide.from_sdata(kept, mpp=1.0).features("counting", SPEC)
    assert counting.seen == 8


def test_windows_are_described_together_unless_told_otherwise(planted, counting) -> None:
    """The way decides no number, and is known."""
    spec, texture = CropSpec(40, 32), get_encoder("texture")
    straight, turned = (Slide.from_sdata(planted.section(angle=angle)) for angle in (0, 30))
    ways = {dense: features.reader(straight.frame, straight.centers_px, spec, texture, dense=dense) for dense in WAYS}
    assert [features.described_together(way) for way in ways.values()] == [True, True, False]
    together, _, alone = (features.compute(way, texture, device="cpu") for way in ways.values())
    assert (np.abs(alone - together) / np.maximum(together.std(axis=0), 1e-3)).max() < 1e-3
    crops = features.compute(straight.crops(spec), texture, device="cpu")  # which have no surroundings: they differ
    assert (np.abs(crops - together) / np.maximum(together.std(axis=0), 1e-3)).max() > 0.1
    assert not isinstance(features.reader(turned.frame, turned.centers_px, spec, texture), Dense)
    with pytest.raises(BadInput, match="dense=True, but encoder 'texture' sees crops alone where the image is turned"):
        features.reader(turned.frame, turned.centers_px, spec, texture, dense=True)
    with pytest.raises(BadInput, match="dense=True, but encoder 'counting'"):
        features.reader(straight.frame, straight.centers_px, spec, get_encoder("counting"), dense=True)


def test_only_rows_that_the_table_lacks_are_computed(kept, counting) -> None:
    whole = np.asarray(kept["table"].obsm["X_counting"]).copy()
    kept.tables["table"] = kept["table"][[5, 2, 0, 1, 4, 3]].copy()  # two spots have no row in it
    kept["table"].obsm["X_counting"][0] = np.nan  # and spot 5 no features
    slide = Slide.from_sdata(kept)
    np.testing.assert_array_equal(slide.features("counting", SPEC), whole)
    assert counting.seen == 3
    assert slide.made_by["counting"] == {**counting.provenance, "batch_size": 64, "dense": False}


def test_rows_of_another_encoder_are_not_filled_up(kept, counting) -> None:
    kept.tables["table"] = kept["table"][:6].copy()
    kept["table"].uns["sq_imputer"]["embeddings"]["X_counting"]["provenance"]["sha256"] = "f" * 64
    whole = kept["table"].obsm["X_counting"].copy()
    kept["table"].obsm["X_counting"] += 1
    np.testing.assert_array_equal(Slide.from_sdata(kept).features("counting", SPEC)[:6], whole)
    assert counting.seen == 8


def test_missing_rows_are_described_as_the_others_were_and_kept_in_the_journal(planted, tmp_path) -> None:
    sdata, spec, n = planted.section(), CropSpec(40, 32), 5
    alone = replace(Slide.from_sdata(sdata), encoders=Shelf(dense=False))
    expected = alone.features("texture", spec)
    table = sdata.tables["table"]
    table.obsm["X_texture"] = np.where(ROWS[:, None] < n, expected, np.nan)
    table.uns["sq_imputer"] = {"embeddings": {"X_texture": alone.record("texture", spec)}}
    slide = Slide.from_sdata(sdata)
    with Journal(tmp_path / "journal", {}) as journal:
        found = replace(slide, journal=Part(journal, "of")).features("texture", spec)
        [shard] = (tmp_path / "journal").glob("*.shard")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert slide.made_by["texture"]["dense"] is False


def test_kept_features_of_the_other_way_are_made_again(planted) -> None:
    spec = CropSpec(40, 32)
    slide = Slide.from_sdata(planted.section())
    slide.features("texture", spec)
    assert slide.made_by["texture"]["dense"]
    alone = replace(slide, encoders=Shelf(dense=False))
    alone.features("texture", spec)
    assert not slide.made_by["texture"]["dense"]


def test_an_image_that_is_much_coarser_is_not_blown_up_to_be_described(planted, counting) -> None:
    slide, spec = Slide.from_sdata(planted.section()), CropSpec(480, 224)
    frame = replace(slide.frame, pixel=replace(slide.frame.pixel, mpp=12.0))  # 5.6 times coarser
    turned = replace(frame, to_um=planted.place(30)[0])
    texture = get_encoder("texture")
    assert features.reader(turned, slide.centers_px, spec, texture).size_px == 160
    together = features.reader(frame, slide.centers_px, spec, texture)
    alone = frame.crops(slide.centers_px, CropSpec(480, 160))
    assert alone.size_px == 160 and (together.grid.step == 0.25).all()
    found = [features.compute(one, texture, device="cpu") for one in (alone, together)]
    near = np.abs(found[0] - found[1]) < 0.5 * found[1].std(axis=0) + 0.05
    assert near.mean() > 0.8
    fixed = features.reader(frame, slide.centers_px, spec, get_encoder("counting"))
    assert fixed.size_px == 224  # of a network, which takes crops of one size
