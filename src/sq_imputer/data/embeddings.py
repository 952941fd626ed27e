"""Features of crops: computed, kept in a table, and used again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.data.provenance import pythonic
from sq_imputer.device import pick_device
from sq_imputer.progress import track

if TYPE_CHECKING:
    from anndata import AnnData

    from sq_imputer.data.crops import Crops
    from sq_imputer.data.slide import Slide
    from sq_imputer.encoders import Encoder


def compute(crops: Crops, encoder: Encoder, *, device: str = "auto", label: str = "features") -> np.ndarray:
    """Features `(n, dim)` of all crops, read in chunk order."""
    import torch

    device = pick_device(device)
    values = np.empty((len(crops), encoder.card.dim), dtype=np.float32)
    for index, pixels in track(crops.batches(64), label, len(crops), size=lambda batch: len(batch[0])):
        values[index] = encoder(torch.from_numpy(pixels).to(device)).cpu().numpy()
    return values


def key(encoder: str, spec: CropSpec, base: CropSpec | None = None) -> str:
    """Name in `obsm`: `X_texture` for the crop itself, `X_texture_400um` for a wider context of `base`."""
    from sq_imputer.encoders import encoder_card

    slot = f"X_{encoder_card(encoder).slot}"
    return slot if base is None or spec == base else f"{slot}_{spec.extent_um:g}um"


def record(slide: Slide, encoder: str, spec: CropSpec) -> dict:
    """What decides whether stored features can be used again."""
    return {
        "encoder": encoder,
        "extent_um": float(spec.extent_um),
        "size_px": int(spec.size_px),
        "mpp": round(float(slide.frame.pixel.mpp), 6),
        "image_key": slide.keys["image_key"],
        "coordinate_system": slide.keys["coordinate_system"],
        "image_shape": [int(side) for side in slide.frame.pyramid.shape],
        "places": _places(slide),
        "provenance": slide.made_by.get(encoder, {}),
    }


def _places(slide: Slide) -> str:
    """Hash of where the crops lie and how they are turned: another transformation makes other features."""
    places = np.concatenate([slide.centers_px.round(2), slide.frame.axes.round(4)]) + 0.0  # -0.0 is 0.0
    return hashlib.sha256(places.tobytes()).hexdigest()[:16]


def in_rows(table: AnnData, name: str, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of some table rows among those that are there already; NaN elsewhere."""
    old = table.obsm.get(name)
    fits = old is not None and np.shape(old)[1:] == values.shape[1:]
    full = (
        np.array(old, dtype=np.float32) if fits else np.full((table.n_obs, values.shape[1]), np.nan, dtype=np.float32)
    )
    full[rows] = values
    return full


def recall(slide: Slide, table: AnnData, rows: np.ndarray, where: np.ndarray) -> None:
    """Give a slide the stored features that fit it and cover all of its rows.

    Parameters
    ----------
    slide
        The slide.
    table
        Table with features in `obsm`.
    rows, where
        Table rows and the slide's row of each.
    """
    if len(rows) != len(slide):
        return
    for name, found in pythonic(table.uns.get("sq_imputer", {}).get("embeddings", {})).items():
        spec = CropSpec(found["extent_um"], found["size_px"])
        made_by = found.pop("provenance", {})
        wanted = record(slide, found["encoder"], spec)
        del wanted["provenance"]
        if found == wanted and name in table.obsm:
            values = np.empty((len(slide), np.shape(table.obsm[name])[1]), dtype=np.float32)
            values[where] = np.asarray(table.obsm[name])[rows]
            if np.isfinite(values).all():
                slide.remember(found["encoder"], spec, values, made_by)
