"""What all docks of one window share: the section, what is looked at, and where it is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from qtpy.QtCore import QObject, Signal

from sq_imputer.errors import BadInput
from sq_imputer.section import read
from sq_imputer.widget import _napari_spatialdata as theirs
from sq_imputer.widget._canvas import Canvas, color
from sq_imputer.widget.session import Session

if TYPE_CHECKING:
    from napari import Viewer

    from sq_imputer.pl._compared import Panel
    from sq_imputer.widget._job import Job
    from sq_imputer.widget._points import Points
    from sq_imputer.widget._views import Views

_desks: WeakValueDictionary[int, Desk] = WeakValueDictionary()
PREDICTED = "predicted"


def desk_of(viewer: Viewer) -> Desk:
    """The desk of a window: one, as long as any of its docks is there."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands plug-ins a proxy
    found = _desks.get(id(viewer))
    if found is None:
        found = _desks[id(viewer)] = Desk(viewer)
    return found


class Prepared(NamedTuple):
    """A prediction that can be shown at once: its points have the colors of a gene already."""

    views: Views
    points: Points
    rows: np.ndarray  # of the points, that the prediction is of
    gene: str
    panels: dict[str, Panel]


class Desk(QObject):
    """The section of a window, and what is looked at.

    Parameters
    ----------
    viewer
        The window.
    """

    changed = Signal()  # there is another section, or something new in it
    painted = Signal()  # something else is shown

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer, self.canvas = viewer, Canvas(viewer)
        self.views: Views | None = None
        self.writer: Job | None = None  # the last job that writes
        self.panels: dict[str, Panel] = {}
        self.gene, self.title, self.spread = "", PREDICTED, False
        self._session: Session | None = None
        self._rows: np.ndarray | None = None
        viewer.layers.events.inserted.connect(self._inserted)

    def _inserted(self, event) -> None:
        if self._session is None and event.value.metadata.get("sdata") is not None:
            self.changed.emit()

    @property
    def session(self) -> Session:
        """The section; found by the layers of the window if none was set.

        Raises
        ------
        BadInput
            If no layer is of a SpatialData object.
        """
        if self._session is None:
            found = theirs.opened(self.viewer)
            if found is None:
                raise BadInput(
                    "no layer of this window is of a SpatialData object. Open one: sq_imputer.widget.open(sdata), "
                    "`sq-imputer view store.zarr`, or drop a .zarr here and double-click its image in the list."
                )
            self._session = Session(found.sdata, found.image_key, coordinate_system=found.coordinate_system)
        return self._session

    def take(self, session: Session) -> None:
        """Put another section on the desk."""
        self._session = session
        self.changed.emit()

    # Places ------------------------------------------------------------------------------------------

    def um_of(self, world: np.ndarray) -> np.ndarray:
        """Points `(n, 2)` of the window, y first, as µm, x first."""
        return np.asarray(world, dtype=float)[:, -2:][:, ::-1] * self._um_per_unit()

    def world_of(self, xy_um: np.ndarray) -> np.ndarray:
        """The other way round."""
        return np.asarray(xy_um, dtype=float)[:, ::-1] / self._um_per_unit()

    def _um_per_unit(self) -> float:
        frame = self.session.slide().frame
        to_world = read.affine(self.session.sdata.images[self.session.image_key], frame.coordinate_system)
        return float(np.linalg.norm((frame.to_um @ np.linalg.inv(to_world))[:2, 0]))

    # What is looked at -------------------------------------------------------------------------------

    def prepare(self, key: str, layer: str | None = None) -> Prepared:
        """All that takes a while about showing a prediction: for a thread."""
        session = self.session
        views = session.views(key, layer)
        system = session.slide().frame.coordinate_system
        points = theirs.layer_of(session.sdata, views.shapes_key, key, system, f"{key}: {views.layer}")
        where = {instance: row for row, instance in enumerate(points.metadata["indices"])}
        rows = np.array([where[one] for one in views.instances.tolist()], dtype=int)
        gene = self.gene if self.gene in views.genes else views.genes[0]
        panels = views.panels(gene)
        color(points, panels[self.title if self.title in panels else PREDICTED], rows)
        return Prepared(views, points, rows, gene, panels)

    def looks_at(self, key: str, layer: str) -> bool:
        """Whether this prediction is the one that is shown, and is as it was written."""
        views = self.views
        return views is not None and (views.key, views.layer) == (key, layer) and views.is_of(self.session.sdata)

    def show(self, prepared: Prepared) -> None:
        """Put a prediction into the window as a layer."""
        self.views, points, self._rows, self.gene, self.panels = prepared
        if self.title not in self.panels:
            self.title = PREDICTED
        theirs.tell_tables(self.viewer, self.session.sdata)
        self.canvas.show(points)
        if self.spread:
            self.paint()
        else:
            self.painted.emit()

    def paint(self, gene: str | None = None, title: str | None = None) -> None:
        """Color what is shown by a gene, and by one of its panels.

        Raises
        ------
        BadInput
            If nothing is shown.
        """
        if self.views is None or not self.canvas.shown:
            raise BadInput("no prediction is shown. Choose one in the Compare dock, or make one in Predict.")
        gene = gene or self.gene
        if gene != self.gene or PREDICTED not in self.panels:
            self.panels, self.gene = self.views.panels(gene), gene
        self.title = title or self.title
        if self.title not in self.panels:
            self.title = PREDICTED
        if self.spread:
            image = theirs.image_layer(self.viewer, self.session.sdata, self.session.image_key)
            self.canvas.apart(list(self.panels.values()), self._rows, image)
        else:
            self.canvas.paint(self.panels[self.title], self._rows)
        self.painted.emit()

    def paint_values(self, panel: Panel) -> None:
        """Color what is shown by other values of the rows of the prediction."""
        if not self.canvas.shown:
            raise BadInput("no prediction is shown. Choose one in the Compare dock first.")
        self.panels, self.title, self.spread = {panel.title: panel}, panel.title, False
        self.canvas.paint(panel, self._rows)
        self.painted.emit()
