r"""DKAN: what is known of every gene asks what is seen of a spot.

The image of a spot is seen as in TRIPLEX (`sq_imputer.nn.triplex`): its parts :math:`t`, the tiles around it :math:`n`
and the whole section, fused to :math:`f`. What is known of the genes becomes one token per gene, :math:`q_g`, by a
transformer in which genes look at each other. Two stacks of cross-attention let these ask the image and, in training
alone, the expression of the spot :math:`h = \mathrm{LN}(p + W_2\,\mathrm{GELU}(p))`, :math:`p = W_1 y`:

.. math::

    e^i_{bg} = C_i\bigl(q_g; t_b, n_b, f_b\bigr), \qquad e^y_{bg} = C_y\bigl(q_g; h_b\bigr), \qquad
    \hat y_{bg} = w \cdot e^i_{bg} + c

with one :math:`w` for all genes, so that a gene differs from another by what is known of it alone. Both losses are
trained together, each weighted by how large it is:

.. math::

    L_s = \lVert \hat y - y \rVert^2 + \sum_{d \in \{f, t, n, \mathrm{row}\}}
        (1 - \lambda)\lVert \hat y_d - y \rVert^2 + \lambda\lVert \hat y_d - \hat y \rVert^2, \qquad
    L_c = -\frac1M \sum_k \log \frac{e^{\cos(e^i_k, e^y_k) / \tau}}{\sum_l e^{\cos(e^i_k, e^y_l) / \tau}}

.. math::

    L = w_s L_s + w_c L_c, \qquad w_s \propto \frac1{L_s}, \quad w_c \propto \frac3{L_c}, \quad w_s + w_c = 1

The :math:`\hat y_d` are linear heads of the views, :math:`\lambda = 0.3`, :math:`k, l` count pairs of spot and gene.
The weights are numbers, no gradient passes through them: L is :math:`4 L_s L_c / (L_c + 3 L_s)`, and a step changes the
logarithms of the two losses as 1 to 3. No expression is read when predicting.

**Established**: gene tokens that ask image and expression by two stacks of their own, the shared output, the loss with
its weights and the direction from image to expression follow the paper and the released code. There a spot is asked as
*one* vector, f (`kv="vector"`). **Attention to one key is no attention**: its weight is 1 whatever is asked, so that
what a gene takes from the image does not depend on the gene, and a map of such attention shows nothing. Genes differ
then only by what the network makes of the sum. The stack for expression is of this kind in both forms.

**Ours** is `kv="tokens"`, the default: the parts of the crop, the tiles around it (those outside of the image do not
count) and f are keys of their own, which every gene weighs for itself. Ours, too, are frozen features for the crop,
expression standardized per gene, small widths, random genes in each step, dropout of expression in its encoder, a norm
at the end of each stack, the standard deviation, vectors that are learned for genes of which nothing is known, and that
vectors are centered and scaled as a whole. Validation, if rows are held out for it, looks at the squared error of
:math:`\hat y` alone; none are by default, since on section B4 of her2st it ended training at a third of the epochs that
were best there.

The contrastive loss is of at most 32 spots and 16 genes of a step, a block of 512 x 512 cosines (1 MB); as released it
is of all of 128 x 250 pairs, a billion. Which text model the vectors came from, and how they were pooled, is not
established: any :class:`sq_imputer.GeneKnowledge` will do, spelling alone if none is given, and a warning says that.
Compare with `knowledge.permuted()`: vectors that only tell genes apart help as much as they do permuted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from sq_imputer.contract import Batch, Needs, Prediction, Source
from sq_imputer.errors import BadInput
from sq_imputer.nn import drawn
from sq_imputer.nn.contrastive import ProjectionHead
from sq_imputer.nn.drawn import Dropout
from sq_imputer.nn.transformer import Block, CrossBlock
from sq_imputer.nn.triplex import SMALL, Branches, Seeing, Surroundings, distilled, turn_of
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.ranges import one_of, within

# B spots, G genes, S of them in a step, K keys, W width, V width of what is known of a gene

MOST_SPOTS, MOST_GENES = 32, 16  # of a step that are contrasted: at most 512 x 512 cosines


@dataclass(frozen=True)
class Config(Surroundings):
    """What DKAN is made of, beside how a spot is seen (`sq_imputer.nn.triplex.Surroundings`).

    Parameters
    ----------
    gene_vectors
        What tells genes apart: `"knowledge"` that is given, or vectors that are `"learned"` and mean nothing.
    kv
        What genes ask: `"tokens"` (parts, tiles and their fusion), or the fusion alone as one `"vector"`, as published.
    gene_depth
        Blocks of the gene encoder, of the path through the image, and of that through expression.
    gene_heads, gene_ratio, gene_dropout
        Heads, hidden units per width, and share dropped in training, of all three.
    genes_per_step
        Genes of a step, drawn anew for each; all are seen by the gene encoder.
    temperature
        Of the contrastive loss.
    distillation
        Weight of the prediction in the loss of the heads of the views, against that of what was measured.
    lr, weight_decay, epochs, batch_size, validation
        Training; `validation` is the share of rows held out to stop early, 0 for none.
    calibration
        Parts of the training data left out in turn to measure the noise, each a fit of as many epochs as were best.
    """

    gene_vectors: str = one_of("knowledge", ("knowledge", "learned"))
    kv: str = one_of("tokens", ("tokens", "vector"))
    gene_depth: tuple[int, int, int] = within((1, 2, 2), 0, whole=True)
    gene_heads: int = within(4, 1)
    gene_ratio: float = within(2.0, above=0)
    gene_dropout: float = within(0.3, 0, below=1)
    genes_per_step: int = within(64, 1)
    temperature: float = within(0.1, above=0)
    distillation: float = within(0.3, 0, 1)
    lr: float = within(2e-3, 0)
    weight_decay: float = within(0.1, 0)
    epochs: int = within(100, 1)
    batch_size: int = within(64, 1)
    validation: float = within(0.0, 0, below=1)
    calibration: int = within(2, 0, but=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.gene_depth) != 3 or min(self.gene_depth[1:]) < 1:
            raise BadInput(
                f"dkan.Config.gene_depth is {self.gene_depth}; expected blocks of the gene encoder (0 or more), of the "
                "path through the image and of that through expression (1 or more each)."
            )
        if self.width % self.gene_heads:
            raise BadInput(f"dkan.Config.gene_heads is {self.gene_heads}; expected a divisor of width={self.width}.")

    @property
    def needs(self) -> Needs:
        """Crop, its parts, the tiles around it, the whole section, and what is known of genes."""
        return replace(super().needs, knowledge=self.gene_vectors == "knowledge")

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: fewer pixels, parts, tiles and epochs, and a narrow network."""
        dropout = {"dropout": (0.1,) * 4, "input_dropout": 0.1, "gene_dropout": 0.1}
        genes = {"gene_depth": (1, 1, 1), "gene_heads": 2}
        return cls(**SMALL, **dropout, **genes, lr=5e-3, epochs=18, validation=0.0, calibration=0)

    @classmethod
    def paper(cls) -> Config:
        """Sizes and training as released for HER2ST, on features of UNI; knowledge and weights are the user's own."""
        seen = {"encoders": ("uni",), "extent_um": 112.0, "context_um": (), "per_section": False, "width": 1024}
        shape = {"depth": (0, 4, 5, 1), "heads": (4, 4, 8, 4), "ratio": (4.0,) * 4, "dropout": (0.3, 0.3, 0.3, 0.4)}
        genes = {"kv": "vector", "gene_depth": (3, 4, 3), "gene_ratio": 4.0, "genes_per_step": 250}
        return cls(**seen, **shape, **genes, input_dropout=0.0, lr=1e-4, weight_decay=0.0, epochs=200, batch_size=128)


