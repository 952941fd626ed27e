"""How models see a section: its features and pixels in batches, computed once and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.contract import Batch, CropSpec, Needs, WholeSlide
from sq_imputer.device import BatchSize
from sq_imputer.encoders._shelf import Shelf, same, told
from sq_imputer.errors import BadInput
from sq_imputer.scores.moments import chunks, mean_and_std
from sq_imputer.section import read
from sq_imputer.section.around import Tokens, inside, tokens_key, whole_slide
from sq_imputer.section.blocks import block_centers, block_crops, whole_blocks
from sq_imputer.section.checks import check_needs
from sq_imputer.section.features import compute, described_together, is_of, reader, record, shard_name, stored
from sq_imputer.section.lattice import beside
from sq_imputer.section.maps import made_by as made_by_maps
from sq_imputer.section.maps import maps_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sq_imputer.encoders import Encoder
    from sq_imputer.section.looks import Looks

MIN_ROWS_FOR_MOMENTS = 20

Key = tuple[str, CropSpec, int | str]  # encoder, crop, and side of a block of these, or what tokens are kept under
Moments = tuple[np.ndarray, np.ndarray]


class Known(NamedTuple):
    """Features, NaN in rows that are not known, and the provenance of the encoder; empty if that is not known."""

    values: np.ndarray
    made_by: dict

    @property
    def whole(self) -> bool:
        """Whether all rows are known."""
        return not np.isnan(self.values).any()


class Seen:
    """What :class:`sq_imputer.Slide` shows of itself to models; the fields are those of the slide."""

    def check(self, needs: Needs) -> None:
        """Check, once, that the crops a model needs can be cut of the image and show something; a few are read.

        Features and batches begin with this; call it to know before something long. Raises `BadInput`, or warns.
        """
        check_needs(needs)
        self.checked.size(self.frame, needs)
        for spec in needs.views:
            self.checked.crops((self._parent[0] if self._parent else self).crops(spec))

    @property
    def resolved_mpp(self) -> float:
        """µm per pixel that the image truly resolves, by its spectrum around the rows: its pixel, or more."""
        return self.looks.resolved_mpp

    @property
    def looks(self) -> Looks:
        """What the scan is like around the rows. Reads up to 32 tiles, once."""
        whole = self._parent[0] if self._parent else self
        return whole.checked.looks(whole.frame, whole.centers_px)

    def features(
        self, encoder: str, spec: CropSpec, *, neighbors: int = 0, tokens: int = 0, device: str = "auto"
    ) -> np.ndarray:
        """Features of the crops of all rows, computed once per slide, encoder and spec.

        Parameters
        ----------
        encoder
            Name of an encoder, see :func:`sq_imputer.encoders.list_encoders`.
        spec
            What the encoder sees.
        neighbors
            `k` for the k × k block of crops around each row.
        tokens
            Side of the grid for the tokens of each crop instead of its features.
        device
            Where the encoder runs.

        Returns
        -------
        `(n, dim)` float32, `(n, k * k, dim)`, or `(n, tokens * tokens * D)` from the top left; of a run that has too
        many for memory, rows of a file.
        """
        key = (encoder, spec, tokens_key(tokens) if tokens else neighbors)
        if self._parent is not None:
            whole, rows = self._parent
            return whole.features(encoder, spec, neighbors=neighbors, tokens=tokens, device=device)[rows]
        known = self._features.get(key)
        if known is None or (self.encoders and not self._fits(encoder, known, self.encoders)):
            encoders, known = self.encoders or Shelf(), self._recalled(key)
            known = known if known is not None and self._usable(encoder, known, encoders) else None
            if known is None or not known.whole:
                encode = encoders.get(encoder)
                encode = Tokens(encode, tokens, spec.size_px) if tokens else encode
                known = self._computed(key, encode, 0 if tokens else neighbors, device, known)
            self._set(key, known)
        return known.values

    def _fits(self, encoder: str, known: Known, encoders: Shelf) -> bool:
        return encoders.takes(encoder, known.made_by, f"section '{self.section}'")

    def _usable(self, encoder: str, known: Known, encoders: Shelf) -> bool:
        """Whether kept features can be used: if rows are missing, only beside those that the encoder at hand makes."""
        alone = known.whole or same(encoders.get(encoder).provenance, known.made_by)
        return alone and self._fits(encoder, known, encoders)

    def _computed(self, key: Key, encode: Encoder, neighbors: int, device: str, known: Known | None = None) -> Known:
        """Features of all rows, or of those that are not known, which are made in the way of the others."""
        name, spec, _ = key
        self.checked.crops(self.crops(spec))
        centers = block_centers(self.frame, self.centers_px, spec, max(neighbors, 1))
        asked = self.encoders and self.encoders.dense if known is None else known.made_by.get("dense")
        dense = False if isinstance(encode, Tokens) else asked
        crops = reader(self.frame, centers, spec, encode, np.repeat(self.names, max(neighbors, 1) ** 2), dense)
        label = f"{name} of {self.section}, {spec.extent_um:g} µm"
        how = {"size": BatchSize(64), "device": device, "label": label, "journal": self.journal}
        how["scratch"] = self.scratch if neighbors < 2 and known is None else None
        how["known"] = None if known is None else known.values
        values = compute(crops, encode, name=shard_name(*key), **how)
        values = values.reshape(len(self), -1, values.shape[1]) if neighbors > 1 else values
        made_by = {**encode.provenance, "batch_size": how["size"].rows, "dense": described_together(crops)}
        return Known(values, made_by)

    def _recalled(self, key: Key) -> Known | None:
        """What a table has of these features, if that is of these crops: the pixels, too, are those of then."""
        for kept in self._stored.pop(key, ()):
            if is_of(kept, self.frame, self.centers_px, self.keys):
                return Known(kept.values, kept.made_by)
        return None

    def _set(self, key: Key, known: Known) -> None:
        self._derived.clear()
        self.made_by[key[0]] = known.made_by
        self._features[key] = known

    def remember(self, encoder: str, spec: CropSpec, values: np.ndarray, made_by: dict) -> None:
        """Use features that were computed before, by an encoder of this provenance; empty: by whatever it was."""
        self._set((encoder, spec, 0), Known(np.asarray(values, dtype=np.float32), made_by))

    def recall(self, table: AnnData, rows: np.ndarray, where: np.ndarray) -> None:
        """Use the features that a table has at its `rows` and that are of these crops; `where` is the row of each.

        Whether they are is found when they are asked for: only then pixels are read, and encoders are known. Rows that
        the table lacks are computed then.
        """
        for kept in stored(table, rows, where, len(self)):
            self._stored.setdefault((kept.encoder, kept.spec, 0), []).append(kept)

    def record(self, encoder: str, spec: CropSpec) -> dict:
        """What is kept of features beside their values, so that they can be used again."""
        known = self._features.get((encoder, spec, 0))
        made_by = {} if known is None else known.made_by
        return {**record(encoder, spec, self.frame, self.centers_px, self.keys), "provenance": made_by}

    def encoded(self, needs: Needs, *, device: str = "auto") -> dict[str, dict]:
        """Provenance of the encoders of all features that a model needs, by name; these are computed if need be."""
        found: dict[str, dict] = {}
        for name, spec, how in _read_by(needs):
            self.features(name, spec, **how, device=device)
            made_by = self._made_by((name, spec, tokens_key(how["tokens"]) if how["tokens"] else how["neighbors"]))
            if not same(found.setdefault(name, made_by), made_by):
                raise BadInput(
                    f"section '{self.section}' has features of encoder '{name}' by {told(found[name], made_by)} "
                    f"and by {told(made_by, found[name])}. Embed it again by pp.embed, with one."
                )
        return found | made_by_maps(needs.maps, self.nuclei)

    def _made_by(self, key: Key) -> dict:
        return self._parent[0]._made_by(key) if self._parent else self._features[key].made_by

    def all_features(self, needs: Needs, *, device: str = "auto") -> np.ndarray:
        """Features of every encoder and every view that a model needs, side by side, unscaled."""
        return np.concatenate(self._views(needs, device), axis=-1)

    def _views(self, needs: Needs, device: str, **how: int) -> list[np.ndarray]:
        self.checked.size(self.frame, needs)
        views = needs.views if not how else (needs.crop,)
        return [self.features(name, spec, **how, device=device) for spec in views for name in needs.encoders]

    def maps(self, needs: Needs) -> np.ndarray:
        """Boundaries around all rows `(n, 1 or 2, C, S, S)` uint8, drawn once per section; see `Batch.maps`."""
        if self._parent is not None:
            whole, rows = self._parent
            return whole.maps(needs)[rows]
        key = ("maps", needs.maps, needs.maps_px, needs.maps_um, needs.crop, needs.neighbors)
        if key not in self._features:
            self.checked.crops(self.crops(needs.crop))
            label = f"{' and '.join(needs.maps)} of {self.section}"
            drawn = maps_of(self.frame, self.centers_px, needs, self.nuclei, label)
            self._features[key] = Known(drawn, made_by_maps(needs.maps, self.nuclei))
        return self._features[key].values

    def moments(self, needs: Needs, *, device: str = "auto", tokens: bool = False) -> Moments | None:
        """Mean and standard deviation of the section's features, or of its tokens; None if it has too few rows to tell.

        Over the rows of `anchor` if there is one, else over the measured rows, else over all.
        """
        slide = self.anchor or self
        rows = slide.measured if slide.measured.any() else np.ones(len(slide), dtype=bool)
        if rows.sum() < MIN_ROWS_FOR_MOMENTS:
            return None
        key = needs, tokens, rows.tobytes()
        how = {"tokens": needs.tokens} if tokens else {}
        views = slide._views(needs, device, **how)  # features that are replaced take their moments with them
        if key not in slide._derived:
            parts = chunks(np.flatnonzero(rows))
            seen = (_side_by_side([view[part] for view in views], how.get("tokens", 0)) for part in parts)
            slide._derived[key] = mean_and_std(values.reshape(-1, values.shape[-1]) for values in seen)
        return slide._derived[key]

    def whole(self, needs: Needs, *, device: str = "auto") -> tuple[WholeSlide, np.ndarray]:
        """The section as a whole, with which rows there those of this slide are; made once."""
        slide, rows = self._parent or (self, np.arange(len(self)))
        if slide._parent:
            found, above = slide.whole(needs, device=device)
            return found, above[rows]
        views = replace(needs, tokens=0, neighbors=0, maps=(), per_section=False)
        found = slide._views(views, device)  # features that are replaced take the whole with them
        if views not in slide._derived:
            array = slide.array if slide.measured.all() else None  # of rows that were not it says 0
            whole = whole_slide(slide.xy_um, array, _side_by_side(found))
            slide._derived[views] = whole
        return slide._derived[views], rows

    def smoothed(self, rows: np.ndarray) -> np.ndarray:
        """Expression `(n, G)`, in these rows the mean over those of them that are neighbors on the lattice."""
        among = beside(self.xy_um[rows], None if self.array is None else self.array[rows])
        found = self.expression.copy()
        found[rows] = (among @ self.expression[rows]) / among.sum(axis=1)
        return found

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
            order = rows if generator is None else generator.permutation(rows)
            yield from self._of_features(
                needs, [order[k : k + batch_size] for k in range(0, len(order), batch_size)], device
            )
            return
        self.check(needs)
        if needs.neighbors > 1:
            crops = block_crops(self.frame, self.centers_px, needs.crop, needs.neighbors, self.names)
            for index, block in whole_blocks(crops, needs.neighbors, batch_size, rows=rows, generator=generator):
                yield self._batch(index, crops=block)
        else:
            for index, crops in self.crops(needs.crop).batches(batch_size, rows=rows, generator=generator):
                yield self._batch(index, crops=crops)

    def _of_features(self, needs: Needs, parts: Sequence[np.ndarray], device: str) -> Iterator[Batch]:
        """Batches of these rows as their encoders, those of their tokens, blocks and section describe them."""
        views, k = self._views(needs, device), needs.neighbors
        tokens = self._views(needs, device, tokens=needs.tokens) if needs.tokens else []
        around = self._views(needs, device, neighbors=k) if k > 1 else []
        lies = inside(self.frame, self.centers_px, needs.crop, k) if k > 1 else None
        whole, rows = self.whole(needs, device=device) if needs.whole_slide else (None, None)
        maps = self.maps(needs) if needs.maps else None
        for index in parts:
            seen = {"features": _side_by_side([view[index] for view in views])}
            if tokens:
                seen["tokens"] = _side_by_side([view[index] for view in tokens], needs.tokens)
            if around:
                seen |= {"neighbors": _side_by_side([view[index] for view in around]), "inside": lies[index]}
            if maps is not None:
                seen["maps"] = maps[index]
            if whole is not None:
                seen["at"] = np.stack([np.zeros(len(index), dtype=np.int64), rows[index]], axis=1)
            yield replace(self._batch(index, **seen), slides=() if whole is None else (whole,))

    def _batch(self, index: np.ndarray, **seen: np.ndarray) -> Batch:
        import torch

        parts = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in seen.items()}
        if self.expression is not None:
            parts["expression"] = torch.from_numpy(self.expression[index])
        if self.array is not None:
            parts["array"] = torch.from_numpy(self.array[index])
        xy = torch.from_numpy(read.apply(self.frame.to_um, self.centers_px[index]).astype(np.float32))
        section = torch.zeros(len(index), dtype=torch.long)
        return Batch(index=torch.from_numpy(np.asarray(index, dtype=np.int64)), xy_um=xy, section=section, **parts)


def unseen() -> dict[str, dict]:
    """The fields of a slide of which no features are known."""
    return {"_features": {}, "_derived": {}, "_stored": {}}


def _read_by(needs: Needs) -> Iterator[tuple[str, CropSpec, dict[str, int]]]:
    """The features that a model needs: encoder, crop, and whether they are of a block or of tokens."""
    for name in needs.encoders:
        yield from ((name, spec, {"neighbors": 0, "tokens": 0}) for spec in needs.views)
        if needs.neighbors > 1:
            yield name, needs.crop, {"neighbors": needs.neighbors, "tokens": 0}
        if needs.tokens:
            yield name, needs.crop, {"neighbors": 0, "tokens": needs.tokens}


def _side_by_side(views: Sequence[np.ndarray], tokens: int = 0) -> np.ndarray:
    """Features of several views, or `(n, tokens * tokens, D)` of several encoders, as one array."""
    parts = [view.reshape(len(view), tokens**2, -1) for view in views] if tokens else views
    return np.concatenate(parts, axis=-1)
