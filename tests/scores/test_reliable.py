"""Why a gene is believed or not."""

from __future__ import annotations

import numpy as np

from sq_imputer.scores.reliable import genes_beyond_chance


def test_every_gene_has_its_reason() -> None:
    rng = np.random.default_rng(0)
    xy = np.stack(np.divmod(np.arange(144), 12), axis=1) * 100.0
    p = rng.normal(size=(144, 4))
    y = np.column_stack([p[:, 0] + 0.3 * rng.normal(size=144), rng.normal(size=(144, 2)), np.ones(144)])
    depth = rng.uniform(1000, 2000, 144)
    ceiling = np.array([0.9, 0.9, 0.1, np.nan])
    found = genes_beyond_chance([(y, p, depth, xy)], list("abcd"), ceiling, fdr=0.05, n_null=40, seed=0)
    assert found["reason"].tolist() == [
        "predicted beyond chance",
        "not beyond chance",
        "hidden by counting noise",
        "cannot be tested",
    ]
    assert found["reliable"].tolist() == [True, False, False, False] and found["skill"][0] > 0.9
    two = genes_beyond_chance([(y, p, depth, xy)] * 2, list("abcd"), ceiling, fdr=0.05, n_null=40, seed=0)
    np.testing.assert_allclose(two["skill"], found["skill"])
