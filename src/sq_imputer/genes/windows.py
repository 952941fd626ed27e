r"""Genes as rows: windows of DNA around transcription start sites, and what is expressed of each gene.

A window of length :math:`L` holds the bases :math:`s - \lfloor L/2 \rfloor, \dots` of the strand that the FASTA
file has, so that the start site :math:`s` is number :math:`\lfloor L/2 \rfloor`; turned to the gene's own strand
(`strand="reverse_complement"`) it is so for both strands. What lies beyond the ends of a chromosome is
unknown, as N is.

DNA is the same in all spots of a tissue. What can be learned of it is how genes differ, not how places do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Batch, Marks, Needs
from sq_imputer.errors import BadInput, check_number, listed
from sq_imputer.genes.cut import Loci, Sequences
from sq_imputer.genes.folds import gene_folds
from sq_imputer.genes.genome import Genome
from sq_imputer.genes.measured import AS_GIVEN, expressed, matrix_of, numbers_of
from sq_imputer.genes.positions import place, turns
from sq_imputer.genes.prompts import as_bytes
from sq_imputer.genes.tracks import Regions, caller, tracks_of, warn_of_silent

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from torch import Tensor

MOST = 2**28  # base pairs of a window: longer than any human chromosome

# n genes, L bases, T tracks, E further numbers, C contexts


@dataclass(frozen=True, eq=False, repr=False)
class GeneWindows:
    """Genes with the DNA around their start sites: a source of rows for models of the gene axis.

    Made by :meth:`from_table` or :meth:`from_sequences`. Nothing of the DNA or the tracks is read until batches are
    asked for. It stands where a :class:`sq_imputer.Slide` stands for images: :meth:`by_chromosome` gives one source per
    chromosome, whose errors and splits are then by chromosome.

    Parameters
    ----------
    names
        `(n,)` names of the genes.
    cut
        What cuts the windows.
    length
        Base pairs of a window; a model that asks for fewer sees the middle.
    genes
        Names of the contexts that expression is predicted in, such as cell types.
    expression
        `(n, C)` float32, NaN where nothing was measured.
    unit
        Of the expression.
    extra
        `(n, E)` float32 further numbers of a gene, or None.
    texts
        `(n,)` what is written about a gene, or None; its name then stands for that.
    called
        What the rows together are called, where it is not the name of their chromosome.
    """

    names: np.ndarray
    cut: Loci | Sequences
    length: int
    genes: tuple[str, ...]
    expression: np.ndarray | None
    unit: str = AS_GIVEN
    extra: np.ndarray | None = None
    called: str = ""
    texts: np.ndarray | None = None

    @classmethod
    def from_table(
        cls,
        table: AnnData | DataFrame,
        fasta: str | Path | Genome | Mapping[str, str],
        annotation: str | Path | DataFrame | None = None,
        *,
        tracks: Mapping[str, object] | Sequence[str | Path] = (),
        target: str | Sequence[str] | None = None,
        layer: str | None = None,
        unit: str | None = None,
        length: int = 200_000,
        strand: str = "keep",
        normalize: str | Mapping[str, str] = "raw",
        blacklist: str | Path | DataFrame | None = None,
        include: str | Path | DataFrame | None = None,
        extra: DataFrame | None = None,
        rename: str | Mapping[str, str] | None = None,
    ) -> GeneWindows:
        """Windows around the start sites of the genes of a table.

        Parameters
        ----------
        table
            Genes with what is expressed of them: a DataFrame whose index names genes, or an AnnData, of whose rows the
            counts are summed and given as `log1p_cp10k` of the sum (values that are no counts are averaged).
        fasta
            The genome: path of a FASTA file, plain or gzipped, or a mapping from chromosomes to letters.
        annotation
            GTF, GFF3 or BED file, or a table with the columns `chrom`, `tss` (counted from 0) and `strand`. Left out:
            the table itself (`var` of an AnnData) has these columns.
        tracks
            Signals by name: paths of bigWig, bedGraph or fragment files, tables with `chrom`, `start`, `end` and a
            value, or arrays by chromosome. Paths alone are called as their files.
        target
            Columns of a DataFrame to predict, all numbers if left out, `()` for windows alone; of an AnnData the
            column of `obs` whose labels are the contexts, one context if left out.
        layer
            Layer of the AnnData; X if left out.
        unit
            What the expression is in, if it is to be called otherwise.
        length
            Base pairs of a window.
        strand
            `"keep"`: all windows as the FASTA file has them, as Seq2Exp reads them. `"reverse_complement"`: those of
            genes on the - strand are turned, tracks with them.
        normalize
            Of the tracks: `"raw"`, `"p99"` or `"cpm"` (`sq_imputer.genes.tracks`), for all or by name.
        blacklist
            BED file or table of stretches that no model may use.
        include
            The same for stretches that alone may be used.
        extra
            Further numbers of every gene, such as half-life features: a table whose index names the genes.
        rename
            `"chr"`: chromosomes of the other files are called as in the FASTA with or without `chr`. Or a mapping from
            the names there to the names in the FASTA.

        Raises
        ------
        MissingKey
            If a file, a column or a package is missing.
        BadInput
            If files are of different builds, call chromosomes differently, or have none of the genes; the message has
            the fix.
        """
        genome = fasta if isinstance(fasta, Genome) else Genome(fasta)
        found, called = expressed(table, target, layer, unit), caller(rename, genome)
        placed = place(found.names, found.ids, found.about if annotation is None else annotation, genome, called)
        signals = tracks_of(tracks, normalize, genome, called)
        masks = [
            None if source is None else Regions.of(source, genome, name, called)
            for name, source in (("blacklist", blacklist), ("include", include))
        ]
        turned = turns(strand, placed.strands)
        warn_of_silent(signals, placed.chroms)
        cut = Loci(genome, placed.chroms, placed.tss, placed.strands, turned, signals, *masks)
        names = [found.names[row] for row in placed.rows]
        values = None if found.values is None else found.values[placed.rows]
        return cls._made(names, cut, length, found.contexts, values, found.unit, numbers_of(extra, names))

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[str],
        expression=None,
        *,
        names: Sequence[str] | None = None,
        group: Sequence[str] | None = None,
        genes: Sequence[str] = ("expression",),
        unit: str = AS_GIVEN,
        length: int | None = None,
        extra=None,
    ) -> GeneWindows:
        """Windows of sequences at hand, such as promoters of a reporter assay.

        Parameters
        ----------
        sequences
            Letters of every window. Shorter ones are filled up with unknown bases on both sides.
        expression
            `(n,)` or `(n, C)`, NaN where not measured; None if nothing was.
        names
            Names of the rows; numbers if left out.
        group
            What rows of must not be parted by a split, such as the family that a sequence is a variant of; it stands
            where the chromosome stands for genes. All rows are of one group if left out.
        genes
            Names of the columns of `expression`.
        unit
            Of the expression.
        length
            Of the windows; the longest sequence's if left out. Of longer sequences the middle is taken.
        extra
            `(n, E)` further numbers.
        """
        sequences = list(sequences)
        if not sequences or not all(isinstance(one, str) and one for one in sequences):
            raise BadInput(f"{len(sequences)} sequences, or some are empty or no text; expected letters of each.")
        names = [str(k) for k in range(len(sequences))] if names is None else names
        group = ["sequences"] * len(sequences) if group is None else group
        length = max(map(len, sequences)) if length is None else length
        return cls._made(names, Sequences.of(sequences, group), length, genes, expression, unit, extra)

    @classmethod
    def _made(cls, names, cut, length, genes, expression, unit, extra) -> GeneWindows:
        """Windows whose parts fit together, or an error."""
        check_number("length", length, 1, MOST, whole=True)
        names = np.array([str(name) for name in names], dtype=object)
        if len(names) != len(cut):
            raise BadInput(f"{len(names)} names of {len(cut)} windows; expected one name each.")
        genes = tuple(map(str, genes))
        if expression is not None:
            expression = matrix_of(expression, len(names), "expression")
            if expression.shape[1] != len(genes):
                raise BadInput(f"expression has {expression.shape[1]} columns, and names are {listed(genes)}.")
        if extra is not None:
            extra = matrix_of(extra, len(names), "extra")
            if not np.isfinite(extra).all():
                raise BadInput("extra has values that are NaN or infinite; fill or leave out these genes.")
        return cls(names, cut, int(length), genes, expression, unit, extra)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        """What it is of, and how much of it is measured."""
        size = f"{len(self)} windows of {self.length:,} bp, {self.measured.sum()} measured"
        tracks = f", tracks {listed(self.tracks)}" if self.tracks else ""
        return f"GeneWindows '{self.section}': {size} in {len(self.genes)} contexts{tracks}"

    def __getitem__(self, rows) -> GeneWindows:
        """The windows of some rows: a mask, or numbers."""
        rows = np.arange(len(self))[rows]
        kept = {name: getattr(self, name) for name in ("names", "cut", "expression", "extra", "texts")}
        return replace(self, **{name: part[rows] for name, part in kept.items() if part is not None})

    def with_texts(self, texts: Mapping[str, str]) -> GeneWindows:
        """The same with what is written about the genes (:func:`sq_imputer.genes.gene_prompts`), by name."""
        missing = [name for name in self.names if not texts.get(name)]
        if missing:
            raise BadInput(f"texts has none of {len(missing)} of {len(self)} genes: {listed(missing)}. Add these.")
        return replace(self, texts=np.array([texts[name] for name in self.names], dtype=object))

    def by_chromosome(self, n_parts: int | None = None) -> list[GeneWindows]:
        """One source per chromosome (or group), or `n_parts` about equal ones, none of which shares a chromosome.

        What splits are made of: errors are measured on chromosomes that a fit has not seen. Many small groups, such as
        the families of a reporter assay, are dealt into parts.
        """
        labels, number = np.unique(self.cut.labels.astype(str), return_inverse=True)
        titles = [""] * len(labels)
        if n_parts is not None:
            keys = list(map(str, range(len(self))))
            number = gene_folds(keys, n_parts, chromosomes=dict(zip(keys, self.cut.labels, strict=True)))
            titles = [f"part {k + 1} of {n_parts}" for k in range(n_parts)]
        order = np.argsort(number, kind="stable")
        rows = np.split(order, np.cumsum(np.bincount(number))[:-1])
        return [replace(self[own], called=title) for own, title in zip(rows, titles, strict=True)]

    # What a source is --------------------------------------------------------------------------------

    @property
    def section(self) -> str:
        """The chromosome, or how many there are."""
        if self.called:
            return self.called
        found = list(dict.fromkeys(self.cut.labels.tolist()))
        return str(found[0]) if len(found) == 1 else f"{len(found)} {self.cut.parts}"

    @property
    def group(self) -> str:
        """The same: what genes of one chromosome share, such as paralogs beside each other, is not new."""
        return self.section

    @property
    def measured(self) -> np.ndarray:
        """`(n,)` whether a gene was measured in all contexts."""
        if self.expression is None:
            return np.zeros(len(self), dtype=bool)
        return np.isfinite(self.expression).all(axis=1)

    @property
    def xy_um(self) -> np.ndarray:
        """`(n, 2)` place along the chromosome in base pairs, and a number of the chromosome, far apart."""
        return self.cut.places

    @property
    def tracks(self) -> tuple[str, ...]:
        """Names of the tracks."""
        return self.cut.tracks

    @property
    def sizes(self) -> dict[str, int]:
        """How many tracks and further numbers a row has: what a model is built for."""
        return {"tracks": len(self.tracks), "extra": 0 if self.extra is None else self.extra.shape[1]}

    @property
    def reads(self) -> list[str]:
        """How windows and tracks are read, in order: what must be the same for a fitted model."""
        return list(self.cut.reads)

    @property
    def provenance(self) -> dict:
        """What was read: genome, tracks and masks, and how windows are cut."""
        size = {"length": self.length, "genes": len(self), "reads": self.reads}
        return {**size, "fingerprint": self.fingerprint, **self.cut.provenance}

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the genome, the windows, the tracks and what was measured."""
        found = hashlib.sha256(f"{self.length} {self.cut.fingerprint} {self.genes} {self.unit}".encode())
        found.update("\n".join(self.names).encode())
        if self.texts is not None:
            found.update("\n".join(self.texts).encode())
        for part in (self.expression, self.extra):
            found.update(b"none" if part is None else np.ascontiguousarray(part).tobytes())
        return found.hexdigest()[:16]

    def batches(
        self,
        needs: Needs,
        batch_size: int = 64,
        *,
        rows=None,
        generator: np.random.Generator | None = None,
        device: str = "auto",
    ) -> Iterator[Batch]:
        """Batches of `rows` along the genome, or shuffled by `generator`; one batch is in memory at a time."""
        self._length(needs)
        rows = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        order = rows[self.cut.order(rows)] if generator is None else generator.permutation(rows)
        for start in range(0, len(order), batch_size):
            yield self._batch(order[start : start + batch_size], needs)

    def _length(self, needs: Needs) -> int:
        if not needs.of_genes:
            raise BadInput("rows are genes, and the model asks for no DNA (Needs.sequence). Take a model that does.")
        if needs.sequence > self.length:
            raise BadInput(
                f"the model reads {needs.sequence:,} bp, and the windows have {self.length:,}. Make them with "
                f"length={needs.sequence}, or set the model's length in its config."
            )
        return needs.sequence

    def _batch(self, index: np.ndarray, needs: Needs) -> Batch:
        import torch

        own = {"expression": self.expression, "extra": self.extra}
        seen = {name: torch.from_numpy(part[index]) for name, part in own.items() if part is not None}
        if needs.text:
            texts = self.names if self.texts is None else self.texts
            seen["text"] = torch.from_numpy(as_bytes(texts[index], needs.text))
        if needs.sequence:
            seen |= self._windows(index, self._length(needs))
        return Batch(
            torch.from_numpy(index),
            xy_um=torch.from_numpy(self.xy_um[index]),
            section=torch.zeros(len(index), dtype=torch.long),
            **seen,
        )

    def _windows(self, index: np.ndarray, length: int) -> dict[str, Tensor]:
        """Bases, which of them are allowed, and tracks."""
        import torch

        bases = np.empty((len(index), length), dtype=np.uint8)
        allowed = np.empty((len(index), length), dtype=bool)
        tracks = np.empty((len(index), length, len(self.tracks)), dtype=np.float32)
        for k in self.cut.order(index):  # read along the genome, kept in the order asked for
            bases[k], allowed[k], signal = self.cut.window(int(index[k]), length)
            if self.tracks:
                tracks[k] = signal
        found = {"bases": bases, "allowed": allowed} | ({"tracks": tracks} if self.tracks else {})
        return {name: torch.from_numpy(part) for name, part in found.items()}

    def all_features(self, needs: Needs, *, device: str = "auto") -> np.ndarray:
        """Nothing, `(n, 0)`: no encoder reads DNA."""
        return np.zeros((len(self), 0), dtype=np.float32)

    def moments(self, needs: Needs, *, device: str = "auto") -> None:
        """Nothing: there are no features to be scaled."""

    def marks(self, genes: Sequence[str]) -> Marks:
        """The places of the measured genes; genes are told by name, and no codes are needed."""
        xy = self.xy_um[self.measured]
        return Marks((), xy, np.zeros((len(xy), 0), dtype=np.int16), np.zeros(0, dtype=bool))
