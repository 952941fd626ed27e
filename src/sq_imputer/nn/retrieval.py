"""Exact nearest neighbors in a bank of keys, and what they say, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

# Q queries, N keys, D their width, K neighbors, G values of a key

KEYS, QUERIES = 32_768, 512  # most that are compared at a time
SPARE, ROUNDING = 16, 1e-5  # candidates beyond k, and how far a cosine in float32 can be off
ALONE = 1 - 1e-6  # sum of squared weights above which one neighbor has all of the weight
GATHERED = 2**22  # most numbers of neighbors that are held at a time


class Bank(nn.Module):
    """Keys, what was measured where each is, and what it is called: buffers, so that they are saved with the weights.

    Parameters
    ----------
    rows
        Number of keys.
    width
        Width of a key.
    values
        Number of values of a key.
    name_bytes
        Bytes of the longest name, in UTF-8.
    """

    def __init__(self, rows: int, width: int, values: int, name_bytes: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(rows, width))
        self.register_buffer("values", torch.zeros(rows, values))
        self.register_buffer("section", torch.zeros(rows, dtype=torch.long))
        self.register_buffer("xy", torch.zeros(rows, 2))
        self.register_buffer("name_bytes", torch.zeros(rows, name_bytes, dtype=torch.uint8))

    def put(self, first: int, keys: Tensor, values: Tensor, xy: Tensor, section: int, names: Sequence[str]) -> None:
        """Fill the rows from `first` on with those of one section."""
        rows = slice(first, first + len(keys))
        self.keys[rows], self.values[rows], self.xy[rows], self.section[rows] = keys, values, xy, section
        for row, name in enumerate(names, first):
            letters = torch.tensor(list(name.encode()), dtype=torch.uint8)
            self.name_bytes[row, : len(letters)] = letters

    def names(self) -> list[str]:
        """What the rows are called."""
        return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in self.name_bytes.cpu().numpy()]

    def ask(self, queries_QD: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The `k` rows of highest cosine and their weights `(Q, k)`; mean and variance `(Q, G)` of a new value.

        Where one row has all of the weight nothing is known of the spread around it, and it is that of the whole bank.
        """
        index = self._nearest(queries_QD, k)
        weights = inverse_square_weights(queries_QD, self.keys, index)
        mean, variance = weighted_moments(weights, self.values, index)
        alone = weights.pow(2).sum(dim=1) > ALONE
        if alone.any():
            variance[alone] = self.values.var(dim=0, correction=min(1, len(self.values) - 1)).to(variance)
        return index, weights, mean, variance

    def _nearest(self, queries_QD: Tensor, k: int) -> Tensor:
        """As :func:`nearest`, in the precision of the queries; wide ones are searched in float32 and then ranked."""
        if queries_QD.dtype != torch.float64 or len(self.keys) <= k + SPARE:
            return nearest(queries_QD, self.keys, k)[0]
        index, score = nearest(queries_QD.float(), self.keys, k + SPARE)
        index = index.sort(dim=1).values  # of equally near ones, the lower number
        near = torch.cat([normalize(keys, dim=2) for _, keys in _gathered(queries_QD, self.keys, index)])
        exact = (near * normalize(queries_QD, dim=1)[:, None]).sum(dim=2)
        best, order = exact.sort(dim=1, descending=True, stable=True)
        index = index.gather(1, order[:, :k])
        unsure = score[:, -1] > best[:, k - 1] - ROUNDING  # more may be as near as those found
        if unsure.any():
            index[unsure] = nearest(queries_QD[unsure], self.keys, k)[0]
        return index


