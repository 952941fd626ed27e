from __future__ import annotations

import h5py
import numpy as np
import pytest
from spatialdata import read_zarr
from spatialdata.transformations import Identity, Scale, set_transformation

from sq_imputer.contract import CropSpec, Needs, Source
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.slide import Slide

SPEC = CropSpec(40, 40)
PIXELS = Needs(crop=SPEC)
COLORS = Needs(crop=SPEC, encoders=("counting",))
PLACES = {
    "as drawn": {},
    "mirrored": {"flip": True},
    "turned by 90": {"angle": 90},
    "turned by 180 and mirrored": {"angle": 180, "flip": True},
    "turned by 270": {"angle": 270},
    "turned by 30": {"angle": 30},
    "finer": {"mpp": 0.5},
    "turned by -50, mirrored, of another scale": {"angle": -50, "flip": True, "mpp": 0.8},
    "of several resolutions": {"scales": [2, 2]},
    "finer and of several resolutions": {"mpp": 0.25, "scales": [2, 2]},
}


def pattern(planted, centers=None) -> np.ndarray:
    """The crops that must be seen."""
    return np.stack([planted.window(center) for center in (planted.centers_um if centers is None else centers)])


# Where rows are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", PLACES.values(), ids=PLACES)
def test_what_is_planted_at_a_place_is_seen_there_however_the_image_lies(planted, how):
    slide = Slide.from_sdata(planted.section(**how))
    np.testing.assert_allclose(slide.xy_um, planted.centers_um, atol=1e-9)
    np.testing.assert_allclose(slide.crops(SPEC)[:], pattern(planted), atol=2)
    assert slide.frame.pixel.mpp == pytest.approx(how.get("mpp", 1))
    np.testing.assert_allclose(slide.size_um, 20)


@pytest.mark.parametrize("unit", [1000.0, 0.27, 1.0])
@pytest.mark.parametrize("shapes", ["circles", "squares"])
def test_shapes_may_be_of_any_kind_and_in_any_unit(planted, unit, shapes):
    slide = Slide.from_sdata(planted.section(unit=unit, shapes=getattr(planted, shapes)))
    np.testing.assert_allclose(slide.xy_um, planted.centers_um, atol=1e-9)
    np.testing.assert_allclose(slide.size_um, 20)
    np.testing.assert_allclose(slide.crops(SPEC)[:], pattern(planted), atol=2)


def test_shapes_may_be_turned_too(planted):
    sdata = planted.section(angle=30)
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    matrix = np.eye(3)
    matrix[:2, :2] = 5 * turn
    sdata.shapes["spots"] = planted.circles(planted.centers_um @ turn / 5, 2, {"um": planted.affine(matrix)})
    slide = Slide.from_sdata(sdata)
    np.testing.assert_allclose(slide.xy_um, planted.centers_um, atol=1e-9)
    np.testing.assert_allclose(slide.size_um, 20)
    np.testing.assert_allclose(slide.crops(SPEC)[:], pattern(planted), atol=2)


def test_the_pixel_size_that_is_given_scales_everything(planted):
    with pytest.warns(UserWarning, match="mpp=2 is taken for image 'he', and no source says so: 1 from transformation"):
        slide = Slide.from_sdata(planted.section(angle=30), mpp=2.0)
    assert slide.frame.pixel.source == "argument"
    np.testing.assert_allclose(slide.xy_um, 2 * planted.centers_um, atol=1e-9)
    np.testing.assert_allclose(slide.size_um, 40)
    np.testing.assert_allclose(slide.crops(CropSpec(80, 40))[:], pattern(planted), atol=2)


def test_systems_with_another_place_for_the_shapes_must_be_chosen_from(planted):
    sdata = planted.section()
    set_transformation(sdata["he"], Identity(), "other")
    set_transformation(sdata["spots"], Scale([0.5, 0.5], axes=("x", "y")), "other")
    with pytest.raises(MissingKey, match="place shapes 'spots' differently on image 'he'. Pass coordinate_system="):
        Slide.from_sdata(sdata)
    np.testing.assert_allclose(Slide.from_sdata(sdata, coordinate_system="um").xy_um, planted.centers_um)
    np.testing.assert_allclose(Slide.from_sdata(sdata, coordinate_system="other").xy_um, planted.centers_um / 2)


def test_a_scale_that_differs_by_a_hair_between_axes_is_taken(planted):
    sdata = planted.section()
    set_transformation(sdata["he"], Scale([1.0, 1.004], axes=("x", "y")), "um")
    assert Slide.from_sdata(sdata).crops(SPEC)[0].shape == (3, 40, 40)


