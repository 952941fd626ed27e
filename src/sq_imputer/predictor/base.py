"""What every model is: a card, what it needs to see, a loss or a closed form, a prediction, and a folder on disk."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import is_dataclass, replace
from functools import partial
from inspect import isabstract
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, Marks, Needs, Prediction, Source, Target
from sq_imputer.device import BatchSize, pick_device
from sq_imputer.errors import BadInput, OutOfMemory, listed
from sq_imputer.genes.knowledge import GeneKnowledge
from sq_imputer.nn.applicability import Applicability
from sq_imputer.nn.heads import spread
from sq_imputer.predictor import calibrate, encoded, taught, told, train, zero_shot
from sq_imputer.predictor.chance import Chance
from sq_imputer.predictor.config import with_names
from sq_imputer.predictor.folder import load_as, packed, write
from sq_imputer.predictor.held import hold
from sq_imputer.predictor.parts import in_order
from sq_imputer.predictor.registry import ModelCard, get_model
from sq_imputer.predictor.resolutions import settings_of, tensors_of
from sq_imputer.predictor.scaled import Apart, Scaled
from sq_imputer.predictor.sources import check_reads, check_sources, provenance, target_of
from sq_imputer.predictor.statistics import kind_of_parts, summary, take, widths_of
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.ranges import check_ranges
from sq_imputer.surroundings import undisturbed
from sq_imputer.target import CLASSES
from sq_imputer.untrusted import misfit


class Predictor(nn.Module, ABC):
    """A model of gene expression, or of another target, fitted on sources and asked about others.

    A subclass is final and named `Model`. It sets `card` and `Config`, and overrides `needs`, :meth:`build`,
    :meth:`loss` and :meth:`predict_step`; a model that is not trained by gradient steps overrides :meth:`optimize`
    instead of :meth:`loss`. Its file never touches SpatialData.

    A standard deviation that :meth:`predict_step` says is a shape: its size is measured on left-out rows
    (`sq_imputer.predictor.calibrate`), for every model alike.

    Features reach :meth:`loss` and :meth:`predict_step` scaled: by the training rows, or within each section if
    `needs.per_section`.

    Parameters
    ----------
    config
        An instance of `Config`; the defaults if left out.
    knowledge
        What is known of genes (:class:`sq_imputer.GeneKnowledge`), for models that need it. Their buffers have it of
        the genes of the fit: `gene_vectors` `(G, D)` and `gene_known` `(G,)`; `sizes["knowledge"]` is D.
    """

    card: ClassVar[ModelCard]
    Config: ClassVar[type]
    fewest_rows: ClassVar[int] = 1  # of a training step, below which it learns nothing
    retrieves: ClassVar[bool] = False  # predictions are made of training rows, which the model carries along
    std_of_mean: ClassVar[bool] = False  # `predict_step` says how uncertain the mean is; noise is added, not scaled
    draws_by_name: bool = False  # training draws by the generators of `sq_imputer.nn.drawn` alone: that saves time
    measures_error: ClassVar[bool] = False  # the fit itself makes the standard deviation of errors on left-out rows
    per_gene: ClassVar[tuple[str, ...]] = ()  # weights and buffers with a row per gene: 0 of one not fitted on

    def __init__(self, config=None, knowledge: GeneKnowledge | None = None) -> None:
        super().__init__()
        self.config = self.Config() if config is None else config
        if not isinstance(self.config, self.Config):
            raise BadInput(
                f"config of '{self.card.name}' is a {type(config).__name__}; expected {self.card.name}.Config(...)."
            )
        if is_dataclass(self.config):
            check_ranges(self.config)
            self.config = with_names(self.config)
        self.knowledge = told.checked(self, knowledge)
        self.genes: tuple[str, ...] = ()
        self.unit = ""
        self.target = Target()
        self.sizes: dict[str, int] = {}
        self.provenance: dict = {}
        self.history: dict = {}
        self.coarser: tuple[Predictor, ...] = ()  # the same fitted at coarser resolutions, finest first
        self.training_rows: tuple[Marks, ...] = ()  # of every section, so that none of them is predicted unawares

    def __repr__(self) -> str:
        """What a user asks of a model at hand: name, genes, unit, and where it was fitted."""
        if not self.fitted:
            return f"{self.card.name}, not fitted"
        known = self.provenance
        what = "genes" if self.target.is_genes else f"{self.target.kind} of {self.target.where}"
        genes = f"{len(self.genes)} {what} ({listed(self.genes, 3)}) in {self.unit}"
        said = [f"{self.card.name} of {genes}"]
        if known.get("sections"):
            said.append(f"fitted on {sum(known['rows'])} rows of {listed(known['sections'])}")
        if known.get("training_mpp"):
            said.append(f"at {known['training_mpp']:.3g} µm per pixel")
        if self.coarser:
            said.append(f"read at {listed(known.get('resolutions', []))}")
        return ", ".join(said)

    # What a model says ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the model asks to see."""

    @abstractmethod
    def build(self) -> None:
        """Make the layers, from `config`, `genes` and `sizes`; loading does so on torch's `"meta"` device first."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named parts of the training loss, which are summed."""
        raise NotImplementedError(f"{self.card.name} has no loss: it is fitted by optimize().")

    @abstractmethod
    def predict_step(self, batch: Batch) -> Prediction:
        """Predict the rows of a batch."""

    def calibrate(self, held: Iterable[Batch]) -> dict[str, Tensor]:
        """Buffers to be set by what the trained model says of rows held out of training; none by default."""
        return {}

    @property
    def averaging(self) -> float:
        """Decay of the running mean of the weights, which then replaces them; 0 for no mean."""
        return 0.0

    @property
    def mixes_sections(self) -> bool:
        """Whether a training batch may hold rows of several sections."""
        return True

    def further_sizes(self, sources: Sequence[Source]) -> dict[str, int]:
        """What :meth:`build` must know of the sources beside the number of rows and features; goes into `sizes`."""
        return {}

    def bank(self) -> dict[str, np.ndarray]:
        """The training rows that `Prediction.neighbors` counts: `section`, `patient`, `spot`, `x_um`, `y_um`."""
        raise NotImplementedError(f"{self.card.name} does not retrieve.")

    def optimizer(self):
        """AdamW with the config's `lr` and `weight_decay`."""
        return torch.optim.AdamW(self.parameters(), lr=self.config.lr, weight_decay=self.config.weight_decay)

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Set the weights: gradient steps on :meth:`loss` by the shared harness."""
        self.history = train.fit(self, sources, plan)

    def fresh(self) -> Predictor:
        """An unfitted one of the same config and knowledge."""
        return told.unfitted(type(self), self.config, self.knowledge)

    def for_parts(self) -> Predictor:
        """An unfitted one for fits on parts of the training rows, which measure the error of this fit.

        A model that chose a setting by leaving training rows out may hand it on instead of choosing anew in every part.
        """
        return self.fresh()

    # What users call ------------------------------------------------------------------------------

    def for_genes(self, genes: Sequence[str], knowledge: GeneKnowledge | None = None) -> Predictor:
        """The fitted model asked for other genes, measured or not, if it can be (`card.zero_shot`).

        Of genes that it was not fitted on what is said is ordinal (`sq_imputer.predictor.zero_shot`); the provenance
        names them (`zero_shot`). `knowledge` must be that of the fit, which a loaded model does not have.
        """
        return zero_shot.asked(self, genes, knowledge)

    @property
    def fitted(self) -> bool:
        """Whether the model has been fitted or loaded."""
        return bool(self.genes)

    @undisturbed()
    def fit(self, sources: Sequence[Source] | Source, plan: Plan | None = None) -> Predictor:
        """Fit on the measured rows of some sources.

        Parameters
        ----------
        sources
            Sources with `expression` of the same genes in the same unit (`slide.with_genes(...)`).
        plan
            How to train.

        Returns
        -------
        The predictor itself. If fitting fails or is interrupted, it is left as it was.
        """
        sources = [sources] if isinstance(sources, Source) else list(sources)
        check_sources(sources, self.card)
        check_reads(self.card, self.needs, sources)
        plan = Plan.of(plan)
        pick_device(plan.device)
        if plan.batch_size is not None and plan.batch_size < self.fewest_rows:
            told = f"'{self.card.name}' learns nothing from fewer than {self.fewest_rows} rows at a time."
            raise BadInput(f"Plan.batch_size is {plan.batch_size}; {told}")
        fresh = self.fresh()
        fresh._fit(in_order(sources), plan)
        self.__dict__.update(fresh.__dict__)
        return self

    @undisturbed()
    def predict(
        self, source: Source, *, rows=None, batch_size: int | BatchSize = 64, device: str = "auto"
    ) -> Prediction:
        """Predict rows of a source.

        Parameters
        ----------
        source
            Where to predict; its expression, if it has any, is not looked at.
        rows
            Which rows; all if left out.
        batch_size
            Rows per step; halved while the device is out of memory. The prediction does not depend on it. A
            :class:`sq_imputer.device.BatchSize` knows afterwards what fitted.
        device
            Where to run.

        Returns
        -------
        One row per row asked for, in the order asked for, on the CPU.
        """
        if not self.fitted:
            raise BadInput(
                f"'{self.card.name}' is not fitted; call .fit(sources), or load one with sq_imputer.load(folder)."
            )
        size = batch_size if isinstance(batch_size, BatchSize) else BatchSize(batch_size)
        device = pick_device(device)
        check_reads(self.card, self.needs, [source], self.sizes, self.provenance)
        encoded.check(self, source, device)
        every = np.arange(len(source))
        rows, place = np.unique(every if rows is None else np.atleast_1d(every[rows]), return_inverse=True)
        if not len(rows):
            raise BadInput(f"no row of section '{source.section}' is asked for; it has {len(source)}.")
        self.to(device).eval()
        parts, index = [], []
        batches, apart = self.seen(source, size.rows, rows=rows, device=device), Apart(self, source, device)
        for batch in track(batches, f"{self.card.name} on {source.section}", len(rows), size=len):
            index.append(batch.index)
            batch = replace(batch, key=_keys(source.section, batch.index))
            parts += size.pieces(batch, lambda rows: self._step(rows, device, apart), f"'{self.card.name}' on {device}")
        whole = Prediction.gather(parts, index)
        return whole if np.array_equal(place, np.arange(len(rows))) else whole[torch.from_numpy(place)]

    @property
    def encoded(self) -> dict[str, dict]:
        """Provenance of the encoders whose features the model was fitted on, by name, where it is known."""
        return encoded.of_fit(self.provenance, self.needs)

    def _step(self, batch: Batch, device: str, apart: Apart) -> Prediction:
        batch = replace(batch, expression=None).to(device)
        with torch.inference_mode():
            part = self.predict_step(batch)
            part.ood = apart(summary(batch))
            if self.target.kind == CLASSES:
                part.std = spread(self.target, part.mean, part.std)
            elif part.std is not None:
                said, part.std = part.std, calibrate.sized(part.std, self.std_factor, self.std_added)
                if part.samples is not None:
                    part.samples = calibrate.stretched(part.samples, part.mean, part.std, said)
        return part.cpu()

    def save(self, path: str | Path) -> None:
        """Write `model.json` and the weights into a folder, which is made if needed.

        An older model in the folder is replaced in one step: if this is interrupted, it is still there.

        Raises
        ------
        BadInput
            If there is nothing to save, a weight is not finite, or the folder holds something else than a model.
        StoreError
            If the folder cannot be written, such as on a full disk.
        """
        if not self.fitted:
            raise BadInput(f"'{self.card.name}' is not fitted; there is nothing to save.")
        tensors = tensors_of(self)
        wrong = misfit(tensors, tensors)
        if wrong:
            raise BadInput(f"'{self.card.name}' is not saved, since it could not be used: {wrong}. Fit it again.")
        write(path, settings_of(self), packed(tensors, self.training_rows))

    @property
    def sha256(self) -> str:
        """Hash of the file of weights, as `model.json` and the provenance of a prediction name it."""
        return hashlib.sha256(packed(tensors_of(self), self.training_rows)).hexdigest()

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Read a folder written by :meth:`save`; see :func:`sq_imputer.load`. The class need not be registered."""
        own = {} if isabstract(cls) else {cls.card.name: cls}
        predictor = load_as(path, lambda name: own.get(name) or get_model(name))
        if not isinstance(predictor, cls):
            raise BadInput(f"'{path}' holds a '{predictor.card.name}', not a '{cls.card.name}'. Use sq_imputer.load().")
        return predictor

    # What the harness calls -----------------------------------------------------------------------

    def seen(
        self, source: Source, batch_size: int, *, rows=None, generator=None, device: str = "auto"
    ) -> Iterator[Batch]:
        """Batches of a source as the model sees them: features scaled, targets in float32."""
        if not self.needs.encoders:
            yield from map(_in_float32, source.batches(self.needs, batch_size, rows=rows, generator=generator))
            return
        batches = source.batches(self.needs, batch_size, rows=rows, generator=generator, device=device)
        yield from map(Scaled(self, source, device), map(_in_float32, batches))

    @property
    def bytes_per_row(self) -> int:
        """Memory that one row takes in a batch."""
        needs, sizes, block = self.needs, self.sizes, max(self.needs.neighbors, 1) ** 2
        if needs.of_genes:  # bases, which are allowed, tracks
            text = needs.sequence * (2 + 4 * sizes["tracks"]) + needs.text
            return text + 4 * (sizes["extra"] + len(self.genes)) + 64
        if not needs.encoders:
            return 3 * needs.crop.size_px**2 * block + 4 * len(self.genes) + 64
        tiles = block * (sizes["features"] // len(needs.views)) if block > 1 else 0
        tokens = needs.tokens**2 * sizes.get("tokens", 0)
        maps = 8 * needs.maps_px**2 if needs.maps else 0  # bytes: two views of up to four channels
        return 4 * (sizes["features"] + tiles + tokens) + maps + 4 * len(self.genes) + 64

    def _fit(self, sources: list[Source], plan: Plan) -> None:
        self.genes, self.unit, self.target = tuple(sources[0].genes), sources[0].unit, target_of(sources[0])
        n_rows = sum(int(source.measured.sum()) for source in sources)
        widths, encoders = self._read_features(sources, plan)
        self.sizes = {"rows": n_rows, **widths, **told.choose(self), **self.further_sizes(sources)}
        held = hold(self, sources, plan.memory_mb, plan.progress)
        rows = getattr(self.config, "batch_size", None)
        size = BatchSize(1 if rows is None else plan.batch_size or rows)
        while not size.attempt(partial(self._train, taught.of(held), plan), size.rows, f"training '{self.card.name}'"):
            if size.rows < self.fewest_rows:
                few = "as few rows at a time as it learns from. Use another device, smaller crops or a smaller model."
                raise OutOfMemory(f"training '{self.card.name}' is out of memory with {few}")
            plan = replace(plan, batch_size=size.rows)
        self.eval()
        self.training_rows = tuple(source.marks(self.genes) for source in held)
        made = {"encoders": encoders, "ood_from": kind_of_parts(held)}
        self.provenance = provenance(held, plan) | made | told.provenance(self)
        calibrate.measure(self, held, plan)

    def _train(self, sources: list[Source], plan: Plan) -> bool:
        """Build and train, from the start."""
        self._take_statistics(sources)  # nothing is drawn
        with Chance(plan.seed):
            self.build()
        self.optimize(sources, plan)
        return True

    def _read_features(self, sources: list[Source], plan: Plan) -> tuple[dict[str, int], dict[str, dict]]:
        """Compute the features once, where they are needed: their number, and the provenance of their encoders."""
        if not self.needs.encoders:
            return {"features": 0, **(sources[0].sizes if self.needs.of_genes else {})}, {}
        device = pick_device(plan.device)
        widths = [widths_of(source, self.needs, device) for source in sources][0]
        return widths, encoded.of_sources(sources, self.needs, device)

    def _register_statistics(self) -> None:
        genes, width = len(self.genes), self.sizes["features"]
        widths = {"expression": genes, "feature": width} | (
            {"token": self.sizes["tokens"]} if self.needs.tokens else {}
        )
        for name, size in widths.items():
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.zeros(size))
        self.register_buffer("std_factor", torch.ones(genes))
        self.register_buffer("std_added", torch.zeros(genes))
        self.applicability = Applicability(width or 6)
        told.register(self)

    def _take_statistics(self, sources: list[Source]) -> None:
        """Mean and spread of targets and inputs over the training rows."""
        self._register_statistics()
        take(self, sources)
        told.take(self)
        if self.std_of_mean:  # until an error is measured
            self.std_added.copy_(self.expression_std)


def _keys(section: str, index: Tensor) -> Tensor:
    """A number of its own for every row of every section; where rows lie is left out, as it comes with rounding."""
    name = int.from_bytes(hashlib.sha256(section.encode()).digest()[:4], "little")
    return (name << 31) + index  # below 2**63


def _in_float32(batch: Batch) -> Batch:
    """The batch with targets in the precision of the weights."""
    return batch if batch.expression is None else replace(batch, expression=batch.expression.float())
