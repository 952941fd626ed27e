r"""CoMTIP-style, after the abstract: an image and sentences of genes with their values, in one space.

A sentence is a set of pairs of what is known of a gene, :math:`e_g` (frozen), and its value :math:`v` in a spot. Each
pair becomes a token by a map that is *not* linear; tokens look at each other and are pooled by attention:

.. math::

    u_g = \mathrm{MLP}\bigl[W e_g;\ \varphi(v);\ W e_g \odot \varphi(v)\bigr], \qquad
    t = \frac{A\,\mathrm{pool}(h)}{\lVert\cdot\rVert}, \quad h = \mathrm{blocks}(\{u_g\}), \qquad
    z = \frac{C x}{\lVert\cdot\rVert}, \quad x = \mathrm{LN}\bigl(\overline{Z} + r\bigr), \quad Z = E(\text{parts})

:math:`\varphi` is made of 16 bumps on the scale of values, E of two blocks of attention over the parts of the crop, r
of the row's own features, crop and contexts. Were a token the *sum* of gene and value, and the pool a mean, values
dealt out to other genes would change nothing. Four losses are trained together:

.. math::

    L = L_\mathrm{NCE} + L_\mathrm{MFM} + \tfrac12 L_\mathrm{PAAT} + L_\mathrm{head}

- *NCE*, symmetric InfoNCE of images and sentences, with a learned temperature of .01 or more. All spots of a step tell
  the same genes, of a drawn number: values alone tell them apart; and some genes one by one, as they are asked.
- *MFM*, masked feature modelling: half of the parts are hidden, E sees the others *alone*, and cross-attention makes of
  these what E says of a hidden one when it sees all, up to mean and spread; no gradient passes through that.
- *PAAT*, pair-aware adversarial training. Pairs of genes exchange values that are half a standard deviation or more
  apart: 30 % of a drawn matching, those that raise :math:`s = z \cdot t` most to first order; of four matchings the one
  most like the image. :math:`-\log\sigma((s - \tilde s - .05) / .1)`, and a line on each token says whether its pair is
  intact. Genes and the multiset of values stay, and no gradient passes through the adversary.
- *head*, the squared error of a linear head on x.

**Which prediction is which.** Genes of the fit are predicted by the head, fine-tuned along with the image branch
(afterwards would move images away from sentences): all that `tl.predict` says of a panel. Genes that were *not* in the
fit (`model.for_genes`, `tl.predict(genes=)`) are asked for by sentences of one gene, at M values that all genes share,

.. math::

    \hat v_{bg} = \sum_m V_m\,\mathrm{softmax}_m\Bigl(\tfrac{1}{\tau}\,(z_b - \bar z) \cdot t(\{(g, V_m)\})\Bigr)

With :math:`\bar z`, the mean of training rows, goes what a value scores with any tissue. :math:`V_m` are quantiles of
the training values of all genes together, never of :math:`g`. **The scale is ordinal**: values are standard deviations
of a gene about its own mean, both unknown where nobody measured it. They say where a gene is high for that gene; mean
and spread in which they are written are pooled over the genes of the fit.

**From the abstract**: names, values and images are pretrained together; masked feature modelling; pairs of gene and
value; adversarial training of pairs; contrast; genes not seen. No more was at hand, no code, and no figure is quoted.
**Ours is all else**: frozen features instead of a trained image network, r, values standardized per gene (its level
does not tell its name), norms of both before they meet, the genes of a step, every loss and weight, how the adversary
chooses, sizes, a constant learning rate, turned crops, the head, the standard deviation (how far the softmax spreads
over values, of measured genes too, sized by errors on left-out rows). Norms, learning rate, epochs and the number of
single genes were chosen on A1 of her2st; 4 x 4 parts are a matter of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sq_imputer.contract import Batch, Needs, Prediction, Source, Views
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput
from sq_imputer.nn import drawn
from sq_imputer.nn.clip import PairLoss
from sq_imputer.nn.drawn import Dropout
from sq_imputer.nn.transformer import Block, CrossBlock
from sq_imputer.nn.triplex import Embedding
from sq_imputer.nn.turns import any_turn
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.ranges import within

# B spots, T parts of a crop, F numbers of each, G genes, S of them in a sentence, V known of each, C bumps, M values,
# W width, R matchings, P pairs of a matching

CENTERS = 16  # bumps on the scale of values
APART = 0.5  # standard deviations between two values that are worth exchanging
SWAPPED = 0.3  # share of a matching that is exchanged
MARGIN, SHARPNESS = 0.05, 0.1  # of the loss of pairing
MOST_SPOTS = 32  # of a step whose pairs are exchanged: batches are in random order
GENES_AT_ONCE = 512  # that are asked for


@dataclass(frozen=True)
class Config(Views):
    """What the model is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    tokens
        Parts along a side that the crop is seen in.
    width, heads, depth
        Of all tokens and the common space; blocks of either branch.
    dropout, input_dropout
        Share dropped in training: within the blocks, and of features and of what is known of genes.
    genes_per_text, singles
        Most genes of a sentence in training, and how many genes are told alone in each step; 0 for none.
    hidden, proposals, values
        Share of parts that is hidden, matchings that the adversary chooses from, values at which a gene is asked for.
    pairing
        Weight of the adversary, that of the other losses being 1; 0 for none.
    lr, weight_decay, epochs, batch_size, validation, calibration
        Training; share of rows held out to stop early, by the head's error; parts left out in turn to measure noise.
    """

    tokens: int = within(4, 2)
    width: int = within(64, 1)
    heads: int = within(4, 1)
    depth: int = within(2, 0)
    dropout: float = within(0.3, 0, below=1)
    input_dropout: float = within(0.3, 0, below=1)
    genes_per_text: int = within(32, 1)
    singles: int = within(16, 0)
    hidden: float = within(0.5, above=0, below=1)
    pairing: float = within(0.5, 0)
    proposals: int = within(4, 1)
    values: int = within(32, 2)
    lr: float = within(2e-3, 0)
    weight_decay: float = within(0.1, 0)
    epochs: int = within(12, 1)
    batch_size: int = within(64, 2)  # one spot has no other to be told from
    validation: float = within(0.0, 0, below=1)
    calibration: int = within(2, 0, but=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads:
            raise BadInput(f"comtip.Config.heads is {self.heads}; expected a divisor of width={self.width}.")

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts, of the parts of the crop, and the vectors of genes."""
        return replace(super().needs, tokens=self.tokens, knowledge=True)

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: the crop alone in four parts, a narrow network, few genes, values and epochs."""
        few = {"genes_per_text": 6, "singles": 2, "proposals": 2, "values": 8, "epochs": 12}
        shape = {"size_px": 32, "context_um": (), "tokens": 2, "width": 16, "heads": 2, "depth": 1}
        return cls(**shape, **few, dropout=0.1, input_dropout=0.1, lr=5e-3, calibration=2)


class ImageBranch(nn.Module):
    """Parts of a crop that look at each other, what hidden ones would be, and the row as one vector."""

    def __init__(self, sizes: dict[str, int], config: Config) -> None:
        super().__init__()
        width, rest = config.width, config.input_dropout
        self.part_in = Embedding(sizes["tokens"], width, rest)
        self.row_in = Embedding(sizes["features"], width, rest)
        self.place = nn.Parameter(0.02 * torch.randn(config.tokens**2, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, 2.0, config.dropout) for _ in range(config.depth))
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.generator = CrossBlock(width, config.heads, 4.0, config.dropout)
        self.norm = nn.LayerNorm(width)

    def encode(self, parts_BTF: Tensor, at_BT: Tensor | None = None) -> Tensor:
        """Parts `(B, T, F)`, or some of them and their numbers, to `(B, T, W)`."""
        x_BTW = self.part_in(parts_BTF) + (self.place if at_BT is None else self.place[at_BT])
        for block in self.blocks:
            x_BTW = block(x_BTW)
        return x_BTW

    def forward(self, parts_BTF: Tensor, features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of all parts, `(B, T, W)`, and the row, `(B, W)`."""
        z_BTW = self.encode(parts_BTF)
        return z_BTW, self.norm(z_BTW.mean(dim=1) + self.row_in(features_BF))


