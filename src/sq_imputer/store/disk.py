"""What a disk can do: flush, link and exchange folders, and say why it cannot."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from sq_imputer.errors import StoreError

MARGIN = 1.2  # free space asked for, of what is estimated: metadata, blocks, other users
ELSEWHERE = "save elsewhere: output_path='<new>.zarr' where the call has it, else sdata.write('<new>.zarr') first."

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)  # the last from containers that forbid the call
_NO_LINK = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


def check_writable(store: Path, path: str = "", nbytes: int = 0) -> None:
    """Check that there is permission to write an element into a store, and space for it beside the store.

    Raises
    ------
    StoreError
        If not; the message says what is needed and how to save elsewhere.
    """
    folders = [folder for folder in (store.parent, store, (store / path).parent, store / path) if folder.is_dir()]
    for folder in folders:  # tried, since access(2) says yes to root, and knows nothing of quotas
        with explained(folder, nbytes):
            try:
                tempfile.TemporaryFile(dir=folder, prefix=".").close()
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(folder)) from None
    if len({folder.stat().st_dev for folder in folders}) > 1:
        raise StoreError(f"'{store}' and the folder that it lies in are on two file systems. Move it; or {ELSEWHERE}")
    free = shutil.disk_usage(store.parent).free
    if nbytes * MARGIN > free:
        raise StoreError(
            f"not enough space beside '{store}': {_mb(nbytes * MARGIN)} are needed, {_mb(free)} are free. Make room; "
            f"or {ELSEWHERE}"
        )


@contextmanager
def explained(where: Path, nbytes: int = 0) -> Iterator[None]:
    """Say what the user can do about a write that failed for want of room or permission."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in _NO_PERMISSION:
            raise StoreError(
                f"'{error.filename or where}' cannot be written: {error.strerror}. Ask for permission; or {ELSEWHERE}"
            ) from error
        if error.errno not in _NO_ROOM:
            raise
        free = shutil.disk_usage(where if where.is_dir() else where.parent).free
        what = "the quota is used up" if error.errno == errno.EDQUOT else "the disk is full"
        raise StoreError(
            f"{what} at '{where}': up to {_mb(nbytes)} are needed, {_mb(free)} are free, {_mb(max(nbytes - free, 0))} "
            f"are missing. What was there is unchanged. Make room; or {ELSEWHERE}"
        ) from error


def _mb(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.1f} MB"


def link_others(stored: Path, new: Path, parts: frozenset[str], at: str = "") -> None:
    """Complete an element of which only parts were written by links to what is stored."""
    new.mkdir(exist_ok=True)
    new.chmod(stat.S_IMODE(stored.stat().st_mode) | stat.S_IRWXU)
    for entry in os.scandir(stored):
        name, target = at + entry.name, new / entry.name
        if name in parts:
            continue
        if entry.is_dir():
            link_others(Path(entry.path), target, parts, f"{name}/")
            continue
        target.unlink(missing_ok=True)  # metadata of a group that was written only to hold a part
        try:
            os.link(os.path.realpath(entry.path) if entry.is_symlink() else entry.path, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            shutil.copy2(entry.path, target)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    here, swapping = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(one), here, os.fsencode(other), swapping) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def inode(path: Path) -> int | None:
    """What tells a folder from one that takes its place; None where there is nothing."""
    return path.lstat().st_ino if os.path.lexists(path) else None


def flush(folder: Path) -> None:
    """Bring new files and all folders below one to the disk; links lead to files that are there."""
    folders, files = [], []
    for parent, _, names in os.walk(folder):
        folders.append(Path(parent))
        files += [file for name in names if (file := Path(parent, name)).lstat().st_nlink == 1 and file.is_file()]
    with ThreadPoolExecutor(8) as pool:  # the disk's journal takes what comes together in one go
        list(pool.map(sync, files))
        list(pool.map(sync, folders))


def sync(path: Path) -> None:
    """Bring one file or folder to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    file = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
