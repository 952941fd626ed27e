r"""Stem: a conditional diffusion model of the expression of a spot given its image.

A transformer over gene tokens predicts the noise :math:`\epsilon` in
:math:`x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon`, given the time step and a vector :math:`v`
of frozen image features:

.. math::

    h_g = W_2\,\mathrm{SiLU}(W_1 x_{t,g}) + E_g, \qquad c = \mathrm{MLP}(\mathrm{time}(t)) + \mathrm{MLP}(v), \qquad
    L = \mathbb{E}\,\lVert \epsilon - \hat\epsilon(x_t, t, v) \rVert^2

with blocks whose normalization and gates are functions of :math:`c` and start at zero (adaLN-Zero), so that the network
is the zero function at first. Samples of :math:`p(x \mid v)` are drawn for every spot; the prediction is their mean and
standard deviation, which is stretched to the size of the error on left-out training data
(`sq_imputer.predictor.calibrate`).

**Established** (Zhu et al. 2025; `Config.paper()`): gene tokens without positions, the added condition, adaLN-Zero,
the linear schedule of 1000 steps, the learned variance, averaged weights, 20 samples per spot by 1000 ancestral steps,
log2(count + 1) as the target, never clamped.

**Ours**, the default: expression standardized per gene; texture features at several scales with dropout, and a smaller
network, because a few hundred spots are what most users have; 20 steps of stochastic DPM-Solver++, spread evenly over
the log of the ratio of noise to signal (`sq_imputer.nn.diffusion`; `benchmarks/stem.py`); noise in pairs of
opposite sign, which makes the mean of few samples precise; averaging of the weights that warms up (a fixed decay of
0.9999 leaves a short run at its initial weights); time steps spread evenly over each batch; gradients clipped
(`Plan.clip`); crops of true size in µm. The embedding augmentation of the paper (flips and rotations of every crop,
embedded once) is not offered. What the training harness does holds for `Config.paper()` as well: features scaled by the
training rows, clipping, evenly spread time steps, the warm-up.

The unit is the source's, log1p CP10k unless said otherwise. The paper's is `unit="log2_counts"`: raw counts, in which
the depth of a spot is part of every gene, so that a model which only sees depth scores higher than published models do.
Compare scores given depth (`pearson_given_depth`) and only within one unit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sq_imputer.contract import Batch, Needs, Prediction, Source, Views
from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, listed
from sq_imputer.nn import diffusion, drawn
from sq_imputer.nn.attention import ModulatedBlock
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.ranges import one_of, within

# B rows, S samples, R = B * S sequences, G genes (tokens), D width, F features

LONG = 5  # minutes of training on a CPU that a user should know of beforehand
TOKENS_AT_ONCE = {"cpu": 2**14, "cuda": 2**21}  # per call of the network: caches and memory bound it


@dataclass(frozen=True)
class Config(Views):
    """What Stem is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    width, depth, heads
        The transformer.
    condition
        Hidden units between the features and the condition; as many as features if 0.
    dropout
        Share of features dropped in training.
    standardize
        Diffuse standardized expression instead of expression as it is.
    learned_range
        Let the network say the variance of ancestral steps.
    ema
        Decay of the average of the weights, which warms up; 0 uses the last weights.
    sampler
        `"sde-dpm"` and `"dpm"` (DPM-Solver++ with and without noise in every step), `"ddim"` or `"ddpm"`.
    n_steps
        Steps per sample; at least 15 of `"sde-dpm"`, 11 of `"dpm"`, 100 of `"ddim"` and 800 of `"ddpm"`, since fewer
        make the samples of well predicted genes too narrow.
    n_samples
        Samples per spot behind mean and standard deviation.
    keep_samples
        How many of them are kept with the prediction.
    mirrored
        Draw first noises in pairs of opposite sign.
    sampling_seed
        Seed of the samples: with the section's name and the row's number it decides all noise of a row.
    lr, weight_decay, steps, batch_size, validation
        Training: `steps` optimizer steps, however many rows there are (`Plan.epochs` overrules it).
    calibration
        Parts of the training data left out in turn to measure the error, each a fit of as many steps; 0 takes the
        spread of the samples as it is.
    """

    width: int = within(64, 1)
    depth: int = within(3, 1)
    heads: int = within(4, 1)
    condition: int = within(256, 0)
    dropout: float = within(0.5, 0, below=1)
    standardize: bool = True
    learned_range: bool = False
    ema: float = within(0.995, 0, below=1)
    sampler: str = one_of("sde-dpm", tuple(diffusion.SAMPLERS))
    n_steps: int = within(20, 1)
    n_samples: int = within(20, 2)  # a standard deviation needs two
    keep_samples: int = within(0, 0)
    mirrored: bool = True
    sampling_seed: int = within(0, 0)
    lr: float = within(1e-3, 0)
    weight_decay: float = within(0.01, 0)
    steps: int = within(2000, 1)
    batch_size: int = within(64, 1)
    validation: float = within(0.0, 0, below=1)
    calibration: int = within(3, 0, but=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = diffusion.LEAST[self.sampler], diffusion.SAMPLERS[self.sampler]
        if not least <= self.n_steps <= most:
            raise BadInput(
                f"stem.Config.n_steps is {self.n_steps}; '{self.sampler}' takes {least} to {most}. Fewer make samples "
                "too narrow; 'dpm' takes the fewest, from 11, and 'ddpm' up to 1000."
            )
        if not 0 <= self.keep_samples <= self.n_samples:
            raise BadInput(
                f"stem.Config.keep_samples is {self.keep_samples}; expected 0 to n_samples={self.n_samples}."
            )
        if self.width % self.heads:
            raise BadInput(f"stem.Config.width is {self.width}; expected a multiple of heads={self.heads}.")

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: one context, fewer pixels, a narrow network, few steps and samples."""
        return cls(
            size_px=64,
            context_um=(300.0,),
            width=32,
            depth=2,
            condition=64,
            dropout=0.2,
            steps=400,
            calibration=2,
            n_steps=15,
            n_samples=8,
        )

    @classmethod
    def paper(cls) -> Config:
        """As published: UNI and CONCH need weights of your own, 300,000 steps a GPU; the unit is `"log2_counts"`."""
        return cls(
            encoders=("uni", "conch"),
            extent_um=112.0,
            context_um=(),
            per_section=False,
            width=384,
            depth=12,
            heads=6,
            condition=0,
            dropout=0.0,
            standardize=False,
            learned_range=True,
            ema=0.9999,
            sampler="ddpm",
            n_steps=1000,
            mirrored=False,
            calibration=0,
            lr=1e-4,
            weight_decay=0.0,
            steps=300_000,
            batch_size=256,
        )


