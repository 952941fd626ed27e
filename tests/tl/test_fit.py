"""What `tl.fit` fits, on what, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.genes.panel import choose_genes
from sq_imputer.section.slide import Slide


def test_it_fits_on_every_measured_spot_of_every_section(patients, spy, genes):
    fitted = sqi.tl.fit(patients, "spy", genes=genes)
    assert fitted.fitted and fitted.genes == tuple(genes)
    slides = [Slide.from_sdata(sdata) for sdata in patients.values()]
    np.testing.assert_array_equal(spy.fits[0].xy_um, np.concatenate([slide.xy_um for slide in slides]))
    assert fitted.provenance["sections"] == ["P1", "P2", "P3"]
    assert fitted.provenance["rows"] == [len(slide) for slide in slides]
    assert fitted.provenance["groups"] == ["P1", "P2", "P3"]


def test_it_is_least_squares_on_the_targets_it_was_asked_for(section, spy, genes):
    slide = Slide.from_sdata(section).with_genes(genes, "log1p_counts")
    fitted = sqi.tl.fit(section, "spy", genes=genes, unit="log1p_counts")
    assert fitted.unit == "log1p_counts"
    colors = np.array([crop.reshape(3, -1).mean(axis=1) / 255 for crop in slide.crops(fitted.needs.crop)[:]])
    design = np.column_stack([np.ones(len(colors)), colors])
    expected = design @ np.linalg.lstsq(design, slide.expression, rcond=None)[0]
    np.testing.assert_allclose(fitted.predict(slide).mean, expected, rtol=1e-3, atol=1e-3)


def test_unmeasured_spots_are_not_fitted_on(partly, spy, genes):
    section, dropped = partly
    sqi.tl.fit(section, "spy", genes=genes)
    assert len(spy.fits[0].xy_um) == len(section.shapes["spots"]) - len(dropped)


def test_a_number_of_genes_is_chosen_on_these_sections(patients, spy):
    slides = [Slide.from_sdata(sdata) for sdata in patients.values()]
    assert sqi.tl.fit(patients, "spy", genes=5).genes == tuple(choose_genes(slides, 5))
    assert sqi.tl.fit(patients, "spy", genes=np.int64(5)).genes == tuple(choose_genes(slides, 5))


def test_one_section_a_list_and_named_ones_fit_the_same(section, spy, genes):
    slide = Slide.from_sdata(section)
    fits = [sqi.tl.fit(what, "spy", genes=genes) for what in (section, [section], {"a": section}, slide, [slide])]
    for other in fits[1:]:
        assert torch.equal(other.weight, fits[0].weight)
    assert [fit.provenance["sections"] for fit in fits[:3]] == [["P1"], ["P1"], ["a"]]


def test_knowledge_reaches_the_model_and_is_refused_where_nothing_is_made_of_it(section, spy, genes, tmp_path):
    class Knowing(spy):
        needs = property(lambda self: replace(spy.needs.fget(self), knowledge=True))

    knowledge = sqi.GeneKnowledge.lexical(genes)
    for model in (Knowing, Knowing()):
        fitted = sqi.tl.fit(section, model, genes=genes, knowledge=knowledge)
        np.testing.assert_array_equal(fitted.gene_vectors, knowledge.vectors)
        assert fitted.provenance["knowledge"]["sha256"] == knowledge.sha256
    with pytest.raises(sqi.BadInput, match="'spy' takes no knowledge of genes"):
        sqi.tl.fit(section, "spy", genes=genes, knowledge=knowledge)
    with pytest.raises(sqi.BadInput, match="a fitted or saved one keeps that of its fit"):
        sqi.tl.predict(section, fitted, knowledge=knowledge)
    sqi.tl.predict(section, Knowing(), genes=genes, n_folds=2, layer_added="knowing", knowledge=knowledge)
    record = section.tables["imputed"].uns["sq_imputer"]["knowing"]
    assert record["knowledge"]["name"] == "lexical" and "without" in record["knowledge"]


def test_a_model_is_a_name_a_class_or_an_instance(section, spy, genes):
    config = spy.Config(extent_um=70.0)
    by_name = sqi.tl.fit(section, "spy", genes=genes, config={"extent_um": 70.0})
    for model, given in ((spy, config), (spy(config), None), (by_name, None)):
        fitted = sqi.tl.fit(section, model, genes=genes, config=given)
        assert fitted.config == config and torch.equal(fitted.weight, by_name.weight)
        assert fitted is not model


def test_fitting_a_fitted_model_again_leaves_the_first_as_it_was(patients, spy, genes):
    first = sqi.tl.fit(patients["P1"], "spy", genes=genes)
    weight = first.weight.clone()
    second = sqi.tl.fit(patients["P2"], first, genes=genes[:3])
    assert first.genes == tuple(genes) and torch.equal(first.weight, weight)
    assert second.genes == tuple(genes[:3])


def test_a_saved_model_predicts_the_same_bit_for_bit(patients, spy, genes, tmp_path):
    target = Slide.from_sdata(patients.pop("P3"))
    fitted = sqi.tl.fit(patients, "spy", genes=genes)
    fitted.save(tmp_path / "model")
    loaded = sqi.load(tmp_path / "model")
    assert torch.equal(loaded.predict(target).mean, fitted.predict(target).mean)
    assert loaded.provenance == fitted.provenance and loaded.genes == fitted.genes


def test_the_plan_reaches_the_model(section, spy, genes):
    plan = sqi.Plan(seed=9, epochs=2)
    fitted = sqi.tl.fit(section, "spy", genes=genes, plan=plan)
    assert spy.fits[0].plan == plan and fitted.provenance["plan"]["seed"] == 9


def test_seeds_repeat(section, genes):
    config = {"size_px": 8, "epochs": 2}
    a, b, c = (sqi.tl.fit(section, "nsl", genes=genes, config=config, plan=sqi.Plan(seed=s)) for s in (1, 1, 2))
    assert a.sha256 == b.sha256 != c.sha256


def test_the_sections_are_not_changed(patients, spy, genes, digest):
    before = [digest(sdata) for sdata in patients.values()]
    sqi.tl.fit(patients, "spy", genes=genes)
    sqi.tl.fit(patients, "ridge", genes=5, config={"size_px": 32, "context_um": ()})
    assert [digest(sdata) for sdata in patients.values()] == before


WRONG = {
    "model": ({"model": "stem3"}, "no model 'stem3'; there are .*'ridge'.*folder written by predictor.save"),
    "config": ({"config": {"size": 3}}, "config names 'size'"),
    "unit": ({"unit": "cpm"}, "no unit 'cpm'; there are 'log1p_cp10k'"),
    "genes": ({"genes": ["NUC1", "BRCA1"]}, "1 of 2 genes are not in section 'P1': 'BRCA1'"),
    "twice": ({"genes": ["NUC1", "NUC1"]}, "more than once: 'NUC1'"),
    "no genes": ({"genes": []}, "genes is empty"),
    "text": ({"genes": "NUC1"}, "genes is the text"),
    "image": ({"image_key": "HE"}, "no image 'HE'; sdata has 'he'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named(section, spy, case):
    arguments, message = WRONG[case]
    with pytest.raises(sqi.SqImputerError, match=message):
        sqi.tl.fit(section, **{"model": "spy", "genes": ["NUC1"], **arguments})
    assert spy.fits == []


def test_a_section_without_counts_is_named(patients, spy, genes):
    del patients["P2"].tables["table"]
    for wanted in (5, genes):
        with pytest.raises(sqi.BadInput, match="'P2'"):
            sqi.tl.fit(patients, "spy", genes=wanted)
    assert spy.fits == []


def test_a_model_says_what_it_is_of(patients, spy, genes):
    assert repr(spy()) == "spy, not fitted"
    fitted = sqi.tl.fit(patients, "spy", genes=genes[:4])
    n_rows = sum(fitted.provenance["rows"])
    named = ", ".join(map(repr, genes[:3]))
    assert repr(fitted) == (
        f"spy of 4 genes ({named}, ... (4 in all)) in log1p_cp10k, fitted on {n_rows} rows of 'P1', 'P2', 'P3', "
        "at 1.25 µm per pixel"
    )


def test_a_fit_on_next_to_nothing_says_so(section, spy, genes):
    table = section.tables["table"]
    section.tables["table"] = table[:6].copy()
    with pytest.warns(UserWarning, match="'spy' is fitted on 6 measured rows of sections 'P1'; .* says little"):
        sqi.tl.fit(section, "spy", genes=genes)
    section.tables["table"] = table[:, genes[:3]].copy()
    with pytest.warns(UserWarning, match="give a panel of 3 genes .* where 50 were asked for"):
        sqi.tl.fit(section, "spy", genes=50)
