"""AGL: the cut-off is learned by an exact gradient, moves where it should, and leaves the ranking alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import sq_imputer as sqi
from sq_imputer.models import agl

PLAN = sqi.Plan(device="cpu", progress=False)
CONFIG = agl.Config(steps=2, step_size=0.5, temperature=0.1)


def small(dtype=torch.float64) -> tuple[agl.Net, agl.Rows, agl.Rows, agl.Genes]:
    """A small network, inner and outer rows, three primary and eight auxiliary genes."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(40, 4)))
    y = x @ torch.from_numpy(rng.normal(size=(4, 11))) + torch.from_numpy(rng.normal(size=(40, 11)))
    rows = agl.Rows(x.to(dtype), ((y - y.mean(0)) / y.std(0)).to(dtype))
    rank = torch.cat([torch.full((3,), -np.inf), (torch.arange(8) + 0.5) / 8]).to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = agl.Net(4, 3, 11).to(dtype)
    return net, rows.some(slice(20)), rows.some(slice(20, 40)), agl.Genes(torch.arange(11) < 3, rank)


@pytest.mark.parametrize("loss", ["pearson", "squared"])
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_v1_the_gradient_of_the_cutoff_is_that_of_finite_differences(steps, loss):
    net, inner, outer, genes = small()
    config, cutoff, step = replace(CONFIG, steps=steps, loss=loss), torch.tensor(0.6, dtype=torch.float64), 1e-4
    found = agl.hypergradient(net, inner, outer, genes, cutoff, config)
    ends = [agl.after_steps(net, inner, outer, genes, cutoff + way * step, config) for way in (1, -1)]
    torch.testing.assert_close(found, (ends[0] - ends[1]) / (2 * step), rtol=1e-2, atol=1e-10)
    assert found.abs() > 1e-6


def test_without_a_shared_layer_the_gradient_is_zero():
    net, inner, outer, genes = small()
    net.shared = nn.Identity()
    net.head = nn.Linear(4, 11).double()
    assert agl.hypergradient(net, inner, outer, genes, torch.tensor(0.6, dtype=torch.float64), CONFIG) == 0


def test_v2_a_cold_cutoff_is_the_hard_one_and_weights_count_genes():
    rank = torch.cat([torch.full((3,), -np.inf), (torch.arange(1000) + 0.5) / 1000])
    genes = agl.Genes(torch.arange(1003) < 3, rank)
    hard = genes.weights(torch.tensor(0.3), 1e-6)
    assert hard.sum() == 303 and (hard[:303] == 1).all()
    assert genes.weights(torch.tensor(0.3), 0.02).sum() - 3 == pytest.approx(300, rel=0.01)


