from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.scores.targets import ScoredTarget


@pytest.fixture
def known():
    rng = np.random.default_rng(0)
    measured = rng.dirichlet(np.ones(3), 40)
    said = {"model": 0.7 * measured + 0.1, "mean": np.full((40, 3), 1 / 3)}
    places = {"depth": rng.integers(100, 1000, 40).astype(float), "xy_um": 100 * rng.random((40, 2))}
    return {"section": "A", "measured": measured, "predicted": said, "names": ["a", "b", "c"], **places}


def test_every_kind_has_scores_of_its_own(known):
    found = {kind: ScoredTarget(kind, **known).per_section() for kind in ("numbers", "composition")}
    apart = set(found["composition"]["metric"]) - set(found["numbers"]["metric"])
    assert apart == {"jensen_shannon"} and {"pearson", "pearson_given_depth"} < set(found["numbers"]["metric"])
    classes = np.eye(3)[known["measured"].argmax(axis=1)]
    table = ScoredTarget("classes", **{**known, "measured": classes}).per_section()
    assert table.set_index(["metric", "predictor"])["mean"]["balanced_accuracy", "model"] == 1
    assert set(ScoredTarget("classes", **{**known, "measured": classes}).per_gene["section"]) == {"A"}


def test_nothing_is_said_given_a_depth_that_is_not_known(known):
    scored = ScoredTarget("numbers", **{**known, "depth": np.full(40, np.nan)})
    table = scored.per_section().set_index(["metric", "predictor"])["mean"]
    assert np.isnan(table["pearson_given_depth", "model"]) and table["pearson", "model"] == pytest.approx(1)
    assert scored.per_gene["pearson_given_depth"].isna().all()
