"""Path2Space: features of CTransPath of a stain-normalized crop, and an ensemble of networks on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sq_imputer.contract import Batch, CropSpec
from sq_imputer.encoders import _zoo
from sq_imputer.external._base import External
from sq_imputer.pixels.stains import normalized
from sq_imputer.predictor.registry import ModelCard


class Model(External):
    """Every crop of 100 µm by itself."""

    card = ModelCard(
        name="path2space",
        summary="Expression of breast cancer from H&E, by 154 networks on features of CTransPath.",
        paper="Shulman et al., Cell 2026, doi:10.1016/j.cell.2026.04.023",
        doi="10.1016/j.cell.2026.04.023",
        established="Crops of 100 µm, each normalized to one stain by its own two stain vectors (Macenko et al. 2009).",
        ours="Normalization written afresh; crops without stain stay as they are; nothing is smoothed over neighbors.",
        limits="Fitted on breast cancer. The unit is not stated where its weights are published: scored by rank.",
        license="Apache-2.0; its encoder CTransPath GPL-3.0",
    )
    spec = CropSpec(100.0, 224)
    layer_unit = "not stated by its authors"
    stain = "normalized crop by crop"

    def made(self, name: str, genes: list[str] | None) -> Any:
        """The ensemble, and the encoder that it was fitted on."""
        encoder = f"{_zoo.PREFIX}{self._class.features_model_name}"
        self._encoder = _zoo.Zoo(_zoo.zoo_card(encoder), _zoo.made(encoder, _zoo.model_of(encoder)))
        _zoo.warn_of_terms(encoder, self._encoder.card.license, self._encoder.card.commercial)
        return super().made(name, genes)

    @property
    def terms(self) -> dict[str, Any]:
        """Those of the ensemble and of its encoder."""
        own, encoder = super().terms, self._encoder.card
        return {
            "license": f"{own['license']}; its encoder {encoder.license}",
            "commercial": own["commercial"] and encoder.commercial,
            "gated": own["gated"] or encoder.gated,
        }

    def names_of(self, model: Any) -> Sequence[str]:
        """The genes of the ensemble."""
        return model.genes

    def answer(self, batch: Batch) -> dict[str, np.ndarray]:
        """What the ensemble says of the crops in one stain."""
        crops = batch.crops.cpu().numpy()
        alike = torch.from_numpy(np.stack([normalized(crop) for crop in crops]))
        return self._asked.predict(self._encoder(alike.to(batch.crops.device)))
