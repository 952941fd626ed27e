from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

import sq_imputer as sqi
from sq_imputer.models import stem
from sq_imputer.scores import metrics

PLAN = sqi.Plan(device="cpu", progress=False)
G = 6
MIX = np.random.default_rng(5).normal(size=(G, 2)) * 0.5  # what the image leaves open moves genes together


def config(**changes) -> stem.Config:
    base = stem.Config.small()
    return replace(
        base,
        **{"context_um": (), "per_section": False, "dropout": 0.0, "n_steps": 20, "n_samples": 20}
        | {"calibration": 0, **changes},
    )


def planted(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, expression, and its mean given the features: and correlated noise around it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    mean = np.column_stack([x[:, 0], -x[:, 0], x[:, 1], x[:, 2] + x[:, 0], x[:, 3], 0.5 * x[:, 1]]) * 1.5 + 3
    noise = rng.normal(size=(n, 2)) @ MIX.T + 0.4 * rng.normal(size=(n, G))
    return x, mean + noise, mean


@pytest.fixture(scope="module")
def train(arrays):
    x, y, _ = planted(1500, 0)
    return arrays(y, features=x)


@pytest.fixture(scope="module")
def fitted(train) -> stem.Model:
    return stem.Model(config(steps=600, lr=2e-3)).fit(train, PLAN)


@pytest.fixture(scope="module")
def fresh(fitted, arrays):
    """Prediction with its samples, measurement and mean of rows that were not trained on."""
    x, y, mean = planted(150, 1)
    model = fitted.sampling(keep_samples=20)
    return model.predict(arrays(None, features=x), device="cpu"), y, mean


def unfitted(settings: stem.Config, genes: int = G, features: int = 4) -> stem.Model:
    model = stem.Model(settings)
    model.genes, model.sizes = tuple(f"G{g}" for g in range(genes)), {"features": features, "rows": 1}
    model._register_statistics()
    model.build()
    return model.eval()


def shaken(model: stem.Model) -> stem.Model:
    """The model with random weights everywhere, also where they start at zero."""
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


# The network


def test_the_published_size_has_the_published_number_of_weights() -> None:
    net = unfitted(stem.Config.paper(), genes=200, features=1536).net
    assert sum(weight.numel() for weight in net.parameters()) == 35_639_042


def test_the_network_is_zero_at_first() -> None:  # must hold (3)
    net = unfitted(stem.Config.small()).net
    said = net(torch.randn(3, G), torch.tensor([0, 500, 999]), net.image(torch.randn(3, 4)))
    assert said.shape == (3, 1, G) and not said.any()


def test_genes_may_change_places_if_their_embeddings_do() -> None:  # must hold (3)
    net = shaken(unfitted(stem.Config(learned_range=True))).net
    x, t, image = torch.randn(3, G), torch.tensor([1, 500, 999]), torch.randn(3, 64)
    before = net(x, t, image)
    order = torch.randperm(G)
    with torch.no_grad():
        net.gene.copy_(net.gene[order])
    torch.testing.assert_close(net(x[:, order], t, image), before[..., order], rtol=1e-3, atol=1e-4)
    assert before.shape == (3, 2, G) and not torch.allclose(before[..., order], before)


def test_every_gene_looks_at_every_other() -> None:
    net = shaken(unfitted(stem.Config.small())).net
    x = torch.randn(1, G, requires_grad=True)
    net(x, torch.tensor([300]), torch.randn(1, 32))[0, 0, 0].backward()
    assert (x.grad != 0).all()


def test_the_loss_of_a_network_that_says_nothing_is_the_variance_of_the_noise() -> None:
    model = unfitted(stem.Config.small()).train()
    batch = sqi.Batch(torch.arange(4000), features=torch.randn(4000, 4), expression=torch.randn(4000, G))
    model.expression_std.fill_(1)
    assert float(model.loss(batch)["noise"].detach()) == pytest.approx(1, abs=0.03)


# What it learns


def test_the_mean_of_samples_is_the_mean_given_the_image(fresh) -> None:
    prediction, _, mean = fresh
    found = [pearsonr(prediction.mean.numpy()[:, g], mean[:, g])[0] for g in range(G)]
    assert min(found) > 0.9


def test_samples_vary_as_measurements_do_and_their_mean_varies_less(fresh) -> None:  # must hold (4)
    prediction, y, _ = fresh
    single = prediction.samples.numpy()[:, 0].var(axis=0) / y.var(axis=0)
    assert (single > 0.6).all() and (single < 1.4).all()
    assert (prediction.mean.numpy().var(axis=0) < prediction.samples.numpy()[:, 0].var(axis=0)).all()


def test_genes_vary_together_in_samples_as_in_measurements(fresh) -> None:
    prediction, y, mean = fresh
    rest, true = (prediction.samples[:, 0] - prediction.mean).numpy(), y - mean
    above = np.triu_indices(G, 1)
    assert pearsonr(np.corrcoef(rest.T)[above], np.corrcoef(true.T)[above])[0] > 0.8
    assert metrics.genes_correlation_agreement(y, prediction.samples[:, 0].numpy()) > 0.9


def test_intervals_cover_fresh_measurements(fresh) -> None:
    prediction, y, _ = fresh
    inside = np.abs(prediction.mean.numpy() - y) < 1.28 * prediction.std.numpy()
    assert 0.65 < inside.mean() < 0.92


def test_shuffled_images_predict_nothing(fitted, arrays) -> None:  # must hold (3)
    x, y, _ = planted(300, 1)
    order = np.random.default_rng(0).permutation(300)
    blind = fitted.sampling(n_samples=4).predict(arrays(None, features=x[order]), device="cpu").mean.numpy()
    assert abs(np.mean([pearsonr(blind[:, g], y[:, g])[0] for g in range(G)])) < 0.1


def test_shuffled_training_spots_teach_nothing(arrays) -> None:
    x, y, _ = planted(1500, 0)
    shuffled = arrays(y[np.random.default_rng(0).permutation(1500)], features=x)
    blind = stem.Model(config(steps=120, lr=4e-3, n_samples=4)).fit(shuffled, PLAN)
    x, y, _ = planted(300, 1)
    said = blind.predict(arrays(None, features=x), device="cpu").mean.numpy()
    assert abs(np.mean([pearsonr(said[:, g], y[:, g])[0] for g in range(G)])) < 0.15


def test_a_gene_that_never_varies_stays_what_it_is(arrays) -> None:
    x, y, _ = planted(100, 0)
    y[:, 0] = 2.0
    model = stem.Model(config(steps=150, lr=3e-3, n_samples=8)).fit(arrays(y, features=x), PLAN)
    said = model.predict(arrays(None, features=x), device="cpu")
    assert np.quantile(np.abs(said.mean.numpy()[:, 0] - 2), 0.95) < 0.2 and said.mean.isfinite().all()


# Sampling


def test_no_sample_leaves_the_data(fresh) -> None:
    prediction, _, _ = fresh
    far = (prediction.samples - prediction.mean[:, None]).abs() / prediction.samples.std(dim=(0, 1))
    assert float(far.max()) < 6


def test_the_error_of_a_mean_of_samples_falls_with_their_number(fitted, arrays) -> None:  # must hold (5)
    source = arrays(None, features=np.tile(planted(1, 1)[0], (250, 1)))

    def variance(n: int, **how) -> float:
        model = fitted.sampling(n_samples=n, mirrored=False, **{"sampler": "dpm", "n_steps": 11, **how})
        return float(model.predict(source, batch_size=250, device="cpu").mean.var(dim=0).mean())

    few = variance(2)
    assert few / variance(16) == pytest.approx(8, rel=0.35)
    assert variance(2, sampler="sde-dpm", n_steps=15) / variance(8, sampler="sde-dpm", n_steps=15) == pytest.approx(
        4, rel=0.35
    )


def test_mirrored_noise_makes_the_mean_more_precise_and_leaves_the_spread(fitted, arrays) -> None:
    source = arrays(None, features=np.tile(planted(1, 1)[0], (120, 1)))
    plain, mirrored = (
        fitted.sampling(n_steps=15, mirrored=which).predict(source, batch_size=120, device="cpu")
        for which in (False, True)
    )
    assert float(mirrored.mean.var(dim=0).mean()) < 0.3 * float(plain.mean.var(dim=0).mean())
    np.testing.assert_allclose(mirrored.std.mean(dim=0), plain.std.mean(dim=0), rtol=0.1)
    pairs = fitted.sampling(n_steps=15, n_samples=2).predict(source, batch_size=120, device="cpu")
    spread = [float(found.std.pow(2).mean()) for found in (pairs, plain)]
    assert spread[0] == pytest.approx(spread[1], rel=0.2)


def test_rows_of_two_sections_do_not_share_their_noise(fitted, arrays) -> None:
    x = np.tile(planted(1, 1)[0], (2, 1))
    said = [fitted.predict(arrays(None, features=x, section=name), device="cpu").mean for name in ("one", "other")]
    assert not torch.allclose(said[0][0], said[0][1])
    assert not torch.allclose(said[0], said[1])


def test_where_rows_lie_does_not_change_their_noise(fitted, arrays) -> None:
    x, xy = planted(4, 1)[0], np.array([[0.0, 0], [100, 0], [0, 100], [300, 300]])
    said = [fitted.predict(arrays(None, features=x, xy_um=xy + off), device="cpu").mean for off in (0, -1e-4, 40)]
    assert torch.equal(said[0], said[1]) and torch.equal(said[0], said[2])


def test_few_steps_give_what_800_ancestral_steps_give(fitted, arrays) -> None:
    source = arrays(None, features=planted(5, 2)[0])

    def draw(**how) -> torch.Tensor:
        model = fitted.sampling(n_samples=50, keep_samples=50, mirrored=False, **how)
        return model.predict(source, batch_size=10, device="cpu").samples

    many, few = draw(sampler="ddpm", n_steps=800), draw(n_steps=20)
    assert float(metrics.pearson(many.mean(dim=1).numpy(), few.mean(dim=1).numpy()).mean()) > 0.97
    ratio = few.flatten(0, 1).var(dim=0) / many.flatten(0, 1).var(dim=0)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.1)
    assert (ratio > 0.75).all() and (ratio < 1.25).all()  # 250 samples leave 10 % of each to chance
    above = np.triu_indices(G, 1)
    one, other = (np.corrcoef(drawn.flatten(0, 1).T.numpy())[above] for drawn in (few, many))
    assert pearsonr(one, other)[0] > 0.95


