"""Models that are broken in one way each, and the check that says so."""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

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
        rows = torch.cdist(batch.features, self.keys).topk(min(self.config.k, len(self.keys)), largest=False).indices
        weights = torch.full(rows.shape, 1 / rows.shape[1])
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

BROKEN = []


def fails(check: str, message: str):
    """Names the check that a broken model fails first, and what it says."""

    def add(model: type) -> type:
        BROKEN.append((model, check, message))
        return model

    return add


@fails("check_card", "card.summary is empty")
class NoSummary(Sound):
    card = replace(Sound.card, summary="")


@fails("check_card", "card is not a ModelCard")
class NoCard(Sound):
    card = {"name": "sound"}


@fails("check_card", "Config is not a frozen dataclass")
class Thawed(Sound):
    @dataclass
    class Config:
        alpha: float = 300.0


@fails("check_card", "AttributeError: .* has no attribute 'small'")
class NothingSmall(Sound):
    @dataclass(frozen=True)
    class Config:
        alpha: float = 300.0


@fails("check_card", r"Config lacks \['batch_size', 'validation', 'weight_decay'\]")
class SaysNotHowToTrain(Steps):
    @dataclass(frozen=True)
    class Config:
        lr: float = 3e-3
        epochs: int = 5

        @classmethod
        def small(cls):
            return cls()


@fails("check_needs", "needs is not a Needs")
class NeedsInWords(Sound):
    @property
    def needs(self):
        return {"crop": 150.0}


@fails("check_unfitted", "fitted is True before the fit")
class AlwaysFitted(Sound):
    fitted = True


@fails("check_unfitted", "it predicts before the fit")
class PredictsAtOnce(Sound):
    def predict(self, source, **how):
        return super().predict(source, **how) if self.fitted else sqi.Prediction(torch.zeros(len(source), 1))


@fails("check_unfitted", "it can be saved before the fit")
class SavesNothing(Sound):
    def save(self, path):
        return super().save(path) if self.fitted else None


@fails("check_fits", "KeyError: 'tokens'")
class CannotBeBuilt(Sound):
    def build(self) -> None:
        self.register_buffer("weight", torch.zeros(self.sizes["tokens"]))


@fails("check_config", r"fitting changed the config from .*300.0\) to .*1.0\)")
class ChangesItsConfig(Sound):
    def optimize(self, sources, plan):
        object.__setattr__(self.config, "alpha", 1.0)
        super().optimize(sources, plan)


@fails("check_config", "the config is .*1.0.* after the fit; given was .*300.0")
class HasAConfigOfItsOwn(Sound):
    def optimize(self, sources, plan):
        self.config = Config(alpha=1.0)
        super().optimize(sources, plan)


@fails("check_config", "needs are .*150.0.* before the fit and .*200.0.* after it")
class NeedsMoreOnceFitted(Sound):
    @property
    def needs(self):
        return replace(super().needs, crop=sqi.CropSpec(200.0 if self.genes else 150.0, 64))


@fails("check_config", "a dictionary was accepted as a config")
class TakesAnyConfig(Sound):
    def __init__(self, config=None):
        super().__init__(config if isinstance(config, Config) else None)


@fails("check_fits", "TypeError|AttributeError")
class SaysATensor(Sound):
    def predict_step(self, batch):
        return super().predict_step(batch).mean


@fails("check_shapes", r"mean is \(103, 11\), not \(103, 12\)")
class TooFewGenes(Sound):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean[:, 1:])


@fails("check_shapes", "mean keeps the graph of its computation")
class KeepsItsGraph(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.mean.requires_grad_()
        return prediction


@fails("check_shapes", "mean is not finite")
class NotFinite(Sound):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean * float("nan"))


@fails("check_uncertainty", "std is not positive")
class NegativeStd(Sound):
    card = replace(Sound.card, uncertainty="None at all.")

    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, std=-torch.ones_like(mean))


@fails("check_uncertainty", "card.uncertainty and std disagree")
class StdWithoutAWord(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, std=torch.ones_like(mean))


@fails("check_uncertainty", "card.uncertainty and std disagree")
class AWordWithoutStd(Sound):
    card = replace(Sound.card, uncertainty="The spread of an ensemble.")


