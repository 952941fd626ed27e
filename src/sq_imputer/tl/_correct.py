"""Correct a prediction by the spots that were measured, section by section, and write it as a layer of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.genes.units import OF_LIBRARY
from sq_imputer.progress import track
from sq_imputer.runs import joined
from sq_imputer.runs.sections import check_table, records
from sq_imputer.runs.slots import FOLDS, check_layer_name
from sq_imputer.runs.views import unseen, views_of
from sq_imputer.section.keys import verb
from sq_imputer.store import write
from sq_imputer.tl._domains import find_layer, matrix
from sq_imputer.tl._kriging import corrected

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

LEAST_SPOTS = 20  # measured ones, by which others are corrected
AXES = 12  # principal components of features that stand beside the place


@verb
def correct(
    sdata: SpatialData,
    layer: str | None = None,
    *,
    sections: str | Sequence[str] | None = None,
    components: int | None = 20,
    features: str | Sequence[str] | None = None,
    key: str = "imputed",
    layer_added: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> None:
    """Correct a prediction by what was measured around: regression kriging, section by section.

    Measured spots tell first by how much the prediction of each gene, out of fold, goes with what was measured: one
    that says nothing here, of another patient for example, is left behind. What it is off by often has a pattern on the
    tissue, which a Gaussian process carries to the other spots. The noise of counting is known (Poisson) and told apart
    from it; where neither says anything, the prediction stays as it is.

    At a measured spot the layer has the correction by all *other* measured spots, so that
    :func:`sq_imputer.tl.score` of it says how good a correction is with neighbors as near as these, and a measured spot
    is never a fit to itself.

    Parameters
    ----------
    sdata
        An object with a prediction; `tables[key]` gets the layers, in the store as well if the object is backed.
    layer
        The model; the one whose prediction was written last if left out.
    sections
        Of a table of several sections, which are corrected: names, or the column that names them. The others keep the
        prediction. All if left out.
    components
        How many leading components of the residuals are carried over, each with parameters of its own; None: every gene
        by itself, which takes longer.
    features
        Names of features in `obsm`, such as `["X_texture", "X_texture_400um"]`: what a prediction is off by is then
        carried to spots that are near, and to those that look alike by the twelve leading components of these. It is
        worth most where the model is off everywhere, and asks for some fifty measured spots. Places alone if left out.
    key
        Table that `tl.predict` wrote.
    layer_added
        Name of the corrected layer; `<layer>_corrected` if left out.
    overwrite
        Replace a layer of this name.
    seed
        Of rows and points that are drawn where there are many.

    Raises
    ------
    MissingKey
        If the table, the layer, or the features are missing.
    BadInput
        If fewer than 20 spots of a section are measured, the prediction is not of expression in a unit of ours, or the
        name is taken.

    Notes
    -----
    Written are `layers["<layer_added>"]`; `layers["<layer_added>_std"]`, the standard deviation of a new measurement:
    that of the process, and what of the errors is left where spots are corrected by others, which varies from row to
    row as the model's own does; `obs["<layer_added>_informed"]`, which spots the correction was made of;
    `var["<layer_added>_slope"]`, from 0 to 1 (it is kept as it is), by how much the prediction of a gene is believed;
    `var["<layer_added>_share"]`, from 0 (nothing is carried over) to 1, by how much the pattern is; and the provenance
    of the model with the settings under `corrected`.

    Residuals are those of models that have not seen the spot: other blocks beyond the buffer, or other sections, as
    `tl.predict` wrote them. Where a section is predicted in blocks of its own, a spot that was not measured has the
    prediction of a model fitted on all that were, whose errors are smaller than these.

    Regression kriging: Hengl et al., Geoderma 120, 2004. Exact below 2,000 measured spots, on 400 inducing points
    above, both by scikit-learn.

    Examples
    --------
    >>> sqi.tl.correct(sdata, "ridge")
    >>> sdata.tables["imputed"].layers["ridge_corrected"].shape == sdata.tables["imputed"].shape
    True
    """
    table = check_table(sdata, key)
    layer = find_layer(table, key, layer)
    added = layer_added or f"{layer}_corrected"
    check_number("seed", seed, 0, 2**32 - 1, whole=True)
    if components is not None:
        check_number("components", components, 1, whole=True)
    features = [features] if isinstance(features, str) else list(features or ())
    _check(table, key, layer, added, features, overwrite)
    views = views_of(sdata, key, sections)
    found = _Filled.of(table, layer)
    given = {name: _Known(view.sdata.tables[key], name, layer, features) for name, view in views.items()}
    for name, view in track(views.items(), "kriging", len(views)):
        found.put(view.rows, given[name], components, seed)
    settings = {"of": layer, "components": components, "features": features, "seed": seed, "sections": list(views)}
    settings["n_informed"] = {name: len(one.rows) for name, one in given.items()}
    _write(sdata, key, layer, added, found, settings)


def _check(table: AnnData, key: str, layer: str, added: str, features: list[str], overwrite: bool) -> None:
    record = records(table)[layer]
    check_layer_name(added, [name for name in records(table) if name != added])
    if added == layer or (added in table.layers and not overwrite):
        hint = "another layer_added=" if added == layer else "overwrite=True, or another layer_added="
        raise BadInput(f"tables['{key}'] has a layer '{added}' already. Pass {hint}.")
    if record.get("corrected"):
        raise BadInput(f"'{layer}' is corrected already. Pass layer='{record['corrected']['of']}'.")
    unit = record.get("layer_unit", record["unit"])
    if record.get("target") or unit != record["unit"] or unit not in OF_LIBRARY:
        raise BadInput(
            f"'{layer}' predicts in unit '{unit}', and what was measured is in '{record['unit']}': residuals need both "
            f"to be expression in one of {listed(OF_LIBRARY)}. Correct another layer=."
        )
    if "spatial" not in table.obsm:
        raise MissingKey(f"no obsm['spatial'] in tables['{key}']; call tl.predict again to restore it.")
    for name in features:
        if name not in table.obsm:
            raise MissingKey(f"no features '{name}' in tables['{key}'].obsm; it has {listed(table.obsm)}.")


class _Known:
    """What is known of one section: measured rows that were predicted by models that have not seen them."""

    def __init__(self, table: AnnData, name: str, layer: str, features: list[str]) -> None:
        self.name, self.record = name, records(table)[layer]
        self.said = matrix(table.layers[layer]).astype(float)
        self.std = matrix(table.layers[f"{layer}_std"]).astype(float) if f"{layer}_std" in table.layers else None
        self.measured = matrix(table.layers["measured"]).astype(float)
        self.columns = np.isfinite(self.measured).any(axis=0)
        self.depth = table.obs["total_counts"].to_numpy(dtype=float)
        known = np.isfinite(self.measured[:, self.columns]).all(axis=1) & (self.depth > 0) & self.columns.any()
        known &= np.isfinite(self.said).all(axis=1)
        self.rows = unseen(table, name, layer, known, LEAST_SPOTS, "to correct others by")
        self.places = np.asarray(table.obsm["spatial"], dtype=float)
        if features:
            self.places = np.column_stack([self.places, leading([np.asarray(table.obsm[name]) for name in features])])


def leading(features: Sequence[np.ndarray]) -> np.ndarray:
    """Leading components of some features side by side, the first with a standard deviation of 1."""
    from sklearn.decomposition import PCA

    features = np.column_stack(features).astype(float)
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0))[:, spread > 1e-9] / spread[spread > 1e-9]
    axes = PCA(min(AXES, *scaled.shape), svd_solver="full").fit_transform(scaled)
    return axes / axes[:, 0].std()


@dataclass
class _Filled:
    """The corrected table, filled section by section; rows of others keep the prediction."""

    mean: np.ndarray
    std: np.ndarray
    informed: np.ndarray
    believed: dict[str, list[np.ndarray]]  # by section and gene

    @classmethod
    def of(cls, table: AnnData, layer: str) -> _Filled:
        mean = matrix(table.layers[layer]).astype(np.float32)
        std = matrix(table.layers[f"{layer}_std"]) if f"{layer}_std" in table.layers else np.full(mean.shape, np.nan)
        return cls(mean, std.astype(np.float32), np.zeros(table.n_obs, dtype=bool), {"share": [], "slope": []})

    def put(self, rows: np.ndarray, known: _Known, components: int | None, seed: int) -> None:
        """Correct the rows of one section; genes that were not measured there keep the prediction."""
        genes, spots = known.columns, known.rows
        others = np.setdiff1d(np.arange(len(rows)), spots)
        measured, said = known.measured[spots][:, genes], known.said[:, genes]
        given = said[spots], said[others], known.places[spots], known.places[others], known.depth[spots]
        field = corrected(measured, *given, unit=known.record["unit"], components=components, seed=seed)
        mean, var = np.empty_like(said), np.empty_like(said)
        mean[spots], mean[others], var[spots], var[others] = field.left_mean, field.mean, field.left_var, field.var
        shape = np.ones_like(var)
        if known.std is not None:
            shape = known.std[:, genes] ** 2
            shape = shape / np.maximum(shape[spots].mean(axis=0), 1e-12)
        at = np.ix_(rows, genes)
        self.mean[at] = mean
        self.std[at] = np.sqrt(var + field.rest * shape)
        self.informed[rows[spots]] = True
        for name, values in self.believed.items():
            values.append(np.full(len(genes), np.nan))
            values[-1][genes] = getattr(field, name)


def _write(sdata: SpatialData, key: str, layer: str, added: str, found: _Filled, settings: dict) -> None:
    """The layer, beside what makes it a prediction like others: provenance, folds, and the record of every row."""
    import pandas as pd

    table = sdata.tables[key]
    record = {**records(table)[layer], "corrected": settings}
    obs = pd.DataFrame({f"{added}_informed": found.informed}, index=table.obs_names)
    for ending in ("_fold", "_ood"):
        if f"{layer}{ending}" in table.obs:
            obs[f"{added}{ending}"] = table.obs[f"{layer}{ending}"]
    if f"{layer}{joined.RECORD}" in table.obs:
        obs[f"{added}{joined.RECORD}"] = _told(table.obs[f"{layer}{joined.RECORD}"], settings)
    by_section = {f"{added}_{name}": pd.DataFrame(values).mean().to_numpy() for name, values in found.believed.items()}
    var = pd.DataFrame(by_section, index=table.var_names)
    layers = {added: found.mean, f"{added}_std": found.std}
    obsm = {f"{added}{FOLDS}": table.obsm[f"{layer}{FOLDS}"]} if f"{layer}{FOLDS}" in table.obsm else {}
    write.put_layers(sdata, key, layers, obs=obs, var=var, obsm=obsm, uns={"sq_imputer": {added: record}}, x=added)


def _told(column, settings: dict):
    """The provenance of every row as text, with that of the correction."""
    import json

    from sq_imputer.store.provenance import plain, pythonic

    more = {"corrected": pythonic(plain(settings))}
    column = column.astype("category")
    return column.cat.rename_categories([json.dumps({**json.loads(text), **more}) for text in column.cat.categories])
