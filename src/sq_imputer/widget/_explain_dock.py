"""The dock that explains: click a spot, and see its crop, its map for the gene, and the reference spots behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QWidget

from sq_imputer.errors import BadInput
from sq_imputer.pl._panels import limits
from sq_imputer.widget._colors import rgba
from sq_imputer.widget._job import Job
from sq_imputer.widget._looked import SECTION_PX, SECTIONS, SHOWN, behind, crops_of, look_at, places_of
from sq_imputer.widget._parts import Dock, Legend, Table, button, refill, told

if TYPE_CHECKING:
    from napari.layers import Points

SIDE_PX = 150
REFERENCE_PX = 64


def picture(rgb: np.ndarray, side: int) -> QPixmap:
    """A square picture of pixels `(h, w, 3)` uint8."""
    rgb = np.ascontiguousarray(rgb, dtype=np.uint8)
    height, width, _ = rgb.shape
    image = QImage(rgb.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    return QPixmap.fromImage(image).scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio)


class ExplainDock(Dock):
    """What the prediction of a spot is made of."""

    def build(self) -> None:
        """Make the parts, once."""
        self._listens: Points | None = None
        self.row = -1
        self.model, self.spot, self.legend, self.table = QComboBox(), QLabel(), Legend(), Table()
        self.crop, self.map = QLabel(), QLabel()
        self.references, self.places = ([QLabel() for _ in range(number)] for number in (SHOWN, SECTIONS))
        self.form.addRow("Fitted model", self.model)
        self.form.addRow("", button("Click a spot in the window", self.listen, "Gene and prediction are Compare's."))
        below = (_beside(self.references), _beside(self.places))
        for part in (self.spot, _beside([self.crop, self.map]), self.legend, *below, self.table):
            self.column.addWidget(part)
        self.column.addStretch()  # what is shown stands together
        self.legend.hide()
        self.table.hide()

    def fill(self) -> None:
        """The fitted models that there are: maps need one."""
        refill(self.model, list(self.desk.session.models))

    @told
    def listen(self) -> None:
        """Let clicks on the points that are shown be heard here."""
        if not self.desk.canvas.shown:
            raise BadInput("no prediction is shown. Choose one in the Compare dock first.")
        points = self.desk.canvas.points
        if self._listens is not points:
            points.mouse_drag_callbacks.append(self._clicked)
            self._listens = points
        points.mode = "pan_zoom"
        self.desk.viewer.layers.selection.active = points
        self.bar.say("Click a spot.")

    def _clicked(self, layer: Points, event) -> None:
        point = layer.get_value(event.position, world=True)
        if point is not None:
            self.explain(int(point))

    @told
    def explain(self, point: int) -> None:
        """Look at one of the points that are shown."""
        if self.bar.busy:
            return
        desk, views, model = self.desk, self.desk.views, self.model.currentText()
        instance, session = desk.canvas.points.metadata["indices"][point], desk.session
        rows = np.flatnonzero(views.instances == instance)
        if not len(rows):
            raise BadInput(f"spot {instance} has no prediction in tables['{views.key}']. Click another.")
        name, gene = str(views.table.obs_names[views.rows[rows[0]]]), desk.gene
        values = {title: panel.values[rows[0]] for title, panel in desk.panels.items()}

        def work():
            slide = session.explained(model, views.shapes_key) if model else session.slide(views.shapes_key)
            row = int(np.flatnonzero(slide.instances == instance)[0])
            seen = look_at(slide, row, session.models[model], gene) if model else None
            found = behind(session.sdata, views.key, views.layer, name)
            extent = 112.0 if seen is None else seen.extent_um
            if found is None:
                return name, gene, values, seen, found, [], []
            sections = session.sections()
            return name, gene, values, seen, found, crops_of(found, sections, extent), places_of(found, sections)

        self.start(Job(work, f"a look at {name}").start(), self._show)

    def _show(self, found) -> None:
        name, gene, values, seen, behind_it, crops, places = found
        said = ", ".join(f"{title} {value:.3g}" for title, value in values.items())
        self.spot.setText(f"<b>{name}</b>, {gene}: {said}")
        self.spot.setWordWrap(True)
        self.legend.setVisible(seen is not None)
        if seen is not None:
            self._show_map(seen, gene)
        self.table.setVisible(behind_it is not None)
        if behind_it is not None:
            self.table.show_frame(behind_it)
        _fill(self.references, crops, REFERENCE_PX)
        _fill(self.places, places, SECTION_PX)
        if seen is None and behind_it is None:
            self.bar.say("A map needs a fitted model: fit one in the Region dock, or open one in Predict.")

    def _show_map(self, seen, gene: str) -> None:
        from sq_imputer.pl._compared import Panel

        ends = limits(seen.map.ravel(), around_zero=True)
        colors = rgba(seen.map.ravel(), "RdBu_r", ends).reshape(*seen.map.shape, 4)
        self.crop.setPixmap(picture(seen.pixels, SIDE_PX))
        self.map.setPixmap(picture((colors[..., :3] * 255).astype(np.uint8), SIDE_PX))
        panel = Panel(f"what {gene} loses where tissue is covered", seen.map.ravel(), "RdBu_r", ends, lambda *_: None)
        self.legend.show_panel(panel, self.desk.session.models[self.model.currentText()].unit)


def _fill(labels: list[QLabel], pictures: list[tuple[str, np.ndarray]], side: int) -> None:
    """Pictures in labels, with words below the mouse; labels that are left are hidden."""
    for place, label in enumerate(labels):
        label.setVisible(place < len(pictures))
        if place < len(pictures):
            label.setPixmap(picture(pictures[place][1], side))
            label.setToolTip(pictures[place][0])


def _beside(parts: list) -> QWidget:
    line = QWidget()
    layout = QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addWidget(part)
    layout.addStretch()
    return line
