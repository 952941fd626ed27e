from __future__ import annotations

import numpy as np
import pytest
import torch

from sq_imputer.nn import retrieval
from sq_imputer.nn.retrieval import Bank, inverse_square_weights, nearest, weighted_moments


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute(queries: torch.Tensor, keys: torch.Tensor, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Every pair, sorted by NumPy: highest score first, then lower number."""
    q, x = queries.numpy(), keys.numpy()
    if metric == "cosine":
        q, x = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (q, x))
        score = q @ x.T
    else:
        score = -((q[:, None] - x[None]) ** 2).sum(axis=2)
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(score, order, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("key_chunk", "query_chunk"), [(1000, 1000), (7, 1000), (1000, 3), (13, 5), (1, 1)])
def test_3_retrieval_is_that_of_every_pair_sorted(metric, key_chunk, query_chunk) -> None:
    queries, keys = normal(11, 6), normal(60, 6, seed=1)
    index, score = nearest(queries, keys, 9, metric=metric, key_chunk=key_chunk, query_chunk=query_chunk)
    expected = brute(queries, keys, 9, metric)
    np.testing.assert_array_equal(index, expected[0])
    np.testing.assert_allclose(score, expected[1], rtol=1e-10, atol=1e-10)


def test_lengths_do_not_change_the_cosine_and_do_change_the_distance() -> None:
    queries, keys = normal(5, 4), normal(30, 4, seed=1)
    longer = keys * torch.linspace(0.1, 10, 30, dtype=torch.float64)[:, None]
    assert torch.equal(nearest(queries, keys, 5)[0], nearest(queries, longer, 5)[0])
    assert not torch.equal(
        nearest(queries, keys, 5, metric="euclidean")[0], nearest(queries, longer, 5, metric="euclidean")[0]
    )


@pytest.mark.parametrize("key_chunk", [3, 8, 100])
def test_of_equal_keys_the_lower_number_comes_first(key_chunk) -> None:
    keys = torch.eye(4, dtype=torch.float64)[torch.arange(40) % 4]  # ten copies of each
    index, _ = nearest(torch.eye(4, dtype=torch.float64), keys, 12, key_chunk=key_chunk)
    for query in range(4):
        same = list(range(query, 40, 4))
        rest = [row for row in range(40) if row % 4 != query]
        assert index[query].tolist() == (same + rest)[:12]


def test_where_the_bank_is_smaller_than_k_the_rest_is_minus_one() -> None:
    index, score = nearest(normal(3, 4), normal(5, 4, seed=1), 8, key_chunk=2)
    assert (index[:, 5:] == -1).all() and (score[:, 5:] == -torch.inf).all()
    assert index[:, :5].sort(dim=1).values.tolist() == [[0, 1, 2, 3, 4]] * 3
    weights = inverse_square_weights(normal(3, 4), normal(5, 4, seed=1), index)
    assert (weights[:, 5:] == 0).all() and (weights[:, :5] > 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, dtype=torch.float64))


def test_a_key_of_zero_length_is_near_nothing_and_breaks_nothing() -> None:
    keys = normal(6, 4, seed=1)
    keys[2] = 0
    index, score = nearest(keys[[4]], keys, 6)
    assert index[0, 0] == 4 and score.isfinite().all()


def test_another_metric_is_an_error() -> None:
    with pytest.raises(ValueError, match="'cosine' or 'euclidean'"):
        nearest(normal(2, 2), normal(2, 2), 1, metric="manhattan")


def test_keys_are_compared_in_chunks_of_bounded_size(monkeypatch) -> None:
    """A bank that would take 40 000 x 3000 numbers at once is met in pieces of at most KEYS x QUERIES."""
    seen = []
    scores = retrieval._scores
    monkeypatch.setattr(
        retrieval, "_scores", lambda q, k, metric: seen.append((len(q), len(k))) or scores(q, k, metric)
    )
    queries, keys = normal(3000, 2).float(), normal(40_000, 2, seed=1).float()
    index, _ = nearest(queries[:700], keys, 3)
    assert max(q for q, _ in seen) <= retrieval.QUERIES and max(k for _, k in seen) <= retrieval.KEYS
    assert sum(q * k for q, k in seen) == 700 * 40_000
    assert torch.equal(index[:5], nearest(queries[:5], keys, 3, key_chunk=10**6)[0])


def test_weights_are_inverse_squared_distances_that_sum_to_one() -> None:
    queries, keys = normal(4, 3), normal(20, 3, seed=1)
    index, _ = nearest(queries, keys, 5)
    square = ((queries.numpy()[:, None] - keys.numpy()[index]) ** 2).sum(axis=2)
    expected = (1 / square) / (1 / square).sum(axis=1, keepdims=True)
    weights = inverse_square_weights(queries, keys, index, eps=0)
    np.testing.assert_allclose(weights, expected, rtol=1e-10)
    assert (weights >= 0).all()


def test_a_query_that_equals_a_key_has_finite_weights_that_are_nearly_all_its_own() -> None:
    keys = normal(20, 3, seed=1)
    index, _ = nearest(keys[:4], keys, 5)
    weights = inverse_square_weights(keys[:4], keys, index)
    assert weights.isfinite().all() and (weights[:, 0] > 0.999).all()
    assert index[:, 0].tolist() == [0, 1, 2, 3]


def test_moments_are_the_weighted_mean_and_the_variance_of_a_new_value_in_pieces_or_at_once(monkeypatch) -> None:
    values, index = normal(20, 6), torch.randint(20, (9, 4), generator=torch.Generator().manual_seed(0))
    weights = torch.rand(9, 4, dtype=torch.float64)
    weights /= weights.sum(dim=1, keepdim=True)
    chosen = values.numpy()[index]
    mean = (weights.numpy()[..., None] * chosen).sum(axis=1)
    squares = (weights.numpy() ** 2).sum(axis=1, keepdims=True)
    within = (weights.numpy()[..., None] * (chosen - mean[:, None]) ** 2).sum(axis=1)
    variance = within * (1 + squares) / (1 - squares)
    for gathered in (2**22, 30, 1):
        monkeypatch.setattr(retrieval, "GATHERED", gathered)
        found = weighted_moments(weights, values, index)
        np.testing.assert_allclose(found[0], mean, rtol=1e-10)
        np.testing.assert_allclose(found[1], variance, rtol=1e-10, atol=1e-12)


def test_none_takes_no_part_in_the_moments() -> None:
    values = torch.tensor([[1e30], [2.0], [4.0]], dtype=torch.float64)
    index = torch.tensor([[1, 2, -1]])
    mean, variance = weighted_moments(torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64), values, index)
    assert mean.item() == 3 and variance.item() == 3  # 1 within, times 1.5 / 0.5


@pytest.mark.parametrize("k", [2, 5, 14])
def test_the_variance_is_that_of_a_new_value_around_the_mean(k: int) -> None:
    """Neighbors of equal weight: (1 + 1 / k) times the unbiased variance, and unbiased for unequal ones as well."""
    values = normal(4000 * k, 1)
    index = torch.arange(4000 * k).view(4000, k)
    mean, variance = weighted_moments(torch.full((4000, k), 1 / k, dtype=torch.float64), values, index)
    own = values.view(4000, k)
    torch.testing.assert_close(variance[:, 0], (1 + 1 / k) * own.var(dim=1))
    weights = torch.rand(k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
    weights = (weights / weights.sum()).expand(4000, k)
    mean, variance = weighted_moments(weights, values, index)
    new = normal(4000, 1, seed=9)
    assert float((new - mean).pow(2).mean() / variance.mean()) == pytest.approx(1, abs=0.1)


def test_one_neighbor_says_nothing_of_the_spread_and_that_of_the_bank_is_taken() -> None:
    bank = filled()
    everything = bank.values.var(dim=0).double().expand(4, 2)
    torch.testing.assert_close(bank.ask(normal(4, 3), 1)[3], everything)
    on_a_key = bank.keys[[3]].double()
    torch.testing.assert_close(bank.ask(on_a_key, 3)[3], everything[:1], rtol=1e-3, atol=1e-3)
    one = Bank(1, 3, 2, name_bytes=1)
    assert one.ask(normal(1, 3), 1)[3].tolist() == [[0, 0]]


def filled() -> Bank:
    bank = Bank(5, 3, 2, name_bytes=4)
    bank.put(0, normal(2, 3).float(), torch.tensor([[1.0, 2], [3, 4]]), torch.zeros(2, 2), 0, ["é1", "1x12"])
    bank.put(2, normal(3, 3, seed=1).float(), torch.arange(6.0).view(3, 2), torch.ones(3, 2), 1, ["", "b", "cc"])
    return bank


def test_a_bank_gives_back_what_was_put_in() -> None:
    bank = filled()
    assert bank.names() == ["é1", "1x12", "", "b", "cc"]
    assert bank.section.tolist() == [0, 0, 1, 1, 1] and bank.xy.tolist() == [[0, 0]] * 2 + [[1, 1]] * 3
    assert bank.values.tolist() == [[1, 2], [3, 4], [0, 1], [2, 3], [4, 5]]
    assert torch.equal(bank.keys[2:], normal(3, 3, seed=1).float())
    index, weights, mean, variance = bank.ask(bank.keys[[3]].double(), 1)
    assert index.item() == 3 and weights.item() == 1 and mean.tolist() == [[2, 3]]
    torch.testing.assert_close(variance, bank.values.var(dim=0).double()[None])


def test_a_bank_is_in_the_state_and_has_nothing_to_train() -> None:
    bank, other = filled(), Bank(5, 3, 2, name_bytes=4)
    other.load_state_dict(bank.state_dict())
    assert other.names() == bank.names() and torch.equal(other.keys, bank.keys)
    assert not list(bank.parameters())


@pytest.mark.parametrize("apart", [1.0, 1e-3, 1e-7, 0.0])
def test_a_bank_asked_in_float64_answers_in_float64(apart: float) -> None:
    """Searched in float32, ranked in float64: also where all keys are nearer to each other than float32 can tell."""
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(16, generator=generator)
    bank = retrieval.Bank(300, 16, 2, 1)
    bank.keys.copy_(center + apart * torch.randn(300, 16, generator=generator))
    queries = (center + torch.randn(20, 16, generator=generator)).double()
    cosine = torch.nn.functional.normalize(queries, dim=1) @ torch.nn.functional.normalize(bank.keys.double(), dim=1).T
    found = bank.ask(queries, 5)[0]
    np.testing.assert_allclose(cosine.gather(1, found), cosine.sort(dim=1, descending=True).values[:, :5], atol=1e-12)
    assert all(len(set(row)) == 5 for row in found.tolist())
    if apart == 0:  # all are equal: the first ones
        np.testing.assert_array_equal(found, np.tile(np.arange(5), (20, 1)))
