#!/usr/bin/env bash
# A worker of dask computes arrays of some MB at half of the speed: after each it gives the memory back to the system.
#
# Expected: a function on numpy arrays or torch tensors takes as many seconds of the processor on a worker as here.
# Seen (distributed 2026.1.1 with numpy 2.4.6 and torch 2.13.0, Linux with glibc): dask starts workers with
#   MALLOC_TRIM_THRESHOLD_=65536 (its setting distributed.nanny.pre-spawn-environ). That also ends glibc's way of
#   learning how large blocks are that come again and again: every array above 128 kB is asked of the system, cleared
#   and given back. Arrays of 4 MB took 2.2 times the seconds, describing pixels with torch 2.3 times (19.7 s for 8.6 s).
# This project: docs/howto/cluster.md says which thresholds to start workers with, and benchmarks/cluster.py does so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dask==2026.1.1 distributed==2026.1.1 numpy==2.4.6
cd "$folder"
cat >seen.py <<'PYTHON'
import time

import dask, distributed, numpy as np
from distributed import Client, LocalCluster


def work(_):
    begun = time.process_time()
    x = np.ones((256, 4096), dtype=np.float32)  # 4 MB
    for _ in range(400):
        y = np.sqrt(x * 2 + 1) - x
    return time.process_time() - begun


def seconds(environ):
    alone = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environ}):
        with LocalCluster(**alone) as cluster, Client(cluster) as client:
            return min(client.submit(work, k, pure=False).result() for k in range(4))


if __name__ == "__main__":
    theirs = dict(dask.config.get("distributed.nanny.pre-spawn-environ"))
    libc = {**theirs, "MALLOC_TRIM_THRESHOLD_": 128 << 20, "MALLOC_MMAP_THRESHOLD_": 32 << 20}
    slow, quick = seconds(theirs), seconds(libc)
    said = f"distributed {distributed.__version__}: {slow:.2f} s of a worker as it is started, {quick:.2f} s with larger thresholds"
    if slow < 1.25 * quick:
        raise SystemExit(f"changed: {said}")
    print(f"still seen: {said}")
PYTHON
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore seen.py
