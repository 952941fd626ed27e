r"""Which pixels carry a prediction: signed maps of crops, as tensors, and whether a map may be believed.

Every map compares the crop with a flat color, the *baseline*: that of the section's tissue, or of its glass. A value is
what the prediction would lose if the whole crop did what this pixel does, in its unit: the mean of a map over its crop
is the difference :math:`f(x) - f(b)` that it explains:

- `stains` (nsl): :math:`g(x_p) - g(b)`, exactly, for :math:`f` is a mean over pixels;
- `integrated_gradients` (Sundararajan et al. 2017): :math:`(x - b)\int_0^1 \nabla f(b + t(x - b))\,dt` by a
  Gauss-Legendre rule, exactly up to the rule's error;
- `input_x_gradient`: :math:`(x - b)\,\nabla f(x)`, to first order;
- `occlusion`: :math:`f(x) - f(x \text{ with one cell of a grid in the baseline's color})`, for any model of crops. A
  flat cell has no texture, which may lower or raise a prediction by itself: compare cells rather than their signs.

A model that sees wider contexts sees the same tissue in several views: a cell is covered in all of them, and gradients
of all are added up where they overlap. What a context says from outside the crop is in no map; `texture` mirrors crops.

Gradients are offered where every step from pixels to prediction is differentiable. Those of `texture` are not, shares
above thresholds: a ridge that is linear in it is taken apart exactly instead (:func:`feature_groups`). A model that
retrieves jumps where its neighbors change, and is explained by these (:func:`sq_imputer.tl.retrieved`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sq_imputer.contract import Batch
from sq_imputer.encoders import Encoder, get_encoder
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.scaled import CLIP_SD
from sq_imputer.surroundings import undisturbed

# B crops, V views (the crop and its contexts), S pixels a side, R models and genes asked for, K cells a side

GRADIENTS = ("input_x_gradient", "integrated_gradients")
MAPS = ("occlusion", *GRADIENTS, "stains")  # methods that give a map of the crop
NODES = 32  # of the integral
STEPS = 8  # shares of the crop that are covered when a map is tested
ORDERS = 3  # random orders that a map is compared with
COPIES, CROPS = 20, 4  # models with random weights that it is compared with, and on how many crops
MOST_ALIKE = 0.5  # rank correlation with their maps, from which on a map does not depend on what was learned


@dataclass(frozen=True, eq=False)
class Sight:
    """A fitted predictor as a function of pixels; made by :meth:`of`.

    Called with pixels, uint8 or float from 0 to 255, it gives every gene of every model.

    Parameters
    ----------
    models
        The predictor, and copies of it with other weights.
    columns
        Which of its genes.
    encoders
        What turns pixels into features; none where the model sees pixels.
    mean, scale
        `(F,)` what features are centered and divided by.
    """

    models: tuple[Predictor, ...]
    columns: tuple[int, ...]
    encoders: tuple[Encoder, ...] = ()
    mean: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def of(cls, predictor: Predictor, genes=None, moments=None, encoder_of=get_encoder) -> Sight:
        """A predictor seen through its pixels.

        Parameters
        ----------
        predictor
            A fitted predictor of crops.
        genes
            Some of its genes; all if left out.
        moments
            Mean and standard deviation `(F,)` of the section's features (`slide.moments(predictor.needs)`), for models
            that scale within sections; those of the training rows if left out.
        encoder_of
            Gives an encoder by name.

        Raises
        ------
        BadInput
            If the predictor is not fitted, or sees more than single crops.
        MissingKey
            If it does not predict a gene.
        """
        if not predictor.fitted:
            raise BadInput(f"'{predictor.card.name}' is not fitted; fit it, or load one with sq_imputer.load(folder).")
        if not _sees_crops(predictor):
            raise BadInput(f"'{predictor.card.name}' sees more than single crops, or is of others: no map is tested.")
        genes = list(predictor.genes if genes is None else genes)
        absent = [gene for gene in genes if gene not in predictor.genes]
        if absent or not genes:
            raise MissingKey(f"no gene {listed(absent)}; '{predictor.card.name}' predicts {listed(predictor.genes)}.")
        predictor.eval()
        columns = tuple(predictor.genes.index(gene) for gene in genes)
        if not predictor.needs.encoders:
            return cls((predictor,), columns)
        known, where = moments or (predictor.feature_mean, predictor.feature_std), predictor.feature_mean.device
        mean, std = (torch.as_tensor(values, dtype=torch.float32, device=where) for values in known)
        encoders = tuple(map(encoder_of, predictor.needs.encoders))
        return cls((predictor,), columns, encoders, mean, torch.where(std > 1e-6, std, 1.0))

    @property
    def needs(self):
        """What the model sees."""
        return self.models[0].needs

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.models[0].expression_mean.device

    def __call__(self, views: Tensor) -> Tensor:
        """Predictions `(B, R)` of `(B, V, 3, S, S)`."""
        where = {"device": views.device, "dtype": torch.long}
        batch = Batch(torch.zeros(len(views), **where), xy_um=torch.zeros(len(views), 2, device=views.device))
        if self.encoders:
            batch.features = ((self._features(views) - self.mean) / self.scale).clamp(-CLIP_SD, CLIP_SD)
        else:
            batch.crops = views[:, 0]
        return torch.cat([model.predict_step(batch).mean[:, list(self.columns)] for model in self.models], dim=1)

    def _features(self, views: Tensor) -> Tensor:
        # an encoder refuses floats and stops gradients when called; what is below it does neither
        seen = [encoder.encode if views.is_floating_point() else encoder for encoder in self.encoders]
        return torch.cat([encode(view) for view in views.unbind(1) for encode in seen], dim=1).float()

    def with_random(self, copies: int, seed: int = 0) -> Sight:
        """Copies of the model with weights drawn at random, as large as they were.

        All trained weights are drawn; of a closed form, its matrices. Frozen encoders and banks stay.
        """
        generator = torch.Generator().manual_seed(seed)
        return replace(self, models=tuple(_randomized(self.models[0], generator) for _ in range(copies)))

    def places(self, side: int) -> list[np.ndarray]:
        """For every view, which of `side` cells along the crop each of its pixels lies in `(S,)`; -1 outside."""
        found = []
        for view in self.needs.views:
            off = ((np.arange(view.size_px) + 0.5) / view.size_px - 0.5) * view.extent_um / self.needs.crop.extent_um
            cell = np.floor((off + 0.5) * side + 1e-6).astype(int)
            found.append(np.where((cell >= 0) & (cell < side), cell, -1))
        return found

    def cover(self, views: Tensor, cells: Tensor, baseline: Tensor) -> Tensor:
        """Views `(B, V, 3, S, S)` with the cells `(B, K, K)` of the crop that are True in the baseline's color."""
        shown = []
        for v, place in enumerate(self.places(cells.shape[-1])):
            at = torch.as_tensor(place, device=views.device)
            masks = cells[:, at.clamp(min=0)][:, :, at.clamp(min=0)] & (at >= 0)[:, None] & (at >= 0)
            shown.append(torch.where(masks[:, None], baseline.to(views)[:, None, None], views[:, v]))
        return torch.stack(shown, dim=1)


