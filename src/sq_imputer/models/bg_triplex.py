r"""BG-TRIPLEX: TRIPLEX whose tokens are guided by the boundaries of the tissue, its edges and nuclei.

The branches are those of `triplex`: the parts of a crop, the tiles around it and the whole section. Beside them,
pictures of edges and of nuclei (what they cover, their borders, the distance to these) at the same places, of the crop
and of the block around it, pass small convolutional networks of their own and become boundary tokens
:math:`E` and :math:`N`. Image tokens :math:`X` ask them before they are fused:

.. math::

    X' = X + C_e(X \leftarrow E) + C_n(X \leftarrow N)

by the same two cross-attentions for both branches. Heads on the means of :math:`X` and of :math:`X'` of both branches,
on the section's token and on the fused one are six; all are taught as those of `triplex`.

**Established** (the abstract of Qu et al. 2024, their released code): boundary information from edges and nuclei for
spot and in-context branch, one guided encoder shared by both, multi-head attention from image to boundary features,
heads before and after guidance. The released code lacks the classes of extractors and guidance, gives loss to three of
six heads (the context unguided), and reads the H&E itself as edges in places: its figures cannot be audited by it.

**Ours**: the equation above, the convolutional networks, loss for all six heads (`terms="three"` for those of spot,
context and section after guidance), one mask for tiles outside of the image, one turn for pictures, tokens and lattice,
and the maps themselves: PiDiNet and HoVer-Net are not used. *Edges* are differences of opposite pixels at three
radii, thinned to ridges. *Nuclei* are found by color deconvolution, blobs and a watershed, with one threshold for a
section; or they are those that the object has, from 10x, Cellpose, StarDist or another: pass `nuclei_key=`, to the fit
and the prediction alike. Which of them it was is in the provenance. All else is as in `triplex`.

**Limits**: nuclei are visible from about 1 µm per pixel on. In a coarser image both maps say little.
What lies beside the image is white: tiles at its border see that border as an edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, Needs
from sq_imputer.errors import BadInput
from sq_imputer.needs import MAPS
from sq_imputer.nn.transformer import Attention
from sq_imputer.nn.triplex import SMALL, Branches, Heads, Taught, turn_of
from sq_imputer.nn.turns import Turn
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.ranges import one_of, within

# B rows, C channels, S pixels a side, T tokens, W width, G genes

BRANCHES = ("spot", "around")


@dataclass(frozen=True)
class Config(Taught):
    """What BG-TRIPLEX is made of, beside how a spot is seen and taught (`sq_imputer.nn.triplex.Taught`).

    Parameters
    ----------
    maps
        Boundaries that guide: `"edges"`, `"nuclei"` or both.
    maps_px
        Pixels along a side of their pictures.
    maps_um
        About how much tissue, in µm, a pixel covers where boundaries are looked for.
    guide_heads
        Heads of the attention from image to boundaries.
    terms
        Heads in the loss beside the fused one: `"all"` five, or `"three"`: spot, context and section.
    """

    maps: tuple[str, ...] = ("edges", "nuclei")
    maps_px: int = within(64, 16)
    maps_um: float = within(1.0, 0.1)
    guide_heads: int = within(1, 1)
    terms: str = one_of("all", ("all", "three"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.maps:
            raise BadInput("bg_triplex.Config.maps is empty: nothing would guide. Take model 'triplex' for that.")
        if self.width % self.guide_heads:
            raise BadInput(f"bg_triplex.Config.guide_heads is {self.guide_heads}; expected a divisor of {self.width}.")

    @property
    def needs(self) -> Needs:
        """What `triplex` needs, and maps."""
        return replace(super().needs, maps=self.maps, maps_px=self.maps_px, maps_um=self.maps_um)

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: fewer pixels, parts, tiles and epochs, and a narrow network."""
        return cls(
            **SMALL,
            dropout=(0.0, 0.0, 0.0, 0.0),
            input_dropout=0.0,
            maps_px=16,
            maps_um=2.0,
            lr=1e-2,
            epochs=20,
            batch_size=128,
        )


