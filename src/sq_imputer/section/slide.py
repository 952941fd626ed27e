"""A section as a model sees it: rows with a place on an image, and what was measured there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Batch, CropSpec, Needs
from sq_imputer.device import BatchSize
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.panel import align
from sq_imputer.genes.units import LOG1P_CP10K, to_unit
from sq_imputer.section import read
from sq_imputer.section.blocks import block_crops, whole_blocks
from sq_imputer.section.checks import Checked, check_inside, check_missing, check_needs, constant
from sq_imputer.section.features import compute, record, shard_name, stored
from sq_imputer.section.frame import Frame, read_frame
from sq_imputer.section.image import find_image

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

    from sq_imputer.pixels.crops import Crops
    from sq_imputer.store.journal import Part

MIN_ROWS_FOR_MOMENTS = 20


@dataclass(frozen=True, eq=False, repr=False)
class Slide:
    """Rows of one shapes element on one image, with counts where a table has them.

    Made by :meth:`from_sdata`; nothing in it refers to the SpatialData object, and its image is read only when crops
    are.

    Parameters
    ----------
    frame
        The image, lazily, with its place and its µm per pixel.
    centers_px
        `(n, 2)` x and y in pixels of the finest level.
    size_um
        `(n,)` diameter of circles, or side of the square of equal area.
    names
        `(n,)` name of every row: the table's where measured, else the shape's.
    instances
        `(n,)` id of every row in the shapes element.
    measured
        `(n,)` whether the row has counts.
    counts
        `(n, all genes)` counts, 0 in rows that were not measured; None without a table.
    var_names
        Names of the columns of `counts`.
    group
        Patient or animal.
    section
        Name of the section.
    keys
        Where it was read: `image_key`, `shapes_key`, `table_key`, `coordinate_system`, `layer`; empty where none.
    genes, unit, expression
        Targets, set by :meth:`with_genes`.
    anchor
        The measured rows of the same image: features are scaled as theirs are.
    checked
        What has been checked of the image.
    made_by
        Provenance of the encoders whose features were computed or remembered, by name.
    journal
        Where features are kept while they are computed, so that a killed run can go on.
    """

    frame: Frame
    centers_px: np.ndarray
    size_um: np.ndarray
    names: np.ndarray
    instances: np.ndarray
    measured: np.ndarray
    counts: csr_matrix | None
    var_names: tuple[str, ...]
    group: str
    section: str
    keys: dict[str, str]
    genes: tuple[str, ...] = ()
    unit: str = ""
    expression: np.ndarray | None = None
    anchor: Slide | None = None
    checked: Checked = field(default_factory=Checked)
    _parent: tuple[Slide, np.ndarray] | None = None
    made_by: dict = field(default_factory=dict)
    journal: Part | None = None
    _features: dict = field(default_factory=dict)

    @classmethod
    def from_sdata(
        cls,
        sdata: SpatialData,
        image_key: str | None = None,
        shapes_key: str | None = None,
        table_key: str | None = "table",
        coordinate_system: str | None = None,
        *,
        mpp: float | None = None,
        technology: str | None = None,
        layer: str | None = None,
        patient_key: str = "patient",
        outside: str = "error",
        missing: str = "error",
        section: str | None = None,
    ) -> Slide:
        """Read a section. Lazy in the image: no pixel is read.

        Parameters
        ----------
        sdata
            The object; it is not changed.
        image_key
            H&E image, single- or multi-scale, (c, y, x), uint8 or float in [0, 1]. May be left out if there is one
            image.
        shapes_key
            Circles or polygons: spots, bins, cells. May be left out if the table annotates one element.
        table_key
            Table with counts. Rows of the shapes element that it does not annotate are unmeasured. None, a table of
            another element, or no table `"table"` in the object: all rows are unmeasured.
        coordinate_system
            Where image and shapes meet. May be left out if all common systems say the same.
        mpp
            µm per pixel of the image's finest level; else found as :func:`sq_imputer.pp.pixel_size` says.
        technology
            `"visium"`, `"st"` or `"st2k"`: take µm per pixel from the lattice pitch.
        layer
            Layer of the table that holds the counts; X if left out.
        patient_key
            Column of `obs` that names the individual; without a column `"patient"`, every object is an individual of
            its own.
        outside
            `"error"`, or `"pad"`: what to do with rows whose center lies outside the image. Padded ones see white; at
            least half of the rows must lie on the image.
        missing
            `"error"`, or `"fill"`: what to do with rows on chunks that have no file in the (local zarr) store. Zarr
            fills such chunks, mostly with black: right only where the image is so. Up to 1 % of the rows is a warning.
        section
            Name of the section; `sdata.attrs["section"]` or the shapes key if left out.

        Raises
        ------
        MissingKey
            If a key is missing, or several fit and none was named.
        BadInput
            If image, coordinates, counts or µm per pixel are not usable.
        """
        image_key = find_image(sdata, image_key)
        read.check_table_key(sdata, table_key)
        shapes_key = read.find_shapes(sdata, shapes_key, table_key)
        shapes = sdata.shapes[shapes_key]
        place = read.geometry(sdata, image_key, shapes_key, coordinate_system)
        found = {"mpp": mpp, "technology": technology, "table_key": table_key, "shapes_key": shapes_key}
        frame = read_frame(sdata, image_key, place.coordinate_system, **found)
        centers_px = read.apply(place.to_image, read.centers(shapes, shapes_key))
        sizes_px = read.sizes(shapes) * read.similarity(place.to_image, shapes_key)[0]
        what = shapes.index, f"shapes '{shapes_key}'"
        check_inside(frame.pyramid, centers_px, *what, outside)
        check_missing(frame.pyramid, centers_px, sizes_px, *what, missing)
        section = section or str(sdata.attrs.get("section", shapes_key))
        slide = cls(
            frame=frame,
            centers_px=centers_px,
            size_um=sizes_px * frame.pixel.mpp,
            names=shapes.index.astype(str).to_numpy(dtype=object),
            instances=shapes.index.to_numpy(),
            measured=np.zeros(len(shapes), dtype=bool),
            counts=None,
            var_names=(),
            group=str(sdata.attrs.get("patient", section)),
            section=section,
            keys={
                "image_key": image_key,
                "shapes_key": shapes_key,
                "table_key": table_key or "",
                "coordinate_system": place.coordinate_system,
                "layer": layer or "",
            },
        )
        if table_key is None or shapes_key not in read.annotated(sdata, table_key):
            return slide
        return slide._with_table(sdata.tables[table_key], shapes, layer, patient_key)

    def _with_table(self, table: AnnData, shapes: GeoDataFrame, layer: str | None, patient_key: str) -> Slide:
        """The slide with the counts, names and individual that a table gives."""
        shapes_key, table_key = self.keys["shapes_key"], self.keys["table_key"]
        rows, where = read.rows_of(table, shapes, shapes_key, table_key)
        counts, measured = read.spread(read.read_counts(table, rows, layer, table_key), where, len(self))
        names = self.names.copy()
        names[where] = table.obs_names.to_numpy()[rows]
        if patient_key not in table.obs and patient_key != "patient":
            raise MissingKey(f"no '{patient_key}' in obs of table '{table_key}'; it has {listed(table.obs)}.")
        group = constant(table.obs[patient_key].iloc[rows], patient_key) if patient_key in table.obs else self.group
        var_names = tuple(map(str, table.var_names))
        slide = replace(self, counts=counts, measured=measured, names=names, group=group, var_names=var_names)
        slide.recall(table, rows, where)
        return slide

    def __len__(self) -> int:
        return len(self.centers_px)

    def __repr__(self) -> str:
        size, what = self.frame.pixel, f"{self.measured.sum()} of {len(self)} rows measured"
        return f"Slide '{self.section}' of '{self.group}': {what}, {len(self.var_names)} genes, {size.mpp:.4g} µm/px"

    @property
    def xy_um(self) -> np.ndarray:
        """`(n, 2)` x and y in µm, along the axes of the coordinate system."""
        return read.apply(self.frame.to_um, self.centers_px)

    @property
    def depth(self) -> np.ndarray:
        """`(n,)` total counts of each row over the full library; NaN where not measured."""
        if self.counts is None:
            return np.full(len(self), np.nan)
        total = np.asarray(self.counts.sum(axis=1), dtype=np.float64).ravel()
        return np.where(self.measured, total, np.nan)

    @property
    def fingerprint(self) -> str:
        """Identity of what was measured where: equal for the same spots with the same counts, by any name."""
        rows = np.flatnonzero(self.measured)
        place = np.column_stack([self.centers_px[rows].round(2), np.nan_to_num(self.depth[rows])])
        return hashlib.sha256(place[np.lexsort(place.T)].tobytes()).hexdigest()[:16]

    def with_genes(self, genes: Sequence[str], unit: str = LOG1P_CP10K) -> Slide:
        """The slide with `expression` of these genes, in this unit; NaN in rows that were not measured."""
        if self.counts is None:
            raise BadInput(
                f"section '{self.section}' has no counts (shapes '{self.keys['shapes_key']}', table "
                f"'{self.keys['table_key']}'); a model can be fitted only where expression was measured."
            )
        counts = align(self.counts, self.var_names, genes, f"section '{self.section}'")
        expression = to_unit(counts, np.nan_to_num(self.depth), unit)
        expression[~self.measured] = np.nan
        return replace(self, genes=tuple(genes), unit=unit, expression=expression)

    def take(self, rows: np.ndarray) -> Slide:
        """The slide with only these rows; features are shared with the whole, and scaled as the whole is."""
        rows = np.arange(len(self))[rows]
        per_row = ("centers_px", "size_um", "names", "instances", "measured", "counts", "expression")
        parts = {name: getattr(self, name)[rows] for name in per_row if getattr(self, name) is not None}
        return replace(self, **parts, _features={}, _parent=(self, rows), anchor=self.anchor or self)

    def crops(self, spec: CropSpec, *, threads: int = 2) -> Crops:
        """Crops around every row. Lazy: reads nothing until indexed or iterated."""
        return self.frame.crops(self.centers_px, spec, threads=threads, names=self.names)

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
