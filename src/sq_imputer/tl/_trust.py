"""Say of every gene whether it is predicted beyond chance, and keep it beside the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.progress import track
from sq_imputer.runs.sections import check_table, records
from sq_imputer.runs.views import unseen, views_of
from sq_imputer.scores import chance
from sq_imputer.scores.metrics import pearson_given
from sq_imputer.scores.smoothness import sampled
from sq_imputer.section.keys import verb
from sq_imputer.store import write
from sq_imputer.tl._domains import find_layer, matrix

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

LEAST_SPOTS = 30
LOW_CEILING = 0.3  # below, counting noise hides a gene whatever predicts it
LEVEL = 0.95


@verb
def trust(
    sdata: SpatialData,
    layer: str | None = None,
    *,
    sections: str | Sequence[str] | None = None,
    fdr: float = 0.05,
    n_null: int = 200,
    key: str = "imputed",
    seed: int = 0,
) -> DataFrame:
    """Say which genes of a prediction can be believed: those predicted beyond what patterns have in common by chance.

    Every gene's skill at measured spots, Pearson given depth of a model that has not seen them, is compared with that
    after what was measured is displaced over the section as a torus, which keeps its pattern. False discovery rates are
    over all genes (Benjamini and Hochberg). The interval is over spatial blocks, drawn with replacement.

    Parameters
    ----------
    sdata
        An object with a prediction at measured spots; `tables[key].var` gets `<layer>_skill`, `<layer>_skill_low`,
        `<layer>_skill_high`, `<layer>_fdr`, `<layer>_reliable`, and `<layer>_reason`.
    layer
        The model; the one whose prediction was written last if left out.
    sections
        Of a table of several sections, which are looked at: names, or the column that names them; all if left out. The
        skill is the mean over them.
    fdr
        False discovery rate up to which a gene is reliable; between 0 and 1.
    n_null
        Displacements, and draws of blocks; 20 or more.
    key
        Table that `tl.predict` wrote.
    seed
        Of displacements and draws.

    Returns
    -------
    A row per gene: gene, skill, low, high (of the interval of 95 %), p, fdr, ceiling (as :func:`sq_imputer.tl.score`
    kept it, else NaN), reliable, and reason: `"predicted beyond chance"`; `"hidden by counting noise"`, not predicted,
    with a ceiling below .3; `"not beyond chance"`; `"cannot be tested"`, a gene that does not vary, or a section that
    cannot be displaced.

    Raises
    ------
    MissingKey
        If the table or the layer is missing.
    BadInput
        If a section has fewer than 30 spots that are measured and predicted by a model that has not seen them, the
        prediction is not of genes, or numbers are out of range.

    Notes
    -----
    A gene that is reliable is one whose map says something, not one whose map is right: how right, its skill says. It
    holds for tissue like that of these sections.

    Examples
    --------
    >>> genes = sqi.tl.trust(sdata, "ridge", n_null=50)
    """
    import pandas as pd

    table = check_table(sdata, key)
    layer = find_layer(table, key, layer)
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    check_number("n_null", n_null, chance.LEAST_DRAWS, whole=True)
    check_number("fdr", fdr)
    if not 0 < fdr < 1:
        raise BadInput(f"fdr is {fdr}; expected a rate between 0 and 1, such as 0.05.")
    if records(table)[layer].get("target"):
        raise BadInput(f"'{layer}' predicts another target than genes, which tl.score scores. Pass layer= of genes.")
    views = views_of(sdata, key, sections)
    known = {name: _known(view.sdata.tables[key], name, layer, seed) for name, view in views.items()}
    parts = [_looked_at(*one, n_null, seed + k) for k, one in enumerate(track(known.values(), "chance", len(known)))]
    skill, null, drawn = (_mean([part[i] for part in parts]) for i in range(3))
    found = pd.DataFrame({"gene": table.var_names, "skill": skill})
    edges = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    found["low"], found["high"] = np.quantile(drawn, edges, axis=0)
    found["p"] = chance.p_values(skill, null)
    found["fdr"] = chance.corrected(found["p"].to_numpy())
    found["ceiling"] = table.var["ceiling"].to_numpy(dtype=float) if "ceiling" in table.var else np.nan
    found["reliable"] = found["fdr"].to_numpy() <= fdr
    found["reason"] = _reasons(found)
    named = {"skill": "skill", "low": "skill_low", "high": "skill_high"}
    var = found.set_index("gene")[["skill", "low", "high", "fdr", "reliable", "reason"]]
    var = var.rename(columns=lambda name: f"{layer}_{named.get(name, name)}").set_axis(table.var_names)
    write.put_layers(sdata, key, {}, var=var)
    return found


def _known(table: AnnData, name: str, layer: str, seed: int) -> tuple[np.ndarray, ...]:
    """Measured, predicted, depth and places of the rows of a section that count; of very many a sample."""
    y, p = (matrix(table.layers[one]).astype(float) for one in ("measured", layer))
    depth = table.obs["total_counts"].to_numpy(dtype=float)
    rows = np.isfinite(y).any(axis=1) & np.isfinite(p).all(axis=1) & (depth > 0)
    rows = unseen(table, name, layer, rows, LEAST_SPOTS, "to tell skill from chance")
    rows = rows[sampled(len(rows), seed)]
    return y[rows], p[rows], depth[rows], np.asarray(table.obsm["spatial"], dtype=float)[rows]


def _looked_at(y, p, depth, xy, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skill `(G,)` of a section, the same displaced, and of drawn blocks, both `(n, G)`."""
    null = chance.displaced_skill(y, p, depth, xy, n=n, seed=seed)
    return pearson_given(y, p, depth), null, chance.drawn_skill(y, p, depth, xy, n=n, seed=seed)


def _mean(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over sections; of a gene that one cannot tell, over the others."""
    known = np.sum([np.isfinite(part) for part in parts], axis=0)
    return np.where(known > 0, np.nansum(parts, axis=0) / np.maximum(known, 1), np.nan)


def _reasons(found: DataFrame) -> np.ndarray:
    hidden = (found["ceiling"] < LOW_CEILING).to_numpy()
    untold = np.where(hidden, "hidden by counting noise", "not beyond chance")
    untold = np.where(found["p"].isna(), "cannot be tested", untold)
    return np.where(found["reliable"], "predicted beyond chance", untold).astype(object)
