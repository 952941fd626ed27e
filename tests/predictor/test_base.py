from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.device import BatchSize
from sq_imputer.models import mlp, ridge
from sq_imputer.predictor import statistics

PLAN = sqi.Plan(device="cpu", progress=False, seed=5)
CONFIG = ridge.Config(context_um=(), per_section=False, alpha=0.1)
N = 50


class Spy(ridge.Model):
    """Ridge that keeps the batches it is asked about."""

    def predict_step(self, batch):
        self.__dict__.setdefault("asked", []).append(batch)
        return super().predict_step(batch)


# Fitting ------------------------------------------------------------------------------------------


def test_fit_returns_the_model_itself_in_eval_mode(source) -> None:
    model = ridge.Model(CONFIG)
    assert not model.fitted
    assert model.fit(source, PLAN) is model
    assert model.fitted and not model.training
    assert (model.genes, model.unit) == (source.genes, source.unit)
    assert model.sizes == {"rows": 40, "features": 4}


def test_statistics_are_of_measured_rows(source, fitted) -> None:
    y, x = source.expression[:40], source.features[:40]
    np.testing.assert_allclose(fitted.expression_mean, y.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(fitted.expression_std, y.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(fitted.feature_mean, x.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.feature_std, x.std(axis=0), rtol=1e-5)


def test_a_gene_that_never_varies_is_divided_by_1(arrays) -> None:
    y = np.column_stack([np.full(20, 3.0), np.arange(20.0)])
    model = ridge.Model(CONFIG).fit(arrays(y, features=np.arange(40.0).reshape(20, 2)), PLAN)
    assert model.expression_std[0] == 1
    prediction = model.predict(arrays(y, features=np.arange(40.0).reshape(20, 2)), device="cpu")
    np.testing.assert_allclose(prediction.mean[:, 0], 3, rtol=1e-5)
    assert prediction.std.isfinite().all()


def test_several_sources_are_fitted_together(source, arrays) -> None:
    other = arrays(source.expression[:20] + 1, features=source.features[:20] * 2, group="P2", section="B")
    model = ridge.Model(CONFIG).fit([source, other], PLAN)
    np.testing.assert_allclose(
        model.feature_mean, np.concatenate([source.features[:40], other.features]).mean(axis=0), rtol=1e-4, atol=1e-5
    )
    assert model.sizes["rows"] == 60


def test_provenance_is_enough_to_redo_it(source, arrays) -> None:
    other = arrays(source.expression[:20], features=source.features[:20], group="P2", section="B", fingerprint="f2")
    found = ridge.Model(CONFIG).fit([source, other], PLAN).provenance
    assert found["sections"] == ["A", "B"] and found["groups"] == ["P1", "P2"] and found["rows"] == [40, 20]
    assert found["fingerprints"] == ["arrays", "f2"]
    assert found["plan"]["seed"] == 5
    assert (
        found["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__ in found["versions"]["torch"]
    )
    assert set(found["versions"]) == {"sq-imputer", "torch", "spatialdata", "anndata"}


def bad_sources(kind: str, source, arrays) -> list:
    blind = arrays(None, features=source.features)
    return {
        "none": [],
        "no targets": [source, blind],
        "other genes": [source, replace(source, genes=("A", "B", "C"))],
        "other unit": [source, replace(source, unit="log1p_counts")],
        "one row": [replace(source, measured=np.arange(N) == 3)],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "no sources to fit on; expected at least one section"),
        ("no targets", r"section 'A' has no targets; call \.with_genes"),
        ("other genes", "sections 'A' and 'A' have different genes, targets or units"),
        ("other unit", r"different genes, targets or units \(log1p_cp10k, log1p_counts\)"),
        ("one row", "have 1 measured rows; a fit needs 2 or more"),
    ],
)
def test_sources_that_cannot_be_fitted_are_named_and_the_model_stays(fitted, source, arrays, kind, message) -> None:
    before = fitted.sha256
    with pytest.raises(sqi.BadInput, match=message):
        fitted.fit(bad_sources(kind, source, arrays), PLAN)
    assert fitted.sha256 == before and fitted.genes == source.genes


def test_a_fit_that_breaks_off_leaves_the_model_as_it_was(source) -> None:
    class Breaks(ridge.Model):
        def optimize(self, sources, plan):
            super().optimize(sources, plan)
            if plan.seed == 13:
                raise OSError("the disk is gone")

    model = Breaks(CONFIG).fit(source, PLAN)
    before, said = model.sha256, model.predict(source, device="cpu").mean
    with pytest.raises(OSError, match="the disk is gone"):
        model.fit(replace(source, expression=source.expression[:, :2], genes=("A", "B")), replace(PLAN, seed=13))
    assert model.sha256 == before and model.genes == source.genes
    assert torch.equal(model.predict(source, device="cpu").mean, said)


def test_fitting_again_starts_afresh_on_other_genes(fitted, source) -> None:
    fewer = replace(source, expression=source.expression[:, 1:], genes=("A", "B"))
    assert fitted.fit(fewer, PLAN) is fitted
    assert fitted.genes == ("A", "B") and fitted.sha256 == ridge.Model(CONFIG).fit(fewer, PLAN).sha256


def test_a_config_of_another_model_is_named() -> None:
    with pytest.raises(sqi.BadInput, match=r"config of 'ridge' is a Config; expected ridge\.Config"):
        ridge.Model(mlp.Config())


def test_a_closed_form_has_no_loss(fitted) -> None:
    with pytest.raises(NotImplementedError, match="ridge has no loss"):
        fitted.loss(sqi.Batch(torch.arange(2)))


# What models see ----------------------------------------------------------------------------------


def test_features_are_scaled_by_the_training_rows(fitted, source) -> None:
    seen = next(fitted.seen(source, N)).features.numpy()
    expected = (source.features - source.features[:40].mean(axis=0)) / source.features[:40].std(axis=0)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)


