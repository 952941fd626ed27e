"""A small model of DNA, and toy genes named as those of a section, for tests of the verbs of the gene axis."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

import sq_imputer as sqi

SMALL = {
    **{"length": 160, "promoter": 24, "backbone": "dilated", "width": 8, "layers": (1, 4), "hidden": 16},
    **{"epochs": 2, "batch_size": 8, "validation": 0.0, "calibration": 0, "n_samples": 2},
}
PLAN = sqi.Plan(device="cpu", progress=False)


def small_config():
    """The config of the small model."""
    return sqi.get_model("seq2exp").Config(**SMALL)


def windows_of(sdata, n: int = 30, **how):
    """Toy genes with a track, named as the first genes of a section."""
    names = np.array([str(name) for name in sdata.tables["table"].var_names[:n]], dtype=object)
    return replace(sqi.datasets.toy_genes(n, **how)[0], names=names)


@cache
def small_model(n: int = 30):
    """The small model, fitted on toy genes under names of its own; shared: not to be changed."""
    return sqi.get_model("seq2exp")(small_config()).fit(sqi.datasets.toy_genes(n)[0].by_chromosome(), PLAN)
