"""The encoders of one run: each built once, with the weights that were named, and features taken from no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sq_imputer import encoders
from sq_imputer.encoders import _canary
from sq_imputer.errors import BadInput, listed

if TYPE_CHECKING:
    from sq_imputer.encoders._base import Encoder

Weights = str | Path | Mapping[str, str | Path]
MadeBy = Mapping[str, Any]  # provenance of an encoder
# what of it says where the weights were found and what ran them, but does not change features beyond rounding
ASIDE = ("name", "source", "file", "timm", "torch", "batch_size", "canary", "dense", "license", "commercial")


def identity(made_by: MadeBy) -> dict[str, Any]:
    """What of an encoder's provenance decides its features: the sha256 of its weights, else its revision."""
    if made_by.get("sha256"):
        return {name: made_by[name] for name in ("sha256", "described") if made_by.get(name)}
    return {name: value for name, value in made_by.items() if name not in ASIDE}


def same(one: MadeBy, other: MadeBy) -> bool:
    """Whether features by two encoders of one name can stand side by side; what is not known fits everything."""
    if not one or not other:
        return True
    return identity(one) == identity(other) and _canary.alike(one.get("canary"), other.get("canary"))


def told(made_by: MadeBy, beside: MadeBy | None = None) -> str:
    """The identity of an encoder in a message: "weights 0123456789ab (w.safetensors)", "revision 2".

    Beside another of the same identity, also what tells them apart: the first features of the canary.
    """
    if beside is not None and identity(made_by) == identity(beside):
        return f"{told(made_by)} ({_canary.told(made_by.get('canary'))} of the canary)"
    if made_by.get("sha256"):
        file = f" ({made_by['file']})" if made_by.get("file") else ""
        tokens = f" by {made_by['described']}" if made_by.get("described") else ""
        return f"weights {made_by['sha256'][:12]}{file}{tokens}"
    return ", ".join(f"{name} {value}" for name, value in identity(made_by).items()) or "weights that are not known"


def weights_of(weights: Weights | None, names: Sequence[str]) -> dict[str, Path]:
    """The weights files of encoders, by name, from what a verb was given.

    Parameters
    ----------
    weights
        A safetensors file, where one of the encoders has weights; else files by encoder.
    names
        The encoders that are used.

    Raises
    ------
    BadInput
        If none of them has weights, several have and one file is given, or other encoders are named.
    """
    if weights is None:
        return {}
    able = [name for name in names if name != "texture"]
    if not able:
        uses = f"encoders {listed(names)} have none" if names else "the model reads pixels, not features of an encoder"
        raise BadInput(f"weights is given, but {uses}. Leave out weights=, or name another encoder.")
    if isinstance(weights, str | Path):
        if len(able) > 1:
            raise BadInput(f"weights is one file for {len(able)} encoders; pass a dict, such as {{'{able[0]}': ...}}.")
        return {able[0]: Path(weights)}
    if not isinstance(weights, Mapping) or not all(isinstance(file, str | Path) for file in weights.values()):
        raise BadInput(f"weights is {weights!r}; expected a safetensors file, or a dict of encoders to such files.")
    strange = [name for name in weights if name not in able]
    if strange:
        raise BadInput(f"weights names {listed(strange)}; expected the encoders in use, {listed(able)}.")
    return {name: Path(file) for name, file in weights.items()}


class Shelf:
    """Encoders by name, each built when it is first needed and kept for the run.

    It also says whether features that were kept may be used: all features of one encoder in a run are of the same
    weights. Those are the named ones; else those of the model that is asked; else those of the first features used.

    Parameters
    ----------
    weights
        Weights files by encoder, as :func:`weights_of` gives them.
    fitted
        Provenance of the encoders that a fitted model has seen, by name.
    dense
        Whether windows are described together; None: where the encoder can.
    """

    def __init__(
        self,
        weights: Mapping[str, Path] | None = None,
        fitted: Mapping[str, MadeBy] | None = None,
        dense: bool | None = None,
    ) -> None:
        self.weights, self.dense = dict(weights or {}), dense
        self._built: dict[str, Encoder] = {}
        self._known = {name: (made_by, "the fit of the model") for name, made_by in (fitted or {}).items() if made_by}
        for name, file in self.weights.items():
            self._agree(name, self._of_file(name, file))

    def get(self, name: str) -> Encoder:
        """The encoder.

        Raises
        ------
        BadInput
            If it, or its weights, cannot be had, or they are not those of the run.
        """
        if name not in self._built:
            built = encoders.get_encoder(name, weights=self.weights.get(name))
            self._built[name] = encoders.in_blocks(built) if self.dense else built
        self._agree(name, self._built[name].provenance)
        return self._built[name]

    def takes(self, name: str, made_by: MadeBy, whose: str) -> bool:
        """Whether kept features may be used; if not they are to be computed anew.

        Raises
        ------
        BadInput
            If they are of other weights than the rest of the run, and nobody said which are meant.
        """
        if name not in self._known and _of_code(name):
            self.get(name)
        if self.dense is not None and made_by and made_by.get("dense", self.dense) != self.dense:
            return False  # the other way was asked for
        known = self._known.setdefault(name, (made_by, whose)) if made_by else (made_by, whose)
        if same(known[0], made_by):
            return True
        if name in self.weights or _of_code(name):
            return False
        raise BadInput(
            f"the features of encoder '{name}' kept with {whose} were made by {told(made_by, known[0])}, those of "
            f"{known[1]} by {told(known[0], made_by)}. Pass weights= to compute them anew with one file, or embed "
            f"again by pp.embed(sdata, '{name}', weights=...)."
        )

    def made_by(self, name: str) -> MadeBy:
        """Provenance of the encoder's features in this run, which is decided now if it was not yet."""
        return self._known[name][0] if name in self._known else self.get(name).provenance

    def _of_file(self, name: str, file: Path) -> MadeBy:
        card = encoders.encoder_card(name)
        if not card.architecture or self.dense:
            return self.get(name).provenance  # only its builder, or its other form, knows
        from sq_imputer.encoders._weights import locate

        return locate(card, file, None)[1]

    def _agree(self, name: str, made_by: MadeBy) -> None:
        whose = f"weights='{self.weights[name]}'" if name in self.weights else "the encoder as it is here"
        known = self._known.setdefault(name, (made_by, whose))
        if not same(known[0], made_by):
            raise BadInput(
                f"encoder '{name}': {whose} has {told(made_by, known[0])}, but {known[1]} has "
                f"{told(known[0], made_by)}. "
                + ("Fit the model again." if _of_code(name) else "Pass weights= of that file, or fit and embed again.")
            )


def _of_code(name: str) -> bool:
    """Whether an encoder is made of code alone, so that the one at hand decides."""
    card = encoders.encoder_card(name)
    return not card.architecture and not card.source
