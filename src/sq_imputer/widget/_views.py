"""One prediction as it is looked at: the rows that it is of, read once, and the panels of one gene after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import MissingKey, listed
from sq_imputer.pl._compared import BY_FOLD, SPREAD, Panel, value_panels
from sq_imputer.pl._tables import columns_of, find_layer, find_table
from sq_imputer.pl._values import folded, units_of
from sq_imputer.runs.sections import records
from sq_imputer.section import read

if TYPE_CHECKING:
    from spatialdata import SpatialData


class Views:
    """A layer of a table of predictions.

    Parameters
    ----------
    sdata
        The object; it is read only.
    key
        The table.
    layer
        The prediction; the last that was written if left out.
    shapes_key
        Shapes that it is of; needed if the table is of several.

    Raises
    ------
    MissingKey
        If there is no such table, layer or element.
    """

    def __init__(self, sdata: SpatialData, key: str, layer: str | None = None, shapes_key: str | None = None) -> None:
        table = find_table(sdata, key, None)
        self.key, self.table = key, table
        self.layer = find_layer(table, key, layer, list(table.var_names[:1]))
        self.shapes_key = read.find_shapes(sdata, shapes_key, key)
        made = records(table).get(self.layer, {})
        self.units = units_of(made)
        self.spread = BY_FOLD.replace("\n", " ") if folded(made) else SPREAD  # as pl.compare says it, on one line
        region_key, instance_key = (table.uns["spatialdata_attrs"][one] for one in ("region_key", "instance_key"))
        self.rows = np.flatnonzero((table.obs[region_key].astype(str) == self.shapes_key).to_numpy())
        self.instances = table.obs[instance_key].to_numpy()[self.rows]

    def is_of(self, sdata: SpatialData) -> bool:
        """Whether the table is still the one of the object: a prediction that is written anew is another."""
        return sdata.tables.get(self.key) is self.table

    @property
    def genes(self) -> list[str]:
        """Names of the columns."""
        return list(map(str, self.table.var_names))

    def panels(self, gene: str) -> dict[str, Panel]:
        """Measured, predicted, residual and standard deviation of a gene, colored as `pl.compare` does.

        Measured and predicted share their limits; what is not there is left out.
        """
        if gene not in self.table.var_names:
            raise MissingKey(f"no gene '{gene}' in table '{self.key}'; it has {listed(self.table.var_names)}.")
        names = [name if name in self.table.layers else None for name in ("measured", self.layer, f"{self.layer}_std")]
        parts = [None if name is None else columns_of(self.table, name, [gene])[self.rows, 0] for name in names]
        if parts[0] is not None and not np.isfinite(parts[0]).any():
            parts[0] = None
        return {panel.title: panel for panel in value_panels(*parts, units=self.units, spread=self.spread)}
