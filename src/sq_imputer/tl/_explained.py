"""Maps of what carries a prediction: one section's crops explained, tested, and sorted into tissue structures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.progress import track
from sq_imputer.section.mosaic import Mosaic, Spool
from sq_imputer.section.overview import picture
from sq_imputer.store import write
from sq_imputer.tl._structures import FINEST_UM, STRUCTURES, Palette, density, glass_below

if TYPE_CHECKING:
    from pandas import DataFrame
    from torch import Tensor

    from sq_imputer.explain import Sight
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.slide import Slide

SUMMARIES = ("mean", "positive_share", "concentration")
TOP = 0.1  # share of the cells of a map whose share of its size is its concentration
TESTED, COLORED = 16, 64  # crops that faithfulness, and the colors of the section, are taken from
SORTED = 256  # crops whose pixels are sorted into structures
OVERVIEW_PX = 1000
HELD = 2**28  # bytes of crops that are read at a time


@dataclass
class Work:
    """One call: what is explained, and how."""

    predictor: Predictor
    slide: Slide
    genes: list[str]
    rows: np.ndarray
    method: str
    grid: int
    baseline: str
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        from sq_imputer.explain import Sight

        needs, device = self.predictor.needs, str(self.predictor.expression_mean.device)
        own = self.slide.moments(needs, device=device) if needs.encoders and needs.per_section else None
        self.sight: Sight = Sight.of(self.predictor, self.genes, own, self.slide.encoders.get)
        overview = picture(self.slide.frame, OVERVIEW_PX)[0]
        self.glass = glass_below(overview)
        self.color = self._color(overview)

    @property
    def crop(self) -> CropSpec:
        """What the model sees of a spot."""
        return self.predictor.needs.crop

    @property
    def side(self) -> int:
        """Cells along the map of a crop."""
        return self.grid if self.method == "occlusion" else self.crop.size_px

    @property
    def mpp(self) -> float:
        """µm per pixel of the image, unless said otherwise."""
        return self.crop.extent_um / self.side / (4 if self.method == "occlusion" else 1)

    def drawn(self, n: int) -> np.ndarray:
        """At most n of the rows, in order."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.choice(self.rows, min(n, len(self.rows)), replace=False))

    def views(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Row numbers and `(B, V, 3, S, S)`, in the order in which the crops are read.

        As many rows as fit into `HELD` bytes are read at a time, each view in its own order: every chunk once for them.
        """
        import torch

        views = [self.slide.crops(view) for view in self.predictor.needs.views]
        order = views[0].order[np.isin(views[0].order, rows)]
        most = max(self.batch_size, HELD // (3 * self.crop.size_px**2 * len(views)))
        for start in range(0, len(order), most):
            some = order[start : start + most]
            seen = torch.from_numpy(np.stack([view[some] for view in views], axis=1))
            for index, crops in zip(
                np.split(some, range(self.batch_size, len(some), self.batch_size)),
                seen.split(self.batch_size),
                strict=True,
            ):
                yield index, crops.to(self.sight.device)

    def _color(self, overview: np.ndarray) -> Tensor:
        """The baseline, as a color of whole numbers."""
        import torch

        if self.baseline == "glass":
            pixels = overview[density(overview) <= self.glass]
        else:
            crops = np.moveaxis(self.slide.crops(self.crop)[self.drawn(COLORED)], 1, -1)
            pixels = crops[density(crops) > self.glass]
        color = pixels.mean(axis=0) if len(pixels) else np.full(3, 255)
        return torch.tensor(np.rint(color), dtype=torch.uint8, device=self.sight.device)

    def run(self, path: Path) -> tuple[Spool, dict[str, np.ndarray]]:
        """The maps of all crops, kept in a file, and their summaries `(n, G)`."""
        from sq_imputer.explain import attribute

        spool = Spool(path, (len(self.genes), self.side, self.side))
        summaries = {name: np.zeros((len(self.rows), len(self.genes)), np.float32) for name in SUMMARIES}
        label = f"{self.method} of {self.predictor.card.name} on {self.slide.section}"
        for index, views in track(self.views(self.rows), label, len(self.rows), size=lambda batch: len(batch[0])):
            maps = attribute(self.sight, views, self.color, self.method, grid=self.grid).cpu().numpy()
            at = np.searchsorted(self.rows, index)
            spool.write(at, maps)
            for name, values in zip(SUMMARIES, _summaries(maps), strict=True):
                summaries[name][at] = values
        return spool, summaries

    def tests(self, spool: Spool) -> DataFrame:
        """Faithfulness on some crops, one row per gene."""
        import pandas as pd
        import torch

        from sq_imputer.explain import faithfulness

        index, views = zip(*self.views(self.drawn(TESTED)), strict=True)
        maps = torch.from_numpy(spool.read(np.searchsorted(self.rows, np.concatenate(index)))).to(self.sight.device)
        known = {"grid": self.grid, "seed": self.seed, "maps": maps}
        found = faithfulness(self.sight, torch.cat(views), self.color, self.method, **known)
        return pd.DataFrame(found, index=pd.Index(self.genes, name="gene"))

    def structures(self, spool: Spool) -> DataFrame:
        """Mean of the maps in each tissue structure, over some crops."""
        import pandas as pd

        rows, extent = self.drawn(SORTED), self.crop.extent_um
        size = max(1, round(extent / max(FINEST_UM, self.slide.frame.pixel.mpp)))
        crops = self.slide.crops(CropSpec(extent, size))
        palette = Palette.of(np.moveaxis(crops[rows[:COLORED]], 1, -1), self.glass)
        cell = (np.arange(size) + 0.5) / size * self.side
        total, count = np.zeros((len(STRUCTURES), len(self.genes))), np.zeros(len(STRUCTURES))
        for index, pixels in crops.batches(self.batch_size, rows=rows):
            classes = palette.classes(np.moveaxis(pixels, 1, -1), extent / size)
            maps = spool.read(np.searchsorted(self.rows, index))[:, :, cell.astype(int)][..., cell.astype(int)]
            for k in range(len(STRUCTURES)):
                total[k] += np.moveaxis(maps, 1, -1)[classes == k].sum(axis=0)
                count[k] += (classes == k).sum()
        values = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan)
        return pd.DataFrame(values, index=pd.Index(STRUCTURES, name="structure"), columns=self.genes)

    def record(self, mosaic: Mosaic) -> dict:
        """Provenance."""
        return {
            **self.slide.keys,
            "model": self.predictor.card.name,
            "config": self.predictor.config,
            "weights_sha256": self.predictor.sha256,
            "unit": self.predictor.unit,
            "genes": self.genes,
            "method": self.method,
            "grid": self.grid,
            "baseline": self.baseline,
            "baseline_color": self.color.cpu().numpy(),
            "extent_um": float(self.crop.extent_um),
            "mpp": float(mosaic.mpp),
            "origin_um": mosaic.origin_um,
            "image_mpp": float(self.slide.frame.pixel.mpp),
            "seed": int(self.seed),
            "section": self.slide.section,
            "image_fingerprint": self.slide.frame.pyramid.fingerprint,
        }

    def table(self, summaries: dict[str, np.ndarray], key: str, record: dict):
        """The summaries as a table of the spots that were explained."""
        frames = {name: record.pop(name) for name in ("tests", "structures")}
        record["faithfulness"] = {name: values.to_numpy() for name, values in frames["tests"].items()}
        record["structures"] = {name: row.to_numpy() for name, row in frames["structures"].iterrows()}
        names, slide = self.slide.names[self.rows].astype(str), self.slide
        return write.new_table(
            summaries["mean"],
            names,
            self.genes,
            region=slide.keys["shapes_key"],
            instance_key="instance_id",
            instances=slide.instances[self.rows],
            obsm={**summaries, "spatial": slide.xy_um[self.rows]},
            uns={"sq_imputer": {key: record}},
        )


def _summaries(maps: np.ndarray) -> tuple[np.ndarray, ...]:
    """Mean, positive share and concentration `(B, G)` of maps `(B, G, K, K)`."""
    flat = maps.reshape(*maps.shape[:2], -1)
    size = np.abs(flat)
    total = np.maximum(size.sum(axis=-1), np.finfo(np.float32).tiny)
    top = max(1, round(TOP * flat.shape[-1]))
    largest = np.partition(size, -top, axis=-1)[..., -top:].sum(axis=-1)
    return flat.mean(axis=-1), np.clip(flat, 0, None).sum(axis=-1) / total, largest / total
