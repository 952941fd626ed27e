from __future__ import annotations

import numpy as np
import pytest
import spatialdata
from fixtures_of_verbs import *  # noqa: F403
from geopandas import GeoDataFrame
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

import sq_imputer as sqi
from sq_imputer.section import opened, read


@pytest.fixture
def store(section, tmp_path):
    """A store with circles, and polygons of the same places that are called otherwise."""
    spots = section["spots"]
    outlines = GeoDataFrame(geometry=spots.buffer(5).to_numpy(), index=[f"c{i}" for i in range(len(spots))])
    section["cells"] = ShapesModel.parse(outlines, transformations=get_transformation(spots, get_all=True))
    section.write(tmp_path / "section.zarr")
    return tmp_path / "section.zarr"


def test_shapes_come_as_centers_and_sizes(store, monkeypatch) -> None:
    monkeypatch.setattr(opened, "ROWS", 20)
    some = sqi.io.read_zarr(store, elements=["he", "cells", "spots"])
    whole = spatialdata.read_zarr(store)
    assert list(some.tables) == [] and list(some.labels) == [] and some.path == store
    for name in ("cells", "spots"):
        assert some[name].index.equals(whole[name].index)
        np.testing.assert_allclose(read.centers(some[name], name), read.centers(whole[name], name))
        np.testing.assert_allclose(read.sizes(some[name]), read.sizes(whole[name]))
        assert get_transformation(some[name], get_all=True) == get_transformation(whole[name], get_all=True)
    with pytest.raises(sqi.MissingKey, match="no element 'bins'.*it has"):
        sqi.io.read_zarr(store, elements=["he", "bins"])


def test_a_path_is_predicted_without_what_is_not_needed(store, spy, genes, monkeypatch) -> None:
    decoded, circles = [], opened.circles
    monkeypatch.setattr(opened, "circles", lambda folder: decoded.append(folder.name) or circles(folder))
    sqi.tl.predict(store, "spy", genes=genes, n_folds=3)
    assert decoded == ["spots"]
    written = spatialdata.read_zarr(store).tables["imputed"]
    whole = spatialdata.read_zarr(store)
    sqi.tl.predict(whole, "spy", genes=genes, n_folds=3, key_added="again")
    np.testing.assert_allclose(written.layers["spy"], whole.tables["again"].layers["spy"], rtol=1e-5)


def test_shapes_of_an_earlier_prediction_are_not_read_again(store, spy, genes, monkeypatch) -> None:
    decoded, circles = [], opened.circles
    monkeypatch.setattr(opened, "circles", lambda folder: decoded.append(folder.name) or circles(folder))
    sqi.tl.predict(store, "spy", shapes_key="cells", genes=genes, key_added="of_cells")
    assert sorted(decoded) == ["cells", "spots"]
    decoded.clear()
    sqi.tl.predict(store, "spy", shapes_key="spots", genes=genes, n_folds=3)
    assert decoded == ["spots"]
