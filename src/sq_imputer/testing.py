"""The contract that every model must pass; plug-ins call :func:`check_predictor` in their own tests."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch

from sq_imputer.contract import Batch, Needs, Prediction
from sq_imputer.data.genes import choose_genes
from sq_imputer.data.slide import Slide
from sq_imputer.errors import SqImputerError
from sq_imputer.models._base import Predictor
from sq_imputer.registry import ModelCard, get_model
from sq_imputer.train import Plan

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@cache
def toy_slides(n_genes: int = 12) -> tuple[Slide, ...]:
    """Two small toy sections of one patient with targets, and a third to predict: what the checks run on."""
    from sq_imputer.datasets import toy

    sections = toy(1, sections_per_patient=3, size_px=880, mpp=1.25, seed=7)
    slides = [Slide.from_sdata(sdata, section=name) for name, sdata in sections.items()]
    genes = choose_genes(slides[:2], n_genes)
    return tuple(slide.with_genes(genes) for slide in slides)


class Subject:
    """A model under test, fitted when a check first asks for it and then shared by all."""

    def __init__(self, model: type[Predictor], config, slides: tuple[Slide, ...]) -> None:
        self.model, self._config = model, config
        self.training, self.target = list(slides[:-1]), slides[-1]
        self.plan = Plan(seed=3, device="cpu", progress=False)
        self.untouched = [_content(slide) for slide in slides]

    @cached_property
    def config(self):
        """What it is checked with."""
        return self._config or self.model.Config.small()

    @cached_property
    def fitted(self) -> Predictor:
        """The model, fitted."""
        return self.fit(self.training)

    @cached_property
    def prediction(self) -> Prediction:
        """What it says of the target section."""
        return self.predict()

    def fit(self, sources: Sequence[Slide]) -> Predictor:
        """A fresh model, fitted on these sources."""
        return self.model(self.config).fit(sources, self.plan)

    def predict(self, predictor: Predictor | None = None, **how) -> Prediction:
        """The prediction of the target section."""
        return (predictor or self.fitted).predict(self.target, device="cpu", **how)


def check_predictor(model: str | type[Predictor], config=None, slides: tuple[Slide, ...] | None = None) -> list[str]:
    """Check that a model keeps the contract.

    Parameters
    ----------
    model
        Its name or class.
    config
        What to check it with; `Config.small()` if left out.
    slides
        Training sections and, last, the one to predict; toy tissue if left out.

    Returns
    -------
    Names of the checks that passed: all of :data:`CHECKS` that apply.

    Raises
    ------
    AssertionError
        With the name of the first check that failed, and why.
    """
    model = get_model(model) if isinstance(model, str) else model
    subject = Subject(model, config, slides or toy_slides())
    passed = []
    for check in CHECKS:
        try:
            check(subject)
        except Exception as error:
            what = error if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{check.__name__} of {model.__module__}.{model.__qualname__}: {what}") from error
        passed.append(check.__name__)
    return passed


def check_card(subject: Subject) -> None:
    """The card says everything; the config is a frozen dataclass with a small form, and says how to train."""
    model = subject.model
    assert isinstance(model.card, ModelCard), "card is not a ModelCard"
    for field in fields(ModelCard):
        optional = field.name in ("doi", "citation", "uncertainty")
        assert optional or getattr(model.card, field.name), f"card.{field.name} is empty"
    assert is_dataclass(model.Config) and model.Config.__dataclass_params__.frozen, "Config is not a frozen dataclass"
    assert isinstance(model.Config.small(), model.Config), "Config.small() is not a Config"
    absent = _read_in_training(model) - {field.name for field in fields(model.Config)}
    assert not absent, f"Config lacks {sorted(absent)}, which training reads"


def check_needs(subject: Subject) -> None:
    """Needs are stated."""
    assert isinstance(subject.model(subject.config).needs, Needs), "needs is not a Needs"


def check_fits(subject: Subject) -> None:
    """It can be fitted, and asked about a section it has not seen."""
    assert subject.fitted.fitted and isinstance(subject.prediction, Prediction), "there is no prediction"


def check_shapes(subject: Subject) -> None:
    """One row per row of the source, one column per gene, in float32, finite."""
    shape = len(subject.target), len(subject.fitted.genes)
    for field in fields(Prediction):
        part = getattr(subject.prediction, field.name)
        if part is not None:
            assert len(part) == shape[0], f"{field.name} has {len(part)} rows; the source has {shape[0]}"
            kind = torch.int64 if field.name == "neighbors" else torch.float32
            assert part.dtype == kind, f"{field.name} is {part.dtype}, not {kind}"
            assert part.isfinite().all(), f"{field.name} is not finite"
    assert tuple(subject.prediction.mean.shape) == shape, f"mean is {tuple(subject.prediction.mean.shape)}, not {shape}"
    std, samples = subject.prediction.std, subject.prediction.samples
    assert samples is None or samples.ndim == 3 and samples.shape[2] == shape[1], "samples are not (rows, n, genes)"
    assert std is None or (std.shape == subject.prediction.mean.shape and (std > 0).all()), "std is not positive"
    assert (std is None) == (not subject.model.card.uncertainty), "card.uncertainty and std disagree"


def check_retrieval(subject: Subject) -> None:
    """Predictions of a model that retrieves are made of the training rows that its bank names."""
    said, retrieves = subject.prediction, subject.model.retrieves
    assert (said.neighbors is not None) == retrieves, f"retrieves is {retrieves}; neighbors say otherwise"
    if not retrieves:
        return
    n = _check_bank(subject)
    assert ((said.neighbors >= -1) & (said.neighbors < n)).all(), f"neighbors lie outside of the {n} rows of bank()"
    assert said.weights is not None and said.weights.shape == said.neighbors.shape, "weights do not go with neighbors"
    assert not said.weights[said.neighbors < 0].any(), "there are weights where there is no neighbor"
    ones = torch.ones(len(said.weights))
    assert (said.weights >= 0).all() and torch.allclose(said.weights.sum(dim=1), ones, **CLOSE), "weights are no shares"
    measured = np.concatenate([slide.expression[slide.measured] for slide in subject.training])
    mean = said.mean.numpy()
    inside = (mean > measured.min(axis=0) - 1e-4) & (mean < measured.max(axis=0) + 1e-4)
    assert inside.all(), "mean lies beyond what was measured in training"


def _check_bank(subject: Subject) -> int:
    """Whether the bank names measured training rows, and where they lie. The number of its rows."""
    bank = subject.fitted.bank()
    sizes = {name: len(values) for name, values in bank.items()}
    assert len(set(sizes.values())) == 1, f"the arrays of bank() differ in length: {sizes}"
    places = {}
    for slide in subject.training:
        for row in np.flatnonzero(slide.measured):
            places[slide.section, slide.group, slide.names[row]] = slide.xy_um[row]
    named = list(zip(*(bank[name] for name in ("section", "patient", "spot")), strict=True))
    strange = [name for name in named if name not in places]
    assert not strange, f"bank() names {strange[:3]}, which are no measured training rows"
    xy_um = np.column_stack([bank["x_um"], bank["y_um"]])
    assert np.allclose(xy_um, [places[name] for name in named], atol=0.1), "x_um and y_um of bank() are not the spots'"
    return len(named)


def check_genes(subject: Subject) -> None:
    """Genes and unit are those of the training sources."""
    assert subject.fitted.genes == subject.training[0].genes, "genes differ from the training sources'"
    assert subject.fitted.unit == subject.training[0].unit, "unit differs from the training sources'"


def check_deterministic(subject: Subject) -> None:
    """Predicting twice gives the same, bit for bit."""
    _same(subject.predict(), subject.prediction, exact=True)


def check_target_unseen(subject: Subject) -> None:
    """The expression of the target does not reach its prediction."""
    blind = replace(subject.target, expression=None, genes=(), unit="")
    _same(subject.fitted.predict(blind, device="cpu"), subject.prediction, exact=True)


def check_batch_size(subject: Subject) -> None:
    """The size of the batch does not change the prediction."""
    for size in (1, 7):
        _same(subject.predict(batch_size=size), subject.prediction)


def check_one_row(subject: Subject) -> None:
    """One row alone is predicted as among others."""
    _same(subject.predict(rows=np.array([5])), subject.prediction[5:6])


def check_row_order(subject: Subject) -> None:
    """Rows asked for in another order come in that order."""
    rows = np.random.default_rng(0).permutation(len(subject.target))[:20]
    _same(subject.predict(rows=rows), subject.prediction[torch.from_numpy(rows)])


def check_sources_unchanged(subject: Subject) -> None:
    """Fitting and predicting leave the sources as they were."""
    for slide, before in zip([*subject.training, subject.target], subject.untouched, strict=True):
        after = _content(slide)
        changed = [name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)]
        assert not changed, f"{changed} of section '{slide.section}' changed"


def check_seed(subject: Subject) -> None:
    """The same seed fits the same model."""
    again = subject.fit(subject.training).state_dict()
    for name, value in subject.fitted.state_dict().items():
        assert torch.equal(again[name], value), f"two fits with one seed differ in {name}"


def check_save_load(subject: Subject) -> None:
    """A saved and loaded model is the same, and predicts the same bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        subject.fitted.save(folder)
        loaded = subject.model.load(folder)
    assert asdict(loaded.config) == asdict(subject.fitted.config), "config differs after loading"
    assert loaded.genes == subject.fitted.genes and loaded.unit == subject.fitted.unit, "genes or unit differ"
    assert loaded.provenance == subject.fitted.provenance, "provenance differs after loading"
    if loaded.retrieves:
        banks = loaded.bank(), subject.fitted.bank()
        assert all(np.array_equal(banks[0][name], values) for name, values in banks[1].items()), "bank() differs"
    _same(subject.predict(loaded), subject.prediction, exact=True)