def test_rows_outside_the_image_are_refused_or_padded(planted):
    sdata = planted.section()
    away = planted.centers_um.copy()
    away[[2, 5]] = [[-5, 60], [1000, 60]]
    sdata.shapes["spots"] = planted.circles(away, 10, {"um": Identity()})
    with pytest.raises(
        BadInput, match=r"2 of 8 rows of shapes 'spots' lie outside image 'he' \(320 x 240 px\): '2', '5'"
    ):
        Slide.from_sdata(sdata)
    crops = Slide.from_sdata(sdata, outside="pad").crops(SPEC)
    assert (crops[5] == 255).all()
    assert (crops[2][:, :, :25] == 255).all() and (crops[2][:, :, 25:] < 255).all()
    with pytest.raises(BadInput, match="outside is 'skip'; expected 'error' or 'pad'"):
        Slide.from_sdata(sdata, outside="skip")


def test_reading_a_section_reads_no_pixel(planted):
    def fail(block):
        raise AssertionError("a pixel was read")

    sdata = planted.section()
    pixels = sdata["he"].data.map_blocks(fail, meta=np.empty((0, 0, 0), np.uint8))
    sdata.images["he"] = sdata["he"].copy(data=pixels)
    slide = Slide.from_sdata(sdata).with_genes(planted.genes)
    batches = slide.batches(PIXELS)
    assert len(slide.crops(SPEC)) == 8
    with pytest.raises(BadInput, match="a pixel was read"):
        next(batches)


def test_a_stored_section_is_the_section(planted, tmp_path):
    sdata = planted.section(angle=30, scales=[2])
    sdata.write(tmp_path / "section.zarr")
    here, there = Slide.from_sdata(sdata), Slide.from_sdata(read_zarr(tmp_path / "section.zarr"))
    assert here.fingerprint == there.fingerprint
    np.testing.assert_array_equal(here.crops(SPEC)[:], there.crops(SPEC)[:])
    np.testing.assert_array_equal(here.counts.toarray(), there.counts.toarray())


# What was measured -------------------------------------------------------------------------------


def test_rows_that_the_table_leaves_out_are_unmeasured(planted):
    slide = Slide.from_sdata(planted.section(rows=[6, 1, 3])).with_genes(planted.genes[::-1])
    assert np.flatnonzero(slide.measured).tolist() == [1, 3, 6]
    assert slide.names.tolist() == ["0", "s1", "2", "s2", "4", "5", "s0", "7"]
    np.testing.assert_array_equal(slide.counts.toarray()[slide.measured], planted.counts[[1, 3, 6]])
    share = planted.counts / planted.counts.sum(axis=1, keepdims=True)
    expected = np.where(slide.measured[:, None], np.log1p(1e4 * share[:, ::-1]), np.nan)
    np.testing.assert_allclose(slide.expression, expected, rtol=1e-6)
    np.testing.assert_array_equal(slide.depth, np.where(slide.measured, planted.counts.sum(axis=1), np.nan))


def test_the_unit_is_over_the_full_library_and_not_over_the_panel(planted):
    slide = Slide.from_sdata(planted.section())
    panel, everything = slide.with_genes(["G2"]), slide.with_genes(planted.genes)
    np.testing.assert_array_equal(panel.expression[:, 0], everything.expression[:, 2])
    assert slide.expression is None and slide.genes == ()
    assert (panel.genes, panel.unit) == (("G2",), "log1p_cp10k")
    np.testing.assert_allclose(
        slide.with_genes(["G2"], "log2_counts").expression[:, 0], np.log2(1 + planted.counts[:, 2])
    )


def test_several_regions_of_one_table_are_told_apart(planted):
    sdata = planted.section()
    sdata.shapes["more"] = planted.circles(planted.centers_um[:3], 10, {"um": Identity()})
    sdata.tables["table"] = planted.table([0, 1, 2, 7, 0], ["more", "spots", "more", "spots", "spots"])
    spots, more = (Slide.from_sdata(sdata, shapes_key=name) for name in ("spots", "more"))
    assert np.flatnonzero(spots.measured).tolist() == [0, 1, 7]
    assert np.flatnonzero(more.measured).tolist() == [0, 2]
    np.testing.assert_array_equal(spots.counts.toarray()[[1, 7, 0]], planted.counts[[1, 3, 4]])
    np.testing.assert_array_equal(more.counts.toarray()[[0, 2]], planted.counts[[0, 2]])


