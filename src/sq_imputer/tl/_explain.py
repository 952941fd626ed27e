from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, MissingKey, check_number, listed, named
from sq_imputer.runs.sections import resolve_model, shelf_of
from sq_imputer.runs.views import elements_of
from sq_imputer.section import read
from sq_imputer.section.anchors import anchored
from sq_imputer.section.image import spots_of
from sq_imputer.section.keys import verb
from sq_imputer.section.mosaic import Mosaic, as_element, check_mpp
from sq_imputer.section.regions import slides_of
from sq_imputer.section.resolution import fitting, for_model, read_at
from sq_imputer.section.slide import Slide
from sq_imputer.store import write
from sq_imputer.tl._explained import Work

if TYPE_CHECKING:
    from typing import Unpack

    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.encoders._shelf import Weights
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.keys import SlideKeys

GROUPS = "feature_groups"


@verb
def explain(
    sdata: SpatialData,
    genes: str | Sequence[str],
    *,
    model: str | Path | Predictor,
    method: str = "occlusion",
    sections: str | Mapping | None = None,
    spots: Sequence[str] | None = None,
    mpp: float | None = None,
    grid: int = 8,
    baseline: str = "tissue",
    weights: Weights | None = None,
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
    sections
        The sections of an object that has several, as :func:`sq_imputer.tl.predict` takes them. Each has an image and a
        table of its own, with the section's name, or its number where that cannot be a name, behind `key_added`.
    spots
        Names of the spots whose crops are explained, of several sections those that have them; all if left out.
    mpp
        µm per pixel of the image; that of the crop if left out, or a quarter of a cell for occlusion.
    grid
        Cells along a crop: of an occlusion, and of the tests.
    baseline
        What tissue is compared with: `"tissue"`, the mean color of the tissue in the crops, or `"glass"`.
    weights
        Weights of the model's encoders, as in :func:`sq_imputer.tl.fit`; they must be those of its fit.
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
    Of several sections, one below the other, and tests by section. For `"feature_groups"`: the mean absolute
    contribution of every group; those of a spot are in `obsm[gene]`, or under the name that the record lists in `obsm`
    for a gene whose own cannot be one (`CCL3/L1/L3`).

    Raises
    ------
    MissingKey
        If a gene, a spot or a key is missing.
    BadInput
        If the method does not explain the model, names are taken, or the model is not fitted.

    Examples
    --------
    >>> found = sqi.tl.explain(sdata, "NUC1", model=model, spots=spots[:2], shapes_key="spots")
    """
    from sq_imputer import explain as maps

    read.check_object(sdata)
    predictor = resolve_model(model).to(pick_device(device))
    genes = named("genes", genes)
    shelf = shelf_of(predictor, weights)
    maps.Sight.of(predictor, genes, encoder_of=shelf.get)
    _check_arguments(predictor.needs.crop, method, mpp, grid, seed, batch_size, baseline)
    slides = [Slide.from_sdata(sdata, **keys)] if sections is None else [*slides_of(sdata, sections, keys).values()]
    predictor = fitting(predictor, slides)
    slides = read_at(slides, for_model(slides, predictor.needs, predictor.provenance))
    slides = [anchored(slide.with_encoders(shelf), sdata) for slide in slides]
    parts = [(slide, rows) for slide in slides if len(rows := _rows(slide, spots, slides))]
    names = [key_added] if sections is None else elements_of(key_added, [slide.section for slide, _ in parts])
    for name in names:
        write.check_free(sdata, "images", name, overwrite)
        write.check_free(sdata, "tables", spots_of(name), overwrite)
    maps.check_method(predictor, method, (*maps.MAPS, GROUPS))  # which asks the model about a gray crop
    work = partial(Work, predictor, genes=genes, method=method, grid=grid, baseline=baseline, seed=seed)
    found = {}
    for name, (slide, rows) in zip(names, parts, strict=True):
        put = {"name": name, "of": key_added, "overwrite": overwrite}
        if method == GROUPS:
            found[slide.section] = _by_group(sdata, predictor, slide, genes, rows, **put)
        else:
            found[slide.section] = _by_map(sdata, work(slide, rows=rows, batch_size=batch_size), mpp, **put)
    return next(iter(found.values())) if sections is None else _below(found)


def _by_map(sdata: SpatialData, work: Work, mpp: float | None, name: str, of: str, overwrite: bool) -> DataFrame:
    """Maps of one section as an image, and its spots as a table; the mean in every structure."""
    slide = work.slide
    with tempfile.TemporaryDirectory(prefix=".explain.", dir=_beside(sdata)) as folder:
        spool, summaries = work.run(Path(folder, "maps"))
        mosaic = Mosaic(spool, slide.xy_um[work.rows], work.crop.extent_um, work.mpp if mpp is None else mpp)
        image = as_element(mosaic, sdata, slide.keys["image_key"], slide.frame, work.genes)
        found, tests = work.structures(spool), work.tests(spool)
        if not sdata.is_backed():
            image = image.persist()  # while the file is there
        table = work.table(summaries, name, {**work.record(mosaic), "of": of, "tests": tests, "structures": found})
        write.write_element(sdata, "images", name, image, overwrite=overwrite)
    write.write_element(sdata, "tables", spots_of(name), table, overwrite=overwrite)
    found.attrs["faithfulness"] = tests.to_dict("index")
    return found


def _below(found: Mapping[str, DataFrame]) -> DataFrame:
    """What was found of several sections, below each other; tests by section."""
    import pandas as pd

    tests = {name: one.attrs.pop("faithfulness", None) for name, one in found.items()}
    whole = pd.concat(found, names=["section"])
    whole.attrs["faithfulness"] = tests
    return whole


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
    sdata: SpatialData,
    predictor: Predictor,
    slide: Slide,
    genes: list[str],
    rows: np.ndarray,
    name: str,
    of: str,
    overwrite: bool,
) -> DataFrame:
    """What groups of features add to the prediction of every spot, beyond the mean of the training rows."""
    import pandas as pd
    import torch

    from sq_imputer.explain import feature_groups

    seen = torch.cat([batch.features for batch in predictor.seen(slide, 256, rows=rows)])
    parts, groups = feature_groups(predictor, seen.to(predictor.weight.device), genes)
    parts, names = parts.cpu().numpy(), [f"{kind}, {extent:g} um" for extent, kind in groups]
    record = {"model": predictor.card.name, "method": GROUPS, "genes": genes, "groups": names, **slide.keys}
    keys = _obsm_keys(genes)
    record |= {"section": slide.section, "of": of, "obsm": keys}
    record |= {"weights_sha256": predictor.sha256, "unit": predictor.unit, "config": predictor.config}
    table = write.new_table(
        parts.sum(axis=1),
        slide.names[rows].astype(str),
        genes,
        region=slide.keys["shapes_key"],
        instance_key="instance_id",
        instances=slide.instances[rows],
        obsm={one: parts[:, :, k] for k, one in enumerate(keys)} | {"spatial": slide.xy_um[rows]},
        uns={"sq_imputer": {name: record}},
    )
    write.write_element(sdata, "tables", spots_of(name), table, overwrite=overwrite)
    return pd.DataFrame(np.abs(parts).mean(axis=0), index=pd.Index(names, name="group"), columns=genes)


def _obsm_keys(genes: Sequence[str]) -> list[str]:
    """Names in `obsm`: the gene's own where that can be a name in a store, else its number among the genes."""
    low = [gene.lower() for gene in genes]
    own = [write.is_word(gene, "spatial") and low.count(gene.lower()) == 1 for gene in genes]
    own = [one and not gene.lower().startswith(GROUPS) for one, gene in zip(own, genes, strict=True)]
    return [gene if one else f"{GROUPS}_{k}" for k, (gene, one) in enumerate(zip(genes, own, strict=True))]


def _beside(sdata: SpatialData) -> Path | None:
    """A folder on the disk of the store, which has room for what is about to be written there."""
    return Path(sdata.path).parent if sdata.is_backed() else None


def _rows(slide: Slide, spots: Sequence[str] | None, slides: Sequence[Slide]) -> np.ndarray:
    """Rows of a section that have these names, which one of the sections must have."""
    if spots is None:
        return np.arange(len(slide))
    spots = named("spots", spots)
    known = dict.fromkeys(name for one in slides for name in one.names.astype(str))
    absent = [spot for spot in spots if spot not in known]
    if absent or not spots:
        where = listed(one.section for one in slides)
        raise MissingKey(f"no spot {listed(absent)} in section {where}; it has {listed(known)}. Pass spots=.")
    return np.flatnonzero(np.isin(slide.names.astype(str), spots))
