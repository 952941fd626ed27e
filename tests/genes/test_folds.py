"""Genes are left out by chromosome, or drawn."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.genes.folds import gene_folds

GENES = [f"G{k}" for k in range(40)]


def test_genes_are_drawn_into_folds_of_one_size():
    fold = gene_folds(GENES, 4, seed=1)
    assert np.bincount(fold).tolist() == [10] * 4 and (fold == gene_folds(GENES, 4, seed=1)).all()
    assert (fold != gene_folds(GENES, 4, seed=2)).any()


def test_a_chromosome_is_in_one_fold_and_genes_without_one_fill_up():
    where = {gene: "1" if k < 12 else str(k % 7 + 2) for k, gene in enumerate(GENES[:36])}
    fold = gene_folds(GENES, 4, chromosomes=where)
    for name in set(where.values()):
        assert len({fold[k] for k, gene in enumerate(GENES) if where.get(gene) == name}) == 1
    assert np.bincount(fold).max() <= 12 and np.bincount(fold).min() >= 8


def test_too_few_genes_or_chromosomes_are_said():
    with pytest.raises(sqi.BadInput, match="n_folds is 50, and there are 40 genes"):
        gene_folds(GENES, 50)
    with pytest.raises(sqi.BadInput, match=r"are on 1 chromosomes \('1'\), and n_folds is 5"):
        gene_folds(GENES, 5, chromosomes=dict.fromkeys(GENES, "1"))
