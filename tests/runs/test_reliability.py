"""What a model carries of its training sections, and what a slide without expression gets of it."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.runs import reliability

pytestmark = pytest.mark.filterwarnings("ignore:section .* is unlike:UserWarning")  # toys have stains of their own


@pytest.fixture
def carrying(patients, spy, genes):
    """A model fitted on two patients that says of its genes whether they are reliable."""
    return sqi.tl.fit([patients["P1"], patients["P2"]], "spy", genes=genes, trust=True, device="cpu")


def test_a_slide_without_expression_gets_what_was_found_on_the_training_sections(
    carrying, patients, genes, tmp_path
) -> None:
    carrying.save(tmp_path / "model")
    target = patients["P3"]
    del target.tables["table"]
    sqi.tl.predict(target, tmp_path / "model")
    table = target.tables["imputed"]
    known = reliability.of(carrying.provenance, genes)
    np.testing.assert_array_equal(table.var["spy_reliable"], known["reliable"])
    assert known["from"] == "left-out individuals" and known["rows"] > 100
    found = sqi.tl.trust(target, level=0.8)
    np.testing.assert_allclose(found["skill"], known["skill"])
    assert found["p"].isna().all() and list(table.var["spy_reason"]) == list(known["reason"])
    half = (table.layers["spy_upper"] - table.layers["spy_lower"]) / 2
    inside = table.layers["spy_lower"] > 0
    expected = np.broadcast_to(known["widths"]["0.8"], half.shape)[inside]
    np.testing.assert_allclose(half[inside], expected, rtol=1e-4)
    assert table.uns["sq_imputer"]["spy"]["trust"]["calibrated_by"] == "left-out individuals"
    with pytest.raises(sqi.BadInput, match="level is 0.7; nothing is measured here, and the model carries '0.5'"):
        sqi.tl.trust(target, level=0.7)


def test_without_measurements_and_without_an_answer_the_ways_out_are_named(patients, spy, genes) -> None:
    model = sqi.tl.fit(patients["P1"], "spy", genes=genes)
    del patients["P2"].tables["table"]
    sqi.tl.predict(patients["P2"], model)
    with pytest.raises(sqi.BadInput, match=r"Three ways out: fit it with tl.fit\(..., trust=True\)"):
        sqi.tl.trust(patients["P2"])
    reliable = "spy_reliable"
    assert reliable not in patients["P2"].tables["imputed"].var


def test_too_few_spots_to_leave_some_out_are_an_error(patients, spy, genes) -> None:
    few = patients["P1"]
    few.tables["table"] = few.tables["table"][:25].copy()
    with pytest.raises(sqi.BadInput, match="trust=True needs 30 measured spots of genes or more; these are 25"):
        sqi.tl.fit(few, "spy", genes=genes, trust=True)


def test_an_answer_of_another_model_does_not_stay(carrying, patients, spy, genes) -> None:
    sqi.tl.predict(patients["P3"], carrying)
    table = patients["P3"].tables["imputed"]
    assert table.var["spy_fdr"].notna().any()
    model = sqi.tl.fit(patients["P1"], "spy", genes=genes)
    sqi.tl.predict(patients["P3"], model, overwrite=True)
    table = patients["P3"].tables["imputed"]
    assert table.var["spy_fdr"].isna().all() and not table.var["spy_reliable"].any()
