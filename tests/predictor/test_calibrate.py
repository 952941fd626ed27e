from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.predictor import calibrate
from sq_imputer.predictor.train import Plan

PLAN = Plan(device="cpu", progress=False)


@dataclass(frozen=True)
class Config:
    calibration: int = 5


class Mean(sqi.Predictor):
    """The mean of the training rows, and a standard deviation of an arbitrary size that follows the first feature."""

    Config = Config
    card = sqi.ModelCard("mean", "A mean.", "None.", "Means.", "All.", "For tests.", uncertainty="Arbitrary.")
    fits: list = []

    @property
    def needs(self) -> sqi.Needs:
        return sqi.Needs(sqi.CropSpec(150.0, 8), encoders=("texture",))

    def build(self) -> None:
        pass

    def optimize(self, sources, plan) -> None:
        self.fits.append([source.measured.copy() for source in sources])

    def predict_step(self, batch: sqi.Batch) -> sqi.Prediction:
        mean = self.expression_mean.expand(len(batch), -1)
        raw = batch.features[:, :1] * self.feature_std[0] + self.feature_mean[0]  # as it was before it was scaled
        std = 0.01 * raw.abs().clamp_min(1e-3).expand_as(mean)
        noise = torch.randn(len(batch), 4, mean.shape[1], generator=torch.Generator().manual_seed(0))
        return sqi.Prediction(mean=mean, std=std, samples=mean[:, None] + std[:, None] * noise)


class OfMean(Mean):
    std_of_mean = True


class ByItself(Mean):
    measures_error = True


@pytest.fixture
def source(arrays):
    """400 rows whose noise is as large as their first feature, times 1, 2 and 5 by gene."""
    rng = np.random.default_rng(0)
    size = rng.uniform(0.5, 3, 400)
    y = 3 + size[:, None] * rng.normal(size=(400, 3)) * [1, 2, 5]
    return arrays(y, features=np.column_stack([size, rng.normal(size=400)]))


def squares(model, source) -> np.ndarray:
    said = model.predict(source, device="cpu")
    return (((said.mean - torch.from_numpy(source.expression)) / said.std) ** 2).numpy()


def test_the_size_is_measured_per_gene_and_the_shape_kept(source) -> None:
    model = Mean().fit(source, PLAN)
    np.testing.assert_allclose(model.std_factor, [100, 200, 500], rtol=0.12)
    found = squares(model, source)
    np.testing.assert_allclose(found.mean(axis=0), 1, atol=0.1)
    narrow = source.features[:, 0] < 1.5
    np.testing.assert_allclose([found[narrow].mean(), found[~narrow].mean()], 1, atol=0.2)


def test_without_it_the_model_says_what_it_says(source) -> None:
    model = Mean().fit(source, replace(PLAN, calibration=0))
    assert (model.std_factor == 1).all() and squares(model, source).mean() > 1000
    assert Mean(Config(calibration=0)).fit(source, PLAN).std_factor.tolist() == [1, 1, 1]
    assert ByItself().fit(source, PLAN).std_factor.tolist() == [1, 1, 1]


def test_noise_is_added_to_the_standard_deviation_of_a_mean(source) -> None:
    model = OfMean().fit(source, PLAN)
    truth = (source.expression - source.expression.mean(axis=0)).std(axis=0)
    np.testing.assert_allclose(model.std_added, truth, rtol=0.05)
    assert (model.std_factor == 1).all()
    assert OfMean().fit(source, replace(PLAN, calibration=0)).std_added.tolist() == pytest.approx(truth.tolist())


def test_samples_are_stretched_as_the_standard_deviation_is(source) -> None:
    model = Mean().fit(source, PLAN)
    said = model.predict(source, device="cpu")
    away = (said.samples - said.mean[:, None]) / said.std[:, None]
    assert float(away.std()) == pytest.approx(1, abs=0.1)


def test_every_row_is_left_out_once_and_never_trained_on_within_the_buffer(source, monkeypatch) -> None:
    monkeypatch.setattr(Mean, "fits", [])
    Mean().fit(source, PLAN)
    all_rows, *folds = (fit[0] for fit in Mean.fits)
    assert all_rows.all() and len(folds) == 5
    assert all(0.5 < fold.mean() < 0.8 for fold in folds)
    for k, split in enumerate(sqi.scores.splits.folds(source.xy_um, 5, buffer_um=150.0)):
        assert np.array_equal(folds[k], split.train)


