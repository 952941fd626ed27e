"""The task of expression: a ridge on features, which ranks encoders, beside what knows nothing of the image.

`ridge-pca256` is the probe of HEST-bench (Jaume et al. 2024, arXiv:2406.16192), `ridge-pca128` that of HESCAPE:
features are standardized and brought to so many principal components of the training rows; the penalty is 100 /
(components x genes), without intercept. `ridge-raw` is the same without components, and punishes wide features more:
the three rank encoders differently, so that every table names its probe. `ridge-cv` is ours: with intercept, its
penalty chosen on the training sections, leaving one out where there are several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._contrast import Tuned
from sq_imputer.bench._pairs import Pairs
from sq_imputer.errors import BadInput, listed
from sq_imputer.scores import metrics
from sq_imputer.scores import tables as scoring
from sq_imputer.section.keys import verb
from sq_imputer.section.nearby import COORDINATES, near

if TYPE_CHECKING:
    from pandas import DataFrame

PROBES = ("ridge-pca256", "ridge-pca128", "ridge-raw", "ridge-cv")
PENALTIES = 10.0 ** np.arange(-1, 7)


@verb
def expression_probe(
    train: Pairs,
    test: Pairs,
    *,
    probe: str = "ridge-pca256",
    tuned: Tuned | None = None,
    baselines: bool = True,
    seed: int = 0,
) -> DataFrame:
    """Predict expression from features by a linear probe, and score it on other sections.

    Parameters
    ----------
    train, test
        Pairs of sections that are apart.
    probe
        `"ridge-pca256"`, `"ridge-pca128"`, `"ridge-raw"` or `"ridge-cv"`.
    tuned
        Score what the tuned encoder says of the crops as well, as predictor `"tuned"`, beside `"untuned"`.
    baselines
        The mean, depth alone, and coordinates alone.
    seed
        Of the components.

    Returns
    -------
    A row per section, predictor and gene, as :func:`sq_imputer.scores.score_table`, with the columns `probe`,
    `components` (features that the ridge sees) and `penalty`.

    Raises
    ------
    BadInput
        If the probe is not known, or a section is on both sides.

    Examples
    --------
    >>> last = pairs.section == pairs.section[-1]
    >>> table = sqi.bench.expression_probe(pairs[~last], pairs[last])
    """
    features = {"untuned": (train.image, test.image)}
    if tuned is not None:
        features["tuned"] = tuned.features(train), tuned.features(test)
    return probed(features, train, test, probe, baselines=baselines, seed=seed)


def probed(
    features: Mapping[str, tuple[np.ndarray, np.ndarray]],
    train: Pairs,
    test: Pairs,
    probe: str,
    *,
    baselines: bool = True,
    seed: int = 0,
) -> DataFrame:
    """The same of any features of the training and the test rows, by the name that they get in the table."""
    if probe not in PROBES:
        raise BadInput(f"probe is {probe!r}; expected one of {listed(PROBES)}.")
    shared = sorted(set(train.section) & set(test.section))
    if shared:
        raise BadInput(f"sections {listed(shared)} are in train and test; a probe is scored on other sections.")
    predicted, how = _baselines(train, test) if baselines else {}, {}
    for name, (x, new) in features.items():
        predicted[name], how[name] = fit_probe(probe, x, train, new, seed)
    table = scoring.score_table(
        test.expression, predicted, test.genes, depth=test.depth, section=test.section.astype(str)
    )
    for column in ("components", "penalty"):
        table[column] = [how.get(name, {}).get(column, float("nan")) for name in table["predictor"]]
    return table.assign(probe=probe)


def fit_probe(probe: str, x: np.ndarray, train: Pairs, new: np.ndarray, seed: int = 0) -> tuple[np.ndarray, dict]:
    """What a probe that is fitted on features `x` says of `new` ones, and its components and penalty."""
    x, new = _standardized(x, new)
    if probe.startswith("ridge-pca"):
        x, new = _components(x, new, int(probe.removeprefix("ridge-pca")), seed)
    if probe == "ridge-cv":
        said, penalty = _chosen(x, train, new)
    else:
        penalty = 100 / (x.shape[1] * len(train.genes))
        said = _ridge(x, train.expression, new, penalty, intercept=False)
    return said, {"components": x.shape[1], "penalty": penalty}


def _standardized(x: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x.astype(float))
    return scaler.transform(x.astype(float)), scaler.transform(new.astype(float))


def _components(x: np.ndarray, new: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    pca = PCA(min(most, *x.shape), random_state=seed).fit(x)
    return pca.transform(x), pca.transform(new)


def _ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray, penalty: float, *, intercept: bool) -> np.ndarray:
    from sklearn.linear_model import Ridge

    # the published solver, lsqr, stops early where the penalty is next to none: the exact one is meant
    return Ridge(alpha=penalty, fit_intercept=intercept, solver="cholesky").fit(x, y).predict(new)


def _chosen(x: np.ndarray, train: Pairs, new: np.ndarray) -> tuple[np.ndarray, float]:
    """The ridge whose penalty has the least error on training sections that are left out, or on random fifths."""
    from sklearn.model_selection import GroupKFold, KFold

    names = np.unique(train.section.astype(str))
    several = len(names) > 1
    cut = GroupKFold(min(5, len(names))) if several else KFold(5, shuffle=True, random_state=0)
    parts = list(cut.split(x, groups=train.section.astype(str) if several else None))
    errors = [
        np.mean(
            [
                ((_ridge(x[a], train.expression[a], x[b], p, intercept=True) - train.expression[b]) ** 2).mean()
                for a, b in parts
            ]
        )
        for p in PENALTIES
    ]
    penalty = float(PENALTIES[int(np.argmin(errors))])
    return _ridge(x, train.expression, new, penalty, intercept=True), penalty


def _baselines(train: Pairs, test: Pairs) -> dict[str, np.ndarray]:
    """What is usual, what depth says, and what the place says."""
    found = {
        "mean": metrics.mean_only(train.expression, len(test)),
        "depth only": metrics.depth_only(train.expression, train.depth, test.depth),
    }
    if np.isfinite(train.xy_um).all() and np.isfinite(test.xy_um).all():
        found[COORDINATES] = near(_around(test), _around(train), train.expression)
    return found


def _around(pairs: Pairs) -> np.ndarray:
    """Places around the middle of their section, on which sections are laid over each other."""
    xy = np.array(pairs.xy_um, dtype=float)
    for section in set(pairs.section):
        own = pairs.section == section
        xy[own] -= xy[own].mean(axis=0)
    return xy


def over_sections(
    table: DataFrame, value: Sequence[str] = ("recall",), *, by: Sequence[str], seed: int = 0
) -> DataFrame:
    """Means over sections with their 95 % interval, sections drawn with replacement.

    Parameters
    ----------
    table
        With a column `section`.
    value
        Columns that are averaged.
    by
        Columns that tell the rows of the result apart.
    seed
        Of the draws.

    Returns
    -------
    A row per combination of `by` and value: `mean`, `low`, `high`, `n_sections`.

    Examples
    --------
    >>> found = sqi.bench.retrieval(tuned, pairs)
    >>> means = sqi.bench.over_sections(found, ["recall", "chance"], by=["direction", "gallery", "k"])
    """
    import pandas as pd

    rows = []
    for found, part in table.groupby(list(by), sort=False):
        per = part.groupby("section", sort=False)[list(value)].mean()
        for name in value:
            mean, low, high = metrics.bootstrap_mean(per[name], seed=seed)
            rows.append(
                {
                    **dict(zip(by, found, strict=True)),
                    "metric": name,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "n_sections": len(per),
                }
            )
    return pd.DataFrame(rows)