class Denoiser(nn.Module):
    """The transformer over gene tokens: from noised expression, time and condition to the noise in it."""

    def __init__(self, genes: int, features: int, config: Config) -> None:
        super().__init__()
        width, hidden = config.width, config.condition or features
        self.value = _two_layers(1, width, width)
        self.gene = nn.Parameter(torch.empty(genes, width).uniform_(-1, 1) / width**0.5)
        self.time = _two_layers(256, width, width)
        self.image = nn.Sequential(drawn.Dropout(config.dropout), *_two_layers(features, hidden, width))
        self.blocks = nn.ModuleList(ModulatedBlock(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, 1 + config.learned_range)
        self._initialize()

    def _initialize(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)
        for part in (*self.time, *self.image):
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
        for part in (*(block.modulation for block in self.blocks), self.modulation):
            nn.init.zeros_(part[-1].weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x_RG: Tensor, t_R: Tensor, image_RD: Tensor) -> Tensor:
        """`(R, 1, G)` noise, or `(R, 2, G)` noise and variance logit.

        Parameters
        ----------
        x_RG
            Noised expression.
        t_R
            Time steps, 0 to 999; fractional ones lie between those that were trained.
        image_RD
            What `self.image` makes of the features.
        """
        c_RD = self.time(diffusion.time_features(t_R)) + image_RD
        h_RGD = self.value(x_RG[..., None]) + self.gene
        for block in self.blocks:
            h_RGD = block(h_RGD, c_RD)
        shift, scale = self.modulation(c_RD)[:, None].chunk(2, dim=-1)
        return self.head(self.norm(h_RGD) * (1 + scale) + shift).movedim(-1, 1)


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


class Model(Predictor):
    """A conditional diffusion model of expression given the image."""

    Config = Config
    draws_by_name = True
    card = ModelCard(
        name="stem",
        summary="A conditional diffusion transformer over genes: samples of the expression that an image allows.",
        paper=(
            "Zhu, Zhu, Tao, Qiu: Diffusion Generative Modeling for Spatially Resolved Gene Expression Inference from "
            "Histology Images, ICLR 2025."
        ),
        doi="10.48550/arXiv.2501.15598",
        citation=(
            "@inproceedings{zhu2025stem,\n"
            "  title={Diffusion Generative Modeling for Spatially Resolved Gene Expression Inference from Histology "
            "Images},\n"
            "  author={Zhu, Sichen and Zhu, Yuchen and Tao, Molei and Qiu, Peng},\n"
            "  booktitle={International Conference on Learning Representations},\n"
            "  year={2025}, doi={10.48550/arXiv.2501.15598}\n}"
        ),
        established=(
            "Gene tokens, adaLN-Zero, linear schedule, noise loss with optional learned variance, averaged weights, "
            "the mean of samples as the prediction."
        ),
        ours=(
            "Standardized log1p CP10k, texture features at several scales with dropout, a small network, 20 steps of "
            "DPM-Solver++, mirrored noise, warm-up of the averaging."
        ),
        limits=(
            "Slow without a GPU. Spots are independent given the image: samples show what one spot may be, not how "
            "neighboring spots vary together."
        ),
        uncertainty="Spread of the samples, of the size of the error on training data that were left out.",
    )

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts."""
        return self.config.needs

    @property
    def averaging(self) -> float:
        """The average of the weights samples, not the last weights."""
        return self.config.ema

    def build(self) -> None:
        """The network."""
        self.net = Denoiser(len(self.genes), self.sizes["features"], self.config)

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Gradient steps, as many as the config says."""
        per_epoch = math.ceil(self.sizes["rows"] / (plan.batch_size or self.config.batch_size))
        epochs = plan.epochs or max(round(self.config.steps / per_epoch), 1)
        if pick_device(plan.device) == "cpu":
            self._say_how_long(epochs * per_epoch, plan.batch_size or self.config.batch_size)
        super().optimize(sources, replace(plan, epochs=epochs))

    def _say_how_long(self, steps: int, batch_size: int) -> None:
        """Warn of a training that takes long on a CPU; the estimate is for one core at 34 GFLOP/s, as was measured."""
        width, genes = self.config.width, len(self.genes)
        per_token = self.config.depth * (12 * width**2 + 2 * genes * width)
        minutes = 6 * steps * batch_size * genes * per_token / 34e9 / 60
        if minutes > LONG:
            warnings.warn(
                f"training stem on a CPU core takes about {minutes:.0f} minutes per fit. Measuring its error needs "
                f"{self.config.calibration} more (none with Plan(calibration=0)), predicting out of fold several. "
                "Use a GPU, or a smaller network: config={'width': 32, 'depth': 2, 'steps': 1000}.",
                stacklevel=2,
            )

    def sampling(self, **changes) -> Model:
        """The same fitted model with other settings of sampling; weights are shared.

        Parameters
        ----------
        **changes
            `sampler`, `n_steps`, `n_samples`, `keep_samples`, `mirrored`, `sampling_seed`.
        """
        strange = set(changes) - {"sampler", "n_steps", "n_samples", "keep_samples", "mirrored", "sampling_seed"}
        if strange:
            raise BadInput(
                f"sampling() does not set {listed(sorted(strange))}; fit a model with another Config for that."
            )
        other = Model(replace(self.config, **changes))
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name != "config"})
        return other

    # Training -------------------------------------------------------------------------------------

    def _origin(self) -> tuple[Tensor, Tensor]:
        """Shift and scale between expression and what is diffused."""
        if self.config.standardize:
            return self.expression_mean, self.expression_std
        return torch.zeros_like(self.expression_mean), torch.ones_like(self.expression_std)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the noise; with a learned variance also its bits per gene."""
        shift, scale = self._origin()
        start = (batch.expression - shift) / scale
        # validation must not depend on luck: the same times and noise in every epoch
        generator = drawn.generator() if self.training else torch.Generator().manual_seed(int(batch.index[0]))
        t = diffusion.stratified_times(len(batch), generator, start.device)
        noise = torch.randn(start.shape, generator=generator).to(start.device)
        noised = diffusion.schedule().add_noise(start, noise, t)
        said = self.net(noised, t, self.net.image(batch.features)).float()
        parts = {"noise": (said[:, 0] - noise).pow(2).mean()}
        if self.config.learned_range:
            parts["range"] = diffusion.range_bits(start, noised, t, said[:, 0], said[:, 1]).mean()
        return parts

    # Prediction -----------------------------------------------------------------------------------

    def samples(self, batch: Batch) -> Tensor:
        """Samples of the rows of a batch, `(B, S, G)`, in the unit of the model."""
        c, device = self.config, batch.features.device
        image_BD = self.net.image(batch.features)
        image_RD = image_BD.repeat_interleave(c.n_samples, dim=0)

        def denoise(x_BSG: Tensor, t: Tensor) -> Tensor:
            said_R1G = self._said(x_BSG.flatten(0, 1), t, image_RD)
            said = said_R1G.unflatten(0, x_BSG.shape[:2]).movedim(2, 1)  # (B, outputs, S, G)
            return (said if c.sampler == "ddpm" else said[:, :1]).flatten(1, 2)

        steps = diffusion.sampler(c.sampler, c.n_steps, learned_range=c.learned_range)
        rows = batch.index if batch.key is None else batch.key
        generators = diffusion.row_generators([(c.sampling_seed, row) for row in rows.tolist()])
        drawn = diffusion.sample(
            denoise, steps, generators, c.n_samples, len(self.genes), mirrored=c.mirrored, device=device
        )
        shift, scale = self._origin()
        return shift + scale * drawn

    def _said(self, x_RG: Tensor, t: Tensor, image_RD: Tensor) -> Tensor:
        """The network on many sequences, some at a time; half precision on a GPU."""
        kind = x_RG.device.type
        t = t.to(x_RG.device)
        at_once = max(TOKENS_AT_ONCE.get(kind, 2**14) // x_RG.shape[1], 1)
        half = torch.autocast(kind, torch.bfloat16) if kind == "cuda" else nullcontext()
        with half:
            parts = [
                self.net(x, t.expand(len(x)), image)
                for x, image in zip(x_RG.split(at_once), image_RD.split(at_once), strict=True)
            ]
        return torch.cat(parts).float()

    def predict_step(self, batch: Batch) -> Prediction:
        """Mean and standard deviation of the samples, and some of them."""
        drawn = self.samples(batch)
        kept = drawn[:, : self.config.keep_samples].contiguous() if self.config.keep_samples else None
        # mirrored samples have hardly any freedom in their mean, so none is taken off
        lost = 0 if self.config.mirrored and self.config.sampler != "ddpm" else 1
        return Prediction(mean=drawn.mean(dim=1), std=drawn.std(dim=1, correction=lost), samples=kept)
