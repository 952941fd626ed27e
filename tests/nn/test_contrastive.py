from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sq_imputer.nn.contrastive import GridPosition, ProjectionHead, SpotEncoder, symmetric_infonce, turned


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("l2_normalize", [False, True])
@pytest.mark.parametrize("n", [2, 17, 128])
def test_1_the_loss_of_identical_embeddings_is_that_of_guessing(n, l2_normalize) -> None:
    same = normal(1, 8).expand(n, 8)
    loss = symmetric_infonce(same, same, 0.5, l2_normalize=l2_normalize)
    assert loss.item() == pytest.approx(math.log(n), rel=1e-5)


def test_1_the_loss_of_orthogonal_pairs_goes_to_zero_with_the_temperature() -> None:
    pairs = torch.eye(16)
    losses = [symmetric_infonce(pairs, pairs, temperature).item() for temperature in (1.0, 0.3, 0.07, 0.02)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(math.log(1 + 15 / math.e), rel=1e-5)  # in closed form
    assert losses[-1] < 1e-5


def test_1_the_loss_does_not_change_when_the_branches_are_swapped() -> None:
    one, other = normal(9, 4), normal(9, 4, seed=1)
    assert symmetric_infonce(one, other, 0.3).item() == pytest.approx(symmetric_infonce(other, one, 0.3).item())


def test_the_loss_is_the_mean_of_two_cross_entropies_with_the_diagonal_as_target() -> None:
    one, other = normal(6, 4).double(), normal(6, 4, seed=1).double()
    logits = one.numpy() @ other.numpy().T / 0.7
    rows = np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)
    columns = np.log(np.exp(logits).sum(axis=0)) - np.diag(logits)
    assert symmetric_infonce(one, other, 0.7).item() == pytest.approx((rows.mean() + columns.mean()) / 2)


def test_normalized_the_loss_does_not_see_lengths() -> None:
    one, other = normal(6, 4), normal(6, 4, seed=1)
    scale = torch.linspace(0.1, 5, 6)[:, None]
    plain, scaled = (symmetric_infonce(view, other, 0.2, l2_normalize=True) for view in (one, scale * one))
    assert plain.item() == pytest.approx(scaled.item(), rel=1e-5)
    assert symmetric_infonce(one, other).item() != pytest.approx(symmetric_infonce(scale * one, other).item(), rel=1e-2)


def test_the_loss_is_computed_in_float32_where_training_is_in_half_precision() -> None:
    one, other = normal(32, 64), normal(32, 64, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = symmetric_infonce(one, other, 0.07, l2_normalize=True)
    assert mixed.dtype == torch.float32
    assert mixed.item() == symmetric_infonce(one, other, 0.07, l2_normalize=True).item()
    assert symmetric_infonce(one.bfloat16(), other.bfloat16()).dtype == torch.float32


def test_the_head_is_the_published_one() -> None:
    head, f = ProjectionHead(5, 3), normal(7, 5)
    p = f @ head.project.weight.T + head.project.bias
    z = F.layer_norm(p + F.gelu(p) @ head.mix.weight.T + head.mix.bias, (3,))
    torch.testing.assert_close(head(f), z)


def test_the_head_drops_in_training_alone() -> None:
    head, f = ProjectionHead(50, 8, dropout=0.5), normal(3, 50)
    assert not torch.equal(head(f), head(f))
    head.eval()
    assert torch.equal(head(f), head(f))


CELLS = torch.tensor([[x, y] for x in range(9) for y in range(7)])


@pytest.mark.parametrize("kind", ["learned", "sinusoid"])
@pytest.mark.parametrize("width", [10, 11])
def test_every_cell_has_a_vector_of_its_own(kind, width) -> None:
    vectors = GridPosition((9, 7), width, kind, std=1.0)(CELLS)
    assert vectors.shape == (63, width)
    assert torch.cdist(vectors, vectors).fill_diagonal_(9).min() > 1e-2


@pytest.mark.parametrize("kind", ["learned", "sinusoid"])
def test_vectors_are_as_large_as_asked(kind) -> None:
    one, small = (GridPosition((60, 60), 100, kind, std)(CELLS) for std in (1.0, 0.02))
    size = one.pow(2).mean().sqrt().item()
    assert size == pytest.approx(2**0.5 if kind == "learned" else 1.0, rel=0.15)  # two tables add up
    assert small.pow(2).mean().sqrt().item() == pytest.approx(0.02 * size, rel=0.15)


def test_a_learned_position_is_the_sum_of_its_column_and_row() -> None:
    position = GridPosition((9, 7), 5, std=1.0)
    columns, rows = (table.weight for table in position.tables)
    assert torch.equal(position(torch.tensor([[8, 2]]))[0], columns[8] + rows[2])
    assert torch.equal(position(torch.tensor([[50, -3]]))[0], columns[8] + rows[0])  # outside: the rim


def test_without_position_there_is_nothing_to_add_or_learn() -> None:
    position = GridPosition((9, 7), 5, "none")
    assert not position(CELLS).any() and not list(position.parameters())


def test_another_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="'learned', 'sinusoid' or 'none'"):
        GridPosition((2, 2), 5, "fourier")


def test_the_spot_encoder_has_the_published_blocks() -> None:
    encoder = SpotEncoder(30)
    assert len(encoder.blocks) == 2
    assert encoder.blocks[0].attention.qkv.weight.shape == (3 * 8 * 64, 30)
    assert encoder.blocks[0].attention.qkv.bias is None
    assert [layer.weight.shape for layer in encoder.blocks[0].network[::2]] == [(30, 30), (30, 30)]


def test_blocks_add_what_they_find_to_their_input() -> None:
    encoder, u = SpotEncoder(6, blocks=1, heads=2, head_width=4), normal(5, 6)
    block = encoder.blocks[0]
    x = u + block.attention(F.layer_norm(u, (6,))[None])[0]
    torch.testing.assert_close(encoder(u), x + block.network(F.layer_norm(x, (6,))))


def test_spots_see_each_other_in_any_order() -> None:
    encoder, u, order = SpotEncoder(6, heads=2, head_width=4), normal(20, 6), torch.randperm(20)
    torch.testing.assert_close(encoder(u)[order], encoder(u[order]), rtol=1e-4, atol=1e-5)
    other = u.clone()
    other[0] *= -1
    assert not torch.allclose(encoder(u)[5], encoder(other)[5])


def test_crops_are_turned_in_all_eight_ways_and_nothing_is_lost() -> None:
    crop = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    ways = {tuple(t.flatten().tolist()) for t in turned(crop.expand(400, 3, 4, 4))}
    expected = {
        tuple(torch.rot90(flip, turns, (1, 2)).flatten().tolist())
        for flip in (crop, crop.flip(2))
        for turns in range(4)
    }
    assert ways == expected
