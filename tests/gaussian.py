"""What a sampler makes of a Gaussian, given the exact noise: in closed form, for tests and `benchmarks/samplers.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def width(steps, signal: Sequence[float], std: float) -> float:
    """Standard deviation of a scheduler's samples in units of the true one.

    Nothing is drawn: every step is linear, so that the sampler is run on the shares of all noises in a sample. The
    last axis counts them.

    Parameters
    ----------
    steps
        A scheduler of diffusers whose time steps are set.
    signal
        Share of the signal's variance that the exact noise is of, at every step.
    std
        The true standard deviation.
    """
    noises = torch.eye(len(signal) + 1)
    x = noises[None, None, 0]
    for k, (t, at) in enumerate(zip(steps.timesteps, signal, strict=True), 1):
        said = x * (1 - at) ** 0.5 / (at * std**2 + 1 - at)
        x = steps.step(said, t, x, variance_noise=noises[None, None, k], return_dict=False)[0]
    return float(x.norm()) / std


def ancestral(signal: Sequence[float], std: float) -> float:
    """The same of ancestral steps, of the lower variance, by their formula (Ho et al. 2020, respaced)."""
    variance = 1.0
    for at, before in zip(signal, [*signal[1:], 1.0], strict=True):
        said = (1 - at) ** 0.5 / (at * std**2 + 1 - at)
        start, beta = (1 - (1 - at) ** 0.5 * said) / at**0.5, 1 - at / before
        mean = before**0.5 * beta / (1 - at) * start + (at / before) ** 0.5 * (1 - before) / (1 - at)
        variance = mean**2 * variance + (1 - before) / (1 - at) * beta
    return variance**0.5 / std