class SaysAStd(Sound):
    """Its standard deviation is a constant of an arbitrary size, which the harness measures: nothing is wrong."""

    card = replace(Sound.card, uncertainty="Error on left-out training data.")

    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, std=torch.full_like(mean, 0.003))


@fails("check_calibrated", "the mean of .error / std. squared is .* on a section that was not trained on; expected 1")
class SizesItsStdByItself(SaysAStd):
    measures_error = True


@fails("check_shapes", "neighbors is torch.float32, not torch.int64")
class FloatNeighbors(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, neighbors=said.neighbors.float())


@fails("check_samples", r"samples are not \(rows, n, genes\)")
class FlatSamples(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, samples=mean)


@fails("check_samples", "samples lie farther from the mean than from each other")
class SamplesElsewhere(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean, samples=torch.stack([mean + 4.9, mean + 5.1], dim=1))


@fails("check_retrieval", "retrieves is False; neighbors say otherwise")
class SaysNotThatItRetrieves(Recalls):
    retrieves = False


@fails("check_retrieval", "retrieves is True; neighbors say otherwise")
class NamesNoNeighbors(Recalls):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean)


@fails("check_retrieval", "neighbors lie outside of the 214 rows of bank")
class BeyondTheBank(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, neighbors=said.neighbors + 1000)


@fails("check_retrieval", "weights do not go with neighbors")
class NoWeights(Recalls):
    def predict_step(self, batch):
        return replace(super().predict_step(batch), weights=None)


