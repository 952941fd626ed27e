"""What a journal gives back, what it does not trust, and whom it refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sq_imputer.errors import BadInput, StoreError
from sq_imputer.store import journal
from sq_imputer.store.journal import Journal

MANIFEST = {"model": "ridge", "plan": {"seed": 0, "device": "cpu"}, "genes": ["A", "B"]}
ORDER = np.array([4, 0, 3, 1, 5, 2, 6])


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(journal, "ROWS", 2)


class Squares:
    """Squares of row numbers; knows which rows it was asked for, and may be interrupted."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked, self.fails_at = [], fails_at

    def __call__(self, rows):
        if len(self.asked) == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(rows.tolist())
        return {"squares": rows.astype(np.float32) ** 2, "twice": np.stack([rows, rows], axis=1)}


def run(folder: Path, compute, manifest=MANIFEST, name: str = "squares"):
    with Journal(folder, manifest) as opened:
        return [(rows.tolist(), found) for rows, found in opened.parts(name, ORDER, compute)]


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.shard"))


def test_rows_come_in_shards_of_the_order_given(tmp_path):
    found = run(tmp_path / "run", Squares())
    assert [rows for rows, _ in found] == [[0, 4], [1, 3], [2, 5], [6]]
    assert [part["squares"].tolist() for _, part in found] == [[0, 16], [1, 9], [4, 25], [36]]


@pytest.mark.parametrize("done", range(4))
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, done):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Squares(fails_at=done))
    rest = Squares()
    found = run(tmp_path / "run", rest)
    assert len(rest.asked) == 4 - done
    whole = run(tmp_path / "other", Squares())
    for (rows, part), (rows_whole, part_whole) in zip(found, whole, strict=True):
        assert rows == rows_whole
        for name in part_whole:
            np.testing.assert_array_equal(part[name], part_whole[name])
            assert part[name].dtype == part_whole[name].dtype


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[:-3]
    elif how == "empty":
        content = bytearray()
    elif how == "flipped":
        content[-1] ^= 1
    elif how == "digest":
        content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "digest"])
def test_a_damaged_shard_is_computed_again(tmp_path, how):
    whole = run(tmp_path / "run", Squares())
    damage(tmp_path / "run" / "squares-00002.shard", how)
    again = Squares()
    found = run(tmp_path / "run", again)
    assert again.asked == [[2, 5]]
    np.testing.assert_array_equal(found[2][1]["squares"], whole[2][1]["squares"])


def test_a_shard_of_other_rows_does_not_count(tmp_path):
    run(tmp_path / "run", Squares())
    os.replace(tmp_path / "run" / "squares-00000.shard", tmp_path / "run" / "squares-00001.shard")
    again = Squares()
    run(tmp_path / "run", again)
    assert again.asked == [[0, 4], [1, 3]]


def test_parts_of_two_sections_are_kept_apart(tmp_path):
    with Journal(tmp_path / "run", MANIFEST) as opened:
        one, other = (journal.Part(opened, name) for name in ("a", "b"))
        list(one.parts("squares", ORDER, Squares()))
        asked = Squares()
        list(other.parts("squares", ORDER, asked))
    assert len(asked.asked) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "mlp"}, "model was 'ridge', is 'mlp'"),
        ({"plan": {"seed": 1, "device": "cpu"}}, "plan.seed was 0, is 1"),
        ({"plan": {"seed": 0}}, "plan.device was 'cpu', is None"),
        ({"genes": ["A", "C"]}, "genes was 'A', 'B', is 'A', 'C'"),
        ({"buffer_um": 3.0}, "buffer_um was None, is 3.0"),
    ],
    ids=["model", "seed", "gone", "genes", "new"],
)
def test_another_run_is_refused_with_what_differs(tmp_path, change, said):
    run(tmp_path / "run", Squares())
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    with pytest.raises(BadInput) as refused:
        run(tmp_path / "run", Squares(), {**MANIFEST, **change})
    assert said in str(refused.value) and "delete the folder to begin anew" in str(refused.value)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert run(tmp_path / "run", Squares(fails_at=0))  # nothing is computed: the refused run took no lock along


def test_a_manifest_that_is_no_json_is_named(tmp_path):
    run(tmp_path / "run", Squares())
    (tmp_path / "run" / "manifest.json").write_text("{")
    with pytest.raises(BadInput, match="manifest.json' is damaged. Delete"):
        run(tmp_path / "run", Squares())


def test_a_run_that_was_killed_before_its_manifest_begins(tmp_path):
    (tmp_path / "run").mkdir()
    run(tmp_path / "run", Squares())
    assert json.loads((tmp_path / "run" / "manifest.json").read_text()) == MANIFEST


def test_what_is_left_without_a_manifest_is_of_no_known_run(tmp_path):
    run(tmp_path / "run", Squares())
    (tmp_path / "run" / "model-all").mkdir()
    (tmp_path / "run" / "manifest.json").unlink()  # as by a removal that was killed
    again = Squares()
    run(tmp_path / "run", again, {**MANIFEST, "model": "mlp"})
    assert len(again.asked) == 4 and not (tmp_path / "run" / "model-all").exists()


def test_a_manifest_may_hold_numbers_of_numpy(tmp_path):
    run(tmp_path / "run", Squares(), {"n_folds": np.int64(3), "buffer_um": np.float32(100)})
    run(tmp_path / "run", Squares(fails_at=0), {"n_folds": 3, "buffer_um": 100.0})


def test_a_journal_that_could_not_be_begun_is_not_left(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        run(tmp_path / "run", Squares())
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_run_the_same_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom sq_imputer.store.journal import Journal\n"
        f"with Journal(Path(sys.argv[1]), {MANIFEST!r}):\n    print('in', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(BadInput, match="another process is at work on the run"):
            run(tmp_path / "run", Squares())
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
    assert len(run(tmp_path / "run", Squares())) == 4


def test_a_full_disk_loses_no_shard(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", Squares(fails_at=2))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device. Make room .* resume=True"):
            run(tmp_path / "run", Squares())
    assert shards(tmp_path / "run") == ["squares-00000.shard", "squares-00001.shard"]
    assert not list((tmp_path / "run").glob("*.new"))
    rest = Squares()
    run(tmp_path / "run", rest)
    assert rest.asked == [[2, 5], [6]]


def test_what_is_done_can_be_removed(tmp_path):
    with Journal(tmp_path / "run", MANIFEST) as opened:
        list(opened.parts("squares", ORDER, Squares()))
        opened.remove()
    assert not (tmp_path / "run").exists()
