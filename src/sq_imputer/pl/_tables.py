"""The predictions of a table: which model's, and of which genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.runs.joined import restore
from sq_imputer.section.read import check_object

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def find_table(sdata: SpatialData, key: str, genes: Sequence[str] | None) -> AnnData:
    """The table, which has these genes, if any are named."""
    check_object(sdata)
    if key not in sdata.tables:
        raise MissingKey(f"no table '{key}'; sdata has {listed(sdata.tables)}. Run tl.predict, or pass key=.")
    restore(sdata, key)
    table = sdata.tables[key]
    if not table.var_names.is_unique:
        twice = table.var_names[table.var_names.duplicated()].unique()
        raise BadInput(f"table '{key}' has duplicate genes: {listed(twice)}. Call .var_names_make_unique() on it.")
    lost = [gene for gene in genes or () if gene not in table.var_names]
    if lost or (genes is not None and not len(genes)):
        raise MissingKey(f"no gene {listed(lost)} in table '{key}'; it has {listed(table.var_names)}. Pass genes=.")
    return table


def find_layer(table: AnnData, key: str, layer: str | None, genes: Sequence[str]) -> str:
    """The layer as given, else the only model's, else the one that X is a copy of."""
    if layer is not None:
        if layer not in table.layers:
            raise MissingKey(f"no layer '{layer}' in table '{key}'; it has {listed(table.layers)}. Pass layer=.")
        return layer
    models = [name for name in table.uns.get("sq_imputer", {}) if name in table.layers]
    if len(models) > 1 and table.X is not None:
        last = columns_of(table, None, genes)
        models = [name for name in models if np.array_equal(columns_of(table, name, genes), last, equal_nan=True)]
    if len(models) != 1:
        raise MissingKey(
            f"table '{key}' does not say which prediction is its last; layers: {listed(table.layers)}. Pass layer=."
        )
    return models[0]


def columns_of(table: AnnData, layer: str | None, genes: Sequence[str]) -> np.ndarray:
    """The values of some genes, of a layer or of X, as a dense array."""
    columns = table.var_names.get_indexer(list(genes))
    values = (table.X if layer is None else table.layers[layer])[:, columns]
    values = values.compute() if hasattr(values, "compute") else values  # a streamed layer is lazy
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=float)
