"""Total counts: how deep a library was when it was predicted, and how much of it a panel is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.genes.units import LOG1P_CP10K

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.section.slide import Slide

UNLIKE = 2.0  # times more, or less, of the library than in any training section


def with_depth_of(slide: Slide, sdata: SpatialData, key: str) -> Slide:
    """A section with the total counts that a result table recorded when it was predicted.

    A table that was cut to a panel since has lost them, and with them the expression of every gene.
    """
    table = sdata.tables[key]
    if slide.counts is None or "total_counts" not in table.obs:
        return slide
    rows, where = slide.rows_in(table, key)
    counted = np.zeros(len(slide), dtype=bool)
    counted[slide.counts.where] = True
    then = np.full(len(slide), np.nan)
    then[where] = table.obs["total_counts"].to_numpy(float)[rows]
    now = slide.counts.depth
    other = counted & np.isfinite(then) & ~np.isclose(then, now, rtol=1e-6)
    if not other.any():
        return slide
    warnings.warn(
        f"the counts of table '{slide.keys['table_key']}' have changed since the prediction: total counts differ at "
        f"{other.sum()} of {counted.sum()} spots. Those of then are used, obs['total_counts'] of tables['{key}'].",
        UserWarning,
        stacklevel=5,
    )
    depth = np.where(other, then, now)
    measured = counted & (depth > 0) if slide.target.is_genes else slide.measured
    return replace(slide, counts=replace(slide.counts, depth=depth), measured=measured)


def share_of(slide: Slide, genes: Sequence[str]) -> float:
    """Share of all counts of a section that genes of a panel have; of those that it has."""
    from sq_imputer.genes.panel import columns_for

    mine = [genes[number] for number in slide.which(genes)]
    total = np.nansum(slide.depth)
    if not mine or not total > 0:
        return 0.0
    counts = slide.counts.columns(columns_for(mine, slide.var_names, f"section '{slide.section}'", slide.gene_ids))
    return float(counts[slide.measured].sum() / total)


def warn_of_shares(slides: Sequence[Slide], genes: Sequence[str], unit: str, shares: Sequence[float]) -> None:
    """Say where a panel is another share of the library than in all training sections, whose `shares` are known.

    Only of sections that have all genes of the panel: others are told by what they lack.
    """
    if unit != LOG1P_CP10K or not len(shares):
        return
    low, high = min(shares) / UNLIKE, max(shares) * UNLIKE
    for slide in slides:
        if slide.counts is None or len(slide.which(genes)) < len(genes):
            continue
        share = share_of(slide, genes)
        if not low <= share <= high:
            warnings.warn(
                f"the {len(genes)} genes of the model are {share:.1%} of all counts of section '{slide.section}', and "
                f"{min(shares):.1%} to {max(shares):.1%} of those of the training sections: counts per 10,000 are of "
                "another library, and 'measured' is in another unit than the prediction. Predict with the full table.",
                UserWarning,
                stacklevel=3,
            )
