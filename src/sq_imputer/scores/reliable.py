"""Which genes of a prediction can be believed, of measured and predicted values of one section or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.progress import track
from sq_imputer.scores import chance
from sq_imputer.scores.metrics import pearson_given
from sq_imputer.scores.smoothness import sampled

if TYPE_CHECKING:
    from pandas import DataFrame

    Known = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

LOW_CEILING = 0.3  # below, counting noise hides a gene whatever predicts it
LEVEL = 0.95
BEYOND, HIDDEN, CHANCE, UNTESTED = (
    *("predicted beyond chance", "hidden by counting noise", "not beyond chance", "cannot be tested"),
)


def genes_beyond_chance(
    known: Sequence[Known], genes: Sequence[str], ceiling: np.ndarray, *, fdr: float, n_null: int, seed: int
) -> DataFrame:
    """A row per gene: gene, skill, low, high, p, fdr, ceiling, reliable, reason.

    Parameters
    ----------
    known
        Of every section measured `(n, G)`, predicted by models that have not seen the row `(n, G)`, depth `(n,)` and
        places in µm `(n, 2)`; of very many rows a sample is taken.
    genes, ceiling
        Names `(G,)`, and the highest Pearson that counting noise allows `(G,)`, NaN where it is not known.
    fdr
        False discovery rate up to which a gene is reliable.
    n_null, seed
        Displacements and draws of blocks, and their seed.
    """
    import pandas as pd

    some = [tuple(one[sampled(len(part[0]), seed)] for one in part) for part in known]
    parts = [_looked_at(*one, n_null, seed + k) for k, one in enumerate(track(some, "chance", len(some)))]
    skill, null, drawn = (_mean([part[i] for part in parts]) for i in range(3))
    found = pd.DataFrame({"gene": list(genes), "skill": skill})
    found["low"], found["high"] = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    found["p"] = chance.p_values(skill, null)
    found["fdr"] = chance.corrected(found["p"].to_numpy())
    found["ceiling"] = ceiling
    found["reliable"] = found["fdr"].to_numpy() <= fdr
    found["reason"] = _reasons(found)
    return found


def _looked_at(y, p, depth, xy, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skill `(G,)` of a section, the same displaced, and of drawn blocks, both `(n, G)`."""
    null = chance.displaced_skill(y, p, depth, xy, n=n, seed=seed)
    return pearson_given(y, p, depth), null, chance.drawn_skill(y, p, depth, xy, n=n, seed=seed)


def _mean(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over sections; of a gene that one cannot tell, over the others."""
    known = np.sum([np.isfinite(part) for part in parts], axis=0)
    return np.where(known > 0, np.nansum(parts, axis=0) / np.maximum(known, 1), np.nan)


def _reasons(found: DataFrame) -> np.ndarray:
    untold = np.where((found["ceiling"] < LOW_CEILING).to_numpy(), HIDDEN, CHANCE)
    untold = np.where(found["p"].isna(), UNTESTED, untold)
    return np.where(found["reliable"], BEYOND, untold).astype(object)