def test_samples_are_kept_by_number_and_decided_by_the_seed(fitted, arrays) -> None:  # must hold (6)
    source = arrays(None, features=planted(30, 1)[0])
    model = fitted.sampling(n_samples=6, keep_samples=4)
    one = model.predict(source, device="cpu")
    assert one.samples.shape == (30, 4, G)
    assert torch.equal(one.samples, model.predict(source, device="cpu").samples)
    other = model.sampling(sampling_seed=1).predict(source, device="cpu")
    assert not torch.allclose(one.samples, other.samples)
    alone = model.predict(source, rows=np.array([17]), batch_size=1, device="cpu")
    torch.testing.assert_close(alone.samples[0], one.samples[17], rtol=1e-4, atol=1e-4)
    whole = model.sampling(keep_samples=6).predict(source, device="cpu")
    torch.testing.assert_close(whole.samples.mean(dim=1), whole.mean)
    torch.testing.assert_close(whole.samples.std(dim=1, correction=0), whole.std)
    plain = model.sampling(keep_samples=6, mirrored=False).predict(source, device="cpu")
    torch.testing.assert_close(plain.samples.std(dim=1), plain.std)
    assert fitted.predict(source, device="cpu").samples is None


def test_sampling_shares_the_weights_and_changes_nothing_else(fitted) -> None:
    other = fitted.sampling(n_steps=15)
    assert other.net is fitted.net and other.genes == fitted.genes and fitted.config.n_steps == 20
    assert other.fitted and other.sha256 == fitted.sha256
    with pytest.raises(sqi.BadInput, match="does not set 'width'; fit a model with another Config"):
        fitted.sampling(width=3)