def test_without_a_table_of_these_shapes_no_row_is_measured(planted):
    sdata = planted.section()
    sdata.shapes["grid"] = planted.circles(planted.centers_um, 10, {"um": Identity()})
    for keys in ({"table_key": None, "shapes_key": "spots"}, {"shapes_key": "grid"}):
        slide = Slide.from_sdata(sdata, **keys)
        assert not slide.measured.any() and slide.counts is None and np.isnan(slide.depth).all()
        with pytest.raises(BadInput, match="has no counts.*a model can be fitted only where expression was measured"):
            slide.with_genes(["G0"])


def test_counts_may_lie_in_a_layer(planted):
    sdata = planted.section()
    table = sdata.tables["table"]
    table.layers["counts"] = table.X.copy()
    table.X = np.log1p(planted.counts)
    with pytest.raises(BadInput, match="values that are not counts"):
        Slide.from_sdata(sdata)
    np.testing.assert_array_equal(Slide.from_sdata(sdata, layer="counts").counts.toarray(), planted.counts)


def test_the_individual_is_the_patient_else_the_section(planted):
    sdata = planted.section()
    assert (Slide.from_sdata(sdata).group, Slide.from_sdata(sdata).section) == ("spots", "spots")
    sdata.attrs["section"] = "A1"
    assert (Slide.from_sdata(sdata).group, Slide.from_sdata(sdata).section) == ("A1", "A1")
    sdata.attrs["patient"] = "A"
    assert Slide.from_sdata(sdata, section="first").group == "A"
    sdata.tables["table"].obs["mouse"] = 7
    assert Slide.from_sdata(sdata, patient_key="mouse").group == "7"
    sdata.tables["table"].obs["patient"] = ["A"] * 7 + ["B"]
    with pytest.raises(BadInput, match=r"obs\['patient'\] has 2 values \('A', 'B'\) in one section; expected one"):
        Slide.from_sdata(sdata)


def test_the_fingerprint_is_what_was_measured_where(planted):
    sdata = planted.section()
    same = Slide.from_sdata(sdata, section="another name")
    assert same.fingerprint == Slide.from_sdata(sdata).take([3, 1, 0, 2, 4, 5, 7, 6]).fingerprint
    fewer = Slide.from_sdata(planted.section(rows=slice(7)))
    sdata.tables["table"].X[0, 0] += 1
    assert len({same.fingerprint, fewer.fingerprint, Slide.from_sdata(sdata).fingerprint}) == 3


def test_a_slide_is_a_source_and_says_briefly_what_it_is(planted):
    slide = Slide.from_sdata(planted.section(rows=slice(3)), section="A1")
    assert isinstance(slide.with_genes(["G0"]), Source)
    assert repr(slide) == "Slide 'A1' of 'A1': 3 of 8 rows measured, 6 genes, 1 µm/px"


# Rows, features and moments ----------------------------------------------------------------------


def test_features_are_computed_once_and_shared_with_every_part(planted, counting):
    slide = Slide.from_sdata(planted.section())
    whole = slide.with_genes(planted.genes[:2]).features("counting", SPEC)
    np.testing.assert_allclose(whole, pattern(planted).mean(axis=(2, 3)), atol=0.5)
    part = slide.take([5, 2]).take(np.array([False, True]))
    np.testing.assert_array_equal(part.features("counting", SPEC), whole[[2]])
    np.testing.assert_array_equal(slide.all_features(COLORS), whole)
    assert counting.seen == 8
    slide.features("counting", CropSpec(60, 40))
    assert counting.seen == 16
    assert slide.made_by == {"counting": {**counting.provenance, "batch_size": 64, "dense": False}}


def test_a_part_computes_the_features_of_the_whole(planted, counting):
    slide = Slide.from_sdata(planted.section())
    assert slide.take([1]).features("counting", SPEC).shape == (1, 3)
    slide.features("counting", SPEC)
    assert counting.seen == 8


def test_encoders_of_a_run_are_those_of_the_whole_that_a_part_is_of(toy_slides):
    from sq_imputer.encoders._shelf import Shelf

    slide, shelf = toy_slides[0].take(slice(8)), Shelf(dense=True)
    part = slide.take([5, 2]).with_encoders(shelf)
    spec = CropSpec(100.0, 32)
    features = part.features("texture", spec)
    assert part.made_by["texture"]["dense"] is True and slide.encoders is None
    np.testing.assert_array_equal(features, slide.with_encoders(shelf).features("texture", spec)[[5, 2]])


