"""What every image encoder is to the rest of the package: uint8 crops in, float features out, always the same."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sq_imputer.encoders._cards import EncoderCard
from sq_imputer.encoders._windows import Boxes
from sq_imputer.errors import BadInput
from sq_imputer.surroundings import undisturbed

AT_ONCE = 2048  # windows: every one of a large block together would take far more than the block


class Encoder(ABC):
    """A frozen image encoder. Subclasses override `encode` and nothing else, unless they describe every place.

    Those override `maps` and `gather` too: the windows of a section that share pixels are then described together.
    `block` and `halo` are pixels: images for `maps` have sides of multiples of the first, and windows on them lie the
    second or more inside. One is `constant` that is code alone, made without arguments.

    Parameters
    ----------
    card
        What it sees and gives.
    provenance
        Name, revision and hash of the weights, and the versions that ran them: enough to redo the features.
    """

    block: int = 0
    halo: int = 0
    constant: bool = False
    stride: int = 0  # from block to block of a section, where features hang on it; 0: whatever is cheapest

    def __init__(self, card: EncoderCard, provenance: dict[str, Any]) -> None:
        self.card = card
        self.provenance = provenance

    @abstractmethod
    def encode(self, crops: Tensor) -> Tensor:
        """`(B, dim)` features of `(B, 3, S, S)` uint8 crops, on the device of the crops."""

    def maps(self, images: Tensor) -> Tensor:
        """What is needed of `(B, 3, H, W)` uint8 images to describe any window on them."""
        raise NotImplementedError

    def gather(self, maps: Tensor, boxes: Boxes) -> Tensor:
        """`(n, dim)` features of windows on the images."""
        raise NotImplementedError

    def together(self) -> Encoder:
        """The form of the encoder that describes windows together, if only where that is asked for; else itself."""
        return self

    def places(self, crops: Tensor, grid: int | None) -> Tensor:
        """`(B, h, w, D)` of what :meth:`tokens` gives; `h` and `w` are `grid` if it is said."""
        raise BadInput(f"encoder '{self.card.name}' has no tokens: it describes crops as a whole. Take another.")

    @undisturbed()
    @torch.no_grad()
    def tokens(self, crops: Tensor, grid: int | None = 7) -> Tensor:
        """What the encoder says of the parts of crops, without gradients.

        Parameters
        ----------
        crops
            `(B, 3, S, S)` uint8, as for a call.
        grid
            Parts along a side; None: as many as the encoder has by itself.

        Returns
        -------
        `(B, grid, grid, D)` float32, from the top left; `D` need not be `card.dim`.

        Raises
        ------
        BadInput
            If the crops are none, or the encoder has no tokens.
        """
        self._check(crops)
        return self.places(crops, grid).float()

    def windows(self, images: Tensor, boxes: Boxes) -> Tensor:
        """`(n, dim)` float32 features of windows on `(B, 3, H, W)` uint8 images; only where `block` is not 0."""
        return torch.cat(list(self.portions(images, boxes)))

    def portions(self, images: Tensor, boxes: Boxes) -> Iterator[Tensor]:
        """The same, some thousand windows at a time: those of a large block together take as much as its maps."""
        with undisturbed(), torch.no_grad():
            maps = self.maps(images)
        for part in boxes.split(AT_ONCE):
            with undisturbed(), torch.no_grad():
                found = self.gather(maps, part).float()
            yield found

    @undisturbed()
    @torch.no_grad()
    def __call__(self, crops: Tensor) -> Tensor:
        """Features of crops, without gradients; a crop's features do not depend on the others in its batch.

        Parameters
        ----------
        crops
            `(B, 3, S, S)` uint8 on any device: red, green, blue.

        Returns
        -------
        `(B, dim)` float32 on the same device.

        Raises
        ------
        BadInput
            If the crops have another type or size than the encoder takes, or the features another width than the
            card says.
        """
        self._check(crops)
        if not len(crops):
            return torch.empty(0, self.card.dim, device=crops.device)
        features = self.encode(crops).float()
        if features.shape != (len(crops), self.card.dim):
            raise BadInput(
                f"encoder '{self.card.name}' gave features of shape {tuple(features.shape)} for {len(crops)} crops; "
                f"its card says {self.card.dim} each. Correct `dim` or `pool` in the card."
            )
        return features

    def _check(self, crops: Tensor) -> None:
        name, size = self.card.name, self.card.size_px
        if crops.dtype != torch.uint8 or crops.ndim != 4 or crops.shape[1] != 3:
            raise BadInput(
                f"encoder '{name}' takes uint8 crops of shape (B, 3, S, S), got {crops.dtype} {tuple(crops.shape)}; "
                "it normalizes them itself."
            )
        if not self.card.any_size and crops.shape[2:] != (size, size):
            raise BadInput(
                f"encoder '{name}' takes crops of {size} x {size} pixels, got {tuple(crops.shape[2:])}. "
                f"Pass CropSpec(extent_um={self.card.extent_um:g}, size_px={size})."
            )
