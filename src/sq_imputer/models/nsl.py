r"""NSL: expression from stain alone, with 11 weights per gene.

Every pixel's optical density is unmixed into two stains by a matrix that is learned per gene, the stain amounts are
averaged over the crop, and expression is a line in them:

.. math::

    OD_c = -\log_{10}\frac{I_c + 1}{256}, \qquad q = \mathrm{ReLU}(A\,OD + a), \qquad \hat y = w \cdot \bar q + b

with :math:`A \in \mathbb{R}^{2 \times 3}`, :math:`a, w \in \mathbb{R}^2`, :math:`b \in \mathbb{R}`:
6 + 2 + 2 + 1 = 11 weights.

The paper (Dawood et al. 2021) states a stain deconvolution learned end to end with 11 trainable weights, from colour
alone. Its text and code were not available to us: **how the 11 weights are divided is inferred**, as are the loss
(mean squared error on standardized expression), the optimizer (Adam-like, 0.01), the crop size and the normalization.
The paper's figures are not claimed to be reproduced.

The model cannot see structure: its answer does not change when the pixels of a crop change places. Use it as the
floor that a deeper model must beat. Stain and scanner are its signal, so it does not carry over to sections stained
otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, CropSpec, Needs, Prediction
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.ranges import check_ranges, one_of, within

# B rows, G genes (1 if the stains are shared), K = 2 stains, C = 3 colors, P pixels

# Optical density of hematoxylin and eosin in red, green and blue (Ruifrok and Johnston 2001).
HEMATOXYLIN_EOSIN = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))


@dataclass(frozen=True)
class Config:
    """What NSL is made of.

    Parameters
    ----------
    extent_um
        Side of the crop, in µm.
    size_px
        Side of the crop, in pixels; color needs few.
    shared
        One stain matrix for all genes instead of one each.
    activation
        `"relu"`: stain amounts are not negative. `"identity"`: the model is then least squares on the mean optical
        density.
    lr, weight_decay, epochs, batch_size, validation
        Training; 11 weights need no early stopping, so no rows are held out for it.
    """

    extent_um: float = within(112.0, above=0)
    size_px: int = within(16, 1)
    shared: bool = False
    activation: str = one_of("relu", ("relu", "identity"))
    lr: float = within(1e-2, 0)
    weight_decay: float = within(1e-4, 0)
    epochs: int = within(80, 1)
    batch_size: int = within(64, 1)
    validation: float = within(0.0, 0, below=1)

    def __post_init__(self) -> None:
        check_ranges(self)

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: fewer epochs."""
        return cls(epochs=60)


def optical_density(crops: Tensor) -> Tensor:
    """Optical density `(B, 3, P)` of uint8 crops `(B, 3, S, S)`: 0 where white, 2.4 where black."""
    return -torch.log10((crops.flatten(2).float() + 1) / 256)


class Model(Predictor):
    """Expression from stain alone, with 11 weights per gene."""

    Config = Config
    draws_by_name = True
    card = ModelCard(
        name="nsl",
        summary="Neural stain learning: a stain deconvolution per gene, learned end to end, with 11 weights.",
        paper="Dawood, Branson, Rajpoot, Minhas: All You Need is Color, ECML-PKDD workshops 2021.",
        doi="10.1007/978-3-030-93733-1_32",
        citation=(
            "@inproceedings{dawood2021nsl,\n"
            "  title={All You Need is Color: Image Based Spatial Gene Expression Prediction Using Neural Stain "
            "Learning},\n"
            "  author={Dawood, Muhammad and Branson, Kim and Rajpoot, Nasir M. and Minhas, Fayyaz},\n"
            "  booktitle={Machine Learning and Principles and Practice of Knowledge Discovery in Databases},\n"
            "  year={2021}, doi={10.1007/978-3-030-93733-1_32}\n}"
        ),
        established="Colour only; a stain deconvolution matrix learned end to end; 11 trainable weights.",
        ours=(
            "The division into 6 + 2 + 2 + 1 weights, the ReLU, loss, optimizer, crop and normalization are "
            "inferred: neither "
            "text nor code of the paper was available."
        ),
        limits="Sees color alone. Does not carry over to other stains or scanners; a floor for deeper models.",
    )

    @property
    def needs(self) -> Needs:
        """Pixels of one small crop."""
        return Needs(crop=CropSpec(self.config.extent_um, self.config.size_px))

    def build(self) -> None:
        """One deconvolution per gene, starting from hematoxylin and eosin."""
        n_genes = len(self.genes)
        unmix = torch.linalg.pinv(torch.tensor(HEMATOXYLIN_EOSIN).T)
        copies = 1 if self.config.shared else n_genes
        self.unmix = nn.Parameter(unmix.repeat(copies, 1, 1) + 0.01 * torch.randn(copies, 2, 3))
        self.unmix_bias = nn.Parameter(torch.zeros(copies, 2))
        self.slope = nn.Parameter(0.1 * torch.randn(n_genes, 2))
        self.offset = nn.Parameter(torch.zeros(n_genes))

    @property
    def n_parameters_per_gene(self) -> int:
        """Weights that a gene has to itself."""
        return sum(weight[0].numel() for weight in self.parameters() if len(weight) == len(self.genes))

    def stains(self, density_BCP: Tensor) -> Tensor:
        """Amount of the two stains in every pixel, `(B, G, 2, P)`."""
        amount_BGKP = torch.einsum("gkc,bcp->bgkp", self.unmix, density_BCP) + self.unmix_bias[..., None]
        return amount_BGKP if self.config.activation == "identity" else amount_BGKP.relu()

    def standardized(self, crops: Tensor) -> Tensor:
        """Expression `(B, G)` in standard deviations from its mean."""
        density = optical_density(crops)
        if self.config.activation == "identity":  # the mean can be taken first
            density = density.mean(dim=-1, keepdim=True)
        mean_BGK = self.stains(density).mean(dim=-1)
        return (mean_BGK * self.slope).sum(dim=-1) + self.offset

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error on standardized expression."""
        target = (batch.expression - self.expression_mean) / self.expression_std
        return {"mse": (self.standardized(batch.crops) - target).pow(2).mean()}

    def predict_step(self, batch: Batch) -> Prediction:
        """The line in the mean stain amounts."""
        return Prediction(mean=self.expression_mean + self.expression_std * self.standardized(batch.crops))

    def pixel_map(self, crops: Tensor) -> Tensor:
        """What every pixel says, `(B, G, S, S)` in the expression unit; its mean over the crop is the prediction."""
        amount = self.stains(optical_density(crops))
        said = torch.einsum("bgkp,gk->bgp", amount, self.slope) + self.offset[:, None]
        said = self.expression_mean[:, None] + self.expression_std[:, None] * said
        return said.unflatten(-1, crops.shape[-2:])

    def stain_vectors(self) -> Tensor:
        """Learned stain colors `(G, 2, 3)` in red, green and blue, of unit length.

        What one unit of a stain adds to the optical density: columns of the pseudo-inverse of the unmixing.
        """
        return nn.functional.normalize(torch.linalg.pinv(self.unmix.detach()).mT, dim=-1)
