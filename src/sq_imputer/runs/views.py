"""A result table of several sections, taken apart: verbs that read one section read each as an object of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed, named
from sq_imputer.runs.sections import records
from sq_imputer.store.write import is_word

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True, eq=False)
class View:
    """One section: an object in memory whose result table has its rows alone, and which rows of the whole they are."""

    sdata: SpatialData
    rows: np.ndarray


def sections_of(table: AnnData) -> list[str]:
    """Names of the sections of a result table, in their order; none if all of it is one section."""
    return _sections(table, records(table))


def _sections(table: AnnData, found: dict[str, dict]) -> list[str]:
    there = set(table.obs["section"].astype(str)) if "section" in table.obs else set()
    numbered = [record["sections_predicted"] for record in found.values() if "sections_predicted" in record]
    each = ([one[number]["section"] for number in sorted(one, key=int)] for one in numbered)  # a store has any order
    named_so = ([name for name in names if name in there] for names in each)
    return next(filter(None, named_so), [])  # another prediction may have called them otherwise


def views_of(sdata: SpatialData, key: str, sections: str | Sequence[str] | None = None) -> dict[str, View]:
    """The sections of a result table by name; all of it under its own name if it is one section.

    Parameters
    ----------
    sdata
        An object that `tl.predict` wrote to.
    key
        The result table.
    sections
        Names of sections, or the column of `obs` that names them; all if left out.

    Raises
    ------
    MissingKey
        If there is no such section.
    """
    table = sdata.tables[key]
    found = records(table)
    wanted = names_of(table, key, sections)
    if not _sections(table, found):
        return {wanted[0]: View(sdata, np.arange(table.n_obs))}
    names = table.obs["section"].astype(str).to_numpy()
    return {name: _view(sdata, key, name, np.flatnonzero(names == name), found) for name in wanted}


def names_of(table: AnnData, key: str, sections: str | Sequence[str] | None = None) -> list[str]:
    """Names of the sections of a result table that are asked for; errors as :func:`views_of`."""
    there = sections_of(table)
    if not there:
        there = [str(next(iter(table.obs["section"]), key)) if "section" in table.obs else key]
    column = isinstance(sections, str) and sections in table.obs
    wanted = there if sections is None or column else named("sections", sections)
    strange = [name for name in wanted if name not in there]
    if strange:
        raise MissingKey(f"no section {listed(strange)} in tables['{key}']; it has {listed(there, 20)}.")
    return wanted


def section_of(sdata: SpatialData, key: str, section: str | None) -> SpatialData:
    """The object as it is if its table is of one section, else one with the rows of the section that is named."""
    there = sections_of(sdata.tables[key])
    if section is None and len(there) > 1:
        raise MissingKey(f"tables['{key}'] has {len(there)} sections: {listed(there, 20)}. Pass section=, one of them.")
    return next(iter(views_of(sdata, key, section).values())).sdata


def elements_of(name: str, sections: Sequence[str]) -> list[str]:
    """An element for each of several sections: the name with that of the section behind it.

    Where one of these cannot be in the name of an element, or two differ in case only, all have their numbers instead.
    """
    words = all(is_word(f"{name}_{one}") for one in sections)
    unique = len({one.lower() for one in sections}) == len(sections)
    return [f"{name}_{end}" for end in (sections if words and unique else range(len(sections)))]


def _view(sdata: SpatialData, key: str, name: str, rows: np.ndarray, found: dict[str, dict]) -> View:

    part = sdata.tables[key][rows].copy()
    attrs = part.uns["spatialdata_attrs"]
    column = attrs["region_key"]
    part.obs[column] = part.obs[column].cat.remove_unused_categories()
    regions = list(part.obs[column].cat.categories)
    part.uns["spatialdata_attrs"] = {**attrs, "region": regions[0] if len(regions) == 1 else regions}
    kept = dict(part.uns["sq_imputer"])
    for layer, record in found.items():
        each = list(record.get("sections_predicted", {}).values())
        own = [one for one in each if one["section"] == name] or [o for o in each if o["shapes_key"] in regions]
        others = {field: value for field, value in record.items() if field != "sections_predicted"}
        kept[layer] = {**others, **(own[0] if own else {})}
    part.uns["sq_imputer"] = kept
    return View(with_table(sdata, key, part), rows)


def with_table(sdata: SpatialData, key: str, table: AnnData) -> SpatialData:
    """An object in memory of the same elements, with another table of this name."""
    from spatialdata import SpatialData

    elements = {"images": dict(sdata.images), "labels": dict(sdata.labels), "shapes": dict(sdata.shapes)}
    return SpatialData(**elements, tables={**sdata.tables, key: table}, attrs=dict(sdata.attrs))


def unseen(table: AnnData, name: str, layer: str, usable: np.ndarray, least: int, why: str) -> np.ndarray:
    """Numbers of those rows of a section that are usable `(n,)` and predicted by a model that has not seen them.

    Raises
    ------
    BadInput
        If there are fewer than `least`, which are needed `why`.
    """
    if records(table)[layer]["n_folds"]:
        usable = usable & (table.obs[f"{layer}_fold"].to_numpy() >= 0)
    rows = np.flatnonzero(usable)
    if len(rows) < least:
        raise BadInput(
            f"section '{name}' has {len(rows)} spots that are measured and predicted by a model that has not seen "
            f"them; {least} or more are needed {why}. Leave it out of sections=."
        )
    return rows
