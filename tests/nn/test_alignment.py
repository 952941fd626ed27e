"""Tokens put in the words of a language model: what a head says is a mixture of words, and order is kept."""

from __future__ import annotations

import torch

from sq_imputer.nn.alignment import Alignment, ReadOut, in_order


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made() -> Alignment:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Alignment(6, 10, 20, 7, 2, 4, 0.0).eval()


def test_rows_of_attention_sum_to_one_and_a_head_is_a_convex_combination_of_prototypes() -> None:
    align, bins, table = made(), normal(3, 5, 6), normal(20, 10, seed=1)
    weights, values = align.weights(bins, table)
    assert weights.shape == (3, 2, 5, 7) and values.shape == (2, 7, 4) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, 5))
    size = table.pow(2).mean().sqrt()
    prototypes = align.mix.weight @ table / size  # P = A W
    torch.testing.assert_close(values, (prototypes @ align.value.weight.T).unflatten(-1, (2, 4)).transpose(0, 1))
    heads = torch.stack([weights[:, h] @ values[h] for h in range(2)], dim=2)  # (B, T, H, E)
    torch.testing.assert_close(align(bins, table), size * align.out(heads.flatten(2)))
    low, high = values.amin(dim=1), values.amax(dim=1)
    assert ((heads >= low - 1e-6) & (heads <= high + 1e-6)).all()


def test_the_scores_are_those_of_queries_and_keys() -> None:
    align, bins, table = made(), normal(1, 5, 6), normal(20, 10, seed=1)
    q = align.query(bins)[0].unflatten(-1, (2, 4))[:, 1]
    k = align.key(align.prototypes(table)).unflatten(-1, (2, 4))[:, 1]
    by_hand = (q @ k.T / 2).softmax(dim=-1)  # the root of a head of width 4
    torch.testing.assert_close(align.weights(bins, table)[0][0, 1], by_hand)


def test_what_is_said_grows_with_the_words_and_not_faster() -> None:
    align, bins, table = made(), normal(3, 5, 6), normal(20, 10, seed=1)
    torch.testing.assert_close(align(bins, 3 * table), 3 * align(bins, table))


def test_dna_comes_right_behind_the_prompt_of_its_gene_in_order() -> None:
    prompt = torch.arange(1.0, 9)[None, :4, None].repeat(2, 1, 1)
    dna = torch.tensor([10.0, 11, 12])[None, :, None].repeat(2, 1, 1)
    tokens, inside = in_order(prompt, torch.tensor([4, 2]), dna)
    assert [row[there].flatten().tolist() for row, there in zip(tokens, inside, strict=True)] == [
        [1, 2, 3, 4, 10, 11, 12],
        [1, 2, 10, 11, 12],
    ]
    tokens, inside = in_order(prompt[:, :0], torch.tensor([0, 0]), dna)
    assert tokens[0].flatten().tolist() == [10, 11, 12] and inside.all()


def test_tokens_that_are_not_there_are_not_read() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        readout = ReadOut(10, 12, 3, 4)
    states, inside = normal(2, 6, 10), torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    other = torch.where(inside[..., None], states, torch.full_like(states, 1e3))
    torch.testing.assert_close(readout(states, inside), readout(other, inside))
    torch.testing.assert_close(readout(states, inside)[:1], readout(states[:1, :4], inside[:1, :4]))
    turned = readout(states.flip(1), inside.flip(1))
    torch.testing.assert_close(turned, readout(states, inside))  # a pool has no order: that is the language model's
