"""The model under test, what it is fitted on and asked about, and how two answers are compared."""

from __future__ import annotations

import copy
import random
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sq_imputer.contract import Prediction
from sq_imputer.genes.knowledge import GeneKnowledge
from sq_imputer.genes.panel import choose_genes
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.told import unfitted
from sq_imputer.predictor.train import Plan
from sq_imputer.section.slide import Slide
from sq_imputer.testing._windows import Windows

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SMALL = 24  # rows of a section in the fits that need not be good; too few for fits on half of them
BATCH = 24  # rows of a step of these: an epoch has two


@cache
def toy_slides(n_genes: int = 12) -> tuple[Slide, ...]:
    """Two small toy sections of one patient with targets, and a third to predict: what the checks run on."""
    from sq_imputer.datasets import toy

    sections = toy(1, sections_per_patient=3, size_px=880, mpp=1.25, seed=7)
    slides = [Slide.from_sdata(sdata, section=name) for name, sdata in sections.items()]
    genes = choose_genes(slides[:2], n_genes)
    return tuple(slide.with_genes(genes) for slide in slides)


class Subject:
    """A model under test, fitted when a check first asks for it and then shared by all.

    Parameters
    ----------
    model
        Its class.
    config
        What to check it with; `Config.small()` if None.
    slides
        Training sections and, last, the one to predict.
    """

    def __init__(self, model: type[Predictor], config, slides: tuple[Slide, ...]) -> None:
        self.model, self._config = model, config
        self.training, self.target = list(slides[:-1]), slides[-1]
        self.plan = Plan(seed=3, device="cpu", progress=False)
        import rich.progress  # noqa: F401 draws a number when it is first imported

        self.content = [content(slide) for slide in slides]
        self.process = process()
        self.by_kind: dict[str, Predictor] = {}  # fitted on other targets than genes

    @cached_property
    def config(self):
        """What it is checked with; `given` is a copy."""
        config = self._config or self.model.Config.small()
        self.given = copy.deepcopy(config)
        return config

    def unfitted(self) -> Predictor:
        """A fresh model; one that needs knowledge of genes has that of their names."""
        needs = self.model(self.config).needs
        return unfitted(self.model, self.config, self.names if needs.knowledge else None)

    @cached_property
    def names(self) -> GeneKnowledge:
        """What is known of genes by their names."""
        return GeneKnowledge.lexical(self.target.genes)

    @cached_property
    def fitted(self) -> Predictor:
        """The model, fitted; `weights` is its state at that time."""
        predictor = self.fit(self.training)
        self.weights = state(predictor)
        return predictor

    @cached_property
    def prediction(self) -> Prediction:
        """What it says of the target section."""
        return self.predict()

    @cached_property
    def few(self) -> list[Slide]:
        """Some measured rows of every training section, a fourth of which count as not measured."""
        parts = [slide.take(np.flatnonzero(slide.measured)[:SMALL]) for slide in self.training]
        return [replace(part, measured=np.arange(len(part)) % 4 < 3) for part in parts]

    @cached_property
    def quick(self) -> Predictor:
        """The model, fitted quickly on these; it need not be good."""
        return self.fit_quickly(self.few)

    def differs(self, change: Callable[[list[Slide]], list[Slide]]) -> list[str]:
        """What differs in a quick fit on changed sources, which must not matter: weights and buffers.

        All such changes together are tried first: where they do not matter, no one of them does.
        """
        return [] if self.unmoved else changed(state(self.quick), state(self.fit_quickly(change(self.few))))

    @cached_property
    def unmoved(self) -> bool:
        """Whether a quick fit stays the same, bit for bit, when all that must not matter to it is changed at once."""
        sources = self.few
        try:
            for change in SAME:
                sources = change(sources)
            with other_states():
                return not changed(state(self.quick), state(self.fit_quickly(sources)))
        except Exception:  # noqa: BLE001 of any kind: the check that is about it says so
            return False

    def fit(self, sources: Sequence[Slide], **plan) -> Predictor:
        """A fresh model, fitted on these sources."""
        return self.unfitted().fit(sources, replace(self.plan, **plan))

    def fit_quickly(self, sources: Sequence[Slide], predictor: Predictor | None = None, **plan) -> Predictor:
        """A fresh model, or this one, fitted in two epochs; what it says of so short a training is not shown."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (predictor or self.unfitted()).fit(sources, replace(self.plan, epochs=2, batch_size=BATCH, **plan))

    def predict(self, predictor: Predictor | None = None, **how) -> Prediction:
        """The prediction of the target section."""
        return self.predict_of(self.target, predictor, **how)

    def predict_of(self, slide: Slide, predictor: Predictor | None = None, **how) -> Prediction:
        """The prediction of some section."""
        return (predictor or self.fitted).predict(slide, device="cpu", **how)

    def explained(self, prediction: Prediction, genes: Sequence[str]) -> float:
        """Share of the variance of the target section that a prediction of genes in this order explains."""
        rows = np.flatnonzero(self.target.measured)
        truth = self.target.expression[rows]
        mean = prediction.mean.numpy()[rows][:, [genes.index(gene) for gene in self.target.genes]]
        return float(1 - ((mean - truth) ** 2).mean() / truth.var(axis=0).mean())


def relisted(slides: list[Slide]) -> list[Slide]:
    """The sections, listed in another order."""
    return slides[::-1]


def renamed(slides: list[Slide]) -> list[Slide]:
    """The sections, with other names of them and their individuals."""
    return [replace(slide, section=f"x{slide.section}", group=f"x{slide.group}") for slide in slides]


def in_float64(slides: list[Slide]) -> list[Slide]:
    """The sections, with expression in float64."""
    return [replace(slide, expression=slide.expression.astype(np.float64)) for slide in slides]


def without_unmeasured(slides: list[Slide]) -> list[Slide]:
    """The sections, with no numbers in rows that were not measured."""
    return [replace(s, expression=np.where(s.measured[:, None], s.expression, np.nan)) for s in slides]


SAME = (relisted, renamed, in_float64, without_unmeasured)  # what must not matter to a fit


@contextmanager
def other_states() -> Iterator[None]:
    """Other random states of the process, for a while."""
    before = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(99), np.random.seed(99)
        yield
    np.random.set_state(before)


def by_gradient(model: type[Predictor]) -> bool:
    """Whether the model is trained on a loss; others have a closed form."""
    return model.loss is not Predictor.loss


def blank(slide: Slide | Windows, rows: np.ndarray, value: int) -> Slide | Windows:
    """Some rows of a section by themselves, on an image of one color; of windows of one letter, or of unknown bases."""
    import dask.array

    if isinstance(slide, Windows):
        return replace(slide.take(rows), blank=4 if value else 0)
    colors = tuple(dask.array.full_like(level, value) for level in slide.frame.pyramid.levels)
    frame = replace(slide.frame, pyramid=Pyramid(colors, slide.frame.pyramid.channels))
    return replace(slide.take(rows), frame=frame, anchor=None, _parent=None, _features={}, _derived={})


def content(slide: Slide | Windows) -> dict[str, np.ndarray]:
    """Copies of what a model could write to."""
    arrays = {"expression": slide.expression}
    if isinstance(slide, Slide):
        counts = np.array([]) if slide.counts is None else slide.counts.toarray()
        arrays |= {"centers_px": slide.centers_px, "counts": counts}
    return {name: np.array(values, copy=True) for name, values in arrays.items() if values is not None}


def state(predictor: Predictor) -> dict[str, Tensor]:
    """A copy of the weights and buffers."""
    return {name: value.clone() for name, value in predictor.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Names of weights and buffers that are not the same, bit for bit."""
    names = before.keys() | after.keys()
    return sorted(n for n in names if n not in before or n not in after or not torch.equal(before[n], after[n]))


