from __future__ import annotations

import numpy as np
import pytest
import torch
from dna import small_config, small_model

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.genes.genome import coded
from sq_imputer.runs import prior, regulation
from sq_imputer.runs.regulation import Edit


@pytest.fixture(scope="module")
def window():
    windows = sqi.datasets.toy_genes(5, seed=9)[0]
    return next(small_model().seen(windows, 1, rows=np.array([2])))


def test_only_a_fitted_model_with_masks_is_taken():
    with pytest.raises(BadInput, match="'seq2exp' is not fitted: a map is of one model"):
        regulation.with_masks(sqi.get_model("seq2exp")(small_config()))
    with pytest.raises(BadInput, match="'ridge' reads images: it is asked by sq_imputer.tl.predict"):
        regulation.with_masks("ridge")
    assert regulation.with_masks(small_model()) is small_model()


def test_masks_come_for_every_row_whatever_is_read_together(monkeypatch):
    windows = sqi.datasets.toy_genes(7, seed=9)[0]
    found = dict(regulation.masks(small_model(), windows, np.array([5, 1, 3]), "cpu", shown=False))
    assert sorted(found) == [1, 3, 5] and found[1]["mask"].shape == (160,)
    monkeypatch.setattr(prior, "BASES", 1)
    alone = dict(regulation.masks(small_model(), windows, np.array([3]), "cpu", shown=False))
    np.testing.assert_allclose(alone[3]["mask"], found[3]["mask"], atol=1e-6)


def test_an_edit_changes_its_bases_and_nothing_else(window):
    aside = np.r_[0:10, 14:160]
    out, motif, track = Edit(10, 14)(window), Edit(10, 14, "ACGT")(window), Edit(10, 14, track=0, value=7.0)(window)
    assert (out.bases[0, 10:14] == 4).all() and not out.allowed[0, 10:14].any()
    assert motif.bases[0, 10:14].tolist() == coded("ACGT").tolist() and motif.allowed[0, 10:14].all()
    assert (track.tracks[0, 10:14, 0] == 7).all() and torch.equal(track.bases, window.bases)
    for edited in (out, motif, track):
        for name in ("bases", "allowed", "tracks"):
            assert torch.equal(getattr(edited, name)[:, aside], getattr(window, name)[:, aside])


def test_predictions_of_edits_are_those_of_edited_windows_one_by_one(window, monkeypatch):
    edits = [Edit(10, 30), Edit(40, 49, "ATGACTCAT")]
    together = regulation.predictions(small_model(), window, edits, "cpu")
    monkeypatch.setattr(prior, "BASES", 1)
    alone = regulation.predictions(small_model(), window, edits, "cpu")
    assert together.shape == (3, 1) and len(set(together[:, 0].tolist())) == 3
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_controls_lie_where_all_bases_are_free():
    free = np.zeros(100, dtype=bool)
    free[20:40] = free[60:64] = True
    found = regulation.elsewhere(Edit(0, 5, "ACGTA"), free, 8, np.random.default_rng(0))
    assert len(found) == 8 and all(20 <= one.first and one.last <= 40 and one.motif == "ACGTA" for one in found)
    assert len(regulation.elsewhere(Edit(0, 5), free, 99, np.random.default_rng(0))) == 16
    assert regulation.elsewhere(Edit(0, 50), free, 8, np.random.default_rng(0)) == []
