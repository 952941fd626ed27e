"""Workers of a cluster: one of four is killed at its work, nothing is lost; and what they cost beside this process.

    python benchmarks/cluster.py [--cells 20000] [--size 6000] [--workers 4] [--json benchmarks/figures.json]

Cells on toy tissue, features of `texture` for ridge's default views. Runs on copies of one store: in this process alone
with a journal, on a new cluster, whose workers begin with imports, on the same again, and with a worker killed once a
tenth of the shards is written. The cost is that of all processes, in CPU seconds: walls of a machine with fewer cores
than workers say little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, as a worker of dask has it

import dask
import numpy as np
import pandas as pd
import spatialdata

import sq_imputer as sqi

SPAWN = "distributed.nanny.pre-spawn-environ"
THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_": 2**27, "MALLOC_MMAP_THRESHOLD_": 2**25}  # as docs/howto/cluster.md has it
SETTINGS = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
}


def cpu() -> float:
    """Seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def section(folder: Path, size: int, cells: int) -> Path:
    """A store with an image of toy tissue and cells on it."""
    from geopandas import GeoDataFrame
    from shapely import points
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    sdata = sqi.datasets.toy(1, size_px=size, mpp=0.5, seed=3)["P1"]
    image = sdata.images["he"]
    at = np.random.default_rng(0).uniform(60, size - 60, (cells, 2))
    shapes = GeoDataFrame({"radius": np.full(cells, 8.0)}, geometry=points(at))
    known = {"transformations": get_transformation(image, get_all=True)}
    sdata.shapes["cells"] = ShapesModel.parse(shapes, **known)
    sdata.write(folder / "section.zarr")
    return folder / "section.zarr"


def killer(client, folder: Path, share: float, total: list[int]) -> threading.Thread:
    """A thread that ends a worker once so many shards are written."""

    def wait() -> None:
        while len(list(folder.glob(".*.run/*features*.shard"))) < share * total[0]:
            time.sleep(0.05)
        pid = next(iter(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        print(f"killed worker {pid}", flush=True)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def predicted(store: Path, name: str, model, **how) -> tuple[np.ndarray, float]:
    """The layer of a run on a copy of the store, and its seconds."""
    copy = store.parent / name / "section.zarr"
    shutil.copytree(store, copy)
    sdata, start = spatialdata.read_zarr(copy), time.perf_counter()
    sqi.tl.predict(sdata, model, shapes_key="cells", table_key=None, progress=False, **how)
    return np.asarray(sdata.tables["imputed"].layers["ridge"]), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20000)
    parser.add_argument("--size", type=int, default=6000, help="pixels along a side of the image, of .5 µm")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    args = parser.parse_args()
    from distributed import Client, LocalCluster

    model = sqi.tl.fit(sqi.datasets.toy(1, size_px=1600, mpp=0.5, seed=4)["P1"], "ridge", genes=50, progress=False)
    rows, total = [], [1]
    with tempfile.TemporaryDirectory() as folder:
        store = section(Path(folder), args.size, args.cells)
        from sq_imputer.store import journal

        before, replace = cpu(), journal.Journal._replace
        journal.Journal._replace = lambda self, path, content: (
            total.__setitem__(0, total[0] + 1),
            replace(self, path, content),
        )
        expected, wall = predicted(store, "here", model, resume=True)
        journal.Journal._replace = replace
        rows.append({"run": "this process", "wall_s": wall, "cpu_s": cpu() - before})
        alone = {"n_workers": args.workers, "threads_per_worker": 1, "dashboard_address": None}
        dask.config.set({SPAWN: {**dask.config.get(SPAWN), **THRESHOLDS}, **SETTINGS})
        with LocalCluster(**alone, silence_logs=50) as cluster, Client(cluster) as client:
            for name in ("cluster, new", "cluster, again", "one killed"):
                mine, theirs = cpu(), sum(map(seconds_of, client.run(os.getpid).values()))
                if name == "one killed":
                    killer(client, store.parent / name, 0.1, total)
                found, wall = predicted(store, name, model, client=client)
                used = sum(map(seconds_of, client.run(os.getpid).values())) - theirs + cpu() - mine
                rows.append({"run": name, "wall_s": wall, "cpu_s": np.nan if name == "one killed" else used})
                rows[-1]["equal"] = bool(np.array_equal(found, expected, equal_nan=True))
    table = pd.DataFrame(rows).set_index("run")
    table["beside this process"] = table["cpu_s"] / table["cpu_s"].iloc[0] - 1
    print(f"{args.cells} cells, {total[0]} shards, {args.workers} workers on {os.cpu_count()} cores")
    print(table.round(3).to_string())
    if args.json is not None:
        figures, shown = json.loads(args.json.read_text()), table["cpu_s"].dropna().round(1).to_dict()
        figures["cluster"] = {"cells": args.cells, "workers": args.workers, **shown}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
