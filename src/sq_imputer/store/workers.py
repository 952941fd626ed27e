"""Shards of a journal that the workers of a dask cluster compute and write: a lost worker costs its shard, not the run.

What computes shards is sent once, as a task of its own that the others need: where the worker that holds it is lost,
dask makes it again. A worker writes its shard as the journal itself does, whole or not at all, and returns nothing; so
nothing is held by the cluster, and the process that runs the verb reads what is on the disk and commits it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, OutOfMemory, StoreError
from sq_imputer.progress import quiet, track
from sq_imputer.store.shards import Parts, packed, read_shard, replace_file

if TYPE_CHECKING:
    from distributed import Client

PATIENCE_S = (0.0, 0.5, 2.0, 8.0)  # a file of another machine may take a moment to be seen on a network disk


class Workers:
    """The cluster behind a client.

    Parameters
    ----------
    client
        Of dask.distributed, in the usual, blocking form.

    Raises
    ------
    BadInput
        If it is none, or if a worker has not the version of sq_imputer that is here.
    """

    def __init__(self, client: Client) -> None:
        self.client = check_client(client)
        _check_versions(self.client)

    def shards(
        self, name: str, compute: Callable[[np.ndarray], Parts], left: Sequence[tuple[Path, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, Parts]]:
        """Rows and what was computed for them, as workers have written it.

        Parameters
        ----------
        name
            What is computed, for the progress bar.
        compute
            Gives arrays by name for some rows; it is sent to the workers.
        left
            The file of every shard, and its rows, which ascend.

        Raises
        ------
        BadInput
            If a worker cannot import what `compute` is made of.
        OutOfMemory
            If several workers were lost over one shard.
        StoreError
            If a worker cannot write, or what it wrote is not to be seen here.
        """
        import cloudpickle
        from distributed import KilledWorker, as_completed

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")  # it is sent once
            held = self.client.submit(_loaded, cloudpickle.dumps(compute), pure=False)
        paths, rows = zip(*left, strict=True)
        futures = self.client.map(_write_shard, paths, rows, compute=held, pure=False)
        of = dict(zip(futures, left, strict=True))
        try:
            done = track(as_completed(futures), f"{name} on the cluster", len(left))
            for future in done:
                path, some = of.pop(future)
                future.result()
                future.release()
                yield some, _awaited(path, some)
        except KilledWorker as error:
            raise OutOfMemory(
                f"workers were lost one after the other over the same rows ({error.task}), most often for want of "
                f"memory. Give each more memory or fewer threads, and call again: what is done is kept in "
                f"'{paths[0].parent}'."
            ) from error
        finally:
            self.client.cancel([held, *of])


def check_client(client) -> Client:
    """The client, if it is one that can be waited for."""
    try:
        from distributed import Client
    except ImportError as error:
        raise BadInput(
            f'client is {client!r}, and dask.distributed is not there. Run: pip install "sq-imputer[dask]".'
        ) from error
    if not isinstance(client, Client) or client.asynchronous:
        raise BadInput(
            f"client is a {type(client).__name__}; expected distributed.Client(...), not asynchronous. Leave out "
            "client= to run in this process."
        )
    return client


def _check_versions(client: Client) -> None:
    """Refuse workers that would compute something else, or end at once and be waited for."""
    found = client.get_versions(check=False, packages=["sq_imputer"])
    here = found["client"]["packages"]["sq_imputer"]
    for name, one in found["workers"].items():
        there = one["packages"].get("sq_imputer")
        if there != here:
            raise BadInput(
                f"worker {name} has {f'sq_imputer {there}' if there else 'no sq_imputer'}, and here is {here}. Start "
                "workers in an environment with the same version."
            )


def _loaded(pickled: bytes) -> Callable[[np.ndarray], Parts]:
    """What computes shards. A worker that unpacks it as the argument of a task ends where a module is missing."""
    import cloudpickle

    try:
        return cloudpickle.loads(pickled)
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"a worker cannot load what it is to compute: {error}. A model or encoder of your own must lie in a "
            "package that is installed where workers run, or in the script that is run."
        ) from None


def _write_shard(path: Path, rows: np.ndarray, compute: Callable[[np.ndarray], Parts]) -> None:
    """What a worker does."""
    if not path.parent.is_dir():
        raise StoreError(
            f"'{path.parent}' is not to be seen by a worker. The store, or output_path=, must lie on a disk that all "
            "workers share, under one path."
        )
    with quiet():
        replace_file(path, packed(rows, compute(rows)))


def _awaited(path: Path, rows: np.ndarray) -> Parts:
    """A shard that a worker says it has written."""
    for seconds in PATIENCE_S:
        time.sleep(seconds)
        found = read_shard(path, rows)
        if found is not None:
            return found
    raise StoreError(
        f"a worker has written '{path}', which is not to be seen here. The store, or output_path=, must lie on a disk "
        "that all workers share, under one path."
    )
