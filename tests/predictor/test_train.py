from __future__ import annotations

import logging
import os
import random
import signal
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import sq_imputer as sqi
from sq_imputer.predictor import steps
from sq_imputer.predictor.train import Plan, Rows

PLAN = Plan(refit=False, device="cpu", progress=False, seed=4)


@dataclass(frozen=True)
class Config:
    lr: float = 0.05
    weight_decay: float = 0.0
    epochs: int = 8
    batch_size: int = 16
    validation: float = 0.0


class Line(sqi.Predictor):
    """A line in the features, trained by steps. Keeps the rows of every training batch, and lets tests step in."""

    Config = Config
    card = sqi.ModelCard("line", "A line.", "None.", "Lines.", "All.", "For tests.")

    @property
    def needs(self) -> sqi.Needs:
        return sqi.Needs(sqi.CropSpec(50.0, 8), encoders=("texture",))

    def build(self) -> None:
        self.line = nn.Linear(self.sizes["features"], len(self.genes))
        self.trained_on, self.validated_on = [], []

    def step_in(self, batch: sqi.Batch) -> None:
        """What a test wants to happen in a step."""

    def loss(self, batch: sqi.Batch) -> dict[str, torch.Tensor]:
        self.step_in(batch)
        kept = self.trained_on if self.training else self.validated_on
        kept.append(torch.stack([batch.section, batch.index], dim=1).tolist())
        return {"mse": (self.line(batch.features) - batch.expression).pow(2).mean()}

    def predict_step(self, batch: sqi.Batch) -> sqi.Prediction:
        return sqi.Prediction(mean=self.line(batch.features))


@pytest.fixture
def sources(arrays):
    """Three sections of 45, 30 and 20 rows, of which 40, 30 and 20 are measured; two genes."""
    rng, rule = np.random.default_rng(0), np.random.default_rng(1).normal(size=(5, 2))
    made = []
    for n, name in ((45, "A"), (30, "B"), (20, "C")):
        x = rng.normal(size=(n, 5))
        y = x @ rule + 0.3 * rng.normal(size=(n, 2))
        y[40:] = np.nan
        made.append(arrays(y, features=x, measured=np.arange(n) < 40, section=name))
    return made


def rows_of(batches: list[list]) -> list[tuple[int, int]]:
    return [tuple(row) for batch in batches for row in batch]


def epochs_of(model: Line, n_rows: int) -> list[list[tuple[int, int]]]:
    """The rows trained on, epoch by epoch."""
    seen = rows_of(model.trained_on)
    return [seen[start : start + n_rows] for start in range(0, len(seen), n_rows)]


EVERY = sorted([(0, i) for i in range(40)] + [(1, i) for i in range(30)] + [(2, i) for i in range(20)])


# Rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_mb", [2048, 0], ids=["in memory", "streamed"])
def test_every_epoch_sees_every_measured_row_once_in_another_order(sources, memory_mb) -> None:
    model = Line().fit(sources, replace(PLAN, memory_mb=memory_mb, epochs=3))
    epochs = epochs_of(model, 90)
    assert [sorted(epoch) for epoch in epochs] == [EVERY] * 3
    assert epochs[0] != epochs[1] != epochs[2] and EVERY not in epochs


@pytest.mark.parametrize("memory_mb", [2048, 0], ids=["in memory", "streamed"])
def test_batches_mix_sections_or_take_turns(sources, memory_mb) -> None:
    model = Line().fit(sources, replace(PLAN, memory_mb=memory_mb, epochs=1))
    sections = [sorted({section for section, _ in batch}) for batch in model.trained_on]
    if memory_mb:
        assert [len(batch) for batch in model.trained_on] == [16] * 5 + [10]
        assert [0, 1, 2] in sections
    else:  # 40, 30 and 20 rows are 3 + 2 + 2 batches
        assert sorted(sections) == [[0]] * 3 + [[1]] * 2 + [[2]] * 2
        assert sections != sorted(sections)


class OneSection(Line):
    """Its batches are of one section each."""

    mixes_sections = False