def nearest(
    queries_QD: Tensor,
    keys_ND: Tensor,
    k: int,
    *,
    metric: str = "cosine",
    key_chunk: int = KEYS,
    query_chunk: int = QUERIES,
) -> tuple[Tensor, Tensor]:
    """The `k` keys nearest to every query, nearest first; of equally near ones those of lower number.

    Exact: every query meets every key, a chunk of both at a time, on the device and in the precision of the queries.
    The keys may lie elsewhere, and are moved chunk by chunk. Where rows that are almost equally near must not change
    places with the size of a batch, give queries in float64.

    Parameters
    ----------
    queries_QD
        `(Q, D)`.
    keys_ND
        `(N, D)`.
    k
        Neighbors; may exceed N.
    metric
        `"cosine"` or `"euclidean"`.
    key_chunk, query_chunk
        Most that are compared at a time: memory grows with their product.

    Returns
    -------
    Numbers of the keys, `(Q, k)` int64 with -1 where there are no more, and scores, `(Q, k)`: the cosine, or the
    negative squared distance; minus infinity where there are no more.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric is {metric!r}; expected 'cosine' or 'euclidean'.")
    index = torch.full((len(queries_QD), k), -1, dtype=torch.long, device=queries_QD.device)
    score = queries_QD.new_full((len(queries_QD), k), -torch.inf)
    for first in range(0, len(keys_ND), key_chunk):
        keys = keys_ND[first : first + key_chunk].to(queries_QD)
        for start in range(0, len(queries_QD), query_chunk):
            rows = slice(start, start + query_chunk)
            found = _scores(queries_QD[rows], keys, metric)
            score[rows], place = _best(torch.cat([score[rows], found], dim=1), k)
            before = index[rows].gather(1, place.clamp_max(k - 1))
            index[rows] = torch.where(place < k, before, place - k + first)
    return index, score


def _scores(queries_QD: Tensor, keys_ND: Tensor, metric: str) -> Tensor:
    if metric == "cosine":  # divided by lengths afterwards: no copy of the keys is made
        return (normalize(queries_QD, dim=1) @ keys_ND.T).div_(keys_ND.norm(dim=1).clamp_min(1e-12))
    squares = queries_QD.pow(2).sum(dim=1, keepdim=True) + keys_ND.pow(2).sum(dim=1)
    return 2 * queries_QD @ keys_ND.T - squares


def _best(score_QN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` highest scores in falling order and their places; of equal ones the first. `topk` picks any of them."""
    score, place = score_QN.topk(k, dim=1)
    tied = (score_QN >= score[:, -1:]).sum(dim=1) > k
    if tied.any():
        place[tied] = score_QN[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    place = place.sort(dim=1).values
    score, order = score_QN.gather(1, place).sort(dim=1, descending=True, stable=True)
    return score, place.gather(1, order)


def inverse_square_weights(queries_QD: Tensor, keys_ND: Tensor, index_QK: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Weights `(Q, K)` of neighbors by the inverse of their squared Euclidean distance; they sum to 1.

    Parameters
    ----------
    queries_QD, keys_ND
        As :func:`nearest` took them.
    index_QK
        Numbers of the neighbors; -1 for none, whose weight is 0.
    eps
        Added to the squared distance: a key that equals the query has a large weight instead of an infinite one.
    """
    square = torch.cat([(near - query).pow(2).sum(dim=2) for query, near in _gathered(queries_QD, keys_ND, index_QK)])
    weight = torch.where(index_QK >= 0, 1 / (square + eps), 0)
    return weight / weight.sum(dim=1, keepdim=True)


def weighted_moments(weights_QK: Tensor, values_NG: Tensor, index_QK: Tensor) -> tuple[Tensor, Tensor]:
    r"""Weighted mean of the neighbors' values, and variance of a new value around it, each `(Q, G)`.

    With weights :math:`w` that sum to 1 and :math:`r = \sum w^2`, the weighted variance of the neighbors is
    :math:`1 - r` of that of the values they are drawn from, and their mean is off by :math:`r` of it: the variance of a
    new value is :math:`\sum w (y - \bar y)^2\,(1 + r) / (1 - r)`. Where one neighbor has all of the weight it is 0.

    In the precision of the weights.
    """
    means, variances = [], []
    for weight, near in _gathered(weights_QK, values_NG, index_QK):
        weight = weight.transpose(1, 2)
        means.append((weight * near).sum(dim=1))
        within = (weight * (near - means[-1][:, None]).pow(2)).sum(dim=1)
        squares = weight.pow(2).sum(dim=1)
        variances.append(torch.where(squares > ALONE, 0, within * (1 + squares) / (1 - squares).clamp_min(1e-12)))
    return torch.cat(means), torch.cat(variances)


def _gathered(per_query: Tensor, values_NG: Tensor, index_QK: Tensor):
    """Some queries at a time: their rows `(q, 1, ...)`, and the values of their neighbors `(q, K, G)`."""
    step = max(1, GATHERED // max(1, index_QK.shape[1] * values_NG.shape[1]))
    for start in range(0, len(index_QK), step):
        index = index_QK[start : start + step].clamp_min(0).to(values_NG.device)
        yield per_query[start : start + step, None], values_NG[index].to(per_query)
