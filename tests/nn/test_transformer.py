from __future__ import annotations

import pytest
import torch

from sq_imputer.nn.transformer import Attention, Block, CrossBlock, GridBias, windowed


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(block: Attention, x, y, added=0.0) -> torch.Tensor:
    """Softmax of scaled products, head by head."""
    q, (k, v) = block.query(x), block.key_value(y).chunk(2, dim=-1)
    width = q.shape[-1] // block.heads
    found = []
    for head in range(block.heads):
        own = slice(head * width, (head + 1) * width)
        found.append((q[..., own] @ k[..., own].mT / width**0.5 + added).softmax(dim=-1) @ v[..., own])
    return block.out(torch.cat(found, dim=-1))


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_softmax_head_by_head(heads) -> None:
    block, x, y = Attention(12, heads), tokens(2, 4, 12), tokens(2, 7, 12, seed=1)
    torch.testing.assert_close(block(x, y), by_hand(block, x, y), rtol=1e-4, atol=1e-5)
    names = {name for name, _ in block.named_parameters()}
    assert ("out.0.weight" in names) == (heads > 1)  # one head is not projected
    assert not any("bias" in name for name in names - {"out.0.bias"})


def test_what_a_mask_hides_reaches_nothing() -> None:
    block, x, y = CrossBlock(8, 2), tokens(2, 1, 8), tokens(2, 5, 8, seed=1)
    there = torch.tensor([[True] * 5, [True, False, True, False, True]])
    said = block(x, y, there[:, None, None])
    other = y.clone()
    other[1, [1, 3]] = 1e4
    torch.testing.assert_close(block(x, other, there[:, None, None]), said)
    assert not torch.allclose(block(x, y)[1], said[1])


def test_query_and_keys_share_a_normalization() -> None:
    block = CrossBlock(8, 2)
    assert sum(isinstance(part, torch.nn.LayerNorm) for part in block.modules()) == 2


def test_dropout_is_off_when_evaluating() -> None:
    """The published attention leaves it on: predictions there are drawn anew every time."""
    block, x = Block(8, 2, dropout=0.5), tokens(2, 5, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_a_grid_has_a_bias_for_every_pair_of_distances() -> None:
    bias = GridBias(5, 2)
    assert bias.bias.shape == (2, 15) and not bias().any()
    with torch.no_grad():
        bias.bias.copy_(torch.arange(30.0).view(2, 15))
    found = bias()[0, 0].view(5, 5, 5, 5)
    assert found[0, 0, 1, 3] == found[1, 3, 0, 0] == found[4, 4, 1, 3] == found[2, 1, 3, 4]
    assert len(set(found[0, 0].flatten().tolist())) == 15


def test_cells_that_are_not_inside_are_never_looked_at() -> None:
    inside = torch.ones(3, 25, dtype=torch.bool)
    inside[1, :5] = False
    share = GridBias(5, 2)(inside).softmax(dim=-1)
    assert share.shape == (3, 2, 25, 25) and not share[1, :, :, :5].any() and share[0].min() > 0


@pytest.mark.parametrize(("n", "size", "shift"), [(10, 4, 0), (10, 4, 2), (3, 8, 4), (9, 8, 4), (8, 4, 0)])
def test_windows_are_blocks_of_the_scores(n, size, shift) -> None:
    q, k, v = (tokens(1, 2, n, 4, seed=seed) for seed in range(3))
    window = (torch.arange(n) + (size - shift if shift else 0)) // size
    same = window[:, None] == window
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=same)
    torch.testing.assert_close(windowed(q, k, v, size, shift), expected)
