"""The reference spots of a prediction by retrieval: whose they may be, and one numbering for several models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.errors import BadInput, listed

if TYPE_CHECKING:
    from sq_imputer.section.slide import Slide

BANK = ("section", "patient", "spot", "x_um", "y_um")  # what is known of a reference spot


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
            "by patient_key=, a column of obs, or by sdata.attrs['patient'] where obs has no column 'patient'."
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
