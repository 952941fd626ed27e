from __future__ import annotations

import pytest
import torch

from sq_imputer.contract import WholeSlide
from sq_imputer.nn import transformer
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


@pytest.mark.parametrize("rows", [90, 300, 600])
def test_beyond_whole_rows_no_row_looks_at_more_than_a_window(rows, monkeypatch) -> None:
    """Scores grow as rows do, not as their square; up to `whole_rows` all rows look at all in one call."""
    looked, attend = [], transformer.scaled_dot_product_attention
    monkeypatch.setattr(
        transformer,
        "scaled_dot_product_attention",
        lambda q, k, v, **how: looked.append((len(q), q.shape[2], k.shape[2])) or attend(q, k, v, **how),
    )
    config = Surroundings(width=8, heads=(2, 2, 2, 2), whole_rows=100, window=32, context_um=())
    places = torch.cartesian_prod(torch.arange(rows // 10), torch.arange(10))
    slide = WholeSlide(torch.randn(rows, 6, generator=torch.Generator().manual_seed(0)), places)
    with torch.no_grad():
        Branches({"features": 6, "tokens": 6}, config).eval()._rows_of(slide, STILL, torch.arange(5))
    if rows <= 100:
        assert looked == [(1, rows, rows)] * 2
    else:
        assert max(keys for _, _, keys in looked) == 32
        assert sum(windows * queries for windows, queries, _ in looked) == 2 * rows
