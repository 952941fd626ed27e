"""What a prediction of one row is made of: its crop, the map of a gene in it, and the reference spots behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.explain import Sight, attribute
from sq_imputer.runs.sections import records
from sq_imputer.section import overview
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.predictor.base import Predictor

GRID = 8  # cells along the crop
SHOWN = 5  # reference spots whose crops are shown
REFERENCE_PX = 64
SECTIONS, SECTION_PX = 3, 120  # sections in which reference spots are shown where they lie, and their longer side
MARK = (255, 225, 25)  # yellow in a black frame: seen on any stain


class Crop(NamedTuple):
    """What a model sees of a row, and what in it raises and lowers a gene.

    Parameters
    ----------
    pixels
        `(S, S, 3)` uint8.
    extent_um
        Its side.
    map
        `(grid, grid)` by occlusion, in the unit of the expression: what the gene loses where a cell is covered.
    """

    pixels: np.ndarray
    extent_um: float
    map: np.ndarray


def look_at(slide: Slide, row: int, predictor: Predictor, gene: str) -> Crop:
    """The crop of a row and the map of a gene, by occlusion with the mean color of the crop.

    Raises
    ------
    BadInput
        If the model sees more than single crops.
    MissingKey
        If it does not predict the gene.
    """
    import torch

    needs = predictor.needs
    own = slide.moments(needs, device="cpu") if needs.encoders and needs.per_section else None
    sight = Sight.of(predictor, [gene], own, slide.encoders.get)
    views = np.stack([slide.crops(view)[np.array([row])] for view in needs.views], axis=1)
    color = torch.tensor(np.rint(views[0, 0].mean(axis=(1, 2))), dtype=torch.uint8)
    found = attribute(sight, torch.from_numpy(views), color, "occlusion", grid=GRID)
    return Crop(np.moveaxis(views[0, 0], 0, -1), needs.crop.extent_um, found[0, 0].detach().numpy())


def behind(sdata: SpatialData, key: str, layer: str, name: str) -> DataFrame | None:
    """The reference spots that the prediction of a row was made of; None if the model does not retrieve."""
    from sq_imputer.tl import retrieved

    if "bank" not in records(sdata.tables[key]).get(layer, {}):
        return None
    found = retrieved(sdata, name, layer=layer, key_added=key)
    return found.set_index("reference_spot")[["section", "weight", "x_um", "y_um"]]


def crops_of(found: DataFrame, sections: dict[str, Slide], extent_um: float) -> list[tuple[str, np.ndarray]]:
    """The first reference spots with their crops, of those whose section is opened."""
    shown = []
    for name, one in found.head(SHOWN).iterrows():
        if one["section"] in sections:
            frame = sections[one["section"]].frame
            place = frame.to_px(np.array([[one["x_um"], one["y_um"]]], dtype=float))
            crop = frame.crops(place, CropSpec(extent_um, REFERENCE_PX))[np.array([0])][0]
            shown.append((f"{one['section']}, {name}: {one['weight']:.2f}", np.moveaxis(crop, 0, -1)))
    return shown


def places_of(found: DataFrame, sections: dict[str, Slide]) -> list[tuple[str, np.ndarray]]:
    """Opened sections at a glance, with their reference spots marked where they lie; most weight first."""
    weight = found.groupby("section", observed=True)["weight"].sum().sort_values(ascending=False)
    shown = []
    for name in [name for name in weight.index if name in sections][:SECTIONS]:
        pixels, (left, right, _, top) = overview.picture(sections[name].frame, SECTION_PX)
        pixels, um = pixels.copy(), (right - left) / pixels.shape[1]
        for one in found[found["section"] == name].sort_values("weight").itertuples():  # the heaviest on top
            x, y = int((one.x_um - left) / um), int((one.y_um - top) / um)
            for half, color in ((3, (0, 0, 0)), (2, MARK)):
                pixels[max(y - half, 0) : y + half + 1, max(x - half, 0) : x + half + 1] = color
        shown.append((f"{name}: {weight[name]:.2f} of the weight", pixels))
    return shown
