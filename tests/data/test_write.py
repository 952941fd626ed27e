from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel

from sq_imputer.data.write import check_free, commit, new_table, put_layers, stream_layer, write_element
from sq_imputer.errors import BadInput, MissingKey

N, G = 1200, 5
GENES = [f"g{i}" for i in range(G)]
NAMES = [f"s{i}" for i in range(N)]


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1, size=(N, G)).astype("float32")


def table(x=None, **kwargs):
    x = values() if x is None else x
    return new_table(x, NAMES, GENES, region="spots", instance_key="spot_id", instances=np.arange(N), **kwargs)


def circles():
    xy = np.random.default_rng(1).uniform(0, 60, (N, 2))
    return ShapesModel.parse(xy, geometry=0, radius=2.0, index=pd.RangeIndex(N))


@pytest.fixture(params=["memory", "backed"])
def sdata(request, tmp_path):
    image = np.random.default_rng(2).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    element = Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=list("rgb"), scale_factors=[2])
    sdata = SpatialData(images={"he": element}, shapes={"spots": circles()}, tables={"table": table()})
    if request.param == "memory":
        return sdata
    sdata.write(tmp_path / "section.zarr")
    return spatialdata.read_zarr(tmp_path / "section.zarr")


@pytest.fixture
def backed(tmp_path):
    sdata = SpatialData(shapes={"spots": circles()}, tables={"table": table()})
    sdata.write(tmp_path / "section.zarr")
    return sdata


def again(sdata):
    """The object as the next session sees it."""
    return spatialdata.read_zarr(sdata.path) if sdata.is_backed() else sdata


def files(sdata, *without: str) -> dict[str, str]:
    """Hash of every file of the store, but for the root's listing of it and the elements named."""
    if not sdata.is_backed():
        return {}
    paths = {str(path.relative_to(sdata.path)): path for path in sdata.path.rglob("*") if path.is_file()}
    kept = (name for name in paths if name != "zarr.json" and not name.startswith(without or "-"))
    return {name: hashlib.sha256(paths[name].read_bytes()).hexdigest() for name in kept}


def same(left, right) -> None:
    assert list(left.obs_names) == list(right.obs_names) and list(left.var_names) == list(right.var_names)
    pd.testing.assert_frame_equal(left.obs, right.obs)
    pd.testing.assert_frame_equal(left.var, right.var)
    np.testing.assert_array_equal(left.X, right.X)
    names = {name for name in left.layers if name is not None}
    assert names == {name for name in right.layers if name is not None}
    for name in names:
        np.testing.assert_array_equal(np.asarray(left.layers[name]), np.asarray(right.layers[name]))


class Break(Exception):
    pass


def test_a_new_table_annotates_its_shapes():
    made = table(obs=pd.DataFrame({"fold": 1}, index=NAMES), layers={"a": values()}, uns={"k": {"seed": np.int64(3)}})
    assert made.uns["spatialdata_attrs"] == {"region": "spots", "region_key": "region", "instance_key": "spot_id"}
    assert set(made.obs["region"]) == {"spots"}
    assert made.obs["spot_id"].tolist() == list(range(N))
    assert made.uns["k"] == {"seed": 3}
    assert (made.obs["fold"] == 1).all()


def test_a_new_table_refuses_rows_without_instances():
    with pytest.raises(BadInput, match="1200 rows but 3 instances in 'spots'"):
        new_table(values(), NAMES, GENES, region="spots", instance_key="spot_id", instances=[1, 2, 3])


def test_an_element_is_read_back_as_it_was_written_and_nothing_else_changes(sdata):
    before = files(sdata)
    made = table(values(1), layers={"stem": values(2)}, obsm={"X_texture": values(3)})
    write_element(sdata, "tables", "imputed", made)
    write_element(sdata, "shapes", "grid", circles())
    assert sdata.tables["imputed"] is made
    same(again(sdata).tables["imputed"], made)
    np.testing.assert_array_equal(again(sdata).tables["imputed"].obsm["X_texture"], values(3))
    assert len(again(sdata).shapes["grid"]) == N
    assert files(sdata, "tables/imputed", "shapes/grid") == before


def test_replacing_needs_to_be_asked_for_and_leaves_the_others_alone(sdata):
    before = files(sdata)
    write_element(sdata, "tables", "imputed", table(values(1)))
    with pytest.raises(BadInput, match=r"'imputed' is taken; tables in use: 'imputed', 'table'.*overwrite=True"):
        write_element(sdata, "tables", "imputed", table(values(2)))
    np.testing.assert_array_equal(again(sdata).tables["imputed"].X, values(1))
    write_element(sdata, "tables", "imputed", table(values(2)), overwrite=True)
    np.testing.assert_array_equal(again(sdata).tables["imputed"].X, values(2))
    assert files(sdata, "tables/imputed") == before


