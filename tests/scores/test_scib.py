"""Numbers of scib-metrics, where it is installed: sections that are mixed, and sections that are apart."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.scores.batches import batch_table

SECTION = np.repeat(["A", "B"], 120)
LABEL = np.tile(["tumor", "stroma", None], 80).astype(object)


def features(of_section: float) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(240, 6))
    x[:, 0] += 6 * (LABEL == "tumor")
    return x + of_section * (SECTION == "A")[:, None]


def test_without_it_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    with pytest.raises(sqi.BadInput, match=r"sq-imputer\[scib\]"):
        batch_table(features(0), SECTION, scib=True)


def test_mixed_sections_are_at_chance_and_others_are_told_apart():
    pytest.importorskip("scib_metrics", reason="scib-metrics is an extra: sq-imputer[scib]")
    mixed, apart = (
        batch_table(features(of_section), SECTION, LABEL, scib=True).set_index("metric") for of_section in (0, 5)
    )
    assert mixed["value"]["scib_ilisi"] == pytest.approx(mixed["chance"]["scib_ilisi"], abs=0.06)
    assert apart["value"]["scib_ilisi"] < 0.05 and mixed["chance"]["scib_ilisi"] == pytest.approx(1)
    assert mixed["value"]["scib_silhouette_batch"] > 0.9 > 0.6 > apart["value"]["scib_silhouette_batch"]
    assert mixed["value"]["scib_silhouette_label"] > 0.55 and mixed["value"]["scib_graph_connectivity"] > 0.9
    again = batch_table(features(0), SECTION, LABEL, scib=True).set_index("metric")
    assert again["value"].equals(mixed["value"])
