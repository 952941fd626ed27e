"""Stretches of windows: which bases a mask keeps together, where they lie on the genome, and files of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.cut import Loci

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.genes.windows import GeneWindows

PLACE = ("chrom", "start", "end")


class Place(NamedTuple):
    """Where the window of a gene lies: chromosome, first base and the one after the last; turned or not.

    Sequences at hand lie on a chromosome of their own name, from 0.
    """

    chrom: str
    start: int
    end: int
    turned: bool
    strand: str

    @classmethod
    def of(cls, windows: GeneWindows, row: int, length: int) -> Place:
        """The middle `length` bases of the window of a row."""
        cut = windows.cut
        if not isinstance(cut, Loci):
            start = int(cut.lengths[row]) // 2 - length // 2
            return cls(str(windows.names[row]), start, start + length, False, ".")
        return cls(str(cut.chroms[row]), *cut.span(row, length), cut.flipped(row), str(cut.strands[row]))

    def outside(self, first: int, last: int) -> tuple[int, int]:
        """Bases of the window as places on the chromosome."""
        if self.turned:
            return self.end - last, self.end - first
        return self.start + first, self.start + last

    def inside(self, start: int, end: int) -> tuple[int, int]:
        """Places on the chromosome as bases of the window."""
        if self.turned:
            return self.end - end, self.end - start
        return start - self.start, end - self.start


def kept(mask: np.ndarray, allowed: np.ndarray, share: float, merge: int, least: int) -> list[tuple[int, int]]:
    """Stretches of the share of the allowed bases with the highest masks: first base, and the one after the last.

    Parameters
    ----------
    mask, allowed
        `(L,)` of a window.
    share
        Share of the allowed bases.
    merge
        Gaps up to this many bases are closed.
    least
        Shorter stretches are left out.
    """
    count = round(share * allowed.sum())
    if not count:
        return []
    order = np.argsort(-np.where(allowed, mask, -1), kind="stable")[:count]
    places = np.sort(order)
    breaks = np.flatnonzero(np.diff(places) > merge + 1)
    firsts, lasts = places[np.r_[0, breaks + 1]], places[np.r_[breaks, len(places) - 1]] + 1
    return [(int(a), int(b)) for a, b in zip(firsts, lasts, strict=True) if b - a >= least]


def write_bed(table: DataFrame, path: str | Path) -> Path:
    """Write stretches as a BED file for a genome browser: the gene is the name, the mask times 1000 the score.

    Parameters
    ----------
    table
        As :func:`sq_imputer.tl.regulatory_map` returns it.
    path
        The file, which must not exist.

    Examples
    --------
    >>> path = sqi.genes.write_bed(stretches, "stretches.bed")
    """
    _check(table, (*PLACE, "gene", "mask"))
    rows = table.sort_values(list(PLACE))
    strands = rows["strand"] if "strand" in rows else ["."] * len(rows)
    scores = np.clip(np.rint(1000 * rows["mask"].to_numpy(dtype=float)), 0, 1000).astype(int)
    fields = zip(rows["chrom"], rows["start"], rows["end"], rows["gene"], scores, strands, strict=True)
    return _written(path, ("\t".join(map(str, one)) for one in fields))


def write_bedgraph(table: DataFrame, path: str | Path, column: str = "mask") -> Path:
    """Write a column of stretches as a bedGraph; where stretches of several genes overlap, their mean.

    Parameters
    ----------
    table
        As :func:`sq_imputer.tl.regulatory_map` returns it.
    path
        The file, which must not exist.
    column
        A column of numbers: `"mask"`, `"mask_std"`, `"dna"`, `"signal"`.

    Examples
    --------
    >>> path = sqi.genes.write_bedgraph(stretches, "masks.bedgraph")
    """
    _check(table, (*PLACE, column))
    return _written(path, _levels(table, column))


def _levels(table: DataFrame, column: str) -> Iterable[str]:
    for chrom, rows in table.groupby("chrom", sort=True):
        starts, ends = rows["start"].to_numpy(), rows["end"].to_numpy()
        edges = np.unique(np.concatenate([starts, ends]))
        total, count = np.zeros(len(edges)), np.zeros(len(edges), dtype=int)
        values = rows[column].to_numpy(dtype=float)
        for sign, at in ((1, starts), (-1, ends)):
            place = np.searchsorted(edges, at)
            np.add.at(total, place, sign * values)
            np.add.at(count, place, sign)
        total, count = total.cumsum(), count.cumsum()
        for k in np.flatnonzero(count):
            yield f"{chrom}\t{edges[k]}\t{edges[k + 1]}\t{total[k] / count[k]:.6g}"


def _check(table: DataFrame, columns: tuple[str, ...]) -> None:
    if not hasattr(table, "groupby"):
        raise BadInput(f"table is a {type(table).__name__}; expected what tl.regulatory_map returns.")
    missing = [name for name in columns if name not in table]
    if missing:
        raise MissingKey(f"no column {listed(missing)}; the table has {listed(table.columns, 12)}.")


def _written(path: str | Path, lines: Iterable[str]) -> Path:
    path = Path(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except FileExistsError:
        raise BadInput(f"'{path}' exists, and nothing is written over it. Pass another path.") from None
    except FileNotFoundError:
        raise BadInput(f"there is no folder '{path.parent}' to hold '{path.name}'. Make it first.") from None
    return path


def rows_of(windows: GeneWindows, genes: Iterable[str] | str | None) -> np.ndarray:
    """Row numbers of genes, all if None; an error names those without a window."""
    if genes is None:
        return np.arange(len(windows))
    genes = [genes] if isinstance(genes, str) else list(genes)
    number: Mapping[str, int] = {name: k for k, name in enumerate(windows.names)}
    lost = [gene for gene in genes if gene not in number]
    if lost or not genes:
        raise MissingKey(f"no window of {listed(lost, 10)}; there are windows of {listed(windows.names, 5)}.")
    return np.array([number[gene] for gene in genes], dtype=int)
