"""The dock that says where to believe a prediction: which genes, and in which tissue."""

from __future__ import annotations

import numpy as np
from qtpy.QtWidgets import QComboBox

from sq_imputer.errors import MissingKey
from sq_imputer.pl._compared import Panel
from sq_imputer.widget._compare import chosen_prediction, listed_predictions
from sq_imputer.widget._job import Job
from sq_imputer.widget._parts import Dock, Table, button, refill, told

UNLIKE = "unlike what was learned"
SHOWN = ["skill", "low", "high", "fdr", "reason"]


class TrustDock(Dock):
    """Which genes of a prediction can be believed, and where the tissue is unlike any that the model has seen."""

    def build(self) -> None:
        """Make the parts, once."""
        self.prediction, self.table = QComboBox(), Table()
        self.table.picked.connect(self.paint)
        self.form.addRow("Prediction", self.prediction)
        hint = "Every gene's skill given depth against that of displaced patterns; kept in the table as tl.trust does."
        for part in (
            button("Which genes can be believed", self.judge, hint),
            self.table,
            button("Copy the table", self.table.copy),
            button("Color by how unlike the tissue is", self.paint_unlike, "Near 1: unlike anything seen in training."),
        ):
            self.column.addWidget(part)

    def fill(self) -> None:
        """The predictions that there are."""
        refill(self.prediction, listed_predictions(self.desk.session))

    @told
    def judge(self) -> None:
        """Tell skill from chance, in a thread."""
        key, layer = chosen_prediction(self.prediction)
        if self.bar.busy:
            return

        def work():
            from sq_imputer.tl import trust

            found = trust(self.desk.session.sdata, layer, key=key).set_index("gene")
            return found.sort_values("skill", ascending=False)[SHOWN]

        self.write(lambda: Job(work, "telling skill from chance").start(), self.table.show_frame)

    @told
    def paint(self, gene: str) -> None:
        """Show the gene of a row."""
        self._then_shown(lambda: self.desk.paint(gene))

    @told
    def paint_unlike(self) -> None:
        """Color the rows by how unlike the tissue of training theirs is."""
        self._then_shown(self._unlike)

    def _unlike(self) -> None:
        views = self.desk.views
        column = f"{views.layer}_ood"
        if column not in views.table.obs:
            raise MissingKey(f"tables['{views.key}'].obs has no '{column}': '{views.layer}' does not say it.")
        values = views.table.obs[column].to_numpy(dtype=float)[views.rows]
        self.desk.paint_values(Panel(UNLIKE, values, "plasma", (0.0, 1.0), lambda *_: None))
        self.bar.say(f"{np.nanmean(values > 0.95):.0%} of the rows are unlike anything seen in training (above .95).")

    def _then_shown(self, then) -> None:
        """Do something about the chosen prediction once it is the one that is shown."""
        chosen = chosen_prediction(self.prediction)
        if self.desk.canvas.shown and self.desk.looks_at(*chosen):
            then()
        elif not self.bar.busy:
            job = Job(lambda: self.desk.prepare(*chosen), "the layer").start()
            self.start(job, lambda prepared: (self.desk.show(prepared), then()))
