"""Crops, contexts and what configs say of them are tested in test_contract.py; here, what needs refuse."""

from __future__ import annotations

import pytest

from sq_imputer import contract, needs
from sq_imputer.errors import BadInput


def test_the_contract_has_these_nouns():
    for name in ("CropSpec", "Needs", "Views"):
        assert getattr(contract, name) is getattr(needs, name)


@pytest.mark.parametrize("asked", [{"tokens": 7}, {"whole_slide": True}])
def test_features_are_asked_of_encoders(asked):
    with pytest.raises(BadInput, match="Needs.encoders is empty; name some"):
        needs.Needs(needs.CropSpec(), **asked)
    assert needs.Needs(needs.CropSpec(), ("texture",), **asked)


def test_text_is_of_genes_and_not_of_spots():
    assert needs.Needs(text=64).of_genes and needs.Needs(sequence=8).of_genes and not needs.Needs().of_genes
    with pytest.raises(BadInput, match="both a crop and a sequence"):
        needs.Needs(needs.CropSpec(), text=64)


def test_a_model_sees_crops_or_dna():
    with pytest.raises(BadInput, match="both a crop and a sequence; rows are spots or genes"):
        needs.Needs(needs.CropSpec(), sequence=100)
    with pytest.raises(BadInput, match="Needs.sequence is -1; expected a whole number, 0 or more"):
        needs.Needs(sequence=-1)
    assert needs.Needs(sequence=200_000).views == ()
