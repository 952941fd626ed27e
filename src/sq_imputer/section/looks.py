"""What a scan is like: how fine, how bright, how stained, how compressed. Measured of a few tiles around the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.fingerprint import remembered
from sq_imputer.pixels.sharpness import LEAST, blocks, pixels_resolved
from sq_imputer.pixels.stains import angle_between, stain_vectors, white_point

if TYPE_CHECKING:
    from sq_imputer.section.frame import Frame

TILES = 32  # looked at, of which the half that shows most is measured
SIDES = (256, 128, 64)  # pixels along a tile, the first of which fits four times into the image
MOST_FOUND = 64  # looks that are remembered, so that one verb after the other on a picture looks at it once
_FOUND: dict[tuple, Looks] = {}


# Beyond these, a section is unlike those that a model was fitted on, and a warning says so.
MOST_WHITE = 40  # gray values, in any channel
MOST_DEGREES = 20.0  # between stains
MOST_BLOCKS = 0.5


@dataclass(frozen=True)
class Looks:
    """What a scan is like.

    Parameters
    ----------
    mpp
        µm per pixel.
    resolved_mpp
        µm per pixel that it truly resolves, by its spectrum: its pixel, or more.
    white
        Red, green and blue of the light behind the tissue, from 0 to 255; NaN where nothing could be looked at.
    hematoxylin, eosin
        Optical density of red, green and blue, of length 1; NaN where little is stained.
    blocks
        How far the edges of JPEG's blocks stand out; 0: not compressed.
    """

    mpp: float
    resolved_mpp: float
    white: tuple[float, ...] = (np.nan,) * 3
    hematoxylin: tuple[float, ...] = (np.nan,) * 3
    eosin: tuple[float, ...] = (np.nan,) * 3
    blocks: float = 0.0

    def record(self) -> dict[str, float | None | list[float | None]]:
        """As JSON has it: lists, and None for NaN."""
        return {name: _word(value) for name, value in asdict(self).items()}


def look(frame: Frame, centers_px: np.ndarray) -> Looks:
    """Look at up to 32 tiles of the finest level around some points; an image without any is as its pixels are.

    Parameters
    ----------
    frame
        The image.
    centers_px
        `(n, 2)` x and y in pixels of the finest level, on tissue.
    """
    mpp = frame.pixel.mpp
    if frame.pyramid is None or not len(centers_px):
        return Looks(mpp, mpp)
    some = centers_px[np.unique(np.linspace(0, len(centers_px) - 1, TILES).astype(int))]
    key = (frame.pyramid.fingerprint, mpp, some.tobytes())
    return remembered(_FOUND, MOST_FOUND, key, lambda: _look(frame, some))


def _look(frame: Frame, some: np.ndarray) -> Looks:
    """The same, at tiles around these points."""
    mpp = frame.pixel.mpp
    least, size = min(frame.pyramid.shape), np.array(frame.pyramid.shape[::-1])
    side = next((side for side in SIDES if least >= 4 * side), min(SIDES[-1], least))
    if side < LEAST:
        return Looks(mpp, mpp)
    centers = np.clip(np.floor(some), side / 2, size - (side + 1) // 2)
    tiles = Crops(frame.pyramid, centers, CropSpec(side * mpp, side), mpp=mpp)[:]
    corners = np.floor(centers - side / 2).astype(int)[:, ::-1]
    gray = tiles.mean(axis=1)
    most = np.argsort(-gray.var(axis=(1, 2)), kind="stable")[: max(1, len(gray) // 2)]
    pixels = np.moveaxis(tiles[:, :, ::2, ::2], 1, -1).reshape(-1, 3)
    white = white_point(pixels)
    stains = stain_vectors(pixels, white)
    stains = np.full((2, 3), np.nan) if stains is None else stains
    return Looks(
        mpp,
        mpp * (pixels_resolved(gray[most]) or 1.0),
        *(tuple(one.round(4).tolist()) for one in (white, *stains)),
        blocks(gray[most], corners[most]),
    )


def unlike(looks: Looks, others: Sequence[Looks]) -> list[str]:
    """In what a section differs from all of some others, in words; what it resolves is compared elsewhere."""
    found = []
    white = [np.abs(np.subtract(looks.white, one.white)).max() for one in others]
    if min(white) > MOST_WHITE:
        found.append(f"the light behind its tissue is {_rgb(looks.white)}, there {_rgb(others[_nearest(white)].white)}")
    for stain in ("hematoxylin", "eosin"):
        apart = [angle_between(getattr(looks, stain), getattr(one, stain)) for one in others]
        if min(apart) > MOST_DEGREES:
            found.append(f"its {stain} is {min(apart):.0f} degrees from theirs")
    blocks = [abs(looks.blocks - one.blocks) for one in others]
    if min(blocks) > MOST_BLOCKS:
        theirs = others[_nearest(blocks)].blocks
        found.append(f"blocks of JPEG stand out by {looks.blocks:.1f}, there by {theirs:.1f}")
    return found


def _nearest(apart: Sequence[float]) -> int:
    return int(np.argmin(apart))


def _rgb(color: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.0f}' for value in color)})"


def looks_of(records) -> list[Looks]:
    """Looks that a provenance keeps; what cannot be read is left out."""
    names = [field.name for field in fields(Looks)]
    known = [one for one in records or () if isinstance(one, Mapping) and set(names) <= set(one)]
    return [Looks(**{name: _number(one[name]) for name in names}) for one in known]


def _number(value):
    """A number or three, with NaN for what JSON has no word for."""
    if isinstance(value, list | tuple):
        return tuple(_number(one) for one in value)
    return np.nan if value is None else value


def _word(value):
    """The other way round."""
    if isinstance(value, tuple):
        return [_word(one) for one in value]
    return None if np.isnan(value) else value
