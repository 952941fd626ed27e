from __future__ import annotations

import pytest
import torch

from sq_imputer.nn.attention import GatedPool, SelfAttention


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(block: SelfAttention, x: torch.Tensor, head_width: int) -> torch.Tensor:
    """Softmax of scaled products, head by head."""
    q, k, v = (block.qkv(x)[..., part * block.heads * head_width :] for part in range(3))
    heads = []
    for head in range(block.heads):
        own = slice(head * head_width, (head + 1) * head_width)
        share = torch.softmax(q[..., own] @ k[..., own].transpose(1, 2) / head_width**0.5, dim=-1)
        heads.append(share @ v[..., own])
    return block.out(torch.cat(heads, dim=-1))


@pytest.mark.parametrize(("heads", "head_width"), [(1, 12), (3, 4), (2, 5)])
def test_it_is_softmax_attention_head_by_head(heads, head_width) -> None:
    block, x = SelfAttention(12, heads, head_width), tokens(2, 7, 12)
    torch.testing.assert_close(block(x), by_hand(block, x, head_width), rtol=1e-4, atol=1e-5)


def test_without_a_width_the_heads_share_that_of_the_tokens() -> None:
    assert SelfAttention(12, 3).qkv.weight.shape == (36, 12)
    assert SelfAttention(12, 8, 64).qkv.weight.shape == (3 * 8 * 64, 12)


def test_tokens_in_another_order_come_out_in_that_order() -> None:
    block, x, order = SelfAttention(8, 2), tokens(1, 20, 8), torch.randperm(20)
    torch.testing.assert_close(block(x)[:, order], block(x[:, order]))


def test_sequences_do_not_see_each_other_and_tokens_do() -> None:
    block, x = SelfAttention(8, 2), tokens(2, 5, 8)
    other = x.clone()
    other[1, 3] += 1
    assert torch.equal(block(x)[0], block(other)[0])
    assert not torch.allclose(block(x)[1, 0], block(other)[1, 0])


def test_queries_keys_and_values_have_a_bias_only_if_asked() -> None:
    assert SelfAttention(8, 2).qkv.bias is not None
    assert SelfAttention(8, 2, qkv_bias=False).qkv.bias is None
    assert SelfAttention(8, 2, qkv_bias=False).out.bias is not None


def test_a_pool_is_a_line_on_a_weighted_mean_whatever_the_order():
    pool, x = GatedPool(5), tokens(7, 5)
    weights = pool.attention(x)
    assert float(weights.sum()) == pytest.approx(1) and (weights > 0).all()
    expected = pool.out((weights[:, None] * x).sum(0))[0]
    torch.testing.assert_close(pool(x), expected)
    torch.testing.assert_close(pool(x.flip(0)), pool(x))
