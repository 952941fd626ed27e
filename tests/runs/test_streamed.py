"""Predictions that stream into a store are those that are made in memory."""

from __future__ import annotations

import shutil

import dask.array as da
import numpy as np
import pytest
import spatialdata
from fixtures_of_verbs import GENES

import sq_imputer as sqi
from sq_imputer.runs import run, streamed


@pytest.fixture
def small(monkeypatch) -> None:
    """Everything is too large for memory, and comes few rows at a time."""
    monkeypatch.setattr(streamed, "HELD", 0)
    monkeypatch.setattr(run, "AT_ONCE", 25)
    monkeypatch.setattr(streamed, "AT_ONCE", 25)


@pytest.fixture(scope="module")
def fitted(_toys):
    patients, genes = _toys, GENES
    config = {"size_px": 32, "context_um": ()}
    return sqi.tl.fit([patients["P2"], patients["P3"]], "ridge", genes=genes, config=config)


@pytest.fixture(scope="module")
def expected(_toys, fitted):
    """The table that is made in memory."""
    section = spatialdata.deepcopy(_toys["P1"])
    sqi.tl.predict(section, fitted)
    return section.tables["imputed"]


@pytest.fixture(scope="module")
def stores() -> list:
    """The store of `streamed`: made once."""
    return []


@pytest.fixture
def streamed_store(whole_store, fitted, small, stores, tmp_path_factory, tmp_path):
    """The section in a store of its own into which a prediction has been streamed, of which other tests have copies."""
    if not stores:
        path = shutil.copytree(whole_store, tmp_path_factory.mktemp("streamed") / "section.zarr")
        sdata = spatialdata.read_zarr(path)
        sqi.tl.predict(sdata, fitted)
        stores.append(sdata)
    path = shutil.copytree(stores[0].path, tmp_path / "section.zarr")
    return spatialdata.read_zarr(path)


def arrays(table) -> dict[str, np.ndarray]:
    found = {"X": table.X} | {f"layers/{k}": v for k, v in table.layers.items() if k is not None}
    found |= {f"obsm/{k}": v for k, v in table.obsm.items()}
    return {name: np.asarray(values) for name, values in found.items()}


def same(one, other) -> None:
    mine, theirs = arrays(one), arrays(other)
    assert set(mine) == set(theirs)
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-5, atol=1e-5, err_msg=name)
        assert mine[name].dtype == theirs[name].dtype, name
    assert set(one.obs) == set(other.obs) and list(one.var) == list(other.var)
    for name in ("measured", "instance_id", "total_counts", "ridge_ood"):
        np.testing.assert_allclose(one.obs[name].astype(float), other.obs[name].astype(float), rtol=1e-6)
    known = (sqi.io.pythonic(table.uns["sq_imputer"]) for table in (one, other))
    assert next(known).keys() == next(known).keys()


def test_a_streamed_table_is_that_of_memory(streamed_store, stores, fitted, expected) -> None:
    (stored,) = stores
    table = stored.tables["imputed"]
    assert isinstance(table.X, da.Array) and isinstance(table.layers["ridge"], da.Array)
    same(expected, table)
    assert [table.obs[name].dtype for name in ("section", "patient")] == ["category"] * 2  # a million words are heavy
    read = spatialdata.read_zarr(stored.path)
    same(expected, read.tables["imputed"])
    record = sqi.io.pythonic(read.tables["imputed"].uns["sq_imputer"])["ridge"]
    assert record["how"] == "fitted model" and record["genes"] == list(fitted.genes)
    folder = stored.path / "tables" / "imputed"
    files = [path for path in (folder / "X").rglob("*") if path.is_file()]
    assert files and all(path.samefile(folder / "layers/ridge" / path.relative_to(folder / "X")) for path in files)


def test_a_layer_is_added_and_replaced(streamed_store, fitted, expected, small) -> None:
    stored = streamed_store
    sqi.tl.predict(stored, fitted, layer_added="again")
    sqi.tl.predict(stored, fitted, overwrite=True)
    for table in (stored.tables["imputed"], spatialdata.read_zarr(stored.path).tables["imputed"]):
        np.testing.assert_array_equal(np.asarray(table.layers["again"]), np.asarray(table.layers["ridge"]))
        np.testing.assert_allclose(np.asarray(table.layers["again_std"]), expected.layers["ridge_std"], rtol=1e-5)
        assert set(table.uns["sq_imputer"]) == {"ridge", "again", "embeddings"}


def test_cells_are_streamed_to_another_store(_toys, genes, small, tmp_path) -> None:
    section, found = spatialdata.deepcopy(_toys["P1"]), []
    sqi.pp.grid(section, spacing_um=120.0)
    how = {"genes": genes, "config": {"size_px": 32, "context_um": ()}, "shapes_key": "grid"}
    for path in (tmp_path / "out.zarr", None):  # the second in memory
        sqi.tl.predict(section, "ridge", output_path=path, **how)
        found.append(section.tables.pop("imputed"))
    read = spatialdata.read_zarr(tmp_path / "out.zarr")
    assert list(read.shapes) == ["grid"] and isinstance(found[0].X, da.Array)
    same(found[1], read.tables["imputed"])
    assert np.isnan(np.asarray(found[0].layers["measured"])).all()


def test_a_run_that_was_interrupted_goes_on(stored, fitted, expected, small, monkeypatch) -> None:
    before, step = sorted(stored.path.parent.iterdir()), type(fitted).predict_step

    def fails(self, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(fitted), "predict_step", fails)
    with pytest.raises(KeyboardInterrupt):
        sqi.tl.predict(stored, fitted, resume=True)
    assert "imputed" not in stored.tables and not (stored.path / "tables/imputed").exists()
    monkeypatch.setattr(type(fitted), "predict_step", step)
    monkeypatch.setattr("sq_imputer.section.features._Gather.parts", None)  # the journal has all features
    sqi.tl.predict(stored, fitted, resume=True)
    assert sorted(stored.path.parent.iterdir()) == before
    same(expected, stored.tables["imputed"])


def test_rows_at_a_time_are_fewer_of_more_genes() -> None:
    assert run.at_once(300) == run.AT_ONCE and run.at_once(10**9) == 1
    assert run.MATRIX_BYTES / 2 < 4 * 20_000 * run.at_once(20_000) <= run.MATRIX_BYTES
