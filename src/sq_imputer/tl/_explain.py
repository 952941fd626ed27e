from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, MissingKey, check_number, listed, named
from sq_imputer.progress import track
from sq_imputer.runs.sections import resolve_model
from sq_imputer.section import read
from sq_imputer.section.image import spots_of
from sq_imputer.section.keys import verb
from sq_imputer.section.mosaic import Mosaic, Spool, as_element, check_mpp
from sq_imputer.section.overview import picture
from sq_imputer.section.slide import Slide
from sq_imputer.store import write
from sq_imputer.tl._structures import FINEST_UM, STRUCTURES, Palette, density, glass_below

if TYPE_CHECKING:
    from typing import Unpack

    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData
    from torch import Tensor

    from sq_imputer.explain import Sight
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.keys import SlideKeys

GROUPS = "feature_groups"
SUMMARIES = ("mean", "positive_share", "concentration")
TOP = 0.1  # share of the cells of a map whose share of its size is its concentration
TESTED, COLORED = 16, 64  # crops that faithfulness, and the colors of the section, are taken from
SORTED = 256  # crops whose pixels are sorted into structures
OVERVIEW_PX = 1000
HELD = 2**28  # bytes of crops that are read at a time


@verb
def explain(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    model: str | Path | Predictor,
    method: str = "occlusion",
    spots: Sequence[str] | None = None,
    mpp: float | None = None,
    grid: int = 8,
    baseline: str = "tissue",
    key_added: str = "explanation",
    overwrite: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    device: str = "auto",
    **keys: Unpack[SlideKeys],
) -> DataFrame:
    """Map which tissue raises and lowers the prediction of genes, and test whether the maps follow the model.

    A map compares the tissue with a flat color (`sq_imputer.explain`); its mean over a crop is the part of the
    prediction that the crop makes, in the expression unit. Maps of overlapping crops are blended into one image. On a
    backed object it is streamed to the store and stays lazy; maps wait in a temporary file beside it.

    Parameters
    ----------
    sdata
        The object. Only `images[key_added]` and `tables[key_added + "_spots"]` are written.
    genes
        Genes of the model to be explained, one or more; maps of each take a pass over a gradient, none for occlusion.
    model
        A fitted predictor, or a folder written by `save`.
    method
        `"occlusion"`, `"input_x_gradient"`, `"integrated_gradients"` or `"stains"`, as far as
        :func:`sq_imputer.explain.available` for the model. `"feature_groups"`, of a linear ridge on texture, makes no
        image: it takes the prediction of every spot apart, exactly, into groups of features of each view.
    spots
        Names of the spots whose crops are explained; all if left out.
    mpp
        µm per pixel of the image; that of the crop if left out, or a quarter of a cell for occlusion.
    grid
        Cells along a crop: of an occlusion, and of the tests.
    baseline
        What tissue is compared with: `"tissue"`, the mean color of the tissue in the crops, or `"glass"`.
    key_added
        Name of the image.
    overwrite
        Replace the image and the table of this name.
    seed
        Of the spots and orders that are drawn for the tests and the table.
    batch_size
        Crops per step.
    device
        Where to run.
    **keys
        Where to find image and shapes, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Returns
    -------
    Mean of the map in each tissue structure, one column per gene: nuclei, stroma, background, edges; NaN where there is
    none. Its `attrs["faithfulness"]` tells by gene what the tests gave (:func:`sq_imputer.explain.faithfulness`).
    For `"feature_groups"`: the mean absolute contribution of every group; those of a spot are in `obsm[gene]`, or under
    the name that the record lists in `obsm` for a gene whose own cannot be one (`CCL3/L1/L3`).

    Raises
    ------
    MissingKey
        If a gene, a spot or a key is missing.
    BadInput
        If the method does not explain the model, names are taken, or the model is not fitted.
    """
    from sq_imputer import explain as maps

    read.check_object(sdata)
    predictor = resolve_model(model).to(pick_device(device))
    genes = named("genes", genes)
    maps.Sight.of(predictor, genes)
    _check_arguments(predictor.needs.crop, method, mpp, grid, seed, batch_size, baseline)
    write.check_free(sdata, "images", key_added, overwrite)
    write.check_free(sdata, "tables", spots_of(key_added), overwrite)
    slide = Slide.from_sdata(sdata, **keys)
    rows = _rows(slide, spots)
    maps.check_method(predictor, method, (*maps.MAPS, GROUPS))  # which asks the model about a gray crop
    if method == GROUPS:
        table, found = _by_group(predictor, slide, genes, rows, key_added)
        write.write_element(sdata, "tables", spots_of(key_added), table, overwrite=overwrite)
        return found
    work = _Work(predictor, slide, genes, rows, method, grid, baseline, seed, batch_size)
    with tempfile.TemporaryDirectory(prefix=".explain.", dir=_beside(sdata)) as folder:
        spool, summaries = work.run(Path(folder, "maps"))
        mosaic = Mosaic(spool, slide.xy_um[work.rows], work.crop.extent_um, work.mpp if mpp is None else mpp)
        image = as_element(mosaic, sdata, slide.keys["image_key"], slide.frame, genes)
        found, tests = work.structures(spool), work.tests()
        if not sdata.is_backed():
            image = image.persist()  # while the file is there
        table = work.table(summaries, key_added, {**work.record(mosaic), "tests": tests, "structures": found})
        write.write_element(sdata, "images", key_added, image, overwrite=overwrite)
    write.write_element(sdata, "tables", spots_of(key_added), table, overwrite=overwrite)
    found.attrs["faithfulness"] = tests.to_dict("index")
    return found


