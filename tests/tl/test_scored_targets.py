from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi

SMALL = {"size_px": 32, "context_um": ()}


@pytest.fixture
def predicted(section):
    table = section.tables["table"]
    table.obs["cells"] = pd.Categorical(np.where(table.obs["nuclei"] > table.obs["nuclei"].median(), "many", "few"))
    table.obsm["parts"] = table.obs[["nuclei", "glands"]].to_numpy() + 0.05
    table.obsm["parts"] /= table.obsm["parts"].sum(axis=1, keepdims=True)
    for target in ("obs:cells", sqi.Target("obsm:parts", "composition")):
        sqi.tl.predict(section, "ridge", target=target, config=SMALL, n_folds=2, progress=False)
    return section


def test_classes_stand_beside_baselines_of_their_kind(predicted, small_ridge):
    scores = sqi.tl.score(predicted, target="obs:cells", per="section", progress=False)
    means = scores.pivot(index="predictor", columns="metric", values="mean")
    assert set(means.index) == {"ridge", "mean", "depth only", "coordinates only", "ridge on texture"}
    assert means.loc["ridge", "auroc"] > means.loc["mean", "auroc"] and (means["log_loss"] > 0.3).all()
    assert "ridge_auroc" in predicted.tables["imputed_cells"].var


def test_a_composition_has_scores_per_part_and_of_its_rows(predicted):
    scores = sqi.tl.score(predicted, target="obsm:parts", baselines=False)
    assert set(scores["gene"]) == {"parts_0", "parts_1"} and (scores["pearson"] > 0.3).all()
    whole = sqi.tl.score(predicted, target="obsm:parts", baselines=False, per="section").set_index("metric")["mean"]
    assert 0 < whole["jensen_shannon"] < 0.1
