"""Which genes: panels chosen on training sections, matrices aligned by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from sq_imputer.errors import BadInput, MissingKey, check_number, listed


def align(counts: csr_matrix, names: Sequence[str], genes: Sequence[str], where: str) -> csr_matrix:
    """Columns of `counts` for `genes`, by name and in that order.

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
    position = {name: i for i, name in enumerate(names)}
    missing = [gene for gene in genes if gene not in position]
    if missing:
        lower = {name.lower() for name in names}
        same = [gene for gene in missing if gene.lower() in lower]
        hint = f" {len(same)} of them match ignoring case ({listed(same, 3)})." if same else ""
        raise MissingKey(
            f"{len(missing)} of {len(genes)} genes are not in {where}: {listed(missing)}; it has {len(names)} genes "
            f"such as "
            f"{listed(list(names)[:3])}.{hint} Pass genes= that all sections have."
        )
    return csr_matrix(counts)[:, [position[gene] for gene in genes]]


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
        Size of the panel; fewer if fewer qualify.
    candidates
        How many of the highest genes are considered.
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
        rows = np.flatnonzero(slide.measured)
        counts = align(slide.counts[rows], slide.var_names, shared, f"section '{slide.section}'")
        scale = np.divide(1e4, slide.depth[rows], out=np.zeros(len(rows)), where=slide.depth[rows] > 0)
        logged = csr_matrix(counts.multiply(scale[:, None])).log1p()
        mean = np.asarray(logged.mean(axis=0)).ravel()
        square = np.asarray(logged.multiply(logged).mean(axis=0)).ravel()
        total += mean * len(rows)
        spread += (square - mean**2) * len(rows)
        found += np.asarray((counts > 0).sum(axis=0)).ravel()
        n_rows += len(rows)
    eligible = np.flatnonzero(found > detected * n_rows)
    if len(eligible) == 0:
        raise BadInput(f"no gene is detected in more than {detected:.0%} of the {n_rows} rows; pass genes= by name.")
    highest = eligible[np.argsort(-total[eligible], kind="stable")][:candidates]
    return [shared[i] for i in highest[np.argsort(-spread[highest], kind="stable")][:n_genes]]
