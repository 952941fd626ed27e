from __future__ import annotations

import pytest

import sq_imputer as sqi
from sq_imputer.testing import CHECKS, check_predictor


@pytest.mark.parametrize("name", sqi.list_models())
def test_every_registered_model_keeps_the_contract(name: str) -> None:
    assert len(check_predictor(name)) == len(CHECKS)
