"""Stores that would do harm to the one who opens them, and folders that are no stores."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pytest
import spatialdata
import zarr

import sq_imputer as sqi
from sq_imputer import cli, untrusted

BYTES, ZSTD = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 0}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store with nothing wrong."""
    path = tmp_path_factory.mktemp("stores") / "section.zarr"
    sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"].write(path)
    return path


@dataclass
class Store:
    """A copy of the store, to be tampered with."""

    path: Path
    payload: object

    def zarr(self, version: int, at: str = "tables/table/evil", **changes) -> None:
        """Add an array to the table."""
        folder = self.path / at
        folder.mkdir()
        (folder / ("zarr.json" if version == 3 else ".zarray")).write_text(json.dumps(array(version) | changes))
        for chunk in ("0", "c/0"):
            (folder / chunk).parent.mkdir(exist_ok=True)
            (folder / chunk).write_bytes(pickle.dumps([self.payload]))

    def consolidate(self, **node) -> None:
        """Say of an array in the metadata of the root what its own do not."""
        root = json.loads((self.path / "zarr.json").read_text())
        root["consolidated_metadata"]["metadata"]["tables/table/X/data"] |= node
        (self.path / "zarr.json").write_text(json.dumps(root))


def array(version: int) -> dict:
    if version == 2:
        return {
            "zarr_format": 2,
            "shape": [1],
            "chunks": [1],
            "dtype": "|O",
            "filters": None,
            "compressor": None,
            "fill_value": 0,
            "order": "C",
        }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [1],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [BYTES, ZSTD],
        "fill_value": 0,
        "attributes": {},
    }


def grid(*sides: int) -> dict:
    return {"name": "regular", "configuration": {"chunk_shape": list(sides)}}


def shards(inner: int, codecs=(BYTES,)) -> list:
    configuration = {"chunk_shape": [inner], "codecs": list(codecs), "index_codecs": [BYTES, {"name": "crc32c"}]}
    return [{"name": "sharding_indexed", "configuration": configuration}]


