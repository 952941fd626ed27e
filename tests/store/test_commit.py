from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import spatialdata
from spatialdata import SpatialData

from sq_imputer.errors import StoreError
from sq_imputer.store import commit as stores
from sq_imputer.store.commit import recover

sys.path.insert(0, str(Path(__file__).parent))
import writers  # by its name, under which the processes to be killed import it, too

pytestmark = pytest.mark.filterwarnings("ignore")
PATHS = ("tables/table", "shapes/grid", "images/map")


@pytest.fixture(scope="module")
def processes():
    """Starts processes as forks of one that has imported all and run nothing, so that no thread is cut off."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(writers.PRELOAD)
    return context


STORES = {"consolidated": True, "not consolidated": False}


@pytest.fixture(scope="module", params=STORES.values(), ids=STORES)
def original(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "section.zarr"
    elements = {"spots": writers.circles(3), "grid": writers.circles(1)}
    tables = {"table": writers.table(1), "other": writers.table(3)}
    images = {"map": writers.image(1), "he": writers.image(3)}
    SpatialData(images=images, shapes=elements, tables=tables).write(path, consolidate_metadata=request.param)
    return path


@pytest.fixture
def store(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "section.zarr"))


def files(store: Path, without: str = "zarr.json") -> dict[str, str]:
    """Hash of every file but the root's listing and those of one element."""
    paths = {path.relative_to(store).as_posix(): path for path in store.rglob("*") if path.is_file()}
    kept = (name for name in paths if name != "zarr.json" and not name.startswith(without))
    return {name: hashlib.sha256(paths[name].read_bytes()).hexdigest() for name in kept}


def listed(store: Path) -> set[str] | None:
    metadata = json.loads((store / "zarr.json").read_bytes()).get("consolidated_metadata")
    return metadata and set(metadata["metadata"])


def groups(store: Path) -> set[str]:
    return {path.parent.relative_to(store).as_posix() for path in store.glob("*/**/zarr.json")}


def beside(store: Path) -> list[str]:
    return sorted(path.name for path in store.parent.iterdir() if path.name != store.name)


def check(store: Path, path: str, before: dict, consolidated: bool, without: str | None = None) -> int | None:
    """All that must be true after a kill. Which version is there."""
    assert files(store, without or path) == before
    found = writers.stored(store, path)
    recover(store)
    assert beside(store) == []
    assert (listed(store) is not None) == consolidated
    assert not consolidated or listed(store) == groups(store)
    sdata = spatialdata.read_zarr(store)
    found = found or writers.number(sdata, path)  # what was between two places has been put in
    assert writers.number(sdata, path) == found
    writers.put(sdata, path, 3)
    assert writers.stored(store, path) == 3
    assert files(store, without or path) == before and beside(store) == []
    return found


def start(processes, target, *args):
    process = processes.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def end(process, code: int = 0) -> None:
    process.join(60)
    assert process.exitcode == code


def killed(processes, store, path, how, point) -> None:
    end(start(processes, writers.write, str(store), path, how, point), -signal.SIGKILL)


KILLED = [(kind, "tables/table", how) for kind in STORES.values() for how in ("put", "add")]
KILLED += [(True, path, "put") for path in PATHS[1:]]


@pytest.mark.parametrize(("original", "path", "how"), KILLED, indirect=["original"])
@pytest.mark.parametrize("point", writers.POINTS)
def test_a_kill_leaves_all_of_the_old_or_all_of_the_new(store, processes, path, how, point):
    before, consolidated = files(store, path), listed(store) is not None
    killed(processes, store, path, how, point)
    assert any(".sq_imputer-" in name for name in beside(store))
    assert check(store, path, before, consolidated) == (1 if point in ("staging", "before the swap") else 2)


@pytest.mark.parametrize("point", ["before the swap", "after the swap"])
@pytest.mark.parametrize("consolidated", [True, False])
def test_a_kill_leaves_all_or_nothing_of_the_first_element_of_a_kind(tmp_path, processes, consolidated, point):
    store = tmp_path / "bare.zarr"
    SpatialData(images={"he": writers.image(3)}).write(store, consolidate_metadata=consolidated)
    before = files(store)
    killed(processes, store, "shapes/grid", "put", point)
    expected = 2 if point == "after the swap" else None
    assert check(store, "shapes/grid", before, consolidated, "shapes") == expected


