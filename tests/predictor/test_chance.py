from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sq_imputer as sqi
from sq_imputer.predictor.chance import BY_HAND, Chance

ONES, HALVES = torch.ones(6), torch.full((6,), 0.5)
SEQUENCES = torch.linspace(-1, 1, 64).view(1, 2, 4, 8)
DRAWS = {
    "rand": lambda: torch.rand(6),
    "randn": lambda: torch.randn(2, 3),
    "randint": lambda: torch.randint(2, 50, (6,)),
    "randperm": lambda: torch.randperm(50),
    "rand_like": lambda: torch.rand_like(ONES, dtype=torch.float64),
    "randn_like": lambda: torch.randn_like(ONES),
    "randint_like": lambda: torch.randint_like(ONES, 3, 50),
    "normal": lambda: torch.normal(ONES, 2.0),
    "bernoulli": lambda: torch.bernoulli(torch.full((50,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(50), 6),
    "poisson": lambda: torch.poisson(9 * ONES),
    "exponential_": lambda: torch.empty(6).exponential_(),
    "a layer": lambda: nn.Linear(3, 2).weight.detach(),
    "dropout": lambda: F.dropout(torch.ones(50), 0.5),
    "alpha_dropout": lambda: F.alpha_dropout(torch.ones(50), 0.5, training=True),
    "attention": lambda: F.scaled_dot_product_attention(*[SEQUENCES] * 3, dropout_p=0.5),
    "lstm": lambda: nn.LSTM(3, 3, 2, dropout=0.5)(torch.ones(2, 1, 3))[0].detach(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_drawn_is_what_torchs_generator_gives_which_stays_as_it_was(name) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = [DRAWS[name](), DRAWS[name]()]
        torch.manual_seed(8)
        before, chance = torch.get_rng_state(), Chance(3)
        with chance:
            first = DRAWS[name]()
        with chance:
            second = DRAWS[name]()
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])
    assert not torch.equal(first, second)


def test_torch_does_not_load_its_compiler_for_it() -> None:
    assert not hasattr(Chance.__torch_dispatch__, "__wrapped__")  # as what torch keeps from its compiler is


def test_two_threads_draw_what_each_draws_alone() -> None:
    start = Barrier(2)

    def draw(seed: int) -> torch.Tensor:
        start.wait(timeout=10)
        drawn = []
        for _ in range(200):
            with Chance(seed):
                drawn.append(torch.randn(10))
        return torch.stack(drawn)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(draw, (0, 1)))
    for seed, drawn in enumerate(found):
        expected = torch.randn(10, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(drawn, expected.expand(200, 10))


def test_a_generator_that_is_named_is_taken() -> None:
    with Chance(0):
        drawn = torch.rand(4, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(7)))


def test_layers_without_numbers_are_made() -> None:
    with Chance(0), torch.device("meta"):
        assert nn.Linear(3, 2).weight.is_meta


def test_attention_without_dropout_draws_nothing() -> None:
    q = SEQUENCES
    with Chance(0):
        said = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q)[0]
    torch.testing.assert_close(said, F.scaled_dot_product_attention(q, q, q))


def test_what_takes_no_generator_is_an_error() -> None:
    q = SEQUENCES
    with Chance(0), pytest.raises(sqi.SqImputerError, match="flash_attention_for_cpu', which takes no generator"):
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, q, q, 0.5)


@pytest.mark.parametrize(("share", "train", "kept"), [(0.25, True, 0.75), (0.25, False, 1.0), (1.0, True, 0.0)])
def test_dropout_of_gpus_keeps_the_mean(share, train, kept) -> None:
    x = torch.ones(20_000)
    left, mask = BY_HAND[torch.ops.aten.native_dropout](torch.Generator().manual_seed(0), x, share, train)
    assert float(mask.float().mean()) == pytest.approx(kept, abs=0.01)
    assert float(left.mean()) == pytest.approx(float(kept > 0), abs=0.02)
    assert float(left.max()) == pytest.approx(1 / kept if kept else 0)


@pytest.mark.parametrize("name", ["mlp", "mclstexp", "stem"])
def test_models_that_name_their_generators_have_the_weights_that_the_mode_gives(name, arrays, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(30, 3)), features=rng.normal(size=(30, 8)))
    model = sqi.get_model(name)
    plan = sqi.Plan(epochs=2, batch_size=10, device="cpu", progress=False, calibration=0, seed=4)

    def fit() -> dict:
        before = torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a loss that is not below chance
            weights = model(model.Config.small()).fit(source, plan).state_dict()
        assert torch.equal(torch.get_rng_state(), before)
        return weights

    found = fit()
    monkeypatch.setattr(model, "draws_by_name", False)
    expected = fit()
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
