from __future__ import annotations

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import bilinear

PLAN = sqi.Plan(device="cpu", progress=False)


def moments(x, z):
    return x.T @ x, x.T @ z, z.pow(2).sum(dim=0)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_the_matrix_is_ridge_on_the_kronecker_product() -> None:
    x, v, z = drawn(30, 4), drawn(7, 3, seed=1), drawn(30, 7, seed=2)
    [weight] = bilinear.solve(x.T @ x, x.T @ z @ v, v.T @ v, [0.5])
    both = torch.kron(x, v)  # rows are pairs of spot and gene
    size = (both.T @ both).trace() / 4
    whole = torch.linalg.solve(both.T @ both + 0.5 * size * torch.eye(12), both.T @ z.reshape(-1))
    torch.testing.assert_close(weight, whole.reshape(4, 3))


def test_genes_and_rows_are_left_out_as_if_fitted_without_them() -> None:
    x, v, z = drawn(40, 4), drawn(10, 3, seed=1), drawn(40, 10, seed=2)
    halves, parts = (slice(0, 20), slice(20, 40)), [np.arange(5), np.arange(5, 10)]
    folds = [moments(x[h], z[h]) for h in halves]
    found = bilinear.left_out([bilinear.Split.of(folds, k) for k in range(2)], v, parts, [0.3, 3.0])
    error = torch.zeros(2, dtype=torch.float64)
    for test, train in (halves, halves[::-1]):
        for out, kept in (parts, parts[::-1]):
            xt, vk = x[train], v[kept]
            weights = bilinear.solve(xt.T @ xt, xt.T @ z[train][:, kept] @ vk, vk.T @ vk, [0.3, 3.0])
            error += torch.stack([(x[test] @ w @ v[out].T - z[test][:, out]).pow(2).sum() for w in weights])
    torch.testing.assert_close(found, 1 - error / z.pow(2).sum())


@pytest.fixture(scope="module")
def planted(arrays):
    """60 genes that are made of features as their vectors say, with noise: sources, vectors and features of rows."""
    rng = np.random.default_rng(3)
    names, vectors = [f"G{k}" for k in range(60)], rng.normal(size=(60, 4))
    x, matrix = rng.normal(size=(300, 5)), rng.normal(size=(5, 4))
    y = x @ matrix @ vectors.T + rng.normal(size=(300, 60)) + 5
    return arrays(y, features=x, genes=names), names, vectors.astype(np.float32), x, y


def fit(planted, vectors) -> bilinear.Model:
    source, names, *_ = planted
    knowledge = sqi.GeneKnowledge(tuple(names), vectors)
    return bilinear.Model(bilinear.Config(context_um=(), per_section=False, calibration=2), knowledge).fit(source, PLAN)


def test_vectors_explain_genes_left_out_and_permuted_ones_do_not(planted) -> None:
    model = fit(planted, planted[2])
    assert model.history["left_out_genes_r2"] > 0.5
    assert model.history["left_out_genes_r2_permuted"] < 0.1
    other = fit(planted, np.random.default_rng(9).normal(size=(60, 4)).astype(np.float32))
    assert other.history["left_out_genes_r2"] < 0.1


def test_fits_that_measure_the_error_take_the_penalty_and_choose_nothing(planted, monkeypatch) -> None:
    chosen = []
    choose = bilinear.Model._choose
    monkeypatch.setattr(bilinear.Model, "_choose", lambda *args: chosen.append(choose(*args)) or chosen[-1])
    model = fit(planted, planted[2])
    assert len(chosen) == 1 and model.for_parts().config.penalty == model.history["penalty"]
    assert model.config.penalty is None and model.fresh().config.penalty is None


def test_a_gene_of_which_nothing_is_known_is_predicted_by_its_mean(planted, arrays) -> None:
    source, names, vectors, x, y = planted
    knowledge = sqi.GeneKnowledge(tuple(names[1:]), vectors[1:])
    model = bilinear.Model(bilinear.Config(context_um=(), per_section=False, calibration=2), knowledge)
    with pytest.warns(UserWarning, match="G0"):
        model.fit(source, PLAN)
    mean = model.predict(source, device="cpu").mean.numpy()
    np.testing.assert_allclose(mean[:, 0], y[:, 0].mean(), atol=1e-4)
    assert np.corrcoef(mean[:, 1], y[:, 1])[0, 1] > 0.5


def test_nothing_known_of_any_gene_is_an_error(planted) -> None:
    knowledge = sqi.GeneKnowledge(("X", "Y"), np.eye(2, dtype=np.float32))
    with pytest.raises(sqi.BadInput):
        bilinear.Model(bilinear.Config(context_um=(), per_section=False), knowledge).fit(planted[0], PLAN)