@pytest.mark.parametrize("memory_mb", [2048, 0], ids=["in memory", "streamed"])
def test_batches_are_of_one_section_for_models_that_ask_for_it(sources, memory_mb) -> None:
    model = OneSection().fit(sources, replace(PLAN, memory_mb=memory_mb, epochs=3))
    assert [sorted(epoch) for epoch in epochs_of(model, 90)] == [EVERY] * 3
    epochs = [model.trained_on[start : start + 7] for start in (0, 7, 14)]
    orders = [[section for batch in epoch for section in {section for section, _ in batch}] for epoch in epochs]
    assert [sorted(order) for order in orders] == [[0, 0, 0, 1, 1, 2, 2]] * 3  # 40, 30 and 20 rows
    assert orders != [sorted(order) for order in orders] and len(set(map(str, orders))) > 1
    even = [10, 10, 13, 13, 14, 15, 15]  # where a section is in memory; none is left with a row or two
    assert sorted(len(batch) for batch in epochs[0]) == (even if memory_mb else [4, 8, 14, 16, 16, 16, 16])


def test_sections_with_too_few_rows_to_learn_from_are_named(sources, monkeypatch) -> None:
    monkeypatch.setattr(OneSection, "fewest_rows", 2)
    alone = [replace(source, measured=np.arange(len(source)) < 1) for source in sources]
    names = [source.section for source in sources]
    with pytest.warns(UserWarning, match=f"sections '{names[1]}' have fewer: nothing is learned from them"):
        OneSection().fit([sources[0], alone[1]], replace(PLAN, epochs=1))
    with pytest.raises(sqi.BadInput, match="2 rows or more of one section at a time, .* Fit on sections with more"):
        OneSection().fit(alone, replace(PLAN, epochs=1))
    Line().fit([sources[0], alone[1]], replace(PLAN, epochs=1))  # which mixes them


@pytest.mark.parametrize("memory_mb", [2048, 0])
def test_the_number_of_batches_of_one_section_is_known_beforehand(sources, memory_mb) -> None:
    model = OneSection().fit(sources, replace(PLAN, epochs=1))
    where = [np.arange(40), np.arange(0), np.arange(20)]  # a section that is held out whole has no batch
    for shuffle in (True, False):
        rows = Rows(model, sources, where, replace(PLAN, memory_mb=memory_mb), shuffle)
        assert len(rows) == len(list(rows)) == 5


@pytest.mark.parametrize("memory_mb", [2048, 0])
def test_the_number_of_batches_is_known_beforehand(sources, memory_mb) -> None:
    model = Line().fit(sources, replace(PLAN, epochs=1))
    rows = Rows(model, sources, [np.arange(40), np.arange(30), np.arange(20)], replace(PLAN, memory_mb=memory_mb), True)
    assert len(rows) == len(list(rows)) == (6 if memory_mb else 7)


