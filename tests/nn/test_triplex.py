from __future__ import annotations

import pytest
import torch

from sq_imputer.contract import WholeSlide
from sq_imputer.nn.triplex import Branches, Surroundings, distilled
from sq_imputer.nn.turns import STILL


def test_the_loss_is_that_of_the_heads_and_of_the_fused_one() -> None:
    truth, fused, own = (torch.randn(5, 3, generator=torch.Generator().manual_seed(k)) for k in range(3))
    found = distilled({"fused": fused, "spot": own}, truth, 0.3, detach=False)
    torch.testing.assert_close(found["fused"], ((fused - truth) ** 2).mean())
    torch.testing.assert_close(found["spot"], 0.7 * ((own - truth) ** 2).mean() + 0.3 * ((own - fused) ** 2).mean())


@pytest.mark.parametrize("detach", [False, True])
def test_the_fused_head_is_taught_by_the_branches_unless_detached(detach) -> None:
    fused, own = torch.zeros(4, 2, requires_grad=True), torch.ones(4, 2, requires_grad=True)
    distilled({"fused": fused, "spot": own}, torch.zeros(4, 2), 0.3, detach=detach)["spot"].backward()
    assert (fused.grad is None) == detach and own.grad.any()


def test_large_sections_take_memory_that_grows_as_their_rows_do() -> None:
    """No scores of all rows against all: with 2**15 rows they would have 17 GB."""
    sizes = {"features": 6, "tokens": 6}
    config = Surroundings(width=8, heads=(2, 2, 2, 2), whole_rows=1000, window=256, context_um=())
    branches = Branches(sizes, config).eval()
    side = torch.arange(181)
    slide = WholeSlide(
        torch.randn(181**2, 6, generator=torch.Generator().manual_seed(0)), torch.cartesian_prod(side, side)
    )
    with torch.inference_mode():
        assert branches._rows_of(slide, STILL, torch.arange(5)).shape == (5, 8)
