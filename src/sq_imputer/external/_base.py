"""What models of others have in common: they come fitted, with genes, a unit and terms of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, CropSpec, Needs, Prediction, Source
from sq_imputer.encoders import _zoo
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.base import Predictor
from sq_imputer.ranges import within

TASKS = ("feature_prediction", "tile_prediction")


@dataclass(frozen=True)
class Config:
    """What can be said of a model that is fitted.

    Parameters
    ----------
    coarsest_mpp
        Coarsest resolution, in µm per pixel, of a section that it is asked about; 1.5 times that of its crops if None.
    """

    coarsest_mpp: float | None = within(None, above=0, whole=False)


class External(Predictor):
    """A model that was fitted elsewhere, by others, and is asked as it is.

    `unit` is that of what was measured, which is written and scored beside the prediction; `layer_unit` that of the
    prediction. Where these differ, :func:`sq_imputer.tl.score` scores no errors.
    """

    Config = Config
    spec: ClassVar[CropSpec]
    layer_unit: ClassVar[str]
    measured_unit: ClassVar[str] = LOG1P_CP10K
    stain: ClassVar[str] = "as it is"

    def __init__(self, config=None, genes: Sequence[str] | None = None) -> None:
        super().__init__(config)
        name = f"{_zoo.PREFIX}{self.card.name}"
        self._class = _zoo.model_of(name, TASKS)
        known = _zoo.terms(self._class)
        _zoo.warn_of_terms(name, known["license"], known["commercial"])
        self.sizes = {"rows": 0, "features": 0}
        self._asked = self.made(name, None if genes is None else list(genes))
        has = tuple(map(str, self.names_of(self._asked)))
        self.genes = has if genes is None else _these(genes, has, self.card.name)
        self.unit = self.measured_unit
        self.applicability, self._digest = _Unknown(), _zoo.provenance(name, self._asked).get("sha256", "")
        self.provenance = {
            **{key: [] for key in ("sections", "groups", "fingerprints", "rows", "pixels", "library_genes")},
            "external": True,
            "library": _zoo.provenance(name, None)["library"],
            "layer_unit": self.layer_unit,
            "stain": self.stain,
            "ood": "missing: only its training data, which are its authors', would tell",
            "training_mpp": self.spec.mpp,
            "coarsest_mpp": self.config.coarsest_mpp or 0.0,
            **self.terms,
        }

    # What an adapter says -------------------------------------------------------------------------

    @property
    def terms(self) -> dict[str, Any]:
        """License, commercial use and gate, of all that the prediction is made by."""
        return _zoo.terms(self._class)

    def made(self, name: str, genes: list[str] | None) -> Any:
        """The model of the library, with its weights; `genes` where it is told which."""
        return _zoo.made(name, self._class)

    @abstractmethod
    def names_of(self, model: Any) -> Sequence[str]:
        """The genes that it answers for."""

    @abstractmethod
    def answer(self, batch: Batch) -> dict[str, np.ndarray]:
        """`(B,)` of every gene, of the crops or features of a batch."""

    # What the contract asks -----------------------------------------------------------------------

    @property
    def needs(self) -> Needs:
        """Crops at the resolution that it was made for."""
        return Needs(self.spec)

    def build(self) -> None:
        """Nothing: the library has built it."""

    def predict_step(self, batch: Batch) -> Prediction:
        self._asked.to(batch.index.device)
        return Prediction(mean=self.columns(self.answer(batch)).to(batch.index.device))

    def columns(self, said: dict[str, np.ndarray]) -> Tensor:
        """`(B, G)` of the genes in question."""
        return torch.from_numpy(np.stack([np.asarray(said[gene], dtype=np.float32) for gene in self.genes], axis=1))

    def fit(self, sources, plan=None) -> Predictor:
        """Refused."""
        raise BadInput(f"'{self.card.name}' comes fitted: ask it by tl.predict(sdata, 'zoo:{self.card.name}').")

    def save(self, path) -> None:
        """Refused: its weights are the library's."""
        raise BadInput(f"'{self.card.name}' is kept by {_zoo.PACKAGE}; name it again: 'zoo:{self.card.name}'.")

    @property
    def sha256(self) -> str:
        """Hash of its weights; empty where the library does not show them."""
        return self._digest

    def seen(
        self, source: Source, batch_size: int, *, rows=None, generator=None, device: str = "auto"
    ) -> Iterator[Batch]:
        """Batches as they are: features that it was made for are not scaled."""
        yield from source.batches(self.needs, batch_size, rows=rows, generator=generator, device=device)


class _Unknown(nn.Module):
    """How unlike the training rows a row is: not known, as these are the authors'."""

    def forward(self, seen_NF: Tensor) -> Tensor:
        return torch.full((len(seen_NF),), float("nan"), device=seen_NF.device)


def _these(genes: Sequence[str], known: Sequence[str], name: str) -> tuple[str, ...]:
    """The genes asked for, which the model must have."""
    has = set(known)
    missing = [gene for gene in genes if gene not in has]
    if missing or not len(genes):
        raise MissingKey(
            f"'{name}' does not predict {len(missing)} of {len(genes)} genes ({listed(missing)}); its {len(known)} are "
            f"called as {listed(known, 3)}. Leave them out, or call them as it does."
        )
    return tuple(genes)
