"""STPath: a transformer over all spots of a section, of features of GigaPath and of places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sq_imputer.contract import Batch, CropSpec, Needs, Prediction, Source
from sq_imputer.device import BatchSize, pick_device
from sq_imputer.encoders import _zoo, encoder_card
from sq_imputer.errors import BadInput
from sq_imputer.external import _base
from sq_imputer.genes.units import LOG1P_COUNTS
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.surroundings import undisturbed


@dataclass(frozen=True)
class Config(_base.Config):
    """What can be said of STPath.

    Parameters
    ----------
    coarsest_mpp
        As of all models of others.
    organ
        Of the section, such as `"Breast"`; None: not said.
    technology
        `"Spatial Transcriptomics"`, `"Visium"`, `"Visium HD"` or `"Xenium"`; None: not said.
    """

    organ: str | None = None
    technology: str | None = None


class Model(_base.External):
    """All rows of a section at once: each attends to all others."""

    Config = Config
    card = ModelCard(
        name="stpath",
        summary="Expression of 38,982 genes from H&E, by a transformer over all spots of a section.",
        paper="Huang et al., npj Digital Medicine 2025, doi:10.1038/s41746-025-02020-3",
        doi="10.1038/s41746-025-02020-3",
        established="Crops of 112 µm in 224 pixels; log(1 + counts); places scaled to the section.",
        ours="Rows that are not asked for are seen all the same: what is said of a row follows from the whole section.",
        limits="Published without a license. Up to some thousand rows. Depth stays in its unit.",
        license="none stated: all rights reserved",
    )
    spec = CropSpec(112.0, 224)
    layer_unit = LOG1P_COUNTS
    measured_unit = LOG1P_COUNTS
    _of: tuple = (None, None)  # the section that was asked about last, and what was said

    def made(self, name: str, genes: list[str] | None) -> Any:
        """The model, told organ, technology and genes."""
        self._encoder = f"{_zoo.PREFIX}{self._class.features_model_name}"
        known = {"organ_type": self.config.organ, "tech_type": self.config.technology}
        return _zoo.made(name, self._class, genes=genes, **known)

    def names_of(self, model: Any) -> Sequence[str]:
        """The genes that it was told, or all."""
        self.sizes = {"rows": 0, "features": encoder_card(self._encoder).dim}
        return model.gene_names

    @property
    def needs(self) -> Needs:
        """Features of GigaPath."""
        return Needs(self.spec, (self._encoder,))

    def answer(self, batch: Batch) -> dict[str, np.ndarray]:
        """What it says of all rows of a section."""
        try:
            return self._asked.predict(batch.features.cpu().numpy(), batch.xy_um.cpu().numpy())
        except ValueError as error:
            raise BadInput(f"'{self.card.name}' refused {len(batch)} rows of a section: {error}") from error

    @undisturbed()
    def predict(
        self, source: Source, *, rows=None, batch_size: int | BatchSize = 64, device: str = "auto"
    ) -> Prediction:
        """Rows of a section, of which all are seen."""
        if self._of[0] is not source:
            device = pick_device(device)
            every = Batch.cat(list(self.seen(source, len(source), device=device)))
            with torch.inference_mode():
                self._asked.to(device)
                mean = self.columns(self.answer(every))
            order = torch.argsort(every.index)
            self._of = source, Prediction(mean=mean[order], ood=torch.full((len(mean),), float("nan")))
        every = np.arange(len(source))
        return self._of[1][torch.from_numpy(every if rows is None else np.atleast_1d(every[rows]))]