def test_an_image_made_of_itself_can_replace_itself(sdata):
    first = Image2DModel.parse(np.full((1, 8, 8), 3.0), dims=("c", "y", "x"))
    write_element(sdata, "images", "map", first)
    doubled = Image2DModel.parse(sdata.images["map"].data * 2, dims=("c", "y", "x"))
    write_element(sdata, "images", "map", doubled, overwrite=True)
    for image in (sdata.images["map"], again(sdata).images["map"]):
        assert (image.data.compute() == 6).all()


def test_the_first_table_of_a_store_brings_its_group(tmp_path):
    sdata = SpatialData(shapes={"spots": circles()})
    sdata.write(tmp_path / "bare.zarr")
    write_element(sdata, "tables", "imputed", table())
    same(again(sdata).tables["imputed"], table())


def test_a_store_without_consolidated_metadata_stays_so(tmp_path):
    sdata = SpatialData(shapes={"spots": circles()}, tables={"table": table()})
    sdata.write(tmp_path / "section.zarr", consolidate_metadata=False)
    write_element(sdata, "tables", "imputed", table())
    assert not sdata.has_consolidated_metadata()
    same(again(sdata).tables["imputed"], table())


@pytest.mark.parametrize("key", ["", ".", "..", "__x", "a/b", "a b", "x" * 201, 3])
def test_names_that_no_store_can_hold_are_refused(sdata, key):
    with pytest.raises(BadInput, match="Pass another key_added|200 or fewer"):
        check_free(sdata, "tables", key)


@pytest.mark.parametrize("key", ["spots", "Table"])
def test_a_name_is_unique_across_kinds_and_case(sdata, key):
    with pytest.raises(BadInput, match="Pass another key_added"):
        check_free(sdata, "tables", key, overwrite=True)


def test_a_name_that_only_the_store_has_is_taken(backed):
    partial = spatialdata.read_zarr(backed.path, selection=("shapes",))
    with pytest.raises(BadInput, match="'table' is taken"):
        check_free(partial, "tables", "table")


CHANGED = [f"tables/imputed/{part}" for part in ("X", "obs", "var", "uns")]


def test_results_are_added_to_a_table_and_only_they_are_written(sdata):
    write_element(
        sdata, "tables", "imputed", table(layers={"first": values(4)}, uns={"sq_imputer": {"first": {"seed": 1}}})
    )
    before = files(sdata, *CHANGED)
    put_layers(
        sdata,
        "imputed",
        {"stem": values(5), "stem_std": values(6)},
        obs=pd.DataFrame({"stem_ood": np.linspace(0, 1, N), "fold": np.arange(N) % 3}, index=NAMES),
        var=pd.DataFrame({"pearson": np.linspace(0, 1, G)}, index=GENES),
        obsm={"stem": values(7)},
        uns={"sq_imputer": {"stem": {"genes": GENES, "seed": 2, "weights": None}}},
        x="stem",
    )
    for seen in (sdata.tables["imputed"], again(sdata).tables["imputed"]):
        np.testing.assert_array_equal(seen.X, values(5))
        np.testing.assert_array_equal(seen.layers["stem"], values(5))
        np.testing.assert_array_equal(seen.layers["stem_std"], values(6))
        np.testing.assert_array_equal(seen.layers["first"], values(4))
        np.testing.assert_array_equal(seen.obsm["stem"], values(7))
        np.testing.assert_array_equal(seen.obs["fold"], np.arange(N) % 3)
        assert seen.obs["spot_id"].tolist() == list(range(N))
        assert seen.var["pearson"].iloc[-1] == 1
        assert set(seen.uns["sq_imputer"]) == {"first", "stem"}
        assert list(seen.uns["sq_imputer"]["stem"]["genes"]) == GENES
        assert "weights" not in seen.uns["sq_imputer"]["stem"]
    same(sdata.tables["imputed"], again(sdata).tables["imputed"])
    kept = files(sdata, *CHANGED)
    assert before == {name: digest for name, digest in kept.items() if name in before}


def test_x_does_not_share_memory_with_its_layer(sdata):
    put_layers(sdata, "table", {"stem": values(5)}, x="stem")
    sdata.tables["table"].X[:] = 0
    np.testing.assert_array_equal(sdata.tables["table"].layers["stem"], values(5))


def test_a_stored_layer_holds_whole_rows_per_chunk(backed):
    import zarr

    put_layers(backed, "table", {"stem": values(5)})
    assert zarr.open_array(backed.path / "tables/table/layers/stem").chunks == (512, G)


