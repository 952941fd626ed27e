from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import torch
from torch.nn import functional as F

from sq_imputer.nn.drawn import Dropout, generator
from sq_imputer.predictor.chance import Chance


def test_what_is_named_draws_what_the_mode_draws_and_outside_of_fits_torchs_own_does() -> None:
    layer, x = Dropout(0.3), torch.linspace(-1, 1, 50)

    def drawn():
        return layer(x), torch.rand(3, generator=generator()), layer(x)

    named = SimpleNamespace(draws_by_name=True)
    before = torch.get_rng_state()
    with Chance(5):
        expected = F.dropout(x, 0.3), torch.rand(3), F.dropout(x, 0.3)
    with Chance(5).of(named):
        found = drawn()
        with ThreadPoolExecutor(1) as pool:  # another thread has none
            assert pool.submit(generator).result() is None
    assert torch.equal(torch.get_rng_state(), before) and generator() is None
    assert all(map(torch.equal, found, expected))
    assert torch.equal(layer.eval()(x), x) and torch.equal(torch.get_rng_state(), before)
