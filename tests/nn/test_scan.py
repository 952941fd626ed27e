from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sq_imputer.nn import scan
from sq_imputer.nn.scan import CHUNK, selective_scan


def drawn(rows: int, length: int, channels: int = 6, states: int = 4, dtype=torch.float32):
    """A sequence, steps, rates, and what goes into the states and comes out of them."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    sequence, steps, rates = normal(rows, length, channels), normal(rows, length, channels), normal(channels, states)
    into, out = normal(rows, length, states), normal(rows, length, states)
    return [one.requires_grad_() for one in (sequence, F.softplus(steps).detach(), -rates.exp().detach(), into, out)]


def naive(u, step, A, B, C):
    """The recurrence as it is written, one step after the other."""
    h, said = u.new_zeros(len(u), *A.shape), []
    for t in range(u.shape[1]):
        h = torch.exp(step[:, t, :, None] * A) * h + (step[:, t] * u[:, t])[..., None] * B[:, t, None]
        said.append((h * C[:, t, None]).sum(dim=-1))
    return torch.stack(said, dim=1)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 300])
@pytest.mark.parametrize("numbers", [1, 2**19])  # segments of one chunk, and of all
def test_the_scan_and_its_gradient_are_those_of_the_recurrence(length, numbers, monkeypatch):
    monkeypatch.setitem(scan.NUMBERS, "cpu", numbers)
    given = drawn(2, length)
    said, expected = selective_scan(*given), naive(*given)
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(said.shape, generator=torch.Generator().manual_seed(0))
    found, true = (torch.autograd.grad((one * weight).sum(), given) for one in (said, expected))
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=1e-5)


def test_the_gradient_passes_gradcheck_over_several_segments(monkeypatch):
    monkeypatch.setitem(scan.NUMBERS, "cpu", 1)
    given = drawn(1, 2 * CHUNK + 3, channels=2, states=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(selective_scan, given)


def test_half_precision_is_scanned_in_single():
    given = [one.detach().bfloat16() for one in drawn(2, 100)]
    said = selective_scan(*given)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said, naive(*[one.float() for one in given]), atol=1e-5, rtol=1e-5)


def test_what_is_kept_for_the_gradient_grows_with_the_length_and_not_with_the_states(monkeypatch):
    monkeypatch.setitem(scan.NUMBERS, "cpu", 2**14)

    def kept(length: int) -> int:
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: found.append(one.numel()) or one, lambda one: one):
            selective_scan(*drawn(1, length, channels=8, states=16))
        return sum(found)

    short, long = kept(1024), kept(4096)
    assert long < 4.1 * short
    assert long < 4096 * 8 * 16 / 2  # all states are more than that
