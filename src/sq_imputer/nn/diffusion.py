r"""Denoising diffusion over vectors: the linear noise schedule, the loss of a learned variance, and sampling.

The forward process is :math:`x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon` with
:math:`\bar\alpha_t = \prod_{s \le t} (1 - \beta_s)` and :math:`\beta` linear from 1e-4 to 0.02 over 1000 steps.
Schedules and samplers are those of diffusers: DDPM (Ho et al. 2020; respaced as in Nichol and Dhariwal 2021),
DDIM (Song et al. 2021) and the second-order multistep DPM-Solver++ (Lu et al. 2022). Nothing is ever clamped:
expression has no fixed range.

A sampler of few steps can make samples too narrow, and does so most where the data are narrow: steps that are spread
evenly over time end far from the data. Those of all but `"ddpm"` are spread evenly over the log of the ratio of noise
to signal, which gives fractional time steps. `LEAST` steps are enough for .95 to 1.05 of the spread of Gaussian data
whose standard deviation is 1 to .05, given the exact noise; ancestral steps reach this down to .1, and .92 at .05.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

# B rows, S samples of a row, R = B * S, G genes; diffusers is imported where it is used: it takes seconds

STEPS = 1000
SAMPLERS = {"sde-dpm": STEPS - 1, "dpm": STEPS - 1, "ddim": STEPS - 1, "ddpm": STEPS}  # and most steps of each
LEAST = {"sde-dpm": 15, "dpm": 11, "ddim": 100, "ddpm": 800}  # fewer make samples too narrow
_LINEAR = {"num_train_timesteps": STEPS, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


@cache
def schedule():
    """The noise schedule of diffusers: `betas`, `alphas_cumprod` and `add_noise(x_0, noise, t)`."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(**_LINEAR, clip_sample=False)


def sampler(name: str, n_steps: int, *, learned_range: bool = False):
    """A fresh scheduler of diffusers that takes `n_steps` steps from pure noise to data.

    Parameters
    ----------
    name
        `"sde-dpm"` and `"dpm"` (DPM-Solver++ of second order, with and without noise in every step), `"ddim"` (its
        first order), or `"ddpm"` (ancestral). Without new noise nothing mends a sample that has left the data: the
        tails are heavier.
    n_steps
        Number of evaluations of the network, 2 to `SAMPLERS[name]`; of fewer than `LEAST[name]` the spread is wrong.
    learned_range
        Whether the network says the variance of `"ddpm"` steps; the others have none.
    """
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    if name == "ddpm":
        kind = "learned_range" if learned_range else "fixed_small"
        made = DDPMScheduler(**_LINEAR, clip_sample=False, variance_type=kind)
        # from 999 down to 0, whose step adds no noise; the spacings of diffusers end earlier or, by rounding, below 0
        made.set_timesteps(timesteps=np.linspace(STEPS - 1, 0, n_steps).round().astype(int).tolist())
        return made
    kind, order = ("sde-dpmsolver++" if name == "sde-dpm" else "dpmsolver++"), (1 if name == "ddim" else 2)
    made = DPMSolverMultistepScheduler(**_LINEAR, algorithm_type=kind, solver_order=order, use_lu_lambdas=True)
    made.set_timesteps(n_steps)
    made.timesteps = time_of(made.sigmas[:-1])  # it rounds them: at the end to a noise that the sample does not have
    return made


def time_of(sigma: Tensor) -> Tensor:
    """Time steps, fractional, at which the ratio of noise to signal is `sigma`; of any shape, float32."""
    signal = schedule().alphas_cumprod.double().numpy()
    known = 0.5 * np.log((1 - signal) / signal)
    return torch.from_numpy(np.interp(sigma.double().log().numpy(), known, np.arange(STEPS))).float()


def stratified_times(n: int, generator: torch.Generator | None = None, device=None) -> Tensor:
    """`(n,)` int64 time steps, each uniform on 0 to 999, spread evenly over the batch in random order."""
    offset = torch.rand((), generator=generator)
    times = ((torch.arange(n) + offset) / n * STEPS).long().clamp_max(STEPS - 1)
    return times[torch.randperm(n, generator=generator)].to(device)


