"""Names to models: built-in names are the files in `models/`, others come from entry points `sq_imputer.models`."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, MissingKey, listed

if TYPE_CHECKING:
    from sq_imputer.contract import Model

GROUP = "sq_imputer.models"
_registered: dict[str, type[Model]] = {}


@dataclass(frozen=True)
class ModelCard:
    """What a user must know before running a model.

    Parameters
    ----------
    name
        The registry key, which is also the file name and the layer name.
    summary
        One sentence.
    paper
        Title, venue and year of the publication, or how the method is known.
    doi
        DOI or arXiv id; empty if there is no publication.
    citation
        BibTeX entry; empty if there is no publication.
    established
        What follows the publication.
    ours
        What is this package's own choice.
    limits
        Where not to trust it.
    uncertainty
        What `<model>_std` means; empty if the model has none.
    license
        License of the method's code here.
    targets
        Kinds of target that the model takes (:class:`sq_imputer.Target`).
    rows
        What its rows are: `"spots"` of a section, or `"genes"`, of which it reads the DNA.
    zero_shot
        Whether it can be asked for genes that it was not fitted on (:meth:`sq_imputer.Predictor.for_genes`).
    """

    name: str
    summary: str
    paper: str
    established: str
    ours: str
    limits: str
    doi: str = ""
    citation: str = ""
    uncertainty: str = ""
    license: str = "BSD-3-Clause"
    targets: tuple[str, ...] = ("genes",)
    zero_shot: bool = False
    rows: str = "spots"


def _builtin() -> list[str]:
    folder = Path(__file__).parents[1] / "models"
    return [module.name for module in pkgutil.iter_modules([str(folder)]) if not module.name.startswith("_")]


@cache
def _plugins() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def list_models() -> list[str]:
    """Names of all models: built in, registered here, and installed as plug-ins. Imports none of them."""
    return sorted({*_builtin(), *_registered, *_plugins()})


def register_model(model: type[Model]) -> type[Model]:
    """Add a model class under its card's name, for this process. Usable as a decorator.

    Raises
    ------
    BadInput
        If another model has the name.
    """
    name = model.card.name
    known = _registered.get(name)
    if (known is not None and known is not model) or name in _builtin() or name in _plugins():
        raise BadInput(f"a model named '{name}' exists already; give the card of {model.__name__} another name.")
    _registered[name] = model
    return model


def get_model(name: str) -> type[Model]:
    """The model class of a name.

    Raises
    ------
    MissingKey
        If there is no such model.
    BadInput
        If several have the name, or a plug-in's card says another.
    """
    if name in _registered:
        return _registered[name]
    places = [f"sq_imputer.models.{name}:Model"] if name in _builtin() else []
    places += [point.value for point in _plugins().get(name, ())]
    if len(places) > 1:
        raise BadInput(f"several models are named '{name}': {listed(places)}. Uninstall all but one.")
    if name in _builtin():
        return importlib.import_module(f"sq_imputer.models.{name}").Model
    if name in _plugins():
        return _checked(_plugins()[name][0])
    raise MissingKey(
        f"no model '{name}'; there are {listed(list_models(), 20)}. A plug-in adds one by the entry point '{GROUP}'."
    )


def _checked(point: EntryPoint) -> type[Model]:
    """The class behind an entry point, whose name must be the card's: files and layers are named by the card."""
    model = point.load()
    if model.card.name != point.name:
        raise BadInput(
            f"entry point '{point.name}' leads to {point.value}, whose card is named '{model.card.name}'; give both "
            "one name."
        )
    return model


def cite(name: str) -> str:
    """BibTeX entry of the paper behind a model, or the sentence that says there is none."""
    card = get_model(name).card
    return card.citation or card.paper
