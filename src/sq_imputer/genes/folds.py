"""Which genes are left out together: whole chromosomes where positions are known, else a draw.

Paralogs and neighbors on a chromosome are alike in sequence, name and expression: a gene whose twin was trained on is
not one that nobody measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sq_imputer.errors import BadInput, check_number, listed


def gene_folds(
    genes: Sequence[str], n_folds: int = 5, *, chromosomes: Mapping[str, str] | None = None, seed: int = 0
) -> np.ndarray:
    """The fold `(G,)` of every gene, about as many in each.

    Parameters
    ----------
    genes
        Names.
    n_folds
        Number of folds.
    chromosomes
        The chromosome of genes (:func:`sq_imputer.genes.annotations.read_chromosomes`): genes of one are in one fold.
        Genes that it does not have are drawn.
    seed
        Of the draw.

    Raises
    ------
    BadInput
        If there are fewer genes, or chromosomes, than folds, or `chromosomes` has none of the genes.
    """
    check_number("n_folds", n_folds, 2, whole=True)
    if len(genes) < n_folds:
        raise BadInput(f"n_folds is {n_folds}, and there are {len(genes)} genes. Pass fewer folds, or more genes.")
    together: dict[str, list[int]] = {}
    drawn = []
    for number, gene in enumerate(genes):
        where = None if chromosomes is None else chromosomes.get(gene)
        drawn.append(number) if where is None else together.setdefault(where, []).append(number)
    if chromosomes is not None and len(together) < n_folds:
        raise BadInput(
            f"the genes, such as {listed(genes, 3)}, are on {len(together)} chromosomes ({listed(together)}), and "
            f"n_folds is {n_folds}. Pass fewer folds, or chromosomes=None for a draw."
        )
    fold, size = np.zeros(len(genes), dtype=int), np.zeros(n_folds, dtype=int)
    for name in sorted(together, key=lambda name: (-len(together[name]), name)):  # the next to the least full
        least = int(size.argmin())
        fold[together[name]], size[least] = least, size[least] + len(together[name])
    for number in np.random.default_rng(seed).permutation(drawn).astype(int):
        least = int(size.argmin())
        fold[number], size[least] = least, size[least] + 1
    return fold
