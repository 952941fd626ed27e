"""Where image, shapes and counts of a section are found in an object, and the keywords that verbs take for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from typing import TypedDict, TypeVar

from sq_imputer.errors import BadInput, listed
from sq_imputer.progress import quiet
from sq_imputer.surroundings import undisturbed

F = TypeVar("F", bound=Callable)


class SlideKeys(TypedDict, total=False):
    """The arguments of `Slide.from_sdata`, which every verb hands on."""

    image_key: str | None
    shapes_key: str | None
    table_key: str | None
    coordinate_system: str | None
    mpp: float | None
    technology: str | None
    layer: str | None
    patient_key: str
    outside: str
    missing: str
    section_key: str | None
    gene_symbols: str | None
    nuclei_key: str | None


# What is recorded of a section, by which it is found again; empty where it was not needed.
PLACES = ("image_key", "shapes_key", "table_key", "coordinate_system", "layer", "section_key", "gene_symbols")
DEFAULTS = {"table_key": "table", "patient_key": "patient", "outside": "error", "missing": "error"}


def verb(function: F) -> F:
    """Make a function a verb: it names its keywords, refuses others in our words, and is silent if asked to be.

    The keywords of :class:`SlideKeys` stand in the signature of one that hands them on. One that runs on a `device`
    takes `progress=False` as well, which shows no bars, and is :func:`undisturbed` from the start.
    """
    own = signature(function)
    parameters = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    runs = "device" in own.parameters
    silent = runs and "progress" not in own.parameters
    if silent:
        parameters.append(Parameter("progress", Parameter.KEYWORD_ONLY, default=True, annotation="bool"))
    if len(own.parameters) > len(parameters) - silent:
        for name, kind in SlideKeys.__annotations__.items():
            if name in own.parameters:
                continue
            default = DEFAULTS.get(name)
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=_spelled(kind)))
    known = [p.name for p in parameters]

    @wraps(function)
    def call(*args, **named):
        _check_names(function, named, known)
        shown = named.pop("progress") if silent and "progress" in named else True
        if not isinstance(shown, bool):
            raise BadInput(f"progress is {shown!r}; expected True or False.")
        with quiet(not shown), undisturbed() if runs else nullcontext():
            return function(*args, **named)

    call.__signature__ = own.replace(parameters=parameters)
    if function.__doc__:
        call.__doc__ = function.__doc__.replace("**keys", ", ".join(SlideKeys.__annotations__))
    return call


def _spelled(kind) -> str:
    return getattr(kind, "__forward_arg__", str(kind))


def _check_names(function: Callable, named, known: list[str]) -> None:
    """Refuse keywords that a verb does not have, with the one that was meant, if it can be told."""
    strange = [name for name in named if name not in known]
    if not strange:
        return
    room = function.__module__.split(".")[1]
    near = get_close_matches(strange[0], known, n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]}=?" if near else ""
    raise BadInput(
        f"{room}.{function.__name__} has no argument {listed(strange)}.{meant} It takes {listed(known, len(known))}."
    )
