from __future__ import annotations

import numpy as np
import pytest
from spatialdata import SpatialData
from spatialdata.transformations import Identity, Scale, remove_transformation, set_transformation

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.lattice import lattice_um
from sq_imputer.section.pixel_size import PixelSize, as_seen, pixel_size

ARRAY = np.array([(row, col) for row in range(6) for col in range(8) if (row + col) % 2 == 0])
MPP = 2.5  # of the image, which is in "global" at 4 units per pixel
UNIT_UM = MPP / 4


def scaled(size):
    return Scale([size, size], axes=("x", "y"))


@pytest.fixture
def printed(planted):
    """A function that makes spots printed on a lattice; shapes and image meet in "global"."""

    def make(technology="visium", diameter_um=65.0, array=ARRAY, name="spots", **columns):
        xy = lattice_um(array, technology) / UNIT_UM
        turned = (xy + 500) @ np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
        ids = np.arange(len(array))
        obs = {"array_row": array[:, 0], "array_col": array[:, 1]} | columns
        return SpatialData(
            images={"he": planted.image(np.zeros((3, 300, 300), np.uint8), {"global": scaled(4.0)})},
            shapes={name: planted.circles(turned, diameter_um / 2 / UNIT_UM)},
            tables={"table": planted.table(ids, name, np.ones((len(ids), 6), int), **obs)},
        )

    return make


def test_the_first_source_that_applies_is_taken_and_named(printed):
    sdata = printed()
    table, how = sdata.tables["table"], {"technology": "visium"}
    factors = {"spot_diameter_fullres": 64 / UNIT_UM, "microns_per_pixel": 1.01 * UNIT_UM}
    table.uns["spatial"] = {"lib": {"scalefactors": factors}}
    set_transformation(sdata["he"], scaled(1.02 * MPP), "slide_um")
    argument = pixel_size(sdata, "he", mpp=2.53, **how)
    assert (argument.mpp, argument.source) == (2.53, "argument")
    order = [
        "transformation to 'slide_um'",
        "Visium scale factors (microns_per_pixel)",
        "lattice pitch of 'visium' in 'spots'",
        "Visium scale factors (spot_diameter_fullres)",
    ]
    assert [one.source for one in argument.others] == order
    assert [one.mpp / MPP for one in argument.others] == pytest.approx([1.02, 1.01, 1, 65 / 64], rel=1e-6)
    found = pixel_size(sdata, "he", **how)
    assert [found.source, *(one.source for one in found.others)] == order
    assert found.said[0] == "2.55 from transformation to 'slide_um'"
    remove_transformation(sdata["he"], "slide_um")
    assert pixel_size(sdata, "he", **how).source == order[1]
    del factors["microns_per_pixel"]
    assert pixel_size(sdata, "he").source == order[2]  # what was printed says more than a diameter
    del table.uns["spatial"]
    assert pixel_size(sdata, "he").source == "Visium spot diameter of 'spots', confirmed by its pitch"
    sdata["spots"]["radius"] *= 2
    assert pixel_size(sdata, "he", **how).source == order[2]
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(sdata, "he")


@pytest.mark.parametrize(
    "name", ["um", "UM", "µm", "microns", "slide_micrometers", "micrometer", "sample-um", "um-P1", "um_P1"]
)
def test_systems_in_um_are_known_by_their_names(printed, name):
    sdata = printed()
    set_transformation(sdata["he"], scaled(MPP), name)
    assert pixel_size(sdata, "he") == PixelSize(MPP, f"transformation to '{name}'")


@pytest.mark.parametrize(
    "name", ["cerebellum", "Serum", "epithelium", "medium", "umbilicus", "square_016um", "P1-serum-2"]
)
def test_names_that_merely_end_in_um_are_no_unit(printed, name):
    sdata = printed("st", 100)
    set_transformation(sdata["he"], scaled(0.5), name)
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(sdata, "he")


@pytest.mark.parametrize(
    ("factors", "source"),
    [
        (
            {"microns_per_pixel": UNIT_UM, "spot_diameter_fullres": 16 / UNIT_UM, "bin_size_um": 16.0},
            "Visium scale factors (microns_per_pixel)",
        ),
        (
            {"spot_diameter_fullres": 65 / UNIT_UM, "tissue_hires_scalef": 0.1},
            "Visium scale factors (spot_diameter_fullres)",
        ),
    ],
)
def test_visium_scale_factors(printed, factors, source):
    sdata = printed("st", 100)
    sdata.tables["table"].uns["spatial"] = {"lib": {"scalefactors": factors}}
    found = pixel_size(sdata, "he")
    assert (found.mpp, found.source) == (pytest.approx(MPP), source)


def test_scale_factors_of_several_libraries_say_nothing(printed):
    sdata = printed("st", 100)
    library = {"scalefactors": {"microns_per_pixel": UNIT_UM}}
    sdata.tables["table"].uns["spatial"] = {"a": library, "b": library}
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(sdata, "he")


def test_visium_spots_are_known_by_diameter_and_pitch(printed):
    found = pixel_size(printed(), "he")
    assert (found.mpp, found.source) == (pytest.approx(MPP), "Visium spot diameter of 'spots', confirmed by its pitch")


