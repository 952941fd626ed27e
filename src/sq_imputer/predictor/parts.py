"""Measured rows of several sources as one, in an order of their own, and what is left out to measure an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.contract import Source

if TYPE_CHECKING:
    from torch import Tensor

LEAST_HALVED = 20  # rows on either side, half of which still say something
MOST = 1000  # left-out rows that are looked at: more make a size no more certain than genes and tissue leave it
SD_OF_95 = "sd_of_95"  # where a fit notes how many standard deviations hold 95 % of its left-out errors
_LOOKED_AT = 1000  # rows of a source that tell it from others of its name


class Labels(NamedTuple):
    """Of all measured rows, source by source: individual `(n,)`, number of the source `(n,)`, place `(n, 2)` in it."""

    groups: np.ndarray
    sections: np.ndarray
    xy_um: np.ndarray

    @classmethod
    def of(cls, sources: Sequence[Source]) -> Labels:
        """The labels of the measured rows of some sources."""
        rows = [np.flatnonzero(source.measured) for source in sources]
        groups = [np.full(len(r), source.group, dtype=object) for source, r in zip(sources, rows, strict=True)]
        sections = [np.full(len(r), number) for number, r in enumerate(rows)]
        xy = [source.xy_um[r] for source, r in zip(sources, rows, strict=True)]
        return cls(*(np.concatenate(parts) for parts in (groups, sections, xy)))


def in_order(sources: Sequence[Source]) -> list[Source]:
    """Sources in an order that is not that in which they are listed, which decides what is drawn for which row.

    By name, less the number that those of one name have by their place in a list; then by what was measured, not by
    where, as places come with rounding.
    """
    return sorted(sources, key=_told_by) if len(sources) > 1 else list(sources)


def _told_by(source: Source) -> tuple[str, int, float]:
    rows = np.flatnonzero(source.measured)
    mean = float(np.mean(source.expression[rows[:_LOOKED_AT]], dtype=np.float64)) if len(rows) else 0.0
    return re.sub(r"-\d+$", "", source.section), len(rows), mean


def sd_of(share: float, square: np.ndarray) -> float:
    """How many standard deviations hold this share of errors, whose squares in units of them are `square`.

    Of errors from a normal distribution 1.96 hold .95. Counts of which a third are 0 have two humps as logarithms:
    fewer hold as many. One number for all genes: that of one gene is too uncertain where rows are hundreds.
    """
    known = square[np.isfinite(square)]
    return float(np.quantile(known, share) ** 0.5) if len(known) else NormalDist().inv_cdf(0.5 + share / 2)


def share_left(error: Tensor, of_half: Tensor, spread: Tensor) -> float:
    r"""Share of a squared error that is left once a fit has twice the rows.

    Errors fall with the number of rows as :math:`a + b / n`, so that twice the rows take off half of what half of them
    add. Over all genes, as one gene's difference says little; half is left at least.

    Parameters
    ----------
    error, of_half
        `(G,)` mean squared errors or their sums, of the same rows, by fits on one of two parts and on half of that.
    spread
        `(G,)` standard deviations of the training rows.
    """
    unit = spread.double().square().clamp_min(1e-12)
    added = float((of_half / unit).mean() / (error / unit).mean().clamp_min(1e-12)) - 1
    return 1 - min(max(added / 2, 0.0), 0.5)
