from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Identity, Scale, Translation

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.frame import read_frame
from sq_imputer.section.outlined import on_outlined

POINTS = np.array([[60.0, 30], [40, 30], [60, 50], [139, 39], [141, 39], [-10, 10], [1e5, 10]])
ON = [True, False, False, True, False, False, False]  # a box from (50, 20) to (140, 40) µm


@pytest.fixture
def outlined(planted):
    """An image of 2 µm per pixel, and the box in several forms."""

    def labels(values, transformation, **how):
        return Labels2DModel.parse(values, dims=("y", "x"), transformations={"um": transformation}, **how)

    mask = np.zeros((100, 200), np.uint8)
    mask[20:40, 50:140] = 3
    box = shapely.box(500, 200, 1400, 400)
    tenth = Scale([0.1, 0.1], axes=("x", "y"))
    frame = gpd.GeoDataFrame(geometry=[box, shapely.box(600, 250, 700, 300)])
    discs = ShapesModel.parse(
        np.array([[60.0, 30], [139, 39]]), geometry=0, radius=1.5, transformations={"um": Identity()}
    )
    return SpatialData(
        images={"he": planted.image(np.zeros((3, 60, 90), np.uint8), {"um": Scale([2, 2], axes=("x", "y"))})},
        labels={
            "mask": labels(mask, Identity()),
            "pyramid": labels(mask, Identity(), scale_factors=[2]),
            "part": labels(mask[20:40, 50:140], Translation([50, 20], axes=("x", "y"))),
            "elsewhere": Labels2DModel.parse(mask, dims=("y", "x")),
        },
        shapes={"outline": ShapesModel.parse(frame, transformations={"um": tenth}), "discs": discs},
    )


@pytest.mark.parametrize("key", ["mask", "pyramid", "part", "outline", "discs"])
def test_points_lie_on_what_the_user_drew(outlined, key):
    np.testing.assert_array_equal(on_outlined(outlined, key, "he", read_frame(outlined, "he"), POINTS), ON)


def test_an_element_that_is_not_there_or_not_placed_is_refused(outlined):
    frame = read_frame(outlined, "he")
    with pytest.raises(MissingKey, match="no labels or shapes 'tissue'; sdata has 'mask', .*pp.tissue"):
        on_outlined(outlined, "tissue", "he", frame, POINTS)
    with pytest.raises(BadInput, match=r"'elsewhere' \('global'\) and image 'he' \('um'\) share no coordinate system"):
        on_outlined(outlined, "elsewhere", "he", frame, POINTS)
