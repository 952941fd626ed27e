"""Provenance that survives a store: what goes into `uns` in memory equals what is read back from disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import numpy as np

from sq_imputer.errors import BadInput


def plain(value):
    """Provenance in the form in which it survives a store, so that what is in memory equals what is read back.

    Dataclasses become dicts, paths become text, numpy scalars become Python's, and sequences become arrays (a sequence
    of unlike things: a dict with the keys "0", "1", ...). None is left out of dicts, so that absent means None.
    `pythonic` turns arrays back into lists.

    Raises
    ------
    BadInput
        If a value is none of these.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value
    if isinstance(value, Sequence | Set | np.ndarray):
        items = list(value)
        if all(isinstance(item, str) for item in items):
            return np.array(items, dtype=object) if items else np.array([])
        if all(isinstance(item, bool | int | float | np.generic) for item in items):
            return np.array(items)
        return plain({str(i): item for i, item in enumerate(items)})
    raise BadInput(
        f"{value!r} ({type(value).__name__}) cannot be kept in uns; give text, numbers, lists or dicts of them."
    )


def pythonic(value):
    """Provenance read from `uns` as plain Python: arrays as lists, numpy scalars as Python's."""
    if isinstance(value, Mapping):
        return {key: pythonic(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value
