from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.genes.stretches import Place, rows_of
from sq_imputer.progress import track
from sq_imputer.runs import regulation
from sq_imputer.runs.regulation import Edit
from sq_imputer.section.keys import verb
from sq_imputer.store import write
from sq_imputer.tl._regulatory_map import frame_of
from sq_imputer.tl._sequence_prior import check_windows

if TYPE_CHECKING:
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.genes.windows import GeneWindows
    from sq_imputer.predictor.base import Predictor

EFFECTS = ("effect", "control", "control_std", "p")


@verb
def in_silico(
    sdata: SpatialData,
    windows: GeneWindows,
    model: str | Path | Predictor,
    *,
    edits: DataFrame | None = None,
    key: str = "regulatory_map",
    n_controls: int = 50,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> DataFrame:
    """Change stretches of DNA, or of what is measured along it, and ask how the prediction changes.

    Every change is compared with the same one at random places of the window, of the same length, outside of the
    stretch and of the middle, which the model always reads: any change of so many bases does something.

    Parameters
    ----------
    sdata
        The object. Where `edits` are left out, `tables[key].obs` gets what knocking out each of its stretches does.
    windows
        DNA of the genes.
    model
        A fitted model with masks, or a folder written by `save`.
    edits
        A row per change: gene, start and end as :func:`sq_imputer.tl.regulatory_map` has them, and motif, letters (of
        the strand that the windows are of) that are put there from `start` on; or track and value, a track that is set
        to it. A row with neither is knocked out: its bases are unknown, and no mask keeps them. Left out: every stretch
        of the map is knocked out.
    key
        Table that :func:`sq_imputer.tl.regulatory_map` wrote.
    n_controls
        Random places.
    seed
        Of these.
    device
        Where to run.
    progress
        Whether a bar is shown.

    Returns
    -------
    The edits with, for every context, a row each: context, effect (prediction with the change, less that without it, in
    the unit of the fit), control and control_std, mean and standard deviation of the effects at random places, and p,
    the share of these (one added to both) that are as large, whatever their sign. NaN where there is no room for any.

    Raises
    ------
    MissingKey
        If there is no map, a gene has no window, or there is no such track.
    BadInput
        If a change lies outside of its window, or is of letters that are none.

    Examples
    --------
    >>> effects = sqi.tl.in_silico(sdata, windows, dna, n_controls=5)
    """
    check_windows(windows)
    check_number("n_controls", n_controls, 1, whole=True)
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    predictor = regulation.with_masks(model)
    asked = _stretches(sdata, key) if edits is None else _checked(edits)
    work = _by_gene(asked, windows, predictor)
    rng, found = np.random.default_rng(seed), []
    for row, changes in track(work.items(), "in silico", len(work), shown=progress):
        found += list(_effects(predictor, windows, row, changes, n_controls, rng, device))
    table = _told(asked, found, predictor)
    if edits is None:
        _write(sdata, key, table, predictor)
    return table


def _stretches(sdata: SpatialData, key: str) -> DataFrame:
    if key not in sdata.tables or not {"gene", "start", "end", "tss"} <= set(sdata.tables[key].obs):
        raise MissingKey(
            f"no regulatory map in tables['{key}']; sdata has {listed(sdata.tables)}. Call tl.regulatory_map first, "
            "pass key=, or pass edits=."
        )
    return frame_of(sdata.tables[key])


def _checked(edits: DataFrame) -> DataFrame:
    if not hasattr(edits, "iterrows"):
        raise BadInput(f"edits is a {type(edits).__name__}; expected a table with columns gene, start and end.")
    missing = [name for name in ("gene", "start") if name not in edits]
    if missing or not ("end" in edits or "motif" in edits) or not len(edits):
        raise MissingKey(f"edits has the columns {listed(edits.columns, 12)}; expected gene, start, and end or motif.")
    return edits.reset_index(drop=True)


def _by_gene(asked: DataFrame, windows: GeneWindows, predictor: Predictor) -> dict[int, list[tuple[int, Edit]]]:
    """The changes of every window, with the rows that they are asked for in."""
    rows, found = rows_of(windows, list(asked["gene"])), {}
    for k, (row, one) in enumerate(zip(rows, asked.to_dict("records"), strict=True)):
        found.setdefault(int(row), []).append((k, _edit(one, windows, int(row), predictor)))
    return found


def _edit(one: dict, windows: GeneWindows, row: int, predictor: Predictor) -> Edit:
    motif, name = (one.get(what) if isinstance(one.get(what), str) else "" for what in ("motif", "track"))
    if set(motif.upper()) - set("ACGT"):
        raise BadInput(f"motif is '{motif}'; expected letters of A, C, G and T.")
    if name and name not in windows.tracks:
        raise MissingKey(f"no track '{name}'; the windows have {listed(windows.tracks)}.")
    length, start = predictor.config.length, int(one["start"])
    end = start + len(motif) if motif else int(one["end"])
    first, last = Place.of(windows, row, length).inside(start, end)
    if not 0 <= first < last <= length:
        place = Place.of(windows, row, length)
        raise BadInput(
            f"{start:,} to {end:,} is not in the window of '{one['gene']}', {place.chrom} {place.start:,} to "
            f"{place.end:,}."
        )
    number = windows.tracks.index(name) if name else -1
    return Edit(first, last, motif.upper(), number, float(one.get("value", 0.0)) if name else 0.0)


def _effects(predictor, windows, row: int, changes, n_controls: int, rng, device: str) -> Iterator[tuple[int, dict]]:
    """For every change of a window its number, and the four numbers `(C,)`."""
    (window,) = predictor.seen(windows, 1, rows=np.array([row]))
    aside = window.allowed[0].numpy().copy()
    aside[predictor.middle] = False
    for k, edit in changes:
        free = aside.copy()
        free[edit.first : edit.last] = False
        others = regulation.elsewhere(edit, free, n_controls, rng)
        said = regulation.predictions(predictor, window, [edit, *others], device)
        effect, controls = said[1] - said[0], said[2:] - said[0]
        if not len(controls):
            yield k, {"effect": effect, **{name: np.full_like(effect, np.nan) for name in EFFECTS[1:]}}
            continue
        large = (np.abs(controls) >= np.abs(effect)).sum(axis=0)
        p = (1 + large) / (1 + len(controls))
        yield k, {"effect": effect, "control": controls.mean(axis=0), "control_std": controls.std(axis=0), "p": p}


def _told(asked: DataFrame, found: list[tuple[int, dict]], predictor: Predictor) -> DataFrame:
    import pandas as pd

    parts = []
    for k, numbers in sorted(found, key=lambda one: one[0]):
        for c, context in enumerate(predictor.genes):
            about = asked.iloc[k].to_dict() | {"context": context}
            parts.append(about | {name: float(numbers[name][c]) for name in EFFECTS})
    return pd.DataFrame(parts)


def _write(sdata: SpatialData, key: str, table: DataFrame, predictor: Predictor) -> None:
    """The effects beside the stretches; of several contexts a column each."""
    import pandas as pd

    names, columns = sdata.tables[key].obs_names, {}
    for c, context in enumerate(predictor.genes):
        own = table[table["context"] == context]
        for name in EFFECTS:
            columns[name if len(predictor.genes) == 1 else f"{name}_{c}"] = own[name].to_numpy(dtype=np.float32)
    write.put_layers(sdata, key, {}, obs=pd.DataFrame(columns, index=names))
