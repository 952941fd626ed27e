from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import sq_imputer as sqi
from sq_imputer.predictor.steps import Steps


class Slope(nn.Module):
    """One weight, pulled towards the targets of a batch; dropout, if asked for."""

    card = SimpleNamespace(name="slope")
    averaging = 0.0
    draws_by_name = False

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.ones(4)), nn.Dropout(dropout)
        self.register_buffer("expression_mean", torch.zeros(1))
        self.seen = []

    def optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def loss(self, batch: sqi.Batch) -> dict[str, torch.Tensor]:
        said = self.drop(self.weight)
        product = said[:, None] @ said[None]
        self.seen.append((self.training, product.dtype, torch.is_grad_enabled()))
        return {"mse": (said - batch.expression.mean()).pow(2).sum() / 2, "none": 0 * product.sum().float()}


def batch(value: float, rows: int = 3) -> sqi.Batch:
    return sqi.Batch(torch.arange(rows), expression=torch.full((rows, 1), value))


def test_a_step_goes_down_the_gradient_and_tells_loss_and_rows() -> None:
    model = Slope()
    assert list(Steps(model, 0, "32-true", 0.0).train([batch(3.0), batch(3.0, 2)], 0)) == [(8.0, 3), (2.0, 2)]
    torch.testing.assert_close(model.weight.detach(), torch.full((4,), 2.5))


def test_validation_changes_nothing_and_takes_no_gradient() -> None:
    model = Slope()
    steps = Steps(model, 0, "32-true", 1.0)
    assert list(steps.validate([batch(3.0)], 0)) == [(8.0, 3)] and model.seen == [(False, torch.float32, False)]
    assert torch.equal(model.weight.detach(), torch.ones(4)) and model.weight.grad is None


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16), ("auto", torch.float32)],
)
def test_steps_compute_in_the_precision_asked_for_and_weights_stay_wide(precision, kind) -> None:
    model = Slope()
    steps = Steps(model, 0, precision, 0.0)
    list(steps.train([batch(3.0)], 0))
    assert model.seen == [(True, kind, True)] and model.weight.dtype == torch.float32
    torch.testing.assert_close(model.weight.detach(), torch.full((4,), 2.0))  # scaled losses are scaled back


def test_dropout_is_decided_by_the_seed_alone() -> None:
    def trained(seed: int) -> torch.Tensor:
        model = Slope(dropout=0.5)
        list(Steps(model, seed, "32-true", 0.0).train([batch(3.0)] * 8, 0))
        return model.weight.detach()

    before = torch.get_rng_state()
    first = trained(1)
    torch.rand(5)
    assert torch.equal(first, trained(1)) and not torch.equal(first, trained(2))
    torch.set_rng_state(before)


def test_the_mean_stands_in_for_the_weights_and_gives_them_back() -> None:
    model = Slope()
    model.averaging = 0.9
    steps = Steps(model, 0, "32-true", 0.0)
    list(steps.train([batch(3.0), batch(3.0)], 0))
    with steps.averaged():
        torch.testing.assert_close(model.weight.detach(), torch.full((4,), 2.0 + 9 / 11 * 0.5))
    torch.testing.assert_close(model.weight.detach(), torch.full((4,), 2.5))


def test_a_loss_that_is_not_finite_names_its_parts() -> None:
    with pytest.raises(sqi.SqImputerError, match=r"of 'slope' is not finite in epoch 4: \{'mse': inf, 'none': 0.0\}"):
        list(Steps(Slope(), 0, "32-true", 0.0).train([batch(float("inf"))], 4))
