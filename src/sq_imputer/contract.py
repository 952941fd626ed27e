"""The nouns that readers, models and writers share: what a model asks to see, sees, and gives back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sq_imputer.needs import CropSpec, Needs, Views
from sq_imputer.target import Target

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["Batch", "CropSpec", "Marks", "Model", "Needs", "Prediction", "Source", "Target", "Views", "WholeSlide"]


@dataclass(eq=False)
class WholeSlide:
    """All rows of a section, for models that look at it as a whole: once per section and step, not once per row.

    Parameters
    ----------
    tokens
        `(N, F)` features of every row.
    places
        `(N, 2)` whole numbers, column and row of the lattice that the rows lie on, along x and y of the section;
        neighbors differ by 1. Cells on no lattice may share a place. On a hexagonal lattice they are axial: its six
        neighbors are at (±1, 0), (0, ±1), (1, -1) and (-1, 1).
    hexagonal
        Which axis the rows of a hexagonal lattice run along, 0 for x and 1 for y: the first place counts
        along it. -1: the lattice is square, or there is none.
    """

    tokens: Tensor
    places: Tensor
    hexagonal: int = -1

    def __post_init__(self) -> None:
        self._kept: dict = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device) -> WholeSlide:
        """The rows on another device, taken there once."""
        if self.tokens.device.type == str(device).partition(":")[0]:
            return self
        return self.once(("to", str(device)), lambda: self._moved(device))

    def _moved(self, device) -> WholeSlide:
        return replace(self, tokens=self.tokens.to(device), places=self.places.to(device))

    def once(self, key, make):
        """What `make()` gave when this was first asked for by this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass
