#!/usr/bin/env bash
# A parallel function of numba changes the number of threads that torch works with, also against OMP_NUM_THREADS.
#
# Expected: torch keeps the number of threads that the environment or torch.set_num_threads gave it.
# Seen (numba 0.68.1 with torch 2.13.0 and 2.14.1, Linux, more than one processor): after any function compiled with
#   parallel=True, as in scanpy.pp.neighbors (umap, pynndescent), torch.get_num_threads() is the number of processors:
#   numba's OpenMP layer calls omp_set_num_threads in the calling thread, of the library that torch has loaded. On
#   processors that others use as well, fits of small matrices took 8 times as many seconds of the processor (12 s and
#   96 s for 15 fits).
# This project: tl.domains gives torch its number back (sq_imputer.device.threads_kept). After scanpy.pp.neighbors of
#   your own, set NUMBA_NUM_THREADS, or call torch.set_num_threads again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.12}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numba==0.68.1 torch==2.13.0 numpy
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import os

import numba, numpy as np, torch

if os.cpu_count() < 2:
    raise SystemExit("not seen here: this needs two processors")


@numba.njit(parallel=True)
def total(values):
    found = 0.0
    for i in numba.prange(len(values)):
        found += values[i]
    return found


before = torch.get_num_threads()
total(np.ones(1000))
after = torch.get_num_threads()
if (before, numba.threading_layer()) == (1, "omp") and after > 1:
    print(f"still seen: numba {numba.__version__}, torch {torch.__version__}: {before} thread of torch, then {after}")
else:
    raise SystemExit(f"changed: {before} threads of torch, then {after}; layer {numba.threading_layer()}")
PYTHON
