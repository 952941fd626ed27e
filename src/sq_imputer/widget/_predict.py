"""The dock that predicts: which model, which genes, which rows, what it will cost; then the result as a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFileDialog, QLabel, QLineEdit, QSpinBox

from sq_imputer.errors import BadInput
from sq_imputer.widget._drawing import Drawing
from sq_imputer.widget._job import Job
from sq_imputer.widget._parts import Dock, Genes, button, refill, told
from sq_imputer.widget._requests import KEY, MOST_GRID, Request

if TYPE_CHECKING:
    from sq_imputer.predictor.registry import ModelCard

GRID = "a new grid in the drawn region"
HERE = "what is measured here"


class PredictDock(Dock):
    """Predict expression from the image, and show it."""

    def build(self) -> None:
        """Make the parts, once."""
        self.cards: dict[str, ModelCard] = {}
        self.drawing = Drawing(self.desk.viewer, lambda: None)
        self.model, self.card = QComboBox(), QLabel()
        self.card.setWordWrap(True)
        self.model.currentTextChanged.connect(lambda *_: self.show_card())
        self.search = Genes(lambda text: self.desk.session.genes(text))
        self.search.chosen.connect(self.add_gene)
        self.names, self.number = QLineEdit(), QSpinBox()
        self.names.setPlaceholderText("names, separated by commas; empty: the most variable")
        self.number.setRange(1, 5000)
        self.number.setValue(50)
        self.where, self.spacing, self.name = QComboBox(), QDoubleSpinBox(), QLineEdit("grid")
        self.where.currentTextChanged.connect(lambda *_: self._show_grid())
        self.spacing.setRange(1, 1000)
        self.spacing.setValue(20)
        self.spacing.setSuffix(" µm apart")
        self.draw = button("Draw the region", self.drawing.begin)
        self.reference, self.device = QComboBox(), QComboBox()
        self.device.addItems(["auto", "cpu", "cuda", "mps"])
        self.key, self.overwrite = QLineEdit(KEY), QCheckBox("replace what has this name")
        self._lay_out()

    def _lay_out(self) -> None:
        rows = {
            "Model": self.model,
            "": self.card,
            "Open a model": button("Folder of a fitted model …", self.open_model),
            "Genes": self.search,
            "chosen": self.names,
            "or how many": self.number,
            "Where": self.where,
            "grid": self.spacing,
            "grid is called": self.name,
            "region": self.draw,
            "Fit on": self.reference,
            "Open a section": button("Store of another section …", self.open_reference),
            "Device": self.device,
            "Table": self.key,
            " ": self.overwrite,
        }
        for text, part in rows.items():
            self.form.addRow(text.strip(), part)
        self.column.addWidget(button("Estimate time and memory", self.estimate))
        self.column.addWidget(button("Predict", self.predict))

    def fill(self) -> None:
        """Shapes and references at once; models, whose files take a moment to import, in a thread."""
        session = self.desk.session
        refill(self.where, [*session.shapes(), GRID])
        refill(self.reference, [HERE, *session.references] if session.measured_shapes() else list(session.references))
        self.search.refresh()
        self._show_grid()
        if not self.cards and not self.bar.busy:
            self.start(Job(self._read, "reading the section and the list of models").start(), self._list)
        elif self.cards:
            self._list({name: one.card for name, one in session.models.items()} | self.cards)

    def _read(self) -> dict[str, ModelCard]:
        self.desk.session.slide()  # kept for what comes next
        return self.desk.session.cards()

    def _list(self, cards: dict[str, ModelCard]) -> None:
        self.cards = cards
        refill(self.model, list(cards))
        self.show_card()

    def show_card(self) -> None:
        """What the card of the chosen model says, its limits above all."""
        card = self.cards.get(self.model.currentText())
        if card is not None:
            said = [card.summary, f"<b>Limits:</b> {card.limits}"]
            said += [f"<b>Its standard deviation:</b> {card.uncertainty}"] if card.uncertainty else []
            self.card.setText("<br>".join(said))

    def _show_grid(self) -> None:
        for part in (self.spacing, self.name, self.draw):
            self.form.setRowVisible(part, self.where.currentText() == GRID)

    def add_gene(self, gene: str) -> None:
        """One more gene among those to be predicted."""
        names = self._chosen()
        if gene not in names:
            self.names.setText(", ".join([*names, gene]))

    def _chosen(self) -> list[str]:
        return [name.strip() for name in self.names.text().split(",") if name.strip()]

    @told
    def open_model(self, path: str = "") -> None:
        """Offer a fitted model from its folder."""
        path = path or QFileDialog.getExistingDirectory(self, "Folder of a fitted model")
        if path:
            self.start(Job(lambda: self.desk.session.open_model(path), "opening the model").start(), self._opened)

    @told
    def open_reference(self, path: str = "") -> None:
        """Offer another section to fit on."""
        path = path or QFileDialog.getExistingDirectory(self, "Store of a section (.zarr)")
        if path:
            job = Job(lambda: self.desk.session.open_reference(path), "opening the section").start()
            self.start(job, self._opened_reference)

    def _opened(self, name: str) -> None:
        self.desk.changed.emit()
        self.model.setCurrentText(name)

    def _opened_reference(self, name: str) -> None:
        self.desk.changed.emit()
        self.reference.setCurrentText(name)

    def request(self) -> Request:
        """What is chosen.

        Raises
        ------
        BadInput
            If nothing is drawn, or no model can be fitted.
        """
        session, where, region = self.desk.session, self.where.currentText(), None
        if where == GRID:
            polygon = self.desk.um_of(self.drawing.polygon())
            where, region = self.name.text(), session.region(polygon, self.spacing.value(), MOST_GRID)
        model, reference = self.model.currentText(), self.reference.currentText()
        fitted = model in session.models or model.startswith("zoo:")
        if not reference and not fitted:
            raise BadInput(f"nothing is measured here to fit '{model}' on. Open another section, or a fitted model.")
        return Request(
            model,
            None if fitted else self._chosen() or self.number.value(),
            where,
            region,
            [] if fitted or reference == HERE else [session.references[reference]],
            self.key.text() or KEY,
            overwrite=self.overwrite.isChecked(),
            device=self.device.currentText(),
        )

    @told
    def estimate(self) -> None:
        """Say what a click on Predict will cost."""
        if not self.bar.busy:
            self.start(self.desk.session.estimate(self.request()), lambda found: self.bar.say(str(found)))

    @told
    def predict(self) -> None:
        """Predict in a thread, then show it."""
        if not self.bar.busy:
            request = self.request()
            self.write(lambda: self.desk.session.predict(request), lambda _: self._show(request.key_added))

    def _show(self, key: str) -> None:
        said = self.bar.text.text()  # warnings of the prediction
        job = Job(lambda: self.desk.prepare(key), "the layer").start()
        self.start(job, lambda prepared: self._shown(prepared, said))

    def _shown(self, prepared, said: str) -> None:
        self.desk.show(prepared)
        self.drawing.clear()
        self.desk.changed.emit()
        rows, genes = np.shape(prepared[0].table)
        self.bar.say("\n".join([f"{rows} rows of {genes} genes are in tables['{prepared[0].key}'].", said]).strip())
