from __future__ import annotations

import numpy as np
import pytest
import torch
from numba import njit

from sq_imputer.nn import scan_cpu
from sq_imputer.nn.scan import selective_scan


def drawn(rows: int, length: int, channels: int, states: int = 4):
    """A sequence, steps, rates, and what goes into the states and comes out of them."""
    generator = torch.Generator().manual_seed(0)
    u, into, out = (torch.randn(rows, length, n, generator=generator) for n in (channels, states, states))
    steps = torch.rand(rows, length, channels, generator=generator)
    rates = -4 * torch.rand(channels, states, generator=generator)
    return [one.requires_grad_() for one in (u, steps, rates, into, out)]


def test_powers_of_two_are_exact_to_a_part_in_four_million():
    power = njit(lambda x: scan_cpu._power(x))
    x = np.linspace(-125, 125, 20_001, dtype=np.float32)
    found = np.array([power(one) for one in x])
    assert np.abs(found / np.exp2(x.astype(float)) - 1).max() < 2.5e-7
    assert power(np.float32(-1e30)) == 2.0**-126 and np.isnan(power(np.float32("nan")))


def test_numbers_do_not_hang_on_how_many_threads_there_are():
    """Sums over channels are of groups of a fixed size, whoever makes them."""
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            given = drawn(2, 100, 3 * scan_cpu.GROUP)
            said = selective_scan(*given)
            said.square().sum().backward()
            found.append([said, *(one.grad for one in given)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("what", [0, 1])
def test_what_is_not_finite_stays_so(what):
    given = [one.detach() for one in drawn(1, 50, 16)]
    given[what][0, 20, 3] = torch.nan
    said = selective_scan(*given)
    assert said[0, 20:, 3].isnan().all()
    assert said[0, :20].isfinite().all() and said[0, :, :3].isfinite().all()
