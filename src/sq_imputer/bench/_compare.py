"""Two predictors on the same sections: the difference, pair by pair, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, MissingKey, check_frame, listed
from sq_imputer.scores.metrics import bootstrap_mean
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from pandas import DataFrame

# by what rows of two tables belong together
PAIRED = ("set", "case", "section", "seed", "direction", "gallery", "k", "gene")


@verb
def compare(one: DataFrame, other: DataFrame, *, metric: str = "pearson", seed: int = 0) -> DataFrame:
    """The mean difference of a score between two tables, paired by section, with its 95 % interval.

    Parameters
    ----------
    one, other
        Scores of one predictor each, as :func:`sq_imputer.bench.run`, :func:`~sq_imputer.bench.expression_probe` and
        :func:`~sq_imputer.bench.retrieval` give them: take the rows of one predictor first.
    metric
        The column that is compared.
    seed
        Of the draws of sections.

    Returns
    -------
    One row: `metric`, `one`, `other` (means over sections), `difference` (one minus other), `low`, `high`,
    `n_sections`, `n_better` (sections where one is higher), `n_pairs` (rows that both tables have).

    Raises
    ------
    MissingKey
        If a table lacks the metric or the section.
    BadInput
        If a table has several rows of one kind, such as of two predictors, or they have no row in common.

    Examples
    --------
    >>> both = {name: results[results["predictor"] == name] for name in ("ridge", "depth only")}
    >>> difference = sqi.bench.compare(both["ridge"], both["depth only"])
    """
    import pandas as pd

    for table in (one, other):
        check_frame(table, "bench.run")
        lost = [name for name in (metric, "section") if name not in table]
        if lost:
            raise MissingKey(f"no column {listed(lost)}; the table has {listed(table.columns, 12)}.")
    by = [name for name in PAIRED if name in one and name in other]
    for table in (one, other):
        if table.duplicated(by).any():
            raise BadInput(f"a table has several rows of one {listed(by)}; take those of one predictor.")
    both = one[[*by, metric]].merge(other[[*by, metric]], on=by, suffixes=("_one", "_other")).dropna()
    if both.empty:
        raise BadInput(f"the tables have no row in common, by {listed(by)}; pass scores of the same sections.")
    case = [name for name in ("set", "case", "section") if name in by]
    means = both.groupby(case, sort=False)[[f"{metric}_one", f"{metric}_other"]].mean()
    difference = means[f"{metric}_one"] - means[f"{metric}_other"]
    mean, low, high = bootstrap_mean(difference, seed=seed)
    found = {"metric": metric, "one": means[f"{metric}_one"].mean(), "other": means[f"{metric}_other"].mean()}
    found |= {"difference": mean, "low": low, "high": high, "n_sections": len(means)}
    return pd.DataFrame([{**found, "n_better": int((difference > 0).sum()), "n_pairs": len(both)}])