def _check_arguments(
    crop: CropSpec, method: str, mpp: float | None, grid: int, seed: int, batch_size: int, baseline: str
) -> None:
    from sq_imputer.explain import MAPS

    for name, value, known in (("method", method, (*MAPS, GROUPS)), ("baseline", baseline, ("tissue", "glass"))):
        if value not in known:
            raise BadInput(f"{name} is {value!r}; expected one of {listed(known, 10)}.")
    if mpp is not None:
        check_mpp(mpp, crop.extent_um)
    check_number("grid", grid, 1, crop.size_px, whole=True)
    check_number("seed", seed, whole=True)
    check_number("batch_size", batch_size, 1, whole=True)


def _by_group(
    predictor: Predictor, slide: Slide, genes: list[str], rows: np.ndarray, key: str
) -> tuple[AnnData, DataFrame]:
    """What groups of features add to the prediction of every spot, beyond the mean of the training rows."""
    import pandas as pd
    import torch

    from sq_imputer.explain import feature_groups

    seen = torch.cat([batch.features for batch in predictor.seen(slide, 256, rows=rows)])
    parts, groups = feature_groups(predictor, seen.to(predictor.weight.device), genes)
    parts, names = parts.cpu().numpy(), [f"{kind}, {extent:g} um" for extent, kind in groups]
    record = {"model": predictor.card.name, "method": GROUPS, "genes": genes, "groups": names, **slide.keys}
    keys = _obsm_keys(genes)
    record |= {"obsm": keys, "weights_sha256": predictor.sha256, "unit": predictor.unit, "config": predictor.config}
    table = write.new_table(
        parts.sum(axis=1),
        slide.names[rows].astype(str),
        genes,
        region=slide.keys["shapes_key"],
        instance_key="instance_id",
        instances=slide.instances[rows],
        obsm={name: parts[:, :, k] for k, name in enumerate(keys)} | {"spatial": slide.xy_um[rows]},
        uns={"sq_imputer": {key: record}},
    )
    return table, pd.DataFrame(np.abs(parts).mean(axis=0), index=pd.Index(names, name="group"), columns=genes)


def _obsm_keys(genes: Sequence[str]) -> list[str]:
    """Names in `obsm`: the gene's own where that can be a name in a store, else its number among the genes."""
    low = [gene.lower() for gene in genes]
    own = [write.is_word(gene, "spatial") and low.count(gene.lower()) == 1 for gene in genes]
    own = [one and not gene.lower().startswith(GROUPS) for one, gene in zip(own, genes, strict=True)]
    return [gene if one else f"{GROUPS}_{k}" for k, (gene, one) in enumerate(zip(genes, own, strict=True))]


def _beside(sdata: SpatialData) -> Path | None:
    """A folder on the disk of the store, which has room for what is about to be written there."""
    return Path(sdata.path).parent if sdata.is_backed() else None


def _rows(slide: Slide, spots: Sequence[str] | None) -> np.ndarray:
    if spots is None:
        return np.arange(len(slide))
    row = {name: k for k, name in enumerate(slide.names.astype(str))}
    spots = named("spots", spots)
    absent = [spot for spot in spots if spot not in row]
    if absent or not spots:
        raise MissingKey(f"no spot {listed(absent)} in section '{slide.section}'; it has {listed(row)}. Pass spots=.")
    return np.unique([row[spot] for spot in spots])


@dataclass
class _Work:
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
        self.sight: Sight = Sight.of(self.predictor, self.genes, own)
        overview = picture(self.slide.frame, OVERVIEW_PX)[0]
        self.glass = glass_below(overview)
        self.color = self._color(overview)

    @property
    def crop(self) -> CropSpec:
        return self.predictor.needs.crop

    @property
    def side(self) -> int:
        return self.grid if self.method == "occlusion" else self.crop.size_px

    @property
    def mpp(self) -> float:
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

    def tests(self) -> DataFrame:
        """Faithfulness on some crops, one row per gene."""
        import pandas as pd
        import torch

        from sq_imputer.explain import faithfulness

        views = torch.cat([views for _, views in self.views(self.drawn(TESTED))])
        found = faithfulness(self.sight, views, self.color, self.method, grid=self.grid, seed=self.seed)
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