def consolidated_2(s: Store) -> None:
    group = s.path / "tables" / "old"
    group.mkdir()
    (group / ".zgroup").write_text('{"zarr_format": 2}')
    evil = array(2) | {"filters": [{"id": "pickle"}]}
    (group / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": {"X/.zarray": evil}}))


def linked(s: Store, inside: str) -> None:
    outside = s.path.parent / "outside"
    (s.path / inside).rename(outside)
    (s.path / inside).symlink_to(outside)


def sparse(s: Store) -> None:
    with (s.path / "images" / "zarr.json").open("ab") as file:
        file.truncate(untrusted.MOST_JSON + 1)


ARTIFACTS = {
    "pickle, zarr 2": (lambda s: s.zarr(2, filters=[{"id": "pickle", "protocol": 5}]), "the codec 'pickle'"),
    "pickle as compressor": (lambda s: s.zarr(2, compressor={"id": "pickle"}), "the codec 'pickle'"),
    "pickle, zarr 3": (lambda s: s.zarr(3, codecs=[{"name": "numcodecs.pickle"}]), "the codec 'numcodecs.pickle'"),
    "pickle by another name": (
        lambda s: s.zarr(3, codecs=[BYTES | {"id": "zstd", "name": "pickle"}]),
        "codec 'pickle'",
    ),
    "pickle in shards": (lambda s: s.zarr(3, codecs=shards(1, [{"name": "pickle"}])), "the codec 'pickle'"),
    "pickle in shards in shards": (lambda s: s.zarr(3, codecs=shards(1, shards(1, ["pickle"]))), "the codec 'pickle'"),
    "pickle in the consolidated metadata": (lambda s: s.consolidate(codecs=[{"name": "pickle"}]), "the codec 'pickle'"),
    "pickle of zarr 2 in consolidated metadata of zarr 3": (
        lambda s: s.consolidate(zarr_format=2, filters=[{"id": "pickle"}]),
        "the codec 'pickle'",
    ),
    "pickle in the consolidated metadata, zarr 2": (consolidated_2, "the codec 'pickle'"),
    "codec of a plug-in": (
        lambda s: s.zarr(3, codecs=[{"name": "acme.run"}]),
        "the codec 'acme.run', which is not known",
    ),
    "codec without a name": (lambda s: s.zarr(3, codecs=[7]), "the codec '7'"),
    "chunk of a terabyte": (lambda s: s.zarr(3, shape=[2**38], chunk_grid=grid(2**38)), "10^12.0 bytes in a chunk"),
    "chunk larger than its array": (lambda s: s.zarr(2, chunks=[2**40], dtype="<f4"), "bytes in a chunk"),
    "array of petabytes": (lambda s: s.zarr(3, shape=[2**50], chunk_grid=grid(2**20)), "bytes in an array"),
    "words of a gigabyte": (lambda s: s.zarr(2, shape=[4], chunks=[4], dtype="<U1000000000"), "bytes in a chunk"),
    "a field without a type": (lambda s: s.zarr(2, dtype=[["a"]]), "an array without a size"),
    "a size without an end": (
        lambda s: s.zarr(3, data_type={"name": "x", "configuration": {"length_bytes": float("inf")}}),
        "an array without a size",
    ),
    "fields of gigabytes": (lambda s: s.zarr(2, dtype=[["a", "<f8"], ["b", "|V3000000000"]]), "bytes in a chunk"),
    "fixed length of gigabytes": (
        lambda s: s.zarr(3, data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**33}}),
        "bytes in a chunk",
    ),
    "chunks without number": (lambda s: s.zarr(3, shape=[2**35], chunk_grid=grid(1)), "10^10.5 chunks"),
    "index of a shard of gigabytes": (
        lambda s: s.zarr(3, shape=[2**35], chunk_grid=grid(2**35), codecs=shards(1)),
        "10^10.5 chunks",
    ),
    "inner chunk of a terabyte": (
        lambda s: s.zarr(3, shape=[2**39], chunk_grid=grid(2**39), codecs=shards(2**39)),
        "bytes in a chunk",
    ),
    "no shape": (lambda s: s.zarr(3, shape="large"), "an array without a size"),
    "negative shape": (lambda s: s.zarr(3, shape=[-1]), "an array without a size"),
    "no chunks": (lambda s: s.zarr(3, chunk_grid="regular"), "an array without a size"),
    "type that is none": (lambda s: s.zarr(2, dtype="(9999999999,)f4"), "an array without a size"),
    "link to a file": (lambda s: linked(s, "tables/table/zarr.json"), "is a link"),
    "link to a folder": (lambda s: linked(s, "images/he"), "is a link"),
    "pipe": (lambda s: os.mkfifo(s.path / "tables/table/X/data/c/1"), "is no file"),
    "metadata nested deeply": (
        lambda s: (s.path / "images" / "zarr.json").write_text("[" * 200_000 + "]" * 200_000),
        "nested too deeply",
    ),
    "metadata without end": (sparse, "at most"),
    "attributes nested deeply": (lambda s: (s.path / ".zattrs").write_text("[" * 200_000), "nested too deeply"),
    "metadata that are no JSON": (lambda s: (s.path / "images" / "zarr.json").write_bytes(b"\x80\x04"), "is damaged"),
    "metadata that are a list": (lambda s: (s.path / "images" / "zarr.json").write_text("[]"), "expected an object"),
}


@pytest.fixture
def unopened(monkeypatch) -> None:
    """Nothing may be opened."""

    def opened(*_args, **_keys):
        raise AssertionError("the store was opened")

    monkeypatch.setattr(spatialdata, "read_zarr", opened)


@pytest.fixture
def store(whole, tmp_path, payload) -> Store:
    shutil.copytree(whole, tmp_path / "section.zarr")
    return Store(tmp_path / "section.zarr", payload)


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_hostile_store_is_refused_before_it_is_opened(store, refused, unopened, name) -> None:
    tamper, words = ARTIFACTS[name]
    tamper(store)
    refused(lambda: sqi.io.read_zarr(store.path), words)


def test_the_store_itself_is_accepted(store, digest, whole) -> None:
    assert digest(sqi.io.read_zarr(str(store.path))) == digest(spatialdata.read_zarr(whole))


@pytest.mark.parametrize("version", [2, 3])
def test_usual_arrays_of_both_versions_are_accepted(store, version) -> None:
    usual = {2: {"compressor": {"id": "blosc", "cname": "lz4"}, "filters": [{"id": "vlen-utf8"}]}, 3: {}}
    store.zarr(version, **usual[version])
    untrusted.check_store(store.path)


def test_a_table_with_record_arrays_is_accepted(store) -> None:
    """As scanpy's `rank_genes_groups` leaves them."""
    values = np.array([("x", 1.0)], dtype=[("n", "U10"), ("v", "f4")])
    uns = zarr.open_group(store.path / "tables" / "table" / "uns", use_consolidated=False)
    anndata.io.write_elem(uns, "names", values)
    untrusted.check_store(store.path)


