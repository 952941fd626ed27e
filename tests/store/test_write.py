from __future__ import annotations

import copy
import errno
import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel

from sq_imputer.errors import BadInput, MissingKey, StoreError
from sq_imputer.store.write import check_free, new_table, put_layers, stream_layer, write_element, write_new

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


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores to be copied, one of them without an image."""
    folder = tmp_path_factory.mktemp("stores")
    image = np.random.default_rng(2).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    element = Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=list("rgb"), scale_factors=[2])
    made = {"images": {"he": element}, "shapes": {"spots": circles()}, "tables": {"table": table()}}
    SpatialData(**made).write(folder / "all.zarr", update_sdata_path=False)
    SpatialData(shapes=made["shapes"], tables=made["tables"]).write(folder / "plain.zarr", update_sdata_path=False)
    return SpatialData(**made), folder


@pytest.fixture(params=["memory", "backed"])
def sdata(request, stores, tmp_path):
    if request.param == "memory":
        return copy.deepcopy(stores[0])
    shutil.copytree(stores[1] / "all.zarr", tmp_path / "section.zarr")
    return spatialdata.read_zarr(tmp_path / "section.zarr")


@pytest.fixture
def backed(stores, tmp_path):
    shutil.copytree(stores[1] / "plain.zarr", tmp_path / "section.zarr")
    return spatialdata.read_zarr(tmp_path / "section.zarr")


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
    monkeypatch.setattr("sq_imputer.store.rows.OPEN_CHUNKS", 1)
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


WRITES = {
    "tables/table": lambda sdata: write_element(sdata, "tables", "table", table(values(9)), overwrite=True),
    "tables/imputed": lambda sdata: write_element(sdata, "tables", "imputed", table(values(9))),
    "tables/table/X": lambda sdata: put_layers(sdata, "table", {"a": values(9)}, x="a", uns={"sq_imputer": {"a": 1}}),
    "tables/table/layers/a": lambda sdata: stream_layer(sdata, "table", "a", [(slice(None), values(9))]),
}
BROKEN = [
    "zarr.Array.__setitem__",
    "sq_imputer.store.commit.flush",
    "sq_imputer.store.commit._consolidate",
]


@pytest.fixture(params=["exchange", "two renames"])
def disk(request, monkeypatch):
    """A file system that exchanges folders, and one that does not."""
    if request.param == "two renames":
        monkeypatch.setattr("sq_imputer.store.commit.exchange", lambda one, other: False)
    return request.param


def unchanged(sdata, before) -> None:
    same(sdata.tables["table"], table())
    same(again(sdata).tables["table"], table())
    assert files(sdata) == before
    assert list(sdata.tables) == list(again(sdata).tables) == ["table"]
    assert [folder.name for folder in sdata.path.parent.iterdir()] == [sdata.path.name]


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_failed_write_leaves_object_and_store_as_they_were(backed, monkeypatch, disk, path, broken):
    def fail(*args, **kwargs):
        raise Break

    before, listing = files(backed), (backed.path / "zarr.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(Break):
        patch.setattr(broken, fail)
        WRITES[path](backed)
    unchanged(backed, before)
    assert (backed.path / "zarr.json").read_bytes() == listing


@pytest.mark.parametrize("path", WRITES)
def test_a_rename_that_fails_leaves_object_and_store_as_they_were(backed, monkeypatch, disk, path):
    def fail_to_move_in(source, target):
        if "new" in Path(source).parts and backed.path in Path(target).parents:
            raise Break
        rename(source, target)

    before, rename = files(backed), os.rename
    with monkeypatch.context() as patch:
        patch.setattr("os.rename", fail_to_move_in)
        if disk == "exchange":
            patch.setattr("sq_imputer.store.commit.exchange", lambda one, other: fail_to_move_in(one, other))
        with pytest.raises(Break):
            WRITES[path](backed)
    unchanged(backed, before)


@pytest.mark.parametrize("path", WRITES)
def test_every_write_ends_with_one_element_and_nothing_beside_the_store(backed, disk, path):
    WRITES[path](backed)
    assert [folder.name for folder in backed.path.parent.iterdir()] == [backed.path.name]
    assert set(again(backed).tables) == set(backed.tables)
    for key in backed.tables:
        same(again(backed).tables[key], backed.tables[key])


@pytest.mark.parametrize("path", ["tables/table", "tables/imputed", "tables/table/X"])
def test_a_full_disk_leaves_the_store_as_it_was_and_the_result_in_memory(backed, monkeypatch, path):
    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    before, key = files(backed), Path(path).parts[1]
    with monkeypatch.context() as patch:
        patch.setattr("sq_imputer.store.commit.flush", full)
        patch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10_000))
        message = (
            rf"disk is full.*0\.0 MB are free, .* MB are missing.*output_path=.*in memory, as sdata.tables\['{key}'\]"
        )
        with pytest.raises(StoreError, match=message):
            WRITES[path](backed)
    assert files(backed) == before
    assert [folder.name for folder in backed.path.parent.iterdir()] == [backed.path.name]
    same(again(backed).tables["table"], table())
    result = backed.tables[key]
    np.testing.assert_array_equal(result.X, values(9))
    backed.subset(["spots", key]).write(backed.path.parent / "elsewhere.zarr")
    same(spatialdata.read_zarr(backed.path.parent / "elsewhere.zarr").tables[key], result)


def test_shapes_are_whole_after_a_failed_write(backed, monkeypatch, tmp_path):
    from spatialdata.transformations import get_transformation

    def full(frame, path, **how):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("geopandas.GeoDataFrame.to_parquet", full)
    grid = circles()
    with pytest.raises(StoreError, match=r"in memory, as sdata.shapes\['grid'\]"):
        write_element(backed, "shapes", "grid", grid)
    assert backed.shapes["grid"] is grid and get_transformation(grid) is not None
    with pytest.raises(StoreError, match="disk is full"):
        write_new(backed, tmp_path / "new.zarr")
    assert get_transformation(backed.shapes["spots"]) is not None
    assert [folder.name for folder in tmp_path.iterdir()] == [backed.path.name]


def test_too_little_room_is_found_before_anything_is_computed(backed, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=50_000_000))
    check_free(backed, "tables", "imputed", nbytes=40_000_000)
    with pytest.raises(StoreError, match=r"54\.0 MB are needed, 50\.0 MB are free.*output_path="):
        check_free(backed, "tables", "imputed", nbytes=45_000_000)


def test_what_another_process_wrote_meanwhile_is_neither_replaced_nor_lost(backed):
    first, second = again(backed), again(backed)
    put_layers(first, "table", {"a": values(1)}, obs=pd.DataFrame({"x": 1.0}, index=NAMES), uns={"k": {"a": 1}})
    put_layers(second, "table", {"b": values(2)}, obs=pd.DataFrame({"y": 2.0}, index=NAMES), uns={"k": {"b": 2}})
    stored = again(backed).tables["table"]
    np.testing.assert_array_equal(stored.layers["a"], values(1))
    np.testing.assert_array_equal(stored.layers["b"], values(2))
    assert (stored.obs["x"] == 1).all() and (stored.obs["y"] == 2).all()
    assert "b" in stored.uns["k"]


def meanwhile(monkeypatch, change) -> None:
    """Do something after the next write has been staged, before it is put in."""
    from sq_imputer.store import commit as store

    flush = store.flush

    def later(folder):
        monkeypatch.setattr(store, "flush", flush)
        change()
        flush(folder)

    monkeypatch.setattr(store, "flush", later)


def test_a_name_taken_meanwhile_is_not_replaced_and_the_result_is_in_memory(backed, monkeypatch):
    meanwhile(monkeypatch, lambda: write_element(again(backed), "tables", "imputed", table(values(1))))
    with pytest.raises(StoreError, match=r"another process has written tables\['imputed'\].*in memory"):
        write_element(backed, "tables", "imputed", table(values(2)))
    np.testing.assert_array_equal(again(backed).tables["imputed"].X, values(1))
    np.testing.assert_array_equal(backed.tables["imputed"].X, values(2))


def test_a_table_replaced_meanwhile_gets_no_rows_of_another(backed, monkeypatch):
    other = table()[::-1].copy()
    meanwhile(monkeypatch, lambda: write_element(again(backed), "tables", "table", other, overwrite=True))
    with pytest.raises(StoreError, match=r"another process has replaced or removed tables\['table'\].*in memory"):
        put_layers(backed, "table", {"stem": values(5)})
    same(again(backed).tables["table"], other)
    np.testing.assert_array_equal(backed.tables["table"].layers["stem"], values(5))


def test_the_old_version_is_readable_until_the_new_one_is_there(backed, monkeypatch):
    seen = []
    meanwhile(monkeypatch, lambda: seen.append(again(backed).tables["table"]))
    write_element(backed, "tables", "table", table(values(9)), overwrite=True)
    same(seen[0], table())
    same(again(backed).tables["table"], table(values(9)))


def test_a_new_store_is_made_whole_or_not_at_all(sdata, tmp_path, monkeypatch):
    where, path = tmp_path / "elsewhere", tmp_path / "elsewhere" / "new.zarr"
    with pytest.raises(BadInput, match="there is no folder"):
        write_new(sdata, path)
    where.mkdir()
    with monkeypatch.context() as patch, pytest.raises(Break):
        patch.setattr("sq_imputer.store.commit.flush", lambda folder: (_ for _ in ()).throw(Break()))
        write_new(sdata, path)
    assert not list(where.iterdir())
    before = sdata.path
    write_new(sdata.subset(["spots", "table"]), path)
    assert [folder.name for folder in where.iterdir()] == ["new.zarr"]
    assert sdata.path == before
    new = spatialdata.read_zarr(path)
    same(new.tables["table"], table())
    assert set(new.shapes) == {"spots"} and not new.images
    with pytest.raises(BadInput, match="exists, and nothing is written over it"):
        write_new(sdata, path)


def test_a_failing_prediction_leaves_object_and_store_as_they_were(sdata):
    before = files(sdata)
    with pytest.raises(Break):
        fail_in_stream(sdata)
    same(sdata.tables["table"], table())
    assert files(sdata) == before


def test_a_store_of_another_format_is_refused_with_the_way_out(backed):
    (backed.path / "zarr.json").rename(backed.path / ".zgroup")
    with pytest.raises(BadInput, match=r"zarr format 3.*sdata.write"):
        write_element(backed, "tables", "imputed", table())


def test_vectors_of_genes_go_into_varm_and_its_store(stored):
    table = stored.tables["table"]
    vectors = np.arange(table.n_vars * 3, dtype=np.float32).reshape(-1, 3)
    put_layers(stored, "table", {}, varm={"X_dna": vectors})
    np.testing.assert_array_equal(table.varm["X_dna"], vectors)
    np.testing.assert_array_equal(spatialdata.read_zarr(stored.path).tables["table"].varm["X_dna"], vectors)
    with pytest.raises(BadInput, match="varm 'X_dna' has 2 rows; the table has"):
        put_layers(stored, "table", {}, varm={"X_dna": vectors[:2]})
