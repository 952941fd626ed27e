"""Where the rows of a prediction lie on the image that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.pl import _panels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from spatialdata import SpatialData

    from sq_imputer.section.slide import Slide

HATCH = "////"


@dataclass(frozen=True, eq=False)
class Placed:
    """A section of a result table: its table, rows `(n,)`, their places `(n, 2)` and radii in µm, and its image."""

    table: AnnData
    rows: np.ndarray
    xy_um: np.ndarray
    radius_um: np.ndarray
    slide: Slide
    made: Mapping

    @classmethod
    def of(cls, sdata: SpatialData, key: str, made: Mapping) -> Placed:
        """Of an object whose table is of one section, read as the prediction was that the record `made` is of."""
        from sq_imputer.section import read
        from sq_imputer.section.pixel_size import as_seen
        from sq_imputer.section.slide import Slide

        alone = {"table_key": None, "section_key": None, "target": None}  # places alone
        slide = Slide.from_sdata(sdata, **{**as_seen(made), "shapes_key": read.find_shapes(sdata, None, key), **alone})
        table = sdata.tables[key]
        rows, position = slide.rows_in(table, key)
        return cls(table, rows, slide.xy_um[position], slide.size_um[position] / 2, slide, made)

    @classmethod
    def in_section(cls, sdata: SpatialData, key: str, layer: str, section: str | None) -> Placed:
        """Of one section of a table, as the prediction of this layer was made."""
        from sq_imputer.runs.views import section_of

        sdata = section_of(sdata, key, section)
        return cls.of(sdata, key, sdata.tables[key].uns.get("sq_imputer", {}).get(layer, {}))

    @property
    def aspect(self) -> float:
        """Height by width."""
        width, height = np.ptp(self.xy_um, axis=0)
        return float(np.clip(height / width if width else 1.0, _panels.FLATTEST, 3))

    def draw(
        self, ax: Axes, values: np.ndarray, colors, limits, *, picture=None, hatched: np.ndarray | None = None
    ) -> EllipseCollection:
        """Spots in their true size and colors over the image; those that are `hatched` `(n,)` have stripes."""
        from matplotlib.collections import EllipseCollection

        radius = _panels.visible_radius(ax, self.xy_um, self.radius_um)
        _panels.panel(ax, self.xy_um, radius, picture)
        found = _panels.spots(ax, self.xy_um, radius, values, colors, limits)
        if hatched is not None and hatched.any():
            size = np.broadcast_to(2 * np.asarray(radius, dtype=float), len(hatched))[hatched]
            how = {"units": "xy", "offsets": self.xy_um[hatched], "offset_transform": ax.transData}
            how |= {"facecolors": "none", "edgecolors": "black", "linewidths": 0.3, "hatch": HATCH}
            how["rasterized"] = len(hatched) > _panels.MANY
            ax.add_collection(EllipseCollection(size, size, np.zeros(len(size)), **how), autolim=False)
        return found
