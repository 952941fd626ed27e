from __future__ import annotations

import numpy as np
import pytest
from widget_names import GENES, QUICK

import sq_imputer as sqi
from sq_imputer.widget._requests import Request
from sq_imputer.widget.session import Session


@pytest.fixture(scope="package")
def home():
    """A session whose section was predicted out of fold. Shared: nothing more is written to it."""
    session = Session(sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"])
    job = session.predict(Request("ridge", GENES, further=QUICK))
    assert job.wait(60) and job.ok, job.error
    return session


@pytest.fixture
def square():
    """Corners of a square of 200 µm in the middle of the tissue, which is 800 µm wide."""
    return 400.0 + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 100.0
