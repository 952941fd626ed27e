r"""AGL: auxiliary genes beside those that matter, and one learned cut-off that says how many of them help.

A shared layer on frozen features and a linear head predict primary and auxiliary genes together:

.. math::

    \hat y = W\,\mathrm{GELU}(V x + a) + b, \qquad
    L(\theta, k) = \frac{1}{G} \Bigl( \sum_{j \in P} L_j + \sum_{j \in A} \lambda_j(k)\,L_j \Bigr), \qquad
    \lambda_j(k) = \sigma\!\left(\frac{k - \mathrm{rank}_j}{\tau}\right)

:math:`L_j = 1 - r_j` is one less Pearson's correlation over the rows of a batch (or the squared error), of genes that
vary there. Ranks of auxiliary genes are fixed before training and scaled to [0, 1]. The cut-off :math:`k`
is learned by how the loss of the *primary* genes on other rows changes with it through H steps of gradient descent,

.. math::

    \frac{\mathrm d}{\mathrm d k} \sum_{j \in P} L_j\bigl(\theta_H(k);\ \text{outer rows}\bigr), \qquad
    \theta_{h+1} = \theta_h - \eta\,\nabla_\theta L(\theta_h, k;\ \text{inner rows}),

after each epoch of ordinary training with :math:`k` held. The cut-off moves, the ranking never does. A trainable shared
layer is what carries the gradient: with heads alone genes do not know of each other, and it is 0. That is so as the sum
is divided by the number of all genes, G: divided by the sum of the weights, as is usual, a lower cut-off would speed up
the primary genes, and be learned for that alone.

From the publication: the two tasks, the loss per gene, the soft cut-off at one learned number with its temperature and
learning rate, the ranking by dispersion, and of what it compares all auxiliary genes (`cutoff=1`) and none. Its other
forms are not here: weights by uncertainty, AuxLearn, AMAL, and DkGSB with inner steps of Adam, through which a gradient
is not exact, or a detached normalizer. Ours: frozen features instead of a network trained end to end; the constant
normalizer; plain gradient descent; dispersion from training rows alone; ranks of the user's own (`ranking`); rows in
three parts, for the weights, the cut-off, and the scale of predictions and the control. Auxiliary genes are those of
the panel beyond the first `primary`: a panel is ordered by variance. Predictions have a scale that the loss does not
see: per gene, least squares on the training rows gives one, and what of that holds on left-out rows is kept.

No gain is promised. `model.history` has the cut-off as it went (`cutoff`), the genes kept (`kept`), and the mean
correlation of primary genes on rows that neither the weights nor the cut-off have seen: with no auxiliary genes, with
all, and with those kept (`control`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from sq_imputer.contract import Batch, Needs, Prediction, Source, Views
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, listed
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.parts import Labels
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.ranges import one_of, within
from sq_imputer.scores.splits import inner_split

# B rows, F features, G genes, A auxiliary ones

FEWEST = 30  # training rows that can be parted in three
BINS = 20  # of mean expression, within which dispersions are compared
FLAT = 1e-6  # variance of a gene in a batch, standardized, below which it has no correlation


@dataclass(frozen=True)
class Config(Views):
    """What the model is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    primary
        Genes of the panel, from its first, that matter; the others are auxiliary, and predicted as well as it goes.
    ranking
        Names of auxiliary genes, the most helpful first, by knowledge of your own; others follow by dispersion.
    cutoff
        Share of the ranking that is used; learned if None.
    start, temperature
        Where the cut-off starts, and how soft it is.
    width
        Hidden units of the shared layer.
    loss
        `"pearson"` or `"squared"`.
    steps, step_size
        Inner steps of gradient descent, and their size.
    lr, weight_decay, lr_cutoff
        Of the weights, by Adam, and of the cut-off.
    epochs, batch_size, outer_batch
        Training; rows of a batch of the weights, and of one of the cut-off.
    share
        Of the rows for the cut-off, and as many of the others for scale and control: whole individuals or sections
        where there are several, else a block.
    calibration
        Parts of the training data left out in turn to measure the noise.
    """

    primary: int = within(50, 1)
    ranking: tuple[str, ...] = ()
    cutoff: float | None = within(None, 0, 1, whole=False)
    start: float = within(0.95, 0, 1)
    temperature: float = within(0.02, above=0)
    width: int = within(64, 1)
    loss: str = one_of("pearson", ("pearson", "squared"))
    steps: int = within(2, 1)
    step_size: float = within(5.0, above=0)
    lr: float = within(1e-3, 0)
    weight_decay: float = within(1e-2, 0)
    lr_cutoff: float = within(1e-2, 0)
    epochs: int = within(60, 1)
    batch_size: int = within(128, 2)
    outer_batch: int = within(64, 2)
    share: float = within(0.2, above=0, below=0.5)
    calibration: int = within(5, 0, but=1)

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: the crop alone, few genes, units and epochs."""
        return cls(size_px=64, context_um=(), primary=8, width=24, epochs=30, batch_size=32, lr=5e-3, calibration=2)


