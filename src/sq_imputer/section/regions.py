"""Many sections in one object: which rows are whose, and where each lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.section import read
from sq_imputer.section.keys import SlideKeys
from sq_imputer.section.slide import Slide
from sq_imputer.target import CLASSES

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def find_regions(sdata: SpatialData, sections: str | Mapping, keys: Mapping) -> dict[str, dict]:
    """The keys of every section of an object, by name, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Parameters
    ----------
    sdata
        The object.
    sections
        A column of `obs` of the table, the region key included: its values name sections, in their order. Or a mapping
        of names to keys, or to the name of a shapes element.
    keys
        Keys that all sections share.

    Raises
    ------
    MissingKey
        If there is no such column or table.
    BadInput
        If a value of the column lies in several elements, or the mapping holds something else than keys.
    """
    read.check_object(sdata)
    if isinstance(sections, Mapping):
        found = {str(name): _keys(name, one) for name, one in sections.items()}
        if not found:
            raise BadInput("sections is empty; expected the name of an obs column, or a dict of names to keys.")
        return {name: {**keys, **own} for name, own in found.items()}
    if not isinstance(sections, str):
        raise BadInput(
            f"sections is a {type(sections).__name__}; expected the name of an obs column, such as the region key, or "
            "a dict of names to keys, such as {'A': {'shapes_key': 'spots_a', 'image_key': 'he_a'}}."
        )
    return _of_column(sdata, sections, keys)


def slides_of(sdata: SpatialData, sections: str | Mapping, keys: Mapping) -> dict[str, Slide]:
    """The sections of one object by name. What one cannot be read for is said with its name."""
    slides = {}
    for name, own in find_regions(sdata, sections, keys).items():
        slide = Slide.from_sdata(sdata, section=name, **own)
        named = "patient" in sdata.attrs or (slide.counts is not None and _names_patients(sdata, own))
        slides[name] = slide if named else replace(slide, group="unknown")  # all of one patient, as far as is known
    return slides


def common_names(slides: Sequence[Slide]) -> list[str]:
    """Columns of a target that all sections have; of classes and parts those that any has, in order of appearance."""
    for slide in slides:
        if slide.labels is None:
            slide.with_genes(())  # says what is not there
        if slide.target.told != slides[0].target.told:
            first, other = (f"{s.target.kind} in section '{s.section}'" for s in (slides[0], slide))
            raise BadInput(f"target '{slide.target.where}' is of kind {first}, and {other}. Give both the same.")
    every = list(dict.fromkeys(name for slide in slides for name in slide.target.names))
    if slides[0].target.link == "identity":
        every = [name for name in every if all(name in slide.target.names for slide in slides)]
    if len(every) < 2 and slides[0].target.kind == CLASSES:
        raise BadInput(f"target '{slides[0].target.where}' has classes {listed(every)}; expected two or more.")
    return every


def _names_patients(sdata: SpatialData, keys: Mapping) -> bool:
    table = sdata.tables.get(keys.get("table_key", "table"))
    return table is not None and keys.get("patient_key", "patient") in table.obs


def _keys(name, one) -> dict:
    if isinstance(one, str):
        return {"shapes_key": one}
    if not isinstance(one, Mapping):
        raise BadInput(f"section '{name}' is a {type(one).__name__}; expected a dict of keys, or a name of shapes.")
    known = SlideKeys.__annotations__
    strange = [key for key in one if key not in known]
    if strange:
        raise BadInput(f"section '{name}' has {listed(strange)}; keys are {listed(known, len(known))}.")
    return dict(one)


def _of_column(sdata: SpatialData, column: str, keys: Mapping) -> dict[str, dict]:
    table_key = keys.get("table_key", "table")
    if table_key not in sdata.tables:
        raise MissingKey(
            f"sections='{column}' is a column of tables['{table_key}'], which is not there; sdata has "
            f"{listed(sdata.tables)}. Pass table_key=, or a dict of names to keys as sections=."
        )
    table = sdata.tables[table_key]
    if column not in table.obs:
        raise MissingKey(
            f"no '{column}' in obs of table '{table_key}'; it has {listed(table.obs, 20)}. Pass sections= one of these."
        )
    regions = read.region_of_rows(table, table_key)
    names = table.obs[column].astype(object)
    there = names.notna().to_numpy() & regions.isin(read.annotated(sdata, table_key)).to_numpy()
    pairs = dict.fromkeys(zip(names[there].astype(str), regions[there], strict=True))
    found: dict[str, dict] = {}
    for name, region in pairs:
        if name in found:
            raise BadInput(
                f"'{name}' of obs['{column}'] lies in several elements: {listed(r for n, r in pairs if n == name)}. "
                f"Pass sections='{_region_key(table)}' to take each as a section, or a dict of names to keys."
            )
        found[name] = {**keys, "shapes_key": region}
        if sum(r == region for _, r in pairs) > 1:
            found[name]["section_key"] = column
    if keys.get("shapes_key") is not None:
        raise BadInput(
            f"shapes_key is '{keys['shapes_key']}', but obs['{column}'] says where its sections lie. Leave out "
            "shapes_key=, or pass a dict of names to keys as sections=."
        )
    if not found:
        raise BadInput(f"obs['{column}'] of table '{table_key}' names no section of shapes that sdata has.")
    return found


def _region_key(table: AnnData) -> str:
    return str(table.uns["spatialdata_attrs"]["region_key"])
