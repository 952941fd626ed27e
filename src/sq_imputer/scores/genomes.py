"""Two Spearman correlations of models of sequence, which are told by their names as one says nothing of the other.

*Across genes*: in one sample, are genes that are predicted high expressed high? Genes differ a thousandfold, and models
of the reference genome reach .5 to .7. *Across individuals*: of one gene, do the people in whom it is predicted high
express it high? What differs are single bases, and models that were trained on the reference are near 0 there
(Huang et al. 2023; Sasse et al. 2023). A figure that does not say which it is says nothing.

Everywhere `y` is measured and `p` predicted, both `(n, G)`: samples of n individuals × genes, in one unit.
"""

from __future__ import annotations

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.scores.metrics import spearman


def spearman_across_genes(y, p) -> np.ndarray:
    """Of every sample, the rank correlation over its genes, `(n,)`.

    Parameters
    ----------
    y, p
        `(n, G)` measured and predicted; one sample has n = 1.

    Returns
    -------
    NaN where all genes of a sample are measured, or predicted, alike.

    Raises
    ------
    BadInput
        If the shapes differ or there are fewer than 2 genes.
    """
    y, p = _samples(y, p)
    if y.shape[1] < 2:
        raise BadInput(f"there are {y.shape[1]} genes; a correlation across genes needs 2 or more.")
    return spearman(y.T, p.T)


def spearman_across_individuals(y, p) -> np.ndarray:
    """Of every gene, the rank correlation over individuals, `(G,)`.

    Parameters
    ----------
    y, p
        `(n, G)` measured and predicted, by what each individual's own genome says.

    Returns
    -------
    NaN where a gene is measured, or predicted, alike in all: a model of the reference genome says the same of everyone.

    Raises
    ------
    BadInput
        If the shapes differ or there are fewer than 3 individuals.
    """
    y, p = _samples(y, p)
    if len(y) < 3:
        raise BadInput(f"there are {len(y)} individuals; a correlation across individuals needs 3 or more.")
    return spearman(y, p)


def _samples(y, p) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    if y.ndim != 2 or y.shape != p.shape:
        raise BadInput(f"measured is {y.shape} and predicted {p.shape}; both must be (individuals, genes), aligned.")
    return y, p
