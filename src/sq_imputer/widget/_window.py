"""A window with our docks in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QTabBar

from sq_imputer.widget import _napari_spatialdata as theirs
from sq_imputer.widget._compare import CompareDock
from sq_imputer.widget._desk import desk_of
from sq_imputer.widget._domains_dock import DomainsDock
from sq_imputer.widget._explain_dock import ExplainDock
from sq_imputer.widget._predict import PredictDock
from sq_imputer.widget._region_dock import RegionDock
from sq_imputer.widget._trust_dock import TrustDock

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtWidgets import QWidget

    from sq_imputer.widget.session import Session

DOCKS = {
    "Predict": PredictDock,
    "Compare": CompareDock,
    "Region": RegionDock,
    "Trust": TrustDock,
    "Explain": ExplainDock,
    "Domains": DomainsDock,
}


def open_docks(session: Session, show: bool = True) -> Viewer:
    """A window of a section, with all docks on its right, behind each other and their View widget, the first on top."""
    viewer = theirs.open_window(session.sdata, session.image_key, session.frame().coordinate_system, show)
    desk = desk_of(viewer)
    desk.take(session)
    added = [
        viewer.window.add_dock_widget(dock(viewer), name=name, area="right", tabify=True)
        for name, dock in DOCKS.items()
    ]
    added[0].raise_()
    QTimer.singleShot(0, lambda: name_tabs(added[0].window()))  # Qt makes the tabs when it lays out the window
    return viewer


def name_tabs(window: QWidget) -> None:
    """Whole names on the tabs of docks, which Qt would cut off to make all fit; theirs is called "View"."""
    for dock in window.findChildren(QDockWidget):
        if dock.windowTitle() == theirs.VIEW:
            dock.setWindowTitle(theirs.VIEW.partition(" (")[0])
    for bar in window.findChildren(QTabBar):
        bar.setElideMode(Qt.TextElideMode.ElideNone)
        bar.setUsesScrollButtons(True)