@pytest.mark.parametrize("spots", [{"diameter_um": 55.0}, {"technology": "st2k", "diameter_um": 100.0}])
def test_spots_whose_diameter_and_pitch_disagree_are_not_visium(printed, spots):
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(printed(**spots), "he")


def test_visium_spots_need_circles_and_array_positions(printed, planted):
    sdata = printed()
    del sdata.tables["table"].obs["array_col"]
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(sdata, "he")
    sdata = printed()
    xy = np.column_stack([sdata["spots"].geometry.x, sdata["spots"].geometry.y])
    sdata.shapes["spots"] = planted.squares(xy, 65 / UNIT_UM)
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(sdata, "he")


def test_a_lattice_that_no_table_annotates_says_nothing(printed):
    with pytest.raises(BadInput, match="no µm per pixel is known"):
        pixel_size(printed("st", 100), "he", technology="st", table_key=None)


def test_visium_hd_bins_say_their_size_in_their_name(printed, planted):
    sdata = printed("st", 100)
    bins = planted.squares(ARRAY * 16 / UNIT_UM, 16 / UNIT_UM, {"global": Identity()})
    sdata.shapes["sample_square_016um"] = bins
    found = pixel_size(sdata, "he")
    assert (found.mpp, found.source) == (pytest.approx(MPP), "Visium HD bins of 16 µm in 'sample_square_016um'")


@pytest.mark.parametrize("technology", ["visium", "st", "st2k"])
def test_the_lattice_of_a_named_technology_turned_in_the_image(printed, technology):
    found = pixel_size(printed(technology, 40), "he", technology=technology)
    assert (found.mpp, found.source) == (pytest.approx(MPP), f"lattice pitch of '{technology}' in 'spots'")


@pytest.mark.parametrize("most", [len(ARRAY), len(ARRAY) - 1, len(ARRAY) // 2])
def test_the_lattice_is_measured_alike_where_not_all_of_its_spots_are_looked_at(printed, monkeypatch, most):
    monkeypatch.setattr("sq_imputer.section.pixel_size.MOST_SPOTS", most)
    assert pixel_size(printed("st", 40), "he", technology="st").mpp == pytest.approx(MPP)


def test_without_any_source_the_error_says_how_to_give_it(printed):
    with pytest.raises(
        BadInput, match=r"image 'he'.*\(it has 'global'\).*Pass mpp= .*technology= \(one of 'visium', 'st'"
    ):
        pixel_size(printed("st", 100), "he")


def test_a_technology_needs_array_positions(printed):
    sdata = printed("st", 100)
    del sdata.tables["table"].obs["array_row"]
    with pytest.raises(BadInput, match="technology='st' needs obs columns array_row and array_col in table 'table'"):
        pixel_size(sdata, "he", technology="st")


def test_an_unknown_technology_is_answered_with_the_known(printed):
    with pytest.raises(MissingKey, match="no technology 'merfish'; there are 'visium', 'st', 'st2k'. Pass mpp="):
        pixel_size(printed(), "he", technology="merfish")


@pytest.mark.parametrize("mpp", [0.0, 1e-4, 25.0, 500.0])
def test_a_value_that_is_no_pixel_size_is_refused(printed, mpp):
    with pytest.raises(BadInput, match=r"'he' would have .* µm per pixel \(from argument\); expected 0.05 to 20. Pass"):
        pixel_size(printed(), "he", mpp=mpp)


@pytest.mark.parametrize("mpp", [np.nan, np.inf, -1.0, "0.5"])
def test_what_is_no_number_is_no_pixel_size(printed, mpp):
    with pytest.raises(BadInput, match=r"mpp is .*; expected a number"):
        pixel_size(printed(), "he", mpp=mpp)


@pytest.mark.parametrize(("um", "fits"), [(25.0, True), (101.0, False), (0.01, False)])
def test_a_pixel_size_that_is_found_may_be_that_of_a_thumbnail(printed, um, fits):
    sdata = printed("st", 100)
    set_transformation(sdata["he"], scaled(um), "um")
    if fits:
        assert pixel_size(sdata, "he").mpp == um
        return
    with pytest.raises(BadInput, match=r"\(from transformation to 'um'\); expected 0.02 to 100"):
        pixel_size(sdata, "he")


@pytest.mark.parametrize("um", [25.0, 0.03])
def test_what_was_found_once_is_taken_again(printed, um):
    made = {"mpp": um, "mpp_source": "transformation to 'um'"}
    assert pixel_size(printed(), "he", mpp=as_seen(made)["mpp"]) == PixelSize(um, "transformation to 'um'")
    assert as_seen({})["mpp"] is None
    with pytest.raises(BadInput, match="mpp is nan"):
        pixel_size(printed(), "he", mpp=as_seen({"mpp": float("nan")})["mpp"])


def test_spots_are_measured_where_they_meet_the_image(printed):
    sdata = printed("st", 100)
    set_transformation(sdata["he"], Identity(), "unaligned")
    set_transformation(sdata["spots"], Identity(), "unaligned")
    with pytest.raises(MissingKey, match="'global' and 'unaligned' place shapes 'spots' differently"):
        pixel_size(sdata, "he", technology="st")
    assert pixel_size(sdata, "he", technology="st", coordinate_system="global").mpp == pytest.approx(MPP)
    assert pixel_size(sdata, "he", technology="st", coordinate_system="unaligned").mpp == pytest.approx(UNIT_UM)


def test_shapes_that_give_no_pixel_size_do_not_matter(printed, planted):
    sdata = printed("st", 100)
    sheared = planted.affine(np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]))
    sdata.shapes["annotation"] = planted.squares(planted.centers_um, 20, {"global": sheared})
    assert pixel_size(sdata, "he", technology="st").mpp == pytest.approx(MPP)


