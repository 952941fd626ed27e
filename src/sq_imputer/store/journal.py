"""The journal of a long run: what has been computed lies on disk until all of it is written where it belongs.

A journal is a hidden folder beside the store. It holds `manifest.json`, which says of what the run is, and shards: the
results for some rows each, written whole or not at all (a new file, flushed to the disk, then renamed) behind the
sha256 of their content. A run that was killed finds the shards that count and computes the others.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.places import alike
from sq_imputer.store.shards import Parts, packed, read_shard, replace_file, unwritable

if TYPE_CHECKING:
    from sq_imputer.store.workers import Workers

ROWS = 256  # in a shard: what a killed run computes again is less than this
ALIKE = "alike"  # in a manifest: numbers that are compared as places are
_MANIFEST = "manifest.json"
_LOCK = "lock"


class Journal:
    """Shards of one run. A context: no other process runs on the same journal meanwhile.

    Parameters
    ----------
    folder
        Where it lies, or will.
    manifest
        What the run is of: anything that JSON can hold, and on which the shards depend.
    workers
        A cluster that computes and writes shards; None: this process does.

    Raises
    ------
    BadInput
        If the folder holds the shards of another run, or another process is at work on it.
    StoreError
        If it cannot be written.
    """

    def __init__(self, folder: Path, manifest: Mapping, workers: Workers | None = None) -> None:
        self.folder, self.workers = folder, workers
        self.manifest = json.loads(json.dumps(manifest, default=lambda value: value.item()))  # numbers of numpy

    def __enter__(self) -> Journal:
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / _LOCK)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise BadInput(
                f"another process is at work on the run in '{self.folder}'. Wait for it, or stop it."
            ) from error
        except OSError as error:
            raise unwritable(self.folder, error) from error
        try:
            self._check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if all(path.name in (_MANIFEST, _LOCK) for path in self.folder.glob("*")):  # nothing was done yet
            self.remove()
        self._lock.release()

    def remove(self) -> None:
        """Take the journal away: what it held is written elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def parts(
        self, name: str, order: np.ndarray | list[np.ndarray], compute: Callable[[np.ndarray], Parts]
    ) -> Iterator[tuple[np.ndarray, Parts]]:
        """Row numbers and what was computed for them, now or by an earlier process.

        Parameters
        ----------
        name
            What is computed; a part of file names.
        order
            `(n,)` row numbers in the order in which they are computed best, or portions of them that are computed
            together, a shard each. Every process must give the same.
        compute
            Gives arrays by name for some rows, in ascending order. Workers are given one that `travels`, and their
            shards come as they are ready.
        """
        if isinstance(order, np.ndarray):
            order = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
        left = []
        for number, rows in enumerate(order):
            some, path = np.sort(rows), self.folder / f"{name}-{number:05d}.shard"
            found = read_shard(path, some)
            if found is None and self.workers is not None and getattr(compute, "travels", False):
                left.append((path, some))
                continue
            if found is None:
                found = compute(some)
                self._replace(path, packed(some, found))
            yield some, found
        if left:
            yield from self.workers.shards(name, compute, left)

    def _check(self) -> None:
        """The manifest, written if there is none yet, is that of this run."""
        path = self.folder / _MANIFEST
        if not path.is_file():
            for strange in (entry for entry in self.folder.iterdir() if entry.name != _LOCK):
                # a removal that was killed left it: nobody knows of what run it is
                shutil.rmtree(strange) if strange.is_dir() else strange.unlink()
            self._replace(path, json.dumps(self.manifest).encode())
            return
        try:
            known = json.loads(path.read_text())
        except ValueError as error:
            raise BadInput(f"'{path}' is damaged. Delete '{self.folder}' to begin the run anew.") from error
        differs = _differences(known, self.manifest)
        if differs:
            raise BadInput(
                f"'{self.folder}' holds an unfinished run that differs from this one: {'; '.join(differs[:5])}. Give "
                f"the same input and arguments to go on with it, or delete the folder to begin anew."
            )

    def _replace(self, path: Path, content: bytes) -> None:
        replace_file(path, content)


@dataclass(frozen=True)
class Part:
    """The part of a journal that belongs to one section."""

    journal: Journal
    section: str

    def parts(self, name: str, order, compute: Callable[[np.ndarray], Parts]) -> Iterator:
        """As :meth:`Journal.parts`, under names of this section's own."""
        return self.journal.parts(f"{self.section}-{name}", order, compute)


def _differences(old, new, path: str = "") -> list[str]:
    """Where two manifests differ: `"plan.seed was 0, is 1"`."""
    if isinstance(old, dict) and isinstance(new, dict):
        if set(old) == set(new) == {ALIKE}:
            return [] if alike(old[ALIKE], new[ALIKE]) else [f"{path} differs"]
        keys = [*old, *(key for key in new if key not in old)]
        parts = [_differences(old.get(key), new.get(key), f"{path}.{key}".lstrip(".")) for key in keys]
        return [difference for part in parts for difference in part]
    return [] if old == new else [f"{path} was {_short(old)}, is {_short(new)}"]


def _short(value) -> str:
    return listed(value, 3) if isinstance(value, list) else repr(value)
