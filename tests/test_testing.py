"""Models that are broken in one way each, and the check that says so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import sq_imputer as sqi
from sq_imputer.testing import CHECKS, check_predictor


@dataclass(frozen=True)
class Config:
    alpha: float = 300.0

    @classmethod
    def small(cls) -> Config:
        return cls()


class Sound(sqi.Predictor):
    """Ridge on the texture of a crop: nothing is wrong with it."""

    Config = Config
    card = sqi.ModelCard("sound", "Ridge.", "None.", "Ridge.", "All.", "For tests.")

    @property
    def needs(self) -> sqi.Needs:
        return sqi.Needs(sqi.CropSpec(150.0, 64), encoders=("texture",), per_section=True)

    def build(self) -> None:
        self.register_buffer("weight", torch.zeros(self.sizes["features"], len(self.genes)))

    def optimize(self, sources, plan) -> None:
        rows = sqi.Batch.cat([b for s in sources for b in self.seen(s, 256, rows=np.flatnonzero(s.measured))])
        x, y = rows.features, rows.expression - self.expression_mean
        self.weight.copy_(torch.linalg.solve(x.T @ x + self.config.alpha * torch.eye(x.shape[1]), x.T @ y))

    def predict_step(self, batch) -> sqi.Prediction:
        return sqi.Prediction(mean=self.expression_mean + batch.features @ self.weight)


@dataclass(frozen=True)
class StepsConfig:
    lr: float = 3e-3
    weight_decay: float = 1.0
    epochs: int = 12
    batch_size: int = 64
    validation: float = 0.0

    @classmethod
    def small(cls) -> StepsConfig:
        return cls()


class Steps(Sound):
    """The same, trained by steps; nothing is wrong with it either."""

    Config = StepsConfig
    optimize = sqi.Predictor.optimize

    def build(self) -> None:
        self.weight = nn.Parameter(torch.zeros(self.sizes["features"], len(self.genes)))

    def loss(self, batch) -> dict[str, torch.Tensor]:
        said = self.expression_mean + batch.features @ self.weight
        return {"mse": (said - batch.expression).pow(2).mean()}


@dataclass(frozen=True)
class RecallConfig:
    k: int = 12

    @classmethod
    def small(cls) -> RecallConfig:
        return cls()


class Recalls(Sound):
    """The mean of the training rows that look most alike, which it names: a model that retrieves."""

    Config = RecallConfig
    retrieves = True

    def further_sizes(self, sources) -> dict[str, int]:
        return {"letters": max(len(name.encode()) for source in sources for name in source.names)}

    def build(self) -> None:
        rows = self.sizes["rows"]
        self.register_buffer("keys", torch.zeros(rows, self.sizes["features"]))
        self.register_buffer("values", torch.zeros(rows, len(self.genes)))
        self.register_buffer("spots", torch.zeros(rows, self.sizes["letters"], dtype=torch.uint8))
        self.register_buffer("section", torch.zeros(rows, dtype=torch.int64))
        self.register_buffer("xy_um", torch.zeros(rows, 2))

    def optimize(self, sources, plan) -> None:
        where = [np.flatnonzero(source.measured) for source in sources]
        seen = sqi.Batch.cat([b for s, rows in zip(sources, where, strict=True) for b in self.seen(s, 256, rows=rows)])
        self.keys.copy_(seen.features), self.values.copy_(seen.expression), self.xy_um.copy_(seen.xy_um)
        self.section.copy_(torch.from_numpy(np.repeat(np.arange(len(sources)), list(map(len, where)))))
        names = np.concatenate([source.names[rows] for source, rows in zip(sources, where, strict=True)])
        letters = np.array([name.encode() for name in names], dtype=f"S{self.sizes['letters']}")
        self.spots.copy_(torch.from_numpy(letters.view(np.uint8).reshape(self.spots.shape)))

    def predict_step(self, batch) -> sqi.Prediction:
        rows = torch.cdist(batch.features, self.keys).topk(self.config.k, largest=False).indices
        weights = torch.full(rows.shape, 1 / self.config.k)
        return sqi.Prediction(mean=self.values[rows].mean(dim=1), neighbors=rows, weights=weights)

    def bank(self) -> dict[str, np.ndarray]:
        number = self.section.numpy()
        return {
            "section": np.array(self.provenance["sections"], dtype=object)[number],
            "patient": np.array(self.provenance["groups"], dtype=object)[number],
            "spot": np.array([bytes(row).rstrip(b"\0").decode() for row in self.spots.numpy()], dtype=object),
            "x_um": self.xy_um[:, 0].numpy(),
            "y_um": self.xy_um[:, 1].numpy(),
        }


# Broken ones --------------------------------------------------------------------------------------


class NoSummary(Sound):
    card = replace(Sound.card, summary="")


class NoCard(Sound):
    card = {"name": "sound"}


class Thawed(Sound):
    @dataclass
    class Config:
        alpha: float = 300.0


class NothingSmall(Sound):
    @dataclass(frozen=True)
    class Config:
        alpha: float = 300.0


class SaysNotHowToTrain(Steps):
    @dataclass(frozen=True)
    class Config:
        lr: float = 3e-3
        epochs: int = 5

        @classmethod
        def small(cls):
            return cls()


class NeedsInWords(Sound):
    @property
    def needs(self):
        return {"crop": 150.0}


class CannotBeBuilt(Sound):
    def build(self) -> None:
        self.register_buffer("weight", torch.zeros(self.sizes["tokens"]))


class SaysATensor(Sound):
    def predict_step(self, batch):
        return super().predict_step(batch).mean


class TooFewGenes(Sound):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean[:, 1:])


class NotFinite(Sound):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean * float("nan"))


class NegativeStd(Sound):
    card = replace(Sound.card, uncertainty="None at all.")

    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, std=-torch.ones_like(mean))


class StdWithoutAWord(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, std=torch.ones_like(mean))


class AWordWithoutStd(Sound):
    card = replace(Sound.card, uncertainty="The spread of an ensemble.")


class FloatNeighbors(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, neighbors=said.neighbors.float())


class FlatSamples(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, samples=mean)


class SaysNotThatItRetrieves(Recalls):
    retrieves = False


class NamesNoNeighbors(Recalls):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean)


class BeyondTheBank(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, neighbors=said.neighbors + 1000)


class NoWeights(Recalls):
    def predict_step(self, batch):
        return replace(super().predict_step(batch), weights=None)


class WeighsNothing(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        said.neighbors[:, -1] = -1
        return said


class WeighsTooMuch(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, weights=said.weights * 1.1)


class AddsToWhatItFinds(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, mean=said.mean + 5)


class BankOfTwoLengths(Recalls):
    def bank(self):
        bank = super().bank()
        return bank | {"x_um": bank["x_um"][1:]}


class BankOfStrangers(Recalls):
    def bank(self):
        bank = super().bank()
        return bank | {"section": bank["section"] + "x"}


class BankElsewhere(Recalls):
    def bank(self):
        bank = super().bank()
        return bank | {"x_um": bank["y_um"], "y_um": bank["x_um"]}


class ForgetsItsBank(Recalls):
    remembers = False

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.remembers = True

    def bank(self):
        bank = super().bank()
        return bank if self.remembers else bank | {"spot": bank["spot"][::-1]}


class RenamesGenes(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.genes = tuple(gene.lower() for gene in self.genes)


class OwnUnit(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.unit = "log2_counts"


class DrawsWhenPredicting(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean + 0.1 * torch.randn_like(mean))


class PeeksAtTheTarget(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        if source.expression is not None:
            prediction.mean += float(np.nanmean(source.expression))
        return prediction


class CentersBatches(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean - mean.mean(dim=0))


class OnlyTheEmbeddingSeesTheBatch(Sound):
    def predict_step(self, batch):
        return replace(super().predict_step(batch), embedding=batch.features - batch.features.mean(dim=0))


class CentersWhatIsAskedFor(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.mean -= prediction.mean.mean(dim=0)
        return prediction


class SortsRows(Sound):
    def predict(self, source, *, rows=None, **how):
        return super().predict(source, rows=None if rows is None else np.sort(rows), **how)


class ScalesTheSource(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        sources[0].expression[:] *= 1.5


class DrawsWithoutSeed(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.weight += 1e-4 * torch.from_numpy(np.random.default_rng().normal(size=self.weight.shape)).float()


class KeepsAPartToItself(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.shift = 1.0

    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean + self.shift)


class ForgetsAPart(Sound):
    shift = 0.0

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.shift = 1.0

    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean + self.shift)


class FitsInPlace(Sound):
    def fit(self, sources, plan=None):
        if self.fitted:
            self.weight.zero_()
        return super().fit(sources, plan)


class AcceptsAnything(Sound):
    def fit(self, sources, plan=None):
        return super().fit(sources, plan) if sources[0].expression is not None else self


class IdleWeight(Steps):
    def build(self):
        super().build()
        self.idle = nn.Parameter(torch.ones(3))


class NeverMoves(Steps):
    def optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def build(self):
        super().build()
        self.weight.data += 0.01 * torch.randn_like(self.weight)


class SaysTheMean(Sound):
    def optimize(self, sources, plan):
        pass


class KnowsTheTissue(Sound):
    """As good with shuffled targets: its rule does not come from the training rows."""

    def optimize(self, sources, plan):
        kept = type(self).__dict__.get("kept")
        if kept is None:
            super().optimize(sources, plan)
            type(self).kept = self.weight.clone()
        else:
            self.weight.copy_(kept)


BROKEN = [
    (NoSummary, "check_card", "card.summary is empty"),
    (NoCard, "check_card", "card is not a ModelCard"),
    (Thawed, "check_card", "Config is not a frozen dataclass"),
    (NothingSmall, "check_card", "AttributeError: .* has no attribute 'small'"),
    (SaysNotHowToTrain, "check_card", r"Config lacks \['batch_size', 'validation', 'weight_decay'\]"),
    (NeedsInWords, "check_needs", "needs is not a Needs"),
    (CannotBeBuilt, "check_fits", "KeyError: 'tokens'"),
    (SaysATensor, "check_fits", "AttributeError"),
    (TooFewGenes, "check_shapes", r"mean is \(103, 11\), not \(103, 12\)"),
    (NotFinite, "check_shapes", "mean is not finite"),
    (NegativeStd, "check_shapes", "std is not positive"),
    (StdWithoutAWord, "check_shapes", "card.uncertainty and std disagree"),
    (AWordWithoutStd, "check_shapes", "card.uncertainty and std disagree"),
    (FloatNeighbors, "check_shapes", "neighbors is torch.float32, not torch.int64"),
    (FlatSamples, "check_shapes", r"samples are not \(rows, n, genes\)"),
    (SaysNotThatItRetrieves, "check_retrieval", "retrieves is False; neighbors say otherwise"),
    (NamesNoNeighbors, "check_retrieval", "retrieves is True; neighbors say otherwise"),
    (BankOfTwoLengths, "check_retrieval", "differ in length: .*'x_um': 213"),
    (BankOfStrangers, "check_retrieval", "'P1_1x', 'P1', .*no measured training rows"),
    (BankElsewhere, "check_retrieval", "x_um and y_um of bank.. are not the spots'"),
    (BeyondTheBank, "check_retrieval", "neighbors lie outside of the 214 rows of bank"),
    (NoWeights, "check_retrieval", "weights do not go with neighbors"),
    (WeighsNothing, "check_retrieval", "weights where there is no neighbor"),
    (WeighsTooMuch, "check_retrieval", "weights are no shares"),
    (AddsToWhatItFinds, "check_retrieval", "mean lies beyond what was measured in training"),
    (RenamesGenes, "check_genes", "genes differ from the training sources'"),
    (OwnUnit, "check_genes", "unit differs from the training sources'"),
    (DrawsWhenPredicting, "check_deterministic", "mean differs"),
    (PeeksAtTheTarget, "check_target_unseen", "mean differs"),
    (CentersBatches, "check_batch_size", "mean differs"),
    (OnlyTheEmbeddingSeesTheBatch, "check_batch_size", "embedding differs"),
    (CentersWhatIsAskedFor, "check_one_row", "mean differs"),
    (SortsRows, "check_row_order", "mean differs"),
    (ScalesTheSource, "check_sources_unchanged", r"\['expression'\] of section 'P1_1' changed"),
    (DrawsWithoutSeed, "check_seed", "two fits with one seed differ in weight"),
    (KeepsAPartToItself, "check_save_load", "AttributeError: .*shift"),
    (ForgetsAPart, "check_save_load", "mean differs"),
    (ForgetsItsBank, "check_save_load", "bank.. differs"),
    (FitsInPlace, "check_failed_fit", "the failed fit changed weights"),
    (AcceptsAnything, "check_failed_fit", "a source without targets was accepted"),
    (IdleWeight, "check_loss", r"no gradient reaches \['idle'\]"),
    (NeverMoves, "check_loss", "the training loss never fell"),
    (SaysTheMean, "check_learns", "the share of variance explained on another toy section is"),
    (KnowsTheTissue, "check_learns", "with shuffled targets"),
]


@pytest.fixture
def slides(toy_slides):
    """The toy slides with expression of their own, which a broken model may spoil."""
    return tuple(replace(slide, expression=slide.expression.copy()) for slide in toy_slides)


@pytest.mark.parametrize("model", [Sound, Steps, Recalls])
def test_a_sound_model_passes_every_check_without_being_registered(model, slides) -> None:
    assert check_predictor(model, slides=slides) == [check.__name__ for check in CHECKS]


@pytest.mark.parametrize(("model", "check", "message"), BROKEN, ids=[model.__name__ for model, _, _ in BROKEN])
def test_a_broken_model_fails_the_check_that_is_about_it(model, check, message, slides) -> None:
    with pytest.raises(AssertionError, match=f"(?s)^{check} of {model.__module__}.{model.__name__}: .*{message}"):
        check_predictor(model, slides=slides)


def test_every_check_is_failed_by_some_model() -> None:
    assert {check for _, check, _ in BROKEN} == {check.__name__ for check in CHECKS}


def test_a_config_can_be_given(slides) -> None:
    with pytest.raises(AssertionError, match="^check_learns of .*explained on another toy section is -"):
        check_predictor(Sound, Config(alpha=1e9), slides)


def test_slides_with_rows_that_were_not_measured_serve_too(slides) -> None:
    partly = []
    for slide in slides:
        measured = np.arange(len(slide)) % 10 > 0
        expression = np.where(measured[:, None], slide.expression, np.nan)
        partly.append(replace(slide, measured=measured, expression=expression))
    assert len(check_predictor(Sound, slides=tuple(partly))) == len(CHECKS)


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(sqi.MissingKey, match="no model 'oracle'"):
        check_predictor("oracle")


def test_toy_slides_are_two_sections_to_fit_and_one_to_predict(toy_slides) -> None:
    assert len(toy_slides) == 3 and len({slide.group for slide in toy_slides}) == 1
    assert len({slide.section for slide in toy_slides}) == 3
    assert len({slide.genes for slide in toy_slides}) == 1 and len(toy_slides[0].genes) == 12
