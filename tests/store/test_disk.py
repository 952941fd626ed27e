from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sq_imputer.errors import StoreError
from sq_imputer.store import disk


@pytest.fixture
def ours(monkeypatch):
    """A folder that others may read only, in a process that is not the administrator's."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        else:
            os.chmod(folder, 0o555)
        try:
            yield Path(folder)
        finally:
            if root:
                os.seteuid(0)
            os.chmod(folder, 0o755)


def tree(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_no_permission_is_found_and_named(ours):
    with pytest.raises(StoreError, match=rf"'{ours}' cannot be written: Permission denied.*output_path="):
        disk.check_writable(ours / "section.zarr")


def test_the_folder_of_the_element_counts_too(tmp_path):
    store = tmp_path / "section.zarr"
    (store / "tables" / "imputed").mkdir(parents=True)
    disk.check_writable(store, "tables/imputed")
    assert [path.name for path in tmp_path.rglob("*")] == ["section.zarr", "tables", "imputed"]


def test_room_is_asked_for_with_a_margin(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=12_000_000))
    disk.check_writable(tmp_path / "section.zarr", nbytes=10_000_000)
    with pytest.raises(StoreError, match=r"13\.2 MB are needed, 12\.0 MB are free"):
        disk.check_writable(tmp_path / "section.zarr", nbytes=11_000_000)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"the disk is full at .*: up to 15\.0 MB are needed, 12\.0 MB are free, 3\.0 MB are missing"),
        (errno.EDQUOT, "the quota is used up"),
        (errno.EROFS, "'f' cannot be written: Read-only file system"),
        (errno.EACCES, "'f' cannot be written: Permission denied"),
    ],
)
def test_a_disk_at_fault_is_explained_with_the_way_out(tmp_path, monkeypatch, code, message):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=12_000_000))
    with pytest.raises(StoreError, match=f"{message}.*output_path=") as info, disk.explained(tmp_path, 15_000_000):
        raise OSError(code, os.strerror(code), "f")
    assert info.value.__cause__.errno == code


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), disk.explained(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "none", "f")


def test_folders_change_places_in_one_step(tmp_path):
    one, other = tree(tmp_path / "one", a="1"), tree(tmp_path / "other", b="2")
    before = disk.inode(one), disk.inode(other)
    if not disk.exchange(one, other):
        pytest.skip("this file system cannot exchange folders")
    assert (disk.inode(other), disk.inode(one)) == before
    assert texts(one) == {"b": "2"} and texts(other) == {"a": "1"}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_system_that_does_not_exchange_folders_says_so(tmp_path, monkeypatch, code):
    def refused(*_):
        ctypes.set_errno(code)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=refused))
    monkeypatch.setattr("sys.platform", "linux")
    assert disk.exchange(tmp_path / "one", tmp_path / "other") is False


def test_an_exchange_with_nothing_is_an_error(tmp_path):
    one = tree(tmp_path / "one", a="1")
    with pytest.raises(FileNotFoundError):
        disk.exchange(one, tmp_path / "none")
    assert disk.inode(tmp_path / "none") is None


@pytest.mark.parametrize("links", [True, False])
def test_an_element_is_completed_by_what_is_stored_but_for_the_parts(tmp_path, monkeypatch, links):
    stored = tree(tmp_path / "stored", meta="old", a__meta="old", a__x__data="old", a__y__data="old", a__y__more="old")
    new = tree(tmp_path / "new", meta="new", a__meta="new", a__y__data="new", b__meta="new", b__z__data="new")
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    disk.link_others(stored, new, frozenset({"a/y", "b/z"}))
    kept = {"meta": "old", "a/meta": "old", "a/x/data": "old"}
    assert texts(new) == {**kept, "a/y/data": "new", "b/meta": "new", "b/z/data": "new"}
    assert ((new / "a/x/data").stat().st_nlink == 2) == links
    shutil.rmtree(new)
    assert texts(stored) == {**kept, "a/y/data": "old", "a/y/more": "old"}


def test_links_to_files_are_copied_as_files(tmp_path):
    stored = tree(tmp_path / "stored", a="1")
    (stored / "b").symlink_to("a")
    disk.link_others(stored, tmp_path / "new", frozenset())
    assert texts(tmp_path / "new") == {"a": "1", "b": "1"} and not (tmp_path / "new/b").is_symlink()


def test_zarr_and_anndata_never_reach_through_a_link(tmp_path):
    import zarr
    from anndata.io import write_elem

    group = zarr.open_group(tmp_path / "stored", mode="w", zarr_format=3)
    for name in ("changed", "resized", "replaced", "deleted", "written"):
        group[name] = np.arange(100)
    write_elem(group, "dict", {"kept": np.arange(9), "replaced": np.arange(9)})
    before = {path: path.read_bytes() for path in (tmp_path / "stored").rglob("*") if path.is_file()}
    disk.link_others(tmp_path / "stored", tmp_path / "new", frozenset())
    linked = zarr.open_group(tmp_path / "new", mode="r+")
    linked.attrs["more"] = 1
    linked["changed"][:50] = 0
    linked["changed"].attrs["more"] = 1
    linked["resized"].resize((20,))
    linked.create_array("replaced", data=np.zeros(7), overwrite=True)
    del linked["deleted"]
    write_elem(linked, "written", np.zeros(3))
    write_elem(linked["dict"], "replaced", {"a": np.zeros(3)})
    write_elem(linked, "dict", {"b": np.zeros(3)})
    zarr.open_group(tmp_path / "new", mode="w")
    assert before == {path: path.read_bytes() for path in (tmp_path / "stored").rglob("*") if path.is_file()}


def test_new_files_and_all_folders_are_flushed_and_links_are_not(tmp_path, monkeypatch):
    stored = tree(tmp_path / "stored", a="1")
    new = tree(tmp_path / "new", b__c="2")
    disk.link_others(stored, new, frozenset())
    synced, sync = [], disk.sync
    monkeypatch.setattr(disk, "sync", lambda path: (synced.append(path.relative_to(new).as_posix()), sync(path)))
    disk.flush(new)
    assert synced[0] == "b/c" and sorted(synced[1:]) == [".", "b"]