def test_or_within_each_section(source) -> None:
    model = ridge.Model(replace(CONFIG, per_section=True)).fit(source, PLAN)
    other = replace(source, features=source.features * [2, 3, 4, 5] + 7)
    a, b = (next(model.seen(part, N)).features for part in (source, other))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_features_far_out_are_cut_off_at_10_standard_deviations(fitted, source, arrays) -> None:
    far = arrays(None, features=np.array([[1e6] * 4, [-1e6] * 4]))
    assert next(fitted.seen(far, 2)).features.tolist() == [[10] * 4, [-10] * 4]


def test_a_feature_that_never_varied_is_divided_by_1(arrays) -> None:
    x = np.column_stack([np.full(20, 4.0), np.arange(20.0)])
    source = arrays(np.arange(20.0)[:, None], features=x)
    assert next(ridge.Model(CONFIG).fit(source, PLAN).seen(source, 20)).features[:, 0].eq(0).all()


# Predicting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [[3, 0, 7], [7, 3, 7, 7, 0, 3], slice(None, None, -1), np.arange(N) % 3 == 0, np.array([-1]), 5],
    ids=["order", "repeated", "reversed", "mask", "last", "one"],
)
def test_rows_come_as_they_are_asked_for(fitted, source, rows) -> None:
    full, part = fitted.predict(source, device="cpu"), fitted.predict(source, rows=rows, batch_size=2, device="cpu")
    index = np.atleast_1d(np.arange(N)[rows]).copy()
    for name in ("mean", "std", "ood"):
        torch.testing.assert_close(getattr(part, name), getattr(full, name)[torch.from_numpy(index)])


def test_no_row_is_an_error_that_says_so(fitted, source) -> None:
    with pytest.raises(sqi.BadInput, match="no row of section 'A' is asked for; it has 50"):
        fitted.predict(source, rows=[])


def test_expression_never_reaches_the_prediction(source) -> None:
    model = Spy(CONFIG).fit(source, PLAN)
    model.predict(source, batch_size=20, device="cpu")
    assert [len(batch) for batch in model.asked] == [20, 20, 10]
    assert all(batch.expression is None and batch.features is not None for batch in model.asked)


def test_what_is_said_is_float32_on_the_cpu_without_gradient(fitted, source) -> None:
    prediction = fitted.predict(source, device="cpu")
    assert prediction.samples is None and prediction.embedding is None
    for part in (prediction.mean, prediction.std, prediction.ood):
        assert part.dtype == torch.float32 and part.device.type == "cpu" and not part.requires_grad


def test_ood_is_low_in_the_middle_and_1_far_away(fitted, arrays) -> None:
    middle = fitted.feature_mean.numpy()
    far = middle + 9 * fitted.feature_std.numpy()
    assert fitted.predict(arrays(None, features=np.stack([middle, far])), device="cpu").ood.tolist() == [0, 1]


def test_ood_of_pixels_sees_their_color(toy_slides) -> None:
    from sq_imputer.models import nsl

    model = nsl.Model(nsl.Config(size_px=8, epochs=1)).fit(toy_slides[0], PLAN)
    crops = torch.stack([torch.full((3, 8, 8), 0), torch.full((3, 8, 8), 255)]).to(torch.uint8)
    usual = next(model.seen(toy_slides[0], 108))
    assert model.applicability(statistics.summary(usual)).median() < 0.6
    assert model.applicability(statistics.summary(sqi.Batch(torch.arange(2), crops=crops)))[0] == 1