def check_failed_fit(subject: Subject) -> None:
    """A fit that fails leaves the model as it was."""
    before = {name: value.clone() for name, value in subject.fitted.state_dict().items()}
    bad = replace(subject.training[0], expression=None)
    try:
        subject.fitted.fit([bad], subject.plan)
    except SqImputerError:
        pass
    else:
        raise AssertionError("a source without targets was accepted")
    after = subject.fitted.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "the failed fit changed weights"


def check_loss(subject: Subject) -> None:
    """The loss is finite and falls; every weight gets gradient. Models in closed form have no loss."""
    if not _by_gradient(subject.model):
        return
    history = subject.fitted.history["train"]
    assert np.isfinite(history).all(), "the training loss is not finite"
    assert history[0] - min(history) > 1e-3 * abs(history[0]), "the training loss never fell"
    predictor, batch = copy.deepcopy(subject.fitted).train(), _batch(subject)
    with torch.enable_grad():
        predictor.zero_grad()
        sum(predictor.loss(batch).values()).backward()
    still = [name for name, weight in predictor.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still, f"no gradient reaches {still}"


def check_learns(subject: Subject) -> None:
    """Genes that the image shows are predicted on another section; with shuffled targets they are not."""
    rows = np.flatnonzero(subject.target.measured)
    truth = subject.target.expression[rows]

    def explained(prediction: Prediction) -> float:
        return float(1 - ((prediction.mean.numpy()[rows] - truth) ** 2).mean() / truth.var(axis=0).mean())

    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model may say that there was nothing to learn
        blind = subject.fit([_shuffled(slide, rng) for slide in subject.training])
    real, control = explained(subject.prediction), explained(subject.predict(blind))
    assert real > 0.05, f"the share of variance explained on another toy section is {real:.2f}"
    assert control < real / 2, f"the share explained is {control:.2f} with shuffled targets, {real:.2f} with true ones"


def _same(one: Prediction, other: Prediction, *, exact: bool = False) -> None:
    for field in fields(Prediction):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if exact:
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), f"{field.name} differs"
        elif b is not None and field.name not in ("ood", "neighbors"):  # ranks: rounding may move them by one step
            torch.testing.assert_close(a, b, **CLOSE, msg=lambda text, name=field.name: f"{name} differs. {text}")