def test_a_table_that_is_in_memory_only_is_written_whole(backed):
    backed.tables["imputed"] = table(values(1))
    put_layers(backed, "imputed", {"stem": values(5)})
    same(again(backed).tables["imputed"], backed.tables["imputed"])
    assert "stem" in backed.tables["imputed"].layers


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"layers": {"a": np.zeros((N, 2))}}, BadInput, r"layer 'a' has shape \(1200, 2\); the table is \(1200, 5\)"),
        ({"layers": {}, "obsm": {"e": np.zeros((3, 2))}}, BadInput, "obsm 'e' has 3 rows"),
        ({"layers": {}, "obs": pd.DataFrame({"a": [1]}, index=["s0"])}, BadInput, "the table's 1200 obs_names"),
        ({"layers": {}, "x": "stem"}, MissingKey, "no layer 'stem'"),
    ],
)
def test_results_that_do_not_fit_change_nothing(sdata, call, error, message):
    before = files(sdata)
    with pytest.raises(error, match=message):
        put_layers(sdata, "table", **call)
    same(sdata.tables["table"], table())
    assert files(sdata) == before


def test_an_unknown_table_is_named(sdata):
    with pytest.raises(MissingKey, match="no table 'imputed'; the object has 'table'"):
        put_layers(sdata, "imputed", {})


def test_a_table_changed_in_memory_only_is_not_mixed_with_its_copy_in_the_store(backed):
    backed.tables["table"] = backed.tables["table"][:, ::-1].copy()
    with pytest.raises(BadInput, match="other var_names"):
        put_layers(backed, "table", {"stem": values(5)})


@pytest.mark.parametrize("order", ["in order", "shuffled"])
@pytest.mark.parametrize("batch", [64, 700])
def test_a_streamed_layer_equals_the_predictions(sdata, order, batch, monkeypatch):
    monkeypatch.setattr("sq_imputer.data.rows.OPEN_CHUNKS", 1)
    rows = np.arange(N) if order == "in order" else np.random.default_rng(0).permutation(N)
    parts = (rows[start : start + batch] for start in range(0, N, batch))
    stream_layer(sdata, "table", "stem", ((part, values(5)[part]) for part in parts))
    for seen in (sdata, again(sdata)):
        np.testing.assert_array_equal(np.asarray(seen.tables["table"].layers["stem"]), values(5))
        np.testing.assert_array_equal(seen.tables["table"].X, values())


def test_a_stream_that_leaves_rows_out_changes_nothing(sdata):
    before = files(sdata)
    with pytest.raises(BadInput, match="10 of 1200 rows; first missing: 10"):
        stream_layer(sdata, "table", "stem", iter([(slice(0, 10), values()[:10])]))
    same(sdata.tables["table"], table())
    assert files(sdata) == before


def fail_in_stream(sdata):
    def batches():
        yield slice(0, 600), values()[:600]
        raise Break

    stream_layer(sdata, "table", "stem", batches())


CONSOLIDATE = "spatialdata.SpatialData.write_consolidated_metadata"
WRITES = {
    "tables/table": lambda sdata: write_element(sdata, "tables", "table", table(values(9)), overwrite=True),
    "tables/imputed": lambda sdata: write_element(sdata, "tables", "imputed", table(values(9))),
    "tables/table/X": lambda sdata: put_layers(sdata, "table", {"a": values(9)}, x="a", uns={"sq_imputer": {"a": 1}}),
    "tables/table/layers/a": lambda sdata: stream_layer(sdata, "table", "a", [(slice(None), values(9))]),
}


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "broken", ["zarr.Array.__setitem__", "os.rename", "spatialdata.SpatialData.write_consolidated_metadata"]
)
def test_a_failed_write_leaves_object_and_store_as_they_were(backed, monkeypatch, path, broken):
    def fail(*args, **kwargs):
        raise Break

    def fail_to_move_in(source, target):
        if "new" in Path(source).parts and str(target).endswith(path):
            raise Break
        rename(source, target)

    before, rename = files(backed), os.rename
    with monkeypatch.context() as patch, pytest.raises(Break):
        patch.setattr(broken, fail_to_move_in if broken == "os.rename" else fail)
        WRITES[path](backed)
    same(backed.tables["table"], table())
    same(again(backed).tables["table"], table())
    assert files(backed) == before
    assert list(backed.tables) == ["table"]
    assert [folder.name for folder in backed.path.parent.iterdir()] == [backed.path.name]


def test_a_failing_prediction_leaves_object_and_store_as_they_were(sdata):
    before = files(sdata)
    with pytest.raises(Break):
        fail_in_stream(sdata)
    same(sdata.tables["table"], table())
    assert files(sdata) == before


def test_a_store_of_another_format_is_refused_with_the_way_out(backed):
    (backed.path / "zarr.json").rename(backed.path / ".zgroup")
    with pytest.raises(BadInput, match=r"zarr format 3.*sdata.write"):
        commit(backed, lambda folder: [])
