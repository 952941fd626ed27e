from __future__ import annotations

import numpy as np
import pytest

from sq_imputer import Needs
from sq_imputer.datasets import toy_genes
from sq_imputer.errors import BadInput
from sq_imputer.genes.genome import coded


def test_expression_counts_the_accessible_motifs():
    windows, sites = toy_genes(200, seed=0)
    active = sites[sites["kind"] == "active"].groupby("gene").size().reindex(windows.names, fill_value=0)
    error = windows.expression[:, 0] - 0.5 * active.to_numpy()
    assert abs(error.std() - 0.05) < 0.01 and abs(error.mean()) < 0.01


def test_motifs_and_peaks_are_where_the_table_says():
    windows, sites = toy_genes(60, motif="ATGACTCAT", seed=1)
    (batch,) = windows.batches(Needs(sequence=160), 60)
    bases, signal = batch.bases.numpy(), batch.tracks[..., 0].numpy()
    row = {name: k for k, name in enumerate(windows.names)}
    for gene, place, kind in sites.itertuples(index=False):
        own = bases[row[gene], place - 4 : place + 5]
        assert np.array_equal(own, coded("ATGACTCAT")) == (kind != "peak")
        assert (signal[row[gene], place] > 1.4) == (kind != "motif")
        assert not 68 <= place < 92


def test_real_dna_can_be_the_background_and_a_seed_repeats_it():
    windows, _ = toy_genes(4, background="A" * 200, tracks=False, seed=3)
    (batch,) = windows.batches(Needs(sequence=160), 4)
    assert (batch.bases == 0).float().mean() > 0.8 and batch.tracks is None
    assert toy_genes(9, seed=5)[0].fingerprint == toy_genes(9, seed=5)[0].fingerprint


def test_bad_arguments_are_refused():
    with pytest.raises(BadInput, match="motif is 'ACGU'"):
        toy_genes(9, motif="ACGU")
    with pytest.raises(BadInput, match="length is 100"):
        toy_genes(9, length=100)
    with pytest.raises(BadInput, match="background has 4 letters; windows have 160"):
        toy_genes(9, background="ACGT")
