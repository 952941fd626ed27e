"""Intervals that hold a share of what is measured, by errors on rows that a model has not seen (split conformal).

The errors of left-out rows, over the model's own standard deviation where it has one, are ordered; the one that a share
of them stays below says how wide an interval is (Papadopoulos et al. 2002; normalized: Lei et al. 2018). It holds
whatever their distribution, if a new row is exchangeable with these. Rows of one block or section are not independent,
so parts are left out as a whole: no row is judged by the errors of its own part.
"""

from __future__ import annotations

import numpy as np

from sq_imputer.errors import BadInput

LEAST = 1e-9


def widths(error, scale, level: float) -> np.ndarray:
    """How many scales hold a share of errors, `(G,)`.

    Parameters
    ----------
    error, scale
        `(n, G)` measured minus predicted, and what an error is compared with; rows with NaN are left out, by gene.
    level
        The share, between 0 and 1.

    Returns
    -------
    The ⌈(n + 1) level⌉-th smallest of the ratios; infinite where n is too small for that, NaN where nothing is known.
    """
    if not 0 < level < 1:
        raise BadInput(f"level is {level}; expected a share between 0 and 1, such as 0.9.")
    ratio = np.sort(np.abs(np.asarray(error, dtype=float)) / np.maximum(scale, LEAST), axis=0)  # NaN come last
    n = np.isfinite(ratio).sum(axis=0)
    place = np.ceil((n + 1) * level - 1e-9).astype(int)
    found = np.take_along_axis(ratio, np.clip(place - 1, 0, len(ratio) - 1)[None], axis=0)[0]
    return np.where(n == 0, np.nan, np.where(place > n, np.inf, found))


def widths_of_parts(error, scale, parts: np.ndarray, level: float) -> np.ndarray:
    """The same for every part, `(parts, G)`, by the errors of all others; `parts` `(n,)` counts from 0.

    Raises
    ------
    BadInput
        If there are fewer than two parts.
    """
    parts = np.asarray(parts)
    if not len(parts) or parts.max() < 1:
        raise BadInput("all rows are of one part; intervals need two or more, one of which is left out in turn.")
    return np.stack([widths(error[parts != k], scale[parts != k], level) for k in range(parts.max() + 1)])


def coverage(measured, lower, upper) -> np.ndarray:
    """Share of what is measured that lies inside, `(G,)`; NaN where nothing is."""
    known = np.isfinite(measured) & np.isfinite(lower) & np.isfinite(upper)
    with np.errstate(invalid="ignore"):
        inside = known & (measured >= lower) & (measured <= upper)
        return inside.sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
