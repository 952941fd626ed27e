from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from anndata.io import read_elem, write_elem

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.store import parts
from sq_imputer.store.disk import link_others

NAMES, GENES = list("abc"), list("xy")


@pytest.fixture
def table():
    frame = pd.DataFrame({"kept": [1, 2, 3], "kind": pd.Categorical(["u", "v", "u"])}, index=NAMES)
    uns = {"sq_imputer": {"one": {"seed": 1}, "two": {"seed": 2}}, "text": "old"}
    return AnnData(np.zeros((3, 2), "float32"), frame, pd.DataFrame(index=GENES), uns=uns)


def changes() -> dict:
    return {
        "layers": {"new": np.ones((3, 2))},
        "obs": pd.DataFrame({"kind": [7.0, 8.0, 9.0], "added": pd.Categorical(["p", "q", "p"])}, index=NAMES),
        "var": pd.DataFrame({"score": [0.1, 0.2]}, index=GENES),
        "obsm": {"e": np.arange(6.0).reshape(3, 2)},
        "uns": {"sq_imputer": {"two": {"seed": 5}, "three": {"seed": 3}}, "text": "new", "more": {"a": {"b": 1}}},
        "x": "new",
    }


def test_parts_are_told_and_nothing_is_changed(table):
    found = parts.parts_of(table, **changes())
    assert set(found) == {"layers/new", "obs", "var", "obsm/e", "uns/sq_imputer", "uns/text", "uns/more", "X"}
    assert found["layers/new"].dtype == np.float32
    assert list(table.obs) == ["kept", "kind"] and not table.layers and table.uns["text"] == "old"
    assert found["uns/sq_imputer"] == {"one": {"seed": 1}, "two": {"seed": 5}, "three": {"seed": 3}}


@pytest.mark.parametrize(
    ("change", "error"), [({"layers": {"a": np.zeros((3, 3))}}, BadInput), ({"layers": {}, "x": "none"}, MissingKey)]
)
def test_parts_that_do_not_fit_are_refused(table, change, error):
    nothing = {"layers": {}, "obs": None, "var": None, "obsm": None, "uns": None, "x": None}
    with pytest.raises(error):
        parts.parts_of(table, **{**nothing, **change})


def test_a_table_completed_on_disk_is_the_one_in_memory(table, tmp_path):
    import zarr

    write_elem(zarr.open_group(tmp_path, mode="w", zarr_format=3), "stored", table)
    change = changes()
    memory = parts.parts_of(table, **change)
    small = parts.stored_parts(table, memory, change["obs"], change["var"], change["uns"])
    names = parts.write_parts(zarr.open_group(tmp_path / "new", mode="w", zarr_format=3), small)
    assert "uns/sq_imputer/one" not in names and "obs/kept" not in names
    link_others(tmp_path / "stored", tmp_path / "new", frozenset(names))
    parts.list_columns(tmp_path / "new", names)
    parts.apply(table, memory)
    read = read_elem(zarr.open_group(tmp_path / "new", mode="r"))
    pd.testing.assert_frame_equal(read.obs, table.obs)
    pd.testing.assert_frame_equal(read.var, table.var)
    assert list(read.obs) == ["kept", "kind", "added"]
    np.testing.assert_array_equal(read.X, table.X)
    np.testing.assert_array_equal(read.layers["new"], table.layers["new"])
    np.testing.assert_array_equal(read.obsm["e"], table.obsm["e"])
    assert read.uns == table.uns


def test_other_rows_than_those_stored_are_refused(table, tmp_path):
    import zarr

    write_elem(zarr.open_group(tmp_path, mode="w", zarr_format=3), "stored", table)
    parts.check_stored_names(tmp_path / "stored", table, "imputed")
    with pytest.raises(BadInput, match=r"table 'imputed' has other obs_names \(3\) than its copy in the store \(3\)"):
        parts.check_stored_names(tmp_path / "stored", table[::-1], "imputed")


def test_sizes_are_those_of_the_arrays(table):
    from scipy.sparse import csr_matrix
    from spatialdata.models import Image2DModel, ShapesModel

    table.layers["dense"] = np.zeros((3, 2), "float32")
    sparse = csr_matrix(np.eye(3))
    arrays = 2 * 24 + int(table.obs.memory_usage().sum() + table.var.memory_usage().sum())
    assert parts.nbytes_of([table]) == arrays
    assert parts.nbytes_of([sparse]) == sparse.data.nbytes + sparse.indices.nbytes + sparse.indptr.nbytes
    image = Image2DModel.parse(np.zeros((3, 64, 64), np.uint8), dims=("c", "y", "x"))
    pyramid = Image2DModel.parse(np.zeros((3, 64, 64), np.uint8), dims=("c", "y", "x"), scale_factors=[2])
    assert 3 * 64 * 64 <= parts.nbytes_of([image]) < 3.5 * 64 * 64  # with its coordinates
    assert 3 * 64 * 64 * 5 / 4 <= parts.nbytes_of([pyramid]) < 3.5 * 64 * 64 * 5 / 4
    circles = ShapesModel.parse(np.zeros((100, 2)), geometry=0, radius=1.0)
    assert parts.nbytes_of([circles]) >= 100 * (16 + 8)
    assert parts.nbytes_of([None, {"a": 1}, "text"]) == 0


def test_zarr_changes_no_file_in_place(tmp_path):
    """What a new version shares with the old one by hard links stays as it was."""
    group = zarr.create_group(tmp_path / "table")
    array = group.create_array("x", shape=(4,), chunks=(4,), dtype="int32")
    array[...] = 1
    files = {path: path.read_bytes() for path in (tmp_path / "table").rglob("*") if path.is_file()}
    for number, path in enumerate(files):
        os.link(path, tmp_path / f"link{number}")
    array[...] = 2
    array[1:3] = 3
    array.attrs["a"] = group.attrs["a"] = 1
    for number, (path, content) in enumerate(files.items()):
        assert (tmp_path / f"link{number}").read_bytes() == content != path.read_bytes()
