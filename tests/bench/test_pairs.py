"""Pairs of crops and expression, brought into one space, searched and probed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.bench import Contrast, Pairs

RNG = np.random.default_rng(0)
SHARED = np.random.default_rng(7).normal(size=(3, 12))  # how three hidden states show in the image
MEANT = np.random.default_rng(8).normal(size=(3, 9))  # and in the expression


def planted(n: int = 240, section: str = "A", seed: int = 0, noise: float = 0.3) -> Pairs:
    """Rows whose image and expression both come of the same three hidden numbers."""
    rng = np.random.default_rng(seed)
    state = rng.normal(size=(n, 3))
    return Pairs(
        image=(state @ SHARED + noise * rng.normal(size=(n, 12))).astype(np.float32),
        expression=(state @ MEANT + noise * rng.normal(size=(n, 9)) + 2).astype(np.float32),
        genes=tuple(f"G{g}" for g in range(9)),
        section=np.full(n, section, dtype=object),
        group=np.full(n, f"of {section}", dtype=object),
        xy_um=rng.uniform(0, 1000, (n, 2)),
        depth=rng.uniform(500, 1500, n),
        encoder="planted",
        made_by={},
    )


def short(**changes) -> Contrast:
    return Contrast(**{"width": 16, "steps": 120, "lr": 3e-3, **changes})


@pytest.fixture(scope="module")
def train() -> Pairs:
    return planted()


@pytest.fixture(scope="module")
def test() -> Pairs:
    return Pairs.cat([planted(120, "B", 1), planted(120, "C", 2)])


@pytest.mark.parametrize("changes", [{}, {"loss": "siglip"}, {"genes": "pca"}, {"head": "linear", "normalize": False}])
def test_what_belongs_together_is_found_and_shuffled_pairs_are_not(train, test, changes):
    tuned = bench.contrast(train, config=short(**changes))
    table = bench.retrieval(tuned, test, gallery="section", ks=[5])
    assert set(table["section"]) == {"B", "C"} and table["chance"].tolist() == pytest.approx([5 / 120] * 4)
    assert (table["recall"] > 0.3).all()
    mixed = replace(train, expression=np.random.default_rng(3).permutation(train.expression))
    shuffled = bench.retrieval(bench.contrast(mixed, config=short(**changes)), test, gallery="section", ks=[5])
    assert (shuffled["recall"] < 0.13).all()


def test_a_latent_of_another_encoder_is_taken_or_asked_for(train, test):
    with pytest.raises(sqi.MissingKey, match="no latent"):
        bench.contrast(train, config=short(genes="latent"))
    known = replace(train, latent=train.expression @ MEANT.T.astype(np.float32))
    tuned = bench.contrast(known, config=short(genes="latent"))
    test = replace(test, latent=test.expression @ MEANT.T.astype(np.float32))
    assert bench.retrieval(tuned, test, gallery="section", ks=[5])["recall"].min() > 0.3


def test_the_same_seed_gives_the_same_vectors_and_torch_is_left_alone(train, test):
    import torch

    before = torch.random.get_rng_state()
    one, other = (bench.contrast(train, config=short(steps=20), seed=4).image(test) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())
    assert np.abs(one - bench.contrast(train, config=short(steps=20), seed=5).image(test)).max() > 0.01


def test_the_weights_that_are_kept_are_the_best_of_the_validation_rows(train, test):
    noisy = planted(40, "D", 9)
    tuned = bench.contrast(noisy, test, config=short(steps=400, patience=3, lr=1e-2))
    history = tuned.history
    assert history["best"] < history["step"][-1]
    k = history["step"].index(history["best"])
    assert history["validation"][k] < min(history["validation"][k + 1 :]) + 0.011


def test_vectors_have_length_1_and_pairs_of_other_genes_are_refused(train, test):
    tuned = bench.contrast(train, config=short(steps=20))
    for vectors in (tuned.image(test), tuned.expression(test)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with pytest.raises(sqi.BadInput, match="another genes"):
        tuned.image(replace(test, genes=tuple("abcdefghi")))


def test_a_linear_probe_recovers_a_linear_truth_and_baselines_do_not(train, test):
    for probe in ("ridge-pca256", "ridge-raw", "ridge-cv"):
        table = bench.expression_probe(train, test, probe=probe)
        means = table.groupby("predictor")["pearson"].mean()
        assert means["untuned"] > 0.85 and abs(means["depth only"]) < 0.15 and abs(means["coordinates only"]) < 0.2
        assert set(table["probe"]) == {probe} and table["section"].nunique() == 2


def test_the_probe_is_the_published_ridge(train, test):
    """Standardized features, all 12 components: the normal equations, with 100 / (12 x 9) on the diagonal."""
    x = (train.image - train.image.mean(0, dtype=float)) / train.image.std(0, dtype=float)
    new = (test.image - train.image.mean(0, dtype=float)) / train.image.std(0, dtype=float)
    weights = np.linalg.solve(x.T @ x + 100 / (12 * 9) * np.eye(12), x.T @ train.expression)
    table = bench.expression_probe(train, test, baselines=False)
    assert table["components"].unique() == [12] and table["penalty"].unique() == pytest.approx([100 / 108])
    from sq_imputer.scores import score_table

    expected = score_table(
        test.expression, {"untuned": new @ weights}, test.genes, depth=test.depth, section=test.section.astype(str)
    )
    np.testing.assert_allclose(table["pearson"], expected["pearson"], atol=1e-6)
    np.testing.assert_allclose(table["mse"], expected["mse"], rtol=1e-5)


def test_tuned_and_untuned_stand_side_by_side(train, test):
    tuned = bench.contrast(train, config=short())
    table = bench.expression_probe(train, test, tuned=tuned, baselines=False)
    assert set(table["predictor"]) == {"untuned", "tuned"}
    assert table[table["predictor"] == "tuned"]["components"].unique() == [16]


def test_sections_on_both_sides_are_refused(train):
    with pytest.raises(sqi.BadInput, match="'A' are in train and test"):
        bench.expression_probe(train, train)


def test_intervals_are_over_sections(test, train):
    table = bench.retrieval(bench.contrast(train, config=short(steps=40)), test, ks=[1, 5])
    means = bench.over_sections(table, by=["direction", "gallery", "k"])
    assert len(means) == 2 * 3 * 2 and set(means["n_sections"]) == {2}
    assert (means["low"] <= means["mean"]).all() and (means["mean"] <= means["high"]).all()


def test_pairs_of_slides_hold_what_was_measured(toy_slides):
    genes = list(toy_slides[0].var_names[:5])
    found = bench.pairs(toy_slides[:2], genes, spec=sqi.CropSpec(100.0, 32), crops=True)
    slide = toy_slides[0].with_genes(genes)
    own = found[found.section == slide.section]
    np.testing.assert_allclose(own.expression, slide.expression[slide.measured])
    np.testing.assert_array_equal(own.crops, slide.crops(sqi.CropSpec(100.0, 32))[np.flatnonzero(slide.measured)])
    np.testing.assert_allclose(own.image, slide.features("texture", sqi.CropSpec(100.0, 32))[slide.measured])
    assert own.crops.dtype == np.uint8 and own.genes == tuple(genes) and own.made_by["revision"]


def test_texture_cannot_be_tuned(train):
    with pytest.raises(sqi.BadInput, match="has no weights"):
        bench.contrast(replace(train, encoder="texture"), config=short(finetune="lora"))


def test_pairs_that_differ_are_not_joined(train):
    with pytest.raises(sqi.BadInput, match="differ in encoder"):
        Pairs.cat([train, replace(train, encoder="other")])


def test_a_slot_of_obsm_is_found_in_the_order_of_the_rows():
    sdata = sqi.datasets.toy(1, size_px=256, mpp=1.25, spots=9)["P1"]
    table = sdata.tables["table"]
    table.obsm["X_scVI"] = np.arange(2 * table.n_obs, dtype=np.float64).reshape(-1, 2)
    sdata.tables["table"] = table[::-1].copy()
    slide, found = sqi.Slide.from_sdata(sdata, section="A"), bench.latent(sdata, "X_scVI")
    place = dict(zip(table.obs_names, table.obsm["X_scVI"], strict=True))
    np.testing.assert_array_equal(found, [place[name] for name in slide.names])
    genes, spec = list(slide.var_names[:3]), sqi.CropSpec(100.0, 32)
    known = bench.pairs([slide], genes, spec=spec, latent={"A": found})
    np.testing.assert_array_equal(known.latent, found[slide.measured])
    with pytest.raises(sqi.MissingKey, match="no obsm 'X_drvi'.*X_scVI"):
        bench.latent(sdata, "X_drvi")
    with pytest.raises(sqi.MissingKey, match="nothing of sections 'A'"):
        bench.pairs([slide], genes, spec=spec, latent={"B": found})
    table.obsm["X_scVI"][3, 1] = np.nan
    sdata.tables["table"] = table
    with pytest.raises(sqi.BadInput, match="not finite in 1 rows"):
        bench.latent(sdata, "X_scVI")
