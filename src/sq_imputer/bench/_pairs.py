"""Pairs of crop and expression: what the tasks of image and expression in one space are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.encoders._shelf import Shelf, Weights, weights_of
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.section.keys import verb
from sq_imputer.section.nearby import scored

if TYPE_CHECKING:
    from sq_imputer.section.slide import Slide


@dataclass(frozen=True, eq=False, repr=False)
class Pairs:
    """Measured rows of one section or more: what an image encoder says of their crops, and their expression.

    Made by :func:`sq_imputer.bench.pairs` and :func:`sq_imputer.bench.read_pairs`.

    Parameters
    ----------
    image
        `(n, F)` float32 features of the crops, as the encoder gives them.
    expression
        `(n, G)` float32 in `unit`.
    genes
        Names of its columns.
    section, group
        `(n,)` names of the section and of the individual of every row.
    xy_um
        `(n, 2)` places; NaN where they are not known.
    depth
        `(n,)` total counts.
    encoder
        Name of the image encoder.
    made_by
        Its provenance.
    unit
        Of the expression.
    crops
        `(n, 3, S, S)` uint8, if they were asked for: tuning of the encoder itself needs them.
    latent
        `(n, L)` what another encoder says of the expression, such as a column of `obsm` that scVI wrote.
    """

    image: np.ndarray
    expression: np.ndarray
    genes: tuple[str, ...]
    section: np.ndarray
    group: np.ndarray
    xy_um: np.ndarray
    depth: np.ndarray
    encoder: str
    made_by: dict
    unit: str = LOG1P_CP10K
    crops: np.ndarray | None = None
    latent: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        names = list(dict.fromkeys(self.section))
        return f"Pairs of {len(self)} rows of {len(names)} sections: {self.encoder}, {len(self.genes)} genes"

    def __getitem__(self, rows) -> Pairs:
        """The pairs of these rows, in this order."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: part[rows] for name, part in parts.items() if isinstance(part, np.ndarray)})

    @classmethod
    def of(
        cls,
        slide: Slide,
        genes: Sequence[str],
        encoder: str = "texture",
        *,
        spec: CropSpec | None = None,
        unit: str = LOG1P_CP10K,
        weights: Weights | None = None,
        latent: np.ndarray | None = None,
        crops: bool = False,
        device: str = "auto",
    ) -> Pairs:
        """Read the measured rows of a section. Computes features of their crops, once per slide.

        Parameters
        ----------
        slide
            The section (:meth:`sq_imputer.Slide.from_sdata`).
        genes
            The panel, chosen without the sections that are tested.
        encoder
            Image encoder by name (:func:`sq_imputer.encoders.list_encoders`).
        spec
            What it sees; 112 µm in 224 pixels if left out.
        unit
            Of the expression, over the full library.
        weights
            File of the encoder, as :func:`sq_imputer.pp.embed` takes it.
        latent
            `(len(slide), L)` of another encoder of expression (:func:`sq_imputer.bench.latent`).
        crops
            Keep the pixels as well.
        device
            Where the encoder runs.

        Raises
        ------
        BadInput
            If the section has no measured row, or `latent` has another length.
        """
        rows = np.flatnonzero(scored(slide))
        if not len(rows):
            raise BadInput(f"section '{slide.section}' has no measured row to make a pair of. Leave it out.")
        if latent is not None and len(latent) != len(slide):
            raise BadInput(f"latent has {len(latent)} rows and section '{slide.section}' {len(slide)}; align them.")
        spec = CropSpec.of(spec)
        shelf = Shelf(weights_of(weights, [encoder]))
        slide = slide.with_encoders(shelf).with_genes(genes, unit)
        features = slide.features(encoder, spec, device=device)
        return cls(
            image=np.asarray(features[rows], dtype=np.float32),
            expression=slide.expression[rows],
            genes=tuple(genes),
            section=np.full(len(rows), slide.section, dtype=object),
            group=np.full(len(rows), slide.group, dtype=object),
            xy_um=slide.xy_um[rows],
            depth=slide.depth[rows],
            encoder=encoder,
            made_by=dict(slide.made_by.get(encoder, {})),
            unit=unit,
            crops=slide.crops(spec)[rows] if crops else None,
            latent=None if latent is None else np.asarray(latent, dtype=np.float32)[rows],
        )

    @staticmethod
    def cat(parts: Sequence[Pairs]) -> Pairs:
        """Pairs of several sections as one.

        Raises
        ------
        BadInput
            If there are none, or they are of other genes, units or encoders.
        """
        if not parts:
            raise BadInput("there are no pairs; make some with Pairs.of(slide, genes).")
        first = parts[0]
        for part in parts:
            for name in ("genes", "unit", "encoder"):
                if getattr(part, name) != getattr(first, name):
                    raise BadInput(f"pairs differ in {name}; make all with the same {name}.")
        whole = {}
        for name in (f.name for f in fields(first)):
            found = [getattr(part, name) for part in parts]
            if all(isinstance(one, np.ndarray) for one in found):
                whole[name] = np.concatenate(found)
            elif any(isinstance(one, np.ndarray) for one in found):
                whole[name] = None
        return replace(first, **whole)


@verb
def pairs(
    slides: Sequence[Slide],
    genes: Sequence[str],
    encoder: str = "texture",
    *,
    spec: CropSpec | None = None,
    unit: str = LOG1P_CP10K,
    weights: Weights | None = None,
    latent: Mapping[str, np.ndarray] | None = None,
    crops: bool = False,
    device: str = "auto",
) -> Pairs:
    """Pairs of the measured rows of some sections; the arguments are those of :meth:`Pairs.of`, `latent` by section.

    Examples
    --------
    >>> slides = [sqi.Slide.from_sdata(section) for section in sections]
    >>> genes = list(slides[0].var_names[:5])
    >>> pairs = sqi.bench.pairs(slides, genes, spec=sqi.CropSpec(100, 32))
    """
    how = {"spec": spec, "unit": unit, "weights": weights, "crops": crops, "device": device}
    latent = latent or {}
    lost = [slide.section for slide in slides if latent and slide.section not in latent]
    if lost:
        raise MissingKey(f"latent has nothing of sections {listed(lost)}; it has {listed(latent)}. Add them.")
    return Pairs.cat([Pairs.of(slide, genes, encoder, latent=latent.get(slide.section), **how) for slide in slides])


def need(pairs: Pairs, name: str, how: str) -> np.ndarray:
    """A part of the pairs that may be missing; an error that says how to have it."""
    value = getattr(pairs, name)
    if value is None:
        raise MissingKey(f"these pairs have no {name}. {how}")
    return value
