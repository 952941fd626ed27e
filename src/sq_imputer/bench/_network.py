"""The two sides of a contrast as one network; imported where one is trained, since it needs torch."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from sq_imputer.bench._contrasts import Contrast
from sq_imputer.bench._pairs import Pairs, need
from sq_imputer.encoders._shelf import Shelf, Weights, weights_of
from sq_imputer.errors import BadInput
from sq_imputer.nn import clip

GENE_WIDTH = 128  # of the network of expression, as published
NO_CROPS = "Make them with crops=True: low-rank tuning sees pixels."
NO_LATENT = "Pass latent= to bench.pairs, such as bench.latent(sdata, 'X_scVI'); in a config, latent: X_scVI."


class Network(nn.Module):
    """Both sides and the loss; statistics are those of the training rows.

    Parameters
    ----------
    config
        How.
    train
        The training rows.
    weights
        File of the image encoder, if it is tuned.
    """

    def __init__(self, config: Contrast, train: Pairs, weights: Weights | None = None) -> None:
        super().__init__()
        self.config = config
        self.tower = _Tower(config, train, weights) if config.finetune == "lora" else None
        genes = self._genes(train)
        self._keep_scale("image", train.image)
        self._keep_scale("genes", genes)
        self.head = clip.image_head(config.head, train.image.shape[1], config.width)
        self.of_genes, width = nn.Identity(), genes.shape[1]
        if config.genes == "mlp":
            self.of_genes, width = clip.GeneNetwork(width, GENE_WIDTH), GENE_WIDTH
        elif config.genes == "pca":
            self.register_buffer("axes", self._axes(genes))
            width = self.axes.shape[1]
        self.genes_head = nn.Linear(width, config.width)
        self.pair_loss = clip.PairLoss(config.loss, config.normalize)

    def _genes(self, pairs: Pairs) -> np.ndarray:
        return need(pairs, "latent", NO_LATENT) if self.config.genes == "latent" else pairs.expression

    def _keep_scale(self, name: str, values: np.ndarray) -> None:
        mean, spread = values.mean(axis=0, dtype=float), values.std(axis=0, dtype=float)
        spread[spread <= 1e-6 * np.abs(values).max(axis=0)] = 1  # a constant tells nothing
        self.register_buffer(f"{name}_mean", torch.from_numpy(mean).float())
        self.register_buffer(f"{name}_std", torch.from_numpy(spread).float())

    def _axes(self, genes: np.ndarray) -> Tensor:
        """Principal axes `(G, k)` of the training rows, scaled so that components have unit variance."""
        scaled = (genes - self.genes_mean.numpy()) / self.genes_std.numpy()
        left, size, axes = np.linalg.svd(scaled.astype(float), full_matrices=False)
        keep = min(self.config.components, int((size > 1e-6 * size[0]).sum()))
        return torch.from_numpy(axes[:keep].T / size[:keep] * len(genes) ** 0.5).float()

    def take(self, pairs: Pairs, rows) -> dict[str, Tensor]:
        """Some pairs as tensors."""
        seen = pairs.image if self.tower is None else need(pairs, "crops", NO_CROPS)
        parts = {"seen": seen[rows], "genes": self._genes(pairs)[rows]}
        device = self.genes_mean.device
        return {name: torch.from_numpy(np.ascontiguousarray(part)).to(device) for name, part in parts.items()}

    def trunk(self, batch: dict[str, Tensor]) -> Tensor:
        """Features of the crops."""
        return batch["seen"] if self.tower is None else self.tower(batch["seen"])

    def image(self, batch: dict[str, Tensor]) -> Tensor:
        """Vectors of the images."""
        return self.head((self.trunk(batch) - self.image_mean) / self.image_std)

    def expression(self, batch: dict[str, Tensor]) -> Tensor:
        """Vectors of the expression."""
        x = (batch["genes"] - self.genes_mean) / self.genes_std
        return self.genes_head(x @ self.axes if self.config.genes == "pca" else self.of_genes(x))

    def forward(self, pairs: Pairs, rows: np.ndarray) -> Tensor:
        """The loss of a batch."""
        batch = self.take(pairs, rows)
        return self.pair_loss(self.image(batch), self.expression(batch))


class _Tower(nn.Module):
    """A timm encoder whose attention is tuned by changes of low rank."""

    def __init__(self, config: Contrast, train: Pairs, weights: Weights | None) -> None:
        super().__init__()
        encoder = Shelf(weights_of(weights, [train.encoder]), {train.encoder: train.made_by}).get(train.encoder)
        if not hasattr(encoder, "normalized"):
            raise BadInput(
                f"finetune is 'lora', and encoder '{train.encoder}' has no weights. Take a timm transformer."
            )
        self.model, self.normalized = deepcopy(encoder.model), encoder.normalized
        if not clip.with_low_rank(self.model, rank=config.rank, alpha=config.alpha):
            raise BadInput(
                f"finetune is 'lora', and encoder '{train.encoder}' has no attention with qkv and proj. Take a vision "
                "transformer, or finetune='none'."
            )

    def forward(self, crops: Tensor) -> Tensor:
        return self.model(self.normalized(crops))
