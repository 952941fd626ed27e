from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.scores import shares


@pytest.fixture
def drawn():
    """Probabilities of three classes, and classes that were drawn by them."""
    rng = np.random.default_rng(0)
    said = rng.dirichlet([0.5, 0.5, 0.5], 2000)
    return np.eye(3)[[rng.choice(3, p=p) for p in said]], said


def test_probabilities_that_classes_were_drawn_by_are_calibrated_and_sharper_ones_are_not(drawn):
    truth, said = drawn
    sharp = said**3 / (said**3).sum(axis=1, keepdims=True)
    good, bad = shares.class_scores(truth, said), shares.class_scores(truth, sharp)
    assert good["calibration_error"] < 0.03 < 0.08 < bad["calibration_error"]
    assert good["log_loss"] < bad["log_loss"] and good["balanced_accuracy"] == bad["balanced_accuracy"]


def test_perfect_and_uninformed_predictions_have_the_known_scores(drawn):
    truth, _ = drawn
    perfect = shares.class_scores(truth, truth)
    assert [round(perfect[name], 9) for name in perfect] == [1, 1, 1, 0, 0]
    usual = shares.class_scores(truth, np.tile([0.5, 0.3, 0.2], (len(truth), 1)))
    assert usual["balanced_accuracy"] == pytest.approx(1 / 3) and usual["auroc"] == pytest.approx(0.5)


def test_a_class_that_is_not_there_has_no_score_and_spoils_no_mean(drawn):
    truth, said = drawn
    rows = truth[:, 2] == 0
    table = shares.class_table(truth[rows], {"m": said[rows]}, ["a", "b", "c"]).set_index("gene")
    assert np.isnan(table.loc["c", ["auroc", "auprc", "recall"]].astype(float)).all() and table.loc["c", "n_of"] == 0
    assert np.isfinite(list(shares.class_scores(truth[rows], said[rows]).values())).all()


def test_compositions_that_share_no_part_are_one_bit_apart():
    one, two = np.array([[1.0, 0, 0], [0.5, 0.5, 0]]), np.array([[0, 1.0, 0], [0, 0, 1.0]])
    assert shares.composition_scores(one, two)["jensen_shannon"] == pytest.approx(1)
    assert shares.composition_scores(one, one)["jensen_shannon"] == pytest.approx(0)


def test_intervals_are_of_blocks_and_hold_the_score(drawn):
    truth, said = drawn
    table = shares.aggregate_shares(truth, {"m": said}, shares.class_scores, np.arange(len(truth)) % 8)
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    assert (table["n_units"] == 8).all() and len(table) == 5


def test_areas_are_those_of_scikit_learn_also_where_rows_tie():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    mine, said = rng.random(60) < 0.3, rng.integers(0, 8, 60) / 8
    expected = roc_auc_score(mine, said), average_precision_score(mine, said)
    np.testing.assert_allclose(shares._areas(mine, said), expected)
