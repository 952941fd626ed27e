"""What a run predicts, and what is measured there: sections as they are read, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pandas import Index

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.section import read
from sq_imputer.section.anchors import anchored
from sq_imputer.section.regions import slides_of
from sq_imputer.section.slide import Slide
from sq_imputer.section.targets import described, there
from sq_imputer.target import Target

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.contract import Needs
    from sq_imputer.encoders._shelf import Shelf


@dataclass(frozen=True, eq=False)
class Targets:
    """The rows to be predicted, section after section, as the result table lists them.

    Parameters
    ----------
    slides
        The sections.
    several
        Whether the caller asked for sections, be it one.
    """

    slides: tuple[Slide, ...]
    several: bool

    def __len__(self) -> int:
        return sum(map(len, self.slides))

    @property
    def names(self) -> list[str]:
        """Unique names of the rows; where sections share names, as barcodes do, with the section behind them."""
        names = Index(np.concatenate([slide.names for slide in self.slides]))  # text already: nothing is copied
        if names.is_unique:
            return names.tolist()
        return [f"{name}-{slide.section}" for slide in self.slides for name in slide.names]

    @property
    def regions(self) -> list[str]:
        """Names of the elements that the rows are of, in order."""
        return list(dict.fromkeys(slide.keys["shapes_key"] for slide in self.slides))

    @property
    def region_of_rows(self) -> np.ndarray:
        """`(n,)` the element of every row."""
        return np.concatenate([np.full(len(s), s.keys["shapes_key"], dtype=object) for s in self.slides])

    @property
    def instances(self) -> np.ndarray:
        """`(n,)` id of every row in its element."""
        return np.concatenate([slide.instances for slide in self.slides])

    def of(self, slides: Sequence[Slide]) -> Targets:
        """The same rows, of slides that keep their features in a journal or show less."""
        return replace(self, slides=tuple(slides))

    def seen_by(self, encoders: Shelf) -> Targets:
        """The same rows, seen through the encoders of a run."""
        return replace(self, slides=tuple(replace(slide, encoders=encoders) for slide in self.slides))


def read_targets(sdata: SpatialData, sections: str | Mapping | None, reference, keys: Mapping) -> Targets:
    """The sections to be predicted; the table that is named may be one that only the references have."""
    read.check_object(sdata)
    if sections is None:
        elsewhere = reference is not None and keys.get("table_key", "table") not in sdata.tables
        return Targets((Slide.from_sdata(sdata, **({**keys, "table_key": None} if elsewhere else keys)),), False)
    return Targets(tuple(slides_of(sdata, sections, keys).values()), True)


def recall(targets: Targets, table: AnnData, sdata: SpatialData, key: str) -> None:
    """Give the sections the features that the result table keeps of them."""
    for slide in targets.slides:
        among = None
        if targets.several:
            here = (read.region_of_rows(table, key) == slide.keys["shapes_key"]).to_numpy()
            mine = here & (table.obs["section"] == slide.section).to_numpy()
            among = np.flatnonzero(mine if mine.any() else here)  # it may have had another name
        slide.recall(table, *slide.rows_in(table, key, among))


def in_their_sections(targets: Targets, sdata: SpatialData, needs: Needs) -> Targets:
    """The same rows, whose features are scaled by the sections that they lie in, if those of the model are at all."""
    if not (needs.encoders and needs.per_section):
        return targets
    return targets.of([anchored(slide, sdata) for slide in targets.slides])


def measured_of(sdata: SpatialData, targets: Targets, keys: Mapping) -> list[Slide]:
    """For every section what was measured on its image: its own rows, or those of other shapes of it."""
    return [slide if slide.measured.any() else _measured_on(sdata, slide, keys) for slide in targets.slides]


def _measured_on(sdata: SpatialData, target: Slide, keys: Mapping) -> Slide:
    """The measured spots on the image of a section, when other shapes on it are to be predicted."""
    table_key = keys.get("table_key", "table")
    asked = Target.of(keys.get("target"))
    if target.labels is not None:
        raise BadInput(f"no row of section '{target.section}' has a value of {described(asked)}: nothing to fit on.")
    if not asked.is_genes and not _elsewhere(sdata, target, asked, table_key):
        raise MissingKey(
            f"nothing is measured here: no {described(asked)} of shapes '{target.keys['shapes_key']}'; there are "
            f"{there(sdata, asked, table_key)}. Pass target= of what is there, reference= sections that have it, or "
            "model= a fitted predictor or its folder."
        )
    if asked.slot == "table":
        table_key = asked.name
    if not read.annotated(sdata, table_key):
        raise BadInput(
            f"nothing is measured here: no table '{table_key}' annotates shapes (tables: {listed(sdata.tables)}), "
            "and no reference is given. Three ways out: pass table_key= of a table with counts; pass reference= "
            "sections with counts; or pass model= a fitted predictor or its folder."
        )
    image_key = target.keys["image_key"]
    here = set(read.systems(sdata.images[image_key]))
    near = [name for name in read.annotated(sdata, table_key) if here & set(read.systems(sdata[name]))]
    shapes_key = near[0] if len(near) == 1 else None
    own = {**keys, "image_key": image_key, "shapes_key": shapes_key}
    return replace(Slide.from_sdata(sdata, **own), section=target.section, encoders=target.encoders)


def _elsewhere(sdata: SpatialData, slide: Slide, target: Target, table_key: str) -> bool:
    """Whether a target is measured at other shapes than those of a section."""
    annotated = read.annotated(sdata, target.name if target.slot == "table" else table_key)
    return any(name != slide.keys["shapes_key"] for name in annotated) and (
        target.slot == "table" or target.name in getattr(sdata.tables[table_key], target.slot)
    )