def test_rows_stream_where_they_do_not_fit_into_memory(sources) -> None:
    model, where = Line().fit(sources, replace(PLAN, epochs=1)), [np.arange(40), np.arange(30), np.arange(20)]
    fits = -(-model.bytes_per_row * 90 // 2**20)
    assert Rows(model, sources, where, replace(PLAN, memory_mb=fits), True).pool is not None
    assert Rows(model, sources, where, replace(PLAN, memory_mb=0), True).pool is None


def test_pixels_stream_as_they_are_kept(toy_slides) -> None:
    """The same rows with the same crops, by another road."""
    from sq_imputer.models import nsl

    model = nsl.Model(nsl.Config(size_px=8, epochs=1)).fit(list(toy_slides[:2]), PLAN)
    where = [np.arange(0, 100, 3), np.arange(50)]
    found = []
    for memory_mb in (2048, 0):
        plan = replace(PLAN, memory_mb=memory_mb, batch_size=20)
        batch = sqi.Batch.cat(list(Rows(model, toy_slides[:2], where, plan, shuffle=True)))
        found.append(batch[torch.argsort(batch.section * 1000 + batch.index)])
    for name in ("section", "index", "crops", "expression"):
        assert torch.equal(getattr(found[0], name), getattr(found[1], name))
    assert found[0].section.tolist() == [0] * 34 + [1] * 50


def test_a_section_that_is_held_out_whole_streams_nothing(sources) -> None:
    model = Line().fit(sources, replace(PLAN, epochs=1))
    none = np.arange(0)
    for memory_mb in (2048, 0):
        rows = Rows(model, sources, [np.arange(40), none, np.arange(3)], replace(PLAN, memory_mb=memory_mb), True)
        assert sorted({int(s) for batch in rows for s in batch.section}) == [0, 2]


# Held-out rows ------------------------------------------------------------------------------------


def test_without_validation_it_runs_all_epochs_on_all_rows(sources) -> None:
    model = Line().fit(sources, PLAN)
    assert len(model.history["train"]) == 8 and model.history["epochs"] == 8
    assert model.history["validation"] == [] == model.validated_on


def test_a_whole_section_is_held_out_where_there_are_several(sources) -> None:
    model = Line().fit(sources, replace(PLAN, validation=0.3, epochs=2))
    held, seen = set(rows_of(model.validated_on)), set(rows_of(model.trained_on))
    assert held.isdisjoint(seen) and held | seen == set(EVERY)
    assert len({section for section, _ in held}) == 1
    assert {section for section, _ in held}.isdisjoint({section for section, _ in seen})
    assert len(model.history["validation"]) == 2


def test_too_few_rows_to_hold_any_out_are_all_trained_on(arrays) -> None:
    source = arrays(np.arange(10.0)[:, None], features=np.arange(20.0).reshape(10, 2))
    model = Line().fit(source, replace(PLAN, validation=0.1, epochs=1))
    assert model.validated_on == [] and len(rows_of(model.trained_on)) == 10


class Overfits(Line):
    """Validation is best in the third epoch, whatever the weights are."""

    def loss(self, batch):
        parts = super().loss(batch)
        epoch = len(self.trained_on) // self.steps_per_epoch
        return parts if self.training else {"mse": 0 * parts["mse"] + abs(epoch - 3)}

    steps_per_epoch = 2


def test_the_weights_of_the_best_epoch_are_kept(arrays) -> None:
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(40, 2)), features=rng.normal(size=(40, 3)))
    plan = replace(PLAN, validation=0.25, batch_size=15)  # 30 rows in 2 steps
    stopped = Overfits().fit(source, replace(plan, epochs=20, patience=4))
    assert stopped.history["validation"] == [2, 1, 0, 1, 2, 3, 4]  # 4 epochs without a better one
    assert stopped.history["epochs"] == 3 and len(stopped.history["train"]) == 7
    exact, last = (Overfits().fit(source, replace(plan, epochs=n)) for n in (3, 7))
    assert torch.equal(stopped.line.weight, exact.line.weight)
    assert not torch.equal(stopped.line.weight, last.line.weight.add(0) * 0 + 1)
    assert torch.equal(last.line.weight, exact.line.weight)  # here too the third epoch is the best


def test_refit_trains_from_the_start_on_all_rows_for_the_best_number_of_epochs(arrays) -> None:
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(40, 2)), features=rng.normal(size=(40, 3)))
    plan = replace(PLAN, validation=0.25, batch_size=15, epochs=20, patience=4)
    model = Overfits().fit(source, replace(plan, refit=True))
    assert model.history["epochs"] == 3
    seen = rows_of(model.trained_on)
    first, again = seen[: 7 * 30], seen[7 * 30 :]
    assert (
        len(set(first)) == 30 and [sorted(again[i : i + 40]) for i in (0, 40, 80)] == [[(0, i) for i in range(40)]] * 3
    )
    assert len(again) == 120
    straight = Overfits().fit(source, replace(plan, epochs=3, validation=0.0))
    assert torch.equal(model.line.weight, straight.line.weight)


def test_a_model_may_take_something_from_held_out_rows(sources) -> None:
    class Calibrated(Line):
        def build(self):
            super().build()
            self.register_buffer("rows", torch.zeros(()))

        def calibrate(self, held):
            assert not self.training
            return {"rows": torch.tensor(float(sum(len(batch) for batch in held)))}

    with_held = Calibrated().fit(sources, replace(PLAN, validation=0.3, epochs=1))
    assert with_held.rows == len(set(rows_of(with_held.validated_on)))
    assert Calibrated().fit(sources, replace(PLAN, epochs=1)).rows == 90
    again = Calibrated().fit(sources, replace(PLAN, validation=0.3, epochs=1, refit=True))
    assert again.rows == with_held.rows


