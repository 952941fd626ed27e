"""The store on disk: what is new is made beside it and takes its place by one rename, so that a kill costs nothing.

SpatialData writes elements in place: its `overwrite=True` is always refused on a backed store, and an interrupted write
leaves a name that can be neither written nor deleted, or a store that cannot be opened. Here an element is completed in
a hidden folder beside the store, flushed to the disk, and exchanged with the old one. What was kept of a table is not
copied but hard-linked; zarr (3.1.3 and later) changes no file in place, so the old version stays what it was.
`docs/concepts/stores` says what is promised.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sq_imputer.errors import StoreError
from sq_imputer.store.disk import ELSEWHERE, exchange, explained, flush, inode, link_others, sync

KINDS = ("images", "labels", "points", "shapes", "tables")
WAIT_S = 10.0  # for another process that is changing the store
QUIET = 10  # looks, 20 ms apart, that must find nothing written any more
_MARK = ".sq_imputer-"


def recover(path: str | Path, *, other_hosts: bool = False) -> list[Path]:
    """Clear away what killed writers left beside a store. Every write does so first.

    A writer holds a lock on its folder as long as it lives, so that live ones are left alone. The store itself is
    always complete, but for two renames where the file system cannot exchange folders: a writer killed between them is
    finished here. The consolidated metadata is written anew if a writer was killed before it was.

    Parameters
    ----------
    path
        The store.
    other_hosts
        Also what was left by other hosts, whose locks may be invisible here: only if nothing runs there.

    Returns
    -------
    The folders that were removed.

    Raises
    ------
    StoreError
        If the store cannot be written, or another process holds it.
    """
    store = Path(path).resolve()
    with explained(store), _lock(store):
        return _recover(store, other_hosts)


def commit(
    store: Path,
    path: str,
    write: Callable[[Path], Iterable[str] | None],
    *,
    check: Callable[[], None] | None = None,
    finish: Callable[[Path], None] | None = None,
    nbytes: int = 0,
) -> None:
    """Put one element into a store, all of it or nothing.

    Parameters
    ----------
    store
        Folder of the store.
    path
        Path of the element in the store: "tables/imputed".
    write
        Called with an empty folder; writes the element there, at `path`. If it returns names of parts ("layers/stem"),
        it has written these only, and the rest is what the store has.
    check
        Called when no other process can write, before anything is changed; raises if it may not be changed any more.
    finish
        Called then with the folder of an element that was completed from parts.
    nbytes
        What the element may need, for the message if there is no room.

    Raises
    ------
    StoreError
        If there is no room, no permission, or another process holds the store.
    """
    with explained(store, nbytes), _staging(store) as staging:
        new = staging / "new"
        parts = write(new)
        flush(new)  # the long part: no other writer waits for it
        with _lock(store):
            if check is not None:
                check()
            if parts is not None:
                link_others(store / path, new / path, frozenset(parts))
                if finish is not None:
                    finish(new / path)
                flush(new)
            _put_in(store, path, staging)


def create(store: Path, write: Callable[[Path], None], nbytes: int = 0) -> None:
    """Make a new store, all of it or nothing; `write` is called with the path to write to.

    Raises
    ------
    StoreError
        If the path exists, or cannot be written.
    """
    with explained(store, nbytes), _staging(store) as staging:
        write(staging / "new")
        flush(staging / "new")
        with _lock(store):
            if os.path.lexists(store):
                raise StoreError(f"'{store}' exists. Pass another path.")
            os.rename(staging / "new", store)
            sync(store.parent)


@contextmanager
def _lock(store: Path) -> Iterator[None]:
    """Keep out other writers, and Ctrl-C. The lock's file goes with it: who waits sees that, and makes a new one."""
    from filelock import FileLock

    path = store.with_name(f".{store.name}.lock")
    lock = FileLock(path, mode=0o666)  # of a shared store: one that was killed leaves its file to anyone
    with _ctrl_c_later() as heard:
        _wait_for(lock, store, heard)
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file; it is used again
                path.unlink()
            lock.release()


def _wait_for(lock, store: Path, heard: list) -> None:
    from filelock import Timeout

    late = time.monotonic() + WAIT_S
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.1, poll_interval=0.01)
        except Timeout:
            if heard:
                raise KeyboardInterrupt from None
            if time.monotonic() > late:
                writers = [name.rsplit("-", 2) for name in _stagings(store)]
                others = [f"process {pid} on {host}" for host, pid, _ in writers if pid != str(os.getpid())]
                raise StoreError(
                    f"another process has held '{store}' for {WAIT_S:g} s; at work on it: "
                    f"{', '.join(others) or 'unknown'}. Wait for it, or end it: "
                    "the store is whole at any time, and the lock ends with its process. "
                    f"Or {ELSEWHERE}"
                ) from None


@contextmanager
def _staging(store: Path) -> Iterator[Path]:
    """A folder beside the store that is this process's as long as it lives."""
    from filelock import FileLock

    staging = store.with_name(f".{store.name}{_MARK}{_host()}-{os.getpid()}-{secrets.token_hex(4)}")
    alive = FileLock(staging / "alive")
    with ExitStack() as after:
        after.callback(_remove, staging)
        after.callback(alive.release)
        with _lock(store):  # nobody takes the folder for abandoned before its lock is held
            _recover(store)
            staging.mkdir()
            alive.acquire(blocking=False)
        yield staging


