"""Runs of `tl.predict(resume=True)` killed at evenly spread shards and called again, beside an uninterrupted one.

    python benchmarks/resume.py

`benchmarks/faults.py` ends with this. Every run is a process of its own; features, folds and rows of a toy section are
kept in shards of 16, and every shard that is computed is noted in a file that survives the kill.
"""

from __future__ import annotations

import argparse
import collections
import functools
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

ROWS = 16


def quiet() -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)  # its note on every label image it reads


def predict(store: str, log: str) -> None:
    import spatialdata

    import sq_imputer as sqi
    from sq_imputer.store import journal
    from sq_imputer.store.journal import Journal

    quiet()
    journal.ROWS, parts = ROWS, Journal.parts

    def noted(self, name, order, compute):
        def computed(rows):
            with open(log, "a") as file:
                file.write(f"{name} {rows[0]}\n")
            return compute(rows)

        return parts(self, name, order, computed)

    Journal.parts = noted
    config = sqi.get_model("ridge").Config.small()
    plan = sqi.Plan(device="cpu")
    sqi.tl.predict(spatialdata.read_zarr(store), "ridge", genes=20, config=config, plan=plan, resume=True)


def run(context, store: Path, killed_at: int | None = None, wait: float = 0.0) -> list[str]:
    """The shards that a run computed, which is killed some moments after it has begun the one of this number."""
    log = store.with_suffix(".log")
    log.write_text("")
    process = context.Process(target=predict, args=(str(store), str(log)))
    process.start()
    while killed_at is not None and process.is_alive():
        if len(log.read_text().splitlines()) >= killed_at:
            time.sleep(wait)
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join()
    return log.read_text().splitlines()


def resumed(context, folder: Path, points: int) -> None:
    """What is left after every kill, and how the result of the second call compares with an uninterrupted one."""
    import spatialdata

    import sq_imputer as sqi

    quiet()
    toy = sqi.datasets.toy(1, size_px=640, mpp=2.5, seed=11)["P1"]
    toy.write(folder / "whole.zarr", update_sdata_path=False)
    needed, rng = run(context, folder / "whole.zarr"), np.random.default_rng(0)
    expected = spatialdata.read_zarr(folder / "whole.zarr").tables["imputed"]
    store, count, again, furthest = folder / "killed.zarr", collections.Counter(), [], 0.0
    for point in np.linspace(1, len(needed), points).astype(int):
        toy.write(store, update_sdata_path=False)
        before, after = run(context, store, point, rng.uniform(0, 0.1)), []
        if "imputed" not in spatialdata.read_zarr(store).tables:
            count["killed in time"] += 1
            after = run(context, store)
        found = spatialdata.read_zarr(store).tables["imputed"]
        again.append(len(before) + len(after) - len(needed))
        same = functools.partial(np.array_equal, equal_nan=True)
        count["bit-equal"] += all(same(found.layers[name], expected.layers[name]) for name in expected.layers)
        furthest = max(furthest, float(np.abs(found.X - expected.X).max()))
        count["left over"] += sum(path.name.startswith(".killed") for path in folder.iterdir())
        shutil.rmtree(store)
    print(f"\nResume: ridge on {expected.n_obs} spots out of fold, {len(needed)} shards of {ROWS}, {points} kills")
    print(f"  {dict(count)}; largest difference {furthest:g}; shards computed twice, by kill: {again}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10)
    options = parser.parse_args(argv)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spatialdata", "sq_imputer.tl", "sq_imputer.models.ridge"])
    with tempfile.TemporaryDirectory(prefix="sqi_resume") as folder:
        resumed(context, Path(folder), options.points)


if __name__ == "__main__":
    main()
