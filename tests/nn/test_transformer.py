from __future__ import annotations

import pytest
import torch

from sq_imputer.nn.transformer import Attention, Block, One

W, H = 8, 2


@pytest.fixture
def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, W, generator=generator), torch.randn(3, 5, W, generator=generator)


def test_attention_is_the_formula_under_mask_and_bias(tokens) -> None:
    x, seen = tokens
    attention, bias = Attention(W, H).eval(), torch.randn(H, 4, 5)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[0, 1:] = mask[1, 2] = False
    q, k, v = (
        of(t).view(3, -1, H, W // H)
        for of, t in zip((attention.query, attention.key, attention.value), (x, seen, seen), strict=True)
    )
    score = torch.einsum("bqhd,bkhd->bhqk", q, k) / (W // H) ** 0.5 + bias
    weight = score.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    expected = attention.out(torch.einsum("bhqk,bkhd->bqhd", weight, v).flatten(2))
    torch.testing.assert_close(attention(x, seen, mask, bias), expected)


def test_what_is_masked_does_not_matter_and_what_is_not_does(tokens) -> None:
    x, seen = tokens
    block, mask = Block(W, H, looks="others").eval(), torch.ones(3, 5, dtype=torch.bool)
    mask[:, 4] = False
    other = seen.clone()
    other[:, 4] = 9.0
    torch.testing.assert_close(block(x, seen, mask), block(x, other, mask))
    assert not torch.allclose(block(x, seen), block(x, other))


def test_tokens_that_ask_everywhere_are_asked_once(tokens) -> None:
    x, seen = tokens
    block = Block(W, H, looks="others").eval()
    torch.testing.assert_close(block(x[:1], seen), block(x[:1].expand(3, -1, -1), seen))


def test_of_one_token_attention_is_its_value_whatever_asks(tokens) -> None:
    x, seen = tokens[0], tokens[1][:, :1]
    whole, one = Attention(W, H).eval(), One(W, H).eval()
    one.load_state_dict({name: value for name, value in whole.state_dict().items() if name in one.state_dict()})
    torch.testing.assert_close(whole(x, seen), one(x, seen).expand(-1, 4, -1))
    asks = x.clone().requires_grad_(True)
    whole(asks, seen).sum().backward()
    assert asks.grad.abs().max() < 1e-6


def test_a_block_of_its_own_tokens_moves_with_their_order(tokens) -> None:
    x, block = tokens[0], Block(W, H, dropout=0.5).eval()
    torch.testing.assert_close(block(x[:, [2, 0, 3, 1]]), block(x)[:, [2, 0, 3, 1]])
    torch.testing.assert_close(block(x), block(x), rtol=0, atol=0)
