"""Signals along a genome at base resolution, such as accessibility, and lists of stretches that are left out.

A track is a bigWig file, a bedGraph file, a fragment file (cut sites are counted: the first and the last base of every
fragment, each row once), a table of intervals, or an array per chromosome. Bases of which it says nothing are 0.
Normalizations, each by one number for the whole track, so that training and tested chromosomes are alike:

- `"raw"`: as it is, as Seq2Exp's released code has it; masks then depend on the sequencing depth;
- `"p99"`: over the 99th percentile of its non-zero bases, of at most `PROBES` stretches evenly along the genome (ours);
- `"cpm"`: per million of the sum over the genome: of a fragment file, of its cut sites.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.genome import Genome, renamed
from sq_imputer.genes.intervals import is_bigwig, read_intervals

if TYPE_CHECKING:
    from pandas import DataFrame

NORMALIZE = ("raw", "p99", "cpm")
PROBES, PROBE = 1000, 10_000  # stretches that a percentile is taken of, and their bases


class Signal(Protocol):
    """Where the values of a track are."""

    total: float
    fingerprint: str
    chroms: Collection[str]

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Values `(end - start,)` of bases that all lie on the chromosome."""
        ...


@dataclass(frozen=True, eq=False)
class Track:
    """A named signal over a genome, normalized.

    Parameters
    ----------
    name
        What it is called.
    signal
        Where its values are.
    genome
        The genome that it lies on.
    normalize
        `"raw"`, `"p99"` or `"cpm"`.
    path
        The file, where it is one.
    """

    name: str
    signal: Signal
    genome: Genome
    normalize: str = "raw"
    path: str = ""

    @classmethod
    def of(cls, name: str, source, genome: Genome, normalize: str = "raw", called=str) -> Track:
        """The track of a path, a table or arrays.

        Raises
        ------
        BadInput
            If it is of another build or has other names of chromosomes, or cannot be read.
        """
        if normalize not in NORMALIZE:
            raise BadInput(f"normalize is {normalize!r} for track '{name}'; expected one of {listed(NORMALIZE)}.")
        what = f"track '{name}'"
        if isinstance(source, Mapping):
            signal: Signal = Arrays.of(source, genome, called, what)
        elif isinstance(source, str | Path) and is_bigwig(source):
            signal = BigWig.of(source, genome, called, what)
        else:
            signal = Steps.of(source, genome, called, what)
        return cls(name, signal, genome, normalize, str(source) if isinstance(source, str | Path) else "")

    def read(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Normalized values `(end - start,)` float32; 0 beyond the ends."""
        found = np.zeros(end - start, dtype=np.float32)
        first, last = max(start, 0), min(end, self.genome.lengths[chrom])
        if first < last:
            found[first - start : last - start] = self.signal.values(chrom, first, last)
        return found if self.divisor == 1 else found / np.float32(self.divisor)

    @cached_property
    def divisor(self) -> float:
        """What values are divided by."""
        if self.normalize == "raw":
            return 1.0
        found = self.signal.total / 1e6 if self.normalize == "cpm" else self._percentile()
        if not found > 0:
            raise BadInput(f"track '{self.name}' is 0 everywhere and cannot be normalized; pass normalize='raw'.")
        return float(found)

    def _percentile(self) -> float:
        every = sum(self.genome.lengths.values())
        step, parts = max(every // PROBES, PROBE), []
        for chrom, length in self.genome.lengths.items():
            for start in range(0, length, step):
                values = self.signal.values(chrom, start, min(start + PROBE, length))
                parts.append(values[values != 0])
        found = np.concatenate(parts)
        return float(np.percentile(found, 99)) if len(found) else 0.0

    @property
    def provenance(self) -> dict:
        """Name, file, what values were divided by, and hash."""
        how = {"normalize": self.normalize, "divisor": self.divisor}
        return {"name": self.name, "path": self.path, **how, "sha256": self.signal.fingerprint}

    @property
    def fingerprint(self) -> str:
        """Name, normalization and hash of what was read."""
        return f"{self.name} {self.normalize} {self.signal.fingerprint}"


def tracks_of(
    tracks, normalize: str | Mapping[str, str], genome: Genome, called: Callable[[str], str] = str
) -> tuple[Track, ...]:
    """Tracks by name; of paths alone the names of the files."""
    if isinstance(tracks, str | Path):
        raise BadInput(f"tracks is {str(tracks)!r}; expected a list of paths, or signals by name.")
    named = tracks if isinstance(tracks, Mapping) else {Path(path).name: path for path in tracks or ()}
    how = normalize if isinstance(normalize, Mapping) else dict.fromkeys(named, normalize)
    strange = [name for name in how if name not in named]
    if strange:
        raise BadInput(f"normalize names {listed(strange)}, and the tracks are {listed(named)}. Name these.")
    return tuple(Track.of(name, one, genome, how.get(name, "raw"), called) for name, one in named.items())


def warn_of_silent(tracks: Sequence[Track], chroms: np.ndarray) -> None:
    """Say where a track has nothing on chromosomes `(n,)` of genes: 0 is then no signal, but none that is known."""
    for track in tracks:
        lacking = [chrom for chrom in chroms if chrom not in track.signal.chroms]
        if lacking:
            warnings.warn(
                f"track '{track.name}' has nothing on {listed(dict.fromkeys(lacking))}: it is 0 for {len(lacking)} of "
                f"{len(chroms)} genes.",
                UserWarning,
                stacklevel=3,
            )


def caller(rename, genome: Genome) -> Callable[[str], str]:
    """What a chromosome of a file is called in the genome."""
    if rename is None:
        return str
    if rename == "chr":
        return lambda name: renamed(str(name), genome.lengths)
    if isinstance(rename, Mapping):
        return lambda name: rename.get(str(name), str(name))
    raise BadInput(f"rename is {rename!r}; expected 'chr', a mapping from names there to names in the FASTA, or None.")


class BigWig:
    """A bigWig file, read a stretch at a time."""

    def __init__(self, path: str, reader, names: Mapping[str, str], total: float, fingerprint: str) -> None:
        self.path, self.reader, self.names, self.total, self.fingerprint = path, reader, names, total, fingerprint

    @classmethod
    def of(cls, path: str | Path, genome: Genome, called: Callable[[str], str], what: str) -> BigWig:
        """An open file whose chromosomes are those of the genome."""
        try:
            import pybigtools
        except ImportError as error:
            raise MissingKey(
                "pybigtools, which reads bigWig, is not installed; pip install 'sq-imputer[genomics]'."
            ) from error
        try:
            reader = pybigtools.open(str(path))
            lengths, summary = reader.chroms(), reader.info()["summary"]
        except (pybigtools.BBIReadError, OSError, ValueError) as error:
            raise BadInput(f"{what}: '{path}' cannot be read as bigWig: {error}. Copy or download it again.") from error
        names = {called(name): name for name in lengths}
        genome.check(list(names), what)
        genome.check_lengths({name: lengths[own] for name, own in names.items()}, what)
        told = f"{sorted(lengths.items())} {sorted(summary.items())}"
        return cls(str(path), reader, names, float(summary["sum"]), hashlib.sha256(told.encode()).hexdigest()[:16])

    @property
    def chroms(self) -> Collection[str]:
        """Chromosomes that the file has."""
        return self.names.keys()

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Values of bases; what the file does not have is 0."""
        if chrom not in self.names:
            return np.zeros(end - start, dtype=np.float32)
        found = self.reader.values(self.names[chrom], start, end, fillna=0.0)
        return np.nan_to_num(found, nan=0.0).astype(np.float32)


class Steps:
    """Values over intervals, or counts of cut sites, in memory: three numbers per interval, one per cut site."""

    def __init__(self, parts: dict[str, tuple[np.ndarray, ...]], fingerprint: str) -> None:
        self.parts, self.fingerprint = parts, fingerprint

    @cached_property
    def total(self) -> float:
        """Sum over the genome."""
        return float(sum(_sum_of(part) for part in self.parts.values()))

    @classmethod
    def of(cls, source: str | Path | DataFrame, genome: Genome, called: Callable[[str], str], what: str) -> Steps:
        """Intervals of a file or table, or cut sites of a fragment file."""
        found = read_intervals(source, what)
        parts: dict[str, tuple[np.ndarray, ...]] = {}
        digest = hashlib.sha256()
        names = {called(name): part for name, part in found.items()}
        genome.check(list(names), what)
        for name, (starts, ends, values) in names.items():
            genome.check_inside(name, ends, what)
            part = _cuts(starts, ends) if values is None else _sorted(starts, ends, values, name, what)
            if name in genome.lengths:
                parts[name] = part
            digest.update(name.encode())
            for one in part:
                digest.update(one)
        return cls(parts, digest.hexdigest()[:16])

    @property
    def chroms(self) -> Collection[str]:
        """Chromosomes that something is said of."""
        return self.parts.keys()

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Values of bases; between intervals 0."""
        found = np.zeros(end - start, dtype=np.float32)
        part = self.parts.get(chrom)
        if part is None:
            return found
        if len(part) == 1:  # places of cut sites
            first, last = np.searchsorted(part[0], _as(part[0], start, end))
            return np.bincount(part[0][first:last] - start, minlength=end - start).astype(np.float32)
        starts, ends, values = part
        (first,), (last,) = np.searchsorted(ends, _as(ends, start), "right"), np.searchsorted(starts, _as(starts, end))
        some = slice(first, last)
        first = np.maximum(starts[some] - start, 0)
        size = np.minimum(ends[some] - start, end - start) - first
        where = np.repeat(first - (np.cumsum(size) - size), size) + np.arange(size.sum())
        found[where] = np.repeat(values[some], size)
        return found


def _as(among: np.ndarray, *places: int) -> np.ndarray:
    """Places in the type of those that they are looked up among, which would be copied otherwise."""
    return np.array(places, dtype=among.dtype)


def _sum_of(part: tuple[np.ndarray, ...]) -> float:
    if len(part) == 1:
        return len(part[0])
    starts, ends, values = part
    return float(((ends - starts) * values.astype(np.float64)).sum())


def _cuts(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray]:
    return (np.sort(np.concatenate([starts, ends - 1])),)


def _sorted(starts: np.ndarray, ends: np.ndarray, values: np.ndarray, chrom: str, what: str) -> tuple[np.ndarray, ...]:
    order = np.argsort(starts, kind="stable")
    starts, ends, values = starts[order], ends[order], values[order]
    over = np.flatnonzero(starts[1:] < ends[:-1])
    if len(over):
        raise BadInput(
            f"{what} has {len(over)} intervals that overlap, such as at {chrom}:{starts[over[0] + 1]:,}; a base has "
            "one value. Merge them first (bedtools merge, bedtools unionbedg)."
        )
    return starts, ends, values


class Arrays:
    """An array per chromosome, one value a base."""

    def __init__(self, parts: Mapping[str, np.ndarray]) -> None:
        self.parts = parts

    @cached_property
    def total(self) -> float:
        """Sum over the genome."""
        return float(sum(np.nansum(part, dtype=np.float64) for part in self.parts.values()))

    @classmethod
    def of(cls, source: Mapping[str, np.ndarray], genome: Genome, called: Callable[[str], str], what: str) -> Arrays:
        """Arrays as long as their chromosomes."""
        parts = {called(name): np.asarray(values) for name, values in source.items()}
        genome.check(list(parts), what)
        odd = [name for name, part in parts.items() if part.ndim != 1 or part.dtype.kind not in "buif"]
        if odd:
            raise BadInput(f"{what} has no line of numbers for {listed(odd)}; expected one value a base.")
        genome.check_lengths({name: len(part) for name, part in parts.items()}, what)
        return cls(parts)

    @property
    def chroms(self) -> Collection[str]:
        """Chromosomes that something is said of."""
        return self.parts.keys()

    def values(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Values of bases; NaN is 0, and so are chromosomes without an array."""
        if chrom not in self.parts:
            return np.zeros(end - start, dtype=np.float32)
        return np.nan_to_num(self.parts[chrom][start:end].astype(np.float32), nan=0.0)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all values."""
        digest = hashlib.sha256()
        for name, part in self.parts.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()[:16]


class Regions:
    """Stretches of a genome, merged: a blacklist, or what is included."""

    def __init__(self, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        self.parts = parts

    @classmethod
    def of(cls, source: str | Path | DataFrame, genome: Genome, what: str, called=str) -> Regions:
        """The stretches of a BED file or a table with the columns `chrom`, `start`, `end`."""
        found = {called(name): part for name, part in read_intervals(source, what, values=False).items()}
        genome.check(list(found), what)
        parts = {}
        for name, (starts, ends, _) in found.items():
            genome.check_inside(name, ends, what)
            order = np.argsort(starts, kind="stable")
            starts, reach = starts[order], np.maximum.accumulate(ends[order])
            new = np.concatenate([[True], starts[1:] > reach[:-1]])
            parts[name] = starts[new], reach[np.concatenate([new[1:], [True]])]
        return cls(parts)

    def mask(self, chrom: str, start: int, end: int) -> np.ndarray:
        """`(end - start,)` which bases lie in one of the stretches."""
        found = np.zeros(end - start, dtype=bool)
        starts, ends = self.parts.get(chrom, (np.empty(0, int), np.empty(0, int)))
        for k in range(np.searchsorted(ends, start, "right"), np.searchsorted(starts, end, "left")):
            found[max(starts[k] - start, 0) : ends[k] - start] = True
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of all stretches."""
        told = sorted((name, starts.tolist(), ends.tolist()) for name, (starts, ends) in self.parts.items())
        return hashlib.sha256(str(told).encode()).hexdigest()[:16]
