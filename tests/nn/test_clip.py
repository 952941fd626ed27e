"""The losses of pairs against their formulas, and layers that start as what they change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sq_imputer.nn import clip


def pairs(n: int = 6, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(F.normalize(torch.randn(n, width, generator=draw), dim=1) for _ in range(2))


def test_clip_is_the_mean_of_two_cross_entropies_written_out():
    image, genes = pairs()
    scale, total = 3.0, 0.0
    for i in range(6):
        row = [scale * float(image[i] @ genes[j]) for j in range(6)]
        column = [scale * float(image[j] @ genes[i]) for j in range(6)]
        total += sum(math.log(sum(map(math.exp, side))) - side[i] for side in (row, column)) / 2
    assert float(clip.clip_loss(image, genes, scale)) == pytest.approx(total / 6, rel=1e-5)


def test_siglip_is_the_log_loss_of_every_pair_written_out():
    image, genes = pairs()
    total = 0.0
    for i in range(6):
        for j in range(6):
            sign = 1 if i == j else -1
            total += math.log(1 + math.exp(-sign * (3.0 * float(image[i] @ genes[j]) - 10)))
    assert float(clip.siglip_loss(image, genes, 3.0)) == pytest.approx(total / 6, rel=1e-5)


def test_nothing_told_apart_is_the_log_of_the_batch():
    same = torch.ones(8, 3)
    assert float(clip.clip_loss(same, same, 5.0)) == pytest.approx(math.log(8), rel=1e-5)


@pytest.mark.parametrize(("log_scale", "scale"), [(-3.0, 1.0), (9.0, 100.0), (clip.START, 1 / 0.07)])
def test_the_scale_stays_between_1_and_100(log_scale, scale):
    loss = clip.PairLoss()
    loss.log_scale.data.fill_(log_scale)
    assert float(loss.scale) == pytest.approx(scale, rel=1e-4)


def test_without_normalization_the_length_of_vectors_counts():
    image, genes = pairs()
    with torch.no_grad():
        assert clip.PairLoss()(5 * image, genes) == pytest.approx(float(clip.PairLoss()(image, genes)), rel=1e-5)
        raw = clip.PairLoss(normalize=False)
        assert abs(float(raw(5 * image, genes) - raw(image, genes))) > 0.1


def test_expression_and_images_come_to_one_width():
    genes = clip.GeneNetwork(20, 16).eval()
    assert genes(torch.zeros(3, 20)).shape == (3, 16)
    for kind in ("linear", "mlp"):
        assert clip.image_head(kind, 10, 16)(torch.zeros(3, 10)).shape == (3, 16)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(6, 18), nn.Linear(6, 6)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(), nn.Linear(6, 6)

    def forward(self, x):
        return self.mlp(self.attn.proj(self.attn.qkv(x)[..., :6]))


def test_a_change_of_low_rank_starts_as_none_and_is_all_that_is_trained():
    trunk, x = Block(), torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    before = trunk(x).detach()
    changed = clip.with_low_rank(trunk, rank=2)
    assert len(changed) == 2
    torch.testing.assert_close(trunk.eval()(x), before)
    trained = {name for name, part in trunk.named_parameters() if part.requires_grad}
    assert trained == {f"attn.{layer}.{part}" for layer in ("qkv", "proj") for part in ("up", "down")}
    trunk(x).sum().backward()
    assert changed[0].up.grad.abs().sum() > 0
    delta = changed[0].factor * changed[0].up @ changed[0].down
    assert delta.shape == (18, 6) and torch.linalg.matrix_rank(torch.randn(18, 2) @ changed[0].down) == 2


def test_what_has_no_attention_is_left_alone():
    assert clip.with_low_rank(nn.Sequential(nn.Linear(3, 3))) == []
