from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.models import ridge

N = 50


@pytest.fixture
def source(arrays):
    """50 rows whose expression is a line in their features; the last ten were not measured."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 4)) * [1, 2, 3, 4] + [0, 5, 0, -5]
    y = x @ rng.normal(size=(4, 3)) + 0.1 * rng.normal(size=(N, 3))
    y[40:] = np.nan
    return arrays(y, features=x, measured=np.arange(N) < 40)


@pytest.fixture
def fitted(source) -> sqi.Predictor:
    """Ridge, fitted on that source."""
    config = ridge.Config(context_um=(), per_section=False, alpha=0.1)
    return ridge.Model(config).fit(source, sqi.Plan(device="cpu", progress=False, seed=5))


@pytest.fixture
def folder(fitted, tmp_path):
    """Where that model is saved."""
    fitted.save(tmp_path / "model")
    return tmp_path / "model"
