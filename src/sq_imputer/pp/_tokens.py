"""Tokens of crops that lie edge to edge, as a table: what an encoder says of every part of the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput
from sq_imputer.progress import track
from sq_imputer.section.lattice import cells
from sq_imputer.store import write

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.contract import CropSpec
    from sq_imputer.encoders import Encoder
    from sq_imputer.section.slide import Slide

BATCH = 32
OFF = 0.05  # of a token's side: how far places may lie from their lattice


def check_key(key_added: str) -> None:
    """Check that features can have this name."""
    if not write.is_word(key_added, "spatial"):
        raise BadInput(
            f"key_added is {key_added!r}; expected letters, digits, '_', '-' and '.' only, not 'spatial', and no more "
            f"than {write.MOST_BYTES} bytes."
        )


def write_tokens(
    sdata: SpatialData,
    slide: Slide,
    encoder: Encoder,
    spec: CropSpec,
    grid: int | None,
    *,
    key_added: str | None,
    overwrite: bool,
    device: str,
) -> None:
    """Compute the tokens of the crops of all rows, and write them as a table of their own.

    Raises
    ------
    BadInput
        If the crops do not lie edge to edge, the encoder has no tokens, or the name is none or taken.
    """
    key_added, device = key_added or f"{encoder.card.slot}_tokens", pick_device(device)
    check_key(key_added)
    write.check_free(sdata, "tables", key_added, overwrite)
    crops = slide.crops(spec)
    slide.checked.crops(crops)
    first = _tokens(encoder, crops[:1], grid, device)
    side = first.shape[1]
    xy_um, lattice = lattice_of(slide.xy_um, spec.extent_um, side)
    values = np.empty((len(slide), *first.shape[1:]), dtype=np.float32)
    label = f"tokens of {slide.section}"
    for rows, pixels in track(crops.batches(BATCH), label, len(slide), size=lambda batch: len(batch[0])):
        values[rows] = _tokens(encoder, pixels, grid, device)
    table = _table(slide, encoder, values, xy_um, lattice, slide.record(encoder.card.name, spec))
    write.write_element(sdata, "tables", key_added, table, overwrite=overwrite)


def lattice_of(xy_um: np.ndarray, extent_um: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Places `(n * side * side, 2)` of the parts of squares, and their columns and rows on the lattice of all.

    Raises
    ------
    BadInput
        If the squares do not lie edge to edge.
    """
    step = extent_um / side
    inside = (np.arange(side) + 0.5) * step - extent_um / 2
    x, y = np.meshgrid(inside, inside)
    places = (xy_um[:, None] + np.stack([x.ravel(), y.ravel()], 1)).reshape(-1, 2)
    corner = places.min(axis=0)
    found = cells(places, corner, step)
    off = np.abs(places - corner - found * step).max()
    if off > OFF * step or len(np.unique(found, axis=0)) < len(found):
        raise BadInput(
            f"crops of {extent_um:g} µm do not lie edge to edge, so their parts make no lattice. Make a grid of them "
            f"by pp.grid(sdata, square=True, spacing_um={extent_um:g}) and pass shapes_key='grid', or leave "
            "out tokens=."
        )
    return places, found


def _tokens(encoder: Encoder, pixels: np.ndarray, grid: int | None, device: str) -> np.ndarray:
    import torch

    return encoder.tokens(torch.from_numpy(pixels).to(device), grid).cpu().numpy()


def _table(
    slide: Slide, encoder: Encoder, values: np.ndarray, xy_um: np.ndarray, lattice: np.ndarray, record: dict
) -> AnnData:
    """A table of which the tokens are X. It annotates no shapes: several rows are of one."""
    import pandas as pd
    from anndata import AnnData

    n, side, _, width = values.shape
    names = np.repeat(slide.names.astype(str), side**2)
    number = np.tile(np.arange(side**2), n)
    obs = pd.DataFrame(
        {"of": names, "array_row": lattice[:, 1], "array_col": lattice[:, 0]},
        index=[f"{name}_{k}" for name, k in zip(names, number, strict=True)],
    )
    made_by = {**encoder.provenance, "tokens": side}
    return AnnData(
        values.reshape(-1, width),
        obs=obs,
        var=pd.DataFrame(index=[f"{encoder.card.slot}_{k}" for k in range(width)]),
        obsm={"spatial": xy_um},
        uns={"sq_imputer": {"tokens": {**record, "provenance": made_by}}},
    )
