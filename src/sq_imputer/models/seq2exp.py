r"""Seq2Exp: expression of a gene from the DNA around its start, through a mask that keeps few bases.

A generator reads the window and gives every base a Beta distribution, which is combined with that of what is measured
there (`sq_imputer.nn.masks`). A predictor sees the window times a mask that is drawn of it, and says from the middle,
where the gene starts, how much the gene is expressed:

.. math::

    \hat y = g\big((E_s x + E_t s) \odot m\big), \quad m_i \sim \mathrm{Beta}(\alpha_i, \beta_i), \qquad
    L = \mathrm{SmoothL1}(\hat y, y) + \lambda\, \overline{\mathrm{KL}(\mathrm{Beta}(\alpha_i, \beta_i) \Vert
    \mathrm{Beta}(a_3, b_3))}

The mean r of the prior says how many bases are kept. :math:`\lambda` does not: it says how firmly masks are held to the
prior. Predicted is with the mean of the mask; the standard deviation is the spread over masks that are drawn, with
noise added that is measured on left-out chromosomes.

**Established** (Su et al. 2025, and the code released with it): both embeddings, which are added; a generator that sees
the sequence alone; the mask, the loss and its weight; the middle always kept, the blacklist never; the mean over the
middle; `variant="hard"` with masks of 0 and 1, shared networks and learned positions. `Config.paper()` has the
published sizes.

**Ours**: targets are standardized, windows are short enough for a CPU, the rate of learning is constant but for
`warmup` steps, tracks weigh alike unless told otherwise, unknown bases are never kept, and there is a standard
deviation. The predictor has no norms: before each of its blocks the published one brings every position to one size,
which undoes a soft mask, so that the masks follow the tracks and learn nothing of the sequence (`normed=True`; measured
in `docs/concepts/genes.md`). Without norms, and without warming up, high rates may stop all learning in the first
steps: pass `warmup`. With `along=True` no base is always kept: all that is read would be as small as the prior's mean,
a tenth, beside the biases of the predictor. So what a soft mask lets through is divided by that mean (`leveled=False`:
the mask alone). Hard masks multiply what is read by a mask of 0 and 1 that passes on the gradient of the soft one: in
the released code kept bases are packed but not multiplied, so that the prediction teaches the mask nothing.
`packed=True` packs them, and multiplies. With `retrain_top=0.1` the generator is frozen once trained, and a fresh
predictor learns on the tenth of the bases with the highest masks, as the paper's retrained variant does. Where tracks
are raw, masks depend on their sequencing depth.

**Limits**: DNA is the same in all spots of a tissue: this predicts how genes differ, never how places do. With tracks a
model that is trained too little reads the tracks alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sq_imputer.contract import Batch, Needs, Prediction, Source
from sq_imputer.errors import BadInput
from sq_imputer.nn import drawn, masks
from sq_imputer.nn.bases import one_hot
from sq_imputer.nn.diffusion import row_generators
from sq_imputer.nn.masks import COMBINATIONS, Betas
from sq_imputer.nn.sequence import BACKBONES, Trunk, width_before
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.steps import warmed
from sq_imputer.ranges import one_of, within

# B genes, L bases, T tracks, E further numbers, W width, G contexts


@dataclass(frozen=True)
class Config:
    """What Seq2Exp is made of.

    Parameters
    ----------
    length
        Base pairs of a window.
    promoter
        Base pairs in the middle that are always kept, and whose mean the prediction is made of.
    along
        Whether contexts are places along the middle, such as bins of a track, each told by its own, masked, bases.
    backbone
        `"bimamba"`, `"dilated"`, `"pooled"` or `"mamba_ssm"` (`sq_imputer.nn.sequence`).
    width, layers, state, hidden
        Width of a base; blocks of generator and predictor; numbers in a state of a scan; hidden units of the head.
    variant
        `"soft"`: masks are drawn from 0 to 1. `"hard"`: they are 0 or 1.
    normed, tied, positions, packed
        The predictor brings every position to one size before each block; generator and predictor are one network,
        which sees tracks as well, and is normed; a learned vector for every position; kept bases are moved together
        before they are read.
    combine, least, track_scale, track_weights, track_against
        How the two factors become one, `"sum"` or `"product"`; the least parameter of a factor; how much tracks weigh
        beside the sequence; shares of the tracks, and the signal at which each is undecided (alike, and 1, if empty).
    prior_mean, prior_strength, kl_weight
        Mean of the prior, which sets how many bases are kept; its first parameter; weight of the divergence.
    leveled
        Whether what a soft mask lets through is divided by the mean of the prior where contexts lie along the middle,
        so that no base is always kept.
    smooth, standardize
        Error above which the loss is linear; whether targets are standardized.
    retrain_top
        Share of bases on which a fresh predictor is trained in the end, the generator being frozen; 0 for none.
    n_samples
        Masks that are drawn for the standard deviation.
    seed
        Of these masks.
    lr, warmup, weight_decay, epochs, batch_size, validation, ema
        Training; `warmup` first steps have less than `lr`, `validation` is the share of genes held out to stop early,
        of whole chromosomes where there are some, `ema` the decay of a mean of the weights that replaces them.
    calibration
        Parts of the training data left out in turn to measure the error, each a fit.
    """

    length: int = within(1000, 8)
    promoter: int = within(200, 1)
    along: bool = False
    backbone: str = one_of("bimamba", BACKBONES)
    width: int = within(32, 1)
    layers: tuple[int, int] = within((2, 2), 1, whole=True)
    state: int = within(16, 1)
    hidden: int = within(128, 1)
    variant: str = one_of("soft", ("soft", "hard"))
    normed: bool = False
    tied: bool = False
    positions: bool = False
    packed: bool = False
    combine: str = one_of("sum", COMBINATIONS)
    least: float = within(1.0, 0)
    track_scale: float = within(10.0, 0)
    track_weights: tuple[float, ...] = within((), 0, whole=False)
    track_against: tuple[float, ...] = within((), 0, whole=False)
    prior_mean: float = within(0.1, above=0, below=1)
    prior_strength: float = within(10.0, above=0)
    kl_weight: float = within(0.01, 0)
    leveled: bool = True
    smooth: float = within(1.0, above=0)
    standardize: bool = True
    retrain_top: float = within(0.0, 0, below=1)
    n_samples: int = within(8, 1)
    seed: int = within(0, 0)
    lr: float = within(2e-3, 0)
    warmup: int = within(0, 0)
    weight_decay: float = within(1e-6, 0)
    epochs: int = within(30, 1)
    batch_size: int = within(32, 1)
    validation: float = within(0.1, 0, below=1)
    ema: float = within(0.0, 0, below=1)
    calibration: int = within(3, 0, but=1)

    @classmethod
    def small(cls) -> Config:
        """For tests: short windows, and convolutions."""
        reading = {"length": 64, "promoter": 16, "backbone": "dilated", "width": 16, "layers": (1, 3), "hidden": 32}
        return cls(**reading, n_samples=4, lr=5e-3, epochs=25, batch_size=16, validation=0.0, calibration=2)

    @classmethod
    def paper(cls, variant: str = "soft") -> Config:
        """Sizes and training as released for three tracks, H3K27ac, DNase and Hi-C; targets in log10(1 + CAGE)."""
        hard = {"tied": True, "positions": True, "packed": True, "least": 0.0, "track_scale": 1.0}
        hard |= {"variant": "hard", "prior_mean": 0.45, "prior_strength": 0.1}
        sizes = {"length": 200_000, "promoter": 2000, "width": 128, "layers": (4, 4), "batch_size": 8}
        sizes |= {"track_weights": (2.0, 2.0, 1.0), "track_against": (1.5, 0.2, 1.0)}
        sizes |= {"lr": 5e-4, "warmup": 5000, "epochs": 27, "standardize": False}  # 50,000 steps
        return cls(normed=True, **sizes, **(hard if variant == "hard" else {}))


class Model(Predictor):
    """Expression of genes from the DNA around their starts, through a mask that keeps few bases."""

    Config = Config
    std_of_mean = True
    draws_by_name = True
    card = ModelCard(
        name="seq2exp",
        summary="Expression of a gene from the DNA around its start, and which stretches of it carry that.",
        paper=("Su, Yu, Zhi, Ji: Learning to Discover Regulatory Elements for Gene Expression Prediction, ICLR 2025."),
        doi="10.48550/arXiv.2502.13991",
        citation=(
            "@inproceedings{su2025seq2exp,\n"
            "  title={Learning to Discover Regulatory Elements for Gene Expression Prediction},\n"
            "  author={Su, Xingyu and Yu, Haiyang and Zhi, Degui and Ji, Shuiwang},\n"
            "  booktitle={International Conference on Learning Representations},\n"
            "  year={2025}, doi={10.48550/arXiv.2502.13991}\n}"
        ),
        established=(
            "Beta masks of sequence and tracks, combined by adding their parameters (or as a product of densities), "
            "the bottleneck, the middle always kept, soft and hard masks, retraining on the highest ones."
        ),
        ours=(
            "Standardized targets, short windows and a narrow network for a CPU, a constant rate of learning, hard "
            "masks that the prediction teaches, the standard deviation."
        ),
        limits=(
            "Predicts how genes differ, not how places do: DNA is the same in all spots. Trained too little, it reads "
            "the tracks alone. Not run on human genomes here."
        ),
        uncertainty="Spread over masks that are drawn, and a noise level from left-out chromosomes.",
        rows="genes",
    )

    @property
    def needs(self) -> Needs:
        """The window; tracks and further numbers come along where there are some."""
        return Needs(sequence=self.config.length)

    @property
    def averaging(self) -> float:
        """As the config has it."""
        return self.config.ema

    def optimizer(self):
        """AdamW, whose rate rises at first."""
        return warmed(super().optimizer(), self.config.warmup)

    def build(self) -> None:
        """Embeddings, generator, predictor and head."""
        c, tracks = self.config, self.sizes["tracks"]
        if c.tied and c.retrain_top:
            raise BadInput("Config.retrain_top freezes the generator, which is the predictor as well where tied=True.")
        if c.along and min(c.promoter, c.length) % len(self.genes):
            raise BadInput(f"Config.promoter is {c.promoter}, which {len(self.genes)} contexts along it do not divide.")
        self.stretches = len(self.genes) if c.along else 1
        width = width_before(c.backbone, c.width)
        self.base = nn.Linear(4, width)
        self.track = nn.Linear(tracks, width) if tracks else None
        self.place = nn.Parameter(torch.zeros(c.length, width)) if c.positions else None
        reach = max(c.length - c.promoter, 0) // 2
        layers, sees = (c.layers[1], reach) if c.tied else (c.layers[0], 0)
        self.generator = Trunk(c.backbone, c.width, layers, reach=sees, state=c.state, fine=True)
        own = {"reach": reach, "state": c.state, "normed": c.normed}
        self.reader = None if c.tied else Trunk(c.backbone, c.width, c.layers[1], **own)
        self.keep = nn.Linear(c.width, 2)
        inputs = c.width + self.sizes["extra"]
        layers = [nn.Linear(inputs, c.hidden), nn.ReLU(), nn.Linear(c.hidden, c.hidden), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(c.hidden, len(self.genes) // self.stretches))
        self.register_buffer("shares", masks.shares(self._per_track("track_weights"), tracks))
        self.register_buffer("against", torch.tensor(self._per_track("track_against") or [1.0] * tracks))
        for name, value in (("extra_mean", 0.0), ("extra_std", 1.0)):
            self.register_buffer(name, torch.full((self.sizes["extra"],), value))
        self.on_top = bool(c.retrain_top)

    def _per_track(self, name: str) -> list[float]:
        given, tracks = list(getattr(self.config, name)), self.sizes["tracks"]
        if given and tracks and len(given) != tracks:
            raise BadInput(f"Config.{name} has {len(given)} numbers, and the windows {tracks} tracks; give one each.")
        return given if tracks else []

    # Training -------------------------------------------------------------------------------------

    def optimize(self, sources: Sequence[Source], plan) -> None:
        """Gradient steps; then, if asked to, those of a fresh predictor on the highest masks of a frozen generator."""
        if self.sizes["extra"]:
            self._scale_extra(sources)
        start, self.on_top = {name: value.clone() for name, value in self.state_dict().items()}, False
        super().optimize(sources, plan)
        if self.config.retrain_top:
            first, fresh = self.history, ("reader.", "head.")
            self.load_state_dict(
                {name: start[name] if name.startswith(fresh) else value for name, value in self.state_dict().items()}
            )
            with self._frozen(fresh):
                super().optimize(sources, plan)
            self.history |= {"first": first}

    @contextmanager
    def _frozen(self, trained: tuple[str, ...]) -> Iterator[None]:
        """For a while only what is named learns, on the highest masks."""
        still = [weight for name, weight in self.named_parameters() if not name.startswith(trained)]
        self.on_top = True
        for weight in still:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in still:
                weight.requires_grad_(True)

    def _scale_extra(self, sources: Sequence[Source]) -> None:
        every = ((source, np.flatnonzero(source.measured)) for source in sources)
        rows = [batch.extra for source, some in every for batch in self.seen(source, 64, rows=some)]
        std, mean = torch.std_mean(torch.cat(rows), dim=0, correction=0)
        self.extra_mean.copy_(mean), self.extra_std.copy_(torch.where(std > 0, std, 1.0))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Error of the prediction, and the divergence of the masks from the prior."""
        scale = self._scale()
        target = (batch.expression - scale[0]) / scale[1]
        betas = self.betas(batch)
        said = self._said(self._read(batch, self.mask(betas, batch, self.training)), batch)
        parts = {"error": F.smooth_l1_loss(said.float(), target, beta=self.config.smooth)}
        if not self.on_top:
            prior = masks.prior(self.config.prior_mean, self.config.prior_strength)
            parts["kl"] = self.config.kl_weight * masks.divergence(betas, prior).mean()
        return parts

    def _scale(self) -> tuple[Tensor, Tensor]:
        """Shift and scale between targets and what the head says."""
        mean, std = self.expression_mean, self.expression_std
        return (mean, std) if self.config.standardize else (torch.zeros_like(mean), torch.ones_like(std))

    # Masks ----------------------------------------------------------------------------------------

    def factors(self, batch: Batch) -> list[Betas]:
        """What the sequence says of every base and, where there are tracks, what they say."""
        c = self.config
        seen = self._seen(batch) if c.tied else self._sequence(batch)
        found = [masks.of_dna(self.keep(self.generator(seen)), c.least)]
        if self.track is not None:
            found.append(masks.of_tracks(batch.tracks, self.shares, self.against, c.least, c.track_scale))
        return found

    def betas(self, batch: Batch) -> Betas:
        """Distribution of the mask of every base."""
        return masks.combined(self.factors(batch), self.config.combine)

    def mask(self, betas: Betas, batch: Batch, random: bool, generators: Sequence[torch.Generator] = ()) -> Tensor:
        """The mask `(B, L)` that windows are read through: its mean, or drawn, by a generator for each if given."""
        c = self.config
        if self.on_top:
            mask = masks.top(betas.mean, batch.allowed, c.retrain_top)
        elif generators:
            rows = zip(*(part.cpu().split(1) for part in betas), generators, strict=True)
            mask = torch.cat([masks.sample(Betas(a, b), own) for a, b, own in rows]).to(betas.alpha)
        else:
            mask = masks.sample(betas, drawn.generator(betas.alpha.device)) if random else betas.mean
        mask = masks.hardened(mask) if c.variant == "hard" else mask
        return masks.forced(mask, batch.allowed, self.middle)

    @property
    def middle(self) -> slice:
        """The bases that are always kept."""
        return slice(0) if self.config.along else masks.center(self.config.length, self.config.promoter)

    # Reading --------------------------------------------------------------------------------------

    def _sequence(self, batch: Batch) -> Tensor:
        x_BLW = self.base(one_hot(batch.bases))
        return x_BLW if self.place is None else x_BLW + self.place

    def _seen(self, batch: Batch) -> Tensor:
        """Sequence and tracks, `(B, L, W)`."""
        x_BLW = self._sequence(batch)
        return x_BLW if self.track is None else x_BLW + self.track(batch.tracks)

    def _read(self, batch: Batch, mask_BL: Tensor) -> Tensor:
        """What the predictor makes of the middle of masked windows, `(B, 1, W)`, or of stretches of it."""
        reader = self.generator if self.reader is None else self.reader
        c = self.config
        leveled = c.along and c.leveled and c.variant == "soft" and not self.on_top
        x_BLW = self._seen(batch) * (mask_BL / c.prior_mean if leveled else mask_BL)[..., None]
        middle = masks.center(c.length, c.promoter)
        if not c.packed:
            return reader(x_BLW)[:, middle].unflatten(1, (self.stretches, -1)).mean(dim=2)
        inside = torch.zeros_like(mask_BL[0], dtype=torch.bool)
        inside[middle] = True
        rows = []
        for x_LW, mask in zip(x_BLW, mask_BL, strict=True):  # one by one: no row hangs on how many others keep
            kept = (mask > 0) | inside
            rows.append(reader(x_LW[kept][None])[0, inside[kept]])
        return torch.stack(rows).unflatten(1, (self.stretches, -1)).mean(dim=2)

    def _said(self, pooled_BSW: Tensor, batch: Batch) -> Tensor:
        """What the head says, `(B, G)`."""
        if batch.extra is not None:
            extra_BSE = ((batch.extra - self.extra_mean) / self.extra_std)[:, None].expand(-1, self.stretches, -1)
            pooled_BSW = torch.cat([pooled_BSW, extra_BSE], dim=2)
        return self.head(pooled_BSW).flatten(1)

    def predict_step(self, batch: Batch) -> Prediction:
        """With the mean of the mask; and how far predictions with drawn masks lie from that."""
        shift, scale = self._scale()
        betas = self.betas(batch)
        pooled = self._read(batch, self.mask(betas, batch, False))
        mean = self._said(pooled, batch).float()
        keys = (batch.index if batch.key is None else batch.key).tolist()
        square = torch.zeros_like(mean)
        generators = row_generators([(self.config.seed, key) for key in keys])
        for _ in range(self.config.n_samples):
            said = self._said(self._read(batch, self.mask(betas, batch, True, generators)), batch)
            square += (said.float() - mean).square() / self.config.n_samples
        return Prediction(mean=shift + scale * mean, std=scale * square.sqrt(), embedding=pooled.float().mean(dim=1))

    def expected(self, batch: Batch) -> Tensor:
        """The prediction with the mean of the mask alone, `(B, G)` in the unit of the fit."""
        shift, scale = self._scale()
        pooled = self._read(batch, self.mask(self.betas(batch), batch, False))
        return shift + scale * self._said(pooled, batch).float()

    def regulation(self, batch: Batch) -> dict[str, Tensor]:
        """What the masks of a batch are made of, `(B, L)` each.

        `mask` and `std` are mean and standard deviation of the mask; `signal` is what the mask would be if the sequence
        were everywhere what it is in the mean of the window, and `dna` what the sequence adds to that, or takes.
        """
        dna, *tracks = self.factors(batch)
        how = self.config.combine
        betas = masks.combined([dna, *tracks], how)
        if not tracks:
            return {"mask": betas.mean, "std": betas.std, "dna": betas.mean, "signal": torch.zeros_like(betas.mean)}
        usual = Betas(*(part.mean(dim=1, keepdim=True).expand_as(part) for part in dna))
        signal = masks.combined([usual, *tracks], how).mean
        return {"mask": betas.mean, "std": betas.std, "dna": betas.mean - signal, "signal": signal}
