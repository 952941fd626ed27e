from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import KernelCenterer

import sq_imputer as sqi
from sq_imputer.encoders import Encoder, EncoderCard, register_encoder
from sq_imputer.models import ridge
from sq_imputer.predictor.parts import Labels
from sq_imputer.testing import check_predictor

PLAN = sqi.Plan(device="cpu", progress=False)
TRAIN, TEST, WIDTH, GENES = 120, 60, 6, 3


def planted(n: int, seed: int, noise: float = 0.3, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Features of different sizes, and expression that is a line in them with noise."""
    rng, rule = np.random.default_rng([9, seed]), np.random.default_rng(4)
    x = rng.normal(size=(n, width)) * np.linspace(0.5, 3, width) + np.arange(width)
    return x, 1 + x @ rule.normal(size=(width, GENES)) + noise * rng.normal(size=(n, GENES))


def config(**changes) -> ridge.Config:
    return replace(ridge.Config(context_um=(), per_section=False), **changes)


@pytest.fixture
def train(arrays):
    x, y = planted(TRAIN, 0)
    return arrays(y, features=x)


@pytest.fixture
def test(arrays):
    x, y = planted(TEST, 1)
    return arrays(y, features=x)


def scaled(train, source) -> np.ndarray:
    """Features as the model sees them, in float64."""
    return (source.features - train.features.mean(axis=0)) / train.features.std(axis=0)


def said(model, source) -> tuple[np.ndarray, np.ndarray]:
    prediction = model.predict(source, device="cpu")
    return prediction.mean.numpy(), prediction.std.numpy()


# Closed forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 10.0])
def test_linear_is_ridge_with_the_penalty_relative_to_the_mean_eigenvalue(train, test, alpha) -> None:
    model = ridge.Model(config(alpha=alpha)).fit(train, PLAN)
    x = scaled(train, train)
    penalty = alpha * np.linalg.eigvalsh(x.T @ x).mean()
    expected = Ridge(alpha=penalty).fit(x, train.expression).predict(scaled(train, test))
    np.testing.assert_allclose(said(model, test)[0], expected, rtol=1e-4, atol=1e-4)
    assert model.history["alpha"] == alpha


def test_linear_std_is_that_of_a_gaussian_process_with_a_linear_kernel(train, test) -> None:
    model = ridge.Model(config(alpha=0.1)).fit(train, PLAN)
    x, noise = scaled(train, train), model.noise.numpy().astype(float)
    penalty = 0.1 * np.linalg.eigvalsh(x.T @ x).mean()
    for gene in range(GENES):
        kernel = ConstantKernel(noise[gene] ** 2 / penalty, "fixed") * DotProduct(0, "fixed")
        process = GaussianProcessRegressor(kernel, alpha=noise[gene] ** 2, optimizer=None)
        y = train.expression[:, gene].astype(float)
        mean, spread = process.fit(x, y - y.mean()).predict(scaled(train, test), return_std=True)
        expected = np.sqrt(spread**2 + noise[gene] ** 2)  # of a new measurement, not of the line
        np.testing.assert_allclose(said(model, test)[1][:, gene], expected, rtol=1e-4)
        np.testing.assert_allclose(said(model, test)[0][:, gene], mean + y.mean(), rtol=1e-3, atol=1e-3)


def gaussian(model, train, test) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels of training rows, and of test with training rows, centered in feature space; and of test rows alone."""
    gamma = float(model.gamma)
    x, z = scaled(train, train), scaled(train, test)
    centerer = KernelCenterer().fit(rbf_kernel(x, gamma=gamma))
    cross = rbf_kernel(z, x, gamma=gamma)
    inner = rbf_kernel(x, gamma=gamma)
    own = 1 - 2 * cross.mean(axis=1) + inner.mean()
    return centerer.transform(inner), centerer.transform(cross), own


def test_rbf_with_all_rows_as_landmarks_is_kernel_ridge(train, test) -> None:
    model = ridge.Model(config(kernel="rbf", alpha=0.01)).fit(train, PLAN)
    assert len(model.landmarks) == TRAIN
    inner, cross, _ = gaussian(model, train, test)
    y = train.expression.astype(float)
    process = KernelRidge(alpha=0.01 * np.trace(inner) / TRAIN, kernel="precomputed")
    expected = process.fit(inner, y - y.mean(axis=0)).predict(cross) + y.mean(axis=0)
    np.testing.assert_allclose(said(model, test)[0], expected, rtol=2e-3, atol=2e-3)


def test_rbf_std_is_that_of_a_gaussian_process(train, test) -> None:
    model = ridge.Model(config(kernel="rbf", alpha=0.01)).fit(train, PLAN)
    inner, cross, own = gaussian(model, train, test)
    penalty = 0.01 * np.trace(inner) / TRAIN
    spread = (own - (cross * np.linalg.solve(inner + penalty * np.eye(TRAIN), cross.T).T).sum(axis=1)) / penalty
    expected = model.noise.numpy() * np.sqrt(1 + spread)[:, None]
    np.testing.assert_allclose(said(model, test)[1], expected, rtol=5e-3)


def test_fewer_landmarks_than_rows_come_close(train, test) -> None:
    full, few = (ridge.Model(config(kernel="rbf", alpha=0.1, landmarks=n)).fit(train, PLAN) for n in (3000, 60))
    assert few.landmarks.shape == (60, WIDTH)
    assert pearsonr(said(full, test)[0].ravel(), said(few, test)[0].ravel())[0] > 0.98


def test_rbf_learns_what_linear_cannot(arrays) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    y = np.column_stack([x[:, 0] * x[:, 1], np.abs(x[:, 2])]) + 0.1 * rng.normal(size=(500, 2))
    train, test = (arrays(y[part], features=x[part]) for part in (slice(0, 400), slice(400, None)))
    line, curve = (said(ridge.Model(config(kernel=k)).fit(train, PLAN), test)[0] for k in ("linear", "rbf"))
    for gene in range(2):
        assert pearsonr(curve[:, gene], test.expression[:, gene])[0] > 0.85
        assert pearsonr(line[:, gene], test.expression[:, gene])[0] < 0.4


# What is chosen -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "width"), [("linear", 40), ("rbf", 4)])
def test_the_penalty_chosen_is_near_the_best_on_fresh_rows(arrays, kernel, width) -> None:
    """Much noise, and more freedom than the truth needs: neither end of the range is good."""
    x, y = planted(600, 2, noise=6.0, width=width)
    train, fresh = arrays(y[:80], features=x[:80]), arrays(None, features=x[80:])

    def error(alpha) -> float:
        mean = ridge.Model(config(kernel=kernel, alpha=alpha)).fit(train, PLAN).predict(fresh, device="cpu").mean
        return float(((mean.numpy() - y[80:]) ** 2).mean())

    errors = [error(alpha) for alpha in ridge.ALPHAS[::3]]
    assert error(None) < 1.05 * min(errors)
    assert error(None) < 0.95 * min(errors[0], errors[-1])


def sections(arrays, *where: tuple[str, str], n: int = 30):
    """Sources of patients and sections, with measured rows on a lattice."""
    x, y = planted(n * len(where), 3)
    parts = [slice(k * n, (k + 1) * n) for k in range(len(where))]
    return [
        arrays(y[rows], features=x[rows], group=group, section=section)
        for (group, section), rows in zip(where, parts, strict=True)
    ]


@pytest.mark.parametrize(
    ("where", "sizes"),
    [
        ([("P1", "A"), ("P1", "B"), ("P2", "C")], [60, 30]),  # patients, where there are several
        ([("P1", "A"), ("P1", "B"), ("P1", "C")], [30, 30, 30]),  # else sections
        ([("P1", "A")], [6, 6, 6, 6, 6]),  # else blocks
    ],
)
def test_whole_patients_else_sections_else_blocks_are_left_out(arrays, where, sizes) -> None:
    sources = sections(arrays, *where)
    masks = ridge._left_out(Labels.of(sources))
    assert [int(mask.sum()) for mask in masks] == sizes
    np.testing.assert_array_equal(np.sum(masks, axis=0), 1)
    groups = np.repeat([source.group for source in sources], 30)
    labels = groups if len(set(groups)) > 1 else np.repeat([source.section for source in sources], 30)
    if len(where) > 1:
        assert all(len(set(labels[mask])) == 1 for mask in masks)


def test_blocks_that_are_left_out_hold_together_in_space(arrays) -> None:
    source = sections(arrays, ("P1", "A"), n=100)[0]
    for mask in ridge._left_out(Labels.of([source])):
        assert np.ptp(source.xy_um[mask], axis=0).prod() < 0.5 * np.ptp(source.xy_um, axis=0).prod()


def test_rows_that_were_not_measured_take_no_part(arrays) -> None:
    x, y = planted(90, 3)
    y[60:] = np.nan
    whole = arrays(y, features=x, measured=np.arange(90) < 60)
    part = arrays(y[:60], features=x[:60])
    target = arrays(None, features=x[60:])
    a, b = (ridge.Model(config()).fit(source, PLAN).predict(target, device="cpu").mean for source in (whole, part))
    assert torch.equal(a, b)


def test_a_section_without_measured_rows_changes_nothing(train, test, arrays) -> None:
    blank = arrays(np.full((5, GENES), np.nan), features=test.features[:5], measured=np.zeros(5, bool), section="B")
    one, two = (ridge.Model(config()).fit(sources, PLAN) for sources in ([train], [blank, train]))
    assert torch.equal(one.predict(test, device="cpu").mean, two.predict(test, device="cpu").mean)


@pytest.mark.parametrize(("kernel", "width", "n"), [("linear", 6, 400), ("linear", 100, 300), ("rbf", 3, 400)])
def test_std_covers_fresh_measurements(arrays, kernel, width, n) -> None:
    """Also where there are many features for the rows, and much of the error is the model's."""
    x, y = planted(n + 1000, 5, noise=2.0, width=width)
    model = ridge.Model(config(kernel=kernel)).fit(arrays(y[:n], features=x[:n]), PLAN)
    mean, std = said(model, arrays(None, features=x[n:]))
    inside = np.abs(y[n:] - mean) < 1.96 * std
    assert (inside.mean(axis=0) > 0.91).all() and (inside.mean(axis=0) < 0.99).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_few_unusual_rows_do_not_change_the_noise_of_the_others(arrays, kernel) -> None:
    """Three rows of 150 have a feature of their own, of ink: what is unsure about them is not about the others."""
    spreads = []
    for unusual in (0, 3):
        rng = np.random.default_rng(1)
        x, rule = rng.normal(size=(750, 6)), rng.normal(size=(6, 40))
        y = x @ rule + 0.3 * rng.normal(size=(750, 40))
        ink = np.zeros((750, 3))
        ink[[20, 70, 120][:unusual], range(unusual)] = 1
        x = np.column_stack([x, ink])
        model = ridge.Model(config(kernel=kernel)).fit(arrays(y[:150], features=x[:150]), PLAN)
        mean, std = said(model, arrays(None, features=x[150:]))
        spreads.append(float((((y[150:] - mean) / std) ** 2).mean()))
    assert spreads == pytest.approx([1, 1], abs=0.12 if kernel == "linear" else 0.3)
    assert spreads[1] == pytest.approx(spreads[0], rel=0.1)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_sums_give_the_fits_and_errors_of_rows(arrays, kernel) -> None:
    """What is left of the sums over all rows is the fit without a fold; rbf has fewer rows in a fold than features."""
    x, y = planted(90, 3)
    model = ridge.Model(config(kernel=kernel)).fit(arrays(y, features=x), PLAN)
    source = arrays(y, features=x)
    mapped = model.map(next(model.seen(source, 90)).features).double().numpy()
    folds = [ridge._Fold(model, [source], mask, None) for mask in ridge._left_out(Labels.of([source]))]
    whole = ridge._Sums.over((row for fold in folds for row in fold.rows()), len(model.mapped_mean))
    for fold in folds:
        inside = whole - fold.sums
        error = ridge._left_out_error(inside, fold.sums, fold, (0.01, 1.0)).numpy()
        for alpha, of_alpha in zip((0.01, 1.0), error, strict=True):
            a, b = mapped[~fold.mask], source.expression[~fold.mask].astype(float)
            penalty = alpha * np.linalg.eigvalsh(np.cov(a.T, bias=True) * len(a)).mean()
            expected = Ridge(alpha=penalty).fit(a, b)
            fit = ridge._Fit(inside, alpha)
            np.testing.assert_allclose(fit.weight.numpy(), expected.coef_.T, rtol=1e-6, atol=1e-8)
            off = expected.predict(mapped[fold.mask]) - source.expression[fold.mask]
            np.testing.assert_allclose(of_alpha, (off**2).sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("alpha", [None, 0.1])
def test_fewer_rows_than_features_are_fitted_along_their_axes_to_the_same(arrays, monkeypatch, alpha) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8)) @ rng.normal(size=(8, 120)) + 0.1 * rng.normal(size=(50, 120))
    source, new = arrays(x[:40, :5], features=x[:40]), arrays(None, features=x[40:])
    along = ridge.Model(config(alpha=alpha)).fit(source, PLAN)
    monkeypatch.setattr(ridge.Model, "_axes", lambda self, sources: None)
    whole = ridge.Model(config(alpha=alpha)).fit(source, PLAN)
    assert along.history["alpha"] == whole.history["alpha"]
    for name in ("weight", "posterior", "mapped_mean", "penalty", "noise"):
        np.testing.assert_allclose(getattr(along, name), getattr(whole, name), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(said(along, new), said(whole, new), rtol=1e-5)


def test_how_many_rows_are_taken_at_a_time_changes_nothing(train, test, monkeypatch) -> None:
    fits = []
    for size in (4096, 7):
        monkeypatch.setattr(ridge, "ROWS_AT_ONCE", size)
        fits.append(said(ridge.Model(config()).fit(train, PLAN), test))
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-5)