class GeneEncoder(nn.Module):
    """Genes as tokens that look at each other.

    Parameters
    ----------
    vectors
        Width of what is known; 0 if nothing is.
    unknown
        Genes of which nothing is known: each has a vector that is learned.
    width, depth, heads, ratio, dropout
        Of the transformer.
    """

    def __init__(
        self, vectors: int, unknown: int, width: int, depth: int, heads: int, ratio: float, dropout: float
    ) -> None:
        super().__init__()
        self.known = nn.Linear(vectors, width) if vectors else None
        self.own = nn.Parameter(torch.randn(unknown, width)) if unknown else None
        self.blocks = nn.ModuleList(Block(width, heads, ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors_GV: Tensor, known_G: Tensor) -> Tensor:
        """What is known of genes, and of which anything is, to tokens `(1, G, W)`."""
        if self.known is None:
            x_1GW = self.own[None]
        else:
            x_1GW = self.known(_of_unit_scale(vectors_GV, known_G))[None]
            if self.own is not None:
                x_1GW = x_1GW.masked_scatter(~known_G[None, :, None], self.own.to(x_1GW))
        for block in self.blocks:
            x_1GW = block(x_1GW)
        return self.norm(x_1GW)


def _of_unit_scale(vectors_GV: Tensor, known_G: Tensor) -> Tensor:
    """Vectors without their mean, of root mean square 1 over all their numbers: directions keep what they weigh."""
    centered = (vectors_GV - vectors_GV[known_G].mean(dim=0)) * known_G[:, None]
    return centered / (centered[known_G].pow(2).mean().sqrt() + 1e-6)


class _One(nn.Module):
    """Attention where there is one token to look at: its weight is 1 whatever is asked, so that nothing asks."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Sequential(nn.Linear(width, width), Dropout(dropout)) if heads > 1 else nn.Identity()

    def forward(self, x_BQW: Tensor, y_B1W: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, 1, W)`, the same for all that ask."""
        return self.out(self.value(y_B1W))


class GenePath(nn.Module):
    """Genes that ask the tokens of a spot, block after block.

    Parameters
    ----------
    width, depth, heads, ratio, dropout
        Of the transformer.
    one
        Whether a spot is one token.
    """

    def __init__(self, width: int, depth: int, heads: int, ratio: float, dropout: float, *, one: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(width, heads, ratio, dropout) for _ in range(depth))
        for block in self.blocks if one else ():
            block.attention = _One(width, heads, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, genes_1SW: Tensor, seen_BKW: Tensor, inside_BK: Tensor | None = None) -> Tensor:
        """Gene tokens `(1, S, W)` that have asked `(B, K, W)`, those that are `inside`: `(B, S, W)`."""
        x_BSW = genes_1SW.expand(len(seen_BKW), -1, -1)
        mask = None if inside_BK is None else inside_BK[:, None, None]
        for block in self.blocks:
            x_BSW = block(x_BSW, seen_BKW, mask)
        return self.norm(x_BSW)


class Model(Seeing, Predictor):
    """What is known of every gene asks what is seen of a spot."""

    Config = Config
    std_of_mean = True
    draws_by_name = True
    card = ModelCard(
        name="dkan",
        summary="What is known of each gene (text, gene sets) asks the crop, the tiles around it and the section.",
        paper=(
            "Zhang, Chu, Liu, Tong, Li: Dual-Path Knowledge-Augmented Contrastive Alignment Network for Spatially "
            "Resolved Transcriptomics, AAAI 2026."
        ),
        doi="10.48550/arXiv.2511.17685",
        citation=(
            "@inproceedings{zhang2026dkan,\n"
            "  title={Dual-Path Knowledge-Augmented Contrastive Alignment Network for Spatially Resolved "
            "Transcriptomics},\n"
            "  author={Zhang, Wei and Chu, Jiajun and Liu, Xinci and Tong, Chen and Li, Xinyue},\n"
            "  booktitle={Proceedings of the AAAI Conference on Artificial Intelligence},\n"
            "  year={2026}, doi={10.48550/arXiv.2511.17685}\n}"
        ),
        established="Gene tokens that ask image and expression on two paths, one output for all genes, the joint loss.",
        ours="kv='tokens', the subsampled contrast, frozen features, small widths, standardized targets, the std.",
        limits=(
            "Needs knowledge of genes and some hundred training rows. What the section says hangs on which rows are "
            "predicted together. Attention of kv='vector' selects nothing. Genes share one output, so that they differ "
            "by what is known of them alone: told by gene sets it is behind ridge on all that was measured."
        ),
        uncertainty="Spread of the prediction and the heads of the views, and a noise level per gene from training "
        "data that were left out.",
    )

    def further_sizes(self, sources: Sequence[Source]) -> dict[str, int]:
        """How many genes need a vector of their own, as nothing is known of them."""
        if not self.needs.knowledge:
            return {"unknown": len(self.genes)}
        return {"unknown": int((~self.knowledge.aligned(self.genes, quiet=True).known).sum())}

    def build(self) -> None:
        """Views, genes, the two paths, and the heads."""
        c, genes = self.config, len(self.genes)
        rest = (c.gene_heads, c.gene_ratio, c.gene_dropout)
        of_genes, of_image, of_expression = c.gene_depth
        self.branches = Branches(self.sizes, c)
        self.gene_encoder = GeneEncoder(self.sizes.get("knowledge", 0), self.sizes["unknown"], c.width, of_genes, *rest)
        self.image_path = GenePath(c.width, of_image, *rest, one=c.kv == "vector")
        self.expression_encoder = ProjectionHead(genes, c.width, c.gene_dropout)
        self.expression_path = GenePath(c.width, of_expression, *rest, one=True)
        self.out = nn.Linear(c.width, 1)
        self.heads = nn.ModuleDict({name: nn.Linear(c.width, genes) for name in self.branches.names})
        if c.kv == "tokens":
            kinds = 2 + bool(c.neighbors)
            self.kind = nn.Parameter(0.02 * torch.randn(kinds, c.width))

    # What is seen, and what genes make of it ------------------------------------------------------

    def gene_tokens(self) -> Tensor:
        """All genes `(1, G, W)`, once for all spots."""
        if self.needs.knowledge:
            return self.gene_encoder(self.gene_vectors, self.gene_known)
        nothing = torch.zeros(len(self.genes), dtype=torch.bool, device=self.expression_mean.device)
        return self.gene_encoder(nothing[:, None], nothing)

    def views(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """Views `(B, W)` by name, the tokens `(B, K, W)` that genes ask, and which of these count."""
        parts: list[tuple[Tensor, Tensor | None]] = []

        def note(name: str, tokens: Tensor, inside: Tensor | None) -> Tensor:
            parts.append((tokens, inside))
            return tokens

        found = self.branches(batch, turn_of(batch, self.training), note)
        fused = found["fused"][:, None]
        if self.config.kv == "vector":
            return found, fused, None
        parts.append((fused, None))
        every = [torch.ones(t.shape[:2], dtype=torch.bool, device=t.device) if i is None else i for t, i in parts]
        tokens = [tokens + kind for (tokens, _), kind in zip(parts, self.kind, strict=True)]
        return found, torch.cat(tokens, dim=1), torch.cat(every, dim=1)

    def told(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Standardized expression `(B, G)`, and the views that it comes from; no expression is looked at."""
        found, *tokens = self.views(batch)
        return self.out(self.image_path(self.gene_tokens(), *tokens))[..., 0], found

    # Training -------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses, weighted; out of training the squared error alone."""
        truth = (batch.expression - self.expression_mean) / self.expression_std
        if not self.training:
            return {"mse": (self.told(batch)[0] - truth).pow(2).mean()}
        supervised, contrastive = self.losses(batch, truth)
        weights = adaptive_weights(supervised, contrastive)
        return {"supervised": weights[0] * supervised, "contrastive": weights[1] * contrastive}

    def losses(self, batch: Batch, truth_BG: Tensor) -> tuple[Tensor, Tensor]:
        """The supervised and the contrastive loss, of some genes and, the latter, of some spots."""
        order = torch.randperm(len(self.genes), generator=drawn.generator(truth_BG.device), device=truth_BG.device)
        chosen = order[: self.config.genes_per_step]
        genes_1SW = self.gene_tokens()[:, chosen]
        found, *tokens = self.views(batch)
        by_image = self.image_path(genes_1SW, *tokens)
        heads = {
            f"head of {name}": linear(found[name], h.weight[chosen], h.bias[chosen]) for name, h in self.heads.items()
        }
        said = {"fused": self.out(by_image)[..., 0], **heads}
        supervised = distilled(said, truth_BG[:, chosen], self.config.distillation, detach=False)
        some = by_image[:MOST_SPOTS, :MOST_GENES]  # batches and genes are in random order
        by_expression = self.by_expression(genes_1SW[:, :MOST_GENES], truth_BG[:MOST_SPOTS])
        return sum(supervised.values()), infonce(some, by_expression, self.config.temperature)

    def by_expression(self, genes_1SW: Tensor, truth_BG: Tensor) -> Tensor:
        """What gene tokens make of the expression of spots, `(B, S, W)`: in training alone."""
        return self.expression_path(genes_1SW, self.expression_encoder(truth_BG)[:, None])

    # Prediction -----------------------------------------------------------------------------------

    def predict_step(self, batch: Batch) -> Prediction:
        """What genes made of the image, and how far that and the heads of the views differ; noise is added to it."""
        mean, found = self.told(batch)
        spread = torch.stack([mean, *(head(found[name]) for name, head in self.heads.items())]).std(dim=0, correction=0)
        return Prediction(
            mean=self.expression_mean + self.expression_std * mean,
            std=self.expression_std * spread,
            embedding=found["fused"],
        )


def infonce(image_BSW: Tensor, expression_BSW: Tensor, temperature: float) -> Tensor:
    r"""Cross-entropy of finding each pair of spot and gene among all of them, from the image to expression.

    Where nothing tells pairs apart it is :math:`\ln M`, M their number. Computed in float32.
    """
    with torch.autocast(image_BSW.device.type, enabled=False):
        one, other = (normalize(part.float().flatten(0, 1), dim=1) for part in (image_BSW, expression_BSW))
        logits_MM = one @ other.T / temperature
        return cross_entropy(logits_MM, torch.arange(len(logits_MM), device=logits_MM.device))


def adaptive_weights(supervised: Tensor, contrastive: Tensor) -> Tensor:
    """Two numbers as 1 / L and 3 / L that sum to 1; both 1 where a loss is 0."""
    losses = torch.stack([supervised.detach(), contrastive.detach()])
    share = losses.new_tensor([1.0, 3.0]) / losses
    return torch.where((losses > 0).all(), share / share.sum(), torch.ones_like(share))