# The running mean of the weights ------------------------------------------------------------------


class Averaged(Line):
    """Its weight takes planted values, one after each step; it notes down the weight that every batch sees."""

    averaging = 0.4
    goal = 0.0
    planted = (8.0, 4.0, 1.0, 3.0, 9.0, 2.0, 7.0, 5.0, 6.0, 0.0, 4.0, 8.0)

    def build(self) -> None:
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.zeros(()))
        self.trained_at, self.validated_at = [], []

    def optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def loss(self, batch):
        if not self.training:
            self.validated_at.append(self.weight.item())
            return {"off": (self.weight - self.goal).abs().sum()}
        aim = self.planted[len(self.trained_at)]
        self.trained_at.append(self.weight.item())
        self.steps += 1
        return {"step": (self.weight * (self.weight.detach() - aim)).sum()}  # a step of rate 1 ends at the aim


def running_means(values, decay: float) -> list[float]:
    """By the definition: m <- d m + (1 - d) w with d = min(decay, (1 + n) / (10 + n)), beginning with the first w."""
    means = [values[0]]
    for n, value in enumerate(values[1:], 1):
        d = min(decay, (1 + n) / (10 + n))
        means.append(d * means[-1] + (1 - d) * value)
    return means


@pytest.fixture
def forty(arrays):
    """40 rows: with a quarter held out, 2 steps of 15 an epoch."""
    rng = np.random.default_rng(0)
    return arrays(rng.normal(size=(40, 2)), features=rng.normal(size=(40, 3)))


STEPS = replace(PLAN, clip=0, batch_size=15, validation=0.25)


def test_the_mean_warms_up_and_replaces_the_weights_at_the_end(forty) -> None:
    plan = replace(STEPS, batch_size=40, epochs=3, validation=0.0)
    model = Averaged().fit(forty, plan)
    assert model.trained_at == [0, 8, 4]  # before each step; 1 after the last
    by_hand = 3 / 12 * (2 / 11 * 8 + 9 / 11 * 4) + 9 / 12 * 1
    assert model.weight.item() == pytest.approx(by_hand) == pytest.approx(running_means([8, 4, 1], 0.4)[-1])
    long = Averaged().fit(forty, replace(plan, epochs=12))  # 0.4 = (1 + 5) / (10 + 5)
    assert long.weight.item() == pytest.approx(running_means(Averaged.planted, 0.4)[-1])
    assert long.weight.item() != pytest.approx(running_means(Averaged.planted, 1.0)[-1])
    assert long.steps == 12  # buffers are those of the last step


def test_the_mean_is_validated_and_training_goes_on_from_the_weights(forty) -> None:
    model = Averaged().fit(forty, replace(STEPS, epochs=6))
    assert model.trained_at == [0, *Averaged.planted[:-1]]
    means = running_means(Averaged.planted, 0.4)
    np.testing.assert_allclose(model.validated_at, means[1::2], rtol=1e-6)
    np.testing.assert_allclose(model.history["validation"], means[1::2], rtol=1e-6)


def test_what_is_kept_is_the_mean_that_was_validated_best(forty, monkeypatch) -> None:
    means = running_means(Averaged.planted, 0.4)
    monkeypatch.setattr(Averaged, "goal", means[3])
    model = Averaged().fit(forty, replace(STEPS, epochs=6, patience=3))
    assert model.history["epochs"] == 2 and len(model.history["validation"]) == len(model.history["train"]) == 5
    assert model.weight.item() == pytest.approx(means[3]) and model.weight.item() != pytest.approx(3.0)
    assert model.steps == 4


class AveragedOverfits(Overfits):
    averaging = 0.9


def test_refit_ends_with_the_mean_as_well(forty) -> None:
    plan = replace(STEPS, epochs=20, patience=4)
    again = AveragedOverfits().fit(forty, replace(plan, refit=True))
    straight = AveragedOverfits().fit(forty, replace(plan, epochs=3, validation=0.0))
    raw = Overfits().fit(forty, replace(plan, epochs=3, validation=0.0))
    assert again.history["epochs"] == 3
    assert torch.equal(again.line.weight, straight.line.weight)
    assert not torch.equal(raw.line.weight, straight.line.weight)