class Rows(NamedTuple):
    """Rows as tensors: features `(n, F)` and standardized expression `(n, G)`."""

    x: Tensor
    y: Tensor

    def some(self, rows) -> Rows:
        """Some of them."""
        return Rows(self.x[rows], self.y[rows])


class Genes(NamedTuple):
    """Which genes are primary `(G,)`, and rank in [0, 1] of the others, most helpful first; of primary ones -inf."""

    primary: Tensor
    rank: Tensor

    def weights(self, cutoff: Tensor, temperature: float) -> Tensor:
        """Weight `(G,)` of every gene: 1 of primary ones, of others by how far their rank is below the cut-off."""
        return torch.sigmoid((cutoff - self.rank) / temperature)


class Net(nn.Module):
    """A shared layer and a linear head."""

    def __init__(self, inputs: int, width: int, genes: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(inputs, width), nn.Linear(width, genes)
        self.activation = activation or nn.GELU()

    def forward(self, x_BF: Tensor) -> Tensor:
        """Expression `(B, G)`, standardized, but for its scale."""
        return self.head(self.activation(self.shared(x_BF)))


class Model(Predictor):
    """Auxiliary genes, by one learned cut-off of a ranking."""

    Config = Config
    card = ModelCard(
        name="agl",
        summary="A shared layer that learns from auxiliary genes as well, as many of a ranking as help.",
        paper="Auxiliary gene learning with a learned cut-off of a ranking of genes (AGL, DkGSB).",
        established="Joint learning of primary and auxiliary genes, correlation as loss, one learned soft cut-off.",
        ours="Frozen features, gradient descent inside, a constant normalizer, three parts of rows, the scale.",
        limits=(
            "No gain is promised: see history['control']. Auxiliary genes beyond the cut-off shrink to their mean. Its "
            "defaults are first choices; the learned cut-off was nowhere clearly better than taking all genes."
        ),
        uncertainty="Standard deviation per gene: the error on left-out training data, the same in all rows.",
    )

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts."""
        return self.config.needs

    def build(self) -> None:
        """The network, the scale of each gene, and the cut-off."""
        genes = len(self.genes)
        self.net = Net(self.sizes["features"], self.config.width, genes)
        self.register_buffer("slope", torch.zeros(genes))
        self.register_buffer("cutoff", torch.ones(()))

    def for_parts(self) -> Model:
        """An unfitted one that takes the cut-off of this fit."""
        return type(self)(replace(self.config, cutoff=float(self.cutoff)))

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Learn the cut-off on parts of the rows, then the weights on all of them."""
        config = replace(
            self.config, epochs=plan.epochs or self.config.epochs, batch_size=plan.batch_size or self.config.batch_size
        )
        device = pick_device(plan.device)
        rows = self._rows(sources)
        genes = Genes(*(part.to(device) for part in ranked(rows.y, self, config)))
        rows, start = Rows(*(part.to(device) for part in rows)), self.net.to(device)
        cutoff, kept_scale = torch.tensor(1.0 if config.cutoff is None else config.cutoff, device=device), 1.0
        if len(rows.x) >= FEWEST:
            cutoff, kept_scale = self._choose(_parts(sources, config.share, plan.seed), rows, genes, config, plan)
        self.net = trained(start, rows, genes, cutoff, config, plan)
        with torch.no_grad():
            said = self.net(rows.x)
            said = said - said.mean(dim=0)
            slope = kept_scale * (said * rows.y).sum(dim=0) / said.square().sum(dim=0).clamp_min(1e-9)
            self.net.head.bias -= self.net(rows.x).mean(dim=0)
        self.slope.copy_(slope)
        self.cutoff.copy_(cutoff)
        self.cpu()
        weight = genes.weights(cutoff, config.temperature).cpu()
        aux = [(float(r), g) for r, g in zip(genes.rank.tolist(), self.genes, strict=True) if np.isfinite(r)]
        self.history["kept"] = [gene for rank, gene in sorted(aux) if weight[self.genes.index(gene)] > 0.5]

    def _rows(self, sources: Sequence[Source]) -> Rows:
        """All training rows as the model sees them."""
        batches = [
            batch for source in sources for batch in self.seen(source, 4096, rows=np.flatnonzero(source.measured))
        ]
        x, y = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("features", "expression"))
        return Rows(x, (y - self.expression_mean) / self.expression_std)

    def _choose(self, parts: Sequence[Tensor], rows: Rows, genes: Genes, config: Config, plan: Plan):
        """The cut-off, and the share of the scale of training rows that holds on others; both go into the history."""
        inner, outer, third = (rows.some(part) for part in parts)
        start = copy.deepcopy(self.net)
        if config.cutoff is None and genes.rank.isfinite().any():
            learned, cutoff, went = alternated(start, inner, outer, genes, config, plan)
        else:
            cutoff = torch.tensor(1.0 if config.cutoff is None else config.cutoff, device=rows.x.device)
            learned, went = trained(start, inner, genes, cutoff, config, plan), [float(cutoff)]
        self.history = {"cutoff": went}
        if plan.calibration != 0:  # a fit that is not kept needs no control
            none, every = (torch.tensor(value, device=rows.x.device) for value in (-1.0, 2.0))
            nets = {"none": trained(start, inner, genes, none, config, plan)}
            nets |= {"all": trained(start, inner, genes, every, config, plan), "kept": learned}
            self.history["control"] = {name: correlation(net, third, genes) for name, net in nets.items()}
        return cutoff, _held_scale(learned, inner, third)

    def predict_step(self, batch: Batch) -> Prediction:
        """In the unit of expression."""
        mean = self.expression_mean + self.expression_std * self.slope * self.net(batch.features)
        return Prediction(mean=mean, std=self.expression_std.expand_as(mean).clamp_min(1e-6))


