"""Numbers of batch effects, where the effect is planted and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.scores.batches import batch_table

SECTION = np.repeat(["A", "B", "C"], 100)
LABEL = np.tile(["tumor", "stroma"], 150)


def features(of_section: float, of_label: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    codes = np.unique(SECTION, return_inverse=True)[1]
    x = rng.normal(size=(300, 10))
    return x + of_section * rng.normal(size=(3, 10))[codes] + of_label * (LABEL == "tumor")[:, None]


def numbers(**planted) -> dict[str, float]:
    table = batch_table(features(**planted), SECTION, LABEL)
    return dict(zip(table["metric"], table["value"], strict=True))


def test_features_that_do_not_know_the_section_are_at_chance():
    table = batch_table(features(0, 0), SECTION)
    found = table.set_index("metric")
    assert found["value"]["neighbor_mixing"] == pytest.approx(1, abs=0.06)
    assert found["value"]["section_probe"] == pytest.approx(1 / 3, abs=0.09)
    assert found["value"]["variance_of_section"] < 3 * found["chance"]["variance_of_section"]
    assert abs(found["value"]["silhouette_section"]) < 0.02


def test_features_of_the_section_are_found_by_all_four():
    none, strong = numbers(of_section=0, of_label=0), numbers(of_section=3, of_label=0)
    assert strong["section_probe"] > 0.98 and strong["neighbor_mixing"] < 0.05
    assert strong["variance_of_section"] > 0.5 > none["variance_of_section"]
    assert strong["silhouette_section"] > 0.3


def test_labels_that_lie_together_are_told_from_sections_that_do():
    found = numbers(of_section=0, of_label=3)
    assert found["silhouette_label"] > 0.4 and abs(found["silhouette_section"]) < 0.02


def test_the_share_of_variance_is_that_of_an_analysis_of_variance():
    x = np.random.default_rng(1).normal(size=(300, 3)) + np.unique(SECTION, return_inverse=True)[1][:, None]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    between = sum(100 * x[SECTION == name].mean(axis=0) ** 2 for name in "ABC").sum() / (x**2).sum()
    found = batch_table(x, SECTION).set_index("metric")["value"]["variance_of_section"]
    assert found == pytest.approx(between, rel=1e-6)


def test_one_section_has_no_batches():
    with pytest.raises(sqi.BadInput, match="2 sections"):
        batch_table(np.zeros((5, 2)), ["A"] * 5)
