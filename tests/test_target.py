from __future__ import annotations

import pytest

from sq_imputer import BadInput, Target


@pytest.mark.parametrize("where", ["label", "obs:", "var:x", "", 3])
def test_a_target_that_names_no_slot_is_refused_with_what_can_be_named(where):
    with pytest.raises(BadInput, match="expected 'genes', 'triplex_legacy', 'obs:NAME'"):
        Target(where)


def test_genes_are_the_default_and_have_their_kind():
    assert Target.of(None) == Target() == Target.of("genes")
    assert (Target().kind, Target().link, Target().key) == ("genes", "identity", "imputed")


def test_what_sums_to_one_has_a_softmax_and_a_table_of_its_own():
    target = Target("obsm:types", "composition")
    assert (target.link, target.key, target.slot, target.name) == ("softmax", "imputed_types", "obsm", "types")


def test_a_kind_is_one_of_the_known_ones_and_genes_are_no_classes():
    with pytest.raises(BadInput, match="kind of target 'obs:x' is 'labels'"):
        Target("obs:x", "labels")
    with pytest.raises(BadInput, match="kind of target 'genes' is 'classes'"):
        Target("genes", "classes")
