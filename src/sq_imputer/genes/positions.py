"""Where genes start: GTF, GFF3 and BED files, and tables with the columns `chrom`, `tss`, `strand`.

Positions are counted from 0. The start site of a gene is the first base of its `gene` line, or of the outermost of its
transcripts where a file has no such lines; on the `-` strand that is the last base of the interval.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.genome import BUILDS, Genome
from sq_imputer.genes.lines import lines
from sq_imputer.genes.names import alike, column_of, columns_by_name

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("chrom", "tss", "strand")
STRANDS = ("+", "-", ".")
GENES = ("gene", "ncRNA_gene", "pseudogene")  # lines of genes: Ensembl's GFF3 tells kinds apart
COPY = "_PAR_Y"  # ends GENCODE's ids of genes on chromosome Y that are those of X once more
_GTF = re.compile(r'(\w+) "([^"]*)"')
_GFF = re.compile(r"(\w+)=([^;]*)")


class Annotation(NamedTuple):
    """Genes of a file: ids, symbols (the id where there is none), chromosomes, start sites, strands, each `(n,)`.

    `lengths` are those of chromosomes, where the file says them, and `build` what it calls its genome.
    """

    ids: list[str]
    symbols: list[str]
    chroms: np.ndarray
    tss: np.ndarray
    strands: np.ndarray
    lengths: dict[str, int]
    build: str


def read_annotation(path: str | Path) -> Annotation:
    """Genes of a GTF, GFF3 or BED file, gzipped or not.

    Raises
    ------
    MissingKey
        If there is no such file.
    BadInput
        If it is damaged, or has no genes.
    """
    header: list[str] = []
    genes: dict[str, list] = {}
    others: dict[str, list] = {}
    for line in lines(Path(path), "annotation"):
        if line.startswith("##FASTA"):
            break
        fields = line.split("\t")
        if line.startswith("#") or len(fields) < 3:
            header.append(line)
        elif len(fields) >= 9 and fields[3].isdigit() and fields[4].isdigit():
            _take_feature(fields, genes, others)
        elif fields[1].isdigit() and fields[2].isdigit():
            _take_bed(fields, genes, path)
        else:
            raise BadInput(f"'{path}' has the line '{line[:60]}'; expected GTF, GFF3 or BED, by tabs.")
    found = genes or others
    if not found:
        raise BadInput(f"no genes in '{path}'; expected lines of genes or transcripts (GTF, GFF3), or BED.")
    rows = list(found.values())
    strands = np.array([row[4] for row in rows], dtype=object)
    tss = np.array([row[3] - 1 if row[4] == "-" else row[2] for row in rows], dtype=np.int64)
    chroms = np.array([row[1] for row in rows], dtype=object)
    return Annotation(list(found), [row[0] for row in rows], chroms, tss, strands, *_said(header))


def _take_feature(fields: list[str], genes: dict[str, list], others: dict[str, list]) -> None:
    """A line of GTF or GFF3, whose positions are counted from 1."""
    kind = fields[2]
    if kind not in GENES and kind not in ("transcript", "mRNA", "exon"):
        return
    said = dict(_GTF.findall(fields[8])) or dict(_GFF.findall(fields[8]))
    name = said.get("gene_id") or (said.get("ID", "") if kind in GENES else said.get("Parent", ""))
    name = name.removeprefix("gene:")
    if not name:
        return
    symbol = said.get("gene_name") or said.get("gene") or said.get("Name") or name
    into = genes if kind in GENES else others
    start, end = int(fields[3]) - 1, int(fields[4])
    if kind in GENES or name not in into:
        into.setdefault(name, [symbol, fields[0], start, end, fields[6]])
    elif fields[0] == into[name][1]:
        into[name][2:4] = min(start, into[name][2]), max(end, into[name][3])


def _take_bed(fields: list[str], genes: dict[str, list], path: str | Path) -> None:
    name = fields[3] if len(fields) > 3 else f"{fields[0]}:{fields[1]}"
    strand, start, end = fields[5] if len(fields) > 5 else ".", int(fields[1]), int(fields[2])
    if strand not in STRANDS or (strand == "." and end - start > 1):
        raise BadInput(
            f"'{path}' has no strand for '{name}', of {end - start} bases, so that its start is not known. Add strands "
            "as the sixth column, or give start sites of one base."
        )
    if name in genes and genes[name][1:] != [fields[0], start, end, strand]:
        raise BadInput(f"'{path}' has '{name}' at two places; give each gene one line.")
    genes[name] = [name, fields[0], start, end, strand]


def _said(header: list[str]) -> tuple[dict[str, int], str]:
    """Lengths of chromosomes and the build, where comments say them."""
    lengths = {}
    for line in header:
        fields = line.split()
        if fields[0] == "##sequence-region" and len(fields) == 4 and fields[3].isdigit():
            lengths[fields[1]] = int(fields[3])
    text = " ".join(header)
    found = [names[0] for names in BUILDS.values() if any(re.search(rf"\b{name}(\b|\.)", text) for name in names)]
    return lengths, found[0] if len(found) == 1 else ""


class Placed(NamedTuple):
    """Genes that were found: which `(m,)` of those asked for, chromosomes, start sites, strands."""

    rows: np.ndarray
    chroms: np.ndarray
    tss: np.ndarray
    strands: np.ndarray


def place(
    genes: Sequence[str],
    ids: Sequence[str],
    annotation: str | Path | DataFrame,
    genome: Genome,
    called: Callable[[str], str] = str,
) -> Placed:
    """The start sites of genes, by symbol or id; genes without one on the genome are left out, which a warning says.

    A symbol that stands for several genes finds none: they are found by id.

    Parameters
    ----------
    genes
        Symbols or ids, with or without their version.
    ids
        The ids of the same genes, for those whose symbol is not found; or none.
    annotation
        A file, or a table with the columns `chrom`, `tss`, `strand` whose index names the genes.
    genome
        What they must lie on.
    called
        What a chromosome of the annotation is called in the genome.

    Raises
    ------
    BadInput
        If none is found, or the annotation is of another build.
    """
    if isinstance(annotation, str | Path):
        known, what = read_annotation(annotation), f"annotation '{annotation}'"
    else:
        known, what = of_table(annotation), "the table of positions"
    chroms = np.array([called(chrom) for chrom in known.chroms], dtype=object)
    genome.check(chroms.tolist(), what)
    genome.check_lengths({called(name): length for name, length in known.lengths.items()}, what)
    if known.build and genome.build and known.build != genome.build:
        raise BadInput(
            f"{what} is of {known.build}, and the genome of {genome.build}. Pass both of one build, or lift it over."
        )
    columns = _columns(known)
    found = [column_of(gene, columns) for gene in genes]
    for k, one in enumerate(ids):
        found[k] = column_of(one, columns) if found[k] is None else found[k]
    if not any(column is not None for column in found):
        same = alike(genes, known.symbols)
        hint = f"{len(same)} match but for case. " if same else ""
        raise BadInput(
            f"{what} has none of the {len(genes)} genes, such as {listed(genes, 3)}; it has {listed(known.symbols, 3)} "
            f"and {listed(known.ids, 3)}. {hint}Pass the annotation of these names."
        )
    there = [k for k, column in enumerate(found) if column is not None and chroms[column] in genome.lengths]
    kept = set(there)
    _warn_of_lost([gene for k, gene in enumerate(genes) if k not in kept], len(genes), what)
    at = np.array([found[k] for k in there], dtype=int)
    for chrom in dict.fromkeys(chroms[at]):
        genome.check_inside(chrom, known.tss[at][chroms[at] == chrom] + 1, what)
    return Placed(np.array(there, dtype=int), chroms[at], known.tss[at], known.strands[at])


def _warn_of_lost(lost: list[str], n: int, what: str) -> None:
    if lost:
        warnings.warn(
            f"{len(lost)} of {n} genes are left out: {listed(lost)}. {what} has no start site on the genome for "
            "them, or their symbol stands for several genes (pass ids).",
            UserWarning,
            stacklevel=4,
        )


def _columns(known: Annotation) -> dict[str, int]:
    """The column of every name that means one gene."""
    pairs = [(own if own.endswith(COPY) else name, own) for name, own in zip(known.symbols, known.ids, strict=True)]
    count: dict[str, int] = {}
    for name, _ in pairs:
        count[name] = count.get(name, 0) + 1
    symbols = [name if count[name] == 1 else own for name, own in pairs]
    return columns_by_name(symbols, known.ids)


def of_table(table: DataFrame) -> Annotation:
    """Positions of a table whose index names the genes."""
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise MissingKey(
            f"the table has no column {listed(missing)}; it has {listed(table.columns)}. Pass annotation= (GTF, GFF3, "
            "BED), or columns 'chrom', 'tss' (counted from 0) and 'strand'."
        )
    some = table[table["tss"].notna()]
    tss = some["tss"].to_numpy(dtype=float)
    strands = some["strand"].astype(str).to_numpy(dtype=object)
    odd = [str(one) for one in dict.fromkeys(strands) if one not in STRANDS]
    if odd or not (tss == np.round(tss)).all():
        raise BadInput(f"column 'strand' has {listed(odd)}, or 'tss' is not whole; expected one of {listed(STRANDS)}.")
    names = [str(name) for name in some.index]
    chroms = some["chrom"].astype(str).to_numpy(dtype=object)
    return Annotation(names, names, chroms, tss.astype(np.int64), strands, {}, "")


def turns(strand: str, known: np.ndarray) -> bool:
    """Whether windows of the other strand are turned, which takes a strand `(n,)` of every gene."""
    if strand not in ("keep", "reverse_complement"):
        raise BadInput(f"strand is {strand!r}; expected 'keep' or 'reverse_complement'.")
    unknown = int((known == ".").sum())
    if unknown and strand == "reverse_complement":
        told = f"{unknown} of {len(known)} genes have no strand ('.'), and strand is 'reverse_complement'"
        raise BadInput(f"{told}. Add strands, or pass strand='keep'.")
    return strand == "reverse_complement"
