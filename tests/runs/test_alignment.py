"""What the verdict says."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.runs.alignment import _verdict
from sq_imputer.runs.turned import AS_IT_IS, around

FINE = {"within": 10.0, "near": 0.5, "edge": False, "spread": 8.0, "apart": 100.0, "search_um": 500.0, "p": 0.025}
TURN = around(AS_IT_IS, "scale", 0.1, np.zeros(2))


@pytest.mark.parametrize(
    ("turn", "changes", "verdict", "reason"),
    [
        (AS_IT_IS, {}, "aligned", "image and expression lie on each other within 10 µm"),
        (AS_IT_IS, {"near": 0.0}, "off", "off by (+30, -40) µm, uncertain by 8 µm"),
        (TURN, {}, "off", "the shapes should be scaled by 1.11, then off by (+30, -40) µm, uncertain by 8 µm"),
        (AS_IT_IS, {"p": 0.2}, "cannot be told", "no place within 500 µm"),
        (AS_IT_IS, {"edge": True}, "cannot be told", "pass a larger search_um"),
        (AS_IT_IS, {"spread": 300.0}, "cannot be told", "uncertain by 300 µm"),
    ],
)
def test_every_verdict_has_its_reason(turn, changes, verdict, reason) -> None:
    found, said = _verdict(turn, np.array([30.0, -40.0]), **{**FINE, **changes})
    assert found == verdict and reason in said
