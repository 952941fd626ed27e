"""The live loop: draw a region, see the prediction there at once, and read the numbers of the region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QLabel, QSpinBox

from sq_imputer.errors import BadInput
from sq_imputer.pl._compared import value_panels
from sq_imputer.widget._canvas import recolor
from sq_imputer.widget._colors import rgba
from sq_imputer.widget._drawing import Drawing
from sq_imputer.widget._job import Job
from sq_imputer.widget._parts import Dock, Legend, Table, button, refill, told

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.widget._live import Said
    from sq_imputer.widget._points import Points

LAYER = "drawn region, predicted"
QUICK = "ridge"  # fitted in seconds, and asked in milliseconds


class RegionDock(Dock):
    """Ask a fitted model about a drawn region."""

    def build(self) -> None:
        """Make the parts, once."""
        self.said: Said | None = None
        self.points: Points | None = None
        self._again = False
        self.drawing = Drawing(self.desk.viewer, self.look)
        self.model, self.number = QComboBox(), QSpinBox()
        self.number.setRange(1, 5000)
        self.number.setValue(50)
        self.spacing = QDoubleSpinBox()
        self.spacing.setRange(0, 1000)
        self.spacing.setSpecialValueText("as fine as is quick")
        self.spacing.setSuffix(" µm apart")
        self.table, self.legend, self.time = Table(), Legend(), QLabel()
        self.table.picked.connect(self.paint)
        self.form.addRow("Fitted model", self.model)
        self.form.addRow("genes", self.number)
        self.form.addRow("", button(f"Fit {QUICK} on what is measured here", self.fit))
        self.form.addRow("Points", self.spacing)
        self.form.addRow("", button("Draw a region", self.begin))
        for part in (self.time, self.legend, self.table, button("Copy the table", self.table.copy)):
            self.column.addWidget(part)

    def fill(self) -> None:
        """The fitted models that there are."""
        refill(self.model, list(self.desk.session.models))

    @told
    def fit(self) -> None:
        """Fit a model on what is measured here."""
        if not self.bar.busy:
            self.start(self.desk.session.fit(QUICK, self.number.value()), self._fitted)

    def _fitted(self, name: str) -> None:
        self.desk.changed.emit()
        self.model.setCurrentText(name)
        self.bar.say(f"'{name}' is fitted. Draw a region, and it is asked about it.")

    @told
    def begin(self) -> None:
        """Let the mouse draw."""
        self.drawing.begin()

    @told
    def look(self) -> None:
        """Predict in the region that is drawn; a line that is drawn meanwhile comes next."""
        if not self.model.currentText():
            raise BadInput(f"no fitted model is here. Press 'Fit {QUICK}', or open one in the Predict dock.")
        if self.bar.busy:
            self._again = True
            return
        polygon, session, model = self.drawing.polygon(), self.desk.session, self.model.currentText()
        spacing = self.spacing.value() or None

        def work() -> tuple[Said, DataFrame]:
            said = session.look(session.region(self.desk.um_of(polygon), spacing), model)
            return said, session.numbers(said, model)

        self.start(Job(work, "the region").start(), self._show)

    def _show(self, found: tuple[Said, DataFrame]) -> None:
        self.said, numbers = found
        self.time.setText(
            f"{len(self.said.mean)} points {self.said.region.spacing_um:g} µm apart, {self.said.new} of them new, "
            f"in {self.said.seconds:.1f} s"
        )
        self.table.show_frame(numbers)
        self._place()
        self.paint(self.said.genes[0])
        if self.desk.session.saw(self.model.currentText()):
            self.bar.say("The model was fitted on spots of this section: its errors are larger where none are.")
        if self._again:
            self._again = False
            self.look()

    def _place(self) -> None:
        """A layer of the points of the region; its colors come next."""
        from sq_imputer.widget._points import Points

        layers = self.desk.viewer.layers
        chosen = layers.selection.active
        if self.points is not None and self.points in layers:
            layers.remove(self.points)
        unit = np.linalg.norm(np.diff(self.desk.world_of([[0, 0], [self.said.region.spacing_um, 0]]), axis=0))
        look = {"size": float(unit), "border_width": 0, "antialiasing": 0.5}
        self.points = Points(self.desk.world_of(self.said.region.xy_um), name=LAYER, **look)
        layers.append(self.points)
        layers.selection.active = chosen  # the next line is drawn in the layer of lines

    @told
    def paint(self, gene: str) -> None:
        """Color the points of the region by a gene."""
        if self.said is None or self.points not in self.desk.viewer.layers:
            raise BadInput("no region is predicted. Press 'Draw a region', and draw around one with the mouse.")
        panel = value_panels(None, self.said.mean[:, self.said.genes.index(gene)])[0]
        recolor(self.points, rgba(panel.values, panel.colors, panel.limits))
        self.legend.show_panel(panel, self.desk.session.models[self.model.currentText()].unit, f"{gene}: ")
