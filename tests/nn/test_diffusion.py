from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import ancestral, width

from sq_imputer.models import stem
from sq_imputer.nn import diffusion

MEAN = torch.tensor([1.0, -2.0, 0.0, 5.0], dtype=torch.float64)
MIX = torch.tensor([[0.9, 0, 0, 0], [0.5, 0.7, 0, 0], [-0.3, 0.2, 1.1, 0], [0, 0.6, -0.4, 0.5]], dtype=torch.float64)
COVARIANCE = MIX @ MIX.T


def signal_at(t: torch.Tensor) -> torch.Tensor:
    """Share of the signal's variance at a time step, also a fractional one."""
    signal = diffusion.schedule().alphas_cumprod.double().numpy()
    log_ratio = np.interp(float(t), np.arange(1000), np.log((1 - signal) / signal))
    return torch.tensor(1 / (1 + math.exp(log_ratio)), dtype=torch.float64)


def gaussian_noise(x_BSG: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The exact noise of data from N(MEAN, COVARIANCE)."""
    signal = signal_at(t)
    spread = signal * COVARIANCE + (1 - signal) * torch.eye(4, dtype=torch.float64)
    gap = x_BSG.double() - signal.sqrt() * MEAN
    return ((1 - signal).sqrt() * gap @ torch.linalg.inv(spread)).float()


def generators(n: int) -> list[torch.Generator]:
    return diffusion.row_generators([(0, row) for row in range(n)])


def drawn(name: str, n_steps: int, n: int = 20_000, **how) -> torch.Tensor:
    steps = diffusion.sampler(name, n_steps)
    return diffusion.sample(gaussian_noise, steps, generators(2), n // 2, 4, **how).flatten(0, 1).double()


# Stem, must hold (1): the forward process


def test_the_schedule_is_linear_and_ends_in_noise() -> None:
    betas, signal = diffusion.schedule().betas, diffusion.schedule().alphas_cumprod
    assert len(betas) == 1000 and float(betas[0]) == pytest.approx(1e-4) and float(betas[-1]) == pytest.approx(0.02)
    np.testing.assert_allclose(np.diff(betas.double().numpy()), (0.02 - 1e-4) / 999, rtol=1e-3)
    np.testing.assert_allclose(signal.double(), torch.cumprod(1 - betas.double(), 0), rtol=1e-4)
    assert float(signal[-1]) == pytest.approx(4.04e-5, rel=0.01)


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_noised_data_has_the_mean_and_variance_of_the_closed_form(t: int) -> None:
    start = torch.full((200_000,), 3.0)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(t))
    noised = diffusion.schedule().add_noise(start, noise, torch.tensor(t))
    signal = float(diffusion.schedule().alphas_cumprod[t])
    assert float(noised.mean()) == pytest.approx(3 * math.sqrt(signal), abs=0.01)
    assert float(noised.var()) == pytest.approx(1 - signal, rel=0.02, abs=1e-6)


def test_one_step_at_a_time_ends_where_the_closed_form_does() -> None:
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(diffusion.schedule().betas.double().tolist()):
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        signal = float(diffusion.schedule().alphas_cumprod[t])
        assert mean == pytest.approx(math.sqrt(signal), rel=1e-4) and variance == pytest.approx(1 - signal, rel=1e-3)


# Stem, must hold (2): with the exact noise, every sampler recovers mean and covariance


@pytest.mark.parametrize(
    ("name", "n_steps", "close"),
    [("ddpm", 1000, 0.03), ("ddpm", 100, 0.09), ("ddim", 200, 0.05), ("dpm", 20, 0.04), ("sde-dpm", 20, 0.08)],
)
def test_samples_of_a_gaussian_have_its_mean_and_covariance(name: str, n_steps: int, close: float) -> None:
    got = drawn(name, n_steps, 10_000 if n_steps == 1000 else 20_000)
    scale = COVARIANCE.diagonal().sqrt()
    np.testing.assert_array_less((got.mean(0) - MEAN).abs() / scale, 0.04)
    gap = (torch.cov(got.T) - COVARIANCE) / torch.outer(scale, scale)
    assert float(gap.abs().max()) < close + 0.03  # and what 10,000 samples leave to chance


def test_the_second_order_sampler_needs_fewer_steps_than_the_others() -> None:
    def shrunk(name: str) -> float:
        return float((1 - drawn(name, 20).var(0) / COVARIANCE.diagonal()).mean())

    assert abs(shrunk("dpm")) < 0.05 and abs(shrunk("sde-dpm")) < 0.08
    assert min(shrunk("ddim"), shrunk("ddpm")) > 0.2


def spread(name: str, n_steps: int, std: float) -> float:
    """What a sampler makes of a Gaussian of some standard deviation, in units of it, given the exact noise."""
    steps = diffusion.sampler(name, n_steps)
    signal = [float(signal_at(t)) for t in steps.timesteps]
    return ancestral(signal, std) if name == "ddpm" else width(steps, signal, std)


OFFERED = {(c.sampler, c.n_steps) for c in (stem.Config(), stem.Config.small(), stem.Config.paper())}
COUNTS = [(name, n) for name, least in diffusion.LEAST.items() for n in (least, 2 * least, 300) if n >= least]


@pytest.mark.parametrize(("name", "n_steps"), sorted(OFFERED | {(name, n) for name, n in COUNTS if n <= 999}))
def test_samples_are_as_wide_as_the_data_however_narrow_these_are(name: str, n_steps: int) -> None:
    found = {std: spread(name, n_steps, std) for std in (1, 0.5, 0.3, 0.1, 0.05)}
    if name == "ddpm":  # the page says so
        assert 0.90 < found.pop(0.05) < 0.93
    assert all(0.95 <= ratio <= 1.05 for ratio in found.values()), found


@pytest.mark.parametrize("name", diffusion.LEAST)
def test_fewer_steps_than_the_least_are_too_narrow_somewhere(name: str) -> None:
    few = {"sde-dpm": 12, "dpm": 9, "ddim": 60, "ddpm": 600}[name]
    assert min(spread(name, few, std) for std in (1, 0.1, 0.05)) < 0.95


def test_drawn_samples_have_the_spread_that_was_computed() -> None:
    def denoise(x, t):
        at = signal_at(t)
        return (x * (1 - at).sqrt() / (at * 0.1**2 + 1 - at)).float()

    for name, n_steps in (("sde-dpm", 20), ("dpm", 15)):
        got = diffusion.sample(denoise, diffusion.sampler(name, n_steps), generators(2), 5000, 4)
        assert float(got.std()) / 0.1 == pytest.approx(spread(name, n_steps, 0.1), rel=0.02)


def test_fractional_times_have_the_noise_that_the_sampler_counts_on() -> None:
    steps = diffusion.sampler("sde-dpm", 20)
    ratio = torch.stack([(1 - signal_at(t)).sqrt() / signal_at(t).sqrt() for t in steps.timesteps])
    torch.testing.assert_close(steps.sigmas[:-1].double(), ratio, rtol=1e-4, atol=1e-6)
    assert (steps.timesteps % 1 > 0).any()
    gaps = ratio.log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(19), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", diffusion.SAMPLERS)
def test_any_number_of_steps_is_that_many_evaluations_on_the_way_down(name: str) -> None:
    for n_steps in (2, 3, 20, 50, 61, 103, 121, 201, 333, 500, 998, diffusion.SAMPLERS[name]):
        times = diffusion.sampler(name, n_steps).timesteps.tolist()
        assert len(set(times)) == n_steps and times == sorted(times, reverse=True)
        assert times[0] == 999 and times[-1] >= 0


@pytest.mark.parametrize(("name", "n_steps"), [("ddim", 61), ("ddpm", 61), ("dpm", 121), ("sde-dpm", 103)])
def test_odd_numbers_of_steps_work_as_well(name: str, n_steps: int) -> None:
    ratio = drawn(name, n_steps, 4000).var(0) / COVARIANCE.diagonal()
    assert (ratio > 0.75).all() and (ratio < 1.2).all()


def test_first_order_steps_are_those_of_ddim() -> None:
    steps, x = diffusion.sampler("ddim", 10), torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    t, before = steps.timesteps[:2]
    now, then = signal_at(t), signal_at(before)
    noise = gaussian_noise(x, t)
    start = (x - (1 - now).sqrt() * noise) / now.sqrt()
    expected = (then.sqrt() * start + (1 - then).sqrt() * noise).float()
    torch.testing.assert_close(steps.step(noise, t, x, return_dict=False)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_steps", [20, 50, 1000])
def test_the_last_ancestral_step_adds_no_noise(n_steps: int) -> None:
    """A point: whatever variance the network says, its samples end there."""

    def denoise(x, t):
        signal = diffusion.schedule().alphas_cumprod[int(t)]
        return torch.cat([(x - signal.sqrt() * 3) / (1 - signal).sqrt(), torch.ones_like(x)], dim=1)

    steps = diffusion.sampler("ddpm", n_steps, learned_range=True)
    np.testing.assert_allclose(diffusion.sample(denoise, steps, generators(2), 20, 4), 3, atol=1e-3)


# (7) nothing is clamped


@pytest.mark.parametrize("name", diffusion.SAMPLERS)
def test_samples_leave_the_unit_interval(name: str) -> None:
    got = drawn(name, 50, 200)
    assert float(got[:, 3].median()) == pytest.approx(5, abs=0.3) and float(got[:, 1].median()) < -1


# Noise


@pytest.mark.parametrize("name", diffusion.SAMPLERS)
def test_a_row_has_the_same_samples_in_any_batch(name: str) -> None:
    def rows(index: list[int], seed: int = 0) -> torch.Tensor:
        own = diffusion.row_generators([(seed, row) for row in index])
        return diffusion.sample(gaussian_noise, diffusion.sampler(name, 5), own, 3, 4)

    torch.testing.assert_close(rows([7])[0], rows([3, 7, 12])[1])
    assert not torch.allclose(rows([7]), rows([8])) and not torch.allclose(rows([7]), rows([7], seed=1))


@pytest.mark.parametrize("name", ["dpm", "sde-dpm"])
def test_mirrored_noise_gives_the_mean_of_a_gaussian_from_two_samples(name: str) -> None:
    def mirrored(n: int) -> torch.Tensor:
        return diffusion.sample(gaussian_noise, diffusion.sampler(name, 20), generators(5), n, 4, mirrored=True)

    # exact but for what is left of the data in the first noise, 0.6 % of it
    np.testing.assert_allclose(mirrored(2).mean(dim=1), MEAN.expand(5, 4), atol=0.05)
    assert mirrored(3).shape == (5, 3, 4)
    np.testing.assert_allclose(torch.cov(drawn(name, 50, mirrored=True).T), COVARIANCE, atol=0.1)


def test_times_of_a_batch_are_spread_evenly_and_uniform() -> None:
    t = diffusion.stratified_times(100, torch.Generator().manual_seed(0))
    assert sorted((t // 10).tolist()) == list(range(100)) and t.tolist() != sorted(t.tolist())
    single = torch.cat([diffusion.stratified_times(1) for _ in range(4000)])
    assert int(single.min()) < 20 and int(single.max()) > 979
    assert float(single.float().mean()) == pytest.approx(499.5, abs=20)


def test_time_is_cosines_and_sines() -> None:
    found = diffusion.time_features(torch.tensor([0, 7]))
    i = np.arange(128)
    np.testing.assert_allclose(found[0], np.concatenate([np.ones(128), np.zeros(128)]))
    np.testing.assert_allclose(found[1, :128], np.cos(7 * 10_000 ** (-i / 128)), atol=1e-5)
    np.testing.assert_allclose(found[1, 128:], np.sin(7 * 10_000 ** (-i / 128)), atol=1e-5)


# Learned variance


def noised(t: int, n: int = 50_000) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(n, 1, generator=generator)
    noise = torch.randn(n, 1, generator=generator)
    times = torch.full((n,), t)
    return start, diffusion.schedule().add_noise(start, noise, times), times, noise


def test_no_bits_are_lost_if_the_network_knows_the_noise_and_the_lower_variance() -> None:
    start, x_t, t, noise = noised(400, 100)
    bits = diffusion.range_bits(start, x_t, t, noise, torch.full_like(noise, -1.0))
    np.testing.assert_allclose(bits, 0, atol=1e-4)


@pytest.mark.parametrize("t", [3, 50, 400])
def test_bits_are_the_divergence_of_two_gaussians(t: int) -> None:
    start, x_t, times, noise = noised(t, 1000)
    said, logit = noise + 0.1, torch.full_like(noise, 0.3)
    betas, signal = diffusion.schedule().betas.double(), diffusion.schedule().alphas_cumprod.double()
    lower = betas[t] * (1 - signal[t - 1]) / (1 - signal[t])
    variance = torch.exp(0.65 * betas[t].log() + 0.35 * lower.log())
    # the means differ by the error of the noise, times the weight of noise in the posterior mean
    gap = 0.1 * betas[t] / ((1 - betas[t]).sqrt() * (1 - signal[t]).sqrt())
    q, p = torch.distributions.Normal(0.0, lower.sqrt()), torch.distributions.Normal(gap, variance.sqrt())
    expected = torch.distributions.kl_divergence(q, p) / math.log(2)
    np.testing.assert_allclose(diffusion.range_bits(start, x_t, times, said, logit), float(expected), rtol=2e-2)


def test_bits_teach_the_variance_and_not_the_mean() -> None:
    start, x_t, t, noise = noised(300, 64)
    epsilon, logit = noise.clone().requires_grad_(), torch.zeros_like(noise).requires_grad_()
    diffusion.range_bits(start, x_t, t, epsilon, logit).mean().backward()
    assert epsilon.grad is None and logit.grad.abs().sum() > 0


def test_bits_are_finite_where_the_last_step_has_no_variance() -> None:
    start, x_t, t, noise = noised(0, 64)
    assert diffusion.range_bits(start, x_t, t, noise, torch.zeros_like(noise)).isfinite().all()


def test_a_learned_variance_is_used_by_ancestral_steps() -> None:
    def widest(logit: float) -> float:
        def denoise(x, t):
            return torch.cat([gaussian_noise(x, t), torch.full_like(x, logit)], dim=1)

        steps = diffusion.sampler("ddpm", 20, learned_range=True)
        got = diffusion.sample(denoise, steps, generators(2), 2000, 4)
        return float(got.flatten(0, 1).var(dim=0).mean())

    assert widest(1.0) > 1.1 * widest(-1.0)
