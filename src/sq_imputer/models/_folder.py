"""Reading a fitted model back from the folder it was saved in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, MissingKey, SqImputerError, listed
from sq_imputer.registry import get_model

if TYPE_CHECKING:
    from sq_imputer.models._base import Predictor

FORMAT = 1
SETTINGS, WEIGHTS = "model.json", "weights.safetensors"


def load(path: str | Path) -> Predictor:
    """Read a fitted model from a folder written by `predictor.save(folder)`.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    MissingKey
        If the folder, a file in it, or the model's name is not there.
    BadInput
        If the folder is damaged or of a newer version.
    """
    return load_as(path, get_model)


def load_as(path: str | Path, find: Callable[[str], type[Predictor]]) -> Predictor:
    """The model in a folder; `find` gives the class of a name."""
    from safetensors import SafetensorError
    from safetensors.torch import load as read_tensors

    folder = Path(path)
    absent = [name for name in (SETTINGS, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise MissingKey(
            f"'{folder}' is no model folder: {listed(absent)} not there. Give a folder written by predictor.save()."
        )
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        if settings["format"] > FORMAT:
            raise BadInput(
                f"'{folder}' has format {settings['format']}; this version reads up to {FORMAT}. Upgrade sq-imputer."
            )
        model = find(settings["model"])
        predictor = model(_thaw(model.Config, settings["config"]))
        predictor.genes, predictor.unit = tuple(settings["genes"]), settings["unit"]
        predictor.sizes, predictor.provenance, predictor.history = (
            settings[k] for k in ("sizes", "provenance", "history")
        )
        digest = settings["sha256"]
    except SqImputerError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"'{folder / SETTINGS}' is damaged: {type(error).__name__} {error}. Save or download the model again."
        ) from error
    content = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise BadInput(
            f"'{folder / WEIGHTS}' does not have the sha256 that {SETTINGS} names. Save or download the model again."
        )
    predictor._register_statistics()
    predictor.build()
    try:
        predictor.load_state_dict(read_tensors(content))
    except (SafetensorError, RuntimeError) as error:
        raise BadInput(f"'{folder / WEIGHTS}' does not fit the model '{settings['model']}': {error}") from error
    return predictor.eval()


def _thaw(config: type, values: dict):
    """A frozen config from JSON: lists become tuples, dictionaries the dataclass they came from."""
    known = {field.name: field for field in fields(config)}
    strange = set(values) - set(known)
    if strange:
        raise BadInput(
            f"{config.__qualname__} has no {listed(sorted(strange))}; the model was saved by another version."
        )
    thawed = {}
    for name, value in values.items():
        default = known[name].default
        if isinstance(value, dict) and is_dataclass(default):
            value = type(default)(**value)
        thawed[name] = tuple(value) if isinstance(value, list) else value
    return config(**thawed)
