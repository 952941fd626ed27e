"""What windows are cut from: places on a genome with tracks and masks, or sequences at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.genes.genome import UNKNOWN, Genome, coded, other_strand
from sq_imputer.genes.tracks import Regions, Track

APART = 10**10  # base pairs that chromosomes lie apart on the second axis of places: more than any is long


class Window(NamedTuple):
    """Bases `(L,)` uint8, which of them are allowed `(L,)`, and tracks `(L, T)` float32, or None."""

    bases: np.ndarray
    allowed: np.ndarray
    tracks: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Loci:
    """Start sites on a genome.

    Parameters
    ----------
    genome
        The genome.
    chroms
        `(n,)` names of chromosomes.
    tss
        `(n,)` int64 start sites, counted from 0.
    strands
        `(n,)` `"+"`, `"-"`, or `"."` where it is not known.
    turned
        Whether windows of genes on the other strand are reverse-complemented, tracks with them.
    signals
        Tracks.
    blacklist, include
        Stretches of which nothing, or nothing else, is allowed.
    """

    genome: Genome
    chroms: np.ndarray
    tss: np.ndarray
    strands: np.ndarray
    turned: bool = False
    signals: tuple[Track, ...] = ()
    blacklist: Regions | None = None
    include: Regions | None = None

    parts = "chromosomes"

    def __len__(self) -> int:
        return len(self.tss)

    def __getitem__(self, rows) -> Loci:
        return replace(self, chroms=self.chroms[rows], tss=self.tss[rows], strands=self.strands[rows])

    @property
    def labels(self) -> np.ndarray:
        """`(n,)` chromosomes."""
        return self.chroms

    @property
    def tracks(self) -> tuple[str, ...]:
        """Names of the tracks."""
        return tuple(track.name for track in self.signals)

    @cached_property
    def _numbers(self) -> np.ndarray:
        number = {name: k for k, name in enumerate(self.genome.lengths)}
        return np.array([number[chrom] for chrom in self.chroms], dtype=np.int64)

    @property
    def places(self) -> np.ndarray:
        """`(n, 2)` start site, and the chromosome's number times `APART`."""
        return np.stack([self.tss, self._numbers * APART], axis=1).astype(float)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Positions among some rows, along the genome."""
        return np.lexsort((self.tss[rows], self._numbers[rows]))

    def flipped(self, row: int) -> bool:
        """Whether a row's window is turned."""
        return self.turned and self.strands[row] == "-"

    def span(self, row: int, length: int) -> tuple[int, int]:
        """Where a window begins and ends on the strand of the FASTA file; its start site is number `length // 2`."""
        before = length - 1 - length // 2 if self.flipped(row) else length // 2
        start = int(self.tss[row]) - before
        return start, start + length

    def window(self, row: int, length: int) -> Window:
        """The window of a row."""
        chrom, (start, end) = self.chroms[row], self.span(row, length)
        bases = self.genome.read(chrom, start, end)
        allowed = bases != UNKNOWN
        if self.blacklist is not None:
            allowed &= ~self.blacklist.mask(chrom, start, end)
        if self.include is not None:
            allowed &= self.include.mask(chrom, start, end)
        tracks = np.stack([one.read(chrom, start, end) for one in self.signals], axis=1) if self.signals else None
        if self.flipped(row):
            bases, allowed = other_strand(bases), allowed[::-1]
            tracks = None if tracks is None else tracks[::-1]
        return Window(bases, allowed, tracks)

    @property
    def strand(self) -> str:
        """How windows of genes on the other strand are read, as `GeneWindows.from_table` is told."""
        return "reverse_complement" if self.turned else "keep"

    @property
    def reads(self) -> list[str]:
        """Which strand windows are of, and every track with its normalization."""
        return [f"strand {self.strand}", *(f"{track.name} ({track.normalize})" for track in self.signals)]

    @property
    def provenance(self) -> dict:
        """Genome, strand, tracks and masks, in words and numbers."""
        masks = {"blacklist": self.blacklist, "include": self.include}
        return {
            "genome": self.genome.provenance,
            "strand": self.strand,
            "tracks": [track.provenance for track in self.signals],
            **{name: None if one is None else one.fingerprint for name, one in masks.items()},
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of genome, places, tracks and masks."""
        masks = [None if one is None else one.fingerprint for one in (self.blacklist, self.include)]
        told = [self.genome.fingerprint, self.turned, masks, [track.fingerprint for track in self.signals]]
        places = f"{self.chroms.tolist()} {self.tss.tolist()} {self.strands.tolist()}"
        return hashlib.sha256(f"{told} {places}".encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences at hand: bases one after the other, where each begins, and the group of each."""

    bases: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray

    parts = "groups"
    tracks = ()
    reads = ()

    @classmethod
    def of(cls, sequences: Sequence[str], group: Sequence[str]) -> Sequences:
        """The bases of letters."""
        labels = np.array([str(label) for label in group], dtype=object)
        if len(labels) != len(sequences):
            raise BadInput(f"group has {len(labels)} labels of {len(sequences)} sequences; expected one each.")
        lengths = np.array([len(one) for one in sequences], dtype=np.int64)
        return cls(coded("".join(sequences)), np.cumsum(lengths) - lengths, lengths, labels)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows) -> Sequences:
        return replace(self, starts=self.starts[rows], lengths=self.lengths[rows], labels=self.labels[rows])

    @property
    def places(self) -> np.ndarray:
        """`(n, 2)`: sequences have no place; they lie in the order given."""
        return np.stack([self.starts, np.zeros_like(self.starts)], axis=1).astype(float)

    def order(self, rows: np.ndarray) -> np.ndarray:
        """Positions among some rows, as they come."""
        return np.arange(len(rows))

    def whole(self, row: int) -> np.ndarray:
        """The bases of a row."""
        return self.bases[self.starts[row] : self.starts[row] + self.lengths[row]]

    def window(self, row: int, length: int) -> Window:
        """The middle of a sequence, or a whole one with unknown bases around it."""
        own, found = self.whole(row), np.full(length, UNKNOWN, dtype=np.uint8)
        shift = length // 2 - len(own) // 2  # middle on middle
        first, last = max(shift, 0), min(shift + len(own), length)
        found[first:last] = own[first - shift : last - shift]
        return Window(found, found != UNKNOWN, None)

    @property
    def provenance(self) -> dict:
        """How many sequences and groups there are, and their hash."""
        return {"sequences": len(self), "groups": len(set(self.labels.tolist())), "sha256": self.fingerprint}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all bases and groups."""
        found = hashlib.sha256(str(self.labels.tolist()).encode())
        for row in range(len(self)):
            found.update(self.whole(row).tobytes() + b"|")
        return found.hexdigest()[:16]
