"""What is written about genes: NCBI's gene_info, gene sets (GMT), tables of descriptions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sq_imputer.errors import BadInput, listed
from sq_imputer.untrusted import read_text

ENSEMBL_XREF = re.compile(r"Ensembl:(ENS[A-Z]*G\d{11})")
COLUMNS = ("Symbol", "Synonyms", "dbXrefs", "description", "Other_designations")
NONE = "-"  # what NCBI writes for no value


class GeneInfo(NamedTuple):
    """What a gene_info file says: `descriptions` of symbols, and the symbol of every other name (`aliases`)."""

    descriptions: dict[str, str]
    aliases: dict[str, str]


def read_gene_info(path: str | Path) -> GeneInfo:
    """Names and descriptions of NCBI's gene_info, the whole file or a part of its columns, gzipped or not.

    Ensembl ids and synonyms become aliases. A synonym that several genes have, or that is the symbol of another gene,
    is none: it would have to be guessed.

    Parameters
    ----------
    path
        A table with the columns Symbol, Synonyms, dbXrefs, description, Other_designations.
    """
    descriptions: dict[str, str] = {}
    claims: dict[str, set[str]] = {}
    for symbol, synonyms, xrefs, said, others in _columns(path, COLUMNS):
        if not symbol:
            continue
        descriptions.setdefault(symbol, "; ".join(part for part in (symbol, said, others.replace("|", "; ")) if part))
        for alias in [*filter(None, synonyms.split("|")), *ENSEMBL_XREF.findall(xrefs)]:
            claims.setdefault(alias, set()).add(symbol)
    clear = {alias: min(found) for alias, found in claims.items() if len(found) == 1 and alias not in descriptions}
    return GeneInfo(descriptions, clear)


def read_chromosomes(path: str | Path) -> dict[str, str]:
    """The chromosome of every gene in NCBI's gene_info, by symbol and by Ensembl id; genes without one are left out.

    Parameters
    ----------
    path
        A table with the columns Symbol, dbXrefs, chromosome, gzipped or not.
    """
    found = {}
    for symbol, xrefs, chromosome in _columns(path, ("Symbol", "dbXrefs", "chromosome")):
        if chromosome not in ("", "Un"):
            found |= dict.fromkeys((*ENSEMBL_XREF.findall(xrefs), symbol), chromosome)
    return found


def read_kinds(path: str | Path) -> dict[str, str]:
    """What kind of gene every symbol of NCBI's gene_info is: protein-coding, ncRNA, pseudo.

    Parameters
    ----------
    path
        A table with the columns Symbol, type_of_gene, gzipped or not.
    """
    return {symbol: kind for symbol, kind in _columns(path, ("Symbol", "type_of_gene")) if symbol and kind}


def _columns(path: str | Path, wanted: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Some columns of a gene_info file, line by line; what NCBI writes for no value is empty."""
    header, *lines = read_text(path).splitlines() or [""]
    names = header.lstrip("#").split("\t")
    missing = [column for column in wanted if column not in names]
    if missing:
        raise BadInput(f"'{path}' lacks the columns {listed(missing)}; it has {listed(names)}. Pass an NCBI gene_info.")
    places = [names.index(column) for column in wanted]
    for line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):
            raise BadInput(f"'{path}' has a line of {len(fields)} fields; expected {len(names)}. Download it again.")
        yield tuple("" if fields[p] == NONE else fields[p] for p in places)


def read_gmt(paths: str | Path | Iterable[str | Path]) -> dict[str, tuple[str, ...]]:
    """Gene sets of one GMT file or several: a line is the set's name, a remark, and its genes, parted by tabs."""
    sets: dict[str, tuple[str, ...]] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        for line in read_text(path).splitlines():
            name, *rest = line.rstrip().split("\t")
            genes = tuple(gene.split(",")[0] for gene in rest[1:] if gene)  # Enrichr may write GENE,1.0
            if not genes:
                raise BadInput(
                    f"'{path}' has a line without genes, '{name[:40]}'; expected set, remark, genes by tabs."
                )
            if name in sets:
                raise BadInput(f"gene set '{name}' occurs twice in {listed([str(paths)])}; give each file once.")
            sets[name] = genes
    if not sets:
        raise BadInput(f"no gene sets in {paths}; expected lines of set, remark, genes, parted by tabs.")
    return sets


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Descriptions of genes: lines of a name and a text, parted by the first tab."""
    found: dict[str, str] = {}
    for line in read_text(path).splitlines():
        name, tab, text = line.partition("\t")
        if not tab:
            raise BadInput(f"'{path}' has a line without a tab, '{line[:40]}'; expected a name, a tab, a text.")
        if name in found:
            raise BadInput(f"'{path}' describes '{name}' twice; expected every gene once.")
        found[name] = text
    return found


def check_texts(descriptions: Mapping[str, str]) -> None:
    """Raise `BadInput` where descriptions are no texts."""
    odd = [name for name, text in descriptions.items() if not isinstance(text, str) or not text.strip()]
    if odd or not descriptions:
        raise BadInput(f"descriptions of {listed(odd)} are empty or no text; expected text. Leave these genes out.")
