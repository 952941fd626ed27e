"""Cases of targets other than genes: scores by their kind, as `tl.score` has them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.scores import shares

KNOWN = {"size_px": 32, "context_um": ()}
PARTS = ["nuclei", "glands", "stroma"]


@pytest.fixture(scope="module")
def slides():
    """Two sections by target: what lies most in a spot, of two parts and of three, and the proportions of the three."""
    sections = sqi.datasets.toy(2, size_px=640, mpp=1.25, seed=11)
    for sdata in sections.values():
        table = sdata.tables["table"]
        parts = table.obs[PARTS].to_numpy() / [0.2, 0.24, 0.53] + 0.02
        table.obs["most"] = pd.Categorical(np.array(PARTS)[parts.argmax(axis=1)])
        table.obs["glandular"] = parts[:, 1] > parts[:, 2]
        table.obsm["parts"] = parts / parts.sum(axis=1, keepdims=True)
    targets = ("obs:glandular", "obs:most", sqi.Target("obsm:parts", "composition"))
    read = [[sqi.Slide.from_sdata(sdata, target=target) for sdata in sections.values()] for target in targets]
    return dict(zip(("glandular", "most", "parts"), read, strict=True))


@pytest.fixture
def ridge():
    model = sqi.get_model("ridge")
    return {"mine": model(model.Config(**KNOWN))}


def test_classes_are_scored_by_section_beside_coordinates(slides, ridge):
    cases = bench.leave_one_out(slides["glandular"], target="obs:glandular")
    table = bench.run(cases, ridge, per="section", progress=False)
    assert set(table["predictor"]) == {"mean", "depth only", "coordinates only", "mine"}
    loss = table[table["metric"] == "log_loss"].pivot(index="case", columns="predictor", values="mean")
    assert list(loss.index) == ["P1", "P2"] and (loss["mine"] < loss["mean"]).all()
    found = next(iter(bench.outcomes(cases, ridge, progress=False)))
    own = table[(table["case"] == "P1") & (table["predictor"] == "mine")].set_index("metric")["mean"]
    for name, value in shares.class_scores(found.truth, found.predicted["mine"]).items():
        assert own[name] == pytest.approx(value, rel=1e-3)
    assert {"auroc", "recall", "rank"} < set(found.table()) and found.tested == found.genes


def test_a_composition_has_scores_per_part_and_of_rows(slides, ridge):
    cases = bench.leave_one_out(slides["parts"])[:1]
    assert set(bench.run(cases, ridge, progress=False)["gene"]) == {"parts_0", "parts_1", "parts_2"}
    table = bench.run(cases, ridge, per="section", progress=False).set_index(["metric", "predictor"])["mean"]
    assert table["jensen_shannon", "mine"] < table["jensen_shannon", "mean"]


def test_a_class_that_is_not_fitted_is_said_by_name_and_not_scored(slides, ridge):
    case = bench.leave_one_out(slides["most"])[0]
    n = int(np.asarray(case.test.labels)[:, case.test.target.names.index("nuclei")].sum())
    with pytest.warns(UserWarning, match=f"case 'P1': {n} of {len(case.rows)} rows are of 'nuclei', which no model"):
        found = next(iter(bench.outcomes([case], ridge, progress=False)))
    assert len(found.truth) == len(case.rows) - n == len(found.case.rows)


def test_slides_of_another_target_are_refused(slides, ridge):
    with pytest.raises(sqi.BadInput, match="'P1' was read for target 'obs:most', not 'genes'. Read it by Slide.from_s"):
        bench.leave_one_out(slides["most"], target="genes")
    with pytest.raises(sqi.BadInput, match="image_eps=True is of genes, and the cases are of 'obs:most'"):
        bench.run(bench.leave_one_out(slides["most"]), ridge, image_eps=True)
    with pytest.raises(sqi.BadInput, match="per is 'spot'; expected 'gene' or 'section'"):
        bench.run(bench.leave_one_out(slides["most"]), ridge, per="spot")
