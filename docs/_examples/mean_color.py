"""Mean and spread of the three channels."""

from __future__ import annotations

import torch
from torch import Tensor

from sq_imputer.encoders import Encoder, EncoderCard, register_encoder

CARD = EncoderCard(
    name="mean_color",
    dim=6,
    size_px=224,
    mpp=0.5,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    license="BSD-3-Clause",
    commercial=True,
    gated=False,
    any_size=True,
)


class MeanColor(Encoder):
    """Crops as six numbers."""

    def encode(self, crops: Tensor) -> Tensor:
        """`(B, 6)` of `(B, 3, S, S)` uint8."""
        pixels = crops.flatten(2).float() / 255
        return torch.cat([pixels.mean(dim=2), pixels.std(dim=2)], dim=1)


def build(card: EncoderCard, weights=None, revision=None) -> Encoder:
    """Called when the encoder is asked for by name."""
    return MeanColor(card, {"name": card.name, "version": "1"})


register_encoder(CARD, build)
