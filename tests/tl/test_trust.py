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
    var = wide.tables["imputed"].var
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
    assert len(sqi.tl.trust(joined, n_null=20)) == len(genes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "none"}, "no prediction 'none'"),
        ({"fdr": 2}, "fdr is 2"),
        ({"n_null": 3}, "n_null is 3"),
        ({"sections": "none"}, "no section 'none'"),
    ],
)
def test_what_cannot_be_is_said(section, spy, genes, arguments, said) -> None:
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    with pytest.raises(sqi.SqImputerError, match=said):
        sqi.tl.trust(section, **arguments)
