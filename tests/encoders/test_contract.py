"""What encoders are held to: those that are here keep it, and one that is broken in one way fails the check of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sq_imputer import encoders
from sq_imputer.encoders import Encoder, EncoderCard, from_callable, get_encoder, register_encoder
from sq_imputer.testing import ENCODER_CHECKS, check_encoder

CARD = EncoderCard(
    name="sound", dim=6, size_px=24, mpp=0.5, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), license="BSD-3-Clause",
    commercial=True, gated=False,
)  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_brought", set())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def scaled(crops: Tensor) -> Tensor:
    return crops.float() / 255


def colors(crops: np.ndarray) -> np.ndarray:
    return crops.mean(axis=(2, 3))


class Sound(Encoder):
    """Mean and spread of the channels; nothing is wrong with it."""

    def __init__(self, card=CARD, provenance=None) -> None:
        super().__init__(card, provenance or {"name": card.name})

    def encode(self, crops):
        pixels = crops.flatten(2).float() / 255
        return torch.cat([pixels.mean(dim=2), pixels.std(dim=2)], dim=1)


BROKEN = []


def fails(check: str, message: str):
    """Names the check that a broken encoder fails first, and what it says."""

    def add(encoder):
        BROKEN.append((encoder, check, message))
        return encoder

    return add


fails("check_encoder_card", "card.license is empty")(lambda: Sound(replace(CARD, license="")))
fails("check_encoder_card", "provenance.'name'. is 'other', not 'sound'")(lambda: Sound(provenance={"name": "other"}))
fails("check_encoder_card", "provenance does not survive JSON")(
    lambda: Sound(provenance={"name": "sound", "versions": ("1", "2")})
)


@fails("check_encoder_shape", "features are not finite")
class Infinite(Sound):
    def encode(self, crops):
        return super().encode(crops) / (crops.flatten(1).float().mean(dim=1, keepdim=True) < 0)


@fails("check_encoder_deterministic", "features differ by .* when asked again")
class Draws(Sound):
    def encode(self, crops):
        return super().encode(crops) * (1 + 1e-3 * torch.randn(len(crops), 6))


@fails("check_encoder_batch", "features by itself differ by")
class NormalizesBatches(Sound):
    def encode(self, crops):
        found = super().encode(crops)
        return found - found.mean(dim=0) / 2


@fails("check_encoder_crops_unchanged", "the crops were written to")
class Writes(Sound):
    def encode(self, crops):
        found = super().encode(crops)
        crops[:, :, 0, 0] = 0
        return found


@fails("check_encoder_crops_refused", "crops of float32 were accepted")
class TakesAnything(Sound):
    def _check(self, crops):
        pass


@fails("check_encoder_canary", "the canary was .*, and now is")
class Moves(Sound):
    def __init__(self) -> None:
        super().__init__(provenance={"name": "sound", "canary": [1.0] * 6})


@fails("check_encoder_canary", "of white glass it says what it says of the canary")
class Blind(Sound):
    def encode(self, crops):
        return torch.ones(len(crops), 6)


@fails("check_encoder_pickles", "[Cc]an.t (get|pickle) .*<lambda>")
class Local(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.function = lambda crops: crops


@fails("check_encoder_process", "the number of threads of the process")
class SetsThreads(Sound):
    def __call__(self, crops):
        torch.set_num_threads(3)
        return super().__call__(crops)


@pytest.mark.parametrize(("broken", "check", "message"), BROKEN)
def test_a_broken_encoder_fails_the_check_that_is_about_it(broken, check, message):
    with pytest.raises(AssertionError, match=f"(?s)^{check} of encoder 'sound': .*{message}"):
        check_encoder(broken())


def test_every_check_is_failed_by_some_encoder():
    assert {check for _, check, _ in BROKEN} == {check.__name__ for check in ENCODER_CHECKS}


def test_texture_and_what_is_registered_keep_the_contract():
    assert check_encoder("texture") == [check.__name__ for check in ENCODER_CHECKS]
    register_encoder(CARD, lambda card, weights, revision: Sound(card))
    assert check_encoder("sound") and check_encoder(Sound())


def test_a_module_and_a_function_of_arrays_keep_the_contract():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    from_callable(network, "network", size_px=32, transform=scaled)
    from_callable(colors, "colors", size_px=24)
    assert check_encoder("network") and check_encoder("colors")


def test_an_encoder_of_timm_keeps_the_contract(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an extra: sq-imputer[encoders]", exc_type=ImportError)
    from safetensors.torch import save_file

    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **shape)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    options = {"architecture": "vit_tiny_patch16_224", "options": shape}
    register_encoder(replace(CARD, name="tiny", dim=16, size_px=32, **options))
    assert check_encoder(get_encoder("tiny", weights=tmp_path / "w.safetensors"))
