"""Parts that docks are made of: a line that watches a job, a choice of genes, a legend, a table that can be copied."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtGui import QColor, QImage, QPainter, QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from sq_imputer.errors import BadInput
from sq_imputer.widget._colors import STEPS, table
from sq_imputer.widget._desk import desk_of
from sq_imputer.widget._job import words

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.pl._compared import Panel
    from sq_imputer.widget._job import Job

EVERY_MS = 50  # a job is looked at
BAD = "#ff8c42"  # readable on dark and on light


def told(slot: Callable) -> Callable:
    """A method of a dock whose errors are said in the dock."""

    @wraps(slot)
    def guarded(self, *args, **kwargs):
        try:
            return slot(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 of any kind: above a slot there is only Qt, which shows a traceback
            self.bar.fail(words(error))

    return guarded


def button(text: str, call: Callable[[], Any], hint: str = "") -> QPushButton:
    """A button that calls without arguments."""
    made = QPushButton(text)
    made.setToolTip(hint)
    made.clicked.connect(lambda *_: call())
    return made


def refill(box: QComboBox, items: list[str]) -> None:
    """Other items in a box; what was chosen stays so where it is among them. Nobody is told."""
    chosen = box.currentText()
    blocked = box.blockSignals(True)
    box.clear()
    box.addItems(items)
    box.setCurrentIndex(max(box.findText(chosen), 0) if items else -1)
    box.blockSignals(blocked)


class JobBar(QWidget):
    """How far a job is, with a button that ends it, and what there is to say when it has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.job: Job | None = None
        self._then: Callable[[Any], None] | None = None
        self.progress, self.text = QProgressBar(), QLabel()
        self.text.setWordWrap(True)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.stop = button("Cancel", self.cancel, "Object and store stay as they were.")
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._look)
        line = QHBoxLayout()
        line.addWidget(self.progress)
        line.addWidget(self.stop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.text)
        self._at_work(False)

    @property
    def busy(self) -> bool:
        """Whether a job runs."""
        return self.job is not None

    def watch(self, job: Job, then: Callable[[Any], None]) -> None:
        """Show a job that has been started; `then` takes its result, in the thread of the window."""
        self.job, self._then = job, then
        self.say(job.name)
        self._at_work(True)
        self._timer.start(EVERY_MS)

    def cancel(self) -> None:
        """End the job at its next step."""
        if self.job is not None:
            self.job.cancel()
            self.say(f"{self.job.name}: ends at the next step")

    def say(self, text: str) -> None:
        """Something that is as it should be."""
        self.text.setStyleSheet("")
        self.text.setText(text)

    def fail(self, text: str) -> None:
        """An error, as words."""
        self.text.setStyleSheet(f"color: {BAD}")
        self.text.setText(text)

    def _at_work(self, at_work: bool) -> None:
        self.progress.setVisible(at_work)
        self.stop.setVisible(at_work)

    def _look(self) -> None:
        job = self.job
        step = job.step
        self.progress.setRange(0, step.total)
        self.progress.setValue(step.done)
        if step.label:
            self.progress.setFormat(f"{step.label} %p%")
        if not job.ended:
            return
        self._timer.stop()
        self._at_work(False)
        self.job = None
        self._end(job)

    @told
    def _end(self, job: Job) -> None:
        """Words of an error; else the warnings, and what comes next."""
        if job.cancelled:
            self.say(f"{job.name} was cancelled. Nothing was written.")
        elif job.error:
            self.fail(job.error)
        else:
            self.say("\n".join(job.warnings))
            self._then(job.result)

    @property
    def bar(self) -> JobBar:
        """Where errors are said."""
        return self


