"""What goes together, and what has been seen, is checked before anything is computed."""

from __future__ import annotations

import pytest

import sq_imputer as sqi
from sq_imputer.runs.checks import check_leave_out


def test_what_is_left_out_is_known_and_goes_with_the_objects_own_spots():
    check_leave_out(None, object())
    with pytest.raises(sqi.BadInput, match="leave_out is 'cell'; expected one of 'patient', 'section', 'block'"):
        check_leave_out("cell", None)
    with pytest.raises(sqi.BadInput, match="leave_out is 'block', but reference says"):
        check_leave_out("block", object())


def test_a_number_of_genes_said_outright_is_not_left_out(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, n_folds=3, buffer_um=50.0)
    for number in (249, 250):
        with pytest.raises(sqi.BadInput, match="holds another panel or unit"):
            sqi.tl.predict(section, "spy", genes=number, layer_added="again", n_folds=3, buffer_um=50.0)
    sqi.tl.predict(section, "spy", layer_added="again", n_folds=3, buffer_um=50.0)
    assert list(section.tables["imputed"].var_names) == genes


def test_a_model_that_retrieves_needs_leave_for_other_sections_of_the_patient(joined, recalls, genes):
    joined.tables["table"].obs["patient"] = "A"
    with pytest.raises(sqi.BadInput, match="allow_same_patient=True"):
        sqi.tl.predict(joined, "recalls", sections="region", leave_out="section", genes=genes)


def test_shapes_that_the_store_lacks_are_named(stored, spy, genes):
    stored.shapes["cells"] = stored.shapes["spots"].copy()
    with pytest.warns(UserWarning, match="shapes 'cells' are in memory only.*write_element.'cells'."):
        sqi.tl.predict(stored, "spy", genes=genes, shapes_key="cells", key_added="cells_imputed")
