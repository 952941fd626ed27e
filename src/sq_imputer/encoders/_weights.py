"""Weights of frozen encoders: find or download a safetensors file, and say how to get it where that fails."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sq_imputer.encoders._cards import EncoderCard
from sq_imputer.errors import BadInput
from sq_imputer.untrusted import misfit

MOST_WEIGHTS = 2**35  # bytes; the largest encoders known have a seventh of it
State = dict[str, Tensor]
_WITHOUT = "encoder='texture' needs no weights."


def _convert(card: EncoderCard, found: str) -> str:
    return (
        f"encoder '{card.name}' is read from safetensors only, because a pickle can run code; {found}. "
        "Convert it once, in Python: from torch import load; from safetensors.torch import save_file; "
        "weights = load('pytorch_model.bin', weights_only=True, map_location='cpu'); "
        f"save_file({{k: v.contiguous() for k, v in weights.items()}}, '{card.slot}.safetensors'); "
        f"then pass weights='{card.slot}.safetensors'. {_WITHOUT}"
    )


def _local(card: EncoderCard, weights: str | Path) -> Path:
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise BadInput(_convert(card, f"weights is '{path}'"))
    if not path.is_file():
        raise BadInput(f"encoder '{card.name}': no file '{path}'; expected its weights as safetensors. {_WITHOUT}")
    return path


def _download(card: EncoderCard, revision: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if not card.source:
        raise BadInput(
            f"encoder '{card.name}' has no weights on the Hugging Face Hub; pass weights=<file>.safetensors. {_WITHOUT}"
        )
    try:
        return Path(hf_hub_download(card.source, card.file, revision=revision))
    except (HfHubHTTPError, EntryNotFoundError, OSError) as error:
        # The local one, which is raised offline, is a kind of the remote one: a file that the repository lacks.
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise BadInput(_convert(card, f"'{card.source}' has no '{card.file}' at '{revision}'")) from error
        page = f"https://huggingface.co/{card.source}"
        terms = (
            f"accept the terms at {page}, log in (`hf auth login`, or set HF_TOKEN)" if card.gated else f"see {page}"
        )
        reason = (str(error).splitlines() or [""])[0]
        raise BadInput(
            f"encoder '{card.name}': '{card.file}' of '{card.source}' at '{revision}' could not be had "
            f"({type(error).__name__}: {reason}). To get it: {terms}, "
            f"be online with HF_HUB_OFFLINE unset; or pass weights=<file>.safetensors. {card.note} {_WITHOUT}"
        ) from error


def locate(card: EncoderCard, weights: str | Path | None, revision: str | None) -> tuple[Path, dict[str, Any]]:
    """The weights file of a card, and where it came from.

    Parameters
    ----------
    card
        The encoder.
    weights
        A safetensors file; None to download it, or take it from the hub's cache.
    revision
        Branch, tag or commit in the hub; the card's if None.

    Raises
    ------
    BadInput
        If the file is not safetensors, is not there, or cannot be downloaded.
    """
    if weights is not None:
        path, resolved = _local(card, weights), revision or ""
    else:
        path = _download(card, revision or card.revision)
        parts = path.parts  # .../snapshots/<commit>/<file>
        resolved = parts[parts.index("snapshots") + 1] if "snapshots" in parts else revision or card.revision
    if path.stat().st_size > MOST_WEIGHTS:
        raise BadInput(f"encoder '{card.name}': '{path}' has more than the {MOST_WEIGHTS:.2g} bytes that are read.")
    state = path.stat()
    digest = _sha256(path.resolve(), state.st_size, state.st_mtime_ns)
    origin = {"name": card.name, "source": card.source, "revision": resolved, "file": path.name, "sha256": digest}
    return path, origin


@lru_cache(64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """The hash of a file, which may have gigabytes: once, while its size and time stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_strictly(card: EncoderCard, model: nn.Module, state: State) -> None:
    """Put weights into a model; every key and every shape must agree, and every weight be finite.

    Raises
    ------
    BadInput
        Listing the keys that are missing, unexpected, of another shape, or not finite.
    """
    wrong = misfit(model.state_dict(), state, types=False)
    if wrong:
        raise BadInput(
            f"weights do not fit encoder '{card.name}' ({card.architecture}): {wrong}. Take the file of "
            f"{card.source or 'that model'}, or register a card with the `architecture` and `options` of the file."
        )
    model.load_state_dict(state)