def test_a_part_keeps_every_field_of_its_rows(planted):
    slide = Slide.from_sdata(planted.section(rows=slice(6))).with_genes(["G3", "G1"])
    part = slide.take([7, 2])
    assert (len(part), part.genes, part.unit) == (2, slide.genes, slide.unit)
    for name in ("centers_px", "size_um", "names", "instances", "measured", "expression", "depth", "xy_um"):
        np.testing.assert_array_equal(getattr(part, name), getattr(slide, name)[[7, 2]])
    np.testing.assert_array_equal(part.counts.toarray(), slide.counts.toarray()[[7, 2]])
    np.testing.assert_array_equal(part.crops(SPEC)[:], slide.crops(SPEC)[[7, 2]])


def test_moments_are_those_of_the_measured_rows_of_the_whole(planted, counting, monkeypatch):
    monkeypatch.setattr("sq_imputer.section.seen.MIN_ROWS_FOR_MOMENTS", 5)
    slide = Slide.from_sdata(planted.section(rows=slice(5)))
    values = slide.features("counting", SPEC)[:5].astype(np.float64)
    for part in (slide, slide.take([6, 0]), slide.take([6, 0]).take([0])):
        mean, std = part.moments(COLORS)
        np.testing.assert_allclose(mean, values.mean(axis=0))
        np.testing.assert_allclose(std, values.std(axis=0))
    slide.remember("counting", SPEC, 2 * slide.features("counting", SPEC) + 1, {})
    np.testing.assert_allclose(slide.moments(COLORS)[0], 2 * values.mean(axis=0) + 1, rtol=1e-6)
    monkeypatch.setattr("sq_imputer.section.seen.MIN_ROWS_FOR_MOMENTS", 6)
    assert slide.moments(COLORS) is None
    nowhere = Slide.from_sdata(planted.section(), table_key=None)
    np.testing.assert_allclose(nowhere.moments(COLORS)[0], nowhere.features("counting", SPEC).mean(axis=0), rtol=1e-6)


def test_wider_contexts_follow_the_crop_in_the_features(planted, counting):
    slide = Slide.from_sdata(planted.section())
    needs = Needs(crop=SPEC, encoders=("counting", "texture"), context_um=(80.0,))
    values = slide.all_features(needs)
    wide = np.stack([planted.window(center, 80) for center in planted.centers_um]).mean(axis=(2, 3))
    np.testing.assert_allclose(values[:, :3], pattern(planted).mean(axis=(2, 3)), atol=0.5)
    texture = slide.features("texture", SPEC)
    np.testing.assert_array_equal(values[:, 3 : 3 + texture.shape[1]], texture)
    np.testing.assert_allclose(values[:, 3 + texture.shape[1] :][:, :3], wide, atol=0.5)


# Batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("needs", [PIXELS, COLORS, Needs(crop=SPEC, neighbors=3)], ids=["pixels", "features", "blocks"])
@pytest.mark.parametrize("seed", [None, 0])
def test_every_row_comes_once_with_what_belongs_to_it(planted, counting, needs, size, seed):
    slide = Slide.from_sdata(planted.section(rows=slice(6))).with_genes(planted.genes)
    generator = None if seed is None else np.random.default_rng(seed)
    batches = list(slide.batches(needs, size, generator=generator))
    assert [len(batch) for batch in batches] == [min(size, 8 - i) for i in range(0, 8, size)]
    rows = np.concatenate([batch.index.numpy() for batch in batches])
    assert sorted(rows) == list(range(8))
    for name, values in {"expression": slide.expression, "xy_um": slide.xy_um.astype(np.float32)}.items():
        np.testing.assert_array_equal(np.concatenate([getattr(batch, name) for batch in batches]), values[rows])
    if needs is COLORS:
        seen, known = "features", slide.features("counting", SPEC)
    else:
        seen, known = "crops", slide.crops(SPEC)[:]
    values = np.concatenate([getattr(batch, seen) for batch in batches])
    np.testing.assert_array_equal(values[:, 4] if needs.neighbors else values, known[rows])
    assert all((batch.features is None) == (seen == "crops") for batch in batches)


@pytest.mark.parametrize("needs", [PIXELS, COLORS], ids=["pixels", "features"])
def test_the_generator_decides_the_order(planted, counting, needs):
    slide = Slide.from_sdata(planted.section())

    def order(seed):
        return [
            i for batch in slide.batches(needs, 3, generator=np.random.default_rng(seed)) for i in batch.index.tolist()
        ]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(8)}) > 4


