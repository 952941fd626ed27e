"""Features of crops: computed, kept in a table, and used again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.device import BatchSize, pick_device
from sq_imputer.errors import BadInput
from sq_imputer.pixels.dense import LEAST_STEP, STRIDES, Dense
from sq_imputer.pixels.plan import right_angled
from sq_imputer.places import alike, summary
from sq_imputer.progress import track
from sq_imputer.store import journal as journal_of
from sq_imputer.store.provenance import pythonic
from sq_imputer.store.spilled import Spilled

if TYPE_CHECKING:
    from anndata import AnnData

    from sq_imputer.encoders import Encoder
    from sq_imputer.pixels.crops import Crops
    from sq_imputer.section.frame import Frame
    from sq_imputer.store.journal import Part


def reader(
    frame: Frame,
    centers_px: np.ndarray,
    spec: CropSpec,
    encoder: Encoder,
    names: np.ndarray | None = None,
    dense: bool | None = None,
) -> Crops | Dense:
    """How an encoder sees windows around points: on the slide if it can and they are not turned, else as crops.

    With `dense=False` each window has a block of the slide of its own, where blocks change no number. An encoder whose
    numbers hang on what is around (patch tokens) sees crops then.

    Raises
    ------
    BadInput
        If `dense` is True and that cannot be, or windows are too small for the encoder.
    """
    straight = right_angled(frame.axes)
    if dense and not (encoder.block and straight is not None):
        why = "sees crops alone" if not encoder.block else "sees crops alone where the image is turned"
        raise BadInput(f"dense=True, but encoder '{encoder.card.name}' {why}. Leave out dense=, or pass dense=False.")
    if encoder.block and straight is not None and not (dense is False and encoder.stride):
        if spec.size_px < encoder.block:
            raise BadInput(
                f"encoder '{encoder.card.name}' takes crops of {encoder.block} pixels or more a side, got "
                f"{spec.size_px}; pass a larger size_px."
            )
        frame, centers_px = frame.seen(centers_px, spec)
        known = {"mpp": frame.pixel.mpp, "swap": bool(straight[0, 0] == 0), "names": names}
        known |= {"block": encoder.block, "halo": encoder.halo}
        known |= {"stride": STRIDES[0] if dense is False else encoder.stride or None}
        return Dense(frame.pyramid, centers_px, spec, **known)
    return frame.crops(centers_px, _no_finer(spec, frame, encoder), names=names)


def described_together(crops: Crops | Dense) -> bool:
    """Whether windows share blocks: of features, so that they are made again where the other way is asked for."""
    return isinstance(crops, Dense) and crops.together


def _no_finer(spec: CropSpec, frame: Frame, encoder: Encoder) -> CropSpec:
    """Crops of fewer pixels where an image is much coarser and the encoder takes any size, as windows together have."""
    if not (encoder.block and encoder.card.any_size):
        return spec
    most = int(np.ceil(spec.extent_um / (frame.pixel.mpp * LEAST_STEP)))
    return CropSpec(spec.extent_um, min(spec.size_px, max(encoder.block, most)))


def compute(
    crops: Crops | Dense,
    encoder: Encoder,
    *,
    size: BatchSize | None = None,
    device: str = "auto",
    label: str = "features",
    journal: Part | None = None,
    name: str = "features",
    scratch: Path | None = None,
    known: np.ndarray | None = None,
) -> np.ndarray | Spilled:
    """Features `(n, dim)` of all windows, read in chunk order; what `journal` has as `name` is not computed again.

    With a folder `scratch` they are in a file there instead of memory. Rows of `known` without a NaN are taken from
    there.
    """
    together = isinstance(crops, Dense)
    encode = (_Gather if together else _Encode)(crops, encoder, size or BatchSize(64), device, label)
    shape = len(crops), encoder.card.dim
    values = np.empty(shape, dtype=np.float32) if scratch is None else Spilled(scratch / name, shape)
    left = np.ones(len(crops), dtype=bool)
    if known is not None:
        values, left = known.copy(), np.isnan(known).any(axis=1)
    if journal is None:
        for rows, found in encode.parts(np.flatnonzero(left)):
            values[rows] = found
        return values
    order = crops.groups(journal_of.ROWS) if together else crops.order
    order = [some for rows in order if len(some := rows[left[rows]])] if together else order[left[order]]
    for rows, found in journal.parts(name, order, encode):
        values[rows] = found["features"]
    return values


class _Encode:
    """Features of some crops after the other; how many fit on the device is learned once.

    It may go to another process, which picks the device that it has.
    """

    travels = True

    def __init__(self, crops: Crops, encoder: Encoder, size: BatchSize, device: str, label: str) -> None:
        self.crops, self.encoder, self.size, self.asked, self.label = crops, encoder, size, device, label

    @property
    def device(self) -> str:
        """Where the encoder runs."""
        return pick_device(self.asked)

    def __call__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Features of these rows, which ascend."""
        values = np.empty((len(rows), self.encoder.card.dim), dtype=np.float32)
        for index, found in self.parts(rows):
            values[np.searchsorted(rows, index)] = found
        return {"features": values}

    def parts(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of some of these rows and their features, in the cheapest order."""
        batches = self.crops.batches(64, rows=rows)
        for index, pixels in track(batches, self.label, len(rows), size=lambda batch: len(batch[0])):
            parts = self.size.pieces(pixels, self._step, f"encoder '{self.encoder.card.name}' on {self.device}")
            yield index, np.concatenate(list(parts))

    def _step(self, pixels: np.ndarray) -> np.ndarray:
        import torch

        return self.encoder(torch.from_numpy(pixels).to(self.device)).cpu().numpy()


class _Gather(_Encode):
    """The same of windows that are described together."""

    def parts(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Numbers of some of these rows and their features, block by block, and of each some at a time."""
        import torch

        from sq_imputer.encoders._windows import Boxes

        device = self.device
        device = "cpu" if device.startswith("mps") else device  # sums need float64
        for part in track(self.crops.batches(rows), self.label, len(rows), size=lambda part: len(part.rows)):
            image, low, high, pixels = (torch.from_numpy(x).to(device) for x in part[1:])
            start = 0
            for found in self.encoder.portions(pixels, Boxes(image, low, high)):
                yield part.rows[start : start + len(found)], found.cpu().numpy()
                start += len(found)


def key(encoder: str, spec: CropSpec, base: CropSpec | None = None) -> str:
    """Name in `obsm`: `X_texture` for the crop itself, `X_texture_400um` for a wider context of `base`."""
    from sq_imputer.encoders import encoder_card

    slot = f"X_{encoder_card(encoder).slot}"
    return slot if base is None or spec == base else f"{slot}_{spec.extent_um:g}um"


def record(encoder: str, spec: CropSpec, frame: Frame, centers_px: np.ndarray, keys: dict[str, str]) -> dict:
    """What decides whether stored features can be used again, beside the provenance of the encoder."""
    return {**_place(encoder, spec, frame, centers_px, keys), "pixels": frame.pyramid.fingerprint}


def _place(encoder: str, spec: CropSpec, frame: Frame, centers_px: np.ndarray, keys: dict[str, str]) -> dict:
    return {
        "encoder": encoder,
        "extent_um": float(spec.extent_um),
        "size_px": int(spec.size_px),
        "mpp": float(frame.pixel.mpp),
        "image_key": keys["image_key"],
        "coordinate_system": keys["coordinate_system"],
        "image_shape": [int(side) for side in frame.pyramid.shape],
        "axes": frame.axes.ravel().tolist(),
        "places": summary(centers_px * frame.pixel.mpp),
        "resolution": float(frame.resolution) if frame.coarsens(spec) else 0.0,
    }


def is_of(kept: Stored, frame: Frame, centers_px: np.ndarray, keys: dict[str, str]) -> bool:
    """Whether stored features are of these crops. Reads a few pixels of the image if all else agrees, once."""
    place = _place(kept.encoder, kept.spec, frame, centers_px, keys)
    if not alike(kept.record.get("places"), place.pop("places")):
        return False
    for name, value in place.items():
        known = kept.record.get(name, 0.0 if name == "resolution" else None)
        if known != value and not (name in ("mpp", "axes") and _close(known, value)):
            return False
    return kept.record.get("pixels") == frame.pyramid.fingerprint


def shard_name(encoder: str, spec: CropSpec, neighbors: int | str) -> str:
    """Name of these features in the journal of a run."""
    return f"features-{hashlib.sha256(repr((encoder, spec, neighbors)).encode()).hexdigest()[:16]}"


def _close(known, value) -> bool:
    """Whether numbers of a transformation, which another transformation changes, are those of then."""
    known = np.asarray(known)
    return known.dtype.kind in "iuf" and known.shape == np.shape(value) and np.allclose(known, value, 1e-5, 1e-5)


def in_rows(table: AnnData, name: str, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of some table rows among those that are there already; NaN elsewhere."""
    old = table.obsm.get(name)
    fits = old is not None and np.shape(old)[1:] == values.shape[1:]
    full = (
        np.array(old, dtype=np.float32) if fits else np.full((table.n_obs, values.shape[1]), np.nan, dtype=np.float32)
    )
    full[rows] = values
    return full


class Stored(NamedTuple):
    """Features that a table has of some rows, and what was recorded of them."""

    encoder: str
    spec: CropSpec
    record: dict
    made_by: dict
    values: np.ndarray


def stored(table: AnnData, rows: np.ndarray, where: np.ndarray, n: int) -> Iterator[Stored]:
    """The stored features that say what made them, at their numbers in `where` among n rows; NaN in the others."""
    for name, found in pythonic(table.uns.get("sq_imputer", {}).get("embeddings", {})).items():
        if name not in table.obsm or not found.get("provenance"):
            continue
        values = np.full((n, np.shape(table.obsm[name])[1]), np.nan, dtype=np.float32)
        values[where] = np.asarray(table.obsm[name])[rows]
        there = np.isfinite(values).all(axis=1)
        values[~there] = np.nan
        if there.any():
            made_by = found.pop("provenance")
            yield Stored(found["encoder"], CropSpec(found["extent_um"], found["size_px"]), found, made_by, values)