def test_unfitted_models_say_how_to_fit(source, tmp_path) -> None:
    with pytest.raises(sqi.BadInput, match=r"'ridge' is not fitted; call \.fit\(sources\), or load one"):
        ridge.Model().predict(source)
    with pytest.raises(sqi.BadInput, match="'ridge' is not fitted; there is nothing to save"):
        ridge.Model().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("size", [0, -3, 2.5, None])
def test_a_batch_size_that_is_no_positive_number_is_named(fitted, source, size) -> None:
    with pytest.raises(sqi.BadInput, match=f"batch_size is {size}; expected a whole number, 1 or more"):
        fitted.predict(source, batch_size=size)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "gpu"])
def test_a_device_that_is_not_there_is_named(fitted, source, device, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(sqi.BadInput, match=f"device '{device}' is not available here; there is cpu"):
        fitted.predict(source, device=device)
    with pytest.raises(sqi.BadInput, match=f"device '{device}' is not available here"):
        fitted.fit(source, replace(PLAN, device=device))


def test_random_states_of_the_caller_stay(source) -> None:
    torch.manual_seed(1)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    model = ridge.Model(replace(CONFIG, kernel="rbf", landmarks=20)).fit(source, PLAN)
    model.predict(source, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numbers)


# Out of memory ------------------------------------------------------------------------------------


CROP_ALONE = {"context_um": (), "per_section": False}
QUICK = sqi.Plan(device="cpu", progress=False, seed=5, epochs=3)


@pytest.fixture
def line(arrays):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    return arrays(x @ rng.normal(size=(4, 3)), features=x)


def small_card(monkeypatch, model, method: str, fits: int) -> list[int]:
    """A card on which a step takes at most so many rows. The sizes of the steps that were tried."""
    step, tried = getattr(model, method), []

    def limited(self, batch):
        tried.append(len(batch))
        if len(batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, batch)

    monkeypatch.setattr(model, method, limited)
    return tried


@pytest.mark.parametrize("fits", [1, 3, 7, 31])
def test_a_prediction_does_not_depend_on_what_fits(line, monkeypatch, fits):
    model = ridge.Model(ridge.Config(alpha=0.1, **CROP_ALONE)).fit(line, QUICK)
    whole = model.predict(line, device="cpu")
    tried, size = small_card(monkeypatch, ridge.Model, "predict_step", fits), BatchSize(64)
    with pytest.warns(RuntimeWarning, match="'ridge' on cpu is out of memory with 60 rows at a time"):
        parts = model.predict(line, device="cpu", batch_size=size)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-5)
    assert sum(n for n in tried if n <= fits) == 60
    assert fits / 2 < size.rows <= fits


def test_one_row_that_does_not_fit_is_an_error_and_the_model_stays(line, monkeypatch):
    model = ridge.Model(ridge.Config(alpha=0.1, **CROP_ALONE)).fit(line, QUICK)
    before = model.sha256
    small_card(monkeypatch, ridge.Model, "predict_step", 0)
    with pytest.warns(RuntimeWarning), pytest.raises(sqi.OutOfMemory, match="'ridge' on cpu .* one row at a time"):
        model.predict(line, device="cpu")
    assert model.sha256 == before


def test_training_begins_again_with_half_the_batch(line, monkeypatch):
    asked = mlp.Config(batch_size=32, validation=0.0, **CROP_ALONE)
    halved = mlp.Model(asked).fit(line, sqi.Plan(device="cpu", progress=False, seed=5, epochs=3, batch_size=8))
    tried = small_card(monkeypatch, mlp.Model, "loss", 10)
    with pytest.warns(RuntimeWarning, match="training 'mlp' is out of memory with 32 rows at a time"):
        model = mlp.Model(asked).fit(line, QUICK)
    assert tried[:3] == [32, 16, 8] and max(tried[2:]) == 8
    assert model.provenance["plan"]["batch_size"] == 8
    for name, value in halved.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_what_follows_training_takes_no_more_rows_than_fit_in_it(line, monkeypatch):
    seen, calibrate = [], mlp.Model.calibrate

    def listed(self, held):
        held = list(held)
        seen.extend(map(len, held))
        return calibrate(self, held)

    monkeypatch.setattr(mlp.Model, "calibrate", listed)
    small_card(monkeypatch, mlp.Model, "loss", 10)
    with pytest.warns(RuntimeWarning, match="training 'mlp' is out of memory"):
        mlp.Model(mlp.Config(batch_size=32, validation=0.0, **CROP_ALONE)).fit(line, QUICK)
    assert seen and max(seen) <= 10


def test_what_cannot_be_halved_says_so_at_once(line, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ridge.Model, "optimize", full)
    model = ridge.Model(ridge.Config(**CROP_ALONE))
    with pytest.raises(sqi.OutOfMemory, match="training 'ridge' is out of memory"):
        model.fit(line, QUICK)
    assert not model.fitted
