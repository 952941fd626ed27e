from __future__ import annotations

import numpy as np
import pytest
import shapely
from geopandas import GeoDataFrame
from spatialdata import to_polygons
from spatialdata.transformations import Affine, Identity, Scale, Sequence, Translation, set_transformation

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section import read

SHEAR = Affine([[1, 0.1, 0], [0, 1, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))
SINGULAR = Affine([[1, 1, 0], [1, 1, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))


def scaled(x, y):
    return Scale([x, y], axes=("x", "y"))


@pytest.fixture
def sdata(planted):
    return planted.section()


# Names -------------------------------------------------------------------------------------------


def test_the_shapes_that_the_table_annotates_need_no_name(sdata, planted):
    sdata.shapes["a_region"] = planted.squares(planted.centers_um[:2])
    assert read.find_shapes(sdata, None, "table") == "spots"
    with pytest.raises(MissingKey, match="sdata has 2 shapes elements: 'spots', 'a_region'. Pass shapes_key="):
        read.find_shapes(sdata, None, None)
    with pytest.raises(MissingKey, match="no shapes 'cells'; sdata has 'spots', 'a_region'"):
        read.find_shapes(sdata, "cells", "table")


def test_a_table_of_several_elements_does_not_choose_one(planted):
    sdata = planted.section()
    sdata.shapes["more"] = planted.circles(planted.centers_um)
    sdata.tables["table"] = planted.table([0, 1, 0, 1], ["spots", "spots", "more", "more"])
    with pytest.raises(MissingKey, match="table 'table' annotates 2 shapes elements: 'more', 'spots'"):
        read.find_shapes(sdata, None, "table")


def test_the_table_must_exist_and_annotate_the_shapes(sdata, planted):
    assert read.find_table(sdata, "table", "spots") is sdata.tables["table"]
    with pytest.raises(MissingKey, match="no table 'counts'; sdata has 'table'. Pass table_key="):
        read.find_table(sdata, "counts", "spots")
    sdata.shapes["more"] = planted.circles(planted.centers_um)
    with pytest.raises(MissingKey, match="table 'table' annotates 'spots', not shapes 'more'"):
        read.find_table(sdata, "table", "more")


# Transformations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("element", ["image 'he'", "shapes 'spots'"])
@pytest.mark.parametrize(
    ("transformation", "message"),
    [
        (scaled(np.nan, 1), "cannot be inverted"),
        (scaled(0, 1), "cannot be inverted"),
        (SINGULAR, "cannot be inverted"),
        (SHEAR, "is sheared, or scaled by"),
        (scaled(1, 1.1), "scaled by 1.1 and 1 along two directions.*(pp.straighten|spatialdata.transform)"),
    ],
)
def test_transformations_that_are_no_similarity_are_refused(sdata, element, transformation, message):
    set_transformation(sdata["he" if "image" in element else "spots"], transformation, "um")
    with pytest.raises(BadInput, match=f"{element} in 'um'.*{message}"):
        read.geometry(sdata, "he", "spots", None)


def test_a_chain_of_transformations_is_one(sdata):
    chain = Sequence([scaled(2, 2), Translation([30, 10], axes=("x", "y"))])
    set_transformation(sdata["spots"], chain, "um")
    place = read.geometry(sdata, "he", "spots", None)
    np.testing.assert_allclose(read.apply(place.to_image, np.array([[1.0, 2.0]])), [[32, 14]])


def test_elements_that_share_no_system_are_named_with_the_systems_they_have(sdata):
    set_transformation(sdata["spots"], {"elsewhere": Identity()}, set_all=True)
    with pytest.raises(BadInput, match=r"image 'he' \('um'\) and shapes 'spots' \('elsewhere'\) share no coordinate"):
        read.geometry(sdata, "he", "spots", None)
    with pytest.raises(MissingKey, match="do not meet in 'um': the image has 'um', the shapes have 'elsewhere'"):
        read.geometry(sdata, "he", "spots", "um")


def test_systems_that_disagree_must_be_chosen_from(sdata):
    for name, size in {"aligned": 2, "global": 1}.items():
        set_transformation(sdata["spots"], scaled(size, size), name)
        set_transformation(sdata["he"], Identity(), name)
    with pytest.raises(MissingKey, match="'global' and '.*' place shapes 'spots' differently on image 'he'"):
        read.geometry(sdata, "he", "spots", None)
    aligned = read.geometry(sdata, "he", "spots", "aligned")
    assert aligned.coordinate_system == "aligned"
    np.testing.assert_allclose(aligned.to_image, np.diag([2, 2, 1]))


def test_systems_that_turn_image_and_shapes_together_are_not_the_same(sdata, planted):
    turned = planted.affine(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]))
    for element in ("he", "spots"):
        set_transformation(sdata[element], turned, "turned")
    with pytest.raises(MissingKey, match="'turned' and 'um' place shapes|'um' and 'turned' place shapes"):
        read.geometry(sdata, "he", "spots", None)
    np.testing.assert_allclose(read.geometry(sdata, "he", "spots", "turned").axes, [[0, 1], [-1, 0]], atol=1e-12)


