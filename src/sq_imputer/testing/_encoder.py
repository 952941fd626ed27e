"""What every encoder is held to, whoever made it: a frozen function from crops to vectors."""

from __future__ import annotations

import json
import pickle  # what was pickled a line before, and nothing of others
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sq_imputer.encoders import Encoder, EncoderCard, _canary, _with_canary, get_encoder
from sq_imputer.errors import BadInput
from sq_imputer.testing._subject import left_alone, process, run_checks

N = 4  # crops
CLOSE = 1e-3  # of the norm of the features: batches of other sizes add in another order


class EncoderSubject:
    """An encoder under test, and crops that it is asked about."""

    def __init__(self, encoder: Encoder, before: dict[str, object]) -> None:
        self.encoder, self.card, self.process = encoder, encoder.card, before

    @cached_property
    def crops(self) -> Tensor:
        """`(N, 3, S, S)` uint8: the picture of the canary, moved and darker."""
        picture = _canary.picture(self.card.size_px)
        moved = [np.roll(picture, (k * picture.shape[1]) // N, axis=1) * (1 - k / (2 * N)) for k in range(N)]
        return torch.from_numpy(np.stack(moved).astype(np.uint8))

    @cached_property
    def features(self) -> Tensor:
        """`(N, dim)` of these."""
        return self.encoder(self.crops.clone())


def check_encoder(encoder: str | Encoder) -> list[str]:
    """Check that an encoder keeps the contract.

    Parameters
    ----------
    encoder
        The encoder, or its name; of a module or a function, the name that it was given by
        :func:`sq_imputer.encoders.from_callable`.

    Returns
    -------
    Names of the checks that passed: all of them.

    Raises
    ------
    AssertionError
        With the name of the first check that failed, and why.
    """
    before = process()
    encoder = get_encoder(encoder) if isinstance(encoder, str) else encoder
    if "canary" not in encoder.provenance:
        encoder = _with_canary(encoder)
    return run_checks(ENCODER_CHECKS, EncoderSubject(encoder, before), f"encoder '{encoder.card.name}'")


def check_encoder_card(subject: EncoderSubject) -> None:
    """The card is an `EncoderCard` that says width, size, resolution and license; the provenance survives JSON."""
    card = subject.card
    assert isinstance(card, EncoderCard), "card is not an EncoderCard"
    for name in ("name", "license"):
        assert getattr(card, name), f"card.{name} is empty"
    for name in ("dim", "size_px", "mpp"):
        assert getattr(card, name) > 0, f"card.{name} is {getattr(card, name)}"
    said = subject.encoder.provenance
    assert said.get("name") == card.name, f"provenance['name'] is {said.get('name')!r}, not '{card.name}'"
    assert json.loads(json.dumps(said)) == said, "provenance does not survive JSON"


def check_encoder_shape(subject: EncoderSubject) -> None:
    """Features are `(B, dim)` float32, finite, on the device of the crops and without gradients; none of no crops."""
    found, dim = subject.features, subject.card.dim
    assert found.shape == (N, dim), f"features are {tuple(found.shape)}, not {(N, dim)}"
    assert found.dtype == torch.float32, f"features are {found.dtype}, not float32"
    assert found.isfinite().all(), "features are not finite"
    assert not found.requires_grad, "features keep the graph of their computation"
    nothing = subject.encoder(subject.crops[:0])
    assert nothing.shape == (0, dim), f"of no crops features are {tuple(nothing.shape)}, not {(0, dim)}"


def check_encoder_deterministic(subject: EncoderSubject) -> None:
    """Asked again, whatever the random states are, it says the same bit for bit."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = subject.encoder(subject.crops.clone())
    assert torch.equal(again, subject.features), (
        f"features differ by {_apart(again, subject.features)} when asked again"
    )


def check_encoder_batch(subject: EncoderSubject) -> None:
    """Features of a crop do not depend on the others in its batch, nor on its place among them."""
    alone = torch.cat([subject.encoder(crop[None].clone()) for crop in subject.crops])
    turned = subject.encoder(subject.crops.flip(0)).flip(0)
    for what, found in {"by itself": alone, "in another order": turned}.items():
        assert _close(found, subject.features), f"features {what} differ by {_apart(found, subject.features)}"


def check_encoder_crops_unchanged(subject: EncoderSubject) -> None:
    """The crops are left as they were."""
    crops = subject.crops.clone()
    subject.encoder(crops)
    assert torch.equal(crops, subject.crops), "the crops were written to"


def check_encoder_crops_refused(subject: EncoderSubject) -> None:
    """Crops that are not uint8, or of another size than it takes, are refused."""
    wrong = {"float32": subject.crops.float() / 255, "one channel": subject.crops[:, :1]}
    if not subject.card.any_size:
        wrong["another size"] = subject.crops[..., :-1, :-1]
    for what, crops in wrong.items():
        try:
            subject.encoder(crops)
        except BadInput:
            continue
        raise AssertionError(f"crops of {what} were accepted")


def check_encoder_canary(subject: EncoderSubject) -> None:
    """What it says of the canary is in its provenance, is the same when asked again, and tells crops apart."""
    known, again = subject.encoder.provenance["canary"], _canary.sung(subject.encoder)
    assert _canary.alike(known, again), f"the canary was {_canary.told(known)}, and now is {_canary.told(again)}"
    blank = subject.encoder(torch.full_like(subject.crops[:1], 255))[0].tolist()
    assert not _canary.alike(known, blank), "of white glass it says what it says of the canary, which tells nothing"


def check_encoder_pickles(subject: EncoderSubject) -> None:
    """It can be sent to another process, and says the same there."""
    there = pickle.loads(pickle.dumps(subject.encoder))
    found = there(subject.crops.clone())
    assert _close(found, subject.features), f"features differ by {_apart(found, subject.features)} once pickled"


def check_encoder_process(subject: EncoderSubject) -> None:
    """Random states, threads, gradient mode, default dtype and Ctrl-C are as they were."""
    left_alone(subject.process, "encoder")


def _apart(one: Tensor, other: Tensor) -> str:
    """By which share of the norm features differ most."""
    return f"{float(((one - other).norm(dim=1) / other.norm(dim=1).clamp_min(1e-12)).max()):.2g} of their norm"


def _close(one: Tensor, other: Tensor) -> bool:
    return bool(((one - other).norm(dim=1) <= CLOSE * other.norm(dim=1) + 1e-9).all())


ENCODER_CHECKS: tuple[Callable[[EncoderSubject], None], ...] = (
    check_encoder_card,
    check_encoder_shape,
    check_encoder_deterministic,
    check_encoder_batch,
    check_encoder_crops_unchanged,
    check_encoder_crops_refused,
    check_encoder_canary,
    check_encoder_pickles,
    check_encoder_process,
)
"""What an encoder is held to, in this order."""