def _sees_crops(predictor: Predictor) -> bool:
    needs, of_others = predictor.needs, predictor.provenance.get("external")
    return needs.crop is not None and needs.neighbors < 2 and not (needs.tokens or needs.whole_slide or of_others)


def _randomized(model: Predictor, generator: torch.Generator) -> Predictor:
    trained = list(model.parameters()) or [x for x in model.buffers() if x.is_floating_point() and x.ndim > 1]
    changed = {id(weight): copy.deepcopy(weight) for weight in trained}
    with torch.no_grad():
        for weight in changed.values():
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.copy_(noise * weight.square().mean().sqrt())
    return copy.deepcopy(model, {id(x): x for x in model.buffers()} | changed)  # what is not trained is shared


def available(predictor: Predictor) -> tuple[str, ...]:
    """Names of the methods that explain a fitted predictor; the first suits it best."""
    found = ["neighbors"] if predictor.retrieves else []
    if _sees_crops(predictor):
        found.append("occlusion")
        found += GRADIENTS if not predictor.retrieves and _differentiable(Sight.of(predictor)) else []
    if hasattr(predictor, "pixel_map"):
        found.insert(0, "stains")
    linear = getattr(predictor.config, "kernel", "") == "linear" and hasattr(predictor, "mapped_mean")
    if linear and predictor.needs.encoders == ("texture",):
        found.append("feature_groups")
    return tuple(found)


def check_method(predictor: Predictor, method: str, among: Sequence[str] = MAPS) -> None:
    """Raise `BadInput`, which names the methods that there are, unless a method explains a predictor."""
    there = [name for name in available(predictor) if name in among]
    if method not in there:
        neighbors = " What it retrieved is told by tl.retrieved." if predictor.retrieves else ""
        raise BadInput(f"method '{method}' does not explain '{predictor.card.name}'; these do: {there}.{neighbors}")


