"""Windows of a chromosome as long as a human one: seconds and memory of streaming them, one batch at a time.

    python benchmarks/windows.py [--bases 250000000] [--rows 500] [--length 200000] [--batch 8]
    python benchmarks/windows.py --json benchmarks/figures.json

No human genome is at hand: the chromosome is drawn (seeded) and written as plain FASTA into a temporary folder, with a
bigWig of one interval every 100 bases and as many cut sites in a fragment file. Start sites are drawn too. Every
case is a process of its own. Seconds are of one core's CPU; memory is the most that the process held, and what it held
before the table was read, torch and pandas among it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sq_imputer import GeneWindows, Needs
from sq_imputer.genes.genome import Genome

LINE = 60
CASES = {
    "DNA": ("", "raw"),
    "DNA, bigWig": ("signal.bw", "raw"),
    "DNA, bigWig over its 99th percentile": ("signal.bw", "p99"),
    "DNA, fragments": ("fragments.tsv.gz", "raw"),
}


def make(folder: Path, bases: int) -> None:
    """A chromosome, a bigWig and fragments on it."""
    import pybigtools

    rng = np.random.default_rng(0)
    with (folder / "genome.fa").open("wb") as file:
        file.write(b">chr1 drawn\n")
        for start in range(0, bases, 10**6 * LINE):
            letters = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, min(10**6 * LINE, bases - start))]
            whole = len(letters) // LINE * LINE
            lines = np.full((whole // LINE, LINE + 1), ord("\n"), dtype=np.uint8)
            lines[:, :LINE] = letters[:whole].reshape(-1, LINE)
            file.write(lines.tobytes() + letters[whole:].tobytes() + b"\n" * (whole < len(letters)))
    starts = np.arange(0, bases - 100, 100)
    values = rng.random(len(starts))
    steps = (("chr1", int(start), int(start) + 50, float(value)) for start, value in zip(starts, values, strict=True))
    pybigtools.open(str(folder / "signal.bw"), "w").write({"chr1": bases}, steps)
    with gzip.open(folder / "fragments.tsv.gz", "wt", compresslevel=1) as file:
        for some in np.array_split(np.sort(rng.integers(0, bases - 200, len(starts))), 50):
            file.write("".join(f"chr1\t{start}\t{start + 150}\tAAAC\t1\n" for start in some.tolist()))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(folder: Path, rows: int, length: int, batch: int, track: str, normalize: str) -> dict[str, float]:
    """Seconds and memory of going through all windows once, in a process that does nothing else."""
    began = time.process_time()
    genome = Genome(folder / "genome.fa")
    indexed = time.process_time() - began
    rng = np.random.default_rng(1)
    places = {"chrom": "chr1", "tss": rng.integers(0, genome.lengths["chr1"], rows), "strand": "+"}
    table = pd.DataFrame({**places, "y": rng.random(rows)})
    held, began = peak_mb(), time.process_time()
    named = {track: folder / track} if track else {}
    windows = GeneWindows.from_table(table, genome, tracks=named, length=length, normalize=normalize)
    batches = windows.batches(Needs(sequence=length), batch)
    next(batches)
    opened, began = time.process_time() - began, time.process_time()
    n = sum(len(seen) for seen in batches)
    each = 1000 * (time.process_time() - began) / n
    return {"index, s": indexed, "first batch, s": opened, "each, ms": each, "MB before": held, "MB": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bases", type=int, default=250_000_000)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--length", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    parser.add_argument("--make", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make is not None:
        make(args.make, args.bases)
        return
    if args.read is not None:
        torch.set_num_threads(1)
        print(json.dumps(read(args.read, args.rows, args.length, args.batch, *CASES[args.case])))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--make", folder, f"--bases={args.bases}"], check=True)
        for name in CASES:
            sizes = [f"--{key}={getattr(args, key)}" for key in ("rows", "length", "batch")]
            call = [sys.executable, __file__, "--read", folder, *sizes, "--case", name]
            said = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
            found[name] = {key: round(value, 2) for key, value in said.items()}
            print(name, found[name], flush=True)
    if args.json is not None:
        figures = json.loads(args.json.read_text())
        said = {"bases": args.bases, "rows": args.rows, "length": args.length, "batch": args.batch}
        figures["windows"] = said | {"cases": found}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