def same(one: Prediction, other: Prediction, *, exact: bool = False) -> None:
    """Fail with the name of the part in which two predictions differ: by a bit, or by more than rounding."""
    for field in fields(Prediction):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if exact:
            assert (a is None) == (b is None) and (a is None or torch.equal(a, b)), f"{field.name} differs"
        elif b is not None and field.name not in ("ood", "neighbors"):  # ranks: rounding may move them by one step
            torch.testing.assert_close(a, b, **CLOSE, msg=lambda text, name=field.name: f"{name} differs. {text}")


def finite(prediction: Prediction, n_rows: int, n_genes: int) -> None:
    """Fail with the name of the part that is not finite, or if the mean has another shape."""
    shape = tuple(prediction.mean.shape)
    assert shape == (n_rows, n_genes), f"mean is {shape}, not {(n_rows, n_genes)}"
    for field in fields(Prediction):
        part = getattr(prediction, field.name)
        assert part is None or part.isfinite().all(), f"{field.name} is not finite"


def run_checks(checks: Sequence[Callable], subject: Any, whose: str) -> list[str]:
    """Names of the checks, if a subject passes them all; else an AssertionError that names the first, and why."""
    for check in checks:
        try:
            check(subject)
        except Exception as error:
            what = error if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{check.__name__} of {whose}: {what}") from error
    return [check.__name__ for check in checks]


def left_alone(before: dict[str, object], what: str) -> None:
    """Fail with what is not as it was in the process."""
    now = process()
    differ = [name for name, value in before.items() if now[name] != value]
    assert not differ, f"the {what} changes the {', the '.join(differ)} of the process"


def process() -> dict[str, object]:
    """What belongs to the whole process: random states and settings."""
    kind, keys, place, *_ = np.random.get_state()
    return {
        "random state of torch": torch.get_rng_state().numpy().tobytes(),
        "random state of numpy": (kind, keys.tobytes(), place),
        "random state of Python": random.getstate(),
        "number of threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "use of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "handler of Ctrl-C": signal.getsignal(signal.SIGINT),
    }
