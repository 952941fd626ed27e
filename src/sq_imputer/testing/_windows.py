"""Windows of DNA in the place of sections, for models whose rows are genes: checks treat them as they treat slides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from sq_imputer.contract import Batch, Marks, Needs
from sq_imputer.genes.windows import GeneWindows
from sq_imputer.target import Target

N, LENGTH = 64, 64  # genes of a toy chromosome, and bases of a window
LETTERS = np.array(list("ACGT"))


@dataclass(eq=False)
class Windows:
    """Windows of one chromosome, with what the checks change beside them.

    Parameters
    ----------
    source
        The windows, of which the DNA is read.
    rows
        `(n,)` which of them.
    names, expression, genes, unit, section, group, measured
        As of a section.
    noise
        A row whose bases are replaced by others when they are read; None for none.
    blank
        A base that all bases are replaced by; None for none.
    target, labels, anchor
        As of a section: genes, and nothing.
    """

    source: GeneWindows
    rows: np.ndarray
    names: np.ndarray
    expression: np.ndarray | None
    genes: tuple[str, ...]
    unit: str
    section: str
    group: str
    measured: np.ndarray
    noise: int | None = None
    blank: int | None = None
    target: Target = field(default_factory=Target)
    labels: np.ndarray | None = None
    anchor: None = None

    @classmethod
    def of(cls, source: GeneWindows) -> Windows:
        """All windows of a source."""
        names = ("names", "expression", "genes", "unit", "section", "group", "measured")
        return cls(source, np.arange(len(source)), **{name: getattr(source, name) for name in names})

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sizes(self) -> dict[str, int]:
        """As of the windows."""
        return self.source.sizes

    @property
    def xy_um(self) -> np.ndarray:
        """Places along the chromosome."""
        return self.source.xy_um[self.rows]

    @property
    def fingerprint(self) -> str:
        """As of the windows."""
        return self.source.fingerprint

    @property
    def provenance(self) -> dict:
        """As of the windows."""
        return self.source.provenance

    def take(self, rows: np.ndarray) -> Windows:
        """Some rows."""
        parts = {"rows": self.rows[rows], "names": self.names[rows], "measured": self.measured[rows]}
        return replace(self, **parts, expression=None if self.expression is None else self.expression[rows])

    def among(self, training: Marks) -> np.ndarray:
        """Which rows are among the training rows that a model knows."""
        known = {place.tobytes() for place in training.xy_um}
        return np.array([place.tobytes() in known for place in self.xy_um])

    def marks(self, genes) -> Marks:
        """By what its measured rows are known again."""
        places = self.xy_um[self.measured]
        return Marks((), places, np.zeros((len(places), 0), dtype=np.int16), np.zeros(0, dtype=bool))

    def all_features(self, needs: Needs, *, device: str = "auto") -> np.ndarray:
        """Nothing: no encoder reads DNA."""
        return np.zeros((len(self), 0), dtype=np.float32)

    def moments(self, needs: Needs, *, device: str = "auto") -> None:
        """Nothing: there are no features."""

    def batches(
        self, needs: Needs, batch_size: int = 64, *, rows=None, generator=None, device: str = "auto"
    ) -> Iterator[Batch]:
        """Batches of the windows, with expression and bases as they were changed."""
        order = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        order = order if generator is None else generator.permutation(order)
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            (batch,) = self.source.batches(needs, len(index), rows=self.rows[index], generator=_AsGiven())
            given = None if self.expression is None else torch.from_numpy(self.expression[index])
            yield replace(batch, index=torch.from_numpy(index), expression=given, bases=self._bases(batch.bases, index))

    def _bases(self, bases: torch.Tensor, index: np.ndarray) -> torch.Tensor:
        if self.blank is not None:
            return torch.full_like(bases, self.blank)
        if self.noise is not None:
            others = np.random.default_rng(0).integers(0, 4, bases.shape[1])
            bases[torch.from_numpy(index == self.noise)] = torch.from_numpy(others).to(bases)
        return bases


class _AsGiven:
    """In the place of a generator: rows stay in the order given."""

    def permutation(self, rows: np.ndarray) -> np.ndarray:
        return rows


@cache
def toy_windows() -> tuple[Windows, ...]:
    """Two toy chromosomes, and a third to predict: in four contexts a gene is expressed as it is made of four bases."""
    rng = np.random.default_rng(7)
    shares = rng.dirichlet([2, 2, 2, 2], 3 * N)
    bases = (rng.random((3 * N, LENGTH))[..., None] > shares.cumsum(axis=1)[:, None, :3]).sum(axis=2)
    values = 5 * shares + 0.2 * rng.normal(size=shares.shape)
    windows = GeneWindows.from_sequences(
        ["".join(row) for row in LETTERS[bases]],
        values.astype(np.float32),
        group=[f"chr{k // N + 1}" for k in range(3 * N)],
        genes=[f"as {letter}" for letter in LETTERS],
    )
    return tuple(map(Windows.of, windows.by_chromosome()))
