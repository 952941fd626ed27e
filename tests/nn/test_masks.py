from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Beta, kl_divergence

from sq_imputer.nn import masks
from sq_imputer.nn.masks import LEAST, LEAST_PRODUCT, Betas, divergence, of_dna, of_tracks

PAPER = {"weights_T": masks.shares((2, 2, 1), 3), "against_T": torch.tensor([1.5, 0.2, 1.0])}


def followed(betas: Betas) -> Betas:
    """The same numbers, whose gradient is asked for."""
    return Betas(*(part.requires_grad_() for part in betas))


def parameters(n: int, dtype, low: float = -2, high: float = 2) -> Betas:
    generator = torch.Generator().manual_seed(0)
    drawn = 10 ** (low + (high - low) * torch.rand(2, 1, n, generator=generator, dtype=dtype))
    return Betas(*drawn)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("against", [(10.0, 90.0), (0.1, 0.1222)])
def test_acceptance_1_the_divergence_is_that_of_torch(dtype, atol, against):
    betas = parameters(2000, dtype)
    prior = Beta(*(torch.tensor(part, dtype=torch.float64) for part in against))
    expected = kl_divergence(Beta(betas.alpha.double(), betas.beta.double()), prior)
    found = divergence(betas, against)
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=1e-6 if dtype == torch.float32 else 1e-12)
    assert (found >= 0).all()


def test_acceptance_1_the_divergence_is_0_at_the_prior_and_finite_at_the_ends():
    for prior in (masks.prior(0.1, 10.0), masks.prior(0.45, 0.1)):
        here = Betas(*(torch.full((1, 1), part, dtype=torch.float64) for part in prior))
        assert abs(divergence(here, prior).item()) < 1e-12
        ends = followed(Betas(torch.tensor([[1e-8, 1e4, 1e-8, 1e4]]), torch.tensor([[1e4, 1e-8, 1e-8, 1e4]])))
        found = divergence(ends, prior)
        found.sum().backward()
        assert found.isfinite().all() and all(part.grad.isfinite().all() for part in ends)


