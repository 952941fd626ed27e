"""A transformer over all rows of a section, which knows by a convolution on their lattice where they lie."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sq_imputer.contract import WholeSlide
from sq_imputer.nn.transformer import Block, windowed
from sq_imputer.nn.turns import STILL, Turn

# N rows, U places with rows, K steps of the kernel, W width


class Around(NamedTuple):
    """Who lies where on a lattice.

    Parameters
    ----------
    place
        `(N,)` number of the place of every row.
    count
        `(U, 1)` rows at every place.
    table
        `(U, K)` number of the place that lies a step away; U where no row is.
    """

    place: Tensor
    count: Tensor
    table: Tensor


def steps_of(k: int, hexagonal: int, device=None) -> tuple[Tensor, Tensor]:
    """Steps `(k * k, 2)` of a kernel, and which of them `(k * k,)` are as near as its middle is wide.

    All of a square lattice; of a hexagonal one, whose steps are axial, those within `k // 2` steps.
    """
    at = torch.arange(k, device=device) - k // 2
    steps = torch.cartesian_prod(at, at)
    apart = torch.stack([steps[:, 0].abs(), steps[:, 1].abs(), steps.sum(dim=1).abs()]).max(dim=0).values
    return steps, apart <= k // 2 if hexagonal >= 0 else torch.ones_like(apart, dtype=torch.bool)


def around(places_N2: Tensor, k: int, hexagonal: int = -1) -> Around:
    """Who lies around whom, by whole numbers that are looked up among sorted ones: nothing is as large as the lattice.

    Parameters
    ----------
    places_N2
        Places on the lattice; several rows may share one.
    k
        Steps along a side of the kernel, an odd number.
    hexagonal
        As of :class:`sq_imputer.contract.WholeSlide`.
    """
    places = places_N2 - places_N2.min(dim=0).values + k // 2
    stride = int(places[:, 0].max()) + k  # no step leads into another line
    known, place, count = torch.unique(places[:, 1] * stride + places[:, 0], return_inverse=True, return_counts=True)
    steps, near = steps_of(k, hexagonal, places.device)
    wanted = known[:, None] + steps[:, 1] * stride + steps[:, 0]
    found = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    table = torch.where((known[found] == wanted) & near, found, len(known))
    return Around(place, count[:, None], table)


class LatticeConv(nn.Module):
    """A depthwise convolution on the lattice of a section, added to its rows; rows at one place are taken together.

    Parameters
    ----------
    width
        Width of the rows.
    k
        Steps along a side of the kernel.
    """

    def __init__(self, width: int, k: int = 3) -> None:
        super().__init__()
        self.k = k
        self.weight = nn.Parameter(torch.empty(k * k, width).uniform_(-1, 1) / k)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_NW: Tensor, slide: WholeSlide, turn: Turn = STILL) -> Tensor:
        """Rows `(N, W)` of a section; `turn` is as if the whole section was turned."""
        lies = slide.once(("around", self.k), lambda: around(slide.places, self.k, slide.hexagonal))
        x_UW = x_NW.new_zeros(len(lies.count), x_NW.shape[1]).index_add(0, lies.place, x_NW) / lies.count
        padded = torch.cat([x_UW, x_UW.new_zeros(1, x_UW.shape[1])])
        said = self.bias
        for step, weight in enumerate(self._turned(slide.hexagonal, turn)):
            said = said + padded[lies.table[:, step]] * weight
        return x_NW + said[lies.place]

    def _turned(self, hexagonal: int, turn: Turn) -> Tensor:
        """Weights `(K, W)` of the steps of a section that lies as it does, so that it counts as turned."""
        steps, near = steps_of(self.k, hexagonal, self.weight.device)
        leads = turn.steps(steps, hexagonal) + self.k // 2
        leads = (leads * leads.new_tensor([self.k, 1])).sum(dim=1)
        return self.weight[torch.where(near, leads, 0)]


class SlideEncoder(nn.Module):
    """Rows of a section look at each other: one block, the convolution on the lattice, then the other blocks.

    Sections of more than `most` rows look at each other in windows of rows along a curve that stays near itself,
    which move by half a window from block to block: memory and time grow as the number of rows does.

    Parameters
    ----------
    width, heads, ratio, dropout
        As of :class:`sq_imputer.nn.transformer.Block`.
    depth
        Blocks.
    most
        Rows that are looked at as a whole.
    window
        Rows of a window.
    """

    def __init__(
        self, width: int, depth: int, heads: int, ratio: float, dropout: float, *, most: int, window: int
    ) -> None:
        super().__init__()
        self.most, self.window = most, window
        self.blocks = nn.ModuleList(Block(width, heads, ratio, dropout) for _ in range(depth))
        self.lattice = LatticeConv(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_NW: Tensor, slide: WholeSlide, turn: Turn = STILL, only: Tensor | None = None) -> Tensor:
        """`(N, W)` to `(N, W)`, or to `(Q, W)` of those rows `only` that are numbered `(Q,)`.

        All rows are looked at in either case: in the last block those that nobody wants look at nothing.
        """
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            wanted = only if number == last > 0 else None
            x_NW = self._attended(block, x_NW, slide, number, wanted)
            if not number:
                x_NW = self.lattice(x_NW, slide, turn)
        return self.norm(x_NW if only is None or last else x_NW[only])

    def _attended(self, block: Block, x_NW: Tensor, slide: WholeSlide, number: int, only: Tensor | None) -> Tensor:
        if len(x_NW) <= self.most:
            return block(x_NW[None], only=only)[0]
        order, back = slide.once("curve", lambda: _curve(slide.places))
        mix = partial(windowed, size=self.window, shift=self.window // 2 * (number % 2))
        return block(x_NW[order][None], mix=mix)[0][back if only is None else back[only]]


def _curve(places_N2: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in the order of a curve through all places, Morton's, and which of these each row is."""
    places = places_N2 - places_N2.min(dim=0).values
    key = torch.zeros(len(places), dtype=torch.long, device=places.device)
    for bit in range(int(places.max()).bit_length()):
        for axis in (0, 1):
            key |= ((places[:, axis] >> bit) & 1) << (2 * bit + axis)
    order = key.argsort(stable=True)
    return order, order.argsort()
