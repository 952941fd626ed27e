"""What a fit of `target="triplex_legacy"` is taught, and what it is measured by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.contract import Batch
from sq_imputer.predictor import taught
from sq_imputer.predictor.calibrate import Part
from sq_imputer.predictor.held import hold
from sq_imputer.target import LEGACY, LEGACY_UNIT

GENES = ["NUC1", "NUC2", "GLD1", "STR1", "HK1"]
PLAN = sqi.Plan(device="cpu", progress=False, seed=3)


@pytest.fixture
def slide(section):
    return sqi.Slide.from_sdata(section, target=LEGACY).with_genes(GENES, LEGACY_UNIT)


def neighbors(slide, rows) -> np.ndarray:
    """Means over rows that lie a pitch apart, one by one; the lattice of the toy is hexagonal, its pitch 100 µm."""
    xy, y = slide.xy_um[rows], slide.expression[rows]
    return np.stack([y[np.linalg.norm(xy - place, axis=1) < 120].mean(axis=0) for place in xy])


def test_rows_are_taught_the_mean_of_themselves_and_the_measured_rows_beside_them(slide):
    train = np.random.default_rng(0).random(len(slide)) < 0.6
    rows = np.flatnonzero(train)
    [found] = taught.of([Part(slide, train)])
    np.testing.assert_allclose(found.expression[rows], neighbors(slide, rows), rtol=1e-5)
    np.testing.assert_array_equal(found.expression[~train], slide.expression[~train])
    assert np.abs(found.expression[rows] - slide.expression[rows]).max() > 0.1
    by_part = slide.take(rows)  # as folds and blocks cut it
    np.testing.assert_allclose(taught.of([by_part])[0].expression, found.expression[rows], rtol=1e-6)


def test_what_was_left_out_is_no_part_of_what_is_taught(slide):
    train = np.arange(len(slide)) % 2 == 0
    other = slide.expression.copy()
    other[~train] = 99
    [one], [two] = (taught.of([Part(s, train)]) for s in (slide, replace(slide, expression=other)))
    np.testing.assert_array_equal(one.expression[train], two.expression[train])


def test_batches_have_what_is_taught_also_of_pixels_in_memory(slide):
    nsl = sqi.get_model("nsl")()
    nsl.genes = slide.genes
    for source in (slide, *hold(nsl, [slide], 100, shown=False)):
        [found] = taught.of([source])
        read = Batch.cat(list(found.batches(nsl.needs, 7, rows=np.arange(20))))
        assert torch.equal(read.expression, torch.from_numpy(found.expression[read.index.numpy()]))


def test_other_targets_are_taught_what_was_measured(toy_slides):
    assert taught.of(toy_slides) == list(toy_slides)


def test_a_model_learns_means_and_its_error_is_of_what_was_measured(slide):
    """Its weights are those of a fit on means; the rows that size its error are as they were measured."""
    config = {"size_px": 32, "context_um": (), "epochs": 3, "hidden": 8, "members": 2}
    mlp = sqi.get_model("mlp")
    legacy = mlp(mlp.Config(**config)).fit(slide, PLAN)
    means = replace(slide, expression=slide.smoothed(np.arange(len(slide))), target=sqi.Target())
    plain = mlp(mlp.Config(**config)).fit(means, PLAN)
    for name, value in legacy.named_parameters():
        assert torch.equal(value, dict(plain.named_parameters())[name])
    np.testing.assert_allclose(legacy.expression_mean, means.expression.mean(axis=0), rtol=1e-5)
    assert (legacy.std_added > plain.std_added).all()  # single spots lie farther from a map than means do


def test_ridge_sizes_its_error_by_rows_and_not_by_the_means_that_it_was_taught(slide):
    ridge = sqi.get_model("ridge")
    small = ridge.Config(size_px=32, context_um=())
    legacy = ridge(small).fit(slide, PLAN)
    means = replace(slide, expression=slide.smoothed(np.arange(len(slide))), target=sqi.Target())
    plain = ridge(small).fit(means, PLAN)
    one, two = (model.predict(slide, device="cpu") for model in (legacy, plain))
    assert torch.equal(one.mean, two.mean) and (one.std.mean(dim=0) > 1.2 * two.std.mean(dim=0)).all()
