from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sq_imputer.nn import scan
from sq_imputer.nn.scan import CHUNK, scan_on, selective_scan


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


@pytest.fixture(params=["compiled", "one chunk a segment", "one segment"])
def form(request, monkeypatch):
    """Either form of the scan, and few or many segments of the one in plain PyTorch."""
    monkeypatch.setattr(scan, "COMPILED", request.param == "compiled")
    monkeypatch.setitem(scan.NUMBERS, "cpu", 1 if "chunk" in request.param else 2**19)


def held_against(found, true, given) -> None:
    """Both are the same to 1e-5, and so are the gradients of what was given."""
    torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)
    weight = torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    gradients, expected = (torch.autograd.grad((one * weight).sum(), given) for one in (found, true))
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(other.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, 2 * CHUNK, 4 * CHUNK + 5, 300])
def test_the_scan_and_its_gradient_are_those_of_the_recurrence(length, form):
    given = drawn(2, length)
    held_against(selective_scan(*given), naive(*given), given)


def test_a_sequence_in_parts_is_scanned_as_the_whole(form):
    given = drawn(2, 150, channels=20)
    parts, end = [], None
    for part in zip(*(one.split([70, 80], dim=1) for k, one in enumerate(given) if k != 2), strict=True):
        u, step, into, out = part
        said, end = scan_on(end, u, step, given[2], into, out)
        parts.append(said)
    held_against(torch.cat(parts, dim=1), naive(*given), given)


def test_the_gradient_passes_gradcheck(form):
    given = drawn(1, 2 * CHUNK + 3, channels=2, states=2, dtype=torch.float64)
    start = torch.randn(1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(scan_on, (start, *given))


def test_half_precision_is_scanned_in_single(form):
    given = [one.detach().bfloat16() for one in drawn(2, 100)]
    said = selective_scan(*given)
    assert said.dtype == torch.float32
    torch.testing.assert_close(said, naive(*[one.float() for one in given]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_kept_for_the_gradient_grows_with_the_length_and_not_with_the_states(compiled, monkeypatch):
    monkeypatch.setattr(scan, "COMPILED", compiled)
    monkeypatch.setitem(scan.NUMBERS, "cpu", 2**14)

    def kept(length: int) -> int:
        found = []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: found.append(one.numel()) or one, lambda one: one):
            selective_scan(*drawn(1, length, channels=16, states=16))
        return sum(found)

    short, long = kept(1024), kept(4096)
    assert long < 4.1 * short
    assert long < 4096 * 16 * 16 / 2  # all states are more than that
