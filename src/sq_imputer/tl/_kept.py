"""Scores are kept in `var` of the table that they are of."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sq_imputer.errors import StoreError
from sq_imputer.scores import smoothness
from sq_imputer.store import write

if TYPE_CHECKING:
    from pandas import DataFrame
    from spatialdata import SpatialData


def keep(sdata: SpatialData, key: str, scores: DataFrame, models: Sequence[str]) -> None:
    """Put the models' scores into `var`."""
    import pandas as pd

    table = sdata.tables[key]
    var = pd.DataFrame(index=table.var_names)
    for name in models:
        mine = scores[scores["predictor"] == name].set_index("gene")
        for metric in [one for one in ("pearson", "pearson_given_depth", "auroc") if one in mine]:
            var[f"{name}_{metric}"] = mine[metric].reindex(table.var_names)
        for column in [name for name in (*smoothness.COLUMNS, "ceiling") if name in mine]:
            var[column] = mine[column].reindex(table.var_names)
    try:
        write.put_layers(sdata, key, {}, var=var)
    except StoreError as error:  # the scores are what was asked for
        reason = str(error).split(". ")[0]
        warnings.warn(f"scores are returned, but not kept in var: {reason}.", UserWarning, stacklevel=4)
