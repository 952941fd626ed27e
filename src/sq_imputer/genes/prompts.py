"""What is written about a gene, as one text: its symbol, names, kind and gene sets, in a fixed order.

A language model is trained on such texts (`sq_imputer.nn.language`), and a model that is told of genes reads them as
prompts (`sq_imputer.models.gta`).

**Texts leak.** Names and gene sets say where a gene is at work, so that they predict its expression without any model
of sequence. Whoever scores a model that reads them shows the texts alone beside it. The chromosome is left out: genes
are tested on chromosomes that no fit has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.genes import annotations
from sq_imputer.genes.names import unversioned

TASK = "expression of"  # what every prompt begins with
ACCESSION = re.compile(r"\s*\((GO|R-HSA|WP|KEGG)[:_]?\w*\)|^HALLMARK_|^GO(BP|CC|MF)?_|^KEGG_|^REACTOME_")


def gene_prompts(
    gene_info: str | Path,
    gene_sets: Mapping[str, Iterable[str]] | str | Path | Sequence[str | Path] = (),
    *,
    genes: Sequence[str] | None = None,
    most_sets: int = 12,
) -> dict[str, str]:
    """The text of every gene: `expression of symbol; full name; kind; in about N sets; set; set; also called ...`.

    Parameters
    ----------
    gene_info
        NCBI's gene_info, with a column type_of_gene if there is one.
    gene_sets
        Genes of every set, or GMT files. Their names are words: accession numbers and underscores are taken out.
    genes
        Symbols, synonyms or Ensembl ids, by which the texts are then called; all symbols if left out. Genes of which
        nothing is known have the text of their name alone.
    most_sets
        Sets that are named, largest first. How many there are is said as a power of two: numbers that are near are one
        word. Other names come last, so that a text that is cut off loses these.

    Returns
    -------
    Texts by gene. A set of which a gene is called otherwise is found by its synonyms where these are clear.
    """
    check_number("most_sets", most_sets, 0, whole=True)
    info = annotations.read_gene_info(gene_info)
    kinds = _kinds(gene_info)
    sets = gene_sets if isinstance(gene_sets, Mapping) else annotations.read_gmt(gene_sets) if gene_sets else {}
    among = _memberships(sets, info)
    found = {}
    for gene in info.descriptions if genes is None else genes:
        symbol = gene if gene in info.descriptions else info.aliases.get(unversioned(gene), gene)
        _, *names = info.descriptions.get(symbol, symbol).split("; ")
        own = among.get(symbol, [])
        count = [f"in about {_rounded(len(own))} sets"] if sets else []
        others = [f"also called {'; '.join(names[1:])}"] if names[1:] else []
        parts = [f"{TASK} {symbol}", *names[:1], kinds.get(symbol, ""), *count, *own[:most_sets], *others]
        found[gene] = "; ".join(part for part in parts if part)
    return found


def words_of(name: str) -> str:
    """The name of a gene set as words: without accession numbers, collections and underscores."""
    return ACCESSION.sub("", name).replace("_", " ").strip().lower()


def _kinds(gene_info: str | Path) -> dict[str, str]:
    """Kinds of genes, where the file has such a column."""
    try:
        return {symbol: kind.replace("-", " ") for symbol, kind in annotations.read_kinds(gene_info).items()}
    except BadInput:
        return {}


def _memberships(sets: Mapping[str, Iterable[str]], info: annotations.GeneInfo) -> dict[str, list[str]]:
    """Names of the sets of every symbol, largest first."""
    found: dict[str, list[str]] = {}
    for name, members in sorted(((n, list(m)) for n, m in sets.items()), key=lambda one: (-len(one[1]), one[0])):
        symbols = (gene if gene in info.descriptions else info.aliases.get(gene, gene) for gene in members)
        for symbol in dict.fromkeys(symbols):
            found.setdefault(symbol, []).append(words_of(name))
    return found


def _rounded(number: int) -> int:
    """The nearest power of two below, or 0."""
    return 1 << (number.bit_length() - 1) if number else 0


def as_bytes(texts: Sequence[str], most: int) -> np.ndarray:
    """Texts as `(n, most)` uint8, in UTF-8 and filled up with 0; what is longer is cut off."""
    found = np.zeros((len(texts), most), dtype=np.uint8)
    for row, text in enumerate(texts):
        said = text.encode()[:most]
        found[row, : len(said)] = np.frombuffer(said, dtype=np.uint8)
    return found


def text_of(row: np.ndarray) -> str:
    """The text of a row of :func:`as_bytes`."""
    return row.tobytes().rstrip(b"\0").decode(errors="ignore")
