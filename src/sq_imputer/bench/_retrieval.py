"""The task of retrieval: of a crop its expression, of an expression its crop, beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._contrast import Tuned
from sq_imputer.bench._pairs import Pairs
from sq_imputer.errors import check_number
from sq_imputer.scores import retrieval as ranks
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from pandas import DataFrame

DIRECTIONS = ("image to expression", "expression to image")


@verb
def retrieval(
    tuned: Tuned,
    pairs: Pairs,
    *,
    gallery: str | Sequence[str] = ("batch:64", "section", "all"),
    ks: Sequence[int] = (1, 5, 10),
    exclude_um: float = 0.0,
) -> DataFrame:
    """Find the other half of every pair, beside chance.

    Parameters
    ----------
    tuned
        Encoders into one space (:func:`sq_imputer.bench.contrast`).
    pairs
        Of sections that were not trained on.
    gallery
        Where is searched: `"section"`, `"all"`, or `"batch:64"`, so many rows after each other, as the published
        numbers have it: these are near each other on the slide, and chance is 7.8 % for the first five.
    ks
        Of the recall.
    exclude_um
        Rows of the section nearer than this are no wrong answers, and not searched.

    Returns
    -------
    A row per section, direction, gallery and k: `recall`, `chance`, `median_rank`, `mean_rank`, `n` rows. Means over
    sections with intervals: :func:`sq_imputer.bench.over_sections`.

    Examples
    --------
    >>> table = sqi.bench.retrieval(tuned, pairs, gallery="section")
    """
    import pandas as pd

    for k in ks:
        check_number("ks", k, 1, whole=True)
    check_number("exclude_um", exclude_um)
    sides = tuned.image(pairs), tuned.expression(pairs)
    where = {"xy_um": pairs.xy_um, "section": pairs.section, "exclude_um": exclude_um}
    rows = []
    for name in [gallery] if isinstance(gallery, str) else gallery:
        groups = ranks.galleries(pairs.section, name)
        for direction, (query, key) in zip(DIRECTIONS, (sides, sides[::-1]), strict=True):
            found = ranks.ranked(query, key, groups, **where)
            for section in dict.fromkeys(pairs.section):
                own = pairs.section == section
                rows += [
                    {"section": section, "direction": direction, "gallery": name, "k": k, **_scores(found, own, k)}
                    for k in ks
                ]
    return pd.DataFrame(rows)


def _scores(found: tuple[np.ndarray, ...], own: np.ndarray, k: int) -> dict[str, float]:
    above, ties, sizes = (part[own] for part in found)
    place = ranks.rank(above, ties)
    return {
        "recall": float(ranks.recall(above, ties, k).mean()),
        "chance": float(ranks.chance(sizes, k).mean()),
        "median_rank": float(np.median(place)),
        "mean_rank": float(place.mean()),
        "n": int(own.sum()),
    }