@fails("check_retrieval", "weights where there is no neighbor")
class WeighsNothing(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        said.neighbors[:, -1] = -1
        return said


@fails("check_retrieval", "weights are no shares")
class WeighsTooMuch(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, weights=said.weights * 1.1)


@fails("check_retrieval", "mean lies beyond what was measured in training")
class AddsToWhatItFinds(Recalls):
    def predict_step(self, batch):
        said = super().predict_step(batch)
        return replace(said, mean=said.mean + 5)


@fails("check_retrieval", "differ in length: .*'x_um': 213")
class BankOfTwoLengths(Recalls):
    def bank(self):
        bank = super().bank()
        return bank | {"x_um": bank["x_um"][1:]}


@fails("check_retrieval", "'P1_1x', 'P1', .*no measured training rows")
class BankOfStrangers(Recalls):
    def bank(self):
        bank = super().bank()
        return bank | {"section": bank["section"] + "x"}


@fails("check_retrieval", "x_um and y_um of bank.. are not the spots'")
class BankElsewhere(Recalls):
    def bank(self):
        bank = super().bank()
        return bank | {"x_um": bank["y_um"], "y_um": bank["x_um"]}


@fails("check_save_load", "bank.. differs")
class ForgetsItsBank(Recalls):
    remembers = False

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.remembers = True

    def bank(self):
        bank = super().bank()
        return bank if self.remembers else bank | {"spot": bank["spot"][::-1]}


@fails("check_genes", "genes differ from the training sources'")
class RenamesGenes(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.genes = tuple(gene.lower() for gene in self.genes)


@fails("check_genes", "unit differs from the training sources'")
class OwnUnit(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.unit = "log2_counts"


@fails("check_provenance", r"provenance\['sections'\] is \[\]; expected \['P1_1', 'P1_2'\]")
class ForgetsWhereItComesFrom(Sound):
    def fit(self, sources, plan=None):
        super().fit(sources, plan).provenance["sections"] = []
        return self


@fails("check_provenance", "provenance does not survive JSON")
class RemembersTuples(Sound):
    def fit(self, sources, plan=None):
        super().fit(sources, plan).provenance["seeds"] = (1, 2)
        return self


@fails("check_provenance", "TypeError: Object of type float32 is not JSON serializable")
class HistoryOfNumpy(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.history = {"loss": np.float32(1)}


@fails("check_state", "weight is torch.float64")
class Doubles(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.weight = self.weight.double()

    def predict_step(self, batch):
        return sqi.Prediction(mean=self.expression_mean + batch.features @ self.weight.float())


@fails("check_state", "floor is not finite")
class InfiniteInside(Sound):
    def build(self):
        super().build()
        self.register_buffer("floor", torch.tensor(-torch.inf))


@fails("check_deterministic", "mean differs")
class DrawsWhenPredicting(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean + 0.1 * torch.randn_like(mean))


@fails("check_no_memory", "mean differs")
class LeansOnTheLastSection(Sound):
    last = ""

    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.mean += self.last not in ("", source.section)
        self.last = source.section
        return prediction


@fails("check_model_unchanged", "predicting changes count")
class CountsWhatItSees(Sound):
    def build(self):
        super().build()
        self.register_buffer("count", torch.zeros(()))

    def predict_step(self, batch):
        self.count += len(batch)
        return super().predict_step(batch)


@fails("check_model_unchanged", "the model is left in training mode")
class GoesOnTraining(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        self.train()
        return prediction


@fails("check_training_mode", "mean differs")
class MindsItsMode(Sound):
    def predict(self, source, **how):
        trains = self.training
        prediction = super().predict(source, **how)
        prediction.mean += trains
        return prediction


@fails("check_batch_unchanged", "predict_step writes to features of its batch")
class WritesToItsBatch(Sound):
    def predict_step(self, batch):
        batch.features.clamp_(-1, 1)
        return super().predict_step(batch)


@fails("check_target_unseen", "mean differs")
class PeeksAtTheTarget(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        if source.expression is not None:
            prediction.mean += float(np.nanmean(source.expression))
        return prediction


@fails("check_target_labels", "mean differs")
class ReadsLabels(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.mean += len(source.group)
        return prediction


@fails("check_batch_size", "mean differs")
class CentersBatches(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean - mean.mean(dim=0))


@fails("check_batch_size", "embedding differs")
class OnlyTheEmbeddingSeesTheBatch(Sound):
    def predict_step(self, batch):
        return replace(super().predict_step(batch), embedding=batch.features - batch.features.mean(dim=0))


@fails("check_one_row", "mean differs")
class CentersWhatIsAskedFor(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.mean -= prediction.mean.mean(dim=0)
        return prediction


@fails("check_row_order", "mean differs")
class SortsRows(Sound):
    def predict(self, source, *, rows=None, **how):
        return super().predict(source, rows=None if rows is None else np.sort(rows), **how)


@fails("check_repeated_rows", "mean differs")
class GivesEveryRowOnce(Sound):
    def predict(self, source, *, rows=None, **how):
        return super().predict(source, rows=None if rows is None else np.array(list(dict.fromkeys(rows))), **how)


@fails("check_mask", "mean differs")
class TakesMasksForNumbers(Sound):
    def predict(self, source, *, rows=None, **how):
        return super().predict(source, rows=None if rows is None else np.asarray(rows, dtype=int), **how)


@fails("check_no_rows", "no row was asked for, and none refused")
class SaysNothingOfNothing(Sound):
    def predict(self, source, *, rows=None, **how):
        none = rows is not None and not len(rows)
        return sqi.Prediction(torch.zeros(0, 12)) if none else super().predict(source, rows=rows, **how)


@fails("check_row_isolated", "mean differs")
class GivesUpOnABatch(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean if mean.isfinite().all() else self.expression_mean.expand(mean.shape))


@fails("check_row_isolated", "what a row looks like does not change its prediction")
class DoesNotLook(Sound):
    def predict_step(self, batch):
        return sqi.Prediction(mean=self.expression_mean.repeat(len(batch), 1))


@fails("check_blank_image", "mean is not finite")
class FailsFarOut(Sound):
    def predict_step(self, batch):
        far = batch.features.abs().amax(dim=1, keepdim=True) == 10
        return sqi.Prediction(mean=super().predict_step(batch).mean / ~far)


@fails("check_section_of_one_row", "mean is not finite")
class ScalesByTheSection(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.mean /= len(source) > 1
        return prediction


@fails("check_applicability", "ood lies from 1.[0-9]+ to [12]")
class StrangeFromTheStart(Sound):
    def predict(self, source, **how):
        prediction = super().predict(source, **how)
        prediction.ood += 1
        return prediction


@fails("check_applicability", "ood is 0.50 on black, 0.50 on training rows")
class KnowsEverything(Sound):
    def predict(self, source, **how):
        return replace(super().predict(source, **how), ood=torch.full((len(source),), 0.5))


@fails("check_other_genes", r"mean is \(103, 12\), not \(103, 13\)")
class AnswersOnlyForItsOwn(Sound):
    card = replace(Sound.card, zero_shot=True)

    def for_genes(self, genes, knowledge=None):
        return self


@fails("check_sources_unchanged", r"\['expression'\] of section 'P1_1' changed")
class ScalesTheSource(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        sources[0].expression[:] *= 1.5


@fails("check_seed", "two fits with one seed differ in weight")
class DrawsWithoutSeed(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.weight += 1e-4 * torch.from_numpy(np.random.default_rng().normal(size=self.weight.shape)).float()


@fails("check_another_seed", "two seeds gave the same weights; Plan.seed is not used")
class HasASeedOfItsOwn(Steps):
    def optimize(self, sources, plan):
        super().optimize(sources, replace(plan, seed=0))


@fails("check_listing", "sections listed in another order give another weight")
class TakesTheFirstSection(Sound):
    def fit(self, sources, plan=None):
        fitted = super().fit(sources, plan)
        fitted.weight[0] += sources[0].expression.mean() if isinstance(sources, list) else 0
        return fitted


@fails("check_refit", "fit does not return the model itself")
class ReturnsACopy(Sound):
    def fit(self, sources, plan=None):
        return copy.deepcopy(super().fit(sources, plan))


@fails("check_refit", "a second fit differs from a first one in weight")
class GoesOnFromTheLastFit(Sound):
    def fit(self, sources, plan=None):
        last = self.weight if self.fitted else 0
        super().fit(sources, plan).weight.add_(last)
        return self


@fails("check_models_apart", "mean differs")
class SharesItsWeights(Sound):
    shared = {}

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.shared["weight"] = self.weight

    def predict_step(self, batch):
        return sqi.Prediction(mean=self.expression_mean + batch.features @ self.shared["weight"])


@fails("check_unmeasured_rows", "the expression of rows that were not measured changes weight")
class ReadsEveryRow(Sound):
    def optimize(self, sources, plan):
        super().optimize([replace(source, measured=np.ones(len(source), dtype=bool)) for source in sources], plan)


@fails("check_training_labels", "other names of sections and individuals change weight")
class SortsByName(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.weight += 1e-3 * len(sources[0].section)


@fails("check_float64", "RuntimeError")
class AssumesFloat32(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.weight += (
            0 * torch.from_numpy(sources[0].expression[sources[0].measured][0]) @ torch.zeros(len(self.genes))
        )


@fails("check_one_gene", r"mean is \(103,\), not \(103, 1\)")
class Squeezes(Sound):
    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean.squeeze(1))


@fails("check_flat_genes", "mean is not finite")
class DividesByTheSpread(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        spread = torch.from_numpy(np.concatenate([s.expression[s.measured] for s in sources]).astype("f").std(axis=0))
        self.weight.div_(spread).mul_(spread)


@fails("check_two_rows", "ValueError: too few rows")
class NeedsThreeRows(Sound):
    def optimize(self, sources, plan):
        if self.sizes["rows"] < 3:
            raise ValueError("too few rows")
        super().optimize(sources, plan)


@fails("check_save_load", "AttributeError: .*shift")
class KeepsAPartToItself(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.shift = 1.0

    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean + self.shift)


@fails("check_save_load", "mean differs")
class ForgetsAPart(Sound):
    shift = 0.0

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.shift = 1.0

    def predict_step(self, batch):
        return sqi.Prediction(mean=super().predict_step(batch).mean + self.shift)


@fails("check_failed_fit", "the failed fit changed weights")
class FitsInPlace(Sound):
    def fit(self, sources, plan=None):
        if self.fitted:
            self.weight.zero_()
        return super().fit(sources, plan)


@fails("check_failed_fit", "a source without targets was accepted")
class AcceptsAnything(Sound):
    def fit(self, sources, plan=None):
        return super().fit(sources, plan) if sources[0].expression is not None else self


@fails("check_interrupted_fit", "Ctrl-C in loss was swallowed")
class SwallowsCtrlC(Steps):
    def optimize(self, sources, plan):
        with contextlib.suppress(KeyboardInterrupt):
            super().optimize(sources, plan)


@fails("check_interrupted_fit", "Ctrl-C in optimize changes the weights of a fitted model")
class RestoresAfterErrorsOnly(Sound):
    def fit(self, sources, plan=None):
        before = self.weight.clone() if self.fitted else None
        try:
            if self.fitted:
                self.weight.zero_()
            return super().fit(sources, plan)
        except Exception:
            self.weight.copy_(before)
            raise


@fails("check_interrupted_fit", "Ctrl-C in optimize changes genes, provenance or history of a fitted model")
class ForgetsFirst(Sound):
    def fit(self, sources, plan=None):
        if sources[0].expression is not None:
            self.provenance = {}
        return super().fit(sources, plan)


@fails("check_interrupted_fit", "Ctrl-C in optimize leaves a new model half fitted")
class TakesGenesFirst(Sound):
    def fit(self, sources, plan=None):
        self.genes = sources[0].genes
        return super().fit(sources, plan)


@fails("check_folder", r"a saved model has the files \['extra.pkl'\]")
class PicklesAPart(Sound):
    def save(self, path):
        super().save(path)
        (Path(path) / "extra.pkl").touch()


@fails("check_copy", "TypeError: cannot pickle")
class HoldsALock(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.lock = threading.Lock()


@fails("check_training_rows", "rows holds the expression of 214 training rows, but retrieves is False")
class KeepsRows(Sound):
    def build(self):
        super().build()
        self.register_buffer("rows", torch.zeros(self.sizes["rows"], len(self.genes)))

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.rows.copy_(torch.from_numpy(np.concatenate([s.expression[s.measured] for s in sources])))


@fails("check_loss", r"no gradient reaches \['idle'\]")
class IdleWeight(Steps):
    def build(self):
        super().build()
        self.idle = nn.Parameter(torch.ones(3))


@fails("check_loss", "the training loss never fell")
class NeverMoves(Steps):
    def optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def build(self):
        super().build()
        self.weight.data += 0.01 * torch.randn_like(self.weight)


@fails("check_learns", "the share of variance explained on another toy section is")
class SaysTheMean(Sound):
    def optimize(self, sources, plan):
        pass


@fails("check_learns", "with shuffled targets")
class KnowsTheTissue(Sound):
    """As good with shuffled targets: its rule does not come from the training rows."""

    kept = {}

    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.weight.copy_(self.kept.setdefault(len(self.genes), self.weight.clone()))


@fails("check_order", "genes do not keep the order of the sources")
class SortsGenes(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        self.genes = tuple(sorted(self.genes)) if self.genes[0] > self.genes[-1] else self.genes


@fails("check_order", "rows and genes in another order: the share explained is -")
class KnowsOneOrderOfGenes(Sound):
    def predict_step(self, batch):
        mean = super().predict_step(batch).mean
        return sqi.Prediction(mean=mean if self.genes[0] < self.genes[-1] else mean.flip(1))


@fails("check_order", "rows and genes in another order: the share explained is")
class TakesRowsForSorted(Sound):
    def optimize(self, sources, plan):
        sorted_rows = [np.lexsort(source.centers_px.T) for source in sources]
        pairs = zip(sources, sorted_rows, strict=True)
        super().optimize([replace(source, expression=source.expression[rows]) for source, rows in pairs], plan)


@fails("check_process_unchanged", "the model changes the random state of torch of the process")
class SeedsTheProcess(Sound):
    def optimize(self, sources, plan):
        super().optimize(sources, plan)
        torch.manual_seed(plan.seed)


@fails("check_kinds", r"card.targets names \['proteins'\]; there are")
class UnknownKind(Sound):
    card = replace(Sound.card, targets=("genes", "proteins"))


@fails("check_kinds", "shares of classes go down to -")
class SharesBelowZero(Sound):
    card = replace(Sound.card, targets=("genes", "classes"))

    def predict_step(self, batch):
        said = super().predict_step(batch).mean
        return sqi.Prediction(mean=said if self.target.is_genes else 3 * said - 2 * said.mean())


@fails("check_kinds", "shares of composition sum to up to .* away from 1")
class SharesBesideOne(Sound):
    card = replace(Sound.card, targets=("genes", "composition"))

    def predict_step(self, batch):
        said = super().predict_step(batch).mean
        return sqi.Prediction(mean=said if self.target.is_genes else said.sigmoid())


class Shares(SharesBesideOne):
    def predict_step(self, batch):
        said = super().predict_step(batch).mean
        return sqi.Prediction(mean=said if self.target.is_genes else said / said.sum(dim=1, keepdim=True))


@fails("check_target_kept", "the target of kind composition differs after loading")
class ForgetsItsTarget(Shares):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        loaded.target = sqi.Target()
        return loaded


@fails("check_other_kinds", "a target of kind numbers was fitted, which card.targets does not name")
class TakesAnything(Sound):
    def fit(self, sources, plan=None):
        return super().fit([replace(one, target=sqi.Target()) for one in sources], plan)


@pytest.fixture
def slides(toy_slides):
    """The toy slides with expression of their own, which a broken model may spoil."""
    return tuple(replace(slide, expression=slide.expression.copy()) for slide in toy_slides)


@pytest.mark.parametrize("model", [Sound, Steps, Recalls, SaysAStd, Shares])
def test_a_sound_model_passes_every_check_without_being_registered(model, slides) -> None:
    assert check_predictor(model, slides=slides) == [check.__name__ for check in CHECKS]


@pytest.mark.parametrize(("model", "check", "message"), BROKEN, ids=[model.__name__ for model, _, _ in BROKEN])
def test_a_broken_model_fails_the_check_that_is_about_it(model, check, message, slides) -> None:
    expected = f"(?s)^{check} of {model.__module__}.{model.__name__}: .*{message}"
    with torch.enable_grad(), pytest.raises(AssertionError, match=expected):
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


PACKAGE = """
from dataclasses import dataclass

from torch import nn
from sq_imputer import CropSpec, ModelCard, Needs, Prediction, Predictor, register_model


@dataclass(frozen=True)
class Config:
    lr: float = 1e-2
    weight_decay: float = 0.1
    epochs: int = 60
    batch_size: int = 64
    validation: float = 0.0

    @classmethod
    def small(cls):
        return cls()


@register_model
class Model(Predictor):
    Config = Config
    card = ModelCard("of_others", "A line.", "None.", "Linear regression.", "All.", "A toy.")

    @property
    def needs(self):
        return Needs(CropSpec(150.0, 64), ("texture",), per_section=True)

    def build(self):
        self.norm = nn.BatchNorm1d(self.sizes["features"])
        self.line = nn.Linear(self.sizes["features"], len(self.genes))

    def said(self, batch):
        return self.expression_mean + self.expression_std * self.line(self.norm(batch.features))

    def loss(self, batch):
        return {"mse": ((self.said(batch) - batch.expression) / self.expression_std).pow(2).mean()}

    def predict_step(self, batch):
        return Prediction(mean=self.said(batch))
"""


@pytest.mark.parametrize(
    ("written", "instead", "message"),
    [
        ("", "", None),
        (
            "        return Prediction(mean",
            "        self.norm.train()\n        return Prediction(mean",
            "model_unchanged",
        ),
        ("genes))\n", "genes)).double()\n", "fits of package_of_others.Model: RuntimeError: .*(?i:dtype)"),
    ],
    ids=["sound", "forgotten evaluation mode", "wrong precision"],
)
def test_a_package_of_others_is_checked_by_the_name_it_registers(written, instead, message, tmp_path, monkeypatch):
    monkeypatch.setattr("sq_imputer.predictor.registry._registered", {})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "package_of_others", raising=False)
    (tmp_path / "package_of_others.py").write_text(PACKAGE.replace(written, instead, 1))
    importlib.import_module("package_of_others")
    if message is None:
        assert len(check_predictor("of_others")) == len(CHECKS) >= 30
    else:
        with pytest.raises(AssertionError, match=f"^check_{message}"):
            check_predictor("of_others")


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    with pytest.raises(sqi.MissingKey, match="no model 'oracle'"):
        check_predictor("oracle")


def test_toy_slides_are_two_sections_to_fit_and_one_to_predict(toy_slides) -> None:
    assert len(toy_slides) == 3 and len({slide.group for slide in toy_slides}) == 1
    assert len({slide.section for slide in toy_slides}) == 3
    assert len({slide.genes for slide in toy_slides}) == 1 and len(toy_slides[0].genes) == 12