def _differentiable(sight: Sight) -> bool:
    """Whether a gradient arrives at the pixels; tried on one gray crop."""
    size = sight.needs.crop.size_px
    views = torch.full((1, len(sight.needs.views), 3, size, size), 128.0, device=sight.device, requires_grad=True)
    with torch.enable_grad():
        said = sight(views).sum()
        return said.requires_grad and torch.autograd.grad(said, views, allow_unused=True)[0] is not None


@undisturbed()
def attribute(
    sight: Sight, views: Tensor, baseline: Tensor, method: str = "occlusion", *, grid: int = 8, nodes: int = NODES
) -> Tensor:
    """Maps of crops, whose mean over the crop is the difference to the baseline that they explain.

    Parameters
    ----------
    sight
        The model.
    views
        `(B, V, 3, S, S)` uint8: the crop and, for models that have them, its contexts.
    baseline
        `(3,)` uint8 color that the crops are compared with.
    method
        One of :data:`MAPS` that is :func:`available`; :func:`check_method` says so.
    grid
        Cells a side, for occlusion.
    nodes
        Points of the integral, for integrated gradients.

    Returns
    -------
    `(B, R, S, S)` float32 in the expression unit, signed; `(B, R, grid, grid)` for occlusion.
    """
    if method == "occlusion":
        return _occlusion(sight, views, baseline, grid)
    if method == "stains":
        return _stains(sight, views, baseline)
    views, flat = views.float(), baseline.float()[:, None, None]
    if method == "input_x_gradient":
        return _on_crop(sight, _gradients(sight, views) * (views - flat))
    points, weights = np.polynomial.legendre.leggauss(nodes)
    total = 0
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        total = total + weight * _gradients(sight, flat + point * (views - flat))
    return _on_crop(sight, total * (views - flat))


def _gradients(sight: Sight, views: Tensor) -> Tensor:
    """`(R, B, V, 3, S, S)`, rows being independent of each other."""
    views = views.detach().requires_grad_()
    with torch.enable_grad():
        said = sight(views).sum(dim=0)
        return torch.stack([torch.autograd.grad(one, views, retain_graph=True)[0] for one in said])


def _on_crop(sight: Sight, parts: Tensor) -> Tensor:
    """Contributions of the pixels of all views, as density on the crop: `(B, R, S, S)`."""
    parts, crop = parts.sum(dim=3).transpose(0, 1), sight.needs.crop
    total = parts[:, :, 0] * crop.size_px**2
    for v, view in enumerate(sight.needs.views[1:], start=1):
        wider = view.extent_um / crop.extent_um
        at = ((torch.arange(crop.size_px) + 0.5) / crop.size_px - 0.5) / wider + 0.5
        at = (at * view.size_px).long().to(parts.device)
        total = total + parts[:, :, v][:, :, at][..., at] * (view.size_px / wider) ** 2
    return total


@torch.no_grad()
def _occlusion(sight: Sight, views: Tensor, baseline: Tensor, grid: int) -> Tensor:
    if not 1 <= grid <= views.shape[-1]:
        raise BadInput(f"grid is {grid}; expected 1 to {views.shape[-1]} cells along the {views.shape[-1]} pixels.")
    cells = torch.eye(grid**2, dtype=torch.bool, device=views.device).view(-1, grid, grid)
    maps = []
    for crop in views:
        parts = cells.split(64)
        said = torch.cat([sight(sight.cover(crop.expand(len(p), *crop.shape), p, baseline)) for p in parts])
        maps.append((sight(crop[None]) - said).T.unflatten(1, (grid, grid)) * grid**2)
    return torch.stack(maps)


@torch.no_grad()
def _stains(sight: Sight, views: Tensor, baseline: Tensor) -> Tensor:
    columns, flat = list(sight.columns), baseline.view(1, 3, 1, 1)
    maps = [(model.pixel_map(views[:, 0]) - model.pixel_map(flat))[:, columns] for model in sight.models]
    return torch.cat(maps, dim=1)


@torch.no_grad()
def feature_groups(predictor: Predictor, features: Tensor, genes: Sequence[str] | None = None):
    """What every group of texture features of every view adds to a linear prediction, exactly.

    Parameters
    ----------
    predictor
        A ridge that is linear in the `texture` encoder.
    features
        `(B, F)` scaled, as `predictor.seen(slide, ...)` gives them.
    genes
        Names of some of its genes; all if left out.

    Returns
    -------
    `(B, M, R)`, which sums over the M groups to the prediction minus its mean over the training rows; and M pairs of
    the extent of the view, in µm, and the name of the group, such as nuc: what features are called up to the first _.

    Raises
    ------
    BadInput
        If the predictor is not of this kind.
    """
    from sq_imputer.encoders.texture import FEATURES

    check_method(predictor, "feature_groups", among=("feature_groups", *MAPS))
    columns = list(Sight.of(predictor, genes).columns)
    kinds = [name.split("_")[0] for name in FEATURES]
    labels = [(view.extent_um, kind) for view in predictor.needs.views for kind in kinds]
    groups = list(dict.fromkeys(labels))
    member = torch.zeros(len(groups), len(labels))
    member[[groups.index(label) for label in labels], range(len(labels))] = 1
    weight = predictor.weight[:, columns]
    centered = features.to(weight) - predictor.mapped_mean
    return torch.einsum("bf,mf,fr->bmr", centered, member.to(weight), weight), groups


