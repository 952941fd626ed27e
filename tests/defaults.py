"""Other defaults of a model for a test, so that it is quick."""

from __future__ import annotations

from dataclasses import make_dataclass

import pytest

import sq_imputer as sqi

SMALL_CROPS = {"size_px": 32, "context_um": ()}


def with_defaults(patch: pytest.MonkeyPatch, name: str, values: dict) -> None:
    """Settings of a model have these values unless told otherwise, until the patch is undone."""
    model = sqi.get_model(name)
    fields = [(field, type(value), value) for field, value in values.items()]
    patch.setattr(model, "Config", make_dataclass("Config", fields, bases=(model.Config,), frozen=True))
