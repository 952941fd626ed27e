"""Memory and time of a fit of ridge by the number of rows, of this build beside another, in one run.

    git archive TAG src --prefix=last/ | tar x -C /tmp
    python benchmarks/ridge_cost.py --last /tmp/last/src --rows 1000 10000 100000

Every fit has a process of its own. Memory is what the fit adds at its peak, beside the features, in sizes of the
feature matrix; `weights` and `mean` are the largest differences between the builds, relative to the largest value.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

SRC = Path(__file__).parents[1] / "src"


@dataclass
class Rows:
    """A section of features and expression in memory: what a slide is to a model, without the image."""

    features: np.ndarray
    expression: np.ndarray
    group: str = "P1"
    section: str = "A"
    unit: str = "log1p_cp10k"
    fingerprint: str = "drawn"

    def __post_init__(self) -> None:
        n, side = len(self.features), int(np.ceil(len(self.features) ** 0.5))
        self.genes = tuple(f"G{g}" for g in range(self.expression.shape[1]))
        self.names = np.arange(n).astype(str)
        self.measured = np.ones(n, dtype=bool)
        self.xy_um = np.stack(np.divmod(np.arange(n), side), axis=1) * 100.0

    def __len__(self) -> int:
        return len(self.features)

    def all_features(self, needs, *, device="auto"):
        return self.features

    def moments(self, needs, *, device="auto"):
        return None

    def marks(self, genes):
        """As few as there can be: what a fit keeps of its rows to find them again is no part of its cost."""
        from sq_imputer.contract import Marks
        from sq_imputer.scores.overlap import codes_of

        return Marks(self.genes, self.xy_um[:1], codes_of(np.ones((1, 1), dtype=int)), np.ones(1, dtype=bool))

    def batches(self, needs, batch_size=64, *, rows=None, generator=None, device="auto"):
        import torch

        from sq_imputer import Batch

        rows = np.arange(len(self)) if rows is None else rows
        for start in range(0, len(rows), batch_size):
            index = rows[start : start + batch_size]
            seen = {"features": self.features[index], "expression": self.expression[index], "xy_um": self.xy_um[index]}
            seen = {name: torch.from_numpy(values) for name, values in seen.items()}
            yield Batch(torch.from_numpy(index), section=torch.zeros(len(index), dtype=torch.long), **seen)


def drawn(rows: int, width: int, genes: int) -> Rows:
    """Features of rank 30 with noise, and expression that is a line in them with noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, width), dtype=np.float32)
    x += 2 * rng.standard_normal((rows, 30), dtype=np.float32) @ rng.standard_normal((30, width), dtype=np.float32)
    y = x @ rng.standard_normal((width, genes), dtype=np.float32) / width**0.5
    y += rng.standard_normal((rows, genes), dtype=np.float32)
    return Rows(x, y)


def peak_mb(reset: bool = False) -> float:
    """Most memory that the process had, since it was reset; Linux only."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    said = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(said[0].split()[1]) / 1024


def measure(rows: int, width: int, genes: int, kernel: str, file: str) -> None:
    """Fit once, in this process, and keep what there is to say in a file."""
    from sq_imputer import Plan
    from sq_imputer.models import ridge

    plan = Plan(device="cpu", progress=False)
    config = ridge.Config(context_um=(), per_section=False, kernel=kernel)
    ridge.Model(config).fit(drawn(50, 8, 3), plan)  # what is imported and started on first use is no part of it
    source = drawn(rows, width, genes)
    before, start = peak_mb(reset=True), perf_counter()
    model = ridge.Model(config).fit(source, plan)
    seconds, added = perf_counter() - start, peak_mb() - before
    mean = model.predict(source, rows=np.arange(min(rows, 500)), device="cpu").mean.numpy()
    size = added * 2**20 / source.features.nbytes
    np.savez(file, weight=model.weight.numpy(), mean=mean, seconds=seconds, size=size, alpha=model.history["alpha"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--last", required=True, help="the src folder of the build to compare with")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--width", type=int, default=687, help="texture features of a crop and two contexts")
    parser.add_argument("--genes", type=int, default=250)
    parser.add_argument("--kernel", default="linear")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.rows[0], args.width, args.genes, args.kernel, args.measure)
        return
    print("rows     memory/features: last   this    seconds: last   this  faster   difference: weights    mean")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for name, src in (("last", args.last), ("this", SRC)):
                file = str(Path(folder) / f"{name}.npz")
                same = ["--last", "", "--width", str(args.width), "--genes", str(args.genes), "--kernel", args.kernel]
                command = [sys.executable, __file__, "--rows", str(rows), *same, "--measure", file]
                subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(src)})
                found.append(dict(np.load(file)))
        last, this = found
        off = [np.abs(last[key] - this[key]).max() / np.abs(last[key]).max() for key in ("weight", "mean")]
        print(
            f"{rows:<8} {last['size']:21.2f} {this['size']:6.2f} {last['seconds']:16.1f} {this['seconds']:6.1f} "
            f"{last['seconds'] / this['seconds']:6.1f}x {off[0]:21.1e} {off[1]:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
