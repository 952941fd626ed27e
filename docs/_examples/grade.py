"""Grade: classes by one linear map and a softmax. No gene comes into it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sq_imputer import CropSpec, ModelCard, Needs, Prediction, Predictor
from sq_imputer.nn import heads


@dataclass(frozen=True)
class Config:
    """How the model is trained."""

    size_px: int = 224
    lr: float = 1e-2
    weight_decay: float = 0.3
    epochs: int = 60
    batch_size: int = 64
    validation: float = 0.15

    @classmethod
    def small(cls) -> Config:
        """For tests: small crops."""
        return cls(size_px=64)


class Model(Predictor):
    """Classes by one linear map and a softmax."""

    Config = Config
    card = ModelCard(
        name="grade",
        summary="Logistic regression on the texture of a crop.",
        paper="No publication of its own.",
        established="Multinomial logistic regression.",
        ours="Nothing.",
        limits="Linear in the features.",
        uncertainty="Of a class of probability p, the square root of p(1 - p).",
        targets=("classes",),
    )

    @property
    def needs(self) -> Needs:
        """The texture of a crop of 150 µm, scaled within each section."""
        return Needs(crop=CropSpec(150.0, self.config.size_px), encoders=("texture",), per_section=True)

    def build(self) -> None:
        """A score for every class."""
        self.score = nn.Linear(self.sizes["features"], len(self.genes))

    def loss(self, batch):
        """Cross-entropy with the classes of the rows, of which `expression` is 1 in one column."""
        return {"cross_entropy": heads.cross_entropy(self.score(batch.features), batch.expression)}

    def predict_step(self, batch) -> Prediction:
        """Probabilities; how uncertain they are is said by the harness."""
        return Prediction(mean=self.score(batch.features).softmax(dim=1))
