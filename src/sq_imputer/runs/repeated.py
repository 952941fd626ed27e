"""Several partitions of a section into blocks: what is said of a row in each of them, put together.

Every row is predicted once in each partition, by a model that has not seen it. The mean of these means has no borders
where one partition has them. Its standard deviation has the shape of the law of total variance, and one size per gene
for all rows, that of the errors which the mean makes (by the rule of `sq_imputer.predictor.calibrate`): the mean of
several models errs less than each of them. Were a block sized by the errors of the others, as within one partition, a
map would show the blocks, and the less certain the better the block is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.predictor.calibrate import size, sized, stretched

if TYPE_CHECKING:
    from torch import Tensor

# R partitions, n rows, G genes, K neighbors


def together(said: Sequence[Prediction], truth: np.ndarray | None) -> Prediction:
    """One prediction of what several partitions say of the same rows.

    Parameters
    ----------
    said
        R predictions of n rows. Of models that retrieve they count one bank.
    truth
        `(n, G)` what was measured; None where the standard deviation is not to be given the size of errors.

    Returns
    -------
    Mean over partitions of mean and `ood`; standard deviation as said above; as many samples as one partition has, in
    turn from each and stretched with the standard deviation; every neighbor once, its weights summed and divided by R.
    The embedding is that of the first partition: axes of different models have nothing in common.
    """
    import torch

    means = torch.stack([one.mean for one in said])
    mean = means.mean(dim=0)
    found = {"mean": mean, "embedding": said[0].embedding}
    if said[0].std is not None:
        within = torch.stack([one.std for one in said]).square().mean(dim=0)
        std = (within + means.var(dim=0, correction=0)).sqrt()
        found["std"] = std if truth is None else _sized(mean - torch.from_numpy(truth), std)
        if said[0].samples is not None:
            turns = [said[j % len(said)].samples[:, j] for j in range(said[0].samples.shape[1])]
            found["samples"] = stretched(torch.stack(turns, dim=1), mean, found["std"], std)
    if said[0].ood is not None:
        found["ood"] = torch.stack([one.ood for one in said]).mean(dim=0)
    if said[0].neighbors is not None:
        neighbors = torch.cat([one.neighbors for one in said], dim=1)
        weights = torch.cat([one.weights for one in said], dim=1) / len(said)
        found["neighbors"], found["weights"] = once(neighbors, weights)
    return Prediction(**found)


def _sized(error: Tensor, std: Tensor) -> Tensor:
    """Standard deviations `(n, G)` of the size of the errors."""
    return sized(std, *size(error, std, std.new_zeros(std.shape[1]), of_mean=False))


def once(neighbors: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Neighbors and weights `(n, K)` in which none comes twice: weights are summed, the heaviest is first, -1 last."""
    import torch

    order = torch.argsort(neighbors, dim=1, stable=True)
    neighbors, weights = neighbors.gather(1, order), weights.gather(1, order)
    new = torch.ones_like(neighbors, dtype=torch.bool)
    new[:, 1:] = neighbors[:, 1:] != neighbors[:, :-1]
    place = new.long().cumsum(dim=1) - 1
    merged = torch.zeros_like(weights).scatter_add(1, place, weights)
    names = torch.full_like(neighbors, -1).scatter(1, place, neighbors)
    order = torch.argsort(torch.where(names < 0, -1.0, merged), dim=1, descending=True, stable=True)
    return names.gather(1, order), merged.gather(1, order)


def widened(prediction: Prediction, width: int) -> Prediction:
    """The prediction with lists of `width` neighbors, filled up with -1 of weight 0."""
    from dataclasses import replace

    import torch

    if prediction.neighbors is None:
        return prediction
    more = (0, width - prediction.neighbors.shape[1])
    pad = torch.nn.functional.pad
    return replace(
        prediction, neighbors=pad(prediction.neighbors, more, value=-1), weights=pad(prediction.weights, more)
    )
