"""How images and expression are brought into one space: the settings."""

from __future__ import annotations

from dataclasses import dataclass

from sq_imputer.ranges import check_ranges, one_of, within


@dataclass(frozen=True)
class Contrast:
    """How pairs are brought into one space.

    Parameters
    ----------
    loss
        `"clip"` or `"siglip"`.
    genes
        Encoder of expression: `"mlp"`, trained; `"pca"`, a linear layer on principal components of the training rows;
        `"latent"`, a linear layer on what `Pairs.latent` has, such as of scVI.
    head
        On the image features: `"mlp"` or `"linear"`.
    finetune
        `"none"`, or `"lora"`: the attention of a timm encoder is tuned by changes of low rank. Needs pairs with crops.
    normalize
        Whether vectors have length 1.
    width
        Of the common space.
    components
        Of `"pca"`.
    steps, batch_size, lr, weight_decay, warmup
        Training by AdamW; `warmup` is the share of steps of a rising learning rate, which then falls by half a cosine.
    patience
        Looks at the validation rows, one every 20 steps, without a loss better by .01, before training ends.
    rank, alpha
        Of `"lora"`.
    """

    loss: str = one_of("clip", ("clip", "siglip"))
    genes: str = one_of("mlp", ("mlp", "pca", "latent"))
    head: str = one_of("mlp", ("mlp", "linear"))
    finetune: str = one_of("none", ("none", "lora"))
    normalize: bool = True
    width: int = within(128, 1)
    components: int = within(128, 1)
    steps: int = within(600, 1)
    batch_size: int = within(64, 2)
    lr: float = within(1e-3, above=0)
    weight_decay: float = within(0.01, 0)
    warmup: float = within(0.04, 0, 1)
    patience: int = within(8, 1)
    rank: int = within(8, 1)
    alpha: float = within(16.0, above=0)

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def published(cls) -> Contrast:
        """As in the released code: 20,000 steps of 64 at 1e-5, vectors of any length. Hours without a GPU."""
        return cls(normalize=False, steps=20_000, lr=1e-5, warmup=782 / 20_000, patience=5)
