"""What is compared: values of genes as measured and as predicted, row by row of one section, and where the rows lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.pl._compared import BY_FOLD, SPREAD, Look, Panel, value_panels
from sq_imputer.pl._placed import Placed
from sq_imputer.pl._tables import columns_of, find_layer, find_table

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True, eq=False)
class Values:
    """Of a layer: measured, predicted and standard deviation, each `(rows, genes)`, or None where there is none."""

    placed: Placed
    layer: str
    genes: list[str]
    measured: np.ndarray | None
    predicted: np.ndarray
    std: np.ndarray | None

    @classmethod
    def of(cls, sdata: SpatialData, key: str, layer: str | None, section: str | None, genes: Sequence[str]) -> Values:
        """Of one section of a table.

        Raises
        ------
        MissingKey
            If the table, the layer, a gene or the section is missing, or several models or sections could be meant.
        """
        from sq_imputer.runs.views import section_of

        find_table(sdata, key, genes)
        sdata = section_of(sdata, key, section)
        table = sdata.tables[key]
        layer = find_layer(table, key, layer, genes)
        placed = Placed.of(sdata, key, table.uns.get("sq_imputer", {}).get(layer, {}))
        there = [name if name in table.layers else None for name in ("measured", layer, f"{layer}_std")]
        parts = [None if name is None else columns_of(table, name, genes)[placed.rows] for name in there]
        if parts[0] is not None and not np.isfinite(parts[0]).any():
            parts[0] = None
        return cls(placed, layer, list(genes), *parts)

    @property
    def made(self) -> Mapping:
        """The record of the prediction."""
        return self.placed.made

    @property
    def units(self) -> tuple[str, str]:
        """Of what was measured and of what is predicted."""
        return units_of(self.made)

    @property
    def spread(self) -> str:
        """What the standard deviation is called."""
        return BY_FOLD if folded(self.made) else SPREAD

    def panels(self, look: Look) -> list[list[Panel]]:
        """The panels of every gene."""
        parts = (self.measured, self.predicted, self.std)
        each = [[None if part is None else part[:, k] for part in parts] for k in range(len(self.genes))]
        return [value_panels(*one, units=self.units, spread=self.spread, look=look) for one in each]


def units_of(made: Mapping) -> tuple[str, str]:
    """Units of what was measured and of what is predicted, of the record of a prediction."""
    unit = made.get("unit", "")
    return str(unit), str(made.get("layer_unit", unit))


def folded(made: Mapping) -> bool:
    """Whether each block was predicted by one model of its own: their borders show, most of all in the spread."""
    return int(made.get("n_folds", 0)) > 1 and int(made.get("n_repeats", 1)) == 1
