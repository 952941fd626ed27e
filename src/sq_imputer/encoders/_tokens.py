"""Patch tokens of timm models: of a crop, and of large tiles on which windows that share pixels are described together.

The second is another form of an encoder, with a provenance and a canary of its own: its features are means of the patch
tokens over a window, on tiles of one size on one grid, so that they hang on the place alone and not on who else is
described. Attention looks beyond the window, as far as the tile reaches, and positions are those of a larger picture:
they are not the features of the crop, and nobody gets them who did not ask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._windows import Boxes, summed, window_means
from sq_imputer.errors import BadInput

STRIDE = 16  # patches from tile to tile
DESCRIBED = "patch tokens"


def places_of(trunk: nn.Module, pixels: Tensor) -> Tensor:
    """`(B, h, w, D)` what a timm model says of the places of normalized images, before they are pooled.

    Raises
    ------
    BadInput
        If it has no places: its tokens form no rectangle.
    """
    found = trunk.forward_features(pixels)
    if found.ndim == 4:
        return found if found.shape[-1] == trunk.num_features else found.permute(0, 2, 3, 1)
    patch = _patch(trunk)
    if found.ndim == 3 and patch is not None:
        high, wide = pixels.shape[2] // patch, pixels.shape[3] // patch
        tokens = found[:, trunk.num_prefix_tokens :]
        if tokens.shape[1] == high * wide:
            return tokens.unflatten(1, (high, wide))
    raise BadInput(f"a {type(trunk).__name__} has no tokens of places, of shape {tuple(found.shape)}; take another.")


def _patch(trunk: nn.Module) -> int | None:
    """Side of a patch in pixels, of a transformer with square ones."""
    size = getattr(getattr(trunk, "patch_embed", None), "patch_size", None)
    size = (size, size) if isinstance(size, int) else size
    return size[0] if size is not None and len(size) == 2 and size[0] == size[1] else None


class TokenEncoder(Encoder):
    """The form of a timm encoder that describes windows by their patch tokens; see the top of this file.

    Parameters
    ----------
    whole
        The encoder (`sq_imputer.encoders._timm`).

    Raises
    ------
    BadInput
        If the architecture has no grid of patches, takes no other sizes, or its features are more than one token's.
    """

    def __init__(self, whole: Encoder) -> None:
        known = {name: value for name, value in whole.provenance.items() if name != "canary"}
        super().__init__(whole.card, {**known, "described": DESCRIBED})
        self.whole, self.trunk = whole, _of_any_size(whole)
        self.block = self.halo = _patch(self.trunk)
        self.stride = STRIDE * self.block

    def encode(self, crops: Tensor) -> Tensor:
        """The mean of the patch tokens of crops alone."""
        return self._after(self._places(crops).mean((1, 2)))

    def maps(self, images: Tensor) -> Tensor:
        """Table of the sums of the patch tokens of tiles."""
        return summed(list(self._places(images).unbind(-1)))

    def gather(self, maps: Tensor, boxes: Boxes) -> Tensor:
        """Features `(n, dim)` of windows on the tiles."""
        return self._after(window_means(maps, boxes, self.block).float())

    def places(self, crops: Tensor, grid: int | None) -> Tensor:
        """As those of the encoder itself."""
        return self.whole.places(crops, grid)

    def __reduce_ex__(self, protocol):
        """Another process makes it of the encoder, which names a file."""
        return _again, (self.whole, self.provenance)

    def _places(self, images: Tensor) -> Tensor:
        pixels = self.whole.normalized(images)
        self.trunk = self.trunk.to(pixels.device)
        return places_of(self.trunk, pixels)

    def _after(self, means: Tensor) -> Tensor:
        return self.trunk.fc_norm(means) if self.card.pool == "model" else means


def _again(whole: Encoder, provenance: dict[str, Any]) -> TokenEncoder:
    encoder = TokenEncoder(whole)
    encoder.provenance = provenance
    return encoder


def _of_any_size(whole: Encoder) -> nn.Module:
    """The model of an encoder as one that takes images of any size, with the same weights in the same memory."""
    import timm

    card, trunk = whole.card, whole.model.trunk
    why = ""
    if card.pool not in ("model", "token") or card.dim != trunk.num_features:
        why = f"its features are pooled by '{card.pool}'"
    elif not isinstance(trunk, timm.models.VisionTransformer) or trunk.global_pool not in ("avg", "token"):
        why = f"{card.architecture} has no grid of patches that grows with the picture"
    if why:
        raise BadInput(
            f"dense=True, but encoder '{card.name}' sees crops alone: {why}. Leave out dense=, or pass dense=False."
        )
    free = timm.create_model(card.architecture, pretrained=False, **{**whole.options, "dynamic_img_size": True})
    free.load_state_dict(trunk.state_dict(), assign=True)
    return free.eval().requires_grad_(False)


def pooled(places: Tensor, grid: int | None) -> Tensor:
    """Tokens `(B, h, w, D)` averaged on a grid of so many a side; as they are if None."""
    if grid is None or places.shape[1:3] == (grid, grid):
        return places
    moved = nn.functional.adaptive_avg_pool2d(places.movedim(-1, 1).float(), grid)
    return torch.movedim(moved, 1, -1)