def test_with_many_rows_the_noise_is_that_of_the_measurement(arrays) -> None:
    x, y = planted(2000, 5, noise=2.0)
    np.testing.assert_allclose(ridge.Model(config()).fit(arrays(y, features=x), PLAN).noise.numpy(), 2.0, rtol=0.05)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_std_is_larger_far_from_the_training_rows(train, arrays, kernel) -> None:
    model = ridge.Model(config(kernel=kernel)).fit(train, PLAN)
    middle = train.features.mean(axis=0)
    _, std = said(model, arrays(None, features=middle + np.array([[0], [2], [5]]) * train.features.std(axis=0)))
    if kernel == "linear":  # nothing is unsure in the middle but the noise
        np.testing.assert_allclose(std[0], model.noise.numpy(), rtol=1e-3)
    assert (std[1] > 1.02 * std[0]).all() and (std[2] > 1.05 * std[1]).all()


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_features_that_never_vary_give_the_mean(arrays, kernel) -> None:
    y = np.random.default_rng(0).normal(size=(40, 2))
    source = arrays(y, features=np.full((40, 5), 3.0))
    mean, std = said(ridge.Model(config(kernel=kernel)).fit(source, PLAN), source)
    np.testing.assert_allclose(mean, np.tile(y.mean(axis=0), (40, 1)), atol=1e-5)
    np.testing.assert_allclose(std, np.tile(y.std(axis=0), (40, 1)), rtol=0.15)


