from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import mahalanobis

from sq_imputer.nn import applicability
from sq_imputer.nn.applicability import RANK, Applicability


def fitted(rows: torch.Tensor) -> Applicability:
    block = Applicability(rows.shape[1])
    block.fit([rows])
    return block


def normal(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_with_few_features_the_distance_is_mahalanobis() -> None:
    mix = normal(5, 5, 1)
    train, fresh = normal(300, 5) @ mix + 3, 2 * normal(20, 5, 2) @ mix
    inverse = np.linalg.inv(np.cov(train.numpy().astype(float), rowvar=False))
    expected = [mahalanobis(row, train.numpy().mean(axis=0), inverse) ** 2 for row in fresh.numpy()]
    np.testing.assert_allclose(fitted(train).distance(fresh), expected, rtol=1e-3)


def test_new_rows_like_the_training_rows_are_spread_evenly_over_0_to_1() -> None:
    mix = normal(8, 8, 1)
    share = fitted(normal(4000, 8) @ mix)(normal(4000, 8, 2) @ mix).sort().values
    assert (share - torch.linspace(0, 1, 4000)).abs().max() < 0.04


def test_the_middle_is_0_and_what_is_farther_than_all_is_1() -> None:
    train = normal(200, 6)
    block = fitted(train)
    assert block(train.mean(dim=0, keepdim=True)).item() == 0
    assert block(torch.full((1, 6), 50.0)).item() == 1
    assert block(torch.stack([scale * torch.ones(6) for scale in (0.3, 1, 2, 5)])).diff().ge(0).all()


def test_a_direction_that_training_rows_do_not_vary_in_counts() -> None:
    plane = torch.zeros(200, 40)
    plane[:, :2] = normal(200, 2)
    aside = torch.zeros(1, 40)
    aside[0, 30] = 0.5
    block = fitted(plane)
    assert block(aside).item() == 1
    assert block(torch.zeros(1, 40)).item() < 0.1


def test_beyond_the_leading_components_the_size_of_the_rest_counts() -> None:
    train = normal(500, 3 * RANK)
    train[:, :RANK] *= 10
    block = fitted(train)
    far = torch.zeros(2, 3 * RANK)
    far[0, -1], far[1, -1] = 1.0, 60.0
    assert block(far)[0] < 0.5 < block(far)[1] == 1


def test_features_that_never_vary_tell_same_from_other() -> None:
    block = fitted(torch.ones(30, 4))
    share = block(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 2]]))
    assert share.tolist() == [0, 1]


def test_two_rows_are_enough() -> None:
    block = fitted(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    assert block(torch.tensor([[1.0, 0.5], [9.0, 9.0]])).tolist() == [0, 1]


def test_rows_may_come_in_parts() -> None:
    train, fresh = normal(500, 40) * torch.linspace(5, 0.1, 40) + 100, normal(50, 40, 2) + 100
    whole, parts = Applicability(40), Applicability(40)
    whole.fit([train])
    parts.fit(train.split(64))
    torch.testing.assert_close(parts.distance(fresh), whole.distance(fresh), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(parts.quantiles, whole.quantiles, rtol=1e-3, atol=1e-3)


def test_what_was_learned_is_in_the_state() -> None:
    block, other = fitted(normal(50, 20)), Applicability(20)
    other.load_state_dict(block.state_dict())
    rows = normal(10, 20, 5)
    assert torch.equal(block(rows), other(rows))
    assert not list(block.parameters())


def test_shares_of_left_out_rows_say_more_than_those_of_training_rows() -> None:
    """With hardly more rows than features, training rows lie nearer than any new one."""
    train, fresh = normal(60, 14), normal(2000, 14, 2)
    block, part = fitted(train), torch.arange(60) % 5
    assert (block(fresh) > 0.95).float().mean() > 0.15
    block.calibrate(([train[part != k]], [train[part == k]]) for k in range(5))
    assert (block(fresh) > 0.95).float().mean() < 0.12


def test_of_many_features_the_leading_components_are_found_as_well(monkeypatch) -> None:
    train, fresh = (
        normal(300, 60) * torch.linspace(9, 0.1, 60) ** 2,
        normal(50, 60, 2) * torch.linspace(9, 0.1, 60) ** 2,
    )
    whole = fitted(train).distance(fresh)
    monkeypatch.setattr(applicability, "WHOLE", 50)
    torch.testing.assert_close(fitted(train).distance(fresh), whole, rtol=1e-2, atol=1e-2)


def test_of_fewer_rows_than_features_the_distance_is_that_of_their_own_axes() -> None:
    few = normal(30, 6) @ normal(6, 90, 1) + 0.05 * normal(30, 90, 2)
    fresh, block = normal(8, 90, 3), fitted(few)
    rows = few.double() - few.double().mean(dim=0)
    axes, sizes = torch.linalg.svd(rows).Vh[:RANK], torch.linalg.svdvals(rows)[:RANK] / 29**0.5
    inside = ((fresh.double() - few.double().mean(dim=0)) @ axes.T / sizes).pow(2).sum(dim=1)
    rest = (rows - rows @ axes.T @ axes).pow(2).sum(dim=1).mean()
    outside = fresh.double() - few.double().mean(dim=0)
    outside = (outside - outside @ axes.T @ axes).pow(2).sum(dim=1)
    np.testing.assert_allclose(block.distance(fresh), inside + outside / rest, rtol=1e-3)
