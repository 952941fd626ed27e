"""Domains of a prediction for one number after the other: what does not depend on the number is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.tl._clusters import Settings, by_size, shared
from sq_imputer.tl._domains import read_features

if TYPE_CHECKING:
    from spatialdata import SpatialData


class Preview:
    """A prediction, ready to be clustered.

    Parameters
    ----------
    sdata
        The object; it is read only.
    key, layer
        The prediction.
    """

    def __init__(self, sdata: SpatialData, key: str, layer: str) -> None:
        self.of = key, layer
        section = read_features(sdata, key, "prediction", layer, key, "cpu")
        self.rows = section.rows
        xy = np.asarray(section.table.obsm["spatial"], dtype=float)[section.rows]
        self._spots = shared(section.blocks, xy, Settings("kmeans", 2))
        self._known: dict[int, np.ndarray] = {}

    def labels(self, number: int) -> np.ndarray:
        """`(n,)` numbers of domains, 0 the largest: k-means from one start, as `tl.domains` has it from ten."""
        from sklearn.cluster import KMeans

        if number not in self._known:
            found = KMeans(number, n_init=1, random_state=0).fit_predict(self._spots)
            self._known[number] = by_size(found)
        return self._known[number]
