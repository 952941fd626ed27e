"""Narrow: expression through a few shared factors.

Features are mapped to `factors` numbers and these to all genes, so that genes with few counts borrow from the others.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sq_imputer import CropSpec, ModelCard, Needs, Prediction, Predictor


@dataclass(frozen=True)
class Config:
    """What the model is made of.

    Parameters
    ----------
    factors
        Numbers that expression is made from.
    size_px
        Side of the crop, in pixels.
    lr, weight_decay, epochs, batch_size, validation
        Training.
    """

    factors: int = 16
    size_px: int = 224
    lr: float = 1e-2
    weight_decay: float = 0.1
    epochs: int = 100
    batch_size: int = 64
    validation: float = 0.15

    @classmethod
    def small(cls) -> Config:
        """For tests: small crops."""
        return cls(factors=8, size_px=64)


class Model(Predictor):
    """Expression through a few shared factors."""

    Config = Config
    card = ModelCard(
        name="narrow",
        summary="A linear map through a few factors that all genes share.",
        paper="No publication of its own.",
        established="Reduced-rank regression.",
        ours="Training by gradient steps.",
        limits="Linear in the features.",
    )

    @property
    def needs(self) -> Needs:
        """The texture of a crop of 150 µm, scaled within each section."""
        return Needs(crop=CropSpec(150.0, self.config.size_px), encoders=("texture",), per_section=True)

    def build(self) -> None:
        """The two maps."""
        self.down = nn.Linear(self.sizes["features"], self.config.factors)
        self.up = nn.Linear(self.config.factors, len(self.genes))

    def loss(self, batch):
        """Squared error, each gene in units of its own spread."""
        target = (batch.expression - self.expression_mean) / self.expression_std
        return {"mse": nn.functional.mse_loss(self.up(self.down(batch.features)), target)}

    def predict_step(self, batch) -> Prediction:
        """Back in the unit of the measurement."""
        return Prediction(mean=self.expression_mean + self.expression_std * self.up(self.down(batch.features)))
