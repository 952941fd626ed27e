"""Labels of whole slides and paired comparisons, planted and shuffled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer import bench


def bags(n: int, shift: float, few: bool = False) -> tuple[dict, dict]:
    """Slides of 30 crops; of every other one all crops, or 6 of them, are shifted."""
    rng = np.random.default_rng(0)
    features, label = {}, {}
    for k in range(n):
        x = rng.normal(size=(30, 5))
        x[: 6 if few else 30, 0] += shift * (k % 2)
        features[f"S{k}"], label[f"S{k}"] = x, ("wild", "mutated")[k % 2]
    return features, label


def test_a_planted_label_is_told_and_shuffled_ones_are_not():
    features, label = bags(24, 2.0)
    found = bench.label_probe(features, label).iloc[0]
    assert found["auroc"] > 0.95 and found["low"] > 0.8 and found["positive"] == "wild"
    chance = []
    for seed in range(6):
        mixed = np.random.default_rng(seed).permutation(list(label.values()))
        chance.append(bench.label_probe(features, dict(zip(label, mixed, strict=True)))["auroc"][0])
    assert abs(np.mean(chance) - 0.5) < 0.2


def test_attention_finds_a_label_that_a_fifth_of_the_crops_tell():
    features, label = bags(16, 5.0, few=True)
    assert bench.label_probe(features, label, head="attention")["auroc"][0] > 0.9


def test_slides_of_a_patient_are_left_out_together():
    """Features that tell the patient and nothing else: known patients would give the label away."""
    rng = np.random.default_rng(2)
    features, label, group = {}, {}, {}
    for patient in range(12):
        middle = 5 * rng.normal(size=20)
        for k in range(3):
            name = f"{patient}-{k}"
            features[name] = middle + 0.1 * rng.normal(size=(10, 20))
            label[name], group[name] = str(patient % 2), str(patient)
    assert bench.label_probe(features, label, group=group)["auroc"][0] < 0.8
    assert bench.label_probe(features, label)["auroc"][0] > 0.9


def test_one_label_or_one_patient_is_too_little():
    features, label = bags(6, 1.0)
    with pytest.raises(sqi.BadInput, match="expected two"):
        bench.label_probe(features, dict.fromkeys(label, "same"))
    with pytest.raises(sqi.BadInput, match="two patients or more"):
        bench.label_probe(features, label, group={name: label[name] for name in label})


def scores(shift: float, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [(s, g, shift + 0.05 * rng.normal() + k / 10) for k, s in enumerate("ABCDEF") for g in ("G1", "G2")]
    return pd.DataFrame(rows, columns=["section", "gene", "pearson"])


def test_a_difference_is_paired_by_section_so_that_sections_cancel():
    found = bench.compare(scores(0.3), scores(0.2, seed=1)).iloc[0]
    assert found["difference"] == pytest.approx(found["one"] - found["other"])
    assert found["low"] > 0.02 and found["n_sections"] == 6 and found["n_pairs"] == 12
    nothing = bench.compare(scores(0.3), scores(0.3, seed=2)).iloc[0]
    assert nothing["low"] < 0 < nothing["high"]


def test_only_common_rows_are_compared_and_doubled_ones_are_refused():
    found = bench.compare(scores(0.3), scores(0.2)[lambda t: t["section"] != "A"]).iloc[0]
    assert found["n_sections"] == 5 and found["difference"] == pytest.approx(0.1)
    with pytest.raises(sqi.BadInput, match="several rows"):
        bench.compare(pd.concat([scores(0.1)] * 2), scores(0.1))
    with pytest.raises(sqi.BadInput, match="no row in common"):
        bench.compare(scores(0.1), scores(0.1).replace({"section": dict(zip("ABCDEF", "UVWXYZ", strict=True))}))
    with pytest.raises(sqi.MissingKey, match="no column 'mse'"):
        bench.compare(scores(0.1), scores(0.1), metric="mse")


def test_the_area_is_that_of_scikit_learn_ties_included():
    from sklearn.metrics import roc_auc_score

    from sq_imputer.bench._labels import _auroc

    rng = np.random.default_rng(3)
    y, said = rng.integers(0, 2, 60), np.round(rng.normal(size=60), 1)
    area, low, high = _auroc(y, said, 0)
    assert area == pytest.approx(roc_auc_score(y, said)) and low < area < high
