"""Cases that leave something out, and the table of scores that comes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.genes.panel import choose_genes
from sq_imputer.scores import metrics
from sq_imputer.section.counts import Counts
from sq_imputer.section.slide import Slide

RIDGE = {"size_px": 32, "context_um": ()}


@pytest.fixture(scope="module")
def slides() -> list[Slide]:
    """Sections of three patients."""
    sections = sqi.datasets.toy(3, size_px=640, mpp=1.25, seed=11)
    return [Slide.from_sdata(sdata) for sdata in sections.values()]


@pytest.fixture
def ridge():
    model = sqi.get_model("ridge")
    return model(model.Config(**RIDGE))


def test_every_section_is_tested_once_by_the_others(slides):
    cases = bench.leave_one_out(slides)
    assert [case.name for case in cases] == ["P1", "P2", "P3"]
    for k, case in enumerate(cases):
        assert case.test is slides[k]
        assert [s.section for s in case.training] == [s.section for s in slides if s is not slides[k]]
        assert not case.shares_patient and case.rows.tolist() == list(range(len(slides[k])))


def test_replicates_are_trained_on_only_when_asked_for_and_are_marked(toy_slides):
    with pytest.raises(sqi.BadInput, match="share_patient=True"):
        bench.leave_one_out(toy_slides)
    cases = bench.leave_one_out(toy_slides, share_patient=True)
    assert len(cases) == 3 and all(case.shares_patient for case in cases)


def test_strips_cover_the_section_once_and_keep_their_distance(slides):
    slide = slides[0]
    cases = bench.strips_of(slide, 3, buffer_um=100.0)
    assert sorted(np.concatenate([case.rows for case in cases])) == list(range(len(slide)))
    for case in cases:
        assert case.shares_patient and case.test is slide
        assert cdist(case.training[0].xy_um, slide.xy_um[case.rows]).min() > 100.0


def test_rows_without_counts_are_not_scored(slides):
    slide = slides[0]
    measured = slide.measured.copy()
    measured[:5] = False
    counts = slide.counts.toarray()
    counts[5] = 0
    partly = replace(slide, measured=measured, counts=Counts.of(counts))
    assert bench.leave_one_out([partly, slides[1]])[0].rows.tolist() == list(range(6, len(slide)))
    assert sorted(np.concatenate([c.rows for c in bench.strips_of(partly, 3)])) == list(range(6, len(slide)))


def test_models_and_baselines_stand_in_one_table(slides, ridge):
    cases = bench.leave_one_out(slides)
    table = bench.run(cases, {"mine": ridge}, n_genes=6)
    assert len(table) == 3 * 3 * 6
    assert set(table["predictor"]) == {"mean", "depth only", "mine"}
    assert not ridge.fitted and not table["shares_patient"].any()
    for case in cases:
        genes = choose_genes(case.training, 6)
        training = [s.with_genes(genes) for s in case.training]
        test = case.test.with_genes(genes)
        part = table[table["case"] == case.name].set_index(["predictor", "gene"])
        assert part.loc["mine", "rank"].to_dict() == {gene: place for place, gene in enumerate(genes)}
        fitted = type(ridge)(ridge.config).fit(training)
        expected = {
            "mine": fitted.predict(test).mean.numpy(),
            "mean": metrics.mean_only(np.concatenate([s.expression for s in training]), len(test)),
            "depth only": metrics.depth_only(
                np.concatenate([s.expression for s in training]),
                np.concatenate([s.depth for s in training]),
                test.depth,
            ),
        }
        for name, values in expected.items():
            found = part.loc[name].loc[genes, "mse"]
            np.testing.assert_allclose(found, metrics.mse(test.expression, values), rtol=1e-4)


def test_the_tested_counts_reach_neither_panel_nor_fit(slides, ridge):
    case = bench.leave_one_out(slides)[0]
    rng = np.random.default_rng(0)
    strange = replace(case.test, counts=Counts.of(rng.poisson(50, case.test.counts.shape)))
    a = bench.run([case], {"mine": ridge}, n_genes=6)
    b = bench.run([replace(case, test=strange)], {"mine": ridge}, n_genes=6)
    assert a["gene"].tolist() == b["gene"].tolist() and a["rank"].tolist() == b["rank"].tolist()
    assert (a["mse"] != b["mse"]).all()


def test_genes_that_the_tested_section_lacks_are_left_out_of_its_score(slides, ridge):
    case = bench.leave_one_out(slides)[0]
    genes = choose_genes(case.training, 6)
    kept = [i for i, name in enumerate(case.test.var_names) if name != genes[2]]
    names = tuple(case.test.var_names[i] for i in kept)
    lacking = replace(case, test=replace(case.test, counts=Counts.of(case.test.counts.columns(kept)), var_names=names))
    table = bench.run([lacking], {"mine": ridge}, n_genes=6)
    assert set(table["gene"]) == set(genes) - {genes[2]}
    assert table.loc[table["gene"] == genes[5], "rank"].unique() == [5]


def test_no_cases_is_an_error(ridge):
    with pytest.raises(sqi.BadInput, match="no cases; make some with leave_one_out"):
        bench.run([], {"mine": ridge})


def test_outcomes_come_one_by_one_with_what_was_said_and_measured(slides, ridge):
    missing = replace(
        slides[2], counts=Counts.of(slides[2].counts.columns(range(1, 60))), var_names=slides[2].var_names[1:]
    )
    cases = bench.leave_one_out([*slides[:2], missing])
    asked = bench.outcomes(cases, {"ridge": ridge}, n_genes=len(missing.var_names) + 1)
    first = next(asked)
    assert first.case is cases[0] and set(first.predicted) == {"mean", "depth only", "ridge"}
    again = type(ridge)(ridge.config).fit([slide.with_genes(first.genes) for slide in cases[0].training])
    test = slides[0].with_genes(first.genes)
    np.testing.assert_allclose(first.predicted["ridge"], again.predict(test).mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(first.truth, test.expression)
    last = list(asked)[-1]  # its section lacks a gene of the panel
    lost = slides[2].var_names[0]
    assert lost in last.genes and lost not in last.tested and last.truth.shape[1] == len(last.genes) - 1
    columns = [last.genes.index(gene) for gene in last.tested]
    other = type(ridge)(ridge.config).fit([slide.with_genes(last.genes) for slide in cases[2].training])
    mean = other.predict(slides[2].with_genes(last.genes)).mean.numpy()[:, columns]
    np.testing.assert_allclose(last.predicted["ridge"], mean, rtol=1e-4, atol=1e-4)
    assert last.table()["gene"].isin(last.tested).all()


def test_sections_that_share_spots_are_no_cases_whatever_they_are_called(slides):
    part = replace(slides[0].take(np.arange(10, 30)), section="P9", group="P9")
    for twin in (part, replace(part, centers_px=part.centers_px + 1e-9), replace(part, section="P1"), slides[0]):
        with pytest.raises(sqi.BadInput, match=r"'P1' and 'P[19]' have the same spots with the same counts \(\d+ of"):
            bench.leave_one_out([*slides[:2], twin])


def test_a_case_that_scores_its_training_rows_is_refused(slides, ridge):
    case = bench.strips_of(slides[0], 3)[0]
    training = (slides[0].take(np.arange(len(slides[0]))),)
    with pytest.raises(sqi.BadInput, match=rf"{len(case.rows)} of {len(case.rows)} rows that are scored are among"):
        bench.run([replace(case, training=training)], {"mine": ridge}, n_genes=6)


def test_a_case_that_trains_on_next_to_nothing_says_so(slides, ridge, genes=("NUC1", "STR1")):
    few = replace(slides[0], measured=np.arange(len(slides[0])) < 5)
    with pytest.warns(UserWarning, match="case 'P2': models are fitted on 5 measured rows of sections 'P1'"):
        bench.run(bench.leave_one_out([few, slides[1]])[1:], {"ridge": ridge}, genes=list(genes))


def test_what_texture_tells_of_the_genes_stands_beside_their_scores(slides, ridge, monkeypatch):
    monkeypatch.setattr("sq_imputer.bench._leave_out.get_model", lambda name: lambda: ridge)
    found = next(iter(bench.outcomes(bench.leave_one_out(slides)[:1], {"mine": ridge}, n_genes=6, image_eps=True)))
    table = found.table()
    for column in ("image_eps", "image_eps_given_depth"):
        assert table[column].notna().all()
        np.testing.assert_array_equal(table.loc[table["predictor"] == "mean", column], found.image_eps[column])
