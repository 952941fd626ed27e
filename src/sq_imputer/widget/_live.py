"""Prediction in a region while one waits: features of points are kept, so that only new ones are read."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.runs.sections import shelf_of
from sq_imputer.section.points import at_points

if TYPE_CHECKING:
    from sq_imputer.contract import CropSpec
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.slide import Slide
    from sq_imputer.widget._lattice import Region

MOST_KEPT = 200_000  # points whose features are kept; the oldest lattice goes first
AT_ONCE = 512


class Said(NamedTuple):
    """What a model says in a region.

    Parameters
    ----------
    region
        Where.
    genes
        Names of the columns.
    mean, std
        `(n, G)`; `std` is None if the model has none.
    new
        Points whose features were not known before.
    seconds
        How long it took.
    """

    region: Region
    genes: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray | None
    new: int
    seconds: float


class Live:
    """A fitted model on one section, asked about one region after the other.

    Parameters
    ----------
    slide
        The section.
    predictor
        A fitted model.
    device
        Where it runs.

    Raises
    ------
    BadInput
        If the model is not fitted.
    """

    def __init__(self, slide: Slide, predictor: Predictor, device: str = "cpu") -> None:
        if not predictor.fitted:
            raise BadInput(f"'{predictor.card.name}' is not fitted; fit it on this section or a reference first.")
        self.slide = replace(slide, encoders=shelf_of(predictor))
        self.predictor, self.device = predictor, device
        self._kept: dict[float, _Kept] = {}

    @property
    def saw_these_spots(self) -> bool:
        """Whether the model was fitted on the very picture that it is asked about: its errors here are then larger."""
        pictures = list(self.predictor.provenance.get("pixels", []))
        return self.slide.frame.pyramid.fingerprint in pictures

    def __call__(self, region: Region) -> Said:
        """What the model says of every point of a region.

        Raises
        ------
        BadInput
            If points lie outside the image, or the model cannot be asked about them.
        """
        start = time.perf_counter()
        points = at_points(self.slide, region.xy_um, region.spacing_um)
        new = len(points)
        if self._keeps:
            new = self._remember(points, region)
        said = self.predictor.predict(points, batch_size=AT_ONCE, device=self.device)
        std = None if said.std is None else said.std.numpy()
        return Said(region, self.predictor.genes, said.mean.numpy(), std, new, time.perf_counter() - start)

    @property
    def _keeps(self) -> bool:
        """Whether the model reads features of single points; one that reads blocks of them, or pixels, reads anew."""
        needs = self.predictor.needs
        return bool(needs.encoders) and needs.neighbors < 2

    def _remember(self, points: Slide, region: Region) -> int:
        """Give points the features that are known, and compute the others; how many those are."""
        views = [(name, spec) for spec in self.predictor.needs.views for name in self.predictor.needs.encoders]
        kept = self._kept.setdefault(region.spacing_um, _Kept())
        lacking = kept.lacking(region.nodes)
        if lacking.any():
            some = at_points(self.slide, region.xy_um[lacking], region.spacing_um)
            found = {view: some.features(*view, device=self.device) for view in views}
            kept.add(region.nodes[lacking], found, {name: some.made_by[name] for name, _ in views})
        for (name, spec), values in kept.of(region.nodes).items():
            points.remember(name, spec, values, kept.made_by[name])
        while len(self._kept) > 1 and sum(len(one) for one in self._kept.values()) > MOST_KEPT:
            self._kept.pop(next(one for one in self._kept if one != region.spacing_um))
        return int(lacking.sum())


class _Kept:
    """Features of the points of one lattice, by view."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], int] = {}
        self.values: dict[tuple[str, CropSpec], np.ndarray] = {}
        self.made_by: dict[str, dict] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def lacking(self, nodes: np.ndarray) -> np.ndarray:
        """Which points `(n,)` are not known."""
        return np.array([tuple(node) not in self.rows for node in nodes.tolist()])

    def add(self, nodes: np.ndarray, found: dict[tuple[str, CropSpec], np.ndarray], made_by: dict[str, dict]) -> None:
        """Keep the features of new points."""
        for view, values in found.items():
            old = self.values.get(view)
            self.values[view] = np.asarray(values) if old is None else np.concatenate([old, values])
        start = len(self.rows)
        self.rows |= {tuple(node): start + k for k, node in enumerate(nodes.tolist())}
        self.made_by |= made_by

    def of(self, nodes: np.ndarray) -> dict[tuple[str, CropSpec], np.ndarray]:
        """The features of some points, all of which are known."""
        rows = [self.rows[tuple(node)] for node in nodes.tolist()]
        return {view: values[rows] for view, values in self.values.items()}