class Dock(QWidget):
    """A form in a column with a line of progress below; fills itself when the section changes."""

    def __init__(self, napari_viewer) -> None:  # napari passes the window by this name
        super().__init__()
        self.desk, self.bar, self.form = desk_of(napari_viewer), JobBar(), QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.column = QVBoxLayout(self)
        self.column.addLayout(self.form)
        self.build()
        self.column.addWidget(self.bar)
        self.desk.changed.connect(self.fill_in)
        self.fill_in()

    def build(self) -> None:
        """Make the parts, once."""
        raise NotImplementedError

    def fill(self) -> None:
        """Put into the parts what there is by now."""
        raise NotImplementedError

    @told
    def fill_in(self) -> None:
        """Fill the parts, or say why that cannot be."""
        self.fill()

    def start(self, job: Job, then: Callable[[Any], None]) -> None:
        """Watch a job in this dock."""
        self.bar.watch(job, then)

    def write(self, make: Callable[[], Job], then: Callable[[Any], None]) -> None:
        """Start a job that writes, and watch it; docks take turns.

        Raises
        ------
        BadInput
            If another dock writes.
        """
        writer = self.desk.writer
        if writer is not None and not writer.ended:
            raise BadInput(f"{writer.name} is still at work in another dock. Wait for it, or cancel it there.")
        self.desk.writer = make()
        self.start(self.desk.writer, then)


class Genes(QWidget):
    """A search by letters, and a list of what is found."""

    chosen = Signal(str)

    def __init__(self, search: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._search = search
        self.line, self.found = QLineEdit(), QListWidget()
        self.line.setPlaceholderText("search a gene")
        self.found.setMaximumHeight(110)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.line)
        layout.addWidget(self.found)
        self.line.textChanged.connect(lambda *_: self.refresh())
        self.found.itemClicked.connect(lambda item: self.chosen.emit(item.text()))
        self.line.returnPressed.connect(self._first)

    def refresh(self) -> None:
        """List what fits the letters."""
        self.found.clear()
        self.found.addItems(self._search(self.line.text()))

    def _first(self) -> None:
        if self.found.count():
            self.chosen.emit(self.found.item(0).text())


class Legend(QWidget):
    """The colors of a panel with their ends: numbers and a unit beside them, dark on light or light on dark."""

    def __init__(self) -> None:
        super().__init__()
        self._bar, self._title, self._ends = QLabel(), QLabel(), QLabel()
        self._bar.setFixedHeight(14)
        self._bar.setScaledContents(True)
        self._title.setWordWrap(True)  # or the dock is as wide as the longest title
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self._title, self._bar, self._ends):
            layout.addWidget(part)

    def show_panel(self, panel: Panel, unit: str, about: str = "") -> None:
        """The colors of a panel."""
        low, high = panel.limits
        if not isinstance(panel.colors, str):  # of categories, whose numbers are in the middle of their colors
            low, high = low + 0.5, high - 0.5
        self._title.setText(f"{about}{panel.title}{f', {unit}' if unit else ''}")
        colors = table(panel.colors)[:STEPS]
        image = QImage(STEPS, 1, QImage.Format.Format_RGB32)
        painter = QPainter(image)
        for step, (red, green, blue, _) in enumerate((colors * 255).astype(int).tolist()):
            painter.fillRect(step, 0, 1, 1, QColor(red, green, blue))
        painter.end()
        self._bar.setPixmap(QPixmap.fromImage(image))
        middle = (low + high) / 2
        middle = 0.0 if abs(middle) < 1e-6 * (high - low) else middle
        cells = "".join(
            f"<td width='33%' align='{side}'>{value:.3g}</td>"
            for side, value in (("left", low), ("center", middle), ("right", high))
        )
        self._ends.setText(f"<table width='100%'><tr>{cells}</tr></table>")


class Table(QTableWidget):
    """Numbers, and a way to copy them as text that a spreadsheet takes."""

    picked = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.frame: DataFrame | None = None
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.cellClicked.connect(lambda row, _: self.picked.emit(self.verticalHeaderItem(row).text()))

    def show_frame(self, frame: DataFrame) -> None:
        """Another table; the index is what a click names."""
        self.frame = frame
        self.setSortingEnabled(False)
        self.setRowCount(len(frame))
        self.setColumnCount(frame.shape[1])
        self.setHorizontalHeaderLabels(list(map(str, frame.columns)))
        self.setVerticalHeaderLabels(list(map(str, frame.index)))
        for row, values in enumerate(frame.itertuples(index=False)):
            for column, value in enumerate(values):
                text = f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
                self.setItem(row, column, QTableWidgetItem(text))
        self.resizeColumnsToContents()

    def copy(self) -> None:
        """All of it to the clipboard, with tabs between columns and all digits."""
        if self.frame is not None:
            QApplication.clipboard().setText(self.frame.to_csv(sep="\t"))