def planted(seed: int, n: int) -> tuple[agl.Rows, agl.Rows, agl.Rows]:
    """Noisy primary genes of 3 latents, 12 auxiliary genes of the same, 28 of others: to fit, to choose, to test."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n + 480, 30))
    latents, others = x @ rng.normal(size=(30, 3)) / 30**0.5, x @ rng.normal(size=(30, 28)) / 30**0.5
    shared = latents @ rng.normal(size=(3, 15))
    noise = np.repeat([2, 0.5, 0.5], [3, 12, 28])
    y = np.concatenate([shared, others], axis=1) + rng.normal(size=(len(x), 43)) * noise
    rows = agl.Rows(*(torch.from_numpy(part.astype(np.float32)) for part in (x, (y - y[:n].mean(0)) / y[:n].std(0))))
    return rows.some(slice(n)), rows.some(slice(n, n + 80)), rows.some(slice(n + 80, None))


GENES = agl.Genes(torch.arange(43) < 3, torch.cat([torch.full((3,), -np.inf), (torch.arange(40) + 0.5) / 40]))


def scores(seed: int, n: int, config: agl.Config) -> tuple[dict[str, float], list[float]]:
    """Correlation of primary genes on test rows, by cut-offs that are given and by the learned one; how that went."""
    fit, choose, test = planted(seed, n)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = agl.Net(30, 3, 43, nn.Identity())
    cutoffs = {"none": torch.tensor(-1.0), "true": torch.tensor(0.3), "all": torch.tensor(2.0)}
    _, cutoffs["learned"], went = agl.alternated(net, fit, choose, GENES, config, PLAN)
    nets = {name: agl.trained(net, fit, GENES, cutoff, config, PLAN) for name, cutoff in cutoffs.items()}
    return {name: agl.correlation(one, test, GENES) for name, one in nets.items()}, went


TOY = agl.Config(
    **{"steps": 3, "lr": 1e-2, "lr_cutoff": 4e-2, "temperature": 0.05},
    **{"epochs": 40, "batch_size": 20, "outer_batch": 80},
)


def test_v3_few_rows_and_helpful_genes_the_cutoff_finds_its_way_down():
    found, went = zip(*(scores(seed, 60, TOY) for seed in range(4)), strict=True)
    mean = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert mean["true"] > max(mean["none"], mean["all"])
    assert mean["learned"] > max(mean["none"], mean["all"])
    assert all(path[-1] < path[0] == 0.95 for path in went)


def test_v4_v5_training_moves_neither_ranking_nor_cutoff_and_flat_rows_tell_nothing():
    net, inner, outer, genes = small(torch.float32)
    kept, cutoff = copy.deepcopy(genes), torch.tensor(0.6)
    config = replace(CONFIG, epochs=3, outer_batch=10)
    agl.trained(net, inner, genes, cutoff, config, PLAN)
    _, moved, went = agl.alternated(net, inner, outer, genes, config, PLAN)
    assert torch.equal(kept.rank, genes.rank) and cutoff == 0.6 and moved != config.start and went[0] == config.start
    flat = agl.Rows(outer.x, outer.y.clone().index_fill_(1, torch.arange(3), 1.0))  # no primary gene varies
    _, still, _ = agl.alternated(net, inner, flat, genes, config, PLAN)
    assert still == torch.tensor(config.start)


@pytest.fixture(scope="module")
def source(arrays):
    """150 rows of 20 genes, of which all but the last five are made of the features."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(150, 6))
    y = x @ rng.normal(size=(6, 20)) + rng.normal(size=(150, 20)) + 4
    y[:, 15:] = rng.normal(size=(150, 5)) + 4
    return arrays(y, features=x, genes=[f"G{k}" for k in range(20)])


def config(**changes) -> agl.Config:
    return agl.Config(
        **{"context_um": (), "per_section": False, "primary": 6, "epochs": 30, "calibration": 0, **changes}
    )


def test_v6_the_fitted_model_keeps_the_way_of_the_cutoff_and_the_control_without_auxiliary_genes(source):
    model = agl.Model(config(lr=1e-2)).fit(source, PLAN)
    said = model.history
    assert len(said["cutoff"]) == 31 and said["cutoff"][-1] == pytest.approx(float(model.cutoff))
    assert set(said["kept"]) <= {f"G{k}" for k in range(6, 20)}
    mean = model.predict(source, device="cpu").mean.numpy()
    r = [np.corrcoef(mean[:, k], source.expression[:, k])[0, 1] for k in range(6)]
    assert np.mean(r) > 0.7 and np.isfinite(mean).all()
    np.testing.assert_allclose(mean.mean(axis=0), source.expression.mean(axis=0), atol=1e-3)  # in the unit
    full = agl.Model(config(lr=1e-2)).fit(source, replace(PLAN, calibration=2))
    assert set(full.history["control"]) == {"none", "all", "kept"} and torch.equal(full.slope, model.slope)
    again = full.for_parts()
    assert again.config.cutoff == float(full.cutoff) and full.config.cutoff is None


def test_a_ranking_of_the_users_own_comes_first_and_names_auxiliary_genes_alone(source):
    model = agl.Model(config(ranking=("G19", "G7"), cutoff=2 / 14)).fit(source, PLAN)
    assert model.history["kept"] == ["G19", "G7"]
    with pytest.raises(sqi.BadInput, match="ranking names 'G1', which are no auxiliary genes"):
        agl.Model(config(ranking=("G1",))).fit(source, PLAN)


def test_dispersion_is_high_where_a_gene_varies_more_than_others_as_high():
    rng = np.random.default_rng(0)
    y = np.log1p(rng.poisson(3.0, size=(400, 60)))
    y[:, 7] = np.log1p(rng.poisson(rng.gamma(0.5, 6.0, size=400)))
    assert agl.dispersion(y).argmax() == 7 and np.isfinite(agl.dispersion(np.zeros((5, 3)))).all()
