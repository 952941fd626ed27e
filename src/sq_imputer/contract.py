"""The nouns that readers, models and writers share: what a model asks to see, sees, and gives back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sq_imputer.errors import BadInput, check_number
from sq_imputer.ranges import check_ranges, within
from sq_imputer.target import Target

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class CropSpec:
    """A square of tissue and the tensor made of it.

    Parameters
    ----------
    extent_um
        Side of the square on the tissue, in µm.
    size_px
        Side of the tensor, in pixels.
    """

    extent_um: float = 112.0
    size_px: int = 224

    def __post_init__(self) -> None:
        check_number("CropSpec.extent_um", self.extent_um)
        if not self.extent_um > 0:
            raise BadInput(f"CropSpec.extent_um is {self.extent_um}; it is a length in µm and must be positive.")
        check_number("CropSpec.size_px", self.size_px, 1, whole=True)

    @classmethod
    def of(cls, spec: CropSpec | None) -> CropSpec:
        """The spec that a verb was given, or the default one; an error if it is no spec."""
        if not isinstance(spec, cls | None):
            raise BadInput(f"spec is a {type(spec).__name__}; expected CropSpec(extent_um, size_px), or None.")
        return spec or cls()

    @property
    def mpp(self) -> float:
        """µm per pixel of the tensor."""
        return self.extent_um / self.size_px


def _check_contexts(context_um: Sequence[float], extent_um: float) -> None:
    for context in context_um:
        if context <= extent_um:
            told = f"a context is wider than the crop, of {extent_um} µm. Pass wider ones, or context_um=() for none."
            raise BadInput(f"context_um has {context} µm; {told}")


@dataclass(frozen=True)
class Views:
    """The part of a model's `Config` that says which features it reads, for models that read features.

    Parameters
    ----------
    encoders
        Frozen encoders of the crops (:func:`sq_imputer.encoders.list_encoders`).
    extent_um
        Side of the crop, in µm.
    size_px
        Side of the crop and of the contexts, in pixels.
    context_um
        Sides of wider crops around the same center, in µm.
    per_section
        Center and scale features within each section, which takes stain and scanner out.
    """

    encoders: tuple[str, ...] = ("texture",)
    extent_um: float = within(150.0, above=0)
    size_px: int = within(224, 1)
    context_um: tuple[float, ...] = within((400.0, 800.0), above=0, whole=False)
    per_section: bool = True

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.encoders or isinstance(self.encoders, str):
            raise BadInput(
                f"{type(self).__module__.rsplit('.')[-1]}.Config.encoders is {self.encoders!r}; expected a tuple of "
                "names, such as ('texture',)."
            )
        _check_contexts(self.context_um, self.extent_um)

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts, side by side."""
        crop = CropSpec(self.extent_um, self.size_px)
        return Needs(crop, self.encoders, self.context_um, per_section=self.per_section)


@dataclass(frozen=True)
class Needs:
    """What a model asks to see of every row; all reading follows from it.

    Parameters
    ----------
    crop
        The crop at the center of the row. With `encoders`, what the encoders see; without, the pixels themselves.
    encoders
        Names of frozen image encoders whose features replace the pixels, concatenated in this order.
    context_um
        Sides, in µm, of further and wider crops around the same center, seen by the same encoders.
    neighbors
        `k`: the k × k block of crops around the row (the row's own crop is the middle one).
    per_section
        Center and scale the features within each section, which takes its stain and scanner out.
    knowledge
        Vectors of the genes (:class:`sq_imputer.GeneKnowledge`), which a fit keeps as buffers of the model.
    """

    crop: CropSpec | None = None
    encoders: tuple[str, ...] = ()
    context_um: tuple[float, ...] = ()
    neighbors: int = 0
    per_section: bool = False
    knowledge: bool = False

    def __post_init__(self) -> None:
        if self.crop is not None:
            _check_contexts(self.context_um, self.crop.extent_um)

    @property
    def views(self) -> tuple[CropSpec, ...]:
        """The crop and its wider contexts, narrowest first, all with the crop's size in pixels."""
        if self.crop is None:
            return ()
        return (self.crop, *(CropSpec(extent, self.crop.size_px) for extent in self.context_um))


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
        `(B, F)` float32, or `(B, k * k, F)` with neighbors.
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
    xy_um: Tensor | None = None
    expression: Tensor | None = None
    array: Tensor | None = None
    section: Tensor | None = None
    key: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)

    def _map(self, change) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})

    def __getitem__(self, rows) -> Batch:
        """The batch of these rows, in this order."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device) -> Batch:
        """The batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    @staticmethod
    def cat(batches: Sequence[Batch]) -> Batch:
        """Batches stacked in the order given; a field that one of them lacks is None."""
        import torch

        parts = {f.name: [getattr(batch, f.name) for batch in batches] for f in fields(Batch)}
        whole = {name: part for name, part in parts.items() if all(one is not None for one in part)}
        return Batch(**{name: torch.cat(part) for name, part in whole.items()})


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
    """Rows that a model can be fitted on or asked about: spots of a section (`Slide`), or genes.

    `genes`, `unit` and `expression` describe the targets; `expression` is `(n, G)` float32 with NaN in rows that were
    not `measured`, or None. `group` is the individual (patient, mouse) that the rows come from, `section` the cut,
    `names` what rows are called, `xy_um` where they lie, `fingerprint` the identity of what was measured.
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
        """Mean and standard deviation of the features of this section, or None if there are too few rows to tell."""
        ...

    def marks(self, genes: Sequence[str]) -> Marks:
        """By what the measured rows are found again, by these genes among others: a fitted model keeps it."""
        ...