def time_features(t_R: Tensor, width: int = 256) -> Tensor:
    """Cosines and sines of the time step, `(R, width)`, of geometric wavelengths."""
    frequencies = 10_000.0 ** -(torch.arange(width // 2, device=t_R.device) / (width // 2))
    angle = t_R[:, None].float() * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def range_bits(x_0: Tensor, x_t: Tensor, t: Tensor, epsilon: Tensor, logit: Tensor) -> Tensor:
    r"""Bits per gene of the variational bound that teach the variance, `(R,)`.

    :math:`\mathrm{KL}(q(x_{t-1} \mid x_t, x_0) \,\|\, p)` with :math:`\log\sigma_t^2` between :math:`\log\tilde\beta_t`
    (logit -1) and :math:`\log\beta_t` (logit 1). The mean does not learn from it. At t = 0 it is the Gaussian negative
    log likelihood: the original's likelihood of 8-bit images means nothing for expression.

    Parameters
    ----------
    x_0, x_t
        `(R, G)` data and noised data.
    t
        `(R,)` time steps.
    epsilon, logit
        `(R, G)` the network's noise and variance.
    """
    betas, signal = schedule().betas.to(t.device), schedule().alphas_cumprod.to(t.device)
    before = torch.cat([signal.new_ones(1), signal[:-1]])
    lower = betas * (1 - before) / (1 - signal)
    lower = torch.cat([lower[1:2], lower[1:]]).log()  # 0 at t = 0, so that its neighbor stands in
    share = (logit + 1) / 2
    log_variance = share * betas.log()[t, None] + (1 - share) * lower[t, None]
    guess = (x_t - (1 - signal[t, None]).sqrt() * epsilon.detach()) / signal[t, None].sqrt()
    to_data = (before.sqrt() * betas / (1 - signal))[t, None]
    to_noised = ((1 - betas).sqrt() * (1 - before) / (1 - signal))[t, None]
    true, said = (to_data * start + to_noised * x_t for start in (x_0, guess))
    gap = (true - said).pow(2) * torch.exp(-log_variance)
    kl = 0.5 * (log_variance - lower[t, None] + torch.exp(lower[t, None] - log_variance) + gap - 1)
    likelihood = 0.5 * (math.log(2 * math.pi) + log_variance + (x_0 - said).pow(2) * torch.exp(-log_variance))
    return torch.where(t[:, None] == 0, likelihood, kl).mean(dim=1) / math.log(2)


def row_generators(keys: Sequence[Sequence[int]]) -> list[torch.Generator]:
    """A random generator for every row, seeded by some whole numbers of 0 or more that tell rows apart.

    On the CPU: the noise of a row is the same in any batch and on any device.
    """
    seeds = (np.random.SeedSequence([int(part) for part in key]).generate_state(1)[0] for key in keys)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]  # mixed first: torch reads 32 bits only


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    steps,
    generators: list[torch.Generator],
    n_samples: int,
    n_genes: int,
    *,
    mirrored: bool = False,
    device="cpu",
) -> Tensor:
    """Samples `(B, S, G)`.

    Parameters
    ----------
    denoise
        From `(B, S, G)` noised values and the time step to `(B, S, G)` noise, or to `(B, 2 * S, G)` noise and variance.
    steps
        What :func:`sampler` made.
    generators
        One per row.
    n_samples, n_genes
        S and G.
    mirrored
        Draw noise in pairs of opposite sign (of ancestral steps, the first noise only). Every sample is as good as
        before; their mean is more precise, since what is odd in the noise cancels.
    device
        Where to compute.
    """

    def noise() -> Tensor:
        drawn = -(-n_samples // 2) if mirrored else n_samples
        half = torch.stack([torch.randn(drawn, n_genes, generator=generator) for generator in generators])
        return torch.stack([half, -half], dim=2).flatten(1, 2)[:, :n_samples] if mirrored else half

    kind = steps.config.get("algorithm_type", "ancestral")
    x_BSG = noise().to(device) * steps.init_noise_sigma
    for t in steps.timesteps:  # stays on the CPU, where the schedulers look it up
        chance = {"generator": generators} if kind == "ancestral" else {}
        if kind.startswith("sde"):
            chance = {"variance_noise": noise().to(device)}
        x_BSG = steps.step(denoise(x_BSG, t), t, x_BSG, **chance, return_dict=False)[0]
    return x_BSG
