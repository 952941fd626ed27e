"""Which genes can be believed: those of the image are, those beside it are not, and every mark has a reason."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi

QUICK = {"n_folds": 3, "buffer_um": 100.0}


def test_genes_of_the_image_are_reliable_and_others_are_not(wide, spy, digest) -> None:
    names = list(wide.tables["table"].var_names)
    sqi.tl.predict(wide, "spy", genes=names, **QUICK)
    before = digest(wide, ("imputed",))
    found = sqi.tl.trust(wide, "spy", n_null=60).set_index("gene")
    assert digest(wide, ("imputed",)) == before
    kind = found.index.str.rstrip("0123456789")
    assert found["reliable"][kind == "IND"].mean() <= 0.1
    assert found["reliable"][kind == "NUC"].mean() > 0.5
    assert set(found["reason"][found["reliable"]]) == {"predicted beyond chance"}
    table = wide.tables["imputed"]
    var = table.var
    lower, upper, y = (table.layers[name] for name in ("spy_lower", "spy_upper", "measured"))
    inside = ((y >= lower) & (y <= upper)).mean(axis=0)
    np.testing.assert_allclose(var["spy_coverage"], inside)
    assert 0.85 < inside.mean() < 0.97 and (lower >= 0).all()
    record = table.uns["sq_imputer"]["spy"]["trust"]
    assert record["calibrated_by"] == "blocks of the section" and record["level"] == 0.9
    np.testing.assert_allclose(record["sections"]["0"]["coverage"], inside.mean(), rtol=1e-5)
    assert table.obs["spy_reliable"].mean() > 0.8  # out of fold, of one tissue
    np.testing.assert_array_equal(var["spy_reliable"], found["reliable"])
    assert (var["spy_skill_low"] <= var["spy_skill_high"]).all()


def test_a_gene_that_cannot_be_measured_is_told_apart(section, spy, genes) -> None:
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table = section.tables["imputed"]
    table.var["ceiling"] = 0.1
    found = sqi.tl.trust(section, n_null=20)
    assert set(found["reason"]) <= {"predicted beyond chance", "hidden by counting noise"}


def test_several_sections_are_one_answer(joined, spy, genes) -> None:
    sqi.tl.predict(joined, "spy", sections="region", genes=genes, leave_out="block", **QUICK)
    assert len(sqi.tl.trust(joined, n_null=20, level=None)) == len(genes)
    assert "spy_lower" not in joined.tables["imputed"].layers
    assert len(joined.tables["imputed"].uns["sq_imputer"]["spy"]["trust"]["sections"]) == 3


@pytest.mark.filterwarnings("ignore:section .* is unlike:UserWarning")  # toys have stains of their own
def test_sections_of_several_patients_are_judged_by_those_of_others(joined, spy, genes) -> None:
    sqi.tl.predict(joined, "spy", sections="region", genes=genes)
    sqi.tl.trust(joined, n_null=20)
    assert joined.tables["imputed"].uns["sq_imputer"]["spy"]["trust"]["calibrated_by"] == "individuals"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "none"}, "no prediction 'none'"),
        ({"fdr": 2}, "fdr is 2"),
        ({"n_null": 3}, "n_null is 3"),
        ({"level": 1.0}, "level is 1.0"),
        ({"sections": "none"}, "no section 'none'"),
    ],
)
def test_what_cannot_be_is_said(section, spy, genes, arguments, said) -> None:
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    with pytest.raises(sqi.SqImputerError, match=said):
        sqi.tl.trust(section, **arguments)
