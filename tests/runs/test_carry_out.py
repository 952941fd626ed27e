"""Many sections in one call: what is written is what a loop over them by hand would give."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.io import pythonic

CONFIG = {"size_px": 32, "context_um": ()}


@pytest.mark.parametrize("where", ["memory", "store"])
def test_leave_one_section_out_is_one_call_and_equals_the_benchmark(joined, genes, tmp_path, where):
    if where == "store":
        joined.write(tmp_path / "joined.zarr")
        joined = spatialdata.read_zarr(tmp_path / "joined.zarr")
    sqi.tl.predict(joined, "ridge", sections="region", leave_out="section", genes=genes, config=CONFIG)
    table = joined.tables["imputed"] if where == "memory" else spatialdata.read_zarr(joined.path).tables["imputed"]
    model = sqi.get_model("ridge")
    cases = sqi.bench.leave_one_out(joined, sections="region")
    for outcome in sqi.bench.outcomes(cases, {"ridge": model(model.Config(**CONFIG))}, genes=genes):
        mine = table[(table.obs["section"] == outcome.case.name).to_numpy()]
        np.testing.assert_allclose(mine.layers["ridge"], outcome.predicted["ridge"], atol=1e-6)
        np.testing.assert_allclose(mine.layers["measured"], outcome.truth, atol=1e-6)
    assert list(table.uns["spatialdata_attrs"]["region"]) == ["spots-P1", "spots-P2", "spots-P3"]
    said = pythonic(table.uns["sq_imputer"]["ridge"])["sections_predicted"]
    assert {one["section"]: one["training_sections"] for one in said.values()}["spots-P2"] == ["spots-P1", "spots-P3"]


def test_a_fitted_model_predicts_all_sections_as_each_alone(joined, patients, genes):
    model = sqi.tl.fit(patients["P3"], "ridge", genes=genes, config=CONFIG)
    sqi.tl.predict(joined, model, sections={"A": "spots-P1", "B": "spots-P2"})
    table = joined.tables["imputed"]
    for name, key in (("A", "P1"), ("B", "P2")):
        sqi.tl.predict(patients[key], model)
        mine = table[(table.obs["section"] == name).to_numpy()]
        np.testing.assert_allclose(mine.layers["ridge"], patients[key].tables["imputed"].layers["ridge"], atol=1e-6)


def test_neighbors_of_all_sections_count_one_bank(joined, recalls, genes):
    sqi.tl.predict(joined, "recalls", sections="region", genes=genes)
    found = sqi.tl.retrieved(joined, layer="recalls")
    own = joined.tables["imputed"].obs["section"].astype(str)
    assert (found["section"].to_numpy() != own.loc[found["spot"]].to_numpy()).all()  # other patients only


def test_a_second_model_is_added_to_the_same_table(joined, spy, genes):
    for name in ("spy", "ridge"):
        sqi.tl.predict(joined, name, sections="region", genes=genes, config=None if name == "spy" else CONFIG)
    assert {"spy", "ridge", "measured"} <= set(joined.tables["imputed"].layers)
    with pytest.raises(sqi.BadInput, match="tables.'imputed'. is taken"):
        sqi.tl.predict(joined, "spy", sections={"A": "spots-P1", "B": "spots-P2"}, genes=genes, layer_added="other")
