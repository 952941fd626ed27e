"""What `pp.quality` says of sections."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.errors import BadInput
from sq_imputer.section.slide import Slide


@pytest.fixture(scope="module")
def sections() -> dict:
    return sqi.datasets.toy(2, size_px=480, spots=12, seed=5)


def test_a_row_for_every_section_with_what_its_slide_says(sections):
    table = sqi.pp.quality(sections)
    assert list(table["section"]) == ["P1", "P2"]
    looks = Slide.from_sdata(sections["P1"]).looks
    row = table.iloc[0]
    assert row["resolved_mpp"] == looks.resolved_mpp and row["sharpness"] == pytest.approx(0.75 / looks.resolved_mpp)
    np.testing.assert_array_equal(row[["white_red", "white_green", "white_blue"]].astype(float), looks.white)
    assert 0.1 < row["tissue"] <= 1 and 0 <= row["blocks"] < 0.3
    assert np.linalg.norm(row[[f"eosin_{c}" for c in ("red", "green", "blue")]].astype(float)) == pytest.approx(1, 0.01)


def test_what_is_no_section_is_refused():
    with pytest.raises(BadInput, match="expected a SpatialData object"):
        sqi.pp.quality(3)
