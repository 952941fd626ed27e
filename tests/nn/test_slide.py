from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from sq_imputer.contract import WholeSlide
from sq_imputer.nn.slide import LatticeConv, SlideEncoder, around
from sq_imputer.nn.turns import STILL, Turn

SEED = torch.Generator().manual_seed(0)


def section(places: torch.Tensor, width: int = 6, hexagonal: int = -1) -> WholeSlide:
    return WholeSlide(torch.randn(len(places), width, generator=SEED), places, hexagonal)


def scattered(n: int = 40, side: int = 9) -> torch.Tensor:
    """Places on a square lattice with holes, in no order."""
    chosen = torch.randperm(side * side, generator=SEED)[:n]
    return torch.stack([chosen % side, chosen // side], dim=1) + torch.tensor([3, -2])


def encoder(**how) -> SlideEncoder:
    return SlideEncoder(6, 2, 2, 2.0, 0.0, **{"most": 1000, "window": 16, **how}).eval()


def test_the_convolution_is_that_of_the_dense_array_with_zeros_where_nothing_is() -> None:
    conv, slide = LatticeConv(6), section(scattered())
    x, y = (slide.places - slide.places.min(dim=0).values).T
    dense = torch.zeros(6, y.max() + 1, x.max() + 1)
    dense[:, y, x] = slide.tokens.T
    kernel = conv.weight.view(3, 3, 6).permute(2, 1, 0)[:, None]  # steps run along x first
    expected = F.conv2d(dense[None], kernel, conv.bias, padding=1, groups=6)[0][:, y, x].T
    torch.testing.assert_close(conv(slide.tokens, slide), slide.tokens + expected, rtol=1e-4, atol=1e-5)


def test_rows_at_one_place_are_taken_together() -> None:
    conv = LatticeConv(6)
    one = section(torch.tensor([[0, 0], [1, 0]]))
    both = WholeSlide(one.tokens[[0, 0, 1]] + torch.tensor([[1.0], [-1], [0]]), one.places[[0, 0, 1]])
    added = conv(both.tokens, both) - both.tokens
    torch.testing.assert_close(added, (conv(one.tokens, one) - one.tokens)[[0, 0, 1]])


def test_lines_do_not_run_into_each_other() -> None:
    """Places are single numbers: the end of one line and the beginning of the next are no neighbors."""
    found = around(torch.tensor([[4, 0], [0, 1], [0, 2]]), 3)
    assert found.table[0].tolist().count(3) == 8  # three places, and itself alone around the first
    assert sorted(found.table[1].tolist())[:2] == [1, 2]


@pytest.mark.parametrize("hexagonal", [0, 1])
def test_on_a_hexagonal_lattice_six_neighbors_count(hexagonal) -> None:
    q, r = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    slide = section(torch.stack([q.flatten(), r.flatten()], dim=1), hexagonal=hexagonal)
    found = around(slide.places, 3, hexagonal).table[12]
    there = {tuple((slide.places[k] - slide.places[12]).tolist()) for k in found.tolist() if k < 25}
    assert there == {(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, 1)}


@pytest.mark.parametrize("hexagonal", [-1, 0, 1])
def test_to_turn_a_section_is_to_turn_its_places(hexagonal) -> None:
    """V3: one augmentation for all that is seen; of the lattice it moves weights, not rows."""
    model, slide = encoder(), section(scattered(), hexagonal=hexagonal)
    for flags in itertools.product((False, True), repeat=3):
        turn = Turn(*flags)
        turned = WholeSlide(slide.tokens, turn.steps(slide.places, hexagonal), hexagonal)
        torch.testing.assert_close(model(slide.tokens, slide, turn), model(turned.tokens, turned, STILL))


def test_where_a_section_lies_and_in_which_order_its_rows_come_changes_nothing() -> None:
    for how in ({}, {"most": 10}):
        model, slide = encoder(**how), section(scattered())
        said, order = model(slide.tokens, slide), torch.randperm(40, generator=SEED)
        moved = WholeSlide(slide.tokens[order], slide.places[order] + torch.tensor([70, -5]))
        torch.testing.assert_close(model(moved.tokens, moved), said[order], rtol=1e-4, atol=1e-5)


def test_rows_look_at_all_others_and_in_large_sections_at_those_nearby() -> None:
    places = torch.cartesian_prod(torch.arange(32), torch.arange(32))
    slide = section(places)
    changed = WholeSlide(slide.tokens.index_put((torch.tensor([0]),), torch.full((6,), 5.0)), places)
    for most, share in ((2000, (0.99, 1.0)), (100, (0.05, 0.3))):
        model = encoder(most=most, window=64)
        moved = (model(slide.tokens, slide) - model(changed.tokens, changed)).abs().max(dim=1).values > 1e-6
        assert moved[0] and share[0] <= moved.float().mean() <= share[1]


def test_one_row_is_a_section() -> None:
    slide = section(torch.zeros(1, 2, dtype=torch.long))
    for how in ({}, {"most": 1, "window": 2}):
        assert encoder(**how)(slide.tokens, slide).isfinite().all()


@pytest.mark.parametrize("how", [{}, {"most": 10}])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_some_rows_are_what_they_are_among_all_and_teach_the_same(how, depth) -> None:
    model = SlideEncoder(6, depth, 2, 2.0, 0.0, **{"most": 1000, "window": 16, **how})
    slide, rows = section(scattered()), torch.tensor([7, 30, 7])
    grown = []
    for said in (model(slide.tokens, slide)[rows], model(slide.tokens, slide, only=rows)):
        grown.append([said, *torch.autograd.grad((said**3).sum(), list(model.parameters()))])
    for expected, found in zip(*grown, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