# Steps --------------------------------------------------------------------------------------------


def test_training_ends_near_least_squares(sources) -> None:
    model = Line(Config(epochs=150)).fit(sources, PLAN)
    x = np.concatenate([next(model.seen(s, 99)).features.numpy()[s.measured] for s in sources])
    y = np.concatenate([s.expression[s.measured] for s in sources])
    best = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    np.testing.assert_allclose(model.line.weight.detach().numpy().T, best[:-1], atol=0.05)
    assert not model.training and model.history["train"][-1] < 0.2 * model.history["train"][0]


def test_the_history_is_the_mean_loss_of_each_epoch(arrays) -> None:
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(40, 2)), features=rng.normal(size=(40, 3)))
    model = Line(Config(lr=0.0, epochs=2)).fit(source, PLAN)
    with torch.no_grad():
        whole = model.train().loss(next(model.seen(source, 40)))["mse"]
    np.testing.assert_allclose(model.history["train"], [whole] * 2, rtol=1e-5)


@pytest.mark.parametrize(("clip", "length"), [(1.0, 1.0), (0.25, 0.25), (0, None)])
def test_gradients_are_clipped_to_the_norm_asked_for(arrays, clip, length) -> None:
    """Steps of plain gradient descent with rate 1 are as long as the gradient."""

    class Plain(Line):
        def optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=1.0)

        def step_in(self, batch):
            if self.training and not self.trained_on:
                self.start = [weight.detach().clone() for weight in self.parameters()]

    source = arrays(np.full((10, 1), 100.0) + np.arange(10)[:, None], features=np.arange(10.0)[:, None])
    model = Plain().fit(source, replace(PLAN, clip=clip, epochs=1))
    moved = torch.cat([(a.detach() - b).flatten() for a, b in zip(model.parameters(), model.start, strict=True)]).norm()
    if length is None:
        assert moved > 50
    else:
        torch.testing.assert_close(moved, torch.tensor(length))


def test_equal_seeds_give_equal_models_and_others_do_not(sources) -> None:
    one, two, other = (Line().fit(sources, replace(PLAN, seed=seed)) for seed in (4, 4, 5))
    assert one.trained_on == two.trained_on != other.trained_on
    assert one.sha256 == two.sha256 != other.sha256


def test_the_seed_covers_what_the_model_draws_itself(sources) -> None:
    class Noisy(Line):
        def step_in(self, batch):
            batch.features += 0.1 * torch.randn_like(batch.features)

    torch.manual_seed(1)
    one = Noisy().fit(sources, PLAN)
    torch.manual_seed(2)
    assert Noisy().fit(sources, PLAN).sha256 == one.sha256


# What may go wrong --------------------------------------------------------------------------------


class Fails(Line):
    """Raises what a test wants in the third epoch, in every fit but the first."""

    error: BaseException | None = None

    def step_in(self, batch):
        if self.error is not None and len(self.trained_on) == 4:
            raise self.error


@pytest.fixture
def small(arrays):
    rng = np.random.default_rng(0)
    return arrays(rng.normal(size=(30, 2)), features=rng.normal(size=(30, 3)))


