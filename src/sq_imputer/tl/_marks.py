"""What `tl.trust` marks beside genes: spots and sections unlike the training tissue, and intervals of every value."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.units import UNITS
from sq_imputer.runs import reliability
from sq_imputer.runs.sections import records
from sq_imputer.scores.conformal import coverage, widths, widths_of_parts
from sq_imputer.scores.splits import spatial_blocks, whole_parts
from sq_imputer.tl._domains import matrix

if TYPE_CHECKING:
    from anndata import AnnData

    from sq_imputer.runs.views import View

LIKE, UNLIKE = "like the training tissue", "unlike the training tissue"
UNLIKE_SECTION, UNKNOWN = "its section is unlike the training tissue", "not known"
BLOCKS, LEAST_IN_BLOCK = 10, 10


def spots(table: AnnData, key: str, layer: str, views: Mapping[str, View]) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Columns of `obs` that say which spots are like the training tissue, and why not; a record of every section."""
    ood = table.obs[f"{layer}_ood"].to_numpy(dtype=float)
    reason, found = np.full(len(ood), UNKNOWN, dtype=object), []
    for name, view in views.items():
        own = ood[view.rows]
        beyond = reliability.beyond(own)
        record = records(view.sdata.tables[key])[layer]
        other = beyond > reliability.MOST_BEYOND and not record["n_folds"]  # a section in blocks is not unlike itself
        said = np.where(own > reliability.UNLIKE, UNLIKE, UNLIKE_SECTION if other else LIKE)
        reason[view.rows] = np.where(np.isfinite(own), said, UNKNOWN)
        differs = list(record.get("differs", ()))
        found.append({"section": name, "beyond": beyond, "unlike": bool(other), "differs": differs})
        if other:
            _warn(found[-1])
    return {f"{layer}_reliable": reason == LIKE, f"{layer}_reason": reason}, found


def _warn(section: dict) -> None:
    what = f" What differs most: {'; '.join(section['differs'])}." if section["differs"] else ""
    warnings.warn(
        f"section '{section['section']}' is unlike the training tissue: {section['beyond']:.0%} of its spots lie "
        f"beyond 95 % of the left-out training spots, where 5 % are usual.{what} Predictions there are a guess.",
        UserWarning,
        stacklevel=5,
    )


@dataclass(frozen=True, eq=False)
class Intervals:
    """Lower and upper bounds `(n, G)`, by what they were calibrated, and which share of what is measured they hold.

    `held` `(G,)` is over all rows that are known; `of_sections` the mean over genes, by name of the section.
    """

    lower: np.ndarray
    upper: np.ndarray
    by: str
    held: np.ndarray
    of_sections: dict[str, float]


def intervals(
    table: AnnData, layer: str, views: Mapping[str, View], known: Mapping[str, np.ndarray], level: float
) -> Intervals:
    """Intervals of every value, calibrated by parts of what was measured, else by what the model carries.

    `known` has the rows of every section, numbered in its view, that were measured and not seen by the model.
    """
    record = records(table)[layer]
    said, measured = (matrix(table.layers[name]) for name in (layer, "measured"))
    name = f"{layer}_std"
    scale = matrix(table.layers[name]) if name in table.layers else np.ones_like(said)
    whole = {name: views[name].rows[rows] for name, rows in known.items()}
    wide, by = _widths(table, record, measured - said, scale, whole, views, level)
    lower, upper = said - wide * scale, said + wide * scale
    if record.get("layer_unit", record["unit"]) in UNITS:  # none of which is below 0
        lower, upper = np.maximum(lower, 0), np.maximum(upper, 0)
    outside = np.ones(table.n_obs, dtype=bool)
    outside[[row for view in views.values() for row in view.rows]] = False
    lower[outside] = upper[outside] = np.nan
    rows = np.concatenate(list(whole.values())) if whole else np.empty(0, dtype=int)
    held = coverage(measured[rows], lower[rows], upper[rows])
    each = {name: float(np.nanmean(coverage(measured[own], lower[own], upper[own]))) for name, own in whole.items()}
    return Intervals(lower.astype(np.float32), upper.astype(np.float32), by, held, each)


def _widths(table, record, error, scale, whole, views, level) -> tuple[np.ndarray, str]:
    """Widths in units of the scale, `(n, G)` or `(1, G)`, and by what they were found."""
    if not whole:
        kept = reliability.of(record, table.var_names)
        return _carried(kept["widths"], level)[None], kept["from"]
    rows = np.concatenate(list(whole.values()))
    wide = np.repeat(widths(error[rows], scale[rows], level)[None], table.n_obs, axis=0)
    names = np.concatenate([np.full(len(own), name, dtype=object) for name, own in whole.items()])
    if len(whole) > 1 and not record["n_folds"]:
        patients = table.obs["patient"].astype(str).to_numpy()[rows]
        parts = whole_parts(patients, names)
        wide[rows] = widths_of_parts(error[rows], scale[rows], parts, level)[parts]
        return wide, "individuals" if len(set(patients)) > 1 else "sections"
    xy = np.asarray(table.obsm["spatial"], dtype=float)
    for name, own in whole.items():
        parts = spatial_blocks(xy[own], max(2, min(BLOCKS, len(own) // LEAST_IN_BLOCK)))
        wide[views[name].rows] = widths(error[own], scale[own], level)
        wide[own] = widths_of_parts(error[own], scale[own], parts, level)[parts]
    return wide, "blocks of the section"


def _carried(found: Mapping, level: float) -> np.ndarray:
    """Widths that the model has of its training data."""
    if f"{level:g}" not in found:
        raise BadInput(
            f"level is {level}; nothing is measured here, and the model carries {listed(found)}. Pass one of these."
        )
    return found[f"{level:g}"]