def _stagings(store: Path) -> dict[str, Path]:
    """The folders of all writers, by "host-pid-token"."""
    prefix = f".{store.name}{_MARK}"
    names = {path.name.removeprefix(prefix): path for path in store.parent.iterdir() if path.name.startswith(prefix)}
    return {name: path for name, path in names.items() if name.count("-") >= 2}


def _remove(staging: Path) -> None:
    """Remove a folder; after an error, until the threads of zarr and dask that it did not stop are quiet."""
    quiet, late = 0 if sys.exc_info()[0] else QUIET, time.monotonic() + WAIT_S
    with _ctrl_c_later():
        shutil.rmtree(staging, ignore_errors=True)
        while quiet < QUIET and time.monotonic() < late:  # the disk may have become read-only
            time.sleep(0.02)
            quiet = 0 if staging.exists() else quiet + 1
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _ctrl_c_later() -> Iterator[list]:
    """Let a moment of work be finished before Ctrl-C is raised; only the main thread hears it. What was heard."""
    handler, heard = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield heard
        return
    signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, handler)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _host() -> str:
    return "".join(c if c.isalnum() or c in "._" else "_" for c in socket.gethostname())[:64]


def _recover(store: Path, other_hosts: bool = False) -> list[Path]:
    """Clear away what dead writers left; the caller holds the lock."""
    removed = []
    for name, staging in _stagings(store).items():
        if (name.rsplit("-", 2)[0] != _host() and not other_hosts) or _is_alive(staging):
            continue
        root = _root(staging / "swapping")  # gone if the kill came later, or its writer is just cleaning up
        if root is not None and store.is_dir():
            _finish(store, staging)
            _consolidate(store, root)
        shutil.rmtree(staging, ignore_errors=True)
        removed.append(staging)
    return removed


def _finish(store: Path, staging: Path) -> None:
    """Put in what a writer had ready when it was killed between two renames."""
    for kind in KINDS:
        for old in (staging / "old").glob(f"{kind}/*"):
            new, target = staging / "new" / kind / old.name, store / kind / old.name
            if not os.path.lexists(target) and new.is_dir():
                os.rename(new, target)
                sync(target.parent)


def _is_alive(staging: Path) -> bool:
    from filelock import FileLock, Timeout

    lock = FileLock(staging / "alive")
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):  # held, or another user's
        return True
    lock.release()
    return False


def _put_in(store: Path, path: str, staging: Path) -> None:
    """Swap the completed element in and consolidate; or, if that fails, leave all as it was."""
    unit = path if (store / path).parent.is_dir() else path.partition("/")[0]  # the first table brings its group
    staged, target, aside = staging / "new" / unit, store / unit, staging / "old" / unit
    before = inode(staged), inode(target)
    aside.parent.mkdir(parents=True)
    shutil.copy2(store / "zarr.json", staging / "root")
    os.rename(staging / "root", staging / "swapping")  # from here on there is something to be finished, or undone
    sync(staging)
    try:
        if before[1] is None:
            os.rename(staged, target)
        elif not exchange(staged, target):
            _unlist(store, staging)
            os.rename(target, aside)
            os.rename(staged, target)
        sync(target.parent)
        _consolidate(store, _root(staging / "swapping"))
    except BaseException:
        _swap_back(staged, target, aside, before)
        os.replace(staging / "swapping", store / "zarr.json")
        raise


def _unlist(store: Path, staging: Path) -> None:
    """Take the listing of all metadata out of the root: what it lists and is not there would keep it from opening."""
    metadata = _root(store / "zarr.json")
    if metadata.pop("consolidated_metadata", None):
        (staging / "root").write_text(json.dumps(metadata, indent=2))
        os.replace(staging / "root", store / "zarr.json")


def _swap_back(staged: Path, target: Path, aside: Path, before: tuple[int | None, int | None]) -> None:
    """Undo as much of a swap as was done, as the folders themselves tell."""
    new, old = before
    if inode(target) == new and inode(staged) == old and old is not None:
        exchange(staged, target)
    elif inode(target) == new:
        os.rename(target, staged)
    if inode(aside) == old and old is not None:
        os.rename(aside, target)


def _root(path: Path) -> dict | None:
    """The metadata of a root, or of a copy of it; None if there is none any more."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _consolidate(store: Path, root: dict) -> None:
    """Renew the listing of all metadata in the root, if it was there when the root was read."""
    if root.get("consolidated_metadata"):
        consolidate(store)
        sync(store / "zarr.json")
        sync(store)


def consolidate(store: Path) -> None:
    """List all metadata of a store in its root."""
    import zarr

    with warnings.catch_warnings():  # zarr has notes on parquet files, and on the listing itself
        warnings.filterwarnings("ignore", category=zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(zarr.storage.LocalStore(store))


def staging_of(path: Path) -> Path:
    """The folder of the writer that a path lies in: what is made there beside the element goes away with it."""
    return next(folder for folder in path.parents if _MARK in folder.name)