class Boundary(nn.Sequential):
    """Pictures of boundaries as tokens: three convolutions that halve them, means on a grid, and a projection."""

    def __init__(self, channels: int, width: int, side: int) -> None:
        widths = (channels, max(8, width // 4), max(8, width // 2), width)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GELU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(side), nn.Flatten(2))

    def forward(self, picture_BCSS: Tensor) -> Tensor:
        """`(B, T, W)` tokens, from the top left."""
        last = picture_BCSS.contiguous(memory_format=torch.channels_last)  # few channels are convolved faster so
        return super().forward(last).transpose(1, 2)


class Guidance(nn.Module):
    """Image tokens ask boundary tokens: a network per branch and kind of boundary, an attention per kind.

    Without weights it adds nothing.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        sides = {"spot": c.tokens, "around": c.neighbors}
        self.kinds = c.maps
        self.boundary = nn.ModuleDict(
            {
                f"{branch} {kind}": Boundary(MAPS[kind], c.width, side)
                for branch, side in sides.items()
                if side
                for kind in c.maps
            }
        )
        self.norm = nn.LayerNorm(c.width)
        self.norms = nn.ModuleDict({kind: nn.LayerNorm(c.width) for kind in c.maps})
        self.attention = nn.ModuleDict({kind: Attention(c.width, c.guide_heads, c.dropout[3]) for kind in c.maps})

    def forward(self, branch: str, x_BTW: Tensor, inside_BT: Tensor | None, maps_BVCSS: Tensor) -> Tensor:
        """Guided tokens `(B, T, W)` of a branch."""
        view = BRANCHES.index(branch)
        parts = maps_BVCSS[:, view].split([MAPS[kind] for kind in self.kinds], dim=1)
        mask = None if inside_BT is None else inside_BT[:, None, None]
        query, added = self.norm(x_BTW), 0
        for kind, picture in zip(self.kinds, parts, strict=True):
            tokens = self.norms[kind](self.boundary[f"{branch} {kind}"](picture))
            added = added + self.attention[kind](query, tokens, mask)
        return x_BTW + added


class Model(Heads, Predictor):
    """TRIPLEX, guided by edges and nuclei."""

    Config = Config
    std_of_mean = True
    draws_by_name = True
    card = ModelCard(
        name="bg_triplex",
        summary="TRIPLEX whose tokens are guided by edges and nuclei, in the crop and around it.",
        paper=(
            "Qu, Wu, Di, Su, Su, Song, Fan: Boundary-Guided Learning for Gene Expression Prediction in Spatial "
            "Transcriptomics, arXiv 2024; its abstract, and the released code, which is not complete."
        ),
        doi="10.48550/arXiv.2412.04072",
        citation=(
            "@article{qu2024bgtriplex,\n"
            "  title={Boundary-Guided Learning for Gene Expression Prediction in Spatial Transcriptomics},\n"
            "  author={Qu, Mingcheng and Wu, Yuncong and Di, Donglin and Su, Anyang and Su, Tonghua and Song, Yang and "
            "Fan, Lei},\n"
            "  journal={arXiv preprint arXiv:2412.04072},\n"
            "  year={2024}, doi={10.48550/arXiv.2412.04072}\n}"
        ),
        established=(
            "Boundary features for spot and context, one guided encoder for both, heads before and after guidance. "
            "Extractors and equations were never released."
        ),
        ours=(
            "The equations of the guidance, its networks, loss for all six heads, maps of edges and nuclei without "
            "weights of others, or the nuclei of the object; all that is ours in `triplex`."
        ),
        limits=(
            "Nuclei are visible from about 1 µm per pixel on; in a coarser image the maps say little. What the section "
            "says hangs on which rows are predicted together. Needs some hundred training rows. Little carries over to "
            "a new patient: on section B4 of her2st it is below ridge and depth alone. Defaults are those of triplex."
        ),
        uncertainty="Spread of the heads, and a noise level per gene from training data that were left out.",
    )

    def build(self) -> None:
        """The branches, their guidance, and a head for each before and after it."""
        self.branches = Branches(self.sizes, self.config)
        names = self.branches.names
        if self.config.terms == "all":
            names = (*names, *(f"{name}0" for name in names if name in BRANCHES))
        width, genes = self.config.width, len(self.genes)
        self.heads = nn.ModuleDict({name: nn.Linear(width, genes) for name in names})
        self.guidance = Guidance(self.config)

    def said(self, batch: Batch, turn: Turn | None = None) -> dict[str, Tensor]:
        """Standardized expression `(B, G)` by every head; everything is turned alike, in training at random."""
        turn = turn_of(batch, self.training) if turn is None else turn
        maps = turn.picture(batch.maps).to(self.expression_mean) / 255

        def guide(branch: str, tokens: Tensor, inside: Tensor | None) -> Tensor:
            return self.guidance(branch, tokens, inside, maps)

        found = self.branches(batch, turn, guide)
        return {name: head(found[name]) for name, head in self.heads.items()}