class Batch:
    """Rows as tensors. A field is None where the model's `Needs` do not ask for it.

    Parameters
    ----------
    index
        `(B,)` row numbers in the source.
    crops
        `(B, 3, S, S)` uint8, or `(B, k * k, 3, S, S)` with neighbors.
    features
        `(B, F)` float32: of the crop by every encoder, then of the wider contexts.
    tokens
        `(B, T, D)` float32: what the encoders say of T = t * t parts of the crop, from the top left.
    neighbors
        `(B, k * k, E)` float32: of the block of crops around the row, from the top left; the first E of `features` are
        the middle one.
    inside
        `(B, k * k)` which of these lie on the image as a whole; the middle one always counts.
    maps
        `(B, 1 or 2, C, S, S)` uint8: boundaries in the crop and, with neighbors, in the block around the row. Edges
        have one channel, 0 to 255; nuclei have three: what they cover, their borders, and the distance to these.
    bases
        `(B, L)` uint8 around the transcription start site, which is number L // 2: 0 to 3 are A, C, G and T, 4 is
        unknown (N) or beyond the end.
    allowed
        `(B, L)` bool: False where a base is unknown, on a blacklist, or not on the list of what is included.
    tracks
        `(B, L, T)` float32: signals along the window, such as accessibility; None where the windows have none.
    extra
        `(B, E)` float32: further numbers of a gene; None where the windows have none.
    text
        `(B, N)` uint8: what is written about a gene, in UTF-8, filled up with 0.
    slides
        The whole sections that the rows are of.
    at
        `(B, 2)` number of a row's section in `slides`, and of its row there.
    xy_um
        `(B, 2)` centers in µm.
    expression
        `(B, G)` targets in the source's unit; None when predicting.
    array
        `(B, 2)` column and row of the array that spots were printed on; None where a table does not say all of them.
    section
        `(B,)` number of the section within this fit; 0 when predicting.
    key
        `(B,)` a number of its own for every row of every section, which seeds the row's noise where a model draws when
        predicting: made of the section's name and the number of the row. None in training.
    """

    index: Tensor
    crops: Tensor | None = None
    features: Tensor | None = None
    tokens: Tensor | None = None
    neighbors: Tensor | None = None
    inside: Tensor | None = None
    maps: Tensor | None = None
    bases: Tensor | None = None
    allowed: Tensor | None = None
    tracks: Tensor | None = None
    extra: Tensor | None = None
    text: Tensor | None = None
    at: Tensor | None = None
    xy_um: Tensor | None = None
    expression: Tensor | None = None
    array: Tensor | None = None
    section: Tensor | None = None
    key: Tensor | None = None
    slides: tuple[WholeSlide, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def _map(self, change) -> Batch:
        values = {name: getattr(self, name) for name in _ROWS}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    def __getitem__(self, rows) -> Batch:
        """The batch of these rows, in this order."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device) -> Batch:
        """The batch on another device."""
        slides = tuple(slide.to(device) for slide in self.slides)
        return replace(self._map(lambda tensor: tensor.to(device, non_blocking=True)), slides=slides)

    @staticmethod
    def cat(batches: Sequence[Batch]) -> Batch:
        """Batches stacked in the order given; a field that one of them lacks is None."""
        import torch

        slides = tuple({id(slide): slide for batch in batches for slide in batch.slides}.values())
        number = {id(slide): k for k, slide in enumerate(slides)}
        parts = {name: [getattr(batch, name) for batch in batches] for name in _ROWS}
        whole = {name: part for name, part in parts.items() if all(one is not None for one in part)}
        if "at" in whole:
            counted = [torch.tensor([number[id(slide)] for slide in batch.slides]) for batch in batches]
            parts = zip(whole["at"], counted, strict=True)
            whole["at"] = [torch.stack([count.to(at)[at[:, 0]], at[:, 1]], dim=1) for at, count in parts]
        return Batch(**{name: torch.cat(part) for name, part in whole.items()}, slides=slides)


_ROWS = tuple(f.name for f in fields(Batch) if f.name != "slides")  # tensors of one row per row


@dataclass
class Prediction:
    """What a model says of some rows.

    Parameters
    ----------
    mean
        `(B, G)` prediction in the unit that the model was fitted in.
    std
        `(B, G)` predictive standard deviation, for models that have one.
    samples
        `(B, n, G)` draws from the predictive distribution, for generative models.
    embedding
        `(B, D)` what the model made of the image.
    ood
        `(B,)` in [0, 1], share of training rows nearer to the training mean. Near 1: unlike anything seen in training.
    neighbors
        `(B, k)` int64 rows of the bank that a prediction is made of, nearest first; -1 where it has fewer than k.
    weights
        `(B, k)` weights of the neighbors, which sum to 1; 0 where there is none.
    """

    mean: Tensor
    std: Tensor | None = None
    samples: Tensor | None = None
    embedding: Tensor | None = None
    ood: Tensor | None = None
    neighbors: Tensor | None = None
    weights: Tensor | None = None

    def cpu(self) -> Prediction:
        """The prediction on the CPU, numbers in float32."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        parts = {name: part.detach().cpu() for name, part in found.items() if part is not None}
        return Prediction(**{n: part.float() if part.is_floating_point() else part for n, part in parts.items()})

    def __getitem__(self, rows) -> Prediction:
        """The prediction of these rows, in this order."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return Prediction(**{name: part[rows] for name, part in parts.items() if part is not None})

    @staticmethod
    def gather(parts: Sequence[Prediction], index: Sequence[Tensor]) -> Prediction:
        """Parts whose rows are numbered by `index`, which may be cut elsewhere, put back in row order."""
        import torch

        order = torch.argsort(torch.cat(list(index)))
        place = torch.argsort(order)
        places, whole = place.split([len(part.mean) for part in parts]), {}
        for name in (f.name for f in fields(Prediction) if getattr(parts[0], f.name) is not None):
            like = getattr(parts[0], name)
            whole[name] = like.new_empty(len(order), *like.shape[1:])  # once, and no copy of it
            for rows, part in zip(places, parts, strict=True):
                whole[name][rows] = getattr(part, name)
        return Prediction(**whole)


@dataclass(frozen=True, eq=False)
class Marks:
    """By what measured rows are found again, also where they are called or placed otherwise.

    Parameters
    ----------
    genes
        Names of the genes behind the codes, four to each code.
    xy_um
        `(n, 2)` float64 places.
    codes
        `(n, ceil(len(genes) / 4))` int16, equal where counts are (`sq_imputer.scores.overlap`).
    known
        `(ceil(len(genes) / 4),)` whether all genes of a code were measured.
    """

    genes: tuple[str, ...]
    xy_um: np.ndarray
    codes: np.ndarray
    known: np.ndarray

    def __len__(self) -> int:
        return len(self.xy_um)


class Model(Protocol):
    """What registry, folders and training know of a model; :class:`sq_imputer.Predictor` is one, and uses them.

    `card` and `Config` are of the class; `genes`, `unit` and `sizes` are set by a fit, `provenance` and `history` say
    how it went, `training_rows` which rows of every section it saw. The methods are those of
    :class:`sq_imputer.Predictor`.
    """

    card: Any
    Config: type
    config: Any
    genes: tuple[str, ...]
    unit: str
    target: Target
    sizes: dict[str, int]
    provenance: dict
    history: dict
    coarser: tuple[Model, ...]
    training_rows: tuple[Marks, ...]
    std_of_mean: bool
    measures_error: bool
    draws_by_name: bool
    fewest_rows: int
    per_gene: tuple[str, ...]
    expression_std: Tensor
    std_factor: Tensor
    std_added: Tensor

    @property
    def needs(self) -> Needs:
        """What the model asks to see."""
        ...

    @property
    def averaging(self) -> float:
        """Decay of the running mean of the weights; 0 for none."""
        ...

    @property
    def mixes_sections(self) -> bool:
        """Whether a batch may hold rows of several sections."""
        ...

    @property
    def bytes_per_row(self) -> int:
        """Memory that one row takes in a batch."""
        ...

    def build(self) -> None:
        """Make the layers."""
        ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named parts of the training loss."""
        ...

    def optimizer(self):
        """The optimizer of the weights."""
        ...

    def calibrate(self, held: Iterable[Batch]) -> dict[str, Tensor]:
        """Buffers set by what is said of held-out rows."""
        ...

    def fit(self, sources: Sequence[Source], plan=None) -> Model:
        """Fit on the measured rows of some sources."""
        ...

    def predict(self, source: Source, *, rows=None, batch_size=64, device: str = "auto") -> Prediction:
        """Predict rows of a source."""
        ...

    def seen(
        self, source: Source, batch_size: int, *, rows=None, generator=None, device: str = "auto"
    ) -> Iterator[Batch]:
        """Batches of a source as the model sees them."""
        ...


@runtime_checkable
class Source(Protocol):
    """Rows that a model can be fitted on or asked about: spots of a section (`Slide`), or genes (`GeneWindows`).

    `genes`, `unit` and `expression` describe the targets; `expression` is `(n, G)` float32 with NaN in rows that were
    not `measured`, or None. `group` is the individual (patient, mouse) that the rows come from, `section` the cut,
    `names` what rows are called, `xy_um` where they lie, `fingerprint` the identity of what was measured.

    Where rows are genes, `genes` are the contexts that expression is predicted in, `section` and `group` the
    chromosome, and `xy_um` is in base pairs along it.
    """

    names: np.ndarray
    genes: tuple[str, ...]
    unit: str
    group: str
    section: str
    fingerprint: str
    measured: np.ndarray
    xy_um: np.ndarray
    expression: np.ndarray | None

    def __len__(self) -> int: ...

    def batches(
        self,
        needs: Needs,
        batch_size: int = 64,
        *,
        rows=None,
        generator: np.random.Generator | None = None,
        device: str = "auto",
    ) -> Iterator[Batch]:
        """Batches of `rows` in the cheapest reading order, or shuffled by `generator`."""
        ...

    def all_features(self, needs: Needs, *, device: str = "auto") -> np.ndarray:
        """Features `(n, F)` of every row by all encoders that a model needs, unscaled."""
        ...

    def moments(self, needs: Needs, *, device: str = "auto") -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and standard deviation of the features of this section, or None if there are too few rows to tell.

        A source of models that need tokens takes `tokens=True` for theirs.
        """
        ...

    def marks(self, genes: Sequence[str]) -> Marks:
        """By what the measured rows are found again, by these genes among others: a fitted model keeps it."""
        ...
