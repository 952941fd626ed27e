from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

import sq_imputer as sqi
from sq_imputer.models import mlp, ridge

PLAN = sqi.Plan(device="cpu", progress=False)
NOISE = 0.3


def config(**changes) -> mlp.Config:
    base = mlp.Config(context_um=(), per_section=False, hidden=64, members=4, dropout=0.1, weight_decay=0.01, lr=5e-3)
    return replace(base, **{"epochs": 35, "calibration": 2, **changes})


def bent(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, expression of three genes, and their truth: two bends that no line follows, and a line."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    truth = np.column_stack([np.abs(x[:, 0]), x[:, 1] * x[:, 2], x[:, 3]]) * [2, 1, 1] + [5, 0, -3]
    return x, truth + NOISE * rng.normal(size=truth.shape), truth


@pytest.fixture(scope="module")
def train(arrays):
    x, y, _ = bent(800, 0)
    return arrays(y, features=x)


@pytest.fixture(scope="module")
def fitted(train) -> mlp.Model:
    return mlp.Model(config()).fit(train, PLAN)


@pytest.fixture(scope="module")
def fresh(fitted, arrays):
    """Prediction, measurement and truth of rows that were not trained on."""
    x, y, truth = bent(1000, 1)
    return fitted.predict(arrays(None, features=x), device="cpu"), y, truth


def test_it_learns_bends_that_a_line_cannot(fresh, train, arrays) -> None:
    x, _, truth = bent(1000, 1)
    line = ridge.Model(ridge.Config(context_um=(), per_section=False)).fit(train, PLAN)
    straight = line.predict(arrays(None, features=x), device="cpu").mean.numpy()
    mean = fresh[0].mean.numpy()
    for gene in (0, 1):
        assert pearsonr(mean[:, gene], truth[:, gene])[0] > 0.85
        assert pearsonr(straight[:, gene], truth[:, gene])[0] < 0.3
    assert pearsonr(mean[:, 2], truth[:, 2])[0] > 0.98


def test_std_covers_fresh_measurements(fresh) -> None:
    prediction, y, _ = fresh
    inside = np.abs(prediction.mean.numpy() - y) < 1.96 * prediction.std.numpy()
    assert (inside.mean(axis=0) > 0.85).all() and (inside.mean(axis=0) < 0.99).all()


def test_members_differ_and_the_mean_beats_the_usual_one(fitted, fresh, train, arrays) -> None:
    x, _, truth = bent(1000, 1)
    seen = next(fitted.seen(arrays(None, features=x), 1000)).features
    with torch.no_grad():
        said = (fitted.expression_mean + fitted.expression_std * fitted.members(seen)).numpy()
    assert said.shape == (4, 1000, 3)
    np.testing.assert_allclose(said.mean(axis=0), fresh[0].mean.numpy(), rtol=1e-4, atol=1e-4)
    assert min(np.abs(said[i] - said[j]).mean() for i in range(4) for j in range(i)) > 0.02
    errors = ((said - truth) ** 2).mean(axis=(1, 2))
    assert ((fresh[0].mean.numpy() - truth) ** 2).mean() < errors.mean()


def test_std_is_the_spread_of_the_members_and_the_noise(fitted, fresh, arrays) -> None:
    seen = next(fitted.seen(arrays(None, features=bent(1000, 1)[0]), 1000)).features
    with torch.no_grad():
        spread = fitted.expression_std * fitted.members(seen).std(dim=0, unbiased=False)
    std = (spread**2 + fitted.std_added**2).sqrt()
    torch.testing.assert_close(fresh[0].std, std, rtol=1e-4, atol=1e-5)


def test_std_grows_away_from_the_training_rows(fitted, arrays) -> None:
    steps = np.array([0, 3, 10])[:, None] * np.ones(5)
    std = fitted.predict(arrays(None, features=steps), device="cpu").std
    assert (std[1] > std[0]).all() and (std[2] > std[1]).all()


def test_the_noise_is_the_error_on_rows_that_were_left_out(arrays) -> None:
    """Targets that nothing explains: memorizing them makes the training error small, and must not make the noise so."""
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(120, 2)), features=rng.normal(size=(120, 30)))
    model = mlp.Model(config(dropout=0.0, weight_decay=0.0, validation=0.0)).fit(source, PLAN)
    trained = model.predict(source, device="cpu").mean.numpy() - source.expression
    assert (trained.std(axis=0) < 0.5).all()
    assert (model.std_added > 0.8).all()


def test_without_a_measured_error_the_noise_is_all_that_a_gene_varies(train) -> None:
    model = mlp.Model(config(epochs=2, calibration=0)).fit(train, PLAN)
    assert torch.equal(model.std_added, model.expression_std)


def test_dropout_is_off_when_predicting(fitted, train) -> None:
    fitted.train()
    one, two = (fitted.predict(train, device="cpu").mean for _ in range(2))
    assert torch.equal(one, two)


def test_the_number_of_members_is_that_of_the_config(train) -> None:
    model = mlp.Model(config(members=3, epochs=1, hidden=7)).fit(train, PLAN)
    assert model.hidden.weight.shape == (3, 5, 7) and model.out.weight.shape == (3, 7, 3)


def test_one_member_has_no_spread(train) -> None:
    model = mlp.Model(config(members=1, epochs=2)).fit(train, PLAN)
    std = model.predict(train, device="cpu").std
    torch.testing.assert_close(std, model.std_added.expand_as(std))


def test_linear_is_members_side_by_side() -> None:
    maps, x = mlp.Linear(3, 4, 2, scale=1.0), torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(maps(x), torch.stack([x[m] @ maps.weight[m] + maps.bias[m] for m in range(3)]))
