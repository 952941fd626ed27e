"""Whether domains say more than their number and shape would by chance, and more than the image alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.device import pick_device
from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.places import grades, ranks
from sq_imputer.runs.sections import check_table, folds_of, records
from sq_imputer.runs.views import views_of
from sq_imputer.section import read
from sq_imputer.section.keys import verb
from sq_imputer.tl._clusters import Settings, cluster
from sq_imputer.tl._domain_names import params_of
from sq_imputer.tl._domains import common_columns, read_features

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame, Series
    from spatialdata import SpatialData


@verb
def agreement(
    sdata: SpatialData,
    labels: str | Series = "measured",
    *,
    sections: str | Sequence[str] | None = None,
    domain: str = "domain",
    key: str = "imputed",
    n_random: int = 100,
    seed: int = 0,
    device: str = "auto",
) -> DataFrame:
    """Compare domains with labels, beside controls that know less.

    Labels and domains are both contiguous, so that even domains drawn at random agree with labels more than shuffled
    ones do. What counts is the distance to random regions, and to domains from texture features alone.

    Parameters
    ----------
    sdata
        An object with domains; it is not changed.
    labels
        A column of `obs`, of the measured table or of `tables[key]`, or a series indexed like either; spots without
        one are left out. `"measured"`: domains of the measured expression of the same genes.
    sections
        Of a table of several sections, which: names, or the column that names them; all if left out.
    domain
        Column of `tables[key].obs` that :func:`sq_imputer.tl.domains` wrote.
    key
        Table that `tl.predict` wrote.
    n_random
        Draws of each random control.
    seed
        Of the draws.
    device
        Where the texture encoder runs, if its features are not in the table.

    Returns
    -------
    For every section a row each for the domains; for domains of the same number, made with the same settings,
    `texture alone` and, unless these are the labels, `measured`; and for `random regions` (compact, of the same number
    and sizes) and `shuffled`. Those of several sections are made together, as the domains were. Columns: section,
    predictor, ari (adjusted Rand index), nmi (normalized mutual information), ari_high and nmi_high (the 95th
    percentile of the draws of a random control), ari_folds (of domains and the folds of the prediction: every fold was
    predicted by another model, and domains that agree with them more than random regions do are made by that; of
    several partitions the one that agrees most; NaN where nothing is out of fold), n_domains, n_spots.

    Raises
    ------
    MissingKey
        If the table, the domains or the labels are missing.
    BadInput
        If fewer than two labels or domains are there to be compared.

    Examples
    --------
    >>> table = sqi.tl.agreement(sdata, "measured", n_random=10)
    """
    table = check_table(sdata, key)
    check_number("n_random", n_random, 1, whole=True)
    check_number("seed", seed, whole=True)
    pick_device(device)
    if domain not in table.obs:
        raise MissingKey(f"no '{domain}' in tables['{key}'].obs; it has {listed(table.obs)}. Call tl.domains first.")
    views = views_of(sdata, key, sections)
    objects = {name: view.sdata for name, view in views.items()}
    codes = [table.obs[domain].astype("category").cat.codes.to_numpy()[view.rows] for view in views.values()]
    n_domains = len(np.unique(np.concatenate(codes)[np.concatenate(codes) >= 0]))
    if n_domains < 2:
        raise BadInput(f"'{domain}' has {n_domains} domain; two or more can be compared with labels.")
    again = _maker(objects, table, key, domain, n_domains, device)
    by_measured = isinstance(labels, str) and labels == "measured"
    truth = again("measured") if by_measured else [_labels(o, o.tables[key], labels) for o in objects.values()]
    made = {domain: codes, "texture alone": again("texture")}
    if not by_measured and all(np.isfinite(o.tables[key].layers["measured"]).any() for o in objects.values()):
        made["measured"] = again("measured")
    rows = []
    for k, (name, one) in enumerate(objects.items()):
        found = {predictor: labels_of[k] for predictor, labels_of in made.items()}
        rows += _of_section(name, one.tables[key], domain, truth[k], found, n_random, seed)
    return _table(rows)


def _of_section(
    name: str, table: AnnData, domain: str, truth: np.ndarray, made: Mapping, n_random: int, seed: int
) -> list[dict]:
    """The rows of one section: its domains and what else was made, and random controls."""
    codes = made[domain]
    there = (truth >= 0) & (codes >= 0)
    if len(np.unique(truth[there])) < 2:
        raise BadInput(
            f"the {there.sum()} spots of section '{name}' with labels and domains have one label; two or more are "
            "needed. Pass other labels=, or sections= that have some."
        )
    folds = folds_of(table, params_of(table, domain).get("layer"))
    folds = [] if folds is None else [fold for fold in folds[there].T if len(np.unique(fold)) > 1]
    rows = [_row(predictor, truth, labels) for predictor, labels in made.items()]
    rows[0]["ari_folds"] = _with_folds(folds, codes[there])
    rows += _random(truth[there], codes[there], folds, table.obsm["spatial"][there], n_random, seed)
    return [{"section": name, **row} for row in rows]


def _maker(
    objects: Mapping[str, SpatialData], table: AnnData, key: str, domain: str, n_domains: int, device: str
) -> Callable[[str], list[np.ndarray]]:
    """A function that makes this many domains of something else, with the settings of `domain`; -1 where none."""
    params = params_of(table, domain)
    known = {field.name: params[field.name] for field in fields(Settings) if field.name in params}
    settings = Settings(**{**known, "n_domains": n_domains, "resolution": None})
    layer = params.get("layer") or next(iter(records(table)))

    def make(use: str) -> list[np.ndarray]:
        taken = [read_features(one, name, use, layer, key, device) for name, one in objects.items()]
        found, _ = cluster(common_columns(taken), [s.table.obsm["spatial"][s.rows] for s in taken], settings)
        labels = [np.full(section.table.n_obs, -1) for section in taken]
        for section, mine, numbers in zip(taken, labels, found, strict=True):
            mine[section.rows] = numbers
        return labels

    return make


def _with_folds(folds: Sequence[np.ndarray], labels: np.ndarray) -> float:
    """Highest adjusted Rand index of labels and the folds of one partition; NaN if there is none."""
    return max((_scores(fold, labels)[0] for fold in folds), default=np.nan)


def _labels(sdata: SpatialData, table: AnnData, labels: str | Series) -> np.ndarray:
    """Numbers of labels for the rows of the table; -1 where there is none."""
    import pandas as pd

    if isinstance(labels, str) and labels in table.obs:
        labels = table.obs[labels]
    elif isinstance(labels, str):
        labels = _of_measured(sdata, table, labels)
    if not isinstance(labels, pd.Series):
        raise BadInput(f"labels is a {type(labels).__name__}; expected the name of a column or a pandas Series.")
    return labels.reindex(table.obs_names).astype("category").cat.codes.to_numpy()


def _of_measured(sdata: SpatialData, table: AnnData, column: str) -> Series:
    """A column of the measured table at the rows of the result, by instance: names may repeat over sections."""
    import pandas as pd

    record = next(iter(records(table).values()))
    measured, shapes_key = sdata.tables.get(record.get("table_key", "")), record["shapes_key"]
    if measured is None or column not in measured.obs:
        there = listed(dict.fromkeys([*table.obs, *([] if measured is None else measured.obs)]), 20)
        raise MissingKey(f"no '{column}' in obs, which has {there}. Pass labels= a column, or 'measured'.")
    rows = np.flatnonzero(read.region_of_rows(measured, record["table_key"]) == shapes_key)
    ids = read.instances_of(measured, rows, record["table_key"])
    values = pd.Series(measured.obs[column].iloc[rows].array, index=ids)
    return values.reindex(table.obs["instance_id"]).set_axis(table.obs_names)


def _row(name: str, truth: np.ndarray, labels: np.ndarray) -> dict:
    there = (truth >= 0) & (labels >= 0)
    ari, nmi = _scores(truth[there], labels[there])
    found = {"n_domains": len(np.unique(labels[there])), "n_spots": int(there.sum())}
    return {"predictor": name, "ari": ari, "nmi": nmi, **found}


def _scores(truth: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return float(adjusted_rand_score(truth, labels)), float(normalized_mutual_info_score(truth, labels))


def _random(truth, labels: np.ndarray, folds, xy: np.ndarray, n_random: int, seed: int) -> list[dict]:
    """Rows of the random controls: means, and 95th percentiles, of draws of the sizes of the domains."""
    rng = np.random.default_rng(seed)
    sizes = np.unique(labels, return_counts=True)[1]
    made = {
        "random regions": lambda: random_regions(xy, sizes, rng),
        "shuffled": lambda: rng.permutation(labels),
    }
    rows = []
    for name, draw in made.items():
        drawn = [draw() for _ in range(n_random)]
        scores = np.array([_scores(truth, one) for one in drawn])
        (ari, nmi), high = scores.mean(axis=0), np.percentile(scores, 95, axis=0)
        found = {"ari_high": high[0], "nmi_high": high[1], "n_domains": len(sizes), "n_spots": len(truth)}
        found["ari_folds"] = np.mean([_with_folds(folds, one) for one in drawn])
        rows.append({"predictor": name, "ari": ari, "nmi": nmi, **found})
    return rows


def random_regions(xy: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels `(n,)` of compact regions of these sizes at random places: each is what is nearest to a free spot.

    Parameters
    ----------
    xy
        `(n, 2)` places.
    sizes
        Sizes of the regions; they sum to `n`. Their order is drawn.
    rng
        Draws.
    """
    labels = np.full(len(xy), -1)
    for name, size in enumerate(rng.permutation(sizes)):
        free = np.flatnonzero(labels < 0)
        far = np.linalg.norm(xy[free] - xy[rng.choice(free)], axis=1)
        labels[free[np.lexsort((*grades(xy[free]).T, ranks(far)))[:size]]] = name
    return labels


def _table(rows: list[dict]) -> DataFrame:
    import pandas as pd

    columns = ["section", "predictor", "ari", "nmi", "ari_high", "nmi_high", "ari_folds", "n_domains", "n_spots"]
    return pd.DataFrame(rows, columns=columns)