def test_kills_at_any_time_leave_all_of_the_old_or_all_of_the_new(store, processes, tmp_path_factory):
    """Four here, and four more for the other kind of store; benchmarks/faults.py has 300."""
    rng, found = np.random.default_rng(0), []
    ways = [*((path, "put") for path in PATHS), ("tables/table", "add")]

    def begun(store, path, how):
        ours, theirs = processes.Pipe()
        return start(processes, writers.write, str(store), path, how, None, theirs), ours, ours.recv()

    copy = shutil.copytree(store, tmp_path_factory.mktemp("whole") / store.name)
    process, ours, begin = begun(copy, *ways[-1])
    whole = ours.recv() - begin
    end(process)
    for (path, how), delay in zip(ways, (0, rng.uniform(0, 0.5), rng.uniform(0.5, 1), None), strict=True):
        before = files(store, path)
        process, ours, _ = begun(store, path, how)
        ours.recv() if delay is None else time.sleep(delay * whole)  # the last is killed after its end
        process.kill()
        process.join()
        found.append(check(store, path, before, listed(store) is not None))
    assert found[0] == 1 and found[-1] == 2 and set(found) <= {1, 2}


def test_ctrl_c_at_any_time_cleans_up_and_is_raised(store, processes):
    rng, stopped = np.random.default_rng(1), 0
    ways = [*((path, "put") for path in PATHS), ("tables/table", "add")]
    for i in range(4):
        path, how = ways[i % len(ways)]
        before = files(store, path)
        ours, theirs = processes.Pipe()
        process = start(processes, writers.write, str(store), path, how, None, theirs)
        ours.recv()
        time.sleep(rng.uniform(0, 0.1) if i else 0)
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)
        process.join(60)
        assert process.exitcode in (0, 7)  # done before it came, or stopped by it
        stopped += process.exitcode == 7
        assert beside(store) == []
        assert listed(store) in (None, groups(store))
        assert writers.number(spatialdata.read_zarr(store), path) in (1, 2)
        assert files(store, path) == before
    assert stopped


def test_what_a_killed_writer_left_is_removed_by_the_next_write(store, processes):
    killed(processes, store, "tables/table", "put", "after the swap")
    left = beside(store)
    assert any(".sq_imputer-" in name for name in left)
    writers.put(spatialdata.read_zarr(store), "shapes/grid", 2)
    assert beside(store) == []
    assert listed(store) in (None, groups(store))


@pytest.mark.parametrize("gone", ["swapping", "new", "alive"])
def test_a_writer_may_be_killed_while_it_clears_up(store, processes, gone):
    killed(processes, store, "tables/table", "put", "after consolidating")
    (left,) = (path for path in store.parent.iterdir() if ".sq_imputer-" in path.name)
    shutil.rmtree(left / gone) if (left / gone).is_dir() else (left / gone).unlink()
    assert recover(store) == [left]
    assert beside(store) == [] and writers.number(spatialdata.read_zarr(store), "tables/table") == 2


def test_an_element_that_was_deleted_since_is_not_brought_back(store, processes):
    killed(processes, store, "tables/table", "put", "after consolidating")
    shutil.rmtree(store / "tables/table")
    assert len(recover(store)) == 1
    assert not (store / "tables/table").exists()


def test_live_writers_are_left_alone(store, processes):
    started, go = processes.Event(), processes.Event()
    process = start(processes, writers.stream_slowly, str(store), started, go)
    assert started.wait(60)
    assert recover(store) == []
    writers.put(spatialdata.read_zarr(store), "shapes/grid", 2)
    writers.add_layer(spatialdata.read_zarr(store), "tables/table", 2)
    assert len(beside(store)) == 1
    go.set()
    end(process)
    stored = spatialdata.read_zarr(store)
    for layer in ("slow", "new"):
        np.testing.assert_array_equal(stored.tables["table"].layers[layer], writers.values(2))
    assert writers.number(stored, "shapes/grid") == 2
    assert beside(store) == []


