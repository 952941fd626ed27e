from __future__ import annotations

from dataclasses import replace

import pytest

import sq_imputer as sqi
from sq_imputer.testing import CHECKS, check_predictor

SHORTER = {"stem": {"steps": 100, "lr": 5e-3, "n_samples": 4}}  # a checked model is fitted seven times


@pytest.mark.parametrize("name", sqi.list_models())
def test_every_registered_model_keeps_the_contract(name: str, toy_slides) -> None:  # which keep their features
    config = replace(sqi.get_model(name).Config.small(), **SHORTER.get(name, {}))
    assert len(check_predictor(name, config, slides=toy_slides)) == len(CHECKS)
