from __future__ import annotations

from dataclasses import dataclass

import pytest

import sq_imputer as sqi
from sq_imputer.models import agl, bilinear, dkan, mclstexp, mlp, nsl, ridge, stem
from sq_imputer.ranges import Range, check_ranges, one_of, within


@dataclass(frozen=True)
class Config:
    """As a plug-in has it: some ranges said, some fields that only the harness knows."""

    units: int = within(4, 1, 9)
    share: float = within(0.5, 0, below=1)
    size: float | None = within(None, above=0)
    sides: tuple[float, ...] = within((1.0, 2.0), above=0)
    form: str = one_of("round", ("round", "flat"))
    note: object = None
    epochs: int = 3
    calibration: int = 0
    lr: float = 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": 0}, "test_ranges.Config.units is 0; expected a whole number from 1 to 9."),
        ({"units": 2.5}, "units is 2.5; expected a whole number"),
        ({"units": True}, "units is True; expected a whole number"),
        ({"units": None}, "units is None; expected a whole number"),
        ({"share": 1}, "share is 1; expected a number from 0 to below 1."),
        ({"share": float("nan")}, "share is nan; expected a number"),
        ({"share": "a"}, "share is 'a'; expected a number"),
        ({"size": 0}, "size is 0; expected a number above 0."),
        ({"sides": (3.0, -1.0)}, "sides is -1.0; expected a number above 0."),
        ({"form": "square"}, "form is 'square'; expected one of 'round', 'flat'."),
        ({"epochs": 0}, "epochs is 0; expected a whole number of 1 or more."),
        ({"calibration": 1}, "calibration is 1; expected a whole number of 0 or more, but not 1."),
        ({"lr": -1.0}, "lr is -1.0; expected a number of 0 or more."),
    ],
)
def test_what_cannot_be_is_named_with_what_can(changes, message) -> None:
    with pytest.raises(sqi.BadInput, match=message):
        check_ranges(Config(**changes))


@pytest.mark.parametrize("changes", [{}, {"units": 9}, {"size": 1e-9}, {"sides": ()}, {"share": 0}, {"note": -5}])
def test_what_can_be_is_let_through(changes) -> None:
    check_ranges(Config(**changes))


def test_a_range_is_said_in_words() -> None:
    assert [str(Range(1)), str(Range(above=0)), str(Range(0, 2))] == ["of 1 or more", "above 0", "from 0 to 2"]


@pytest.mark.parametrize("module", [agl, bilinear, dkan, mclstexp, mlp, nsl, ridge, stem])
def test_the_configs_of_all_models_lie_in_their_ranges(module) -> None:
    for name in {"small", "paper"} & set(dir(module.Config)):
        check_ranges(getattr(module.Config, name)())


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (mlp, {"dropout": 2}),
        (mlp, {"lr": -1}),
        (mlp, {"hidden": 0}),
        (mlp, {"encoders": ()}),
        (ridge, {"landmarks": 0}),
        (ridge, {"context_um": (75.0,)}),
        (ridge, {"encoders": "texture"}),
        (stem, {"heads": 0}),
        (stem, {"depth": 0}),
        (stem, {"ema": 2}),
        (dkan, {"kv": "keys"}),
        (dkan, {"gene_heads": 5}),
        (mclstexp, {"heads": 0}),
        (mclstexp, {"batch_size": 1}),
        (nsl, {"size_px": 0}),
    ],
)
def test_configs_that_cannot_be_are_refused_when_they_are_made(module, changes) -> None:
    with pytest.raises(sqi.BadInput, match=next(iter(changes))):
        module.Config(**changes)


def test_a_context_is_wider_than_the_crop_whoever_asks() -> None:
    with pytest.raises(sqi.BadInput, match="context_um has 75.0 µm; a context is wider than the crop, of 150.0 µm"):
        sqi.Needs(sqi.CropSpec(150.0, 64), ("texture",), (400.0, 75.0))


def test_a_verb_refuses_a_config_before_it_fits(section) -> None:
    with pytest.raises(sqi.BadInput, match="mlp.Config.dropout is 2"):
        sqi.tl.fit(section, "mlp", config={"dropout": 2})


def test_the_config_of_a_plug_in_is_checked_as_well() -> None:
    class Model(sqi.Predictor):
        card = sqi.ModelCard("own", "Own.", "None.", "All.", "All.", "For tests.")
        needs = build = predict_step = None

    Model.Config = Config
    with pytest.raises(sqi.BadInput, match="Config.units is 10; expected a whole number from 1 to 9"):
        Model(Config(units=10))


def test_one_row_at_a_time_is_refused_where_nothing_could_be_learned(toy_slides, monkeypatch) -> None:
    model = mclstexp.Model(mclstexp.Config.small())
    with pytest.raises(sqi.BadInput, match="Plan.batch_size is 1; 'mclstexp' learns nothing from fewer than 2 rows"):
        model.fit(toy_slides[0], sqi.Plan(batch_size=1, device="cpu", progress=False))

    def full(*_) -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(mclstexp.Model, "loss", full)
    few = toy_slides[0].take(range(12))
    with (
        pytest.raises(sqi.errors.OutOfMemory, match="as few rows at a time as it learns from"),
        pytest.warns(RuntimeWarning),
    ):
        model.fit(few, sqi.Plan(batch_size=8, device="cpu", progress=False))