def abandoned(store: Path, host: str, pid: int) -> Path:
    folder = store.with_name(f".{store.name}.sq_imputer-{host}-{pid}-0a1b2c3d")
    (folder / "new").mkdir(parents=True)
    return folder


def test_a_process_number_in_use_again_does_not_keep_what_was_left(store):
    left = abandoned(store, stores._host(), os.getpid())
    assert recover(store) == [left]
    assert beside(store) == []


def test_a_folder_that_cannot_be_removed_holds_nobody_up(store, monkeypatch):
    def write(folder):
        (folder / "tables" / "new").mkdir(parents=True)
        raise RuntimeError("in the middle")

    monkeypatch.setattr(stores, "WAIT_S", 0.2)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as on a disk that became read-only
    with pytest.raises(RuntimeError, match="in the middle"):
        stores.commit(store, "tables/new", write)


def test_what_other_hosts_left_stays_unless_asked_for(store):
    left = abandoned(store, "another.host-2", 1)
    assert recover(store) == [] and left.is_dir()
    writers.put(spatialdata.read_zarr(store), "shapes/grid", 2)
    assert left.is_dir()
    assert recover(store, other_hosts=True) == [left] and beside(store) == []


def test_folders_of_stores_with_a_similar_name_stay(store):
    left = abandoned(store.with_name("section.zarr.old"), stores._host(), 1)
    assert recover(store) == [] and left.is_dir()


def test_another_writer_is_waited_for_and_then_named(store, processes, monkeypatch):
    started, go = processes.Event(), processes.Event()
    process = start(processes, writers.hold, str(store), started, go)
    assert started.wait(60)
    sdata = spatialdata.read_zarr(store)
    with monkeypatch.context() as patch:
        patch.setattr(stores, "WAIT_S", 0.2)
        with pytest.raises(StoreError, match=rf"for 0\.2 s.*process {process.pid} on {stores._host()}.*Wait for it"):
            writers.put(sdata, "shapes/grid", 2)
    assert writers.number(sdata, "shapes/grid") == 2, "the result is in memory"
    assert writers.number(spatialdata.read_zarr(store), "shapes/grid") == 1
    go.set()
    end(process)
    writers.put(sdata, "shapes/grid", 2)
    stored = spatialdata.read_zarr(store)
    assert writers.number(stored, "shapes/grid") == writers.number(stored, "tables/table") == 2
    assert beside(store) == []


def test_one_writer_at_a_time_though_the_file_of_the_lock_comes_and_goes(store):
    inside, most = [], []

    def write():
        for _ in range(20):
            with stores._lock(store):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and max(most) == 1 and beside(store) == []


def test_a_lock_left_by_a_killed_process_holds_nobody_up(store, processes):
    started, go = processes.Event(), processes.Event()
    process = start(processes, writers.hold, str(store), started, go)
    assert started.wait(60)
    process.kill()
    process.join()
    assert f".{store.name}.lock" in beside(store)
    writers.put(spatialdata.read_zarr(store), "shapes/grid", 2)
    assert beside(store) == []


def test_two_writers_lose_nothing(store, processes):
    barrier = processes.Barrier(2)
    both = [start(processes, writers.add_many, str(store), name, 4, barrier) for name in "ab"]
    for process in both:
        end(process)
    table = spatialdata.read_zarr(store).tables["table"]
    for name in "ab":
        for i in range(4):
            np.testing.assert_array_equal(table.layers[f"{name}{i}"], writers.values(i))
            assert (table.obs[f"{name}{i}"] == i).all()
    assert beside(store) == [] and listed(store) in (None, groups(store))


def test_two_writers_may_bring_the_first_elements_of_a_kind(tmp_path, processes):
    store = tmp_path / "bare.zarr"
    SpatialData(shapes={"spots": writers.circles(3)}).write(store)
    barrier = processes.Barrier(2)
    paths = ["tables/a", "tables/b"]
    both = [start(processes, writers.write_new, str(store), path, barrier) for path in paths]
    for process in both:
        end(process)
    stored = spatialdata.read_zarr(store)
    assert [writers.number(stored, path) for path in paths] == [2, 2]
    assert listed(store) == groups(store) and beside(store) == []
