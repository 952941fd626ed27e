"""Encoders as a config names them; that fitted and saved models keep to it is tested in test_own.py."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from sq_imputer import encoders
from sq_imputer.encoders._named import name_of
from sq_imputer.errors import BadInput


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_brought", set())


def shade(crops: np.ndarray) -> np.ndarray:
    return crops.mean(axis=(2, 3))


class Shade:
    """A thing that is called: it goes by the name of its class."""

    def __call__(self, crops):
        return 2 * shade(crops)


def test_a_name_is_itself_and_a_function_goes_by_its_own():
    assert [name_of(one, size_px=40) for one in ("texture", shade, Shade())] == ["texture", "shade", "Shade"]
    assert encoders.encoder_card("shade").dim == 3 and encoders.encoder_card("shade").size_px == 40


def test_what_gives_the_same_goes_by_one_name_and_what_gives_others_does_not():
    def other(crops):
        return crops.max(axis=(2, 3))

    name_of(shade, size_px=40)
    assert name_of(shade, size_px=40) == "shade"
    other.__name__ = "shade"
    with pytest.raises(BadInput, match="an encoder 'shade' that gives other features.*from_callable"):
        name_of(other, size_px=40)
    assert len(encoders.get_encoder("shade").provenance["canary"]) == 3  # the first is still there


@pytest.mark.parametrize("nameless", [lambda crops: crops, partial(shade)])
def test_what_has_no_name_of_its_own_is_to_be_named(nameless):
    with pytest.raises(BadInput, match="by which a saved model could ask for it"):
        name_of(nameless)