def test_expression_leaves_the_unit_interval(fresh) -> None:  # must hold (7)
    assert float(fresh[0].samples.max()) > 5 and float(fresh[0].samples.min()) < 1


def test_the_size_of_a_call_of_the_network_does_not_matter(fitted, arrays, monkeypatch) -> None:
    source, model = arrays(None, features=planted(5, 1)[0]), fitted.sampling(n_samples=4)
    usual = model.predict(source, device="cpu").mean
    for batch in (3, 10_000):
        monkeypatch.setitem(stem.TOKENS_AT_ONCE, "cpu", batch * G)
        torch.testing.assert_close(model.predict(source, device="cpu").mean, usual, rtol=1e-4, atol=1e-4)


# Training


def test_the_average_of_the_weights_is_what_samples(train) -> None:  # must hold (8)
    plain, averaged = (stem.Model(config(steps=80, ema=decay)).fit(train, PLAN) for decay in (0.0, 0.9999))
    start = stem.Model(config(steps=1, ema=0.0, lr=1e-12)).fit(train, PLAN)

    def moved(model: stem.Model) -> float:
        pairs = zip(model.net.parameters(), start.net.parameters(), strict=True)
        return sum(float((a - b).pow(2).sum()) for a, b in pairs) ** 0.5

    assert moved(averaged) > 0.5 * moved(plain)  # a fixed decay of .9999 would have moved by 1 %
    assert moved(averaged) < moved(plain)


