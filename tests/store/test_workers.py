"""Rows that the workers of a cluster compute: real processes, one of which is killed at its work."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import spatialdata
from fixtures_of_verbs import *  # noqa: F403

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.store import journal
from sq_imputer.store.workers import Workers, _write_shard

sys.path.insert(0, str(Path(__file__).parent))
import writers

HOW = {"n_folds": 2, "buffer_um": 100.0, "progress": False}


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes."""
    import dask
    from distributed import Client, LocalCluster
    from distributed.utils import get_mp_context

    quick = {"distributed.worker.daemon": True, "distributed.admin.tick.interval": "1s"}
    quick["distributed.worker.multiprocessing-method"] = "forkserver"
    with dask.config.set(quick):
        get_mp_context().set_forkserver_preload(writers.PRELOAD)
    alone = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with dask.config.set(quick), LocalCluster(**alone) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def stored(whole_store, tmp_path, monkeypatch):
    """Two copies of a section in stores of their own, and shards of few rows."""
    monkeypatch.setattr(journal, "ROWS", 8)
    found = []
    for name in ("one", "other"):
        found.append(spatialdata.read_zarr(shutil.copytree(whole_store, tmp_path / f"{name}.zarr")))
    return found


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the shards that this process computes itself."""
    names, replace = [], journal.Journal._replace

    def noted(self, path, content):
        names.append(path.name)
        replace(self, path, content)

    monkeypatch.setattr(journal.Journal, "_replace", noted)
    return names


def same(one, other) -> None:
    mine, theirs = (sdata.tables["imputed"] for sdata in (one, other))
    assert set(mine.layers) == set(theirs.layers) and set(mine.obsm) == set(theirs.obsm)
    for slot in ("layers", "obsm"):
        for name, values in getattr(mine, slot).items():
            np.testing.assert_array_equal(values, getattr(theirs, slot)[name], err_msg=name)


def mortal(mine: int, mark: Path):
    """An encoder that ends the first process to ask it, but for this one. Made here, so that it travels as a value."""

    def colors(crops):
        import os
        import signal

        if os.getpid() != mine:
            try:
                mark.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return crops.reshape(len(crops), 3, -1).mean(axis=2)

    return colors


def test_a_killed_worker_costs_its_shard_and_not_the_run(stored, client, computed, tmp_path):
    here, there = stored
    mark = tmp_path / "killed"
    encoders.from_callable(mortal(os.getpid(), mark), "mortal", size_px=32, mpp=3.0)
    config = {"encoders": ("texture", "mortal"), "size_px": 32, "context_um": ()}  # dense blocks, and crops
    how = {"genes": 4, "config": config, **HOW}
    sqi.tl.predict(here, "ridge", resume=True, **how)
    assert not mark.exists() and any("features" in name for name in computed)
    computed.clear()
    sqi.tl.predict(there, "ridge", client=client, **how)
    assert mark.exists() and computed and not any("features" in name for name in computed)
    same(here, there)
    assert not list(there.path.parent.glob(".*.run"))  # what workers wrote is in the store, and nowhere else


def test_models_that_read_pixels_are_asked_on_the_cluster(stored, patients, spy, client, computed):
    here, there = stored
    fitted = sqi.tl.fit(patients["P2"], "spy", genes=4, progress=False)
    sqi.tl.predict(here, fitted, progress=False)
    sqi.tl.predict(there, fitted, client=client, progress=False)
    assert computed == ["manifest.json"]
    same(here, there)


def test_an_error_of_a_worker_is_that_of_the_run(client, tmp_path):
    def fails(rows):
        raise sqi.BadInput(f"no such color in {len(rows)} rows")

    with pytest.raises(sqi.BadInput, match="no such color in 2 rows"):
        next(Workers(client).shards("a", fails, [(tmp_path / "a.shard", np.arange(2))]))


def twice(rows):
    return {"twice": 2 * rows}


def test_what_a_worker_cannot_import_is_an_error_and_is_not_waited_for(client, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "only_here", ModuleType("only_here"))
    sys.modules["only_here"].twice = twice
    monkeypatch.setattr(twice, "__module__", "only_here")
    with pytest.raises(sqi.BadInput, match="No module named 'only_here'.*must lie in a package that is installed"):
        next(Workers(client).shards("a", twice, [(tmp_path / "a.shard", np.arange(2))]))


@pytest.mark.parametrize(("version", "said"), [(None, "has no sq_imputer"), ("0.0.1", "has sq_imputer 0.0.1")])
def test_workers_of_another_environment_are_refused(client, monkeypatch, version, said):
    found = client.get_versions(check=False, packages=["sq_imputer"])
    worker = next(iter(found["workers"]))
    found["workers"][worker]["packages"]["sq_imputer"] = version
    monkeypatch.setattr(client, "get_versions", lambda **how: found)
    with pytest.raises(sqi.BadInput, match=f"worker {worker} {said}, and here is .*Start workers in"):
        Workers(client)


def test_what_is_no_client_is_refused_before_anything_runs(section):
    with pytest.raises(sqi.BadInput, match=r"client is a str; expected distributed.Client\(...\).*Leave out client="):
        sqi.tl.predict(section, "ridge", client="tcp://10.0.0.1:8786")


def test_an_object_in_memory_has_no_disk_to_share(section, client):
    with pytest.raises(sqi.BadInput, match="client= keep a journal .* in memory only"):
        sqi.tl.predict(section, "ridge", client=client)


def test_a_worker_without_the_folder_says_so(tmp_path):
    with pytest.raises(sqi.StoreError, match="a disk that all workers share, under one path"):
        _write_shard(tmp_path / "gone" / "a.shard", np.arange(2), lambda rows: {"rows": rows})


def test_what_is_not_seen_here_is_said(client, tmp_path, monkeypatch):
    monkeypatch.setattr("sq_imputer.store.workers.PATIENCE_S", (0.0,))
    monkeypatch.setattr("sq_imputer.store.workers.read_shard", lambda path, rows: None)
    twice = lambda rows: {"twice": 2 * rows}  # noqa: E731  made here, so that it travels as a value
    shards = Workers(client).shards("a", twice, [(tmp_path / "a.shard", np.arange(2))])
    with pytest.raises(sqi.StoreError, match="a.shard', which is not to be seen here"):
        next(shards)
