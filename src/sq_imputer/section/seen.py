"""How models see a section: its features and pixels in batches, computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Batch, CropSpec, Needs
from sq_imputer.device import BatchSize
from sq_imputer.section import read
from sq_imputer.section.blocks import block_crops, whole_blocks
from sq_imputer.section.checks import check_needs
from sq_imputer.section.features import compute, record, shard_name, stored

if TYPE_CHECKING:
    from anndata import AnnData

MIN_ROWS_FOR_MOMENTS = 20


class Seen:
    """What :class:`sq_imputer.Slide` shows of itself to models; the fields are those of the slide."""

    def check(self, needs: Needs, trained_mpp: float | None = None) -> None:
        """Check, once, that the crops a model needs can be cut of the image and show something; a few are read.

        Features and batches begin with this; call it to know before something long. Raises `BadInput`, or warns.
        """
        self.checked.size(self.frame, needs, trained_mpp)
        for spec in needs.views:
            self.checked.crops((self._parent[0] if self._parent else self).crops(spec))

    def features(self, encoder: str, spec: CropSpec, *, neighbors: int = 0, device: str = "auto") -> np.ndarray:
        """Features of the crops of all rows, computed once per slide, encoder and spec.

        Parameters
        ----------
        encoder
            Name of an encoder, see :func:`sq_imputer.encoders.list_encoders`.
        spec
            What the encoder sees.
        neighbors
            `k` for the k × k block of crops around each row.
        device
            Where the encoder runs.

        Returns
        -------
        `(n, dim)` float32, or `(n, k * k, dim)`.
        """
        from sq_imputer.encoders import get_encoder

        key = (encoder, spec, neighbors)
        if self._parent is not None:
            whole, rows = self._parent
            return whole.features(encoder, spec, neighbors=neighbors, device=device)[rows]
        if key not in self._features:
            self.checked.crops(self.crops(spec))
            crops = block_crops(self.frame, self.centers_px, spec, max(neighbors, 1), self.names)
            encode = get_encoder(encoder)
            label = f"{encoder} of {self.section}, {spec.extent_um:g} µm"
            how = {"size": BatchSize(64), "device": device, "label": label, "journal": self.journal}
            values = compute(crops, encode, name=shard_name(encoder, spec, neighbors), **how)
            self.made_by[encoder] = {**encode.provenance, "batch_size": how["size"].rows}
            self._features[key] = values.reshape(len(self), -1, values.shape[1]) if neighbors > 1 else values
        return self._features[key]

    def remember(self, encoder: str, spec: CropSpec, values: np.ndarray, made_by: dict) -> None:
        """Use features that were computed before, by an encoder of this provenance."""
        for stale in [key for key in self._features if key[0] == "moments"]:
            del self._features[stale]
        self.made_by[encoder] = made_by
        self._features[encoder, spec, 0] = np.asarray(values, dtype=np.float32)

    def recall(self, table: AnnData, rows: np.ndarray, where: np.ndarray) -> None:
        """Use the features that a table has at its `rows` and that are of these crops; `where` is the row of each."""
        if len(rows) != len(self):
            return
        for kept in stored(table, rows, where):
            if kept.record == record(kept.encoder, kept.spec, self.frame, self.centers_px, self.keys):
                self.remember(kept.encoder, kept.spec, kept.values, kept.made_by)

    def record(self, encoder: str, spec: CropSpec) -> dict:
        """What is kept of features beside their values, so that they can be used again."""
        made_by = self.made_by.get(encoder, {})
        return {**record(encoder, spec, self.frame, self.centers_px, self.keys), "provenance": made_by}

    def all_features(self, needs: Needs, *, device: str = "auto") -> np.ndarray:
        """Features of every encoder and every view that a model needs, side by side, unscaled."""
        return np.concatenate(self._views(needs, device), axis=-1)

    def _views(self, needs: Needs, device: str) -> list[np.ndarray]:
        self.checked.size(self.frame, needs)
        views = needs.views if needs.neighbors < 2 else (needs.crop,)
        how = {"neighbors": needs.neighbors, "device": device}
        return [self.features(name, spec, **how) for spec in views for name in needs.encoders]

    def moments(self, needs: Needs, *, device: str = "auto") -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation of the section's features, or None if it has too few rows to tell.

        Over the rows of `anchor` if there is one, else over the measured rows, else over all.
        """
        slide = self.anchor or self
        rows = slide.measured if slide.measured.any() else np.ones(len(slide), dtype=bool)
        if rows.sum() < MIN_ROWS_FOR_MOMENTS:
            return None
        key = "moments", needs, rows.tobytes()
        if key not in slide._features:
            values = slide.all_features(needs, device=device)[rows]
            flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
            slide._features[key] = flat.mean(axis=0), flat.std(axis=0)
        return slide._features[key]

    def batches(
        self, needs: Needs, batch_size: int = 64, *, rows=None, generator=None, device: str = "auto"
    ) -> Iterator[Batch]:
        """Batches of rows in the cheapest reading order, or shuffled by `generator`. Lazy.

        Parameters
        ----------
        needs
            What to read.
        batch_size
            Rows in a batch; the last one may have fewer.
        rows
            Which rows, as numbers or a mask; all if left out.
        generator
            A NumPy generator: the order is random then (groups of chunks, then rows inside).
        device
            Where encoders run.
        """
        check_needs(needs)
        rows = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        if needs.encoders:
            views = self._views(needs, device)
            order = rows if generator is None else generator.permutation(rows)
            for start in range(0, len(order), batch_size):
                index = order[start : start + batch_size]
                yield self._batch(index, features=np.concatenate([view[index] for view in views], axis=-1))
            return
        self.check(needs)
        if needs.neighbors > 1:
            crops = block_crops(self.frame, self.centers_px, needs.crop, needs.neighbors, self.names)
            for index, block in whole_blocks(crops, needs.neighbors, batch_size, rows=rows, generator=generator):
                yield self._batch(index, crops=block)
        else:
            for index, crops in self.crops(needs.crop).batches(batch_size, rows=rows, generator=generator):
                yield self._batch(index, crops=crops)

    def _batch(self, index: np.ndarray, **seen: np.ndarray) -> Batch:
        import torch

        parts = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in seen.items()}
        if self.expression is not None:
            parts["expression"] = torch.from_numpy(self.expression[index])
        xy = torch.from_numpy(read.apply(self.frame.to_um, self.centers_px[index]).astype(np.float32))
        section = torch.zeros(len(index), dtype=torch.long)
        return Batch(index=torch.from_numpy(np.asarray(index, dtype=np.int64)), xy_um=xy, section=section, **parts)
