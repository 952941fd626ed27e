from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.errors import BadInput, MissingKey, listed, named
from sq_imputer.tl._sections import check_table, records

if TYPE_CHECKING:
    from pandas import DataFrame, Index
    from spatialdata import SpatialData

    from sq_imputer.data.slide import Slide

BANK = ("section", "patient", "spot", "x_um", "y_um")  # what is known of a reference spot


def retrieved(
    sdata: SpatialData,
    spots: Sequence[str] | str | None = None,
    *,
    layer: str = "mclstexp",
    key_added: str = "imputed",
) -> DataFrame:
    """Which reference spots a prediction was made of, for models that retrieve: its explanation.

    Parameters
    ----------
    sdata
        An object that :func:`sq_imputer.tl.predict` wrote to; it is not changed.
    spots
        Names of predicted rows (`tables[key_added].obs_names`); all if left out.
    layer
        Name of the prediction.
    key_added
        The table that `tl.predict` wrote.

    Returns
    -------
    One row per spot and neighbor, spots in the order asked for, neighbors nearest first: spot, rank (from 1), weight
    (those of a spot sum to 1), and of the neighbor section, patient, reference_spot, x_um, y_um (in the µm of its own
    section). The provenance says where they were looked for: `uns["sq_imputer"][layer]["bank_from"]`.

    Raises
    ------
    MissingKey
        If there is no such table, prediction or spot, or the prediction was not made by retrieval.
    """
    import pandas as pd

    bank = _bank(sdata, layer, key_added)
    table = sdata.tables[key_added]
    rows = _rows(table.obs_names, spots, key_added)
    neighbors, weights = (np.asarray(table.obsm[f"{layer}_{slot}"])[rows] for slot in ("neighbors", "neighbor_weights"))
    row, rank = np.nonzero(neighbors >= 0)
    found = pd.DataFrame(bank)[list(BANK)].rename(columns={"spot": "reference_spot"})
    found = found.iloc[neighbors[row, rank]].reset_index(drop=True)
    found.insert(0, "spot", table.obs_names.to_numpy()[rows[row]])
    found.insert(1, "rank", rank + 1)
    found.insert(2, "weight", weights[row, rank])
    return found


def _bank(sdata: SpatialData, layer: str, key: str) -> dict[str, list]:
    """The reference spots that the neighbors of a prediction count."""
    found = records(check_table(sdata, key, "key_added"))
    if layer not in found:
        raise MissingKey(f"no prediction '{layer}' in tables['{key}']; it has {listed(found)}. Pass layer=.")
    made = [name for name, record in found.items() if "bank" in record]
    if layer not in made:
        raise MissingKey(
            f"'{layer}' in tables['{key}'] was not made by retrieval (its model is '{found[layer]['model']}'), so no "
            f"reference spots are known of it; those that were: {listed(made)}. Pass layer=."
        )
    return found[layer]["bank"]


def _rows(names: Index, spots: Sequence[str] | str | None, key: str) -> np.ndarray:
    """Rows of the table that have these names."""
    if spots is None:
        return np.arange(len(names))
    spots = named("spots", spots)
    rows = names.get_indexer(spots)
    absent = [spot for spot, row in zip(spots, rows, strict=True) if row < 0]
    if absent:
        raise MissingKey(
            f"{len(absent)} of {len(spots)} spots are not in tables['{key}']: {listed(absent)}; it has {listed(names)}."
        )
    return rows


def check_patient(target: Slide, model: str, groups: Sequence[str], sections: Sequence[str]) -> None:
    """Refuse a bank that has the patient to be predicted.

    Parameters
    ----------
    target
        What is to be predicted.
    model
        Name of the model.
    groups, sections
        Patients and names of its training sections.

    Raises
    ------
    BadInput
        If the patient is among them.
    """
    theirs = [section for section, group in zip(sections, groups, strict=True) if group == target.group]
    if theirs:
        raise BadInput(
            f"'{model}' makes a prediction of reference spots, and these have patient '{target.group}' of section "
            f"'{target.section}' among them: sections {listed(theirs)}. Leave these out of the reference; or pass "
            "allow_same_patient=True, which the provenance then says; or, if they are of other individuals, name these "
            "by patient_key= or sdata.attrs['patient']."
        )


def pool(predictions: Sequence[Prediction], banks: Sequence[Mapping]) -> tuple[list[Prediction], dict[str, np.ndarray]]:
    """Number the neighbors of several predictions, each of which counts its own bank, by one table.

    Models may differ in the number of neighbors; lists are filled up to the longest with -1 of weight 0.

    Parameters
    ----------
    predictions
        One per model.
    banks
        The bank of each, as `Predictor.bank` gives it.

    Returns
    -------
    The predictions with neighbors renumbered, and the table: each reference spot that was retrieved, once.
    """
    import pandas as pd
    import torch

    used = [np.unique(prediction.neighbors[prediction.neighbors >= 0].numpy()) for prediction in predictions]
    parts = [{name: np.asarray(bank[name])[rows] for name in BANK} for bank, rows in zip(banks, used, strict=True)]
    every = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in BANK})
    place = every.groupby(list(BANK), sort=False, dropna=False).ngroup().to_numpy()
    renumbered, start, width = [], 0, max(prediction.neighbors.shape[1] for prediction in predictions)
    for prediction, rows in zip(predictions, used, strict=True):
        old = prediction.neighbors.numpy()
        row, rank = np.nonzero(old >= 0)
        new = np.full((len(old), width), -1, dtype=np.int64)
        new[row, rank] = place[start + np.searchsorted(rows, old[row, rank])]
        weights = torch.nn.functional.pad(prediction.weights, (0, width - old.shape[1]))
        renumbered.append(replace(prediction, neighbors=torch.from_numpy(new), weights=weights))
        start += len(rows)
    once = every.drop_duplicates()
    return renumbered, {name: once[name].to_numpy() for name in BANK}
