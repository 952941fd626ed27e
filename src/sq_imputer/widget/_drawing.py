"""A region that the user draws: a layer of shapes of ours, of which the last one counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Shapes

NAME = "drawn region"
PAUSE_MS = 300  # a lasso tells of each of its corners; what comes sooner is the same line


class Drawing:
    """The layer that regions are drawn in.

    Parameters
    ----------
    viewer
        The window.
    drawn
        Called a moment after a line was drawn, changed or moved.
    """

    def __init__(self, viewer: Viewer, drawn: Callable[[], None]) -> None:
        self.viewer = viewer
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(drawn)
        self._layer: Shapes | None = None

    def begin(self) -> None:
        """Let the mouse draw: a lasso, held down or clicked from corner to corner."""
        if self._layer is None or self._layer not in self.viewer.layers:
            found = [layer for layer in self.viewer.layers if layer.metadata.get("drawing")]
            self._layer = found[0] if found else self._new()
            self._layer.events.data.connect(lambda _: self._timer.start(PAUSE_MS))
        self.viewer.layers.selection.active = self._layer
        self._layer.mode = "add_polygon_lasso"

    def _new(self) -> Shapes:
        from napari.layers import Shapes

        look = {"edge_color": "#ffcc00", "face_color": "#00000000", "edge_width": 2}
        return self.viewer.add_layer(Shapes(ndim=2, name=NAME, metadata={"drawing": True}, **look))

    def polygon(self) -> np.ndarray:
        """Corners `(k, 2)` of the last region in the coordinates of the window, y first.

        Raises
        ------
        BadInput
            If none is drawn.
        """
        if self._layer is None or self._layer not in self.viewer.layers or not len(self._layer.data):
            raise BadInput("no region is drawn. Press 'Draw the region', and draw around one with the mouse.")
        return np.asarray(self._layer.data[-1], dtype=float)

    def clear(self) -> None:
        """Give the mouse back."""
        if self._layer is not None and self._layer in self.viewer.layers:
            self._layer.mode = "pan_zoom"