@pytest.mark.parametrize("decay", [0.0, 0.9], ids=["weights", "mean"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the disk is gone")], ids=["ctrl-c", "error"])
def test_what_breaks_off_a_fit_comes_through_and_the_model_stays(small, monkeypatch, error, decay) -> None:
    monkeypatch.setattr(Fails, "averaging", decay)
    model = Fails().fit(small, PLAN)
    before, said = model.sha256, model.predict(small, device="cpu").mean
    monkeypatch.setattr(Fails, "error", error)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        model.fit(replace(small, expression=small.expression[:, :1], genes=("A",)), replace(PLAN, seed=9))
    assert signal.getsignal(signal.SIGINT) is handler  # a second Ctrl-C still works
    assert model.sha256 == before and len(model.genes) == 2
    assert torch.equal(model.predict(small, device="cpu").mean, said)
    monkeypatch.setattr(Fails, "error", None)
    assert model.fit(small, PLAN).sha256 == before


def test_ctrl_c_by_the_signal_itself_is_a_keyboard_interrupt(small) -> None:
    class Interrupted(Line):
        def step_in(self, batch):
            if len(self.trained_on) == 3:
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            Interrupted().fit(small, PLAN)
    finally:
        signal.signal(signal.SIGINT, before)


def test_leaving_the_program_is_still_leaving_it(small, monkeypatch) -> None:
    monkeypatch.setattr(Fails, "error", SystemExit(3))
    with pytest.raises(SystemExit, match="3"):
        Fails().fit(small, PLAN)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_not_finite_names_the_epoch_and_its_parts(sources, value, where) -> None:
    class Breaks(Line):
        def loss(self, batch):
            parts = super().loss(batch)
            here = self.training == (where == "training")
            return parts | {"kl": parts["mse"] * value} if here and len(self.trained_on) > 12 else parts

    # section C, the smallest, or another is held out: 4 to 5 steps an epoch in training; 6 without validation
    plan = replace(PLAN, validation=0.3 if where == "validation" else 0.0)
    message = r"the loss of 'line' is not finite in epoch [23]: \{'mse': .*, 'kl': (nan|inf)\}. Lower Config.lr"
    with pytest.raises(sqi.SqImputerError, match=message):
        Breaks().fit(sources, plan)


def test_nothing_of_the_callers_world_changes(small) -> None:
    random.seed(0), np.random.seed(0), torch.manual_seed(0)

    def world() -> list:
        loggers = [logging.getLogger(name) for name in ("sq_imputer", "torch", None)]
        return [
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.get_float32_matmul_precision(),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            [(logger.level, list(logger.handlers)) for logger in loggers],
            list(warnings.filters),
            dict(os.environ),
        ]

    before = world()
    model = Line().fit(small, replace(PLAN, validation=0.3))
    model.predict(small, device="cpu")
    assert world() == before


def test_it_says_nothing(small, capfd, tmp_path, monkeypatch, recwarn) -> None:
    monkeypatch.chdir(tmp_path)
    Line().fit(small, Plan(device="cpu", validation=0.3))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert [str(warning.message) for warning in recwarn if "sq_imputer" in str(warning.filename)] == []


# Plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "Plan.epochs is 0; expected a whole number, 1 or more"),
        ({"epochs": 2.5}, "Plan.epochs is 2.5; expected a whole number"),
        ({"batch_size": -1}, "Plan.batch_size is -1; expected a whole number"),
        ({"validation": 1.0}, "Plan.validation is 1.0; it is a share of the rows, from 0 to below 1"),
        ({"validation": -0.1}, "Plan.validation is -0.1; expected a number, 0 or more"),
        ({"patience": 0}, "Plan.patience is 0; expected a whole number, 1 or more"),
        ({"clip": -1.0}, "Plan.clip is -1.0; expected a number, 0 or more"),
        ({"clip": float("nan")}, "Plan.clip is nan; expected a number, 0 or more"),
        ({"seed": -1}, "Plan.seed is -1; expected a whole number from 0"),
        ({"memory_mb": -1}, "Plan.memory_mb is -1; expected a number, 0 or more"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_plans_that_make_no_sense_are_named(changes, message) -> None:
    with pytest.raises(sqi.BadInput, match=message):
        Plan(**changes)


def test_the_plan_goes_before_the_config(sources) -> None:
    model = Line(Config(epochs=5, batch_size=16)).fit(sources, replace(PLAN, epochs=2, batch_size=45))
    assert len(model.history["train"]) == 2 and [len(batch) for batch in model.trained_on] == [45] * 4


@pytest.mark.parametrize(
    ("asked", "kind", "bf16", "expected"),
    [
        ("auto", "cpu", True, "32-true"),
        ("auto", "mps", True, "32-true"),
        ("auto", "cuda", True, "bf16-mixed"),
        ("auto", "cuda", False, "32-true"),
        ("16-mixed", "cuda", True, "16-mixed"),
    ],
)
def test_precision_follows_the_device_unless_it_is_named(asked, kind, bf16, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert steps.precision_on(asked, kind) == expected
