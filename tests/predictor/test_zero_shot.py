"""Genes that a model was not fitted on: asked for by what is known of them, and refused where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer import GeneKnowledge
from sq_imputer.models import bilinear, ridge

PLAN = sqi.Plan(device="cpu", progress=False, calibration=2)
SEEN, NEW = [f"G{k}" for k in range(40)], ["N0", "N1"]


@pytest.fixture(scope="module")
def planted(arrays):
    """Genes made of features as their vectors say; two of them are not in the source. Source, knowledge, truth."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(42, 3)).astype(np.float32)
    x = rng.normal(size=(200, 4))
    y = x @ rng.normal(size=(4, 3)) @ vectors.T + 0.5 * rng.normal(size=(200, 42)) + rng.normal(size=42)
    knowledge = GeneKnowledge((*SEEN, *NEW), vectors, "numbers", "a test", {"Ninety": "N0", "Gee": "G1"})
    return arrays(y[:, :40], features=x, genes=SEEN), knowledge, y


@pytest.fixture(scope="module")
def fitted(planted):
    source, knowledge, _ = planted
    return bilinear.Model(bilinear.Config(context_um=(), per_section=False), knowledge).fit(source, PLAN)


def test_a_gene_that_was_not_in_training_is_predicted_by_its_vector(planted, fitted):
    source, knowledge, truth = planted
    asked = fitted.for_genes([*NEW, "G3"])
    said = asked.predict(source, device="cpu")
    assert np.corrcoef(said.mean[:, 0], truth[:, 40])[0, 1] > 0.7 < np.corrcoef(said.mean[:, 1], truth[:, 41])[0, 1]
    own = fitted.predict(source, device="cpu")
    torch.testing.assert_close(said.mean[:, 2], own.mean[:, 3])
    torch.testing.assert_close(said.std[:, 2], own.std[:, 3])
    torch.testing.assert_close(asked.expression_mean[0], fitted.expression_mean.mean())
    assert (said.std[:, :2] > fitted.expression_mean.std(correction=0)).all()
    assert fitted.genes == tuple(SEEN) and len(fitted.gene_vectors) == 40


def test_vectors_of_others_predict_it_worse(planted, fitted):
    source, knowledge, truth = planted
    swapped = replace(knowledge, vectors=np.concatenate([knowledge.vectors[:40], -knowledge.vectors[40:]]))
    said = fitted.for_genes(NEW, swapped).predict(source, device="cpu").mean
    assert np.corrcoef(said[:, 0], truth[:, 40])[0, 1] < -0.7


def test_the_provenance_says_which_genes_were_not_seen(fitted, planted, tmp_path):
    asked = fitted.for_genes([*NEW, "G3"])
    assert asked.provenance["zero_shot"] == NEW and asked.provenance["trained_on"] == SEEN
    assert "zero_shot" not in fitted.for_genes(["G3"]).provenance
    asked.save(tmp_path / "asked")
    assert json.loads((tmp_path / "asked" / "model.json").read_text())["provenance"]["zero_shot"] == NEW
    again = sqi.load(tmp_path / "asked")
    torch.testing.assert_close(
        again.predict(planted[0], device="cpu").mean, asked.predict(planted[0], device="cpu").mean
    )


def test_a_loaded_model_needs_the_knowledge_of_its_fit(fitted, planted, tmp_path):
    source, knowledge, _ = planted
    fitted.save(tmp_path / "model")
    loaded = sqi.load(tmp_path / "model")
    with pytest.raises(sqi.BadInput, match="Pass knowledge= that it was fitted with: 'numbers', from a test"):
        loaded.for_genes(NEW)
    with pytest.raises(sqi.BadInput, match="has other vectors of the genes of the fit"):
        loaded.for_genes(NEW, knowledge.permuted(1))
    said = loaded.for_genes(NEW, knowledge).predict(source, device="cpu").mean
    torch.testing.assert_close(said, fitted.for_genes(NEW).predict(source, device="cpu").mean)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (["N0", "Z1", "Z2"], "knows nothing of 2 of 3 genes: 'Z1', 'Z2'. Leave them out"),
        (["N0", "Gee"], "'Gee' is 'G1', which the model was fitted on"),
        (["N0", "N0"], "genes names 'N0' twice"),
        ([], "expected a list of names"),
        ("N0", "expected a list of names"),
    ],
)
def test_what_cannot_be_asked_is_named(fitted, genes, message):
    with pytest.raises(sqi.BadInput, match=message):
        fitted.for_genes(genes)


def test_models_that_know_their_own_genes_alone_name_those_that_can(planted, fitted):
    source, *_ = planted
    own = ridge.Model(ridge.Config(context_um=(), per_section=False)).fit(source, PLAN)
    with pytest.raises(sqi.BadInput, match="models that predict others: .*'bilinear'"):
        own.for_genes(NEW)
    with pytest.raises(sqi.BadInput, match="is not fitted"):
        fitted.fresh().for_genes(NEW)
    with pytest.raises(sqi.BadInput, match="ask the one that was fitted"):
        fitted.for_genes(NEW).for_genes(["G1"])
