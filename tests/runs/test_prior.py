from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dna import PLAN, small_config, small_model

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.runs import prior


@pytest.fixture(scope="module")
def windows():
    """Toy genes on four chromosomes, three of which were not measured."""
    found = sqi.datasets.toy_genes(32, chromosomes=4)[0]
    expression = found.expression.copy()
    expression[[0, 9, 30]] = np.nan
    return replace(found, expression=expression)


def test_chromosomes_are_dealt_to_folds_as_wholes_and_evenly(windows):
    fold = prior.folds_of(windows, 2)
    for chrom in set(windows.cut.labels):
        assert len(set(fold[windows.cut.labels == chrom])) == 1
    assert np.bincount(fold).tolist() == [16, 16]
    assert set(prior.folds_of(windows, 9)) == {0, 1, 2, 3}
    with pytest.raises(BadInput, match="measured on 1 chromosomes"):
        prior.folds_of(windows.by_chromosome()[0], 2)


def test_every_gene_is_predicted_by_a_model_that_has_not_seen_its_chromosome(windows, monkeypatch):
    model = sqi.get_model("seq2exp")
    fits, asked = [], []
    fit, predict = model.fit, model.predict
    monkeypatch.setattr(model, "fit", lambda self, s, plan: fits.append({p.section for p in s}) or fit(self, s, plan))
    monkeypatch.setattr(model, "predict", lambda self, *a, **k: asked.append(predict(self, *a, **k)) or asked[-1])
    said = prior.out_of_fold(model(small_config()), windows, 2, PLAN)
    assert fits[0] == {"chr1", "chr2", "chr3", "chr4"} and len(fits) == 3
    fold, measured = prior.folds_of(windows, 2), windows.measured
    for row, chrom in enumerate(windows.cut.labels):
        k = 1 + fold[row] if measured[row] else 0
        assert (chrom in fits[k]) == (not measured[row])
        assert said.mean[row] == asked[k].mean[row].numpy()
    assert (said.fold == np.where(measured, fold, -1)).all() and len(said.models) == 3


def test_embeddings_are_turned_onto_common_axes():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(50, 4)).astype(np.float32)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    other = (one @ turn + 3).astype(np.float32)
    found = prior.turned(other, one, np.arange(50) < 30)
    np.testing.assert_allclose(found, one, atol=1e-4)
    noise = rng.normal(size=(50, 4)).astype(np.float32)
    kept = prior.turned(noise, one, np.arange(50) < 30)
    np.testing.assert_allclose(
        np.linalg.norm(kept[1:] - kept[0], axis=1), np.linalg.norm(noise[1:] - noise[0], axis=1), rtol=1e-4
    )


def test_genes_that_a_fitted_model_was_trained_on_are_found_by_name(windows):
    model = small_model()
    some = replace(windows, names=np.array([f"gene{k + 28}" for k in range(32)], dtype=object))
    with pytest.raises(BadInput, match="trained on 2 of 32 genes: 'gene28', 'gene29'. Three ways out"):
        prior.check_seen(model, some, False)
    assert prior.check_seen(model, some, True) == ["gene28", "gene29"]
    assert (prior.by_fitted(model, some, PLAN).fold == -1).all()


@pytest.mark.parametrize(("length", "rows"), [(200_000, 5), (160, 64), (0, 64), (2**21, 1)])
def test_long_windows_are_read_few_at_a_time(length, rows):
    assert prior.rows_at_once(length, 64) == rows
