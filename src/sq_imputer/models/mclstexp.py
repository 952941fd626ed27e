r"""mclSTExp: image and expression of a spot in one space, and a prediction made of the training spots nearest to it.

The image branch sees the crop, the spot branch the expression and where it was measured. With features :math:`f` of
the crop, expression :math:`x` standardized per gene, and the column and row :math:`(a, b)` of the spot on the grid,

.. math::

    v = \mathrm{head}_v(f), \qquad
    s = \mathrm{head}_s\bigl(\mathrm{blocks}(u)\bigr), \quad u_i = x_i + P_{a_i} + Q_{b_i}, \qquad
    \mathrm{head}(f) = \mathrm{LN}(p + W_b\,\mathrm{GELU}(p)), \quad p = W_a f

where the blocks are two pre-norm transformer blocks in which the spots of a section attend to each other. Both
branches are trained to find each other's spot among those of a batch of size B,

.. math::

    \ell_{ij} = \frac{s_i \cdot v_j}{\tau}, \qquad
    L = -\frac{1}{2B} \sum_i \Bigl(\log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ij}}} +
    \log \frac{e^{\ell_{ii}}}{\sum_j e^{\ell_{ji}}}\Bigr)

After training, the keys :math:`s_j` and the expression :math:`y_j` of all measured training spots are the bank. A new
spot is asked about by its image alone. With :math:`N_k` the k keys of the highest cosine with :math:`v`,

.. math::

    \hat y = \sum_{j \in N_k} w_j\,y_j, \qquad w_j \propto \frac{1}{\lVert v - s_j \rVert^2 + \varepsilon}, \qquad
    v = \frac{1 + \sum_j w_j^2}{1 - \sum_j w_j^2} \sum_{j \in N_k} w_j\,(y_j - \hat y)^2, \qquad
    \mathrm{sd}^2 = c^2\,\frac{n v + 5\,\mathrm{sd}_{\mathrm{train}}^2}{n + 5}, \qquad n = 1 / \sum_j w_j^2

:math:`v` is the spread of a new measurement around a mean of so few; of one neighbor, that of the whole bank. A few
neighbors that happen to agree are no certainty: the spread of the training rows counts as 5 more of them (chosen on
sections A1 and B4 of her2st). :math:`c` is measured (`sq_imputer.predictor.calibrate`). The neighbors and their
weights are the explanation of the prediction. Retrieval is exact.

**Established**: branches, heads, positions, loss and retrieval are those of Min et al. (2024), written from the paper;
`Config.paper()` has its values (DenseNet-121 trained end to end without its closing ReLU, :math:`\tau = 1`, vectors
that are not normalized, positions of unit variance, random batches that attend across sections, 200 neighbors).
**Ours** are the defaults: vectors of length 1, :math:`\tau = 0.07`, positions of standard deviation 0.02, attention
within a section, frozen features of a crop and its contexts, dropout and strong weight decay, early stopping, the
number of neighbors, :math:`\varepsilon`, the standard deviation. Crops are mirrored and turned in training, not
recolored as in the paper. Of the paper's form a loss that stays at chance has been reported; a warning says so where it
happens. On frozen features of one tumor it did not happen, the paper's loss was as good as ours, its training without
early stopping a little worse, and positions made no clear difference (`benchmarks/mclstexp.py`).

Three defects of the published code are not reproduced. It scales every gene over the spots of a section instead of
every spot over its genes, which leaves the depth of the spot, visible in the image, in what is predicted: here
expression is in the unit of the source, each spot over its full library. Its keys depend on which spots share a chunk
of the file, even across sections: here all spots of a section attend to each other, in any order (also in the paper's
form, in which only training batches are random). It looks positions up by pixel on Visium: here they are counted from
the section's own corner in steps of the lattice, the median distance of nearest neighbors over the training sections
(on a hexagonal lattice, some neighbors share a step).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from sq_imputer.contract import Batch, CropSpec, Needs, Prediction, Source, Views
from sq_imputer.device import pick_device
from sq_imputer.encoders._timm import pooled_width
from sq_imputer.encoders._trunk import initial_weights, trunk
from sq_imputer.errors import BadInput
from sq_imputer.nn.contrastive import GridPosition, ProjectionHead, SpotEncoder, symmetric_infonce, turned
from sq_imputer.nn.retrieval import Bank, nearest
from sq_imputer.places import APART_UM
from sq_imputer.places import order as order_of
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.predictor.train import Plan
from sq_imputer.ranges import one_of, within
from sq_imputer.section.lattice import cells, steps_um
from sq_imputer.surroundings import undisturbed

# B spots, G genes, D width of the common space, N spots in the bank, K neighbors

MOST_ATTENDING = 4096  # spots of a larger section attend in several parts, each spread over all of it
PRIOR = 5  # neighbors that the spread of the training rows counts as
AT_CHANCE = 0.98  # share of the loss of guessing above which nothing was learned


@dataclass(frozen=True)
class Config(Views):
    """What mclSTExp is made of, beside the features that it reads (:class:`sq_imputer.Views`).

    Parameters
    ----------
    backbone
        A timm model, such as `"densenet121"`, trained on the pixels of the crop instead of `encoders` and contexts.
    weights
        What the backbone starts from: `"pretrained"` (downloaded when fitting), a safetensors file, or empty: random.
    width
        Width of the common space.
    blocks, heads, head_width
        Size of the spot branch.
    position, position_std
        `"learned"`, `"sinusoid"` or `"none"`; standard deviation at the start, that of expression being 1.
    attention_context
        Spots that attend to each other, and are told apart, in training: `"section"`, or the whole `"batch"`.
    temperature, l2_normalize
        Of the contrastive loss; whether vectors of both branches have length 1.
    dropout
        Share of the inputs of the heads, and of their hidden units, dropped in training.
    k
        Neighbors that a prediction is made of; a tenth of the training rows, at most 50, if None.
    lr, weight_decay, epochs, batch_size, validation
        Training; `validation` is the share of rows held out to stop early. A backbone has at most the rate and decay
        of `Config.paper()`: those of heads on frozen features would undo what it was pretrained on.
    calibration
        Parts of the training data left out in turn to measure the error, each a fit of as many epochs as were best; 0
        takes the spread of the neighbors as it is.
    """

    backbone: str = ""
    weights: str = "pretrained"
    width: int = within(256, 1)
    blocks: int = within(2, 0)
    heads: int = within(8, 1)
    head_width: int = within(64, 1)
    position: str = one_of("learned", ("learned", "sinusoid", "none"))
    position_std: float = within(0.02, 0)
    attention_context: str = one_of("section", ("section", "batch"))
    temperature: float = within(0.07, above=0)
    l2_normalize: bool = True
    dropout: float = within(0.5, 0, below=1)
    k: int | None = within(None, 1, whole=True)
    lr: float = within(1e-3, 0)
    weight_decay: float = within(30.0, 0)
    epochs: int = within(200, 1)
    batch_size: int = within(128, 2)  # one spot has no other to be told from
    validation: float = within(0.15, 0, below=1)
    calibration: int = within(5, 0, but=1)

    @classmethod
    def small(cls) -> Config:
        """For tests and the demo: one context, fewer pixels, a narrow space."""
        return cls(
            size_px=64, context_um=(300.0,), width=64, heads=4, head_width=16, epochs=40, batch_size=64, calibration=2
        )

    @classmethod
    def paper(cls) -> Config:
        """As published for HER2+ tumors: DenseNet-121 end to end, no normalization, no early stopping."""
        form = {"backbone": "densenet121", "extent_um": 154.0, "position_std": 1.0, "attention_context": "batch"}
        loss = {"temperature": 1.0, "l2_normalize": False, "dropout": 0.0, "k": 200}
        return cls(**form, **loss, lr=1e-4, weight_decay=1e-3, epochs=90, validation=0.0, calibration=0)


class Recall(NamedTuple):
    """Which spots find their own key: `hits` `(n,)` bool, their `share`, and the share expected by `chance`."""

    share: float
    chance: float
    hits: np.ndarray


class Model(Predictor):
    """Contrastive learning of image and expression, and retrieval of expression by image."""

    Config = Config
    retrieves = True
    fewest_rows = 2
    card = ModelCard(
        name="mclstexp",
        summary="Contrastive learning of image and expression; predicts by the training spots nearest to the image.",
        paper="Min, Shi, Zhang, Wan, Wang: Multimodal contrastive learning for spatial gene expression prediction "
        "using histology images, Brief. Bioinform. 25(6), 2024.",
        doi="10.1093/bib/bbae551",
        citation="@article{min2024mclstexp, doi={10.1093/bib/bbae551}, year={2024}, volume={25}, number={6}, "
        "journal={Briefings in Bioinformatics}, author={Min, W. and Shi, Z. and Zhang, J. and Wan, J. and Wang, C.}, "
        "title={Multimodal contrastive learning for spatial gene expression prediction using histology images}}",
        established="Both branches, positions, contrastive loss and weighted retrieval; Config.paper() has its values.",
        ours="Normalized vectors, low temperature, attention within sections, frozen features, early stopping, std.",
        limits="Predicts a mean of training spots: nothing outside their range, and never a level not seen before.",
        uncertainty="Weighted spread of the neighbors, of the size of the error on training data that were left out.",
    )

    @property
    def needs(self) -> Needs:
        """Features of the crop and its contexts, or the pixels of the crop."""
        c = self.config
        return Needs(CropSpec(c.extent_um, c.size_px)) if c.backbone else c.needs

    @property
    def mixes_sections(self) -> bool:
        """Whether spots of several sections attend to each other in training."""
        return self.config.attention_context == "batch"

    @property
    def draws_by_name(self) -> bool:
        """Whether training draws by named generators alone: of an image network's layers nobody knows."""
        return not self.config.backbone

    @property
    def k(self) -> int:
        """Neighbors that a prediction is made of."""
        return self.config.k or min(50, max(1, self.sizes["rows"] // 10))

    def further_sizes(self, sources: Sequence[Source]) -> dict[str, int]:
        """Sections, extent of the grid, and bytes of the longest name of a spot."""
        step, array = _steps(sources), _on_array(sources)
        spans = [np.ptp(_places(source, array), axis=0) for source in sources if source.measured.any()]
        across, down = (int(n) + 1 for n in cells(np.max(spans, axis=0), np.zeros(2), step))
        longest = max(len(str(name).encode()) for source in sources for name in source.names[source.measured])
        named = {"name_bytes": max(longest, 1), "array": int(array)}
        return {"sections": len(sources), "grid_x": across, "grid_y": down, **named}

    def build(self) -> None:
        """The two branches, where sections lie, and an empty bank."""
        c, genes, sizes = self.config, len(self.genes), self.sizes
        self.trunk = trunk(c.backbone) if c.backbone else nn.Identity()
        inputs = pooled_width(self.trunk) if c.backbone else sizes["features"]
        self.image_head = ProjectionHead(inputs, c.width, c.dropout)
        self.position = GridPosition((sizes["grid_x"], sizes["grid_y"]), genes, c.position, c.position_std)
        self.spot_encoder = SpotEncoder(genes, c.blocks, c.heads, c.head_width)
        self.spot_head = ProjectionHead(genes, c.width, c.dropout)
        self.register_buffer("step", torch.ones(2))
        self.register_buffer("corner", torch.zeros(sizes["sections"], 2))
        self.memory = Bank(sizes["rows"], c.width, genes, sizes["name_bytes"])

    # The two branches -----------------------------------------------------------------------------

    def images(self, batch: Batch) -> Tensor:
        """Vectors `(B, D)` of the images of a batch, each by itself."""
        x = batch.features
        if self.config.backbone:
            crops = turned(batch.crops) if self.training else batch.crops
            x = self.trunk(crops.float() / 255)  # without ImageNet's mean and spread, as published
        head = self.image_head
        if not self.training and x.device.type != "mps":  # float64: of two equally near keys, batches choose the same
            wide = {name: weight.double() for name, weight in head.named_parameters()}
            return self._scaled(torch.func.functional_call(head, wide, (x.double(),)))
        return self._scaled(head(x))

    def spots(self, expression: Tensor, cells: Tensor) -> Tensor:
        """Vectors `(B, D)` of spots that attend to each other, from expression and grid cells."""
        x = (expression - self.expression_mean) / self.expression_std
        return self._scaled(self.spot_head(self.spot_encoder(x + self.position(cells))))

    def _scaled(self, z: Tensor) -> Tensor:
        return normalize(z, dim=1) if self.config.l2_normalize else z

    def _cells(self, places: Tensor, corner: Tensor) -> Tensor:
        return ((places - corner + APART_UM) / self.step + 0.5).floor().long()  # as lattice.cells

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The contrastive loss of images and spots."""
        places = batch.array if self.sizes["array"] else batch.xy_um
        spots = self.spots(batch.expression, self._cells(places, self.corner[batch.section]))
        return {"contrastive": symmetric_infonce(spots, self.images(batch).to(spots), self.config.temperature)}

    # Training, and the bank -----------------------------------------------------------------------

    def optimize(self, sources: Sequence[Source], plan: Plan) -> None:
        """Train by the shared harness, fill the bank, and warn if nothing was learned."""
        self.step.copy_(torch.tensor(_steps(sources)))
        self.corner.copy_(torch.stack([_corner(source, self.sizes["array"]) for source in sources]))
        if self.config.backbone and self.config.weights:
            self.trunk.load_state_dict(initial_weights(self.config.backbone, self.config.weights))
        memory, self.memory = self.memory, nn.Identity()  # training keeps copies of the state: without the bank
        super().optimize(sources, plan)
        self.memory = memory
        self.to(pick_device(plan.device)).eval()
        first = 0
        for number, source in enumerate(sources):
            rows = np.flatnonzero(source.measured)
            expression, xy = (torch.from_numpy(values[rows]) for values in (source.expression, source.xy_um))
            memory.put(first, self.keys(source), expression, xy, number, [str(name) for name in source.names[rows]])
            first += len(rows)
        self._say_if_at_chance()

    @torch.no_grad()
    def keys(self, source: Source) -> Tensor:
        """Keys `(n, D)` of the measured rows of a source, which attend to each other; their order does not matter."""
        rows = np.flatnonzero(source.measured)
        expression = torch.from_numpy(source.expression[rows]).to(self.step)
        places, corner = (of(source, self.sizes["array"]) for of in (_places, _corner))
        cells = self._cells(torch.from_numpy(places).to(self.step), corner.to(self.step))
        order = order_of(source.xy_um[rows])
        parts = -(-len(order) // MOST_ATTENDING)
        keys = expression.new_zeros(len(order), self.config.width)
        for part in range(parts):
            chosen = torch.from_numpy(order[part::parts].copy()).to(cells.device)
            keys[chosen] = self.spots(expression[chosen], cells[chosen])
        return keys

    def calibrate(self, held: Iterable[Batch]) -> dict[str, Tensor]:
        """Compare the loss with that of guessing, on rows that were held out if any were."""
        found = [(len(batch), float(self.loss(batch)["contrastive"]), math.log(len(batch))) for batch in held]
        weight, losses, guesses = np.array(found).T
        self.alignment = {"loss": np.average(losses, weights=weight), "chance": np.average(guesses, weights=weight)}
        return {}

    def _say_if_at_chance(self) -> None:
        loss, chance = (float(self.alignment[name]) for name in ("loss", "chance"))
        self.history |= {"loss": loss, "chance": chance}
        if chance and loss > AT_CHANCE * chance:
            warnings.warn(
                f"the loss of mclstexp is {loss:.3f}, not below chance ({chance:.3f}), on rows held out of training "
                "or, if none were, on training rows: it predicts means of arbitrary spots. Fit on more spots, with "
                "another Config.lr or, in the paper's form, with l2_normalize=True and temperature=0.07. If it stays, "
                "the image does not show these genes.",
                stacklevel=1,
            )

    def optimizer(self):
        """AdamW; a backbone has the published rate and decay, if those of the heads are higher."""
        c, backbone = self.config, list(self.trunk.parameters())
        inside = set(map(id, backbone))
        heads = {"params": [weight for weight in self.parameters() if id(weight) not in inside]}
        gentle = {"params": backbone, "lr": min(c.lr, 1e-4), "weight_decay": min(c.weight_decay, 1e-3)}
        return torch.optim.AdamW([heads, gentle] if backbone else [heads], lr=c.lr, weight_decay=c.weight_decay)

    def _together(self, source: Source, rows: np.ndarray) -> Batch:
        """These rows as one batch, in the order of their numbers."""
        device = str(self.step.device)
        batch = Batch.cat(list(self.seen(source, len(rows), rows=rows, device=device))).to(device)
        return batch[torch.argsort(batch.index)]

    # Retrieval ------------------------------------------------------------------------------------

    def predict_step(self, batch: Batch) -> Prediction:
        """Weighted mean and spread of the training spots nearest to the image."""
        query = self.images(batch)
        index, weights, mean, variance = self.memory.ask(query, self.k)
        count = 1 / weights.pow(2).sum(dim=1, keepdim=True)
        std = ((count * variance + PRIOR * self.expression_std.pow(2)) / (count + PRIOR)).sqrt()
        return Prediction(mean.float(), std.float(), embedding=query.float(), neighbors=index, weights=weights.float())

    def bank(self) -> dict[str, np.ndarray]:
        """The training rows that `Prediction.neighbors` counts: `section`, `patient`, `spot`, `x_um`, `y_um`."""
        if not self.fitted:
            raise BadInput("'mclstexp' is not fitted; its bank is empty.")
        section = self.memory.section.cpu().numpy()
        of = {"section": self.provenance["sections"], "patient": self.provenance["groups"]}
        named = {key: np.array(names, dtype=object)[section] for key, names in of.items()}
        x_um, y_um = self.memory.xy.cpu().numpy().T
        return {**named, "spot": np.array(self.memory.names(), dtype=object), "x_um": x_um, "y_um": y_um}

    @undisturbed()
    @torch.no_grad()
    def recall(self, source: Source, k: int = 10, *, with_bank: bool = False, device: str = "auto") -> Recall:
        """How often the image of a measured spot finds the spot's own expression among its `k` nearest keys.

        Parameters
        ----------
        source
            A section with `expression` of the model's genes, not among those of the fit.
        k
            Keys that count as found.
        with_bank
            Search the keys of the section and the whole bank, instead of those of the section alone.
        device
            Where to run.
        """
        if not self.fitted or source.expression is None or source.genes != self.genes or source.unit != self.unit:
            raise BadInput("recall needs a fitted model, and a section .with_genes(model.genes, model.unit).")
        if not source.measured.any():
            raise BadInput(f"recall needs measured rows; section '{source.section}' has none.")
        self.to(pick_device(device)).eval()
        rows, keys = np.flatnonzero(source.measured), self.keys(source)
        parts = [rows[start : start + 256] for start in range(0, len(rows), 256)]
        query = torch.cat([self.images(self._together(source, part)) for part in parts])
        keys = torch.cat([keys, self.memory.keys]) if with_bank else keys
        found = nearest(query, keys, k)[0].cpu().numpy()
        hits = (found == np.arange(len(found))[:, None]).any(axis=1)
        return Recall(float(hits.mean()), min(1.0, k / len(keys)), hits)


def _on_array(sources: Sequence[Source]) -> bool:
    """Whether the tables of all sections say at which position of the array every spot was printed."""
    return all(getattr(source, "array", None) is not None for source in sources)


def _places(source: Source, array: bool) -> np.ndarray:
    """Where the measured spots of a section lie: column and row of the array, or x and y in µm."""
    return (source.array if array else source.xy_um)[source.measured]


def _steps(sources: Sequence[Source]) -> tuple[float, float]:
    """From column to column and from row to row of the lattice of the measured spots: 1 of an array, else in µm."""
    if _on_array(sources):
        return 1.0, 1.0
    across, down = steps_um(*(source.xy_um[source.measured] for source in sources))
    return (across, down) if across > 0 else (1.0, 1.0)


def _corner(source: Source, array: bool) -> Tensor:
    places = _places(source, array)
    return torch.from_numpy(places.min(axis=0) if len(places) else np.zeros(2)).float()
