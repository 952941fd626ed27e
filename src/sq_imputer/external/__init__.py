"""Models of others, which come fitted: as lazyslide-models offers them, asked under our contract.

One file an adapter. It says what the library does not: which crop a model sees, in what stain, and in which unit it
answers. All else (license, gate, weights, genes) is asked of the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.predictor.config import of_mapping
from sq_imputer.ranges import check_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sq_imputer.external._base import External
    from sq_imputer.predictor.registry import ModelCard

PREFIX = "zoo:"
ADAPTERS = {"deepspotm": "_deepspotm", "path2space": "_path2space", "stpath": "_stpath"}

__all__ = ["cards", "is_external", "predictor"]


def is_external(model: Any) -> bool:
    """Whether this is the name of a model of others."""
    return isinstance(model, str) and model.startswith(PREFIX)


def cards() -> list[ModelCard]:
    """The cards of all adapters; lazyslide-models need not be installed."""
    return [_class_of(name).card for name in ADAPTERS]


def predictor(model: str, config: Mapping | object | None = None, genes: Sequence[str] | None = None) -> External:
    """A model of others, with its weights, ready to be asked.

    Parameters
    ----------
    model
        `"zoo:path2space"`, `"zoo:stpath"` or `"zoo:deepspotm"`.
    config
        A `Config` of the adapter, or a dict of the fields that differ from its defaults.
    genes
        Which genes; all that the model has if left out.

    Raises
    ------
    MissingKey
        If there is no such adapter, or the model does not predict a gene.
    BadInput
        If lazyslide-models is not installed, the config does not fit, or the weights cannot be had.
    """
    name = model.removeprefix(PREFIX)
    if name not in ADAPTERS:
        known = listed(f"{PREFIX}{one}" for one in ADAPTERS)
        raise MissingKey(f"no model '{model}'; models of others are {known}. Encoders go into encoders=('{model}',).")
    found = _class_of(name)
    if not isinstance(config, found.Config):
        values = {} if config is None else config
        if not isinstance(values, Mapping):
            raise BadInput(f"config of '{name}' is a {type(values).__name__}; expected a dict of its fields.")
        config = of_mapping(found.Config, values, name)
    check_ranges(config)
    return found(config, genes)


def _class_of(name: str) -> type[External]:
    return import_module(f"sq_imputer.external.{ADAPTERS[name]}").Model
