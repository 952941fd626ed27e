"""Objects that domains are found in, and names that they may be written under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, listed
from sq_imputer.runs.views import elements_of
from sq_imputer.store import write
from sq_imputer.store.provenance import pythonic

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    Objects = SpatialData | Sequence[SpatialData] | Mapping[str, SpatialData]


def named_objects(sdata: Objects) -> dict[str, SpatialData]:
    """The objects by name."""
    from spatialdata import SpatialData

    found = [sdata] if isinstance(sdata, SpatialData) else sdata
    if not isinstance(found, Mapping | Sequence):
        raise BadInput(f"sdata is a {type(sdata).__name__}; expected a SpatialData object, or a list or dict of some.")
    if not isinstance(found, Mapping):
        found = {str(one.attrs.get("section", k)) if hasattr(one, "attrs") else k: one for k, one in enumerate(found)}
        if not isinstance(sdata, SpatialData) and len(found) != len(sdata):
            raise BadInput("two sections of the list have the same name. Pass a dict of them.")
    if not found or not all(isinstance(one, SpatialData) for one in found.values()):
        kinds = listed(type(one).__name__ for one in dict(found).values())
        raise BadInput(f"sdata holds {kinds}; expected a SpatialData object, or a list or dict of some.")
    return dict(found)


def check_names(sdata: SpatialData, key: str, name: str, overwrite: bool) -> None:
    """Check that domains may be written under this name."""
    table = sdata.tables[key]
    if not write.is_word(name, "_index"):
        raise BadInput(
            f"key_added is {name!r}; expected letters, digits, '_', '-' and '.' only, no '__' in front, and no more "
            f"than {write.MOST_BYTES} bytes."
        )
    alike = [other for other in table.obs if other != name and other.lower() == name.lower()]
    if alike:
        raise BadInput(f"key_added '{name}' and the column '{alike[0]}' differ in case only. Pass another key_added.")
    ours = "use" in params_of(table, name)
    if not ours and (name in table.obs or name in table.uns or f"{name}_colors" in table.uns):
        raise BadInput(f"'{name}' of tables['{key}'] was not written by tl.domains. Pass another key_added.")
    if ours and name in table.obs and not overwrite:
        raise BadInput(f"tables['{key}'].obs has '{name}' already. Pass overwrite=True, or another key_added.")


def outlines_of(sdata: SpatialData, shapes: str | None, sections: Sequence[str], overwrite: bool) -> list[str | None]:
    """The element that outlines the domains of each section of an object, checked to be free."""
    if shapes is None:
        return [None] * len(sections)
    names = [shapes] if len(sections) == 1 else elements_of(shapes, sections)
    for name in names:
        write.check_free(sdata, "shapes", name, overwrite, argument="shapes_added")
        if name in sdata.shapes and "n_spots" not in sdata.shapes[name]:
            raise BadInput(f"shapes '{name}' are not outlines of domains. Pass another shapes_added.")
    return names


def params_of(table: AnnData, name: str) -> dict:
    """Settings that domains were made with; empty for columns of others."""
    found = table.uns.get(name, {})
    return pythonic(found.get("params", {})) if isinstance(found, Mapping) else {}
