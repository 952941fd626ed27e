"""Names of genes: symbols and ids side by side, versions, and what only looks alike."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence

from sq_imputer.errors import listed

ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+(_PAR_Y)?")


def unversioned(name: str) -> str:
    """An Ensembl id without its version: ENSG00000141510 of ENSG00000141510.17; other names as they are."""
    found = ENSEMBL.fullmatch(name) if isinstance(name, str) else None
    return found[1] + (found[2] or "") if found else name


def columns_by_name(names: Sequence[str], ids: Sequence[str] = ()) -> dict[str, int]:
    """The column of every name and, where no name is so, of every id, with and without its version."""
    found: dict[str, int] = {}
    for column, name in enumerate(ids):
        found.setdefault(unversioned(name), column)
        found.setdefault(name, column)
    for column, name in enumerate(names):
        found.setdefault(unversioned(name), column)
    return found | {name: column for column, name in enumerate(names)}


def column_of(gene: str, known: Mapping[str, int]) -> int | None:
    """The column of a gene by its name or, if it is an id, without its version; None if there is none."""
    return known.get(gene, known.get(unversioned(gene)))


def alike(genes: Sequence[str], names: Iterable[str]) -> list[str]:
    """Those of some genes that would be among the names but for case."""
    low = {name.lower() for name in names}
    return [gene for gene in genes if str(gene).lower() in low]


def symbols_of(ids: Sequence[str], symbols: Sequence) -> list[str]:
    """Symbols as names of columns; where several ids have one symbol, or an id has none, the id stands for it."""
    symbols = ["" if symbol is None or symbol != symbol else str(symbol) for symbol in symbols]
    count: dict[str, int] = {}
    for symbol in symbols:
        count[symbol] = count.get(symbol, 0) + 1
    twice = sorted(symbol for symbol, n in count.items() if n > 1 and symbol)
    if twice:
        warnings.warn(
            f"{len(twice)} symbols stand for several genes: {listed(twice)}; these keep their ids, and none is merged.",
            UserWarning,
            stacklevel=3,
        )
    return [symbol if symbol and count[symbol] == 1 else str(name) for name, symbol in zip(ids, symbols, strict=True)]


def check_ids(ids: Mapping[str, Mapping[str, str]], genes: Sequence[str]) -> None:
    """Warn where one name has another id in another section: it may be another gene.

    Parameters
    ----------
    ids
        For every section its id of every name.
    genes
        The names that matter.
    """
    odd = []
    for gene in genes:
        found = {unversioned(known[gene]) for known in ids.values() if gene in known}
        if len(found) > 1:
            odd.append(f"{gene} ({' and '.join(sorted(found))})")
    if odd:
        warnings.warn(
            f"{len(odd)} of {len(genes)} genes have different gene_ids in the sections: {listed(odd)}. Name genes by "
            "id, or make the names of both tables agree.",
            UserWarning,
            stacklevel=3,
        )