def test_whole_sections_or_individuals_are_left_out_where_there_are_several(source, arrays, monkeypatch) -> None:
    def made(section: str, group: str):
        return replace(source, section=section, group=group)

    for sources, parts in (
        ([made("A", "P"), made("B", "P"), made("C", "P")], [[1, 2], [0, 2], [0, 1]]),
        ([made("A", "P"), made("B", "P"), made("C", "Q")], [[2], [2], [0, 1], [0, 1]]),
    ):
        monkeypatch.setattr(Mean, "fits", [])
        Mean().fit(sources, PLAN)
        assert [len(fit) for fit in Mean.fits] == [3, *map(len, parts)]
        for number, fit in enumerate(Mean.fits):
            of_half = len(parts) == 4 and number in (2, 4)  # of two parts, half of each is fitted too
            assert {int(measured.sum()) for measured in fit} == {200 if of_half else 400}


def test_errors_of_fits_on_one_of_two_parts_are_lessened_by_what_half_of_the_rows_add(source, monkeypatch) -> None:
    sections = [replace(source, section=name) for name in "AB"]
    before = Mean().fit(sections, PLAN).std_factor
    monkeypatch.setattr(calibrate, "share_left", lambda *errors: 0.64)
    np.testing.assert_allclose(Mean().fit(sections, PLAN).std_factor, 0.8 * before, rtol=0.01)


def test_few_rows_are_fitted_all_the_same(arrays) -> None:
    for n in (2, 3, 4, 9):
        rng = np.random.default_rng(n)
        model = Mean().fit(arrays(rng.normal(size=(n, 2)), features=rng.normal(size=(n, 2))), PLAN)
        assert model.std_factor.isfinite().all() and (model.std_factor > 0).all()
        assert (n < 4) == bool((model.std_factor == 1).all())


def test_a_gene_that_never_varies_has_a_standard_deviation_above_zero(source) -> None:
    flat = replace(source, expression=np.where([True, False, False], 2.0, source.expression).astype(np.float32))
    for kind in (Mean, OfMean):
        assert (kind().fit(flat, PLAN).predict(flat, device="cpu").std > 0).all()


def test_many_rows_are_measured_by_some(arrays, monkeypatch) -> None:
    monkeypatch.setattr(calibrate, "MOST", 50)
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(400, 2)), features=np.ones((400, 1)))
    model = Mean().fit(source, PLAN)
    assert model.history["calibration"] == {"folds": 5, "rows": 50}
    np.testing.assert_allclose(model.std_factor, 100, rtol=0.4)


def test_the_size_is_saved_with_the_model(source, tmp_path) -> None:
    model = Mean().fit(source, PLAN)
    model.save(tmp_path / "mean")
    again = Mean.load(tmp_path / "mean")
    assert torch.equal(again.std_factor, model.std_factor)


@pytest.mark.parametrize(("wrong", "said"), [(1, "leave out 2 parts or more in turn, or 0"), (-1, "0 or more")])
def test_folds_that_cannot_be(wrong: int, said: str) -> None:
    with pytest.raises(sqi.BadInput, match=said):
        Plan(calibration=wrong)


def test_a_few_rows_that_are_called_certain_do_not_size_all_others() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(600, 3, generator=generator) * 2 + 0.5
    error = truth * torch.randn(600, 3, generator=generator)
    factor, added = calibrate.size(error, 0.1 * truth, torch.ones(3), of_mean=False)  # a shape that is right is kept
    assert (added <= 0.35 * error.std(dim=0)).all() and torch.allclose(factor, torch.full((3,), 10.0), rtol=0.12)
    certain = truth.clone()
    certain[:12] = 0.01
    factor, added = calibrate.size(error, certain, torch.ones(3), of_mean=False)
    found = calibrate.sized(certain, factor, added)
    torch.testing.assert_close((error / found).square().mean(dim=0), torch.ones(3), rtol=1e-3, atol=0)
    assert 0.6 < (error / found)[12:].square().mean() < 1.1  # by the errors of certain rows alone it is 1e-3
    torch.testing.assert_close(calibrate.unsized(found, factor, added), certain, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("model", ["closed form", "by fits"])
def test_errors_of_two_humps_are_held_by_fewer_standard_deviations(arrays, model) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    humps = {
        name: arrays(y, features=x) for name, y in (("two", rng.choice([-1, 1], (400, 3))), ("one", x[:, [0, 0, 1]]))
    }
    humps["one"].expression += rng.normal(size=(400, 3)).astype(np.float32)
    kind = sqi.get_model("ridge") if model == "closed form" else OfMean
    config = kind.Config(context_um=(), per_section=False) if model == "closed form" else kind.Config()
    found = {name: kind(config).fit(source, PLAN).history["sd_of_95"] for name, source in humps.items()}
    assert 0.9 < found["two"] < 1.3 and found["one"] == pytest.approx(1.96, abs=0.12)
    assert "sd_of_95" not in OfMean(Config(calibration=0)).fit(humps["two"], PLAN).history
