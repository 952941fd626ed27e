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
    if len(values) < 2:
        return np.zeros(values.shape[1], dtype=bool)
    varies = np.ptp(values, axis=0) > ROUNDING * np.abs(values).max(axis=0, initial=0)  # NaN is not more
    return ~varies


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
