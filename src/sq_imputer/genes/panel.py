"""Which genes: panels chosen on training sections, matrices aligned by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.genes.names import alike, column_of, columns_by_name

LEAST_ROWS = 10  # in which a gene must be detected to be in a panel at all


def columns_for(genes: Sequence[str], names: Sequence[str], where: str, ids: Sequence[str] = ()) -> list[int]:
    """Columns of `genes`, by name or by id, in that order; ids may carry versions.

    Raises
    ------
    BadInput
        If a gene is asked for twice.
    MissingKey
        If genes are missing; the message counts them and those that match but for case.
    """
    genes = list(genes)
    if not genes:
        raise BadInput("genes is empty; expected at least one gene name. Pass genes= names, or a number of genes.")
    odd = [gene for gene in genes if not isinstance(gene, str)]
    if odd:
        raise BadInput(f"genes holds {listed(odd)}, a {type(odd[0]).__name__}; expected names of genes as text.")
    if len(set(genes)) != len(genes):
        twice = sorted({gene for gene in genes if genes.count(gene) > 1})
        raise BadInput(f"genes names some more than once: {listed(twice)}; expected each once. Drop the others.")
    known = columns_by_name(names, ids)
    columns = [column_of(gene, known) for gene in genes]
    missing = [gene for gene, column in zip(genes, columns, strict=True) if column is None]
    if missing:
        same = alike(missing, names)
        hint = f" {len(same)} of them match ignoring case ({listed(same, 3)})." if same else ""
        raise MissingKey(
            f"{len(missing)} of {len(genes)} genes are not in {where}: {listed(missing)}; it has {len(names)} genes "
            f"such as "
            f"{listed(list(names)[:3])}.{hint} Pass genes= that all sections have."
        )
    if len(set(columns)) < len(columns):
        twice = [gene for gene, column in zip(genes, columns, strict=True) if columns.count(column) > 1]
        raise BadInput(f"genes names some more than once, by symbol and by id: {listed(twice)}. Drop the others.")
    return columns


def common_genes(names: Iterable[Sequence[str]]) -> list[str]:
    """Genes that all sections have, in the order of the first section."""
    first, *others = [list(n) for n in names]
    shared = set(first).intersection(*others) if others else set(first)
    return [gene for gene in first if gene in shared]


def choose_genes(slides: Sequence, n_genes: int = 250, *, candidates: int = 1000, detected: float = 0.1) -> list[str]:
    """The most variable genes among the well-expressed ones of the training sections, most variable first.

    Every gene that all sections have is ranked by its mean log1p(CP10k) over all measured rows; of the `candidates`
    highest that are detected in more than a share `detected` of the rows, the `n_genes` of highest variance are
    taken. The variance is taken within sections, so that a stain or depth difference between sections does not choose
    genes.

    Parameters
    ----------
    slides
        Training sections, with counts.
    n_genes
        Size of the panel. Where fewer qualify, as in sparse bins and cells, the most often detected of the other genes
        are taken too, down to those in `LEAST_ROWS` rows; a warning says so, and how many there are if still too few.
    candidates
        How many of the highest genes are considered; as many as `n_genes` where that is more.
    detected
        Smallest share of rows in which a gene must have a count.
    """
    check_number("n_genes", n_genes, 1, whole=True)
    shared = common_genes(slide.var_names for slide in slides)
    if not shared:
        raise BadInput(
            f"the {len(slides)} sections have no gene in common; check that all use symbols, or all Ensembl ids."
        )
    total = np.zeros(len(shared))
    found = np.zeros(len(shared))
    spread = np.zeros(len(shared))
    n_rows = 0
    for slide in slides:
        sums, squares, detected_in = _sums(slide, shared)
        n_measured = int(slide.measured.sum())
        total += sums
        spread += squares - sums**2 / n_measured
        found += detected_in
        n_rows += n_measured
    eligible = _detected(found, n_rows, n_genes, detected)
    highest = eligible[np.argsort(-total[eligible], kind="stable")][: max(candidates, n_genes)]
    return [shared[i] for i in highest[np.argsort(-spread[highest], kind="stable")][:n_genes]]


def _sums(slide, genes: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums over the rows of a section, block by block: of log1p(CP10k), of its square, and of rows with a count."""
    columns = np.array(columns_for(genes, slide.var_names, f"section '{slide.section}'"))
    depth = np.nan_to_num(slide.depth)
    scale = np.divide(1e4, depth, out=np.zeros(len(depth)), where=depth > 0)
    sums, squares, found = np.zeros((3, slide.counts.shape[1]))
    for rows, wanted, block in slide.counts.blocks(columns):
        logged = csr_matrix(block.multiply(scale[rows][:, None])).log1p()
        sums[wanted] += np.asarray(logged.sum(axis=0)).ravel()
        squares[wanted] += np.asarray(logged.multiply(logged).sum(axis=0)).ravel()
        found[wanted] += np.asarray((block > 0).sum(axis=0)).ravel()
    return sums[columns], squares[columns], found[columns]


def _detected(found: np.ndarray, n_rows: int, n_genes: int, share: float) -> np.ndarray:
    """Genes detected in more than a share of the rows; if these are too few, the most often detected ones."""
    often = np.flatnonzero(found > share * n_rows)
    if len(often) >= n_genes:
        return often
    ranked = np.argsort(-found, kind="stable")
    taken = ranked[found[ranked] >= min(LEAST_ROWS, n_rows)][:n_genes]
    taken = np.sort(taken) if len(taken) > len(often) else often
    if len(taken) == 0:
        raise BadInput(f"no gene is detected in {LEAST_ROWS} or more of the {n_rows} rows; pass genes= by name.")
    if len(taken) > len(often):
        warnings.warn(
            f"{len(often)} genes are detected in more than {share:.0%} of the {n_rows} rows, and {n_genes} are asked "
            f"for; those in {found[taken].min() / n_rows:.2%} of the rows or more are taken ({len(taken)} genes).",
            UserWarning,
            stacklevel=4,
        )
    elif len(taken) < min(n_genes, len(found)):
        warnings.warn(
            f"{len(taken)} genes for genes={n_genes}: no other is detected in {LEAST_ROWS} or more of {n_rows} rows.",
            UserWarning,
            stacklevel=4,
        )
    return taken
