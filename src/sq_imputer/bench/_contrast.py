r"""Image and expression brought into one space: heads on frozen encoders, or low-rank tuning of the image encoder.

After HESCAPE (Gindra et al. 2025, arXiv:2508.01490): an image encoder with a head, an encoder of expression, and the
loss of CLIP or SigLIP (`sq_imputer.nn.clip`). Ours: features and expression are standardized on the training rows;
vectors are normalized (the published code does not, `normalize=False`); steps, learning rate and early stopping are
those of some hundred to some thousand rows on a CPU, and `Contrast.published()` has those of the code. Expression is
log counts per 10,000 of the full library, where the published transform depends on the median of the batch.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._contrasts import Contrast
from sq_imputer.bench._pairs import Pairs
from sq_imputer.errors import BadInput
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    import torch

    from sq_imputer.encoders._shelf import Weights

CHECKED = 20  # steps from one look at the validation rows to the next
AT_ONCE = 256


@dataclass(frozen=True, eq=False, repr=False)
class Tuned:
    """Encoders of images and of expression into one space; made by :func:`sq_imputer.bench.contrast`.

    Parameters
    ----------
    config
        How it was made.
    encoder, genes
        Image encoder and genes of the pairs that it takes.
    history
        `steps`, `train` and `validation` losses every 20 steps, and `best`, the step whose weights are kept.
    """

    config: Contrast
    encoder: str
    genes: tuple[str, ...]
    history: dict
    _network: torch.nn.Module

    def __repr__(self) -> str:
        return f"Tuned {self.encoder} x {self.config.genes}, {self.config.loss}, best step {self.history['best']}"

    def image(self, pairs: Pairs) -> np.ndarray:
        """`(n, width)` vectors of the images."""
        return self._vectors(pairs, "image")

    def expression(self, pairs: Pairs) -> np.ndarray:
        """`(n, width)` vectors of the expression."""
        return self._vectors(pairs, "expression")

    def features(self, pairs: Pairs) -> np.ndarray:
        """What the tuned image side says of crops: features of the tuned encoder, of a frozen one the vectors."""
        return self._vectors(pairs, "trunk" if self.config.finetune == "lora" else "image")

    def _vectors(self, pairs: Pairs, side: str) -> np.ndarray:
        import torch

        for name in ("encoder", "genes"):
            if getattr(pairs, name) != getattr(self, name):
                raise BadInput(f"these pairs are of another {name} than the encoders were tuned on; make them so.")
        network, starts = self._network.eval(), range(0, len(pairs), AT_ONCE)
        with torch.no_grad():
            parts = (network.take(pairs, slice(start, start + AT_ONCE)) for start in starts)
            vectors = torch.cat([getattr(network, side)(part) for part in parts])
        if self.config.normalize and side != "trunk":
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.numpy()


@verb
def contrast(
    train: Pairs,
    validation: Pairs | None = None,
    *,
    config: Contrast | None = None,
    weights: Weights | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Tuned:
    """Bring images and expression of the same rows into one space.

    Parameters
    ----------
    train, validation
        Pairs (:func:`sq_imputer.bench.pairs`). Without validation pairs all steps are taken.
    config
        How (:class:`Contrast`).
    weights
        File of the image encoder, if it is tuned itself: the one that the pairs were made with.
    seed
        Initial weights, batches, dropout.
    device
        Where it is trained; `"cpu"`, `"cuda"`.

    Returns
    -------
    The tuned encoders.

    Raises
    ------
    BadInput
        If there are fewer rows than two, or `"lora"` is asked of an encoder without attention, or with other weights
        than those that the pairs were made with.
    MissingKey
        If the config needs crops or a latent that the pairs do not have.

    Examples
    --------
    >>> tuned = sqi.bench.contrast(pairs, config=sqi.bench.Contrast(steps=20, width=8))
    """
    import torch

    from sq_imputer.bench._network import Network
    from sq_imputer.nn.drawn import drawn_by
    from sq_imputer.predictor.chance import Chance

    config = config or Contrast()
    if len(train) < 2:
        raise BadInput(f"there are {len(train)} pairs; a contrast needs two or more.")
    chance = Chance(seed)
    with chance:
        network = Network(config, train, weights).to(device)
    with drawn_by(chance.generator):
        history = _fit(network, train, validation, np.random.default_rng(seed))
    return Tuned(config, train.encoder, train.genes, history, network.to(torch.device("cpu")))


def _fit(network, train: Pairs, validation: Pairs | None, rng: np.random.Generator) -> dict:
    """Train; the best weights on the validation rows, or the last ones, remain."""
    import torch

    config = network.config
    trained = [part for part in network.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, config))
    history, best, waited = {"step": [], "train": [], "validation": [], "best": config.steps}, None, 0
    batches = _batches(len(train), config.batch_size, rng)
    for step in range(1, config.steps + 1):
        loss = network.train()(train, next(batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        schedule.step()
        if step % CHECKED and step != config.steps:
            continue
        now = _validated(network, validation)
        _note(history, step, float(loss.detach()), now)
        if validation is None:
            continue
        if best is None or now < best[0] - 0.01:
            best, waited = (now, step, deepcopy(network.state_dict())), 0
        else:
            waited += 1
        if waited >= config.patience:
            break
    if best is not None:
        network.load_state_dict(best[2])
        history["best"] = best[1]
    return history


def _note(history: dict, step: int, train: float, validation: float) -> None:
    for name, value in (("step", step), ("train", train), ("validation", validation)):
        history[name].append(value)


def _validated(network, pairs: Pairs | None) -> float:
    """Mean loss of the validation rows, in batches of the training's size; of chance ln N."""
    import torch

    if pairs is None:
        return float("nan")
    size, losses = network.config.batch_size, []
    network.eval()
    with torch.no_grad():
        for start in range(0, max(len(pairs) - size, 0) + 1, size):
            losses.append(float(network(pairs, np.arange(start, min(start + size, len(pairs))))))
    return float(np.mean(losses))


def _pace(step: int, config: Contrast) -> float:
    """Share of the learning rate at a step."""
    rising = config.warmup * config.steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + cos(pi * (step - rising) / max(config.steps - rising, 1)))


def _batches(n: int, size: int, rng: np.random.Generator):
    """Batches of shuffled rows without end; a rest that is smaller than a batch is left out of its round."""
    size = min(size, n)
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]