@undisturbed()
def faithfulness(
    sight: Sight, views: Tensor, baseline: Tensor, method: str, *, grid: int = 8, seed: int = 0, maps=None
) -> dict[str, np.ndarray]:
    """Whether maps follow the model: two tests on some crops, gene by gene.

    *Deletion and insertion.* Cells of the crop are covered with the baseline (or uncovered from it), those of the
    highest value first; the area under the prediction, averaged over crops, is compared with that of random orders.
    *Random weights.* The map of the same model with random weights must be another one.

    Parameters
    ----------
    sight, views, baseline, method
        As in :func:`attribute`.
    grid
        Cells a side, of the test and of an occlusion.
    seed
        Of random orders and weights.
    maps
        What :func:`attribute` gives of these views; made if left out.

    Returns
    -------
    One number per gene: `deletion`, `deletion_random`, `insertion`, `insertion_random` (mean prediction, in the
    expression unit), `gain` (how much better than random both are on average, in standard deviations of the gene),
    `random_weights` (mean rank correlation) and `faithful`: gain above 0 and correlation below :data:`MOST_ALIKE`.
    """
    grid = min(grid, views.shape[-1])
    maps = attribute(sight, views, baseline, method, grid=grid) if maps is None else maps
    others = attribute(sight.with_random(COPIES, seed), views[:CROPS], baseline, method, grid=grid)
    pooled = [F.adaptive_avg_pool2d(found, grid).flatten(2) for found in (maps, others)]
    std = sight.models[0].expression_std[list(sight.columns)].cpu().numpy()
    found = areas(sight, views, baseline, pooled[0], std, seed)
    other = pooled[1].unflatten(1, (COPIES, -1)).cpu().numpy()
    own = np.broadcast_to(pooled[0][:CROPS, None].cpu().numpy(), other.shape)
    found["random_weights"] = rank_correlation(own, other).mean(axis=(0, 1))
    return found | {"faithful": (found["gain"] > 0) & (found["random_weights"] < MOST_ALIKE)}


def areas(sight: Sight, views: Tensor, baseline: Tensor, maps: Tensor, std: np.ndarray, seed: int = 0) -> dict:
    """Deletion and insertion areas of maps `(B, R, K * K)`, and their gain over random orders in units of `std`."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for kind, flip in (("deletion", False), ("insertion", True)):
        by_map = [_area(sight, views, baseline, maps[:, g], flip)[g] for g in range(maps.shape[1])]
        noise = [torch.rand(maps[:, 0].shape, generator=generator).to(maps) for _ in range(ORDERS)]
        by_chance = torch.stack([_area(sight, views, baseline, order, flip) for order in noise]).mean(dim=0)
        found |= {kind: torch.stack(by_map).cpu().numpy(), f"{kind}_random": by_chance.cpu().numpy()}
    gain = found["deletion_random"] - found["deletion"] + found["insertion"] - found["insertion_random"]
    return found | {"gain": gain / 2 / std}


@torch.no_grad()
def _area(sight: Sight, views: Tensor, baseline: Tensor, value: Tensor, flip: bool) -> Tensor:
    """Mean prediction `(R,)` while cells are covered in the order of falling value, or uncovered."""
    side = round(value.shape[1] ** 0.5)
    rank = value.argsort(dim=1, descending=True).argsort(dim=1).view(-1, side, side)
    total = 0
    for step in range(1, STEPS):
        first = rank < side**2 * step / STEPS
        total = total + sight(sight.cover(views, ~first if flip else first, baseline)).mean(dim=0)
    return total / (STEPS - 1)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of rows of `(..., cells)`; 0 where one of them is flat."""
    from scipy.stats import rankdata

    a, b = (rankdata(x, axis=-1) - (x.shape[-1] + 1) / 2 for x in (a, b))
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return np.divide((a * b).sum(axis=-1), size, out=np.zeros(size.shape), where=size > 0)