# What is minimized --------------------------------------------------------------------------------


def gene_losses(said_BG: Tensor, y_BG: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Loss `(G,)` of every gene in a batch, and whether it counts: a gene that does not vary has no correlation."""
    if kind == "squared":
        return (said_BG - y_BG).square().mean(dim=0), torch.ones_like(y_BG[0])
    y, said = y_BG - y_BG.mean(dim=0), said_BG - said_BG.mean(dim=0)
    spread = y.square().mean(dim=0)
    varies = (spread > FLAT).to(y.dtype)
    scale = (said.square().mean(dim=0) + 1e-8).sqrt() * spread.clamp_min(FLAT).sqrt()
    return 1 - (said * y).mean(dim=0) / scale, varies


def joint(losses_G: Tensor, counts_G: Tensor, weights_G: Tensor) -> Tensor:
    """The weighted sum over genes, divided by the number of those that count: what is left of it hangs on no weight."""
    return (weights_G * counts_G * losses_G).sum() / counts_G.sum().clamp_min(1)


def of_primary(losses_G: Tensor, counts_G: Tensor, genes: Genes) -> Tensor:
    """The mean over primary genes that count."""
    counts = counts_G * genes.primary
    return (counts * losses_G).sum() / counts.sum().clamp_min(1)


def hypergradient(net: Net, inner: Rows, outer: Rows, genes: Genes, cutoff: Tensor, config: Config) -> Tensor:
    """How the loss of primary genes on outer rows changes with the cut-off, through steps on inner rows."""
    return grad(lambda k: after_steps(net, inner, outer, genes, k, config))(cutoff)


def after_steps(net: Net, inner: Rows, outer: Rows, genes: Genes, cutoff: Tensor, config: Config) -> Tensor:
    """Loss of primary genes on outer rows, after steps of gradient descent on inner rows by some cut-off."""
    weights = genes.weights(cutoff, config.temperature)
    theta = {name: value.detach() for name, value in net.named_parameters()}

    def loss(theta: dict[str, Tensor]) -> Tensor:
        return joint(*gene_losses(functional_call(net, theta, inner.x), inner.y, config.loss), weights)

    for _ in range(config.steps):
        slope = grad(loss)(theta)
        theta = {name: value - config.step_size * slope[name] for name, value in theta.items()}
    return of_primary(*gene_losses(functional_call(net, theta, outer.x), outer.y, config.loss), genes)


# How it is learned --------------------------------------------------------------------------------


def trained(net: Net, rows: Rows, genes: Genes, cutoff: Tensor, config: Config, plan: Plan) -> Net:
    """A copy of a network, trained with the cut-off held."""
    net, rng = copy.deepcopy(net), np.random.default_rng(plan.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    weights = genes.weights(cutoff, config.temperature)
    for _ in range(config.epochs):
        _epoch(net, optimizer, rows, weights, config, rng)
    return net


def alternated(
    net: Net, inner: Rows, outer: Rows, genes: Genes, config: Config, plan: Plan
) -> tuple[Net, Tensor, list[float]]:
    """A network trained on inner rows, the cut-off that is learned on outer ones, and what that was in every epoch."""
    net, rng = copy.deepcopy(net), np.random.default_rng(plan.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    cutoff = torch.tensor(config.start, dtype=inner.x.dtype, device=inner.x.device, requires_grad=True)
    mover, history = torch.optim.Adam([cutoff], lr=config.lr_cutoff), [config.start]
    for epoch in track(range(config.epochs), "agl: cut-off", config.epochs, shown=plan.progress):
        if epoch:  # the first is for the weights alone
            for part in _batches(len(inner.x), config.outer_batch, rng):
                other = rng.choice(len(outer.x), min(config.outer_batch, len(outer.x)), replace=False)
                pair = inner.some(torch.from_numpy(part)), outer.some(torch.from_numpy(other))
                cutoff.grad = hypergradient(net, *pair, genes, cutoff.detach(), config)
                mover.step()
                with torch.no_grad():
                    cutoff.clamp_(0, 1)
        _epoch(net, optimizer, inner, genes.weights(cutoff.detach(), config.temperature), config, rng)
        history.append(float(cutoff.detach()))
    return net, cutoff.detach(), history


def _epoch(net: Net, optimizer, rows: Rows, weights: Tensor, config: Config, rng: np.random.Generator) -> None:
    for part in _batches(len(rows.x), config.batch_size, rng):
        some = rows.some(torch.from_numpy(part))
        with torch.enable_grad():
            optimizer.zero_grad()
            joint(*gene_losses(net(some.x), some.y, config.loss), weights).backward()
        optimizer.step()


def _batches(n: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Rows in some order, in parts that are about as large; of one row nothing is learned."""
    return np.array_split(rng.permutation(n), max(1, round(n / size)))


# What is known before ------------------------------------------------------------------------------


def ranked(y_NG: Tensor, model: Model, config: Config) -> tuple[Tensor, Tensor]:
    """Primary genes, and the fixed ranks of the others: in the order of the user's, then by dispersion."""
    names = list(model.genes)
    auxiliary = names[config.primary :]
    strange = [name for name in config.ranking if name not in auxiliary]
    if strange:
        raise BadInput(
            f"agl.Config.ranking names {listed(strange)}, which are no auxiliary genes: these are the {len(auxiliary)} "
            f"of the panel beyond its first {config.primary}. Leave them out."
        )
    measured = (y_NG * model.expression_std + model.expression_mean).numpy().astype(float)
    by_dispersion = np.argsort(-dispersion(measured[:, config.primary :]), kind="stable")
    order = [*config.ranking, *(auxiliary[k] for k in by_dispersion if auxiliary[k] not in set(config.ranking))]
    place = {name: (k + 0.5) / len(order) for k, name in enumerate(order)}
    rank = torch.tensor([place.get(name, -np.inf) for name in names], dtype=y_NG.dtype)
    return torch.arange(len(names)) < config.primary, rank


def dispersion(y_NA: np.ndarray) -> np.ndarray:
    """Variance over mean `(A,)` of expression without its logarithm, against genes that are as high."""
    if not y_NA.shape[1]:
        return np.empty(0)
    level = np.expm1(np.clip(y_NA, 0, 20))
    mean = level.mean(axis=0)
    found = np.log1p(level.var(axis=0) / np.maximum(mean, 1e-12))
    order = np.argsort(mean, kind="stable")
    for part in np.array_split(order, min(BINS, max(1, len(order) // 5))):
        found[part] = (found[part] - found[part].mean()) / max(found[part].std(), 1e-9)
    return found


def _parts(sources: Sequence[Source], share: float, seed: int) -> list[Tensor]:
    """Rows for the weights, for the cut-off, and for scale and control: three different things."""
    labels = Labels.of(sources)
    groups, sections = labels.groups, labels.sections.astype(str).astype(object)
    outer = inner_split(groups, sections, labels.xy_um, fraction=share, seed=seed)
    rest = np.flatnonzero(~outer)
    third = inner_split(groups[rest], sections[rest], labels.xy_um[rest], fraction=share, seed=seed)
    return [torch.from_numpy(part) for part in (rest[~third], np.flatnonzero(outer), rest[third])]


@torch.no_grad()
def correlation(net: Net, rows: Rows, genes: Genes) -> float:
    """Mean correlation of the primary genes that vary in some rows."""
    return 1 - float(of_primary(*gene_losses(net(rows.x), rows.y, "pearson"), genes))


@torch.no_grad()
def _held_scale(net: Net, inner: Rows, third: Rows) -> float:
    """Share, over all genes, of the scale by which predictions fit training rows that holds on other rows."""
    said, other = net(inner.x), net(third.x)
    usual = said.mean(dim=0)
    slope = ((said - usual) * inner.y).sum(dim=0) / (said - usual).square().sum(dim=0).clamp_min(1e-9)
    other = slope * (other - usual)
    held = (other * (third.y - inner.y.mean(dim=0))).sum() / other.square().sum().clamp_min(1e-9)
    return float(held.clamp(0, 1))
