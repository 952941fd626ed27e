"""Gradient steps of the training harness: a loss, its gradient clipped, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor

from sq_imputer.contract import Batch, Model
from sq_imputer.errors import SqImputerError
from sq_imputer.predictor.chance import Chance


class Steps:
    """Gradient steps on a predictor's loss, and the running mean of its weights if it asks for one.

    The mean begins with the weights after the first step. Its decay warms up as (1 + n) / (10 + n) over n steps: a
    fixed one would leave the first weights in a short run.

    Parameters
    ----------
    predictor
        What is trained, where it is.
    seed
        What decides all that is drawn in the steps.
    precision, clip
        As in :class:`sq_imputer.Plan`.
    """

    def __init__(self, predictor: Model, seed: int, precision: str, clip: float) -> None:
        self.predictor, self.clip, self.chance = predictor, clip, Chance(seed)
        self.device = predictor.expression_mean.device
        self.optimizer = predictor.optimizer()
        self.weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self.mean, self.n = [], 0
        precision = precision_on(precision, self.device.type)
        half = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
        self.cast = {"device_type": self.device.type, "dtype": half, "enabled": precision != "32-true"}
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "16-mixed")

    def train(self, batches: Iterable[Batch], epoch: int) -> Iterator[tuple[float, int]]:
        """One step per batch; its loss and number of rows."""
        self.predictor.train()
        for batch in batches:
            self.optimizer.zero_grad()
            total, value = self._loss(batch, epoch)
            self.scaler.scale(total).backward()
            self.scaler.unscale_(self.optimizer)
            if self.clip:
                torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self._average()
            yield value, len(batch)

    def validate(self, batches: Iterable[Batch], epoch: int) -> Iterator[tuple[float, int]]:
        """The loss of every batch, and its number of rows."""
        self.predictor.eval()
        for batch in batches:
            with torch.no_grad():
                value = self._loss(batch, epoch)[1]
            yield value, len(batch)

    def _loss(self, batch: Batch, epoch: int) -> tuple[Tensor, float]:
        """The summed loss as tensor and as number, which is finite."""
        with self.chance.of(self.predictor), torch.autocast(**self.cast):
            parts = self.predictor.loss(batch.to(self.device))
            total = sum(parts.values())
        value = total.item()
        if not math.isfinite(value):
            values = {name: part.detach().item() for name, part in parts.items()}
            raise SqImputerError(
                f"the loss of '{self.predictor.card.name}' is not finite in epoch {epoch}: {values}. Lower Config.lr, "
                "or look for extreme values in the input."
            )
        return total, value

    def _average(self) -> None:
        """Take the weights after a step into their running mean."""
        decay = self.predictor.averaging
        if not decay:
            return
        with torch.no_grad():
            if not self.n:
                self.mean = [weight.detach().clone() for weight in self.weights]
            torch._foreach_lerp_(self.mean, self.weights, 1 - min(decay, (1 + self.n) / (10 + self.n)))
        self.n += 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The running mean in the place of the weights; those come back to be trained further."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for weight, mean in zip(self.weights, self.mean, strict=bool(self.mean)):
            weight.data, mean.data = mean.data, weight.data


def warmed(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.Optimizer:
    """The optimizer, whose rates rise evenly to what they are in so many first steps."""
    rates, taken = [group["lr"] for group in optimizer.param_groups], count(1)

    def rise(*_) -> None:
        share = min(next(taken) / steps, 1)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate

    if steps:
        optimizer.register_step_pre_hook(rise)
    return optimizer


def precision_on(precision: str, kind: str) -> str:
    """The precision asked for, or the best one of a kind of device for `"auto"`."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if kind == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
