"""A genome: chromosomes of a FASTA file, read a stretch at a time.

Plain FASTA is read through pyfaidx by its index (`.fai`), which is made beside the file, or in a temporary folder where
that may not be written. A gzipped one has no places to jump to: it is unpacked into memory, one byte a base, which is
for small genomes. Bases are numbers: 0 to 3 are A, C, G, T, in either case; 4 is N, any other letter, and whatever lies
beyond the ends.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.lines import PIECE, is_packed, opened
from sq_imputer.untrusted import PACKING

UNKNOWN = 4
MOST_UNPACKED = 2**30  # bases of a gzipped genome, which lie in memory
_PROBES, _PROBE = 16, 1024  # stretches of a chromosome that the fingerprint reads, and their bases
_MITOCHONDRIA = {"MT": "chrM", "chrM": "MT", "M": "chrM"}
_CODES = np.full(256, UNKNOWN, dtype=np.uint8)
_CODES[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = [0, 1, 2, 3] * 2
_OTHER_STRAND = np.array([3, 2, 1, 0, UNKNOWN], dtype=np.uint8)
# Lengths of chromosome 1 by which a build is told, with the other name of the build.
BUILDS = {
    247_249_719: ("hg18", "NCBI36"),
    249_250_621: ("hg19", "GRCh37"),
    248_956_422: ("hg38", "GRCh38"),
    248_387_328: ("hs1", "T2T-CHM13"),
    197_195_432: ("mm9", "NCBIM37"),
    195_471_971: ("mm10", "GRCm38"),
    195_154_279: ("mm39", "GRCm39"),
}


def coded(letters: str | bytes) -> np.ndarray:
    """Bases `(L,)` uint8 of letters."""
    raw = letters.encode("ascii", "replace") if isinstance(letters, str) else letters
    return _CODES[np.frombuffer(raw, dtype=np.uint8)]


def other_strand(bases: np.ndarray) -> np.ndarray:
    """The reverse complement of bases `(L,)`."""
    return _OTHER_STRAND[bases[::-1]]


def build_of(lengths: Mapping[str, int]) -> str:
    """The build that the length of chromosome 1 is of, such as `"hg38"`; empty if it is none that is known."""
    return BUILDS.get(lengths.get("chr1", lengths.get("1", 0)), ("",))[0]


class Genome:
    """Chromosomes of a FASTA file, or of a mapping from names to letters.

    Parameters
    ----------
    source
        Path of a FASTA file, plain or gzipped; or the letters of every chromosome by name.

    Raises
    ------
    MissingKey
        If there is no such file, or pyfaidx, which plain files need, is not installed.
    BadInput
        If it is no FASTA file, is damaged, or too large for memory where it must be unpacked.
    """

    def __init__(self, source: str | Path | Mapping[str, str]) -> None:
        if isinstance(source, Mapping):
            self.path, self._held = "", {str(name): coded(letters) for name, letters in source.items()}
        else:
            self.path = str(source)
            self._held = _unpacked(Path(source)) if is_packed(Path(source)) else None
        self._faidx = _indexed(Path(source)) if self._held is None else None
        self.lengths = {name: len(bases) for name, bases in (self._held or {}).items()}
        if self._faidx is not None:
            self.lengths = {name: record.rlen for name, record in self._faidx.index.items()}
        if not self.lengths or not all(self.lengths.values()):
            raise BadInput(f"'{self.path}' has no sequences, or empty ones; expected a FASTA file: '>chr1', bases.")

    def __repr__(self) -> str:
        """Where it is from, and how large."""
        build = f" ({self.build})" if self.build else ""
        size = f"{len(self.lengths)} chromosomes, {sum(self.lengths.values()):,} bases{build}"
        return f"Genome of {size} from {self.path or 'letters'}"

    @property
    def build(self) -> str:
        """The build, such as `"hg38"`, where the length of chromosome 1 tells it; else empty."""
        return build_of(self.lengths)

    @property
    def provenance(self) -> dict:
        """Where it is from, its build where that is known, its size, and its hash."""
        size = {"chromosomes": len(self.lengths), "bases": sum(self.lengths.values())}
        return {"path": self.path, "build": self.build, **size, "sha256": self.fingerprint}

    def read(self, chrom: str, start: int, end: int) -> np.ndarray:
        """Bases `(end - start,)` uint8 from `start`, counted from 0, to before `end`; 4 beyond the ends."""
        length = self.lengths[chrom]
        found = np.full(end - start, UNKNOWN, dtype=np.uint8)
        first, last = max(start, 0), min(end, length)
        if first < last:
            found[first - start : last - start] = self._part(chrom, first, last)
        return found

    def _part(self, chrom: str, first: int, last: int) -> np.ndarray:
        if self._held is not None:
            return self._held[chrom][first:last]
        part = coded(self._faidx.fetch(chrom, first + 1, last).seq)
        if len(part) != last - first:
            raise BadInput(f"'{self.path}' is not as its index says at {chrom}:{first:,}; delete the '.fai' beside it.")
        return part

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, lengths, and of bases at evenly spaced places of each chromosome."""
        digest = hashlib.sha256()
        for name, length in self.lengths.items():
            digest.update(f"{name} {length}".encode())
            for start in np.linspace(0, max(length - _PROBE, 0), _PROBES if length > _PROBE else 1).astype(int):
                digest.update(self.read(name, int(start), int(start) + _PROBE).tobytes())
        return digest.hexdigest()[:16]

    def check(self, chroms: Sequence[str], what: str) -> None:
        """Raise `BadInput` if none of some chromosomes' names is one of this genome; the error names the fix."""
        names = set(map(str, chroms))
        if not names or names & self.lengths.keys():
            return
        told = f"{what} calls chromosomes {listed(sorted(names))}, and the genome {listed(self.lengths)}"
        if any(renamed(name, self.lengths) in self.lengths for name in names):
            fix = "They differ by 'chr' alone: pass rename='chr' if both are of the same build."
        else:
            fix = "Pass files of one genome, or rename={'name there': 'name in the FASTA'}."
        raise BadInput(f"{told}. {fix}")

    def check_lengths(self, lengths: Mapping[str, int], what: str) -> None:
        """Raise `BadInput` if chromosomes of the same name have other lengths: another build, or another species."""
        odd = {name: n for name, n in lengths.items() if n != self.lengths.get(name, n)}
        if odd:
            name = next(iter(odd))
            mine, other = self.build, build_of(lengths)
            told = f" ({other or 'another build'} against {mine or 'the FASTA'})"
            raise BadInput(
                f"{what} says that '{name}' has {odd[name]:,} bases, and the genome has {self.lengths[name]:,}{told}; "
                f"{len(odd)} of {len(lengths)} chromosomes differ. Pass the FASTA of the same build, or lift it over."
            )

    def check_inside(self, chrom: str, ends: np.ndarray, what: str) -> None:
        """Raise `BadInput` if places lie beyond the end of a chromosome; of one that the genome lacks, none do."""
        length = self.lengths.get(chrom)
        odd = 0 if length is None else int((ends > length).sum())
        if odd:
            build = f" ({self.build})" if self.build else ""
            raise BadInput(
                f"{what} has {odd} positions beyond the end of '{chrom}', such as {ends.max():,} of {length:,} bases: "
                f"it is of another build than the genome{build}. Pass files of one build."
            )


