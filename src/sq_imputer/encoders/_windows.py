"""Means of maps over windows that may begin and end within a pixel, by summed-area tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Boxes:
    """Windows on a batch of images.

    Parameters
    ----------
    image
        `(n,)` which image of the batch.
    low, high
        `(n, 2)` where it begins and ends, along y and x, in pixels: pixel `i` covers `[i, i + 1)`. float64.
    """

    image: Tensor
    low: Tensor
    high: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def split(self, most: int) -> list[Boxes]:
        """The windows in portions of so many at most."""
        parts = (x.split(most) for x in (self.image, self.low, self.high))
        return [Boxes(*part) for part in zip(*parts, strict=True)]

    def parts(self, begin: Tensor, end: Tensor) -> Boxes:
        """Parts of every window, one after the other; `begin` and `end` `(k, 2)` are shares of its sides."""
        side = (self.high - self.low)[:, None]
        low, high = self.low[:, None] + begin * side, self.low[:, None] + end * side
        return Boxes(self.image.repeat_interleave(len(begin)), low.reshape(-1, 2), high.reshape(-1, 2))


def summed(maps: list[Tensor]) -> Tensor:
    """Summed-area table `(B, H + 1, W + 1, maps)` of `(B, H, W)` maps, in float64."""
    n, height, width = maps[0].shape
    table = maps[0].new_zeros((n, height + 1, width + 1, len(maps)), dtype=torch.float64)
    for number, values in enumerate(maps):  # into its place at once: of a large block a copy has 200 MB
        table[:, 1:, 1:, number] = values
    table[:, 1:, 1:].cumsum_(1).cumsum_(2)
    return table


def window_means(table: Tensor, boxes: Boxes, cell: int) -> Tensor:
    """`(n, maps)` means over windows inside the images, each cell weighed by how much of it lies in the window.

    Parameters
    ----------
    table
        Of :func:`summed`.
    boxes
        The windows.
    cell
        Pixels along a side of a cell of the maps.
    """
    _, height, width, _ = table.shape
    low, high = boxes.low / cell, boxes.high / cell
    y, at_y = _corners(low[:, 0], high[:, 0], height)
    x, at_x = _corners(low[:, 1], high[:, 1], width)
    rows = (boxes.image[:, None] * height + y)[:, :, None] * width + x[:, None]
    weights = at_y[:, :, None] * at_x[:, None]
    sums = F.embedding_bag(rows.flatten(1), table.flatten(0, 2), mode="sum", per_sample_weights=weights.flatten(1))
    return sums / (high - low).prod(1, keepdim=True)


def _corners(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Entries `(n, 4)` of a running sum, and weights, that give the sum from `low` to `high`."""
    ends = torch.stack([low, high], 1)
    before = ends.floor().clamp(0, size - 2)
    share = ends - before
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=low.device)
    at = torch.stack([before, before + 1], 2).flatten(1).long()
    return at, torch.stack([sign * (1 - share), sign * share], 2).flatten(1)
