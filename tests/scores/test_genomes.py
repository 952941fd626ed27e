"""Across genes and across individuals are two different questions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

import sq_imputer as sqi
from sq_imputer.scores.genomes import spearman_across_genes, spearman_across_individuals

RNG = np.random.default_rng(0)
LEVEL, OWN = 5 * RNG.normal(size=300), RNG.normal(size=(40, 300))  # of genes, and of individuals in each gene
Y = LEVEL + OWN


def test_both_are_those_of_scipy():
    p = Y + RNG.normal(size=Y.shape)
    genes, individuals = spearman_across_genes(Y, p), spearman_across_individuals(Y, p)
    assert genes.shape == (40,) and individuals.shape == (300,)
    np.testing.assert_allclose(genes[3], spearmanr(Y[3], p[3])[0])
    np.testing.assert_allclose(individuals[5], spearmanr(Y[:, 5], p[:, 5])[0])


def test_a_model_that_knows_genes_knows_nothing_of_individuals():
    p = LEVEL + 0.01 * RNG.normal(size=Y.shape)
    assert spearman_across_genes(Y, p).min() > 0.9
    assert abs(spearman_across_individuals(Y, p).mean()) < 0.05
    reference = np.repeat(LEVEL[None], 40, axis=0)
    assert spearman_across_genes(Y, reference).min() > 0.9
    assert np.isnan(spearman_across_individuals(Y, reference)).all()


def test_a_model_that_knows_individuals_may_know_nothing_of_genes():
    p = OWN + RNG.permutation(LEVEL)
    assert spearman_across_individuals(Y, p).min() > 0.9
    assert abs(spearman_across_genes(Y, p).mean()) < 0.2


def test_what_cannot_be_correlated_is_refused():
    with pytest.raises(sqi.BadInput, match=r"both must be \(individuals, genes\)"):
        spearman_across_genes(Y[0], Y[0])
    with pytest.raises(sqi.BadInput, match="2 individuals; a correlation across individuals needs 3"):
        spearman_across_individuals(Y[:2], Y[:2])
    with pytest.raises(sqi.BadInput, match="1 genes"):
        spearman_across_genes(Y[:, :1], Y[:, :1])
    assert spearman_across_genes(Y[:1], Y[:1]) == 1