def renamed(name: str, lengths: Mapping[str, int]) -> str:
    """A chromosome by the name that a genome has for it, with or without `chr`; as it is if it has none."""
    if name in lengths:
        return name
    tries = (f"chr{name}", name.removeprefix("chr"), _MITOCHONDRIA.get(name, ""))
    return next((other for other in tries if other in lengths), name)


def _unpacked(path: Path) -> dict[str, np.ndarray]:
    """All chromosomes of a gzipped file."""
    found: dict[str, list[bytes]] = {}
    size, inside = 0, False  # a line may come in parts
    try:
        with opened(path) as file:
            while line := file.readline(PIECE):
                if line.startswith(b">") and not inside:
                    name = _name_of(line)
                    if not name or name in found:
                        raise BadInput(f"'{path}' has a sequence without a name, or '{name}' twice. Rename it.")
                    parts = found[name] = []
                elif found:
                    parts.append(line.strip())
                    size += len(parts[-1])
                inside = not line.endswith(b"\n")
                if size > MOST_UNPACKED:
                    raise BadInput(
                        f"'{path}' has more than {MOST_UNPACKED:,} bases, too many for memory. Unpack it once "
                        "(gunzip): plain FASTA is read by its index."
                    )
    except (*PACKING, UnicodeDecodeError) as error:
        raise BadInput(f"'{path}' is damaged: {error}. Copy or download it again.") from error
    return {name: coded(b"".join(lines)) for name, lines in found.items()}


def _name_of(line: bytes) -> str:
    words = line[1:].split(maxsplit=1)
    return words[0].decode() if words else ""


def _indexed(path: Path):
    """A plain FASTA file through pyfaidx, with an index beside it, or in a temporary folder."""
    try:
        import pyfaidx
    except ImportError as error:
        raise MissingKey(
            "pyfaidx, which reads plain FASTA, is not installed; pip install 'sq-imputer[genomics]'."
        ) from error
    beside = Path(f"{path}.fai")
    fresh = beside.is_file() and beside.stat().st_mtime >= path.stat().st_mtime
    with tempfile.TemporaryDirectory() as folder:  # the index is in memory once it is read
        index = beside if fresh or os.access(path.parent, os.W_OK) else Path(folder) / beside.name
        try:
            return pyfaidx.Faidx(path, indexname=index)
        except (OSError, ValueError, pyfaidx.FastaIndexingError, pyfaidx.IndexNotFoundError) as error:
            told = f"'{path}' is no FASTA file that can be indexed: {error}"
            fix = "Give sequences '>name' with lines of one length, and delete an old '.fai'."
            raise BadInput(f"{told}. {fix}") from error