def test_systems_that_agree_need_no_choice_and_global_comes_first(sdata):
    for name in ("another", "global"):
        for element in ("he", "spots"):
            set_transformation(sdata[element], Identity(), name)
    assert read.geometry(sdata, "he", "spots", None).coordinate_system == "global"


# Centers -----------------------------------------------------------------------------------------


def test_circles_and_squares_have_the_same_centers_and_sizes(planted):
    circles, squares = planted.circles(planted.centers_um, 5), planted.squares(planted.centers_um, 10)
    np.testing.assert_allclose(read.centers(circles, "a"), read.centers(squares, "b"))
    np.testing.assert_allclose(read.sizes(circles), read.sizes(squares))


def test_polygons_that_were_made_of_circles_have_the_size_of_their_area(planted):
    circles = planted.circles(planted.centers_um, 5)
    found = to_polygons(circles)
    assert "radius" in found
    np.testing.assert_allclose(read.centers(found, "a"), read.centers(circles, "b"), atol=1e-9)
    np.testing.assert_allclose(read.sizes(found), 5 * np.sqrt(np.pi), rtol=0.01)


def broken(planted, kind):
    shapes = planted.circles(planted.centers_um).astype({"radius": float})
    if kind == "radius":
        shapes.loc[[3], "radius"] = np.nan
    elif kind == "duplicate":
        shapes.index = [0, 1, 2, 3, 3, 5, 6, 7]
    elif kind == "no rows":
        shapes = shapes.iloc[:0]
    else:
        places = {
            "nan": shapely.Point(np.nan, 5),
            "inf": shapely.Point(5, np.inf),
            "none": None,
            "empty": shapely.Point(),
        }
        geometry = [places[kind] if i == 3 else point for i, point in enumerate(shapes.geometry)]
        shapes = GeoDataFrame({"radius": np.ones(len(shapes))}, geometry=geometry)
    return shapes


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "has 1 .*: '3'"),
        ("inf", "has 1 rows with NaN or infinite coordinates or radii: '3'"),
        ("radius", "has 1 rows with NaN or infinite coordinates or radii: '3'"),
        ("none", "has 1 empty geometries: '3'"),
        ("empty", "has 1 empty geometries: '3'"),
        ("duplicate", "has duplicate ids: '3'. Make its index unique"),
        ("no rows", "has 0 rows; expected at least one"),
    ],
)
def test_shapes_without_a_place_are_named(planted, kind, message):
    with pytest.raises(BadInput, match=f"shapes 'spots' {message}"):
        read.centers(broken(planted, kind), "spots")


# Counts ------------------------------------------------------------------------------------------


def test_rows_of_a_table_find_their_shapes_in_any_order(planted):
    table, shapes = planted.table([5, 2, 7]), planted.circles(planted.centers_um)
    rows, where = read.rows_of(table, shapes.index, "spots", "table")
    assert rows.tolist() == [0, 1, 2]
    assert where.tolist() == [5, 2, 7]


def test_rows_of_other_regions_are_left_out(planted):
    table = planted.table([0, 1, 0, 1], ["a", "b", "b", "a"])
    shapes = planted.circles(planted.centers_um)
    assert [part.tolist() for part in read.rows_of(table, shapes.index, "b", "table")] == [[1, 2], [1, 0]]
    with pytest.raises(BadInput, match="no row of obs.'region'. says so: it has 'a', 'b'"):
        read.rows_of(table, shapes.index, "c", "table")


def test_ids_of_another_type_are_shown_beside_each_other(planted):
    table, shapes = planted.table(["0", "1"]), planted.circles(planted.centers_um)
    with pytest.raises(BadInput, match="2 of 2 values of 'spot_id' are not in 'spots'.*int64.*same type"):
        read.rows_of(table, shapes.index, "spots", "table")


def test_ids_that_are_not_in_the_shapes_are_named(planted):
    table, shapes = planted.table([0, 1, 99]), planted.circles(planted.centers_um)
    with pytest.raises(BadInput, match="1 of 3 values of 'spot_id' are not in 'spots' .table: '99'"):
        read.rows_of(table, shapes.index, "spots", "table")


def test_a_shape_annotated_twice_is_named(planted):
    table, shapes = planted.table([0, 1, 2]), planted.circles(planted.centers_um)
    table.obs["spot_id"] = [0, 2, 2]
    with pytest.raises(BadInput, match="annotates the same shape more than once: '2'"):
        read.rows_of(table, shapes.index, "spots", "table")
