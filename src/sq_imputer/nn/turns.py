"""Turns and mirrorings of a section: what they do to pictures of it, and to steps on its lattice."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sq_imputer.nn import drawn


class Turn(NamedTuple):
    """Mirrored along x, then along y, and then x and y swapped: all eight symmetries of a square."""

    flip_x: bool = False
    flip_y: bool = False
    swap: bool = False

    def picture(self, image: Tensor) -> Tensor:
        """Pictures `(..., y, x)`, turned; square ones keep their shape."""
        sides = [axis for axis, flipped in ((-1, self.flip_x), (-2, self.flip_y)) if flipped]
        image = image.flip(sides) if sides else image
        return image.transpose(-1, -2) if self.swap else image

    def cells(self, tokens_BTW: Tensor) -> Tensor:
        """Cells `(B, k * k, ...)` of square pictures, from the top left, turned."""
        side = round(tokens_BTW.shape[1] ** 0.5)
        where = torch.arange(side**2, device=tokens_BTW.device).view(side, side)
        return tokens_BTW[:, self.picture(where).flatten()]

    def steps(self, step_S2: Tensor, hexagonal: int = -1) -> Tensor:
        """Steps `(S, 2)` of a lattice, turned.

        Of a hexagonal one, whose steps are axial (:class:`sq_imputer.contract.WholeSlide`), by mirrors and half turns
        alone: a quarter turn is none of its symmetries, and `swap` is left out.
        """
        along, beside = step_S2.unbind(1)
        flips = (self.flip_x, self.flip_y)
        if hexagonal >= 0:
            mirror_along, mirror_beside = flips[hexagonal], flips[1 - hexagonal]
            along = -along - beside if mirror_along else along
            along, beside = (along + beside, -beside) if mirror_beside else (along, beside)
            return torch.stack([along, beside], dim=1)
        along, beside = -along if flips[0] else along, -beside if flips[1] else beside
        return torch.stack([beside, along] if self.swap else [along, beside], dim=1)


STILL = Turn()


def any_turn(training: bool, *, quarter: bool = True) -> Turn:
    """One of the eight, or four without a quarter turn, by the generator of the fit; none outside of training."""
    if not training:
        return STILL
    number = int(torch.randint(8 if quarter else 4, (), generator=drawn.generator()))
    return Turn(bool(number & 1), bool(number & 2), bool(number & 4))
