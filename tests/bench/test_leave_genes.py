"""Genes and sections that were both left out, beside controls that must fail."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.bench import leave_genes_out, leave_one_out

PLAN = sqi.Plan(device="cpu", progress=False)


@pytest.fixture(scope="module")
def parts(toy_slides):
    """One case; a model that is told names, which say where genes are expressed; a model of the bound."""
    bilinear, ridge = sqi.get_model("bilinear"), sqi.get_model("ridge")
    model = bilinear(bilinear.Config.small(), sqi.GeneKnowledge.lexical(toy_slides[0].genes))
    cases = leave_one_out(toy_slides, share_patient=True)[:1]
    return cases, model, ridge(ridge.Config(size_px=64, context_um=()))


@pytest.fixture(scope="module")
def table(parts, toy_slides):
    cases, model, ridge = parts
    how = {"genes": toy_slides[0].genes, "n_folds": 3, "nearest": 2, "measured": ridge, "plan": PLAN}
    return leave_genes_out(cases, {"told": model}, **how)


def test_names_that_say_where_a_gene_is_expressed_beat_their_permutation(table, toy_slides):
    assert list(dict.fromkeys(table["predictor"])) == [
        "told",
        "told, permuted",
        "mean of seen genes",
        "told, nearest genes",
        "ridge, measured",
    ]
    assert (table.groupby("predictor")["gene"].nunique() == len(toy_slides[0].genes)).all()
    means = table.groupby("predictor")["pearson_given_depth"].mean()
    assert means["ridge, measured"] > means["told"] > means["told, permuted"] + 0.1
    assert table["fold"].nunique() == 3 and table["shares_patient"].all() and table["similarity"].between(-1, 1).all()


def test_no_fit_sees_the_genes_that_it_is_asked_for(parts, toy_slides, monkeypatch):
    cases, model, ridge = parts
    fits, asked = [], []
    kind = type(model)
    fit, for_genes = kind.optimize, kind.for_genes
    monkeypatch.setattr(kind, "optimize", lambda self, *a: fits.append(set(self.genes)) or fit(self, *a))
    monkeypatch.setattr(kind, "for_genes", lambda self, genes: asked.append(set(genes)) or for_genes(self, genes))
    names = toy_slides[0].genes[:8]
    leave_genes_out(cases, {"told": model}, genes=names, n_folds=2, measured=ridge, plan=PLAN)
    assert len(fits) == len(asked) == 4  # with and without permutation
    assert all(not seen & left and len(seen | left) == 8 for seen, left in zip(fits, asked, strict=True))


def test_genes_that_are_one_by_another_name_or_unknown_are_left_out_and_said(parts, toy_slides):
    cases, model, ridge = parts
    names = toy_slides[0].genes
    knowledge = sqi.GeneKnowledge.lexical(names[:-2]).with_aliases({names[-1]: names[0]})
    how = {"genes": names, "n_folds": 2, "measured": ridge, "plan": PLAN}
    with pytest.warns(UserWarning, match=f"2 of {len(names)} genes are not scored"):
        found = leave_genes_out(cases, {"told": type(model)(model.config, knowledge)}, **how)
    assert set(found["gene"]) == set(names[:-2]) and np.isfinite(found["pearson"]).all()


def test_models_that_cannot_be_asked_are_refused(parts):
    cases, model, ridge = parts
    with pytest.raises(sqi.BadInput, match="'ridge' cannot be asked for genes that it was not fitted on"):
        leave_genes_out(cases, {"ridge": ridge})
    with pytest.raises(sqi.BadInput, match="'told' has no knowledge of genes"):
        leave_genes_out(cases, {"told": type(model)(model.config)})
