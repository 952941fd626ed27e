"""What is drawn in the window: one layer of points per panel, colored in place, on one view or side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.widget._colors import rgba

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image

    from sq_imputer.pl._compared import Panel
    from sq_imputer.widget._points import Points

AT_ONCE = 100_000  # points whose panels are colored together


def grid_of(viewer: Viewer):
    """The grid of a window's canvas, which `viewer.grid` names until napari 0.9."""
    return viewer.canvas.grid if _is_new(viewer) else viewer.grid


def _is_new(viewer: Viewer) -> bool:
    return hasattr(getattr(viewer, "canvas", None), "grid")


def in_order(viewer: Viewer, layers_each: int) -> None:
    """Panels of so many layers each side by side, from the lowest layer on, which napari 0.9 turned round."""
    grid = grid_of(viewer)
    grid.stride = layers_each if _is_new(viewer) else -layers_each
    grid.enabled = True


def caption(panel: Panel) -> str:
    """What stands over a panel: its title without what is in parentheses, which would be cut off."""
    return panel.title.partition(" (")[0]


def recolor(layer: Points, colors: np.ndarray) -> None:
    """Give points `(n, 4)` other colors.

    napari tells what draws them twice, and each time all points are made ready anew; the first time is enough.
    """
    with layer.events.face_color.blocker():
        layer.face_color = colors


def color(layer: Points, panel: Panel, rows: np.ndarray) -> None:
    """Color points by a panel, whose values are of these rows of them."""
    values = np.full(len(layer.data), np.nan)
    values[rows] = panel.values
    recolor(layer, rgba(values, panel.colors, panel.limits))


class Canvas:
    """The layers of a window that are ours.

    Parameters
    ----------
    viewer
        The window.
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self.points: Points | None = None
        self._apart: list = []  # layers beyond the first panel, while panels are side by side
        self._hidden: list = []
        self._waiting: list = []  # layers, their panels and rows, still to be colored
        self._name = ""  # of the points, which are called as their panel while panels are side by side

    def show(self, points: Points) -> None:
        """Put points in place of those that were shown."""
        self.together()
        if self.points is not None and self.points in self.viewer.layers:
            self.viewer.layers.remove(self.points)
        self.points = self.viewer.add_layer(points)
        self.viewer.layers.selection.active = points

    @property
    def shown(self) -> bool:
        """Whether there are points; the user may have removed them."""
        return self.points is not None and self.points in self.viewer.layers

    def paint(self, panel: Panel, rows: np.ndarray) -> None:
        """Color the points by a panel, whose values are of these rows of them."""
        self.together()
        color(self.points, panel, rows)

    def apart(self, panels: list[Panel], rows: np.ndarray, image: Image | None) -> None:
        """All panels side by side, each over the image; one camera moves all."""
        layers = self.viewer.layers
        if len(self._apart) != (len(panels) - 1) * (1 + (image is not None)):
            self.together()
            own = [layer for layer in (image, self.points) if layer is not None]
            self._hidden = [layer for layer in layers if layer not in own and layer.visible]
            for layer in self._hidden:
                layer.visible = False
            for panel in panels[1:]:
                self._add(caption(panel), image)
            for place, layer in enumerate([*own, *self._apart]):
                layers.move(layers.index(layer), place)
            self._name, self.points.name = self.points.name, caption(panels[0])
            in_order(self.viewer, len(own))
        copies = [layer for layer in self._apart if layer.metadata.get("panel")]
        shown = [self.points, *copies]
        for layer in shown:
            _name_shown(layer, True)
        layers.selection.active = self.points
        self._waiting = [(layer, panel, rows) for layer, panel in zip(shown, panels, strict=True)]
        self._next()

    def _next(self) -> None:
        """Color what waits; of many points a panel at a time, and the window goes on in between."""
        from qtpy.QtCore import QTimer

        while self._waiting:
            color(*self._waiting.pop(0))
            if self._waiting and len(self.points.data) > AT_ONCE:
                QTimer.singleShot(0, self._next)
                return

    def _add(self, title: str, image: Image | None) -> None:
        """Copies of image and points for one more panel; their arrays are shared, not copied."""
        from napari.layers import Image

        from sq_imputer.widget._points import Points

        if image is not None:
            look = {"rgb": image.rgb, "affine": image.affine, "multiscale": image.multiscale}
            self._apart.append(self.viewer.add_layer(Image(image.data, name=f"image below {title}", **look)))
        look = {"size": self.points.size, "affine": self.points.affine, "border_width": 0, "antialiasing": 0.5}
        layer = Points(self.points.data, name=title, metadata={"panel": title}, **look)
        self._apart.append(self.viewer.add_layer(layer))

    def together(self) -> None:
        """One view again."""
        self._waiting = []
        if not self._apart:
            return
        grid_of(self.viewer).enabled = False
        self.points.name = self._name
        _name_shown(self.points, False)
        for layer in self._apart:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        for layer in self._hidden:
            layer.visible = True
        self._apart, self._hidden = [], []


def _name_shown(layer: Points, shown: bool) -> None:
    """The name of a layer over it, where napari has that (0.9)."""
    overlay = getattr(layer, "name_overlay", None)
    if overlay is not None:
        overlay.visible = shown