def test_two_rows_are_enough(arrays) -> None:
    source = arrays(np.array([[0.0], [1.0]]), features=np.array([[0.0, 1.0], [1.0, 1.0]]))
    mean, std = said(ridge.Model(config()).fit(source, PLAN), source)
    assert np.isfinite(mean).all() and np.isfinite(std).all()


# Sections -----------------------------------------------------------------------------------------


class Planted(Encoder):
    """Mean color; tests plant features in its name."""

    def encode(self, crops):
        return crops.float().mean(dim=(2, 3))


@pytest.fixture
def plant(monkeypatch, toy_slides):
    """Toy sections whose features by the encoder `planted` are a stretched and shifted copy of one truth."""
    monkeypatch.setattr("sq_imputer.encoders._registered", {})
    card = EncoderCard("planted", 3, 64, 0.5, (0,) * 3, (1,) * 3, "BSD-3-Clause", True, False, any_size=True)
    register_encoder(card, lambda card, weights, revision: Planted(card, {"name": "planted"}))
    rng = np.random.default_rng(0)
    truth = [rng.normal(size=(len(slide), 3)) for slide in toy_slides]

    def make(stretch, shift):
        slides = []
        for slide, values in zip(toy_slides, truth, strict=True):
            slide = replace(
                slide, genes=("A", "B"), expression=(values @ rng_rule).astype(np.float32), _features={}, _derived={}
            )
            slides.append(slide)
        for slide, values, a, b in zip(slides, truth, stretch, shift, strict=True):
            slide.remember("planted", sqi.CropSpec(50.0, 64), values * a + b, {})
        return slides

    rng_rule = rng.normal(size=(3, 2))
    return make


