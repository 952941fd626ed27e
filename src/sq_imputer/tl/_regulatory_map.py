from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.genes.stretches import Place, kept, rows_of
from sq_imputer.progress import quiet
from sq_imputer.runs import regulation
from sq_imputer.section.keys import verb
from sq_imputer.store import write
from sq_imputer.store.provenance import plain
from sq_imputer.tl._sequence_prior import check_windows

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.genes.windows import GeneWindows
    from sq_imputer.predictor.base import Predictor

NUMBERS = ("mask", "mask_std", "dna", "signal")
SOURCES = ("mask", "std", "dna", "signal")  # what the model calls them


@verb
def regulatory_map(
    sdata: SpatialData,
    windows: GeneWindows,
    model: str | Path | Predictor,
    *,
    genes: Sequence[str] | str | None = None,
    share: float = 0.1,
    merge_bp: int = 10,
    least_bp: int = 6,
    key_added: str = "regulatory_map",
    overwrite: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> DataFrame:
    """List the stretches of DNA that a model reads the expression of genes from, and keep them as a table.

    Of every window these are the bases with the highest masks, a share of all that are allowed; gaps are closed.
    A mask says what the model kept, which is a hypothesis, not what regulates the gene: :func:`sq_imputer.tl.in_silico`
    asks what each stretch does to the prediction, beside random stretches of the same length.

    Parameters
    ----------
    sdata
        The object, of which `tables[key_added]` is written, in the store as well if it is backed.
    windows
        DNA of the genes.
    model
        A fitted model with masks, or a folder written by `save`.
    genes
        Which genes; all windows if left out.
    share
        Share of the bases of a window that is kept, between 0 and 1.
    merge_bp
        Stretches that lie no farther apart than this are one.
    least_bp
        Shorter stretches are left out.
    key_added
        Name of the table.
    overwrite
        Replace a table of this name.
    device
        Where to run.
    progress
        Whether a bar is shown.

    Returns
    -------
    A row per stretch: gene, chrom, start, end (counted from 0, the end is not in it; of sequences at hand places in the
    sequence), strand of the gene, tss, promoter (whether it has bases of the middle, which the model always reads), and
    means over its bases: mask, mask_std, signal (the mask that the tracks would give, were the sequence everywhere as
    in the mean of the window) and dna (what the sequence adds to that, or takes). :func:`sq_imputer.genes.write_bed`
    and :func:`sq_imputer.genes.write_bedgraph` write it for genome browsers.

    Raises
    ------
    MissingKey
        If a gene has no window.
    BadInput
        If the model has no masks, is not fitted, or the name is taken.

    Notes
    -----
    The table has a row per stretch, `X` its four numbers, and the other columns in `obs`. It annotates no shapes.

    Examples
    --------
    >>> dna = sqi.get_model("seq2exp")(small_dna).fit(windows.by_chromosome())
    >>> stretches = sqi.tl.regulatory_map(sdata, windows, dna, genes=list(windows.names[:3]))
    """
    check_windows(windows)
    check_number("share", share)
    if not 0 < share < 1:
        raise BadInput(f"share is {share}; expected a share of the bases, between 0 and 1.")
    check_number("merge_bp", merge_bp, 0, whole=True)
    check_number("least_bp", least_bp, 1, whole=True)
    predictor, rows = regulation.with_masks(model), rows_of(windows, genes)
    write.check_free(sdata, "tables", key_added, overwrite)
    found = []
    with quiet(not progress):
        for row, parts in regulation.masks(predictor, windows, rows, device):
            spans = kept(parts["mask"], parts["allowed"], share, merge_bp, least_bp)
            found += [_stretch(windows, row, parts, span, predictor) for span in spans]
    if not found:
        raise BadInput(f"no stretch of {least_bp} bases or more is kept of {len(rows)} windows. Lower least_bp.")
    table = _table(found, windows, predictor, {"share": share, "merge_bp": merge_bp, "least_bp": least_bp}, key_added)
    write.write_element(sdata, "tables", key_added, table, overwrite=overwrite)
    return frame_of(table)


def frame_of(table: AnnData) -> DataFrame:
    """The table of stretches as one frame."""
    frame = table.obs.copy()
    for column in frame:
        if frame[column].dtype == "category":
            frame[column] = frame[column].astype(object)
    for k, name in enumerate(table.var_names):
        frame[name] = np.asarray(table.X[:, k], dtype=np.float32)
    return frame.reset_index(drop=True)


def _stretch(windows: GeneWindows, row: int, parts: dict, span: tuple[int, int], predictor: Predictor) -> dict:
    first, last = span
    length, middle = predictor.config.length, predictor.config.promoter
    place = Place.of(windows, row, length)
    start, end = place.outside(first, last)
    tss = place.outside(length // 2, length // 2 + 1)[0]
    promoter = last > (length - middle) // 2 and first < (length - middle) // 2 + middle
    about = {"gene": str(windows.names[row]), "chrom": place.chrom, "start": start, "end": end}
    means = {name: float(parts[old][first:last].mean()) for name, old in zip(NUMBERS, SOURCES, strict=True)}
    return {**about, "strand": place.strand, "tss": tss, "promoter": bool(promoter), **means}


def _table(found: list[dict], windows: GeneWindows, predictor: Predictor, settings: dict, key: str) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    frame = pd.DataFrame(found).sort_values(["gene", "start"], kind="stable", ignore_index=True)
    about = frame.drop(columns=list(NUMBERS)).set_axis(frame.index.astype(str), axis=0)
    x = np.array(frame[list(NUMBERS)], dtype=np.float32)  # a copy: what pandas 3 gives away may not be written to
    table = AnnData(X=x, obs=about, var=pd.DataFrame(index=list(NUMBERS)))
    record = {"model": predictor.card.name, "sha256": predictor.sha256, "windows": windows.provenance, **settings}
    table.uns["sq_imputer"] = {key: plain(record)}
    return table
