"""The config of a model, back from JSON: nothing but numbers and words, each of the type that the class says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

from sq_imputer.encoders._named import name_of
from sq_imputer.errors import BadInput, listed


def thaw(config: type, values: dict):
    """A frozen config from JSON: lists become tuples, dictionaries dataclasses, and every value has its type."""
    known = {field.name: field.default for field in fields(config)}
    strange = set(values) - set(known)
    if strange:
        raise BadInput(
            f"{config.__qualname__} has no {listed(sorted(strange))}; the model was saved by another version."
        )
    try:
        kinds = get_type_hints(config)
    except NameError:  # a class made inside of a function
        kinds = {name: type(default) for name, default in known.items() if is_dataclass(default)}
    thawed = {}
    for name, value in values.items():
        try:
            thawed[name] = _cast(kinds.get(name, object), value)
        except TypeError as error:
            raise BadInput(f"{config.__qualname__}.{name} is {repr(value)[:60]}; expected {kinds[name]}.") from error
    return config(**thawed)


def with_names(config):
    """The config, in whose `encoders` modules and functions have become names, which can be saved."""
    brought = getattr(config, "encoders", ())
    if not isinstance(brought, tuple | list) or all(isinstance(one, str) for one in brought):
        return config
    return replace(config, encoders=_names(brought, config))


def _names(brought: Sequence, crops) -> tuple[str, ...]:
    """Names of encoders that are given crops as a config, or a class of such, says."""
    size_px, extent_um = getattr(crops, "size_px", 224), getattr(crops, "extent_um", 112.0)
    return tuple(name_of(one, size_px=size_px, mpp=extent_um / size_px) for one in brought)


def of_mapping(config: type, values: Mapping, name: str):
    """A config of the fields of a model that a user names, each of the type that the class says."""
    known = [field.name for field in fields(config)]
    strange = [field for field in values if field not in known]
    if strange:
        raise BadInput(f"config names {listed(strange)}; {name}.Config has {listed(known, 20)}.")
    plain = {field: value.item() if hasattr(value, "item") else value for field, value in values.items()}
    brought = plain.get("encoders", ())
    if isinstance(brought, tuple | list) and not all(isinstance(one, str) for one in brought):
        crops = {field: plain[field] for field in ("size_px", "extent_um") if field in plain}
        plain["encoders"] = _names(brought, thaw(config, crops))
    return thaw(config, {field: list(one) if isinstance(one, tuple) else one for field, one in plain.items()})


def _cast(kind, value):
    """A value of JSON as a type of Python; types that only a plug-in uses are not checked."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        for one in inner:
            try:
                return _cast(one, value)
            except TypeError:
                continue
        raise TypeError
    if is_dataclass(kind) and isinstance(value, dict):
        return thaw(kind, value)
    if origin is tuple and isinstance(value, list):
        inner = inner if inner[-1] is not ... else inner[:1] * len(value)
        return tuple(_cast(one, item) for one, item in zip(inner, value, strict=True))
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and type(value) in (int, float) and abs(value) < math.inf:
        return value
    simple = kind in (bool, int, float, str, type(None))
    if (simple and type(value) is not kind) or (kind is float) or is_dataclass(kind) or origin is tuple:
        raise TypeError
    return tuple(value) if isinstance(value, list) else value
