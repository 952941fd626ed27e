"""Encoders as a config names them: by a word, or by themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sq_imputer import encoders
from sq_imputer.encoders._shelf import same
from sq_imputer.errors import BadInput


def name_of(encoder: str | Callable[[Any], Any], *, size_px: int = 224, mpp: float = 0.5) -> str:
    """The name of an encoder; a module or function is known by that of its class, or its own, from then on.

    Parameters
    ----------
    encoder
        A name, or what :func:`from_callable` takes.
    size_px, mpp
        The crops that it is given.

    Raises
    ------
    BadInput
        If it has no name that says anything, or one of this name that gives other features is known.
    """
    if isinstance(encoder, str):
        return encoder
    from sq_imputer.encoders._own import called

    name = called(encoder)
    known = encoders._registered.get(name) if name in encoders._brought else None
    before = encoders.get_encoder(name).provenance if known else {}
    encoders.from_callable(encoder, name, size_px=size_px, mpp=mpp)
    if not same(before, encoders.get_encoder(name).provenance):
        encoders._registered[name] = known
        raise BadInput(
            f"an encoder '{name}' that gives other features (weights, or crops of another size) is known in this "
            f"process. Name this one: from_callable(encoder, 'a_name', size_px={size_px}), and pass the name."
        )
    return name
