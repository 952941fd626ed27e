r"""TRIPLEX: a spot is predicted from its crop, the tiles around it and the whole section.

Three branches make tokens of frozen features: of 7 x 7 parts of the crop; of a block of 5 x 5 crops around it, which
look at each other by how far they lie apart; and of all rows of the section, which look at each other and know by a
depthwise convolution on their lattice where they lie. The row's own token of the section, :math:`g`, asks the tokens of
the other two by the same cross-attention :math:`C`:

.. math::

    f = \mathrm{LN}\big(C(g, t) + C(g, n)\big), \qquad
    L = \lVert \hat y_f - y \rVert^2 + \sum_{d \in \{t, n, g\}}
        (1 - a) \lVert \hat y_d - y \rVert^2 + a \lVert \hat y_d - \hat y_f \rVert^2, \quad a = 0.3

Every branch has a linear head :math:`\hat y_d` (of the mean of its tokens, for the first two) that is taught by what
was measured and by the fused prediction. That is not detached: it is drawn to what the branches can say as well, as
published (`detach=True` makes it a teacher alone). Predicted is what the fused head says.

**Established** (Chung et al. 2024): the three branches, masked tiles outside of the slide, the biases of the tiles by
distance, position by convolution within the section's transformer, one cross-attention for both, the loss and its
weight.

**Ours**: the published model trains a ResNet on the crop's pixels; here its parts, too, are described by frozen
encoders (`texture` without weights of others), with a small transformer on top, and widths and depths are those of a
few hundred spots on a CPU. Expression is standardized per gene. The section is augmented as a whole, by turns and
mirrors of its lattice. Rows at one place of the lattice are one in the convolution; hexagonal lattices have one with
six neighbors; sections beyond `whole_rows` look at themselves in windows. Tiles are of true size in µm, those that
stick out of the image do not count, and the standard deviation is the spread of the heads with noise added that is
measured on left-out rows. The original's dropout stays on when predicting; here it does not. No rows are held out to
stop early by default: within section B4 of her2st that ended training after a quarter of the epochs that were best.
The unit is the source's, log1p CP10k unless said otherwise, and training rows are taught what was measured at them;
`target="triplex_legacy"` has the original's: shares of the panel in log10, and means over 3 x 3 spots.

**Limits**: what the section says hangs on which rows are predicted together, as published: rows on a lattice and cells
of the same tissue see another section. Whoever predicts other shapes than were trained on should compare with
`whole_slide=False`. Rows that were not measured are seen, too, by their image alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sq_imputer.contract import Batch
from sq_imputer.nn.triplex import SMALL, Branches, Heads, Taught, turn_of
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard

# B rows, G genes, W width


@dataclass(frozen=True)
class Config(Taught):
    """What TRIPLEX is made of, beside how a spot is seen and taught (`sq_imputer.nn.triplex.Taught`)."""

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: fewer pixels, parts, tiles and epochs, and a narrow network."""
        return cls(
            **SMALL,
            dropout=(0.0, 0.0, 0.0, 0.0),
            input_dropout=0.0,
            lr=1e-2,
            epochs=20,
            batch_size=128,
        )

    @classmethod
    def paper(cls) -> Config:
        """Sizes and training as published for HER2ST (the released code), on features of UNI: weights of your own."""
        return cls(
            encoders=("uni",),
            extent_um=112.0,
            context_um=(),
            per_section=False,
            width=512,
            depth=(0, 4, 5, 1),
            heads=(4, 4, 8, 4),
            ratio=(4.0, 4.0, 4.0, 4.0),
            dropout=(0.3, 0.3, 0.3, 0.4),
            input_dropout=0.0,
            lr=1e-4,
            weight_decay=0.0,
            epochs=200,
            batch_size=128,
            validation=0.15,
        )


class Model(Heads, Predictor):
    """A spot from its crop, the tiles around it and the whole section."""

    Config = Config
    std_of_mean = True
    draws_by_name = True
    card = ModelCard(
        name="triplex",
        summary="The parts of a crop, the tiles around it and all rows of the section, fused by attention.",
        paper=(
            "Chung, Ha, Im, Lee: Accurate Spatial Gene Expression Prediction by Integrating Multi-Resolution Features, "
            "CVPR 2024."
        ),
        doi="10.48550/arXiv.2403.07592",
        citation=(
            "@inproceedings{chung2024triplex,\n"
            "  title={Accurate Spatial Gene Expression Prediction by Integrating Multi-Resolution Features},\n"
            "  author={Chung, Youngmin and Ha, Ji Hun and Im, Kyeong Chan and Lee, Joo Sang},\n"
            "  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},\n"
            "  year={2024}, doi={10.48550/arXiv.2403.07592}\n}"
        ),
        established=(
            "Branches of crop, tiles and section; position by convolution on the lattice; one cross-attention for "
            "both; heads of the branches held to the fused one with weight 0.3."
        ),
        ours=(
            "Frozen features for the crop as well, small widths, standardized log1p CP10k, turns of the whole section, "
            "hexagonal lattices, windows for large sections, the standard deviation."
        ),
        limits=(
            "What the section says hangs on which rows are predicted together. Needs some hundred training rows; with "
            "fewer, ridge is safer. Little carries over to a new patient: on section B4 of her2st it is below ridge "
            "and depth alone. Defaults are first choices, but early stopping was given up by what B4 said."
        ),
        uncertainty="Spread of the four heads, and a noise level per gene from training data that were left out.",
    )

    def build(self) -> None:
        """The branches, and a head for each."""
        self.branches = Branches(self.sizes, self.config)
        width, genes = self.config.width, len(self.genes)
        self.heads = nn.ModuleDict({name: nn.Linear(width, genes) for name in self.branches.names})

    def said(self, batch: Batch) -> dict[str, Tensor]:
        """Standardized expression `(B, G)` by every head."""
        found = self.branches(batch, turn_of(batch, self.training))
        return {name: head(found[name]) for name, head in self.heads.items()}
