"""The one training harness: gradient steps, early stopping on an inner split, best weights kept."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sq_imputer.contract import Batch, Model, Source
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, check_number, listed
from sq_imputer.predictor.held import Held
from sq_imputer.progress import Bar, track
from sq_imputer.scores.splits import inner_split

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Plan:
    """How to train; what to train is the model's `Config`.

    Parameters
    ----------
    epochs
        Most passes over the rows; None for the model's own.
    batch_size
        Rows per step; None for the model's own.
    device
        `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
    precision
        `"32-true"`, `"bf16-mixed"` or `"16-mixed"`: what steps compute in, the weights having 32 bits in all of them.
        `"auto"` is bf16 on GPUs that have it and 32 bits elsewhere.
    clip
        Largest gradient norm; 0 does not clip.
    validation
        Share of rows held out to stop early: whole individuals or sections where there are several, else a block of the
        section. 0 trains for all epochs. None for the model's own.
    calibration
        Parts of the training data that are left out in turn to measure the error, which says how large a standard
        deviation is (`sq_imputer.predictor.calibrate`): so many more fits. 0 leaves it as the model says it. None
        for the model's own.
    patience
        Epochs without a better validation loss before stopping.
    refit
        Once the best number of epochs is known, train again from the start on all rows for that long.
    seed
        Initial weights, order of rows, dropout, inner split.
    memory_mb
        Rows are kept in memory if they fit into this, else streamed from the image in every epoch; 0 streams always.
    progress
        Show a progress bar where there is a terminal.
    """

    epochs: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    clip: float = 1.0
    validation: float | None = None
    calibration: int | None = None
    patience: int = 20
    refit: bool = True
    seed: int = 0
    memory_mb: int = 2048
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) is not None:
                check_number(f"Plan.{name}", getattr(self, name), 1, whole=True)
        check_number("Plan.patience", self.patience, 1, whole=True)
        check_number("Plan.seed", self.seed, 0, 2**63 - 1, whole=True)
        if self.calibration is not None:
            check_number("Plan.calibration", self.calibration, 0, whole=True)
            if self.calibration == 1:
                raise BadInput("Plan.calibration is 1; leave out 2 parts or more in turn, or 0 for none.")
        for name in ("clip", "memory_mb"):
            check_number(f"Plan.{name}", getattr(self, name))
        if self.validation is not None:
            check_number("Plan.validation", self.validation)
            if self.validation >= 1:
                raise BadInput(f"Plan.validation is {self.validation}; it is a share of the rows, from 0 to below 1.")
        if self.precision not in PRECISIONS:
            raise BadInput(f"Plan.precision is {self.precision!r}; expected one of {listed(PRECISIONS)}.")
        for name, kind in (("device", str), ("refit", bool), ("progress", bool)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise BadInput(
                    f"Plan.{name} is {value!r}; expected a {kind.__name__}, such as {getattr(Plan, name)!r}."
                )

    @classmethod
    def of(
        cls, plan: Plan | None, *, seed: int | None = None, device: str | None = None, progress: bool | None = None
    ) -> Plan:
        """The plan that a verb was given, or the default one, with what the verb was told beside it.

        Raises
        ------
        BadInput
            If it is no plan, says otherwise than an argument beside it, or names a device that is not here.
        """
        if not isinstance(plan, cls | None):
            raise BadInput(f"plan is a {type(plan).__name__}; expected sq_imputer.Plan(...), or None.")
        told = {"seed": seed, "device": device, "progress": progress}
        told = {name: value for name, value in told.items() if value is not None}
        for name, value in told.items():
            if plan is not None and getattr(plan, name) != value:
                raise BadInput(
                    f"{name} is {value!r}, but Plan.{name} is {getattr(plan, name)!r}. Leave out {name}=, or set it in "
                    "the plan alone."
                )
        found = replace(plan or cls(), **told)
        pick_device(found.device)
        return found


class Rows:
    """Training rows of several sources as an endless supply of epochs, in memory where they fit."""

    def __init__(
        self, predictor: Model, sources: Sequence[Source], rows: Sequence[np.ndarray], plan: Plan, shuffle: bool
    ):
        self.predictor, self.sources, self.rows = predictor, sources, rows
        self.size = plan.batch_size or predictor.config.batch_size
        self.seed, self.shuffle, self.epoch = plan.seed, shuffle, 0  # epochs are counted from 1
        fits = predictor.bytes_per_row * sum(map(len, rows)) <= plan.memory_mb * 2**20
        if all(isinstance(source, Held) for source in sources):  # all of one pool
            self.pool, at = sources[0].pool, [source.at(own) for source, own in zip(sources, rows, strict=True)]
            self.at = np.concatenate(at)
        else:
            self.pool = Batch.cat(list(self._all(plan.progress))) if fits else None
            self.at = np.arange(sum(map(len, rows)))

    def __len__(self) -> int:
        """Number of batches in an epoch; streamed sources do not share batches."""
        mixed = self.pool is not None and self.predictor.mixes_sections
        counts = [sum(map(len, self.rows))] if mixed else [len(rows) for rows in self.rows]
        return sum(-(-count // self.size) for count in counts)

    def _read(self, k: int, generator: np.random.Generator | None = None) -> Iterator[Batch]:
        batches = self.predictor.seen(self.sources[k], self.size, rows=self.rows[k], generator=generator)
        for batch in batches:
            yield replace(batch, section=batch.section + k)

    def _all(self, shown: bool) -> Iterator[Batch]:
        batches = (batch for k in range(len(self.sources)) for batch in self._read(k))
        return track(batches, "reading training rows", sum(map(len, self.rows)), size=len, shown=shown)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        generator = np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None
        return self._stream(generator) if self.pool is None else self._pooled(generator)

    def _pooled(self, generator: np.random.Generator | None) -> Iterator[Batch]:
        import torch

        order = self.at if generator is None else self.at[generator.permutation(len(self.at))]
        if self.predictor.mixes_sections:
            batches = [order[start : start + self.size] for start in range(0, len(order), self.size)]
        else:
            batches = self._by_section(order)
            if generator is not None:  # else sections would come one after the other
                batches = [batches[k] for k in generator.permutation(len(batches))]
        for rows in batches:
            yield self.pool[torch.from_numpy(rows)]

    def _by_section(self, order: np.ndarray) -> list[np.ndarray]:
        """Batches of one section each, all about as large: a remainder of one row could not be told from others."""
        section = self.pool.section.numpy()[order]
        parts = [order[section == k] for k in range(len(self.sources))]
        return [batch for part in parts if len(part) for batch in np.array_split(part, -(-len(part) // self.size))]

    def _stream(self, generator: np.random.Generator | None) -> Iterator[Batch]:
        """Sections interleaved in proportion to what is left of them."""
        if generator is None:
            for k in range(len(self.sources)):
                yield from self._read(k)
            return
        turns = np.concatenate([np.full(-(-len(rows) // self.size), k) for k, rows in enumerate(self.rows)])
        streams = [self._read(k, generator) for k in range(len(self.sources))]
        for k in generator.permutation(turns):
            yield next(streams[k])


def fit(predictor: Model, sources: Sequence[Source], plan: Plan) -> dict:
    """Train a built predictor in place.

    Returns
    -------
    The loss history: `train` and `validation`, one number per epoch, and `epochs`, how many the kept weights have seen.
    """
    rows = [np.flatnonzero(source.measured) for source in sources]
    _check_alone(predictor, sources, rows)
    share = predictor.config.validation if plan.validation is None else plan.validation
    held = _hold_out(sources, rows, share, plan.seed)
    start = copy.deepcopy(predictor.state_dict())
    inner, outer = rows, None
    if held is not None:
        inner = [r[~h] for r, h in zip(rows, held, strict=True)]
        outer = [r[h] for r, h in zip(rows, held, strict=True)]
    history = _run(predictor, sources, inner, outer, plan)
    found = _calibrate(predictor, sources, outer or rows, plan)
    if plan.refit and held is not None:
        predictor.load_state_dict(start)
        _run(predictor, sources, rows, None, replace(plan, epochs=history["epochs"]))
    predictor.load_state_dict(found, strict=False)
    predictor.cpu()
    return history


def _check_alone(predictor: Model, sources: Sequence[Source], rows: Sequence[np.ndarray]) -> None:
    """Say which sections have too few rows to learn from; raise `BadInput` if all have."""
    few = [] if predictor.mixes_sections else [len(r) < predictor.fewest_rows for r in rows]
    if not any(few):
        return
    names = listed(source.section for source, alone in zip(sources, few, strict=True) if alone)
    told = (
        f"'{predictor.card.name}' learns from {predictor.fewest_rows} rows or more of one section at a time, and "
        f"sections {names} have fewer"
    )
    if all(few):
        raise BadInput(f"{told}. Fit on sections with more measured rows.")
    warnings.warn(f"{told}: nothing is learned from them.", UserWarning, stacklevel=2)


def _calibrate(predictor: Model, sources: Sequence[Source], rows: Sequence[np.ndarray], plan: Plan) -> dict:
    """What the trained predictor finds on held-out rows, or on all if none were held out."""
    import torch

    from sq_imputer.predictor.chance import Chance

    device = pick_device(plan.device)
    predictor.to(device).eval()
    with torch.no_grad(), Chance(plan.seed).of(predictor):
        return predictor.calibrate(
            replace(batch, section=batch.section + k).to(device)
            for k, source in enumerate(sources)
            for batch in predictor.seen(source, min(plan.batch_size or 256, 256), rows=rows[k])
        )


def _hold_out(sources: Sequence[Source], rows: Sequence[np.ndarray], share: float, seed: int) -> list | None:
    """For every source, which of its rows validate; None if there is no validation."""
    total = sum(map(len, rows))
    if share == 0 or total * share < 2:
        return None
    groups = np.concatenate([np.full(len(r), s.group, dtype=object) for s, r in zip(sources, rows, strict=True)])
    names = [f"{k}:{s.section}" for k, s in enumerate(sources)]
    sections = np.concatenate([np.full(len(r), name, dtype=object) for name, r in zip(names, rows, strict=True)])
    xy = np.concatenate([s.xy_um[r] for s, r in zip(sources, rows, strict=True)])
    mask = inner_split(groups, sections, xy, fraction=share, seed=seed)
    return np.split(mask, np.cumsum([len(r) for r in rows])[:-1])


def _run(predictor: Model, sources, rows, held, plan: Plan) -> dict:
    """Epochs of steps; the predictor is left with the weights of the best one, or of the last without held-out rows."""
    from sq_imputer.predictor.steps import Steps  # torch is imported where it is used

    training = Rows(predictor, sources, rows, plan, shuffle=True)
    validation = Rows(predictor, sources, held, plan, shuffle=False) if held is not None else None
    epochs = plan.epochs or predictor.config.epochs
    steps = Steps(predictor.to(pick_device(plan.device)), plan.seed, plan.precision, plan.clip)
    history = {"train": [], "validation": [], "epochs": 0}
    best = None
    bar = Bar(f"training {predictor.card.name}", epochs * len(training), shown=plan.progress)
    try:
        for epoch in range(epochs):
            label = f"training {predictor.card.name}, epoch {epoch + 1}"
            history["train"].append(_mean(steps.train(training, epoch), bar, label))
            with steps.averaged():
                if validation is not None:
                    history["validation"].append(_mean(steps.validate(validation, epoch)))
                if validation is None or history["validation"][-1] <= min(history["validation"]):
                    history["epochs"] = epoch + 1
                    if validation is not None or epoch + 1 == epochs:
                        best = copy.deepcopy(predictor.state_dict())
            if epoch + 1 - history["epochs"] >= plan.patience:
                break
    finally:
        bar.stop()
    predictor.load_state_dict(best)
    predictor.eval()
    return history


def _mean(losses: Iterator[tuple[float, int]], bar: Bar | None = None, label: str = "") -> float:
    """Mean loss over the rows of an epoch, from that of every batch and its number of rows."""
    total = rows = 0
    for loss, size in losses:
        total, rows = total + loss * size, rows + size
        if bar is not None:
            bar.advance(label=label)
    return total / rows
