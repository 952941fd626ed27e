"""Points of one symbol, which are quick to color."""

from __future__ import annotations

import napari.layers
import numpy as np


class Points(napari.layers.Points):
    """A layer of points as napari's, and named as theirs, since napari goes by the name of the class.

    For another color napari makes the symbol of every point a text again, which takes longer than all the rest. Where
    all have the same, the first stands for them.
    """

    @property
    def _view_symbol(self) -> np.ndarray:
        symbols = self.symbol.tolist()  # a list looks for the same, numpy for ==
        alike = len(symbols) > 0 and symbols.count(symbols[0]) == len(symbols)
        return self.symbol[:1] if alike else super()._view_symbol


def by_column(places: np.ndarray) -> np.ndarray:
    """Places `(n, 2)`, a column after the other in memory: napari asks for their ends again and again."""
    return np.asfortranarray(places)
