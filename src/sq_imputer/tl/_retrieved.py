from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, listed, named
from sq_imputer.runs.retrieved import BANK
from sq_imputer.runs.sections import check_table, records
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from pandas import DataFrame, Index
    from spatialdata import SpatialData


@verb
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

    Examples
    --------
    >>> sqi.tl.predict(sdata, "mclstexp", reference=sections, genes=list(model.genes), shapes_key="spots")
    >>> found = sqi.tl.retrieved(sdata, spots[:2])
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
