from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import ridge
from sq_imputer.predictor import statistics


def test_statistics_are_those_of_the_measured_rows_of_all_sources(arrays, monkeypatch) -> None:
    """However many rows are taken at a time."""
    monkeypatch.setattr(statistics, "MANY", 7)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)) * [1, 2, 3, 4] + 100, rng.normal(size=(60, 2)) + 5
    x[:, 3] = 7.0
    measured = np.arange(60) % 3 > 0
    sources = [arrays(y[part], features=x[part], measured=measured[part]) for part in (slice(0, 25), slice(25, 60))]
    model = ridge.Model(ridge.Config(context_um=(), per_section=False)).fit(
        sources, sqi.Plan(device="cpu", progress=False)
    )
    for name, values in (("expression", y), ("feature", x)):
        seen = values[measured].astype("f4").astype(float)
        np.testing.assert_allclose(getattr(model, f"{name}_mean").numpy(), seen.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(getattr(model, f"{name}_std").numpy(), seen.std(axis=0), rtol=1e-6)
    assert model.feature_std[3] == 0


def test_what_does_not_vary_is_divided_by_1() -> None:
    assert statistics.safe(np.array([2.0, 0.0, 1e-9])).tolist() == [2.0, 1.0, 1.0]


def test_crops_of_one_pixel_have_no_spread() -> None:
    crops = torch.tensor([[[[255]], [[127]], [[0]]]], dtype=torch.uint8)
    summary = statistics.summary(sqi.Batch(torch.arange(1), crops=crops))
    torch.testing.assert_close(summary, torch.tensor([[0, np.log10(2), np.log10(256), 0, 0, 0]], dtype=torch.float32))


def test_a_block_of_neighbors_is_summed_up_over_all_of_it() -> None:
    rng = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, (2, 9, 3, 4, 4), dtype=torch.uint8, generator=rng)
    together = crops.permute(0, 2, 1, 3, 4).reshape(2, 3, 36, 4)
    one, two = (statistics.summary(sqi.Batch(torch.arange(2), crops=part)) for part in (crops, together))
    torch.testing.assert_close(one, two)
    features = torch.randn(2, 9, 5, generator=rng)
    assert torch.equal(statistics.summary(sqi.Batch(torch.arange(2), features=features)), features.mean(dim=1))


@pytest.mark.parametrize("per_section", [True, False])
def test_another_stain_is_graded_though_features_are_scaled_within_their_section(arrays, per_section) -> None:
    rng = np.random.default_rng(0)
    known = [rng.normal(size=(80, 6)) + 0.1 * rng.normal(size=6) for _ in range(3)]
    names = ("A", "B", "C")
    sources = [arrays(x[:, :2], features=x, section=name) for name, x in zip(names, known, strict=True)]
    config = ridge.Config(context_um=(), per_section=per_section)
    model = ridge.Model(config).fit(sources, sqi.Plan(device="cpu", progress=False))
    assert model.provenance["ood_from"] == "left-out sections"
    moved = [rng.normal(size=(80, 6)) + shift for shift in (0, 1, 2, 4)]
    ood = [model.predict(arrays(None, features=x), device="cpu").ood for x in moved]
    beyond = [float((one > 0.95).float().mean()) for one in ood]
    assert beyond[0] < 0.15 < 0.3 < beyond[1] < beyond[2] <= beyond[3] == 1


def test_parts_are_individuals_else_sections_else_blocks(arrays) -> None:
    y = np.zeros((30, 1))
    of = {"left-out individuals": ("AB", "12"), "left-out sections": ("AA", "12"), "left-out blocks": ("A", "1")}
    for kind, (groups, sections) in of.items():
        sources = [arrays(y, features=y, group=g, section=s) for g, s in zip(groups, sections, strict=True)]
        assert statistics.kind_of_parts(sources) == kind
        assert np.bincount(statistics.parts_of(sources)).tolist() == ([6] * 5 if kind.endswith("blocks") else [30, 30])
    few = [arrays(y[:5], features=y[:5])]
    assert statistics.kind_of_parts(few) == "the training rows themselves"


def test_long_rows_are_looked_at_a_few_at_a_time() -> None:
    """Windows of 200,000 bp with three tracks have 2.8 MB each: 256 of them would fill most of a gigabyte."""
    sizes = {150_000: 256, 2_800_000: 23, 10**9: 1}
    assert {row: statistics.rows_at_once(SimpleNamespace(bytes_per_row=row)) for row in sizes} == sizes
