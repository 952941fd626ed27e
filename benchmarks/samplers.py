"""How wide the samples of Stem's samplers are, by the true width, the steps and where they lie; and what steps cost.

    python benchmarks/samplers.py [--genes 20] [--spots 1]

The noise is exact, of Gaussian data with a known standard deviation, and nothing is drawn: every step is linear in the
noises, so that the width of the samples has a closed form. 1 is right. "over time" spaces the steps evenly over time,
as an earlier version did; "over log ratio" evenly over the log of the ratio of noise to signal, as it is now. The last
column is the processor time that the default network takes for 20 samples of some spots, in that of the default.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sq_imputer.contract import Batch
from sq_imputer.models import stem
from sq_imputer.nn import diffusion

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from gaussian import ancestral, width

STDS = (1.0, 0.5, 0.3, 0.1, 0.05)
STEPS = {"sde-dpm": (10, 15, 20, 50), "dpm": (10, 11, 20, 50), "ddim": (20, 100), "ddpm": (20, 100, 800, 1000)}


def over_time(name: str, n_steps: int):
    """The scheduler whose steps are spread evenly over time."""
    from diffusers import DPMSolverMultistepScheduler

    settings = dict(diffusion.sampler(name, n_steps).config) | {"use_lu_lambdas": False, "timestep_spacing": "linspace"}
    made = DPMSolverMultistepScheduler.from_config(settings)
    made.set_timesteps(n_steps)
    return made


def spread(steps, name: str, std: float) -> float:
    """Standard deviation of samples in units of the true one."""
    if name == "ddpm":
        return ancestral([float(diffusion.schedule().alphas_cumprod[int(t)]) for t in steps.timesteps], std)
    return width(steps, (1 / (1 + steps.sigmas[:-1].double() ** 2)).tolist(), std)


def seconds(genes: int, spots: int) -> dict[tuple[str, int], float]:
    """Seconds of the default network for 20 samples of some spots, by sampler and steps that it takes."""
    model = stem.Model()
    model.genes, model.sizes = tuple(f"G{i}" for i in range(genes)), {"features": 64, "rows": 1}
    model._register_statistics()
    model.build()
    model.eval()
    batch = Batch(torch.arange(spots), features=torch.randn(spots, 64), xy_um=torch.zeros(spots, 2))
    found = {}
    with torch.inference_mode():
        for name, n_steps in (("sde-dpm", 15), ("sde-dpm", 20), ("dpm", 11), ("dpm", 20), ("ddim", 100)):
            asked = model.sampling(sampler=name, n_steps=n_steps)
            took = []
            for _ in range(2):
                start = time.process_time()
                asked.samples(batch)
                took.append(time.process_time() - start)
            found[name, n_steps] = min(took)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=20)
    parser.add_argument("--spots", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cost = seconds(args.genes, args.spots)
    rows = {}
    for name, counts in STEPS.items():
        for n_steps in counts:
            ways = {"over time": over_time, "over log ratio": diffusion.sampler}
            ways = ways if name != "ddpm" else {"over time": diffusion.sampler}
            for way, make in ways.items():
                row = {
                    f"{std:g}": spread(make(name, n_steps), name, std) for std in STDS
                }  # a scheduler counts its steps
                offered = way == list(ways)[-1] and n_steps >= diffusion.LEAST[name]
                took = cost.get((name, n_steps), np.nan) / cost["sde-dpm", 20]
                rows[name, n_steps, way] = row | {"offered": offered, "time": took}
    print("samples' standard deviation over the true one, by the true one")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
