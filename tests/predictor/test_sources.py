from __future__ import annotations

import pytest

from sq_imputer import BadInput, Target, get_model
from sq_imputer.predictor.sources import check_takes, target_of


def test_a_model_that_does_not_take_a_target_names_those_that_do():
    with pytest.raises(BadInput, match="target 'obs:x' is of kind 'classes'.*'mlp', 'ridge'"):
        check_takes(get_model("nsl").card, Target("obs:x", "classes"))
    check_takes(get_model("ridge").card, Target("obs:x", "classes"))


def test_a_source_that_says_nothing_is_of_genes(toy_slides):
    assert target_of(object()).is_genes and target_of(toy_slides[0]) == Target()
