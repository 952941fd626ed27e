#!/usr/bin/env bash
# Workers of dask that have nothing to do take a sixth of a core, and slow down what they do when there are few cores.
#
# Expected: workers at rest wait for messages, and say from time to time that they are there.
# Seen (distributed 2026.1.1, Python 3.12, Linux): four workers of a LocalCluster took .12 to .18 seconds of the
#   processor per second, and did nothing. Each process, nannies and the scheduler as well, wakes every 20 ms to see
#   whether its loop is late (distributed.admin.tick.interval), asks the system twice a second how it is
#   (system-monitor.interval), and looks every 10 ms what a thread does (worker.profile). With 1 s, 5 s and no profile
#   it is a fourth or less. Work of 20 s on four workers of two cores took 22 % more seconds than in one process with the
#   settings as they are, and 7 % more with these.
# This project: docs/howto/cluster.md says which settings to start workers with, and benchmarks/cluster.py does so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dask==2026.1.1 distributed==2026.1.1
cd "$folder"
cat >seen.py <<'PYTHON'
import time

import dask, distributed
from distributed import Client, LocalCluster

LESS = {
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.profile.enabled": False,
}
SECONDS = 10


def used():
    return time.process_time()


def share(settings):
    alone = {"n_workers": 4, "threads_per_worker": 1, "dashboard_address": None}
    with dask.config.set(settings), LocalCluster(**alone) as cluster, Client(cluster) as client:
        time.sleep(3)
        before = used() + sum(client.run(used).values())
        time.sleep(SECONDS)
        return (used() + sum(client.run(used).values()) - before) / SECONDS


if __name__ == "__main__":
    theirs, less = share({}), share(LESS)
    said = f"distributed {distributed.__version__}: workers at rest take {theirs:.3f} of a core as they are started, {less:.3f} with less"
    if theirs < 2 * less:
        raise SystemExit(f"changed: {said}")
    print(f"still seen: {said}")
PYTHON
"$folder/venv/bin/python" -W ignore seen.py
