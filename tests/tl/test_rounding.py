"""The same spots written in another way give the same folds, crops and numbers."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
import spatialdata
from spatialdata.models import ShapesModel
from spatialdata.transformations import Sequence, Translation, get_transformation

import sq_imputer as sqi
from sq_imputer.section.slide import Slide

CONFIG = {"size_px": 32, "context_um": ()}


def with_shapes(section, xy, radius, square=False, transformations=None):
    """The section with its spots written anew, as circles or as squares."""
    old = section.shapes["spots"]
    transformations = transformations or get_transformation(old, get_all=True)
    points = shapely.points(xy)
    if square:
        x, y = xy.T
        points = shapely.box(x - radius, y - radius, x + radius, y + radius)
    frame = gpd.GeoDataFrame({} if square else {"radius": radius}, geometry=points, index=old.index)
    shapes = {"spots": ShapesModel.parse(frame, transformations=transformations)}
    tables = {"table": section.tables["table"].copy()}
    return spatialdata.SpatialData(images=dict(section.images), shapes=shapes, tables=tables)


def shifted(section, xy, radius):
    """Coordinates with another origin, and transformations that bring them back."""
    by = np.array([1000 / 3, 2e5 / 7])
    back = Translation(-by, axes=("x", "y"))
    old = get_transformation(section.shapes["spots"], get_all=True)
    return with_shapes(section, xy + by, radius, transformations={k: Sequence([back, t]) for k, t in old.items()})


def nudged(xy):
    """Places moved by a thousandth of a pixel of .75 µm."""
    return xy + np.random.default_rng(0).choice([-1e-3, 1e-3], xy.shape)


def resaved(section, xy, radius, path):
    with_shapes(section, xy, radius, square=True).write(path / "again.zarr")
    return spatialdata.read_zarr(path / "again.zarr")


WRITTEN = {
    "squares": lambda s, xy, r, path: with_shapes(s, xy, r, square=True),
    "float32": lambda s, xy, r, path: with_shapes(s, xy.astype(np.float32).astype(float), r),
    "moved by 1e-4 px": lambda s, xy, r, path: with_shapes(
        s, xy + np.random.default_rng(0).choice([-1e-4, 1e-4], xy.shape), r
    ),
    "another origin": lambda s, xy, r, path: shifted(s, xy, r),
    "re-saved squares": resaved,
}


@pytest.fixture(scope="module")
def as_circles():
    """Spots on a lattice of which many are at whole and half pixels, and their prediction."""
    (section,) = sqi.datasets.toy(1, spots=80).values()
    spots = section.shapes["spots"]
    xy = np.round(2 * np.column_stack([spots.geometry.x, spots.geometry.y])) / 2
    made = with_shapes(section, xy, spots["radius"].to_numpy())
    return made, xy, spots["radius"].to_numpy(), predicted(made)


def predicted(section):
    sqi.tl.predict(section, model="ridge", genes=10, config=CONFIG, key_added="p")
    table = section.tables["p"]
    return table.obs["ridge_fold"].to_numpy(), table.layers["ridge"], table.layers["ridge_std"]


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_folds_and_numbers_do_not_hang_on_how_places_are_written(as_circles, write, tmp_path):
    section, xy, radius, (fold, mean, std) = as_circles
    again = predicted(write(section, xy, radius, tmp_path))
    np.testing.assert_array_equal(again[0], fold)
    np.testing.assert_allclose(again[1], mean, atol=1e-4)
    np.testing.assert_allclose(again[2], std, atol=1e-4)


@pytest.mark.parametrize("spec", [sqi.CropSpec(150, 200), sqi.CropSpec(150, 100), sqi.CropSpec(150, 32)])
@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_crops_of_whole_pixels_and_resampled_ones_stay_where_they_are(as_circles, write, spec, tmp_path):
    section, xy, radius, _ = as_circles
    crops, again = (
        Slide.from_sdata(one).crops(spec)[:80].astype(int) for one in (section, write(section, xy, radius, tmp_path))
    )
    assert np.abs(crops - again).max() <= (1 if spec.size_px == 32 else 0)
