"""The picture of what scans are like."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey

RGB = ("red", "green", "blue")


@pytest.fixture
def table() -> pd.DataFrame:
    found = {"section": ["a", "b$"], "mpp": [0.5, 2.0], "resolved_mpp": [1.5, 2.0], "tissue": [0.4, np.nan]}
    found |= {f"white_{c}": [240.0, 200.0] for c in RGB}
    found |= {f"{stain}_{c}": [0.6, np.nan] for stain in ("hematoxylin", "eosin") for c in RGB}
    return pd.DataFrame({**found, "blocks": [0.0, 0.3]})


def test_it_draws_a_row_per_section_on_new_or_given_axes(table):
    axes = sqi.pl.quality(table)
    assert [one.get_text() for one in axes[0].get_yticklabels()] == ["a", r"b\$"]
    np.testing.assert_array_equal(axes[0].lines[1].get_xdata(), [1.5, 2.0])
    faces = [patch.get_facecolor() for patch in axes[1].patches]
    assert faces[0][:3] == pytest.approx((240 / 255,) * 3) and faces[3][3] == 0  # what is not known is left empty
    given = plt.subplots(1, 3)[1]
    assert list(sqi.pl.quality(table, axes=given)) == list(given)
    plt.close("all")


def test_other_tables_and_other_numbers_of_axes_are_refused(table):
    with pytest.raises(MissingKey, match=r"no column .*eosin_red.*pp\.quality"):
        sqi.pl.quality(table.drop(columns="eosin_red"))
    with pytest.raises(BadInput, match="axes are 2; expected 3"):
        sqi.pl.quality(table, axes=plt.subplots(1, 2)[1])
    plt.close("all")
