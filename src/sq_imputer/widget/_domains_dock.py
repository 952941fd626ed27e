"""The dock of spatial domains: a slider for their number, colors that follow it, and a click that writes them."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QSlider

from sq_imputer.pl._compared import Panel
from sq_imputer.widget._compare import chosen_prediction, listed_predictions
from sq_imputer.widget._domains import Preview
from sq_imputer.widget._job import Job
from sq_imputer.widget._parts import Dock, button, refill, told

PAUSE_MS = 120  # the slider is where it was left
MOST = 20
TITLE = "domain"


class DomainsDock(Dock):
    """Spatial domains of a prediction."""

    def build(self) -> None:
        """Make the parts, once."""
        self.preview: Preview | None = None
        self.prediction, self.name, self.number = QComboBox(), QLineEdit("domain"), QLabel()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(2, MOST)
        self.slider.setValue(5)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.look)
        self.slider.valueChanged.connect(self._moved)
        self._moved(start=False)
        self.form.addRow("Prediction", self.prediction)
        self.form.addRow(self.number, self.slider)
        self.form.addRow("column", self.name)
        self.legend = QLabel()
        self.form.addRow("Colors", self.legend)
        self.column.addWidget(button("Look", self.look, "k-means of one start; nothing is written."))
        self.column.addWidget(button("Write", self.keep, "tl.domains: k-means of ten starts, into obs."))

    def fill(self) -> None:
        """The predictions that there are."""
        refill(self.prediction, listed_predictions(self.desk.session))

    def _moved(self, *_, start: bool = True) -> None:
        self.number.setText(f"{self.slider.value()} domains")
        if start:
            self._timer.start(PAUSE_MS)

    @told
    def look(self) -> None:
        """Domains as many as the slider says, at once; the first look at a prediction takes longer."""
        chosen, number = chosen_prediction(self.prediction), self.slider.value()
        if self.bar.busy:
            return

        def work():
            shown = None
            if not (self.desk.canvas.shown and self.desk.looks_at(*chosen)):
                shown = self.desk.prepare(*chosen)
            if self.preview is None or self.preview.of != chosen:
                self.preview = Preview(self.desk.session.sdata, *chosen)
            return shown, self.preview.labels(number), number

        self.start(Job(work, "domains").start(), self._show)

    def _show(self, found) -> None:
        shown, labels, number = found
        if shown is not None:
            self.desk.show(shown)
        values = np.full(self.desk.views.table.n_obs, np.nan)
        values[self.preview.rows] = labels
        self._paint(values[self.desk.views.rows], number)
        if number != self.slider.value():
            self.look()

    def _paint(self, codes: np.ndarray, number: int) -> None:
        from matplotlib.colors import ListedColormap

        from sq_imputer.pl._categories import HOLLOW, counted, palette

        ends, shown = (-0.5, number - 0.5), counted(range(number), palette(number), codes)
        dots = [f"<font color='{'gray' if color == HOLLOW else color}'>⬤</font> {label}" for label, color in shown]
        self.legend.setText("<br>".join(dots))
        self.desk.paint_values(Panel(TITLE, codes, ListedColormap(palette(number)), ends, lambda *_: None))

    @told
    def keep(self) -> None:
        """Find them again with ten starts, and write them as a column."""
        (key, layer), number, name = chosen_prediction(self.prediction), self.slider.value(), self.name.text()
        if self.bar.busy:
            return

        def work() -> np.ndarray:
            from sq_imputer.tl import domains

            sdata = self.desk.session.sdata
            how = {"method": "kmeans", "n_domains": number, "key_added": name, "overwrite": True}
            domains(sdata, layer=layer, key=key, **how)
            return sdata.tables[key].obs[name].cat.codes.to_numpy().astype(float)

        self.write(lambda: Job(work, "the domains").start(), lambda codes: self._written(codes, key, name, number))

    def _written(self, codes: np.ndarray, key: str, name: str, number: int) -> None:
        if self.desk.canvas.shown and self.desk.views.key == key:
            self._paint(np.where(codes < 0, np.nan, codes)[self.desk.views.rows], number)
        self.bar.say(
            "\n".join([f"{number} domains are in tables['{key}'].obs['{name}'].", self.bar.text.text()]).strip()
        )