def test_acceptance_1_the_divergence_passes_gradcheck():
    betas = followed(parameters(20, torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: divergence(Betas(a, b), (10.0, 90.0)), tuple(betas))


def test_the_prior_has_the_mean_and_the_strength_asked_for():
    assert masks.prior(0.1, 10.0) == pytest.approx((10.0, 90.0))
    assert masks.prior(0.45, 0.1) == pytest.approx((0.1, 0.12222222))


def test_acceptance_2_the_product_of_two_densities_is_the_beta_of_the_sums_less_one():
    one, other = (
        Betas(torch.tensor([[2.5]]), torch.tensor([[1.7]])),
        Betas(torch.tensor([[4.0]]), torch.tensor([[9.0]])),
    )
    found = masks.combined([one, other], "product")
    x = torch.linspace(0.001, 0.999, 5000)
    density = (Beta(*one).log_prob(x) + Beta(*other).log_prob(x)).exp().flatten()
    density = density / torch.trapezoid(density, x)
    torch.testing.assert_close(Beta(*found).log_prob(x).exp().flatten(), density, atol=2e-3, rtol=1e-3)
    released = masks.combined([one, other], "sum")
    torch.testing.assert_close(torch.cat(released), torch.cat(found) + 1)


def test_acceptance_2_products_of_little_are_held_above_zero_and_one_factor_is_itself():
    little = Betas(torch.tensor([[0.2]]), torch.tensor([[0.3]]))
    assert masks.combined([little, little], "product").alpha.item() == pytest.approx(LEAST_PRODUCT)
    assert masks.combined([little], "product") == little


def test_acceptance_2_of_nothing_said_and_nothing_measured_the_mean_is_that_of_the_released_defaults():
    dna = of_dna(torch.zeros(1, 1, 2), 1.0)
    tracks = of_tracks(torch.zeros(1, 1, 3), **PAPER, least=1.0, scale=10.0)
    torch.testing.assert_close(PAPER["weights_T"], torch.tensor([0.4, 0.4, 0.2]))
    assert masks.combined([dna, tracks], "sum").mean.item() == pytest.approx(0.3633, abs=5e-5)


def test_shares_are_equal_where_no_weights_are_given():
    torch.testing.assert_close(masks.shares((), 4), torch.full((4,), 0.25))


def test_more_signal_and_a_larger_second_logit_keep_more():
    dna = of_dna(torch.tensor([[[0.0, -2.0], [0.0, 2.0], [2.0, 0.0]]]), 1.0).mean[0]
    assert dna[1] > dna[0] and dna[2] < 0.5
    signal = of_tracks(torch.tensor([[[0.0] * 3, [5.0] * 3]]), **PAPER, least=1.0, scale=10.0).mean[0]
    assert signal[1] > signal[0]


def test_acceptance_3_samples_have_the_mean_and_the_variance_of_the_distribution():
    betas = Betas(torch.full((1, 100_000), 2.0), torch.full((1, 100_000), 5.0))
    drawn = masks.sample(betas, torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(betas.mean[0, 0].item(), abs=2e-3)
    assert drawn.std().item() == pytest.approx(betas.std[0, 0].item(), rel=1e-2)
    again = masks.sample(betas, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again) and not torch.equal(drawn, masks.sample(betas, torch.Generator().manual_seed(1)))


def test_acceptance_3_samples_and_their_gradient_are_those_of_torch():
    betas, others = (followed(parameters(500, torch.float64, -1)) for _ in range(2))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        expected = Beta(*others).rsample()
    drawn = masks.sample(betas, torch.Generator().manual_seed(5))
    torch.testing.assert_close(drawn, expected)
    drawn.sum().backward(), expected.sum().backward()
    for one, other in zip(betas, others, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert (betas.alpha.grad >= 0).all() and (betas.beta.grad <= 0).all() and betas.alpha.grad.any()


def test_acceptance_3_samples_have_gradient_to_the_sequence_and_to_the_tracks():
    logits, tracks = torch.zeros(1, 5, 2, requires_grad=True), torch.ones(1, 5, 3, requires_grad=True)
    both = masks.combined([of_dna(logits, 1.0), of_tracks(tracks, **PAPER, least=1.0, scale=10.0)], "sum")
    masks.sample(both, torch.Generator().manual_seed(0)).sum().backward()
    assert (logits.grad[..., 1] > 0).all() and (logits.grad[..., 0] < 0).all() and (tracks.grad > 0).all()


def test_samples_of_tiny_parameters_and_their_gradients_are_finite():
    betas = followed(Betas(torch.full((1, 1000), LEAST), torch.full((1, 1000), 0.01)))
    drawn = masks.sample(betas, torch.Generator().manual_seed(0))
    drawn.sum().backward()
    assert (
        ((drawn >= 0) & (drawn <= 1)).all() and betas.alpha.grad.isfinite().all() and betas.beta.grad.isfinite().all()
    )


def test_acceptance_4_the_middle_is_always_kept_and_what_is_forbidden_never():
    mask, allowed = torch.full((2, 10), 0.3), torch.ones(2, 10, dtype=torch.bool)
    allowed[0, 5], allowed[1, 0] = False, False
    found = masks.forced(mask, allowed, masks.center(10, 4))
    assert found[0].tolist() == pytest.approx([0.3, 0.3, 0.3, 1, 1, 0, 1, 0.3, 0.3, 0.3])
    assert found[1, 0] == 0 and (mask == 0.3).all()


@pytest.mark.parametrize(("length", "width", "expected"), [(10, 4, (3, 7)), (9, 3, (3, 6)), (5, 99, (0, 5))])
def test_the_center_of_a_window(length, width, expected):
    found = masks.center(length, width)
    assert (found.start, found.stop) == expected


def test_acceptance_4_hard_masks_are_exactly_0_and_1_and_pass_the_gradient_of_soft_ones():
    soft = (torch.arange(1001) / 1000)[None].requires_grad_()
    hard = masks.hardened(soft)
    assert set(hard.unique().tolist()) == {0.0, 1.0} and hard[0, 500] == 1 and hard[0, 499] == 0
    weight = torch.randn(1, 1001, generator=torch.Generator().manual_seed(0))
    (hard * weight).sum().backward()
    torch.testing.assert_close(soft.grad, weight)


def test_the_top_share_is_of_all_bases_and_never_of_forbidden_ones():
    mask, allowed = torch.rand(3, 100, generator=torch.Generator().manual_seed(0)), torch.ones(3, 100, dtype=torch.bool)
    allowed[2, :95] = False
    found = masks.top(mask, allowed, 0.1)
    assert found.sum(dim=1).tolist() == [10, 10, 5]
    for row in range(2):
        kept = np.sort(mask[row][found[row] == 1].numpy())
        assert (kept == np.sort(mask[row].numpy())[-10:]).all()