@pytest.fixture
def contrary(printed):
    """A function that makes Visium spots with scale factors that their lattice contradicts."""

    def make(**factors):
        sdata = printed()
        sdata.tables["table"].uns["spatial"] = {"lib": {"scalefactors": factors}}
        return sdata

    return make


@pytest.mark.parametrize("um", [55.0, 65 / 0.96, 65 * 0.85])
def test_a_diameter_that_the_pitch_contradicts_is_told_and_not_taken(contrary, um):
    sdata = contrary(spot_diameter_fullres=um / UNIT_UM)
    with pytest.warns(UserWarning, match=r"2.5 from lattice pitch of 'visium'.*spot_diameter_fullres.*Pass mpp="):
        found = pixel_size(sdata, "he")
    assert found.mpp == pytest.approx(MPP)
    assert found.others[0].mpp == pytest.approx(MPP * 65 / um)


@pytest.mark.parametrize("factor", [5.88, 0.2, 1.25, 0.8])
@pytest.mark.parametrize("name", ["spot_diameter_fullres", "microns_per_pixel"])
def test_scale_factors_of_another_image_are_refused(contrary, name, factor):
    value = {"spot_diameter_fullres": 65 / UNIT_UM, "microns_per_pixel": UNIT_UM}[name] * factor
    sdata = contrary(**{name: value})
    with pytest.raises(BadInput, match=rf"contradict each other: .*{name}.*Pass mpp=.*mpp=2.5"):
        pixel_size(sdata, "he")
    assert pixel_size(sdata, "he", mpp=MPP) == PixelSize(MPP, "argument")  # which settles it


def test_of_three_sources_the_one_that_is_alone_is_told(contrary):
    sdata = contrary(spot_diameter_fullres=15.0)
    set_transformation(sdata["he"], scaled(MPP), "um")
    with pytest.warns(UserWarning, match=r"2.5 from transformation to 'um', but 1.* the first is taken, which"):
        assert pixel_size(sdata, "he").mpp == MPP


def test_sources_that_agree_to_3_percent_are_one(contrary):
    sdata = contrary(spot_diameter_fullres=65 / UNIT_UM * 1.029)
    assert pixel_size(sdata, "he").mpp == pytest.approx(MPP)


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, "wide", None])
@pytest.mark.parametrize("name", ["spot_diameter_fullres", "microns_per_pixel"])
def test_a_scale_factor_that_is_no_length_is_told_and_left_out(contrary, name, value):
    sdata = contrary(**{name: value})
    with pytest.warns(UserWarning, match=rf"{name} in uns\['spatial'\] is .*; expected a positive number"):
        assert pixel_size(sdata, "he").mpp == pytest.approx(MPP)


def test_a_number_that_no_source_says_is_taken_and_doubted(printed):
    with pytest.warns(UserWarning, match="mpp=5 is taken for image 'he', and no source says so: 2.5 from Visium spot"):
        assert pixel_size(printed(), "he", mpp=5.0).mpp == 5


def test_two_systems_in_um_are_compared(printed):
    sdata = printed("st", 100)
    set_transformation(sdata["he"], scaled(2.0), "um")
    set_transformation(sdata["he"], scaled(2.0), "um-P1")
    assert pixel_size(sdata, "he").others == ()
    set_transformation(sdata["he"], scaled(1.0), "um-P2")
    with pytest.raises(BadInput, match="2 from transformation to 'um', but 1 from transformation to 'um-P2'"):
        pixel_size(sdata, "he")


@pytest.mark.parametrize("shared", [False, True])
def test_sections_joined_by_spatialdata_keep_their_own_pixel_size(printed, shared):
    from spatialdata import concatenate

    one, other = printed(), printed()
    for sdata, size in ((one, 1.0), (other, 2.0)):
        sdata["spots"]["radius"] *= 3
        set_transformation(sdata["he"], scaled(size), "um")
    both = concatenate({"P1": one, "P2": other}, merge_coordinate_systems_on_name=shared)
    assert pixel_size(both, "he-P1").mpp == 1 and pixel_size(both, "he-P2").mpp == 2


def test_nothing_is_changed(printed, digest):
    sdata = printed()
    before = digest(sdata)
    pixel_size(sdata, "he")
    pixel_size(sdata, "he", technology="visium")
    assert digest(sdata) == before
