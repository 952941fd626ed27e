"""Instances of a segmentation mask are rows, at their centroids, with their areas."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Identity, set_transformation

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.runs.joined import restore
from sq_imputer.section.labels import circles_of
from sq_imputer.section.slide import Slide

CONFIG = {"size_px": 32, "context_um": ()}


def mask(rng, n: int = 30, side: int = 200) -> np.ndarray:
    """Blobs of many shapes: every pixel has the label of the nearest of some points, or none."""
    points = rng.uniform(0, side, (n, 2))
    y, x = np.mgrid[:side, :side] + 0.5
    far = np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1])
    return np.where(far.min(axis=-1) < 18, 3 * far.argmin(axis=-1) + 5, 0).astype(np.int32)


@pytest.mark.parametrize("chunks", [(200, 200), (64, 51), (7, 200)])
def test_centroids_and_areas_are_those_of_all_pixels(chunks):
    pixels = mask(np.random.default_rng(0))
    element = Labels2DModel.parse(da.from_array(pixels, chunks=chunks), dims=("y", "x"))
    found = circles_of(element, "cells")
    assert found.index.tolist() == sorted(set(np.unique(pixels)) - {0})
    for label, point, radius in zip(found.index, found.geometry, found["radius"], strict=True):
        y, x = np.nonzero(pixels == label)
        np.testing.assert_allclose([point.x, point.y], [x.mean() + 0.5, y.mean() + 0.5])
        np.testing.assert_allclose(np.pi * radius**2, len(x))


def test_of_several_levels_the_finest_is_read_and_chunk_by_chunk():
    pixels, read = mask(np.random.default_rng(1)), []

    def seen(block):
        read.append(block.shape)
        return block

    lazy = da.from_array(pixels, chunks=50).map_blocks(seen, dtype=pixels.dtype, meta=pixels[:0, :0])
    flat = circles_of(Labels2DModel.parse(lazy, dims=("y", "x")), "cells")
    assert len(read) == 16 and max(read) == (50, 50)
    tree = circles_of(Labels2DModel.parse(pixels, dims=("y", "x"), scale_factors=[2, 2]), "cells")
    assert tree.index.equals(flat.index) and np.allclose(tree["radius"], flat["radius"])


def test_what_has_no_instance_is_refused():
    nothing = Labels2DModel.parse(np.zeros((20, 20), np.int32), dims=("y", "x"))
    with pytest.raises(BadInput, match="labels 'cells' has no instance: all of its pixels are 0"):
        circles_of(nothing, "cells")


@pytest.fixture
def labeled(section):
    """Toy tissue whose table annotates a mask instead of the circles that it is of, and the same with circles."""
    circles = section
    image, spots = circles.images["he"], circles.shapes["spots"]
    level = next(iter(image["scale0"].ds.data_vars.values()))
    there = sd.transform(spots, to_coordinate_system="um")
    to_px = np.linalg.inv(sd.transformations.get_transformation(image, "um").to_affine_matrix(("x", "y"), ("x", "y")))
    xy = np.column_stack([there.geometry.x, there.geometry.y]) @ to_px[:2, :2].T + to_px[:2, 2]
    pixels = np.zeros(level.shape[1:], np.int32)
    for number, (x, y) in enumerate(xy.astype(int), 1):
        pixels[max(y - 15, 0) : y + 15, max(x - 15, 0) : x + 15] = number
    pixels[:6, :6] = 1000  # a cell that the table does not have
    table = circles.tables["table"].copy()
    table.obs["region"] = "cells"
    table.obs["region"] = table.obs["region"].astype("category")
    table.obs["spot_id"] = np.arange(1, table.n_obs + 1)
    table.uns["spatialdata_attrs"]["region"] = "cells"
    cells = Labels2DModel.parse(pixels, dims=("y", "x"), scale_factors=[2])
    cells = Labels2DModel.parse(pixels, dims=("y", "x"))
    for name, transformation in sd.transformations.get_transformation(image, get_all=True).items():
        set_transformation(cells, transformation, name)
    return sd.SpatialData(images={"he": image}, labels={"cells": cells}, tables={"table": table}), circles


def test_labels_are_predicted_as_the_circles_that_they_are_of(labeled, tmp_path, small_ridge):
    sdata, circles = labeled
    slide, spots = Slide.from_sdata(sdata), Slide.from_sdata(circles)
    assert slide.instances.tolist()[-1] == 1000 and not slide.measured[-1]
    assert slide.measured.sum() == spots.measured.sum() and slide.frame.pixel.mpp == spots.frame.pixel.mpp
    np.testing.assert_allclose(slide.xy_um[:-1], spots.xy_um, atol=2)
    sdata.write(tmp_path / "labels.zarr")
    sqi.tl.predict(sdata, "ridge", genes=10, config=CONFIG)
    sqi.tl.predict(circles, "ridge", genes=10, config=CONFIG)
    found, expected = sdata.tables["imputed"], circles.tables["imputed"]
    assert found.uns["spatialdata_attrs"]["region"] == "cells" and found.n_obs == expected.n_obs + 1
    assert np.corrcoef(found.layers["ridge"][:-1].ravel(), expected.layers["ridge"].ravel())[0, 1] > 0.97
    known = found.uns["sq_imputer"]
    restore(sdata, "imputed")
    assert found.uns["sq_imputer"] is known  # nothing was joined since
    back = sd.read_zarr(tmp_path / "labels.zarr")
    table, joined = sd.join_spatialelement_table(
        sdata=back, spatial_element_names="cells", table_name="imputed", how="left"
    )
    assert table is not None and joined.n_obs == found.n_obs
    scores = sqi.tl.score(back)
    assert {"ridge", "mean"} <= set(scores["predictor"])


def test_domains_and_pictures_of_labels(labeled, tmp_path):
    import matplotlib.pyplot as plt

    sdata, _ = labeled
    sqi.tl.predict(sdata, "ridge", genes=10, config=CONFIG, output_path=tmp_path / "result.zarr")
    assert "cells" in sd.read_zarr(tmp_path / "result.zarr").labels
    with pytest.warns(UserWarning, match="fold"):
        sqi.tl.domains(sdata, method="kmeans", n_domains=3, shapes_added="regions")
    assert len(sdata.shapes["regions"]) == 3
    sqi.pl.compare(sdata, genes=list(sdata.tables["imputed"].var_names[:1]))
    sqi.pl.domains(sdata)
    plt.close("all")


def test_where_labels_are_predicted_there_may_be_others(labeled):
    sdata, _ = labeled
    sdata.labels["mask"] = Labels2DModel.parse(
        np.ones((50, 50), np.int32), dims=("y", "x"), transformations={"um": Identity()}
    )
    assert Slide.from_sdata(sdata).keys["shapes_key"] == "cells"
    with pytest.raises(sqi.MissingKey, match="no shapes 'cell'; sdata has .*, and labels 'cells', 'mask'"):
        Slide.from_sdata(sdata, shapes_key="cell")
