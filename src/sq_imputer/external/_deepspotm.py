"""DeepSpot-M: a crop, and a decoder that is asked for genes by their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sq_imputer.contract import Batch, CropSpec
from sq_imputer.encoders import _zoo
from sq_imputer.external import _base
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.ranges import one_of

SOURCES = ("scgpt", "evo2", "orthrus", "prott5", "apertus")


@dataclass(frozen=True)
class Config(_base.Config):
    """What can be said of DeepSpot-M.

    Parameters
    ----------
    coarsest_mpp
        As of all models of others.
    source
        Whose embeddings of the genes its decoder is asked by.
    """

    source: str = one_of("scgpt", SOURCES)


class Model(_base.External):
    """Every crop of 112 µm by itself."""

    Config = Config
    card = ModelCard(
        name="deepspotm",
        summary="Expression of about 19,000 genes from H&E, of many tissues, by a decoder asked for genes.",
        paper="Nonchev et al., medRxiv 2026, doi:10.64898/2026.06.19.26356060",
        doi="10.64898/2026.06.19.26356060",
        established="Crops of 224 pixels at about 0.5 µm per pixel; log(1 + counts per million).",
        ours="Nothing but the crops.",
        limits="Not for commercial use. Its unit is another than that of measured counts here: scored by rank.",
        license="PolyForm-Noncommercial-1.0.0 (code) and CC-BY-NC-SA-4.0 (weights)",
    )
    spec = CropSpec(112.0, 224)
    layer_unit = "log1p_cpm"

    def made(self, name: str, genes: list[str] | None) -> Any:
        """The model, told which genes it will be asked for: others are not computed."""
        model = _zoo.made(name, self._class, source=self.config.source)
        self._known = tuple(model.columns)
        if genes is not None and set(genes) <= set(self._known):
            model.genes, model.columns = genes, tuple(genes)
        self._transform = _zoo.batched(model.get_transform())
        return model

    def names_of(self, model: Any) -> Sequence[str]:
        """Its whole panel."""
        return self._known

    def answer(self, batch: Batch) -> dict[str, np.ndarray]:
        """What it says of the crops, as its own transform makes them."""
        return self._asked.predict(batch.crops if self._transform is None else self._transform(batch.crops))
