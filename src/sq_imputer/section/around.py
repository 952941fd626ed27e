"""What lies in and around a row beyond one vector: tokens of its crop, a block of tiles, and the whole section."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec, WholeSlide
from sq_imputer.encoders._base import Encoder
from sq_imputer.places import APART_UM
from sq_imputer.section.blocks import block_centers
from sq_imputer.section.lattice import positions

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.section.frame import Frame


class Tokens(Encoder):
    """An encoder that says what it does of the parts of a crop, as one vector: `(B, grid * grid * D)`.

    Parameters
    ----------
    whole
        The encoder.
    grid
        Parts along a side.
    size_px
        Side of the crops, in pixels.
    """

    def __init__(self, whole: Encoder, grid: int, size_px: int) -> None:
        import torch

        self.whole, self.grid = whole, grid
        one = whole.tokens(torch.full((1, 3, size_px, size_px), 255, dtype=torch.uint8), grid)
        super().__init__(replace(whole.card, dim=one.numel()), whole.provenance)

    def encode(self, crops: Tensor) -> Tensor:
        """Tokens of crops, from the top left."""
        return self.whole.tokens(crops, self.grid).flatten(1)


def tokens_key(grid: int) -> str:
    """What tokens are kept under, beside encoder and crop."""
    return f"{grid} x {grid} tokens"


def inside(frame: Frame, centers_px: np.ndarray, spec: CropSpec, k: int) -> np.ndarray:
    """Which tiles `(n, k * k)` lie on the image as a whole; the middle ones, the rows' own, always count."""
    half = spec.extent_um / frame.pixel.mpp / 2
    centers = block_centers(frame, centers_px, spec, k)
    reach = half * np.abs(frame.axes).sum(axis=1)  # of a square along the axes, in x and y of the image
    height, width = frame.pyramid.shape
    near = APART_UM / frame.pixel.mpp
    whole = ((centers - reach >= -near) & (centers + reach <= np.array([width, height]) + near)).all(axis=1)
    found = whole.reshape(-1, k * k)
    found[:, k * k // 2] = True
    return found


def whole_slide(xy_um: np.ndarray, array: np.ndarray | None, features: np.ndarray) -> WholeSlide:
    """All rows of a section: their features, and where they lie on their lattice."""
    import torch

    places, hexagonal = positions(xy_um, array)
    return WholeSlide(torch.from_numpy(features), torch.from_numpy(places), hexagonal)