def fitted_on(slides, per_section: bool) -> torch.Tensor:
    settings = config(encoders=("planted",), extent_um=50.0, size_px=64, per_section=per_section)
    return ridge.Model(settings).fit(slides[:2], PLAN).predict(slides[2], device="cpu").mean


def test_scaled_within_sections_a_stretch_and_shift_of_a_section_changes_nothing(plant) -> None:
    plain = plant([1, 1, 1], [0, 0, 0])
    other = plant([1, [3, 0.5, 2], [0.2, 4, 1]], [0, [5, -1, 0], [-2, 0, 7]])
    torch.testing.assert_close(fitted_on(plain, True), fitted_on(other, True), rtol=1e-4, atol=1e-4)
    assert (fitted_on(plain, False) - fitted_on(other, False)).abs().max() > 0.5


def test_a_registered_encoder_is_what_ridge_sees(plant, toy_slides) -> None:
    """Nothing remembered: the encoder itself is asked for the mean color of the crops."""
    settings = config(encoders=("planted",), extent_um=50.0, size_px=64)
    slides = [replace(slide, _features={}, _derived={}, made_by={}) for slide in toy_slides]
    model = ridge.Model(settings).fit(slides[:2], PLAN)
    crops = np.concatenate([slide.crops(sqi.CropSpec(50.0, 64))[:] for slide in slides[:2]])
    np.testing.assert_allclose(model.feature_mean.numpy(), crops.mean(axis=(0, 2, 3)), rtol=1e-4)


# The rest -----------------------------------------------------------------------------------------


def test_the_gaussian_kernel_keeps_the_contract() -> None:
    check_predictor("ridge", replace(ridge.Config.small(), kernel="rbf"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "poly"}, "kernel is 'poly'; expected one of 'linear', 'rbf'"),
        ({"alpha": 0}, "alpha is 0; expected a number above 0"),
        ({"alpha": -1.0}, "alpha is -1.0; expected a number above 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, message) -> None:
    with pytest.raises(sqi.BadInput, match=message):
        config(**changes)
