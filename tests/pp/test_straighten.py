from __future__ import annotations

import numpy as np
import pytest
import spatialdata
from spatialdata import SpatialData, get_extent
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Scale, get_transformation, set_transformation

import sq_imputer as sqi
from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pixels.crops import Crops
from sq_imputer.section import read
from sq_imputer.section.image import read_pyramid

XY = ("x", "y")
STRETCHED = [[1, 0, 10], [0, 2, 20], [0, 0, 1]]
SHEARED = [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]
ALL_AT_ONCE = [[-1.3, 0.2, 0], [0.1, 0.6, 5], [0, 0, 1]]


def affine(matrix) -> Affine:
    return Affine(np.array(matrix, float), XY, XY)


def dots(high=700, wide=760, radius=20) -> tuple[np.ndarray, np.ndarray]:
    """Dark nuclei with soft rims, at known places."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(*(np.arange(90, n - 90, 110.0) for n in (wide, high))), axis=-1).reshape(-1, 2)
    xy += rng.uniform(-10, 10, xy.shape)
    y, x = np.mgrid[:high, :wide] + 0.5
    away = np.min([np.hypot(x - a, y - b) for a, b in xy], axis=0)
    gray = np.rint(235 - 175 * np.clip(radius + 0.5 - away, 0, 1)).astype(np.uint8)
    return np.repeat(gray[None], 3, axis=0), xy


def of(pixels, matrix, factors=None, name="global") -> SpatialData:
    element = Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=factors,
        chunks=(3, 256, 256),
        transformations={name: affine(matrix)},
    )
    return SpatialData(images={"he": element})


@pytest.mark.parametrize("matrix", [STRETCHED, SHEARED, ALL_AT_ONCE])
@pytest.mark.parametrize("factors", [None, [2, 2]])
def test_tissue_stays_where_it_was_at_every_level(matrix, factors):
    pixels, xy = dots()
    sdata = of(pixels, matrix, factors)
    assert sqi.pp.straighten(sdata, "he") is None
    new = sdata.images["he_straight"]
    place = read.affine(new, "global")
    centers = read.apply(np.linalg.inv(place) @ np.array(matrix, float), xy)
    pyramid = read_pyramid(sdata, "he_straight")
    assert len(pyramid.levels) > 1
    longest, shortest = np.linalg.svd(np.array(matrix)[:2, :2])[1]
    for level, array in enumerate(pyramid.levels):
        size = 2 * int((22 * longest / shortest + 2) / 2**level) + 2
        crops = Crops(pyramid, centers, CropSpec(size * 1.02 * 2**level, size), mpp=1.0)
        dark = 235 - crops[:].astype(float).mean(axis=1)
        away = np.arange(size) - (size - 1) / 2
        off = [(dark.sum(axis=k) * away).sum(axis=1) / dark.sum(axis=(1, 2)) for k in (1, 2)]
        assert crops.level == level and array.shape[1] * 2**level == pyramid.shape[0]
        assert np.abs(np.mean(off, axis=1)).max() < 0.1


@pytest.mark.parametrize("matrix", [STRETCHED, SHEARED, ALL_AT_ONCE])
def test_the_extent_is_kept_and_pixels_are_square(matrix):
    pixels, _ = dots()
    sdata = of(pixels, matrix)
    sqi.pp.straighten(sdata, "he")
    old, new = (get_extent(sdata[name]) for name in ("he", "he_straight"))
    place = read.affine(sdata["he_straight"], "global")
    finest = np.linalg.svd(np.array(matrix)[:2, :2])[1].min()
    np.testing.assert_allclose(place[:2, :2], finest * np.eye(2), atol=1e-9)
    for axis in XY:
        assert old[axis][0] == pytest.approx(new[axis][0], abs=1e-6)
        assert 0 <= new[axis][1] - old[axis][1] + 1e-6 < 2.5 * finest  # a started pixel, and a multiple of 2


def test_no_pixel_is_read_before_it_is_looked_at():
    import dask.array as da

    def refuse(block):
        raise AssertionError("read")

    pixels = da.zeros((3, 2000, 3000), dtype=np.uint8, chunks=(3, 512, 512))
    pixels = pixels.map_blocks(refuse, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    sdata = of(pixels, STRETCHED)
    sqi.pp.straighten(sdata, "he")
    assert read_pyramid(sdata, "he_straight").shape == (4000, 3000)


def test_a_fine_checker_is_gray_on_coarser_pixels_and_levels():
    gray = (np.indices((600, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    sdata = of(np.repeat(gray[None], 3, axis=0), [[1, 0, 0], [0, 1.3, 0], [0, 0, 1]])
    sqi.pp.straighten(sdata, "he", pixel_size=3.0)
    sqi.pp.straighten(sdata, "he", key_added="fine")
    for level in (read_pyramid(sdata, "he_straight").levels[0], read_pyramid(sdata, "fine").levels[1]):
        inside = np.asarray(level)[0, 10:190, 10:190].astype(float)
        assert abs(inside.mean() - 127.5) < 1 and inside.std() < 20


def test_a_model_predicts_on_it_what_it_predicts_on_the_image_that_was_not_stretched(section):
    pixels = np.asarray(section.images["he"]["scale0"]["image"].data)
    wide = np.repeat(pixels, 2, axis=2)
    systems = get_transformation(section.images["he"], get_all=True)
    narrow = {name: affine(place.to_affine_matrix(XY, XY) @ np.diag([0.5, 1, 1])) for name, place in systems.items()}
    section.images["wide"] = Image2DModel.parse(
        wide, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=narrow
    )
    how = {"genes": 12, "n_folds": 2, "config": {"size_px": 64, "context_um": ()}, "progress": False}
    with pytest.raises(BadInput, match=r"pp.straighten\(sdata, 'wide', .*image_key='wide_straight'"):
        sqi.tl.predict(section, "ridge", image_key="wide", **how)
    sqi.pp.straighten(section, "wide", coordinate_system="um")
    said = {}
    for name in ("he", "wide_straight"):
        sqi.tl.predict(section, "ridge", image_key=name, key_added=f"of_{name}", **how)
        said[name] = section.tables[f"of_{name}"].layers["ridge"]
    assert np.abs(said["he"] - said["wide_straight"]).max() < 0.02 * said["he"].std(axis=0).mean()


def test_a_store_gets_it_whole_and_the_object_reads_it_from_there(tmp_path):
    pixels, _ = dots()
    of(pixels, SHEARED).write(tmp_path / "s.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "s.zarr")
    sqi.pp.straighten(sdata)
    there = spatialdata.read_zarr(tmp_path / "s.zarr")
    alone = of(pixels, SHEARED)
    sqi.pp.straighten(alone)
    for one, other in zip(*(read_pyramid(s, "he_straight").levels for s in (there, alone)), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(BadInput, match="'he_straight' is taken"):
        sqi.pp.straighten(sdata, "he")
    sqi.pp.straighten(sdata, "he", pixel_size=2.0, overwrite=True)
    assert read_pyramid(sdata, "he_straight").shape < read_pyramid(there, "he_straight").shape


def test_all_coordinate_systems_keep_their_place():
    pixels, _ = dots()
    sdata = of(pixels, STRETCHED)
    set_transformation(sdata["he"], Scale([0.5, 1.0], axes=XY), "um")
    sqi.pp.straighten(sdata, "he")
    old, new = ({n: read.affine(sdata[k], n) for n in ("global", "um")} for k in ("he", "he_straight"))
    across = [np.linalg.inv(new[name]) @ old[name] for name in old]
    np.testing.assert_allclose(*across, atol=1e-9)


def test_what_is_straight_or_not_to_be_told_is_refused(digest):
    pixels, _ = dots()
    sdata = of(pixels, [[0, -2, 0], [2, 0, 0], [0, 0, 1]])
    before = digest(sdata)
    with pytest.raises(BadInput, match="image 'he' is straight in 'global'; use it as it is"):
        sqi.pp.straighten(sdata, "he")
    with pytest.raises(MissingKey, match="image 'he' is not in 'um'; it is in 'global'"):
        sqi.pp.straighten(sdata, "he", coordinate_system="um")
    assert digest(sdata) == before
    bent = of(pixels, STRETCHED, name="a")
    set_transformation(bent["he"], Scale([1.0, 3.0], axes=XY), "b")
    with pytest.raises(MissingKey, match="stretched in 'a', 'b'. Pass coordinate_system="):
        sqi.pp.straighten(bent)
    for wrong, message in ((0, "positive length"), (1e-6, "larger pixel_size"), ("1", "pixel_size")):
        with pytest.raises(BadInput, match=message):
            sqi.pp.straighten(bent, coordinate_system="a", pixel_size=wrong)
    set_transformation(bent["he"], Scale([1.0, 0.0], axes=XY), "a")
    with pytest.raises(BadInput, match="cannot be inverted"):
        sqi.pp.straighten(bent, coordinate_system="a")


def test_stretched_shapes_are_moved_as_the_error_says(section):
    spots = section.shapes["spots"]
    xy = np.column_stack([spots.geometry.x, spots.geometry.y])
    squares = spatialdata.models.ShapesModel.parse(spots.assign(geometry=spots.buffer(20)).drop(columns="radius"))
    squares["geometry"] = squares.geometry.affine_transform([2, 0, 0, 1, 0, 0])
    set_transformation(squares, affine(np.diag([0.5, 1, 1])), "global")
    section.shapes["spots"] = squares
    with pytest.raises(BadInput, match="shapes 'spots' in 'global'.*Move the shapes themselves: ") as told:
        sqi.Slide.from_sdata(section, coordinate_system="global", mpp=1.25)
    advice = str(told.value).split("Move the shapes themselves: ")[1].rstrip(".")
    exec(advice, {"sdata": section, "spatialdata": spatialdata})
    slide = sqi.Slide.from_sdata(section, coordinate_system="global", mpp=1.25)
    np.testing.assert_allclose(slide.centers_px, xy, atol=1e-6)
