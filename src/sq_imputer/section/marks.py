"""By what the rows of a section are found again: their places, and codes of their counts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from sq_imputer.contract import Marks
from sq_imputer.genes.names import column_of, columns_by_name
from sq_imputer.scores.overlap import GENES_PER_CODE, codes_of, shared

MOST_GENES = 128  # of the panel, and as many of the others


class Marked:
    """By what :class:`sq_imputer.Slide` is known again; the fields are those of the slide."""

    @cached_property
    def fingerprint(self) -> str:
        """Identity of all that was measured: the same for the same counts by any name, in any order, at any place."""
        rows = np.zeros(len(self), dtype=np.uint64)
        numbers = np.array([_number(name) for name in self.var_names], dtype=np.uint64)
        for where, columns, block in () if self.counts is None else self.counts.blocks():
            ends = np.zeros(block.nnz + 1, dtype=np.uint64)
            np.cumsum(block.data.astype(np.uint64) * numbers[columns[block.indices]], out=ends[1:])
            rows[where] += np.diff(ends[block.indptr])
        found = hashlib.sha256(np.sort(rows[self.measured]).tobytes())
        if self.labels is not None:
            found.update(f"{self.target.where} {self.target.names}".encode() + self.labels.tobytes())
        return found.hexdigest()[:16]

    def marks(self, genes: Sequence[str]) -> Marks:
        """By what the measured rows are found again: the most abundant of these genes, and of all others.

        They come in the order of their names, since a filter takes families (`MT-`, `RPL`): those share codes. Found
        once: the guard, a fit and every case of a benchmark ask for the same.
        """
        genes = tuple(genes)
        if genes not in self._marks:
            self._marks[genes] = self._found(genes)
        return self._marks[genes]

    @cached_property
    def _marks(self) -> dict[tuple[str, ...], Marks]:
        return {}

    def _found(self, genes: Sequence[str]) -> Marks:
        if self.counts is None:
            return self.coded(())
        known, name = columns_by_name(self.var_names, self.gene_ids), self.var_names.__getitem__
        inside = {column: gene for gene in genes if (column := column_of(gene, known)) is not None}
        total = np.zeros(len(self.var_names))
        for _, columns, block in self.counts.blocks():
            total[columns] += np.asarray(block.sum(axis=0)).ravel()
        ranked = np.argsort(-total, kind="stable").tolist()
        columns = [c for c in ranked if c in inside][:MOST_GENES], [c for c in ranked if c not in inside][:MOST_GENES]
        return self.coded([inside.get(c, name(c)) for part in columns for c in sorted(part, key=name)])

    def coded(self, genes: Sequence[str]) -> Marks:
        """The measured rows, coded by these genes; a code is not known if the section lacks a gene of it."""
        rows, where = np.flatnonzero(self.measured), columns_by_name(self.var_names, self.gene_ids)
        columns = [column_of(gene, where) for gene in genes]
        there = np.array([column is not None for column in columns], dtype=bool)
        known = np.logical_and.reduceat(there, np.arange(0, len(genes), GENES_PER_CODE)) if len(genes) else there
        codes = np.zeros((len(rows), len(known)), dtype=np.int16)
        kept = np.flatnonzero(np.repeat(known, GENES_PER_CODE)[: len(genes)])
        if len(kept):
            codes[:, known] = codes_of(self.counts.columns([columns[k] for k in kept])[rows])
        return Marks(tuple(genes), self.xy_um[rows], codes, known)

    def among(self, training: Marks) -> np.ndarray:
        """Which rows `(n,)` are rows that a model was fitted on; those that are not measured never are."""
        found = np.zeros(len(self), dtype=bool)
        if self.counts is not None:
            found[self.measured] = shared(self.coded(training.genes), training)
        return found


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | 1