ODD = (None, True, -1, 0, 1.5, 10**400, "", "x", "|O", [], [[]], [None], {}, {"a": None}, ["a", 1], [0], ["<f4", 3])


def test_whatever_metadata_say_it_is_refused_or_accepted_and_never_fails(store) -> None:
    rng, root = np.random.default_rng(0), store.path / "zarr.json"
    text, outcomes = root.read_text(), {"refused": 0, "accepted": 0}
    for _ in range(400):
        content = json.loads(text)
        place = content["consolidated_metadata"]["metadata"][
            "tables/table/X/data" if rng.random() < 0.7 else "images/he/s0"
        ]
        for _ in range(rng.integers(8)):  # some steps down
            deeper = [value for value in (place.values() if isinstance(place, dict) else place) if value]
            deeper = [value for value in deeper if isinstance(value, (dict, list))]
            place = deeper[rng.integers(len(deeper))] if deeper else place
        keys = list(place) if isinstance(place, dict) else range(len(place))
        place[keys[rng.integers(len(keys))]] = ODD[rng.integers(len(ODD))]
        root.write_text(json.dumps(content))
        try:
            untrusted.check_store(store.path)
            outcomes["accepted"] += 1
        except sqi.BadInput as error:
            outcomes["refused"] += 1
            assert str(error).isprintable()
    assert min(outcomes.values()) > 20


def test_attributes_may_say_what_they_like(store) -> None:
    said = {"codecs": "any", "filters": [{"id": "pickle"}], "shape": "round", "metadata": {"a": {"shape": "square"}}}
    store.zarr(3, attributes=said)
    (store.path / "tables" / "table" / "evil" / ".zattrs").write_text(json.dumps(said))
    untrusted.check_store(store.path)


def test_the_command_line_refuses_it_too(store, unopened, monkeypatch, capsys, canary) -> None:
    store.zarr(2, filters=[{"id": "pickle"}])
    monkeypatch.setattr("sys.argv", ["sq-imputer", "score", str(store.path)])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "the codec 'pickle'" in said and said.count("\n") == 1
    assert not canary.exists()


def anndata_store(s: Store) -> Path:
    return s.path / "tables" / "table"


def h5ad(s: Store) -> Path:
    spatialdata.read_zarr(s.path)["table"].write_h5ad(s.path.parent / "table.h5ad")
    return s.path.parent / "table.h5ad"


def emptied(s: Store) -> Path:
    for kind in untrusted.KINDS:
        shutil.rmtree(s.path / kind, ignore_errors=True)
    return s.path


def made(path: Path) -> Path:
    path.mkdir()
    return path


NO_STORES = {
    "45-nothing": (lambda s: s.path / "none.zarr", "but nothing; give the folder of a store"),
    "45-empty": (lambda s: made(s.path.parent / "empty.zarr"), "but an empty folder"),
    "45-h5ad": (h5ad, "but an HDF5 file (anndata.read_h5ad() reads .h5ad)"),
    "45-another folder": (lambda s: s.path.parent, "but another folder"),
    "45-another file": (lambda s: s.path / "zarr.json", "but another file"),
    "46-anndata": (anndata_store, "but an AnnData store (anndata.read_zarr() reads it)"),
    "46-no elements": (emptied, "but a zarr store without elements"),
}


@pytest.mark.parametrize("name", NO_STORES)
def test_what_is_no_store_is_named(store, refused, name) -> None:
    make, words = NO_STORES[name]
    path = make(store)
    refused(lambda: sqi.io.read_zarr(path), f"no SpatialData store at '{path}'", words)


def test_an_anndata_store_of_zarr_2_is_named(tmp_path, refused) -> None:
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / ".zattrs").write_text('{"encoding-type": "anndata"}')
    refused(lambda: sqi.io.read_zarr(tmp_path), "but an AnnData store")


def test_a_store_that_was_damaged_by_a_killed_write_is_named(store, refused) -> None:
    (store.path / "shapes" / "spots" / "shapes.parquet").unlink()
    refused(lambda: sqi.io.read_zarr(store.path), "is damaged", "sq_imputer.io.recover(path)")


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch, refused) -> None:
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(untrusted, "_files", forbidden)
    monkeypatch.setattr(untrusted, "_instead", lambda folder: "")
    refused(lambda: sqi.io.read_zarr(tmp_path), "cannot be read: Permission denied")
