"""A section as a model sees it: rows with a place on an image, and what was measured there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from pandas import Index

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.names import column_of, columns_by_name
from sq_imputer.genes.panel import columns_for
from sq_imputer.genes.units import LOG1P_CP10K, to_unit
from sq_imputer.section import read
from sq_imputer.section.checks import Checked, check_inside, check_missing, constant
from sq_imputer.section.counts import Counts, names_of_genes, read_counts, warn_of_empty, warn_of_no_depth
from sq_imputer.section.frame import Frame, read_frame
from sq_imputer.section.image import find_image
from sq_imputer.section.lattice import array_of
from sq_imputer.section.maps import OwnNuclei
from sq_imputer.section.marks import Marked
from sq_imputer.section.seen import Seen, unseen
from sq_imputer.section.targets import columns_of, read_labels
from sq_imputer.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from sq_imputer.encoders._shelf import Shelf
    from sq_imputer.pixels.crops import Crops
    from sq_imputer.store.journal import Part


@dataclass(frozen=True, eq=False, repr=False)
class Slide(Seen, Marked):
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
    array
        `(n, 2)` `array_col` and `array_row` of the table, where it has both for every measured row; 0 in other rows.
    counts
        `(n, all genes)` counts, 0 in rows that were not measured, in blocks where the table is lazy or backed; None
        without a table. Those of a lazy or backed table stay where they are, and are read when they are asked for.
    var_names
        Names of the columns of `counts`.
    group
        Patient or animal.
    section
        Name of the section.
    keys
        Where it was read: `image_key`, `shapes_key`, `table_key`, `coordinate_system`, `layer`; empty where none.
    gene_ids
        Ids of the columns, where the table has them beside their names.
    genes, unit, expression
        Targets, set by :meth:`with_genes`.
    target, labels
        What is to be predicted; of another target than genes `(n, names)` what is measured of it, NaN where nothing is.
        `measured` then says which rows have a value.
    anchor
        Rows of the same image, measured or all over its tissue: features are scaled as theirs are.
    checked
        What has been checked of the image.
    made_by
        Provenance of the encoders whose features were computed or remembered, by name.
    journal
        Where features are kept while they are computed, so that a killed run can go on.
    scratch
        A folder for features that are too many for memory; None: they are in memory.
    encoders
        The encoders of the run that this section is read for; None: built for every view anew.
    nuclei
        Those that the object has, for models that look at nuclei; None: they are found in the image.
    """

    frame: Frame
    centers_px: np.ndarray
    size_um: np.ndarray
    names: np.ndarray
    instances: np.ndarray
    measured: np.ndarray
    counts: Counts | None
    var_names: tuple[str, ...]
    group: str
    section: str
    keys: dict[str, str]
    gene_ids: tuple[str, ...] = ()
    array: np.ndarray | None = None
    genes: tuple[str, ...] = ()
    unit: str = ""
    expression: np.ndarray | None = None
    target: Target = Target()
    labels: np.ndarray | None = None
    anchor: Slide | None = None
    checked: Checked = field(default_factory=Checked)
    _parent: tuple[Slide, np.ndarray] | None = None
    made_by: dict = field(default_factory=dict)
    journal: Part | None = None
    scratch: Path | None = None
    encoders: Shelf | None = None
    nuclei: OwnNuclei | None = None
    _features: dict = field(default_factory=dict)
    _derived: dict = field(default_factory=dict)  # what is made of features, and goes when one of them is replaced
    _stored: dict = field(default_factory=dict)

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
        section_key: str | None = None,
        gene_symbols: str | None = None,
        nuclei_key: str | None = None,
        section: str | None = None,
        target: Target | str = "genes",
    ) -> Slide:
        """Read a section. Lazy in the image: no pixel is read.

        Parameters
        ----------
        sdata
            The object; it is not changed.
        image_key
            H&E image, single- or multi-scale, (c, y, x), uint8 or float in [0, 1]. Left out: the one that shares a
            coordinate system with the shapes; of several of the same place the finest, with a warning.
        shapes_key
            Circles or polygons: spots, bins, cells. Or labels, a segmentation mask: its instances are the rows, at
            their centroids, with their areas, for which the mask is read once, chunk by chunk. May be left out if the
            table annotates one element.
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
        gene_symbols
            Column of `var` that holds the symbols, where `var_names` are ids: genes can be named by either.
        nuclei_key
            Labels or shapes of nuclei, from 10x, Cellpose, StarDist or another, for models that look at them
            (`Needs.maps`); found in the image if left out.
        section_key
            Column of `obs`: only shapes whose row in the table says `section` there belong to it.
        section
            Name of the section; `sdata.attrs["section"]` or the shapes key if left out.
        target
            What is to be predicted, genes if left out (:class:`sq_imputer.Target`). Rows without a value of it are not
            measured.

        Raises
        ------
        MissingKey
            If a key is missing, or several fit and none was named.
        BadInput
            If image, coordinates, counts or µm per pixel are not usable.
        """
        read.check_object(sdata)
        read.check_table_key(sdata, table_key)
        shapes_key = read.find_shapes(sdata, shapes_key, table_key)
        image_key = find_image(sdata, image_key, shapes_key)
        section = section or str(sdata.attrs.get("section", shapes_key))
        shapes, among = _shapes_of(sdata, shapes_key, table_key, section_key, section)
        place = read.geometry(sdata, image_key, shapes_key, coordinate_system)
        centers_px = read.apply(place.to_image, read.centers(shapes, shapes_key))
        found = {"mpp": mpp, "technology": technology, "table_key": table_key, "shapes_key": shapes_key}
        frame = read_frame(sdata, image_key, place.coordinate_system, **found)
        sizes_px = read.sizes(shapes) * read.similarity(place.to_image, shapes_key)[0]
        what = shapes.index, f"shapes '{shapes_key}'"
        check_inside(frame.pyramid, centers_px, *what, outside)
        check_missing(frame.pyramid, centers_px, sizes_px, *what, missing)
        slide = cls(
            frame=frame,
            centers_px=centers_px,
            size_um=sizes_px * frame.pixel.mpp,
            names=shapes.index.astype(str).to_numpy(dtype=object),
            instances=shapes.index.to_numpy(),
            measured=np.zeros(len(shapes), dtype=bool),
            target=Target.of(target),
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
                "section_key": section_key or "",
                "gene_symbols": gene_symbols or "",
            },
            nuclei=OwnNuclei.named(sdata, nuclei_key, image_key, place.coordinate_system),
        )
        if table_key is not None and shapes_key in read.annotated(sdata, table_key):
            slide = slide._with_table(sdata.tables[table_key], shapes, layer, patient_key, among)
        return slide if slide.target.is_genes else slide._with_labels(sdata, shapes, among)

    def _with_labels(self, sdata: SpatialData, shapes: GeoDataFrame, among: np.ndarray | None) -> Slide:
        """The slide with what is measured of its target."""
        target, labels = read_labels(sdata, self.target, shapes.index, self.keys, among)
        measured = np.zeros(len(self), dtype=bool) if labels is None else np.isfinite(labels).all(axis=1)
        return replace(self, target=target, labels=labels, measured=measured)

    def _with_table(
        self, table: AnnData, shapes: GeoDataFrame, layer: str | None, patient_key: str, among: np.ndarray | None
    ) -> Slide:
        """The slide with the counts, names and individual that a table gives, of rows `among` if said."""
        shapes_key, table_key = self.keys["shapes_key"], self.keys["table_key"]
        rows, where = read.rows_of(table, shapes.index, shapes_key, table_key, among)
        counts = self._counts(table, rows, where, layer)
        names = self.names.copy()
        names[where] = table.obs_names.to_numpy()[rows]
        if patient_key not in table.obs and patient_key != "patient":
            raise MissingKey(f"no '{patient_key}' in obs of table '{table_key}'; it has {listed(table.obs)}.")
        group = constant(table.obs[patient_key].iloc[rows], patient_key) if patient_key in table.obs else self.group
        measured = self.measured if counts is None else counts.depth > 0  # without counts, no expression in any unit
        if self.target.is_genes:
            warn_of_empty(len(rows) - int(measured.sum()), len(rows), self.section)
        array = array_of(table, rows, where, len(self))
        var_names, ids = names_of_genes(table, self.keys["gene_symbols"], table_key) if counts else ((), ())
        known = {"counts": counts, "measured": measured, "names": names, "group": group, "array": array}
        slide = replace(self, **known, var_names=var_names, gene_ids=ids)
        slide.recall(table, rows, where)
        return slide

    def _counts(self, table: AnnData, rows: np.ndarray, where: np.ndarray, layer: str | None) -> Counts | None:
        """The counts of a table; another target than genes needs none, and then depth is not known."""
        if not self.target.is_genes and (table.n_vars == 0 or (layer is None and table.X is None)):
            return None
        try:
            return read_counts(table, rows, where, len(self), layer, self.keys["table_key"])
        except BadInput as error:
            if self.target.is_genes:
                raise
            warn_of_no_depth(error, self.target.where)
            return None

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
        return np.where(self.measured & (self.counts.depth > 0), self.counts.depth, np.nan)

    @property
    def ids_by_name(self) -> dict[str, str]:
        """Id of every gene, where the table has ids beside names."""
        return dict(zip(self.var_names, self.gene_ids, strict=False))

    def rows_in(self, table: AnnData, table_key: str, among: np.ndarray | None = None):
        """Rows of a table, or those of `among`, that annotate this section's shapes, and the row here of each."""
        return read.rows_of(table, Index(self.instances), self.keys["shapes_key"], table_key, among)

    def which(self, genes: Sequence[str]) -> list[int]:
        """Numbers of those of some genes that the section has, by name or by id."""
        if not self.target.is_genes:
            if self.labels is None:  # the names are then those of a fitted model
                return []
            every = self.target.link == "softmax"  # of a class that it lacks: 0
            return [number for number, name in enumerate(genes) if every or name in self.target.names]
        known = columns_by_name(self.var_names, self.gene_ids)
        return [number for number, gene in enumerate(genes) if column_of(gene, known) is not None]

    def with_genes(self, genes: Sequence[str], unit: str = LOG1P_CP10K) -> Slide:
        """The slide with `expression` of these genes, in this unit; NaN in rows that were not measured.

        Of another target, with these of its columns.
        """
        if not self.target.is_genes:
            values = columns_of(genes, self.target, self.labels, f"section '{self.section}'")
            measured = self.measured & np.isfinite(values).all(axis=1)
            return replace(self, genes=tuple(genes), unit=unit, expression=values, measured=measured)
        if self.counts is None:
            raise BadInput(
                f"section '{self.section}' has no counts (shapes '{self.keys['shapes_key']}', table "
                f"'{self.keys['table_key']}'); a model can be fitted only where expression was measured."
            )
        columns = columns_for(genes, self.var_names, f"section '{self.section}'", self.gene_ids)
        expression = to_unit(self.counts.columns(columns), np.nan_to_num(self.depth), unit)
        expression[~self.measured] = np.nan
        return replace(self, genes=tuple(genes), unit=unit, expression=expression)

    def take(self, rows: np.ndarray) -> Slide:
        """The slide with only these rows; features are shared with the whole, and scaled as the whole is."""
        rows = np.arange(len(self))[rows]
        per_row = ("centers_px", "size_um", "names", "instances", "measured", "array", "expression", "labels")
        parts = {name: getattr(self, name)[rows] for name in per_row if getattr(self, name) is not None}
        parts["counts"] = None if self.counts is None else self.counts.take(rows)
        return replace(self, **parts, **unseen(), _parent=(self, rows), anchor=self.anchor or self)

    def seen_alone(self) -> Slide:
        """The slide for another process that predicts: without counts, targets, features and journal."""
        gone = {"counts": None, "expression": None, "anchor": None, "journal": None, "scratch": None}
        return replace(self, **gone, **unseen(), var_names=(), gene_ids=(), _parent=None)

    def at(self, resolution: float | None, done: dict[int, Slide] | None = None) -> Slide:
        """The slide as one that shows nothing finer than this, in µm per pixel; None: whatever its image shows.

        Training and target are to be read at one resolution: :func:`sq_imputer.tl.predict` sees to it.

        Parameters
        ----------
        resolution
            µm per pixel.
        done
            Slides by the `id` of what they were made of: the same slide is made once, and keeps its features.
        """
        done = {} if done is None else done
        if resolution == self.frame.resolution:
            return self
        if id(self) not in done:
            parent = None if self._parent is None else (self._parent[0].at(resolution, done), self._parent[1])
            anchor = None if self.anchor is None else self.anchor.at(resolution, done)
            parts = {"frame": replace(self.frame, resolution=resolution), "_parent": parent, "anchor": anchor}
            known = unseen() | {"_stored": dict(self._stored)}
            done[id(self)] = replace(self, **parts, **known, made_by={})
        return done[id(self)]

    def with_encoders(self, shelf: Shelf) -> Slide:
        """The slide read by these encoders; of a part, the whole that it shares features with as well."""
        parent = self._parent and (self._parent[0].with_encoders(shelf), self._parent[1])
        return replace(self, encoders=shelf, _parent=parent, anchor=self.anchor and self.anchor.with_encoders(shelf))

    def crops(self, spec: CropSpec, *, threads: int = 2) -> Crops:
        """Crops around every row. Lazy, but for a few pixels that tell where odd pyramid levels lie."""
        return self.frame.crops(self.centers_px, spec, threads=threads, names=self.names)


def _shapes_of(
    sdata: SpatialData, shapes_key: str, table_key: str | None, section_key: str | None, section: str
) -> tuple[GeoDataFrame, np.ndarray | None]:
    """The shapes of a section, and its rows of the table, if a column says which those are."""
    shapes = read.outlines(sdata, shapes_key)
    if section_key is None:
        return shapes, None
    table = read.find_table(sdata, table_key, shapes_key)
    rows = read.rows_of_section(table, table_key, shapes_key, section_key, section)
    return shapes.loc[read.instances_of(table, rows, table_key)], rows