def test_steps_are_counted_not_epochs(arrays) -> None:
    def epochs(n: int, plan: sqi.Plan = PLAN) -> int:
        x, y, _ = planted(n, 0)
        return stem.Model(config(steps=10, batch_size=100)).fit(arrays(y, features=x), plan).history["epochs"]

    assert epochs(300) == 3  # three steps each
    assert epochs(100) == 10
    assert epochs(300, replace(PLAN, epochs=2)) == 2
    assert epochs(101) == 5  # of two steps


def test_a_long_training_on_a_cpu_is_announced(monkeypatch) -> None:
    model = unfitted(stem.Config(), genes=250)
    with pytest.warns(UserWarning, match=r"takes about 2\d minutes per fit.*Use a GPU, or a smaller network"):
        model._say_how_long(2000, 64)
    unfitted(stem.Config.small())._say_how_long(400, 64)  # not said where it takes seconds


def test_validation_does_not_depend_on_luck(fitted, train) -> None:
    batch = next(fitted.seen(train, 200))
    assert float(fitted.loss(batch)["noise"].detach()) == float(fitted.loss(batch)["noise"].detach())
    fitted.train()
    assert float(fitted.loss(batch)["noise"].detach()) != float(fitted.loss(batch)["noise"].detach())
    fitted.eval()


def test_a_learned_variance_is_trained_and_sampled_from(train, arrays) -> None:
    settings = config(learned_range=True, sampler="ddpm", n_steps=800, n_samples=2, steps=150, lr=4e-3)
    model = stem.Model(settings).fit(train, PLAN)
    batch = next(model.seen(train, 500))
    assert set(model.loss(batch)) == {"noise", "range"}
    x, _, mean = planted(20, 1)
    said = model.predict(arrays(None, features=x), device="cpu")
    assert np.mean([pearsonr(said.mean.numpy()[:, g], mean[:, g])[0] for g in range(G)]) > 0.5
    flat = unfitted(config(learned_range=True))
    flat.expression_std.fill_(1)
    assert float(model.loss(batch)["range"].detach()) < float(flat.loss(batch)["range"].detach())


def test_expression_may_be_diffused_as_it_is(train, arrays) -> None:
    model = stem.Model(config(standardize=False, steps=200, lr=4e-3, n_samples=4)).fit(train, PLAN)
    x, y, _ = planted(100, 1)
    said = model.predict(arrays(None, features=x), device="cpu").mean.numpy()
    assert np.mean([pearsonr(said[:, g], y[:, g])[0] for g in range(G)]) > 0.5


def test_the_paper_form_trains_with_fewer_steps(train) -> None:
    settings = replace(
        stem.Config.paper(), encoders=("texture",), width=24, depth=2, heads=2, steps=6, n_steps=800, n_samples=2
    )
    model = stem.Model(settings).fit(train, PLAN)
    assert model.predict(train, rows=np.arange(2), device="cpu").mean.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sampler": "euler"}, "stem.Config.sampler is 'euler'; expected one of 'sde-dpm', 'dpm', 'ddim'"),
        ({"n_steps": 1000}, "n_steps is 1000; 'sde-dpm' takes 15 to 999. .*'ddpm' up to 1000"),
        ({"n_steps": 10}, "n_steps is 10; 'sde-dpm' takes 15 to 999. Fewer make samples too narrow"),
        ({"n_steps": 50, "sampler": "ddim"}, "n_steps is 50; 'ddim' takes 100 to 999"),
        ({"n_steps": 1001, "sampler": "ddpm"}, "n_steps is 1001; 'ddpm' takes 800 to 1000"),
        ({"steps": 0}, "steps is 0; expected a whole number of 1 or more"),
        ({"sampling_seed": -1}, "sampling_seed is -1; expected a whole number of 0 or more"),
        ({"n_samples": 1}, "n_samples is 1; expected a whole number of 2 or more"),
        ({"keep_samples": 21}, "keep_samples is 21; expected 0 to n_samples=20"),
        ({"heads": 5}, "width is 64; expected a multiple of heads=5"),
    ],
)
def test_settings_that_cannot_be(wrong: dict, said: str) -> None:
    with pytest.raises(sqi.BadInput, match=said):
        stem.Config(**wrong)
