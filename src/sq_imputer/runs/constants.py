"""Genes that a model predicts as one number everywhere: written, but never without a mark and a word."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sq_imputer.errors import listed
from sq_imputer.scores.metrics import ROUNDING


def is_constant(values: np.ndarray) -> np.ndarray:
    """`(G,)` which columns of a matrix `(n, G)` do not vary by more than rounding, or hold what is no number.

    One such column makes the p-values of all genes NaN that `squidpy.gr.spatial_autocorr` (1.8.2, 1.8.3) corrects for
    their number.
    """
    spread = Spread()
    spread.add(values)
    return spread.constant


class Spread:
    """The same of a matrix that comes some rows at a time."""

    def __init__(self) -> None:
        self.n, self._low, self._high = 0, np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        """Count rows `(n, G)` in."""
        self.n += len(values)
        self._low = np.minimum(self._low, values.min(axis=0, initial=np.inf))  # NaN stays
        self._high = np.maximum(self._high, values.max(axis=0, initial=-np.inf))

    @property
    def constant(self) -> np.ndarray:
        """`(G,)` which columns do not vary."""
        if self.n < 2:
            return np.zeros(np.shape(self._low), dtype=bool)
        varies = self._high - self._low > ROUNDING * np.maximum(np.abs(self._low), np.abs(self._high))
        return ~varies  # NaN is not more


def warn_of_constants(layer: str, genes: Sequence[str], constant: np.ndarray) -> None:
    """Say which genes are predicted as constants, and how to leave them out."""
    if constant.any():
        names = [gene for gene, one in zip(genes, constant, strict=True) if one]
        warnings.warn(
            f"'{layer}' predicts one value in all rows of a section for {len(names)} of {len(genes)} genes: "
            f"{listed(names)}. They are marked in var['{layer}_constant']; leave them out, as by "
            f"table[:, ~table.var['{layer}_constant']], before p-values are corrected: squidpy.gr.spatial_autocorr "
            "makes those of all genes NaN.",
            UserWarning,
            stacklevel=4,
        )
