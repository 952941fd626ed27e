"""Say where a prediction can be believed: which genes, which spots and sections, and how far off a value may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.runs import reliability
from sq_imputer.runs.reliability import LEAST_SPOTS
from sq_imputer.runs.sections import check_table, records
from sq_imputer.runs.views import View, unseen, views_of
from sq_imputer.scores import chance
from sq_imputer.scores.reliable import genes_beyond_chance
from sq_imputer.section.keys import verb
from sq_imputer.store import write
from sq_imputer.tl._domains import find_layer, matrix
from sq_imputer.tl._marks import Intervals, intervals, spots

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData


@verb
def trust(
    sdata: SpatialData,
    layer: str | None = None,
    *,
    sections: str | Sequence[str] | None = None,
    fdr: float = 0.05,
    level: float | None = 0.9,
    n_null: int = 200,
    key: str = "imputed",
    seed: int = 0,
) -> DataFrame:
    """Say where a prediction can be believed: which genes, which spots and sections, and how far off values may be.

    **Genes**: those predicted beyond what patterns have in common by chance. Every gene's skill at measured spots,
    Pearson given depth of a model that has not seen them, is compared with that after what was measured is displaced
    over the section as a torus, which keeps its pattern. False discovery rates are over all genes (Benjamini and
    Hochberg). The interval of the skill is over spatial blocks, drawn with replacement. Where nothing is measured, the
    answer is that of the model's training sections, if it was fitted with `tl.fit(..., trust=True)`.

    **Spots**: those that look like the training tissue. `obs["<layer>_ood"]`, which `tl.predict` wrote, is the share of
    left-out training spots that are nearer to the others than this one; beyond .99 a spot is not to be trusted. A
    section of which a fifth lies beyond .95, where one in twenty is usual, is another tissue, stain or scanner: a
    warning says so, and what differs most. A section that is predicted in blocks of its own is not asked.

    **Values**: intervals that hold a share `level` of what is measured, by the errors at measured spots, over the
    model's standard deviation where it has one (split conformal). Individuals, else sections, else blocks are left out
    as a whole, so that no spot is judged by errors at its own place.

    Parameters
    ----------
    sdata
        An object with a prediction, of which `tables[key]` gets the marks.
    layer
        The model; the one whose prediction was written last if left out.
    sections
        Of a table of several sections, which are looked at: names, or the column that names them; all if left out. The
        skill is the mean over them.
    fdr
        False discovery rate up to which a gene is reliable; between 0 and 1.
    level
        Share of measurements that intervals are to hold, between 0 and 1; None: no intervals.
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
    cannot be displaced. The p and ceiling of an answer that the model carries are NaN.

    Raises
    ------
    MissingKey
        If the table or the layer is missing.
    BadInput
        If a section has some measured spots, but fewer than 30 that are predicted by a model that has not seen them; if
        nothing is measured and the model carries nothing; if the prediction is not of genes, or numbers are out of
        range.

    Notes
    -----
    Written are `var["<layer>_skill"]`, `_skill_low`, `_skill_high`, `_fdr`, `_reliable`, `_reason`, and `_coverage`,
    the share of what is measured that the intervals hold; `obs["<layer>_reliable"]` and `_reason`;
    `layers["<layer>_lower"]` and `_upper`; and `uns["sq_imputer"]["<layer>"]["trust"]`, by what intervals were
    calibrated and what was found of every section. :func:`sq_imputer.pl.trust` and :func:`sq_imputer.pl.uncertainty`
    show it.

    A gene that is reliable is one whose map says something, not one whose map is right: how right, its skill says. It
    holds for tissue like that of these sections. Intervals hold their share if new spots are to the model as these
    were: they are not where the patient, the stain or the depth of sequencing is another (`docs/concepts/trust.md`).

    Examples
    --------
    >>> genes = sqi.tl.trust(sdata, "ridge", n_null=50)
    >>> low, high = (sdata.tables["imputed"].layers[f"ridge_{end}"] for end in ("lower", "upper"))
    """
    table = check_table(sdata, key)
    layer = find_layer(table, key, layer)
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    check_number("n_null", n_null, chance.LEAST_DRAWS, whole=True)
    for name, share in {"fdr": fdr, "level": 0.9 if level is None else level}.items():
        check_number(name, share)
        if not 0 < share < 1:
            raise BadInput(f"{name} is {share}; expected a share between 0 and 1.")
    record = records(table)[layer]
    if record.get("target"):
        where = record["target"]["where"]
        raise BadInput(f"'{layer}' predicts '{where}', which tl.score scores. Pass layer= of target 'genes'.")
    views = views_of(sdata, key, sections)
    known = _rows_known(views, key, layer)
    if not known and not record.get(reliability.KEY):
        raise BadInput(
            f"nothing is measured in tables['{key}'], and '{layer}' carries no answer of its training sections. Three "
            "ways out: fit it with tl.fit(..., trust=True) and predict again; predict sections that were measured; or "
            "read obs['<layer>_ood'], which needs no measurement."
        )
    found = _genes(table, views, known, key, layer, fdr, n_null, seed)
    marks, told = spots(table, key, layer, views)
    bounds = None if level is None else intervals(table, layer, views, known, level)
    _write(sdata, key, layer, found, marks, told, bounds, level)
    return found


def _rows_known(views: Mapping[str, View], key: str, layer: str) -> dict[str, np.ndarray]:
    """Measured rows that the model has not seen, numbered in the view of their section; of sections that have some."""
    known = {}
    for name, view in views.items():
        table = view.sdata.tables[key]
        y, p = (matrix(table.layers[one]) for one in ("measured", layer))
        rows = np.isfinite(y).any(axis=1) & np.isfinite(p).all(axis=1)
        rows &= table.obs["total_counts"].to_numpy(dtype=float) > 0
        if rows.any():
            known[name] = unseen(table, name, layer, rows, LEAST_SPOTS, "to tell skill from chance")
    return known


def _genes(table, views, known, key: str, layer: str, fdr: float, n_null: int, seed: int) -> DataFrame:
    """What is known of every gene, by these sections, else by what the model carries."""
    ceiling = table.var["ceiling"].to_numpy(dtype=float) if "ceiling" in table.var else np.full(table.n_vars, np.nan)
    if known:
        parts = [_values(views[name].sdata.tables[key], layer, rows) for name, rows in known.items()]
        return genes_beyond_chance(parts, table.var_names, ceiling, fdr=fdr, n_null=n_null, seed=seed)
    import pandas as pd

    kept = reliability.of(records(table)[layer], table.var_names)  # which may be cut to some genes
    found = pd.DataFrame({"gene": table.var_names, **{name: kept[name] for name in reliability.NUMBERS}})
    found.insert(4, "p", np.nan)
    found["ceiling"], found["reason"] = np.nan, kept["reason"]
    found.insert(7, "reliable", found["fdr"].to_numpy() <= fdr)
    return found


def _values(table: AnnData, layer: str, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Measured, predicted, depth and places of some rows."""
    y, p = (matrix(table.layers[one]).astype(float)[rows] for one in ("measured", layer))
    depth = table.obs["total_counts"].to_numpy(dtype=float)[rows]
    return y, p, depth, np.asarray(table.obsm["spatial"], dtype=float)[rows]


def _write(sdata, key: str, layer: str, found: DataFrame, marks, told, bounds: Intervals | None, level) -> None:
    import pandas as pd

    table = sdata.tables[key]
    var = found[list(reliability.SLOTS)].rename(columns={n: f"{layer}_{slot}" for n, slot in reliability.SLOTS.items()})
    var, obs = var.set_axis(table.var_names), pd.DataFrame(marks, index=table.obs_names)
    layers, kept = {}, {}
    if bounds is not None:
        layers = {f"{layer}_lower": bounds.lower, f"{layer}_upper": bounds.upper}
        var[f"{layer}_coverage"] = bounds.held
        kept = {"level": level, "calibrated_by": bounds.by}
        told = [{**one, "coverage": bounds.of_sections.get(one["section"])} for one in told]
    kept["sections"] = {str(number): one for number, one in enumerate(told)}
    record = {**records(table)[layer], "trust": kept}
    write.put_layers(sdata, key, layers, obs=obs, var=var, uns={"sq_imputer": {layer: record}})