class Sentences(nn.Module):
    """Sets of pairs of gene and value, to unit vectors; the order of the pairs does not matter."""

    def __init__(self, vectors: int, config: Config) -> None:
        super().__init__()
        width = config.width
        self.gene = nn.Sequential(Dropout(config.input_dropout), nn.Linear(vectors, width), nn.LayerNorm(width))
        self.value = nn.Sequential(nn.Linear(CENTERS, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.pair = nn.Sequential(nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, 2.0, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.weight, self.out = nn.Linear(width, 1, bias=False), nn.Linear(width, width)

    def pairs(self, genes_SW: Tensor, codes: Tensor) -> Tensor:
        """Tokens of genes, as `gene` gives them, with codes `(..., S, C)` of their values, `(..., S, W)`."""
        value = self.value(codes)
        gene = genes_SW.expand_as(value)
        return self.pair(torch.cat([gene, value, gene * value], dim=-1))

    def forward(self, pairs_BSW: Tensor) -> tuple[Tensor, Tensor]:
        """Sentences `(B, W)` of length 1, and their tokens `(B, S, W)` as they have looked at each other."""
        for block in self.blocks:
            pairs_BSW = block(pairs_BSW)
        h_BSW = self.norm(pairs_BSW)
        pooled = (self.weight(h_BSW).softmax(dim=1) * h_BSW).sum(dim=1)
        return F.normalize(self.out(pooled), dim=-1), h_BSW


class Model(Predictor):
    """Images and sentences of genes and values in one space, and a head for the genes of the fit."""

    Config = Config
    fewest_rows = 2
    draws_by_name = True
    per_gene = ("head.weight", "head.bias", "measured")
    card = ModelCard(
        name="comtip",
        summary="Images and sentences of genes with their values in one space; a head for genes that were measured.",
        paper="CoMTIP, known here by its abstract alone: pretraining on images, names of genes and values together.",
        established="After the abstract: masked feature modelling, pairs of gene and value, adversarial training of "
        "pairs, contrast, and predictions of genes that were not seen.",
        ours="All details: frozen features, standardized values, every loss, how pairs are exchanged and unseen genes "
        "asked for, the head, the standard deviation.",
        limits="Unseen genes are ordinal; on a tumor they were told no better than by the mean of those most alike.",
        uncertainty="How far the answer spreads over possible values, sized by the error on left-out training data.",
        zero_shot=True,
    )

    @property
    def needs(self) -> Needs:
        """What the config says."""
        return self.config.needs

    def build(self) -> None:
        """The two branches, the temperature, the line that knows exchanged pairs, and the head."""
        c, genes = self.config, len(self.genes)
        self.image = ImageBranch(self.sizes, c)
        self.common = nn.Linear(c.width, c.width)
        self.sentences = Sentences(self.sizes["knowledge"], c)
        self.contrast = PairLoss(normalize=False)
        if c.pairing:
            self.intact = nn.Linear(c.width, 1)
        self.head = nn.Linear(c.width, genes)
        self.register_buffer("measured", torch.ones(genes))
        sizes = {"vector_center": self.sizes["knowledge"], "vector_size": (), "grid": c.values, "usual": c.width}
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))
        self._asked: tuple | None = None

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Set the scales of vectors and values, train by the shared harness, and note where images lie on average."""
        known = self.gene_vectors[self.gene_known]
        self.vector_center.copy_(known.mean(dim=0))
        self.vector_size.copy_((known - self.vector_center).pow(2).mean().sqrt() + 1e-6)
        self.grid.copy_(self._quantiles(sources))
        super().optimize(sources, plan)
        self.to(pick_device(plan.device)).eval()
        with torch.no_grad():
            for source in sources:
                for batch in self.seen(source, 256, rows=np.flatnonzero(source.measured), device=plan.device):
                    row_BW = self.image(*(part.to(self.usual.device) for part in (batch.tokens, batch.features)))[1]
                    self.usual += self.placed(row_BW).sum(dim=0) / self.sizes["rows"]
        self.cpu()

    def _quantiles(self, sources: Sequence[Source]) -> Tensor:
        """Evenly probable values `(M,)` of all genes together, standardized, of some thousand rows of a section."""
        rows = [np.flatnonzero(source.measured)[:: 1 + len(source) // 4000] for source in sources]
        seen = np.concatenate([source.expression[own] for source, own in zip(sources, rows, strict=True)])
        seen = (torch.from_numpy(seen).float() - self.expression_mean) / self.expression_std
        shares = (np.arange(self.config.values) + 0.5) / self.config.values
        return torch.from_numpy(np.quantile(seen[:, self.gene_known].numpy(), shares)).float()

    def placed(self, row_BW: Tensor) -> Tensor:
        """Rows in the space of sentences."""
        return F.normalize(self.common(row_BW), dim=-1)

    def known(self, genes) -> Tensor:
        """Some genes `(S, W)`, by what is known of them."""
        return self.sentences.gene((self.gene_vectors[genes] - self.vector_center) / self.vector_size)

    def codes(self, values: Tensor) -> Tensor:
        """Bumps `(..., C)` at which values lie."""
        low, high = self.grid[0], self.grid[-1]
        step = ((high - low) / (CENTERS - 1)).clamp_min(1e-6)
        centers = low + step * torch.arange(CENTERS, device=values.device)
        return (-((values.clamp(low, high)[..., None] - centers) / step).square() / 2).exp()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """All losses, weighted; out of training the head's squared error alone."""
        truth_BG = (batch.expression - self.expression_mean) / self.expression_std
        batch = replace(batch, tokens=any_turn(self.training).cells(batch.tokens))
        parts_BTW, row_BW = self.image(batch.tokens, batch.features)
        error = (self.head(row_BW) - truth_BG).square().mean()
        if not self.training:
            return {"head": error}
        image_BW = self.placed(row_BW)
        contrast, pairing = self.told(image_BW, truth_BG)
        return {"contrast": contrast, "masked": self.masked(batch.tokens, parts_BTW), "pairing": pairing, "head": error}

    def masked(self, parts_BTF: Tensor, whole_BTW: Tensor) -> Tensor:
        """Squared error of parts that were hidden, against what they are among all."""
        n, of = parts_BTF.shape[:2]
        order = torch.rand(n, of, generator=drawn.generator(parts_BTF.device), device=parts_BTF.device).argsort(dim=1)
        count = min(max(round(self.config.hidden * of), 1), of - 1)
        hidden, seen = order[:, :count], order[:, count:]
        known = self.image.encode(parts_BTF.take_along_dim(seen[..., None], 1), seen)
        told = self.image.generator(self.image.hidden + self.image.place[hidden], known)
        truth = whole_BTW.take_along_dim(hidden[..., None], 1).detach()
        return (F.layer_norm(told, told.shape[-1:]) - F.layer_norm(truth, truth.shape[-1:])).square().mean()

    def told(self, image_BW: Tensor, truth_BG: Tensor) -> tuple[Tensor, Tensor]:
        """The contrast of images and sentences, and the loss of exchanged pairs."""
        c, generator = self.config, drawn.generator(image_BW.device)
        every = self.gene_known.nonzero()[:, 0]
        every = every[torch.randperm(len(every), generator=generator, device=every.device)]
        most = max(min(c.genes_per_text, len(every)) / 2, 1)  # few genes are as likely as many
        chosen = every[: round(2 * most ** float(torch.rand((), generator=generator, device=every.device)))]
        genes_SW, values_BS = self.known(chosen), truth_BG[:, chosen]
        text_BW = self.sentences(self.sentences.pairs(genes_SW, self.codes(values_BS)))[0]
        losses, single = [self.contrast(image_BW, text_BW)], every[: c.singles]
        if len(single):
            alone = self.sentences.pairs(self.known(single), self.codes(truth_BG[:, single])).transpose(0, 1)
            alone = self.sentences(alone.flatten(0, 1)[:, None])[0].unflatten(0, alone.shape[:2])
            losses.append(torch.stack([self.contrast(image_BW, text) for text in alone]).mean())
        few = slice(MOST_SPOTS if c.pairing else 0)
        pairing = self.exchanged(image_BW[few], text_BW[few], genes_SW, values_BS[few])
        return torch.stack(losses).mean(), c.pairing * pairing

    def exchanged(self, image_BW: Tensor, text_BW: Tensor, genes_SW: Tensor, values_BS: Tensor) -> Tensor:
        """How far sentences are from being told from those with exchanged values, as a whole and pair by pair."""
        if len(genes_SW) < 2 or not len(image_BW):
            return 0 * image_BW.sum()
        values_BS, changed_BS = self.repaired(image_BW.detach(), genes_SW.detach(), values_BS)
        other_BW, tokens_BSW = self.sentences(self.sentences.pairs(genes_SW, self.codes(values_BS)))
        whole = F.softplus((MARGIN - (image_BW * (text_BW - other_BW)).sum(dim=1)) / SHARPNESS)
        intact_BS = self.intact(tokens_BSW)[..., 0]
        each = F.softplus(torch.where(changed_BS, intact_BS, -intact_BS))  # cross-entropy
        there = changed_BS.any(dim=1).to(text_BW)
        return ((whole + each.mean(dim=1)) * there).sum() / there.sum().clamp_min(1)

    def repaired(self, image_BW: Tensor, genes_SW: Tensor, values_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Values `(B, S)`, some of them exchanged so that the sentence is as like the image as can be, and which."""
        n, codes = self.config.proposals, self.codes
        one, other = matchings(n, values_BS)
        swapped_RBS = exchange(values_BS.expand(n, -1, -1), one, other)
        with torch.enable_grad():
            own = self.sentences.pairs(genes_SW, codes(values_BS)).detach().requires_grad_()
            (slope_BSW,) = torch.autograd.grad((image_BW * self.sentences(own)[0]).sum(), own)
        with torch.no_grad():
            tokens_RBSW = self.sentences.pairs(genes_SW, codes(swapped_RBS))
            gain_RBS = ((tokens_RBSW - own) * slope_BSW).sum(dim=-1)
            chosen = worst(gain_RBS, (swapped_RBS - values_BS).abs() >= APART, one, other)
            tokens_RBSW = torch.where(chosen[..., None], tokens_RBSW, own)
            like_RB = (self.sentences(tokens_RBSW.flatten(0, 1))[0].unflatten(0, (n, -1)) * image_BW).sum(dim=-1)
            best_B = like_RB.masked_fill(~chosen.any(dim=2), -torch.inf).argmax(dim=0)
            best = best_B, torch.arange(len(best_B), device=best_B.device)
            return torch.where(chosen[best], swapped_RBS[best], values_BS), chosen[best]

    def predict_step(self, batch: Batch) -> Prediction:
        """Genes of the fit by the head, others by what is known of them; how far the answer spreads for both."""
        row_BW = self.image(batch.tokens, batch.features)[1]
        mean, spread = self.answers(self.placed(row_BW))
        mean = self.expression_mean + self.expression_std * torch.where(self.measured > 0, self.head(row_BW), mean)
        return Prediction(mean=mean, std=self.expression_std * spread, embedding=row_BW)

    def answers(self, image_BW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(B, G)` of the values that one-gene sentences allow, standardized."""
        unlike, found = (image_BW - self.usual) * self.contrast.scale, []
        for text_GMW in self.texts().split(GENES_AT_ONCE):
            share_BGM = torch.einsum("bw,gmw->bgm", unlike, text_GMW).softmax(dim=-1)
            mean = share_BGM @ self.grid
            found.append((mean, (share_BGM @ self.grid.square() - mean.square()).clamp_min(1e-6).sqrt()))
        return tuple(torch.cat(part, dim=1) for part in zip(*found, strict=True))

    def texts(self) -> Tensor:
        """The sentences `(G, M, W)` of every gene at every value, made once for the weights that predict."""
        key = tuple((p.data_ptr(), p._version) for p in (*self.sentences.parameters(), self.gene_vectors, self.grid))
        if self._asked is None or self._asked[0] != key:
            codes, found = self.codes(self.grid)[:, None], []
            for genes in torch.arange(len(self.genes), device=self.grid.device).split(GENES_AT_ONCE):
                pairs_MGW = self.sentences.pairs(self.known(genes), codes.expand(-1, len(genes), -1))
                text = self.sentences(pairs_MGW.flatten(0, 1)[:, None])[0]
                found.append(text.unflatten(0, pairs_MGW.shape[:2]).transpose(0, 1))
            self._asked = (key, torch.cat(found))
        return self._asked[1]


def matchings(n: int, values_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the genes of either side of n drawn matchings of each row, twice `(n, B, P)`."""
    shape, device = (n, *values_BS.shape), values_BS.device
    order = torch.rand(shape, generator=drawn.generator(device), device=device).argsort(dim=2)
    return order[..., : shape[2] // 2 * 2].chunk(2, dim=2)


def exchange(x_RBS: Tensor, one_RBP: Tensor, other_RBP: Tensor) -> Tensor:
    """What every gene has, given to the one that it is matched with."""
    return x_RBS.scatter(2, one_RBP, x_RBS.gather(2, other_RBP)).scatter(2, other_RBP, x_RBS.gather(2, one_RBP))


def worst(gain_RBS: Tensor, apart_RBS: Tensor, one_RBP: Tensor, other_RBP: Tensor) -> Tensor:
    """Which genes `(R, B, S)` are of the pairs with the highest gain, of those whose values are apart."""
    gain = (gain_RBS + exchange(gain_RBS, one_RBP, other_RBP)).gather(2, one_RBP)
    gain = gain.masked_fill(~apart_RBS.gather(2, one_RBP), -torch.inf)
    top = gain.topk(max(1, round(SWAPPED * gain.shape[2])), dim=2)
    chosen = torch.zeros_like(gain, dtype=torch.bool).scatter(2, top.indices, top.values > -torch.inf)
    nothing = torch.zeros_like(apart_RBS)
    return nothing.scatter(2, one_RBP, chosen) | nothing.scatter(2, other_RBP, chosen)