@pytest.mark.parametrize("needs", [PIXELS, COLORS, Needs(crop=SPEC, neighbors=3)], ids=["pixels", "features", "blocks"])
def test_only_the_rows_asked_for_come_as_numbers_or_as_a_mask(planted, counting, needs):
    slide = Slide.from_sdata(planted.section())
    mask = np.isin(np.arange(8), [6, 3])
    for rows in (mask, [6, 3], np.array([-2, 3])):
        assert sorted(i for batch in slide.batches(needs, rows=rows) for i in batch.index.tolist()) == [3, 6]


@pytest.mark.parametrize(
    "how", [{}, {"angle": 90, "flip": True}, {"angle": 30}], ids=["as drawn", "mirrored", "turned"]
)
def test_the_block_around_a_row_runs_along_x_then_y(planted, counting, how):
    slide = Slide.from_sdata(planted.section(**how))
    spec = CropSpec(20, 20)
    (batch,) = slide.batches(Needs(crop=spec, neighbors=3), rows=[6])
    assert batch.crops.shape == (1, 9, 3, 20, 20)
    steps = [np.array([x, y]) for y in (-20, 0, 20) for x in (-20, 0, 20)]
    for crop, step in zip(batch.crops[0].numpy(), steps, strict=True):
        np.testing.assert_allclose(crop, planted.window(planted.centers_um[6] + step, 20), atol=2)
    (batch,) = slide.batches(Needs(crop=spec, neighbors=3, encoders=("counting",)), rows=[6])
    expected = [planted.window(planted.centers_um[6] + step, 20).mean(axis=(1, 2)) for step in steps]
    np.testing.assert_allclose(batch.neighbors[0], expected, atol=1)
    np.testing.assert_array_equal(batch.neighbors[0, 4], batch.features[0])


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (Needs(), "Needs.crop is None"),
        (Needs(crop=SPEC, neighbors=4), "Needs.neighbors is 4; the block around a row needs an odd side"),
    ],
)
def test_needs_that_a_slide_cannot_meet_are_refused(planted, needs, message):
    with pytest.raises(BadInput, match=message):
        next(Slide.from_sdata(planted.section()).batches(needs))


def test_nothing_is_changed_by_reading(planted, digest, counting):
    sdata = planted.section(scales=[2], rows=slice(5))
    before = digest(sdata)
    slide = Slide.from_sdata(sdata).with_genes(["G1"])
    for needs in (PIXELS, COLORS):
        list(slide.take([0, 3]).batches(needs, generator=np.random.default_rng(0)))
    slide.moments(COLORS)
    assert digest(sdata) == before


# Real files --------------------------------------------------------------------------------------


def test_space_ranger_output_is_read_as_it_is(real_data):
    reader = pytest.importorskip("spatialdata_io", reason="spatialdata-io is not installed")
    sdata = reader.visium(real_data / "visium_crop", dataset_id="crop")
    with pytest.raises(MissingKey, match="2 images: 'crop_hires_image', 'crop_lowres_image'"):
        Slide.from_sdata(sdata)
    slide = Slide.from_sdata(sdata, "crop_hires_image")
    assert slide.frame.pixel.mpp == pytest.approx(25.5, abs=0.1)
    assert slide.frame.pixel.source.startswith("Visium")
    assert slide.measured.sum() == len(slide) == 338
    nearest = np.linalg.norm(slide.xy_um[:, None] - slide.xy_um, axis=-1)
    assert np.median(np.sort(nearest, axis=1)[:, 1]) == pytest.approx(100, rel=0.01)
    with h5py.File(real_data / "visium_crop" / "filtered_feature_bc_matrix.h5") as file:
        sdata.tables["table"].var_names = file["matrix/features/name"].asstr()[:]  # as they are before the reader
    with pytest.raises(BadInput, match=r"duplicate genes \(var_names\): 'TBCE', .*var_names_make_unique"):
        Slide.from_sdata(sdata, "crop_hires_image")


@pytest.mark.filterwarnings("ignore:.*have no counts:UserWarning")
@pytest.mark.parametrize("side", [2, 16])
def test_visium_hd_bins_are_read_as_they_are(real_data, side):
    reader = pytest.importorskip("spatialdata_io", reason="spatialdata-io is not installed")
    sdata = reader.visium_hd(real_data / "visium_hd_crop", dataset_id="crop", load_segmentations_only=False)
    name = f"square_{side:03d}um"
    slide = Slide.from_sdata(sdata, "crop_hires_image", f"crop_{name}", table_key=name)
    assert slide.frame.pixel.mpp == pytest.approx(34.3, abs=0.1)
    np.testing.assert_array_equal(slide.measured, np.asarray(sdata.tables[name].X.sum(axis=1)).ravel() > 0)
    np.testing.assert_allclose(slide.size_um, side, rtol=1e-3)
