from __future__ import annotations

from dataclasses import dataclass, field

import pytest

import sq_imputer as sqi
from sq_imputer.predictor.config import thaw


@dataclass(frozen=True)
class Inner:
    depth: int = 2


@dataclass(frozen=True)
class Config:
    names: tuple[str, ...] = ("a",)
    sides: tuple[int, float] = (1, 2.0)
    inner: Inner = field(default=Inner())
    rate: float = 0.1
    k: int | None = None
    deep: bool = False
    free: object = None


def test_configs_come_back_as_they_were() -> None:
    values = {"names": ["x", "y"], "sides": [3, 4.5], "inner": {"depth": 7}, "rate": 1, "k": 5, "deep": True}
    assert thaw(Config, values) == Config(("x", "y"), (3, 4.5), Inner(7), 1, 5, True)
    assert thaw(Config, {}) == Config()
    assert thaw(Config, {"k": None, "free": {"a": [1]}}) == Config(free={"a": [1]})


def test_a_class_made_inside_of_a_function_is_known_by_its_defaults() -> None:
    @dataclass(frozen=True)
    class Nested:
        depth: int = 2

    @dataclass(frozen=True)
    class Outer:
        nested: Nested = field(default=Nested())
        names: tuple[str, ...] = ()

    assert thaw(Outer, {"nested": {"depth": 3}, "names": ["x"]}) == Outer(Nested(3), ("x",))


def test_whole_numbers_may_be_written_with_a_point() -> None:
    assert thaw(Config, {"k": 5.0}).k == 5


@pytest.mark.parametrize(
    "values",
    [
        {"names": "ab"},
        {"names": [1]},
        {"names": [["a"]]},
        {"names": None},
        {"inner": {"depth": "2"}},
        {"inner": 3},
        {"rate": "0.1"},
        {"rate": True},
        {"rate": float("inf")},
        {"k": 1.5},
        {"k": True},
        {"deep": 1},
        {"deep": None},
    ],
    ids=str,
)
def test_values_of_another_type_are_named(values) -> None:
    [name] = values
    field = "Inner.depth" if values == {"inner": {"depth": "2"}} else f"Config.{name}"
    with pytest.raises(sqi.BadInput, match=f"{field} is .*; expected "):
        thaw(Config, values)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(sqi.BadInput, match="Config has no 'depth', 'width'; the model was saved by another version"):
        thaw(Config, {"width": 1, "depth": 3})
