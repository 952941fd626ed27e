from __future__ import annotations

import numpy as np
import pytest
import spatialdata
from spatialdata.transformations import get_transformation

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.section.frame import read_frame
from sq_imputer.section.outlined import on_outlined
from sq_imputer.section.tissue import covers, tissue


def test_the_mask_lies_in_the_object_where_it_was_found(section, digest):
    before = digest(section)
    assert sqi.pp.tissue(section) is None
    assert digest(section, without=("tissue",)) == before
    labels = section.labels["tissue"]
    assert labels.dims == ("y", "x") and set(np.unique(np.asarray(labels.data))) == {0, 1}
    systems = (get_transformation(section[name], get_all=True) for name in ("he", "tissue"))
    assert len({frozenset(found) for found in systems}) == 1
    frame = read_frame(section)
    mask, extent = tissue(frame)
    points = np.random.default_rng(0).uniform(*frame.box_um, (500, 2))
    on = on_outlined(section, "tissue", "he", frame, points)
    np.testing.assert_array_equal(on, covers(mask, extent, points))
    assert 0.1 < on.mean() < 1


def test_a_grid_on_the_mask_is_the_grid_that_is_made_without_it(section):
    sqi.pp.tissue(section, key_added="mine")
    sqi.pp.grid(section, spacing_um=60)
    sqi.pp.grid(section, spacing_um=60, tissue_key="mine", key_added="again")
    assert section.shapes["grid"].geometry.geom_equals_exact(section.shapes["again"].geometry, 1e-9).all()


def test_a_store_gets_the_mask_at_once(stored):
    sqi.pp.tissue(stored)
    there = spatialdata.read_zarr(stored.path)
    np.testing.assert_array_equal(there.labels["tissue"].data, stored.labels["tissue"].data)


def test_a_taken_name_is_refused_unless_it_may_be_replaced(section):
    sqi.pp.tissue(section)
    with pytest.raises(BadInput, match="'tissue' is taken; labels in use: .*'tissue'"):
        sqi.pp.tissue(section)
    sqi.pp.tissue(section, overwrite=True)
