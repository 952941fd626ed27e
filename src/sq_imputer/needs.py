"""What a model asks to see of its rows; all reading follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sq_imputer.errors import BadInput, check_number, listed
from sq_imputer.ranges import check_ranges, within

MAPS = {"edges": 1, "nuclei": 3}  # names of maps, and how many pictures each is


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
        Frozen encoders of the crops by name (:func:`sq_imputer.encoders.list_encoders`), torch modules or functions
        (:func:`sq_imputer.encoders.from_callable`); these a model calls by the name of their class, or their own.
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
    tokens
        Side of the grid of patch tokens of the crop that the encoders say, each of a part of it; 0 for none.
    neighbors
        `k`: the k × k block of crops around the row (the row's own crop is the middle one).
    whole_slide
        The features of all rows of the section beside those of the batch, and where on their lattice they lie.
    maps
        Pictures of boundaries around the row, some of `"edges"` and `"nuclei"`: of its crop and, with `neighbors`, of
        the block.
    maps_px
        Pixels along a side of these.
    maps_um
        About how much tissue, in µm, a pixel covers where boundaries are looked for.
    per_section
        Center and scale the features within each section, which takes its stain and scanner out.
    knowledge
        Vectors of the genes (:class:`sq_imputer.GeneKnowledge`), which a fit keeps as buffers of the model.
    sequence
        Base pairs around the transcription start site, where rows are genes (:class:`sq_imputer.GeneWindows`); 0 for
        none. Tracks and further numbers of a gene come along where the windows have them.
    text
        Bytes of what is written about a gene, where rows are genes; 0 for none.
    """

    crop: CropSpec | None = None
    encoders: tuple[str, ...] = ()
    context_um: tuple[float, ...] = ()
    tokens: int = 0
    neighbors: int = 0
    whole_slide: bool = False
    maps: tuple[str, ...] = ()
    maps_px: int = 64
    maps_um: float = 1.0
    per_section: bool = False
    knowledge: bool = False
    sequence: int = 0
    text: int = 0

    def __post_init__(self) -> None:
        if self.crop is not None:
            _check_contexts(self.context_um, self.crop.extent_um)
        check_number("Needs.tokens", self.tokens, 0, whole=True)
        if (self.tokens or self.whole_slide or self.maps) and not self.encoders:
            what = "Needs.tokens, Needs.whole_slide and Needs.maps are seen beside features"
            raise BadInput(f"{what}, and Needs.encoders is empty; name some.")
        strange = [name for name in self.maps if name not in MAPS]
        if strange or isinstance(self.maps, str):
            raise BadInput(f"Needs.maps is {self.maps!r}; expected a tuple of some of {listed(MAPS)}.")
        check_number("Needs.maps_px", self.maps_px, 8, whole=True)
        check_number("Needs.maps_um", self.maps_um, 0.1)
        check_number("Needs.sequence", self.sequence, 0, whole=True)
        check_number("Needs.text", self.text, 0, whole=True)
        if self.of_genes and self.crop is not None:
            raise BadInput("Needs has both a crop and a sequence; rows are spots or genes. Leave out one of them.")

    @property
    def of_genes(self) -> bool:
        """Whether rows are genes."""
        return bool(self.sequence or self.text)

    @property
    def views(self) -> tuple[CropSpec, ...]:
        """The crop and its wider contexts, narrowest first, all with the crop's size in pixels."""
        if self.crop is None:
            return ()
        return (self.crop, *(CropSpec(extent, self.crop.size_px) for extent in self.context_um))