def _content(slide: Slide) -> dict[str, np.ndarray]:
    """Copies of what a model could write to."""
    counts = np.array([]) if slide.counts is None else slide.counts.data
    arrays = {"expression": slide.expression, "centers_px": slide.centers_px, "counts": counts}
    return {name: np.array(values, copy=True) for name, values in arrays.items() if values is not None}


def _shuffled(slide: Slide, rng: np.random.Generator) -> Slide:
    """The slide with the expression of its measured rows given to other measured rows."""
    expression, rows = slide.expression.copy(), np.flatnonzero(slide.measured)
    expression[rows] = expression[rng.permutation(rows)]
    return replace(slide, expression=expression)


def _by_gradient(model: type[Predictor]) -> bool:
    return model.loss is not Predictor.loss


def _read_in_training(model: type[Predictor]) -> set[str]:
    """Fields of the config that the harness reads, unless the model trains in its own way."""
    if not _by_gradient(model) or model.optimize is not Predictor.optimize:
        return set()
    steps = {"lr", "weight_decay"} if model.optimizer is Predictor.optimizer else set()
    return {"epochs", "batch_size", "validation"} | steps


def _batch(subject: Subject) -> Batch:
    rows = np.flatnonzero(subject.training[0].measured)[:32]
    return next(subject.fitted.seen(subject.training[0], 32, rows=rows))


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_card,
    check_needs,
    check_fits,
    check_shapes,
    check_retrieval,
    check_genes,
    check_deterministic,
    check_target_unseen,
    check_batch_size,
    check_one_row,
    check_row_order,
    check_sources_unchanged,
    check_seed,
    check_save_load,
    check_failed_fit,
    check_loss,
    check_learns,
)
