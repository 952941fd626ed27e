"""The dock that compares: measured, predicted, difference, standard deviation; in one view or side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QButtonGroup, QCheckBox, QComboBox, QRadioButton, QVBoxLayout, QWidget

from sq_imputer.errors import MissingKey
from sq_imputer.widget._desk import PREDICTED
from sq_imputer.widget._job import Job
from sq_imputer.widget._parts import Dock, Genes, Legend, refill, told

if TYPE_CHECKING:
    from sq_imputer.widget.session import Session

BETWEEN = " · "  # of the table and the layer
MOST_LISTED = 50


def listed_predictions(session: Session) -> list[str]:
    """All predictions of an object, as boxes list them."""
    return [f"{key}{BETWEEN}{layer}" for key, layers in session.predictions().items() for layer in layers]


def chosen_prediction(box: QComboBox) -> tuple[str, str]:
    """Table and layer of the prediction that is chosen among those listed.

    Raises
    ------
    MissingKey
        If there is none.
    """
    if not box.currentText():
        raise MissingKey("there is no prediction yet. Make one in the Predict dock.")
    key, _, layer = box.currentText().partition(BETWEEN)
    return key, layer


class CompareDock(Dock):
    """Look at a prediction, gene by gene."""

    def build(self) -> None:
        """Make the parts, once."""
        self.prediction, self.search = QComboBox(), Genes(self._found)
        self.prediction.activated.connect(lambda *_: self.choose())
        self.search.chosen.connect(self.paint)
        self.spread = QCheckBox("side by side")
        self.spread.toggled.connect(lambda *_: self.lay_out())
        self.panels, self.legends = QWidget(), QWidget()
        self._buttons = QButtonGroup(self)
        for part in (self.panels, self.legends):
            QVBoxLayout(part).setContentsMargins(0, 0, 0, 0)
        for text, part in {
            "Prediction": self.prediction,
            "Gene": self.search,
            "Shown": self.panels,
            "": self.spread,
            "Colors": self.legends,
        }.items():
            self.form.addRow(text, part)
        self.desk.painted.connect(self.tell)

    def fill(self) -> None:
        """The predictions that there are."""
        refill(self.prediction, listed_predictions(self.desk.session))
        self.tell()

    def _found(self, text: str) -> list[str]:
        names = [] if self.desk.views is None else self.desk.views.genes
        text = text.strip().lower()
        begin = [name for name in names if name.lower().startswith(text)]
        return (begin + [name for name in names if text in name.lower() and name not in begin])[:MOST_LISTED]

    @told
    def choose(self) -> None:
        """Show the prediction that is chosen."""
        if self.prediction.currentText() and not self.bar.busy:
            key, _, layer = self.prediction.currentText().partition(BETWEEN)
            self.start(Job(lambda: self.desk.prepare(key, layer), "the layer").start(), self.desk.show)

    @told
    def paint(self, gene: str | None = None, title: str | None = None) -> None:
        """Another gene, or another panel of it, in the colors of the same points."""
        self.desk.paint(gene, title)

    @told
    def lay_out(self) -> None:
        """One view, or all panels side by side."""
        self.desk.spread = self.spread.isChecked()
        self.desk.paint()

    def tell(self) -> None:
        """Buttons and legends of what is shown."""
        self.search.refresh()
        blocked = self.spread.blockSignals(True)
        self.spread.setChecked(self.desk.spread)
        self.spread.blockSignals(blocked)
        titles = list(self.desk.panels)
        if [one.text() for one in self._buttons.buttons()] != titles:
            self._offer(titles)
        for one in self._buttons.buttons():
            one.setChecked(one.text() == self.desk.title)
        self._explain(titles if self.desk.spread else [self.desk.title] if titles else [])

    def _offer(self, titles: list[str]) -> None:
        for one in self._buttons.buttons():
            self._buttons.removeButton(one)
            one.deleteLater()
        for title in titles:
            one = QRadioButton(title)
            one.clicked.connect(lambda _, title=title: self.paint(title=title))
            self._buttons.addButton(one)
            self.panels.layout().addWidget(one)

    def _explain(self, titles: list[str]) -> None:
        """A legend for each of these; measured and predicted have the same where their colors are."""
        layout = self.legends.layout()
        while layout.count() < len(titles):
            layout.addWidget(Legend())
        for place in range(layout.count()):
            layout.itemAt(place).widget().setVisible(place < len(titles))
        for place, title in enumerate(titles):
            unit = "" if self.desk.views is None else self.desk.views.units[title != "measured"]
            about = f"{self.desk.gene}: " if PREDICTED in self.desk.panels else ""
            layout.itemAt(place).widget().show_panel(self.desk.panels[title], unit, about)
