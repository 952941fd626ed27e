"""Frozen image encoders by name: `texture` needs no weights, others run through timm or lazyslide-models.

None of these is imported before an encoder needs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sq_imputer.encoders._cards import BUILTIN, EncoderCard
from sq_imputer.errors import BadInput, MissingKey, listed

if TYPE_CHECKING:
    from sq_imputer.encoders._base import Encoder

__all__ = [
    "Encoder",
    "EncoderCard",
    "encoder_card",
    "from_callable",
    "get_encoder",
    "list_encoders",
    "register_encoder",
]

_registered: dict[str, tuple[EncoderCard, Callable[..., Encoder]]] = {}
_brought: set[str] = set()  # names of functions of the user, which may be replaced


def __getattr__(name: str):
    if name == "Encoder":
        from sq_imputer.encoders._base import Encoder

        return Encoder
    raise AttributeError(f"module 'sq_imputer.encoders' has no attribute '{name}'")


def list_encoders() -> list[str]:
    """Names of the encoders with a card. Imports no heavy library.

    Besides these, every timm model is `timm:<name>`, and every encoder of lazyslide-models `zoo:<name>`.
    """
    return sorted({*BUILTIN, *_registered})


def encoder_card(name: str) -> EncoderCard:
    """The card of an encoder.

    Imports no heavy library, except for `timm:<name>` and `zoo:<name>`, whose cards timm and lazyslide-models hold.

    Raises
    ------
    MissingKey
        If there is no such encoder.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    if name in _registered:
        return _registered[name][0]
    if isinstance(name, str) and name.startswith("timm:"):
        from sq_imputer.encoders._timm import timm_card

        return timm_card(name)
    if isinstance(name, str) and name.startswith("zoo:"):
        from sq_imputer.encoders._zoo import zoo_card

        return zoo_card(name)
    raise MissingKey(
        f"no encoder '{name}'; there are {listed(list_encoders(), 20)}, 'timm:<any timm model>' and 'zoo:<any encoder "
        "of lazyslide-models>'. One of your own "
        "is known after encoders.from_callable(function, name)."
    )


def _build_timm(card: EncoderCard, weights=None, revision=None) -> Encoder:
    from sq_imputer.encoders._timm import build

    return build(card, weights, revision)


def _build_zoo(card: EncoderCard, weights=None, revision=None) -> Encoder:
    from sq_imputer.encoders._zoo import build

    return build(card, weights, revision)


def register_encoder(card: EncoderCard, build: Callable[..., Encoder] | None = None) -> EncoderCard:
    """Add an encoder under its card's name, for this process.

    Parameters
    ----------
    card
        What it sees and gives.
    build
        Called as `build(card, weights, revision)`; returns the encoder. If left out, the card's `architecture` is built
        with timm.

    Raises
    ------
    BadInput
        If the name is taken, or there is neither `build` nor an `architecture`.
    """
    if (
        card.name in BUILTIN
        or card.name.startswith(("timm:", "zoo:"))
        or _registered.get(card.name, (card,))[0] != card
    ):
        raise BadInput(f"an encoder named '{card.name}' exists already; give the card another name.")
    if build is None and not card.architecture:
        raise BadInput(f"encoder '{card.name}' has no `architecture` in its card; pass build=.")
    _registered[card.name] = (card, build or _build_timm)
    return card


def from_callable(
    function: Callable[[Any], Any],
    name: str,
    *,
    size_px: int = 224,
    mpp: float = 0.5,
    transform: Callable[[Any], Any] | None = None,
) -> EncoderCard:
    """Make an encoder of a torch module or a function, for this process; it is known by its name from then on.

    Called again for the same name, it takes the place of the one before. A model that was fitted on its features asks
    for it by name when it is loaded, and checks weights and canary (`docs/encoders.md`).

    Parameters
    ----------
    function
        A torch module: called with a `(B, 3, S, S)` uint8 tensor, in `eval` mode, without gradients, on the device of
        the verb. Any other function: with a NumPy array of this kind. It gives `(B, D)`.
    name
        What the encoder is called: letters, digits, `_`, `-` and `.`.
    size_px
        Side `S` of the crops that it takes, in pixels.
    mpp
        Resolution that it was made for, in µm per pixel.
    transform
        Called with the crops before the function: normalization, for instance.

    Returns
    -------
    Its card; `card.name` is what `Config.encoders` and `pp.embed` take, `card.dim` was found by one call.

    Raises
    ------
    BadInput
        If the name is that of another kind of encoder, or the function does not give `(B, D)`.
    """
    from sq_imputer.encoders._own import Own, card_of

    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise BadInput(f"name is {name!r}; expected letters, digits, '_', '-' and '.'.")
    if name in BUILTIN or name in _registered.keys() - _brought:
        raise BadInput(f"an encoder named '{name}' exists already; pass another name.")
    card = card_of(function, name, size_px, mpp, transform)
    _registered[name] = (card, lambda card, weights, revision: Own(card, function, transform))
    _brought.add(name)
    return card


def get_encoder(name: str, *, weights: str | Path | None = None, revision: str | None = None) -> Encoder:
    """A frozen encoder, ready to be called with uint8 crops.

    Parameters
    ----------
    name
        One of :func:`list_encoders`, `timm:<name>` for any timm model, or `zoo:<name>` for any encoder of
        lazyslide-models.
    weights
        A safetensors file. If left out, it is downloaded from the Hugging Face Hub, or taken from its cache.
    revision
        Branch, tag or commit in the hub; the card's if left out.

    Raises
    ------
    MissingKey
        If there is no such encoder.
    BadInput
        If timm or the weights are missing, or the weights do not fit.
    """
    card = encoder_card(name)
    if (name == "texture" or name in _brought) and (weights is not None or revision is not None):
        raise BadInput(f"encoder '{name}' has no weights to pass; leave out weights= and revision=.")
    if name == "texture":
        from sq_imputer.encoders.texture import Texture

        return _with_canary(Texture())
    named = _build_zoo if name.startswith("zoo:") else _build_timm
    build = _registered[name][1] if name in _registered else named
    return _with_canary(build(card, weights, revision))


def in_blocks(encoder: Encoder) -> Encoder:
    """The form of an encoder that describes windows together, with a canary of its own where it is another."""
    form = encoder.together()
    return encoder if form is encoder else _with_canary(form)


def _with_canary(encoder: Encoder) -> Encoder:
    """The encoder, whose provenance says what it gives of the canary."""
    from sq_imputer.encoders._canary import sung

    canary = _of_code_alone(type(encoder)) if encoder.constant else sung(encoder)
    encoder.provenance = {**encoder.provenance, "canary": list(canary)}
    return encoder


@cache
def _of_code_alone(kind: type[Encoder]) -> list[float]:
    """What an encoder without weights gives of the canary, found once: it cannot change."""
    from sq_imputer.encoders._canary import sung

    return sung(kind())
