"""Units of expression: what is made of counts, and how much of the sequencing depth stays in."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from sq_imputer.errors import BadInput, listed
from sq_imputer.target import LEGACY_UNIT

LOG1P_CP10K = "log1p_cp10k"
LOG1P_COUNTS = "log1p_counts"
LOG2_COUNTS = "log2_counts"
LOG10_PANEL = LEGACY_UNIT
OF_LIBRARY = (LOG1P_CP10K, LOG1P_COUNTS, LOG2_COUNTS)
UNITS = (*OF_LIBRARY, LOG10_PANEL)
PER_10K = (LOG1P_CP10K, LOG10_PANEL)
LOGS = {LOG2_COUNTS: np.log(2), LOG10_PANEL: np.log(10)}  # of the base, where it is not e
AT_ONCE = 2**22  # values that are made at once


def to_unit(counts: csr_matrix, depth: np.ndarray, unit: str = LOG1P_CP10K) -> np.ndarray:
    """Counts in an expression unit.

    Parameters
    ----------
    counts
        `(n, G)` counts of the genes wanted.
    depth
        `(n,)` total counts of each row over the **full library**, not over the panel.
    unit
        `"log1p_cp10k"`: log(1 + 10,000 count / depth). `"log1p_counts"`: log(1 + count). `"log2_counts"`: log2(1 +
        count). These two keep the sequencing depth in. `"log10_cp10k_panel"`: log10(1 + 10,000 count / total of these
        genes), as the published TRIPLEX has it: genes of a panel then compete, and depth is not looked at.

    Returns
    -------
    `(n, G)` float32. A row without any counts is 0.
    """
    if unit not in UNITS:
        raise BadInput(f"no unit '{unit}'; there are {listed(UNITS)}.")
    counts = csr_matrix(counts, dtype=np.float32)
    if unit == LOG10_PANEL:
        depth = counts.sum(axis=1, dtype=np.float64).A1
    if unit in PER_10K:
        scale = np.divide(1e4, depth, out=np.zeros(len(depth)), where=depth > 0)
    found = np.empty(counts.shape, dtype=np.float32)
    at_once = max(1, AT_ONCE // max(counts.shape[1], 1))
    for start in range(0, len(found), at_once):  # what is made in float64 stays small
        rows = slice(start, start + at_once)
        block = counts[rows].multiply(scale[rows, None]) if unit in PER_10K else counts[rows]
        dense = np.log1p(block.toarray())
        found[rows] = dense / LOGS[unit] if unit in LOGS else dense
    return found


def counting_variance(mean: np.ndarray, depth: np.ndarray, unit: str = LOG1P_CP10K) -> np.ndarray:
    """Variance `(n, G)` that Poisson counting gives to a measurement of this mean, to first order.

    Parameters
    ----------
    mean
        `(n, G)` expected values in the unit; below a tenth of a gene's mean rate they count as that tenth.
    depth
        `(n,)` total counts over the full library.
    unit
        As :func:`to_unit` has it, but `"log10_cp10k_panel"`.
    """
    if unit not in OF_LIBRARY:
        raise BadInput(f"no unit '{unit}' of which this is known; there are {listed(OF_LIBRARY)}.")
    log = LOGS.get(unit, 1.0)
    rate = np.expm1(np.maximum(np.asarray(mean, dtype=float) * log, 0))
    rate = np.maximum(rate, 0.1 * rate.mean(axis=0))
    step = 1e4 / np.asarray(depth, dtype=float)[:, None] if unit == LOG1P_CP10K else 1.0  # of one count
    return step * rate / (1 + rate) ** 2 / log**2
