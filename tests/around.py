"""A source of arrays that has what lies in and around its rows: parts, tiles and the whole section."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sq_imputer.contract import WholeSlide

SIDE, WIDTH = 12, 4  # rows along a side of the section; features


class Surrounded:
    """Mixed into the fixture `arrays`: rows on a square lattice, whose tiles are drawn, the middle one their own."""

    tiles: np.ndarray  # (n, 9, WIDTH)
    parts: np.ndarray  # (n, 4, WIDTH)

    def _batch(self, index: np.ndarray):
        rows = torch.from_numpy(index)
        whole = self.__dict__.setdefault("whole", self._whole())
        tiles = torch.from_numpy(self.tiles[index])
        inside = torch.ones(len(index), 9, dtype=torch.bool)
        more = {"tokens": torch.from_numpy(self.parts[index]), "neighbors": tiles, "inside": inside}
        at = torch.stack([torch.zeros_like(rows), rows], dim=1)
        if hasattr(self, "maps"):
            more["maps"] = torch.from_numpy(self.maps[index])
        return replace(super()._batch(index), **more, at=at, slides=(whole,))

    def _whole(self) -> WholeSlide:
        places = np.stack(np.divmod(np.arange(len(self)), SIDE)[::-1], axis=1)
        return WholeSlide(torch.from_numpy(np.asarray(self.features, dtype=np.float32)), torch.from_numpy(places))


def planted(arrays: type, seed: int, **more):
    """A section of 144 rows with three genes: of the parts of the crop, of the tiles around it, of the rows beside."""
    rng = np.random.default_rng(seed)
    n = SIDE**2
    tiles = rng.normal(size=(n, 9, WIDTH)).astype(np.float32)
    own = tiles[:, 4]
    parts = (own[:, None] + rng.normal(size=(n, 4, WIDTH))).astype(np.float32)
    grid = np.pad(own[:, 2].reshape(SIDE, SIDE), 1)
    beside = grid[:-2, 1:-1] + grid[2:, 1:-1] + grid[1:-1, :-2] + grid[1:-1, 2:]
    truth = np.stack([parts[..., 0].mean(1), 3 * tiles[:, :, 1].mean(1), beside.ravel() / 2], axis=1)
    source = type("Around", (Surrounded, arrays), {})(truth + 0.1 * rng.normal(size=truth.shape), features=own, **more)
    source.tiles, source.parts = tiles, parts
    return source


def drawn_maps(source, seed: int = 0, views: int = 2, side: int = 16):
    """The section with maps `(n, views, 4, side, side)` that nothing else tells of, and two genes of theirs.

    One is of what nuclei cover, one of how long edges are, each in the crop.
    """
    rng = np.random.default_rng(seed)
    cover, length = (rng.uniform(0.05, 0.6, len(source)) for _ in range(2))
    drawn = rng.random((len(source), views, 4, side, side)) < 0.3
    for channel, share in ((0, length), (1, cover)):
        there = rng.random((len(source), views, side, side)) < share[:, None, None, None]
        drawn[:, :, channel] = there
    source.maps = (255 * drawn).astype(np.uint8)
    genes = 4 * drawn[:, 0, [1, 0]].mean((2, 3)) + 0.1 * rng.normal(size=(len(source), 2))
    source.genes = (*source.genes, "G3", "G4")
    source.expression = np.column_stack([source.expression, genes])
    return source
