"""Scores of classes and of compositions: predicted shares of sum 1 beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.scores.metrics import interval

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.target import Target

# n rows, K classes or parts

DRAWS = 100  # of blocks, for an interval
BINS = 10  # of the calibration error, of as many rows each
LEAST = 1e-6  # probability of what happened, below which the loss does not grow


def class_table(measured: np.ndarray, predicted: Mapping[str, np.ndarray], names: Sequence[str]) -> DataFrame:
    """A row per predictor and class: auroc and auprc of it against all others, recall, and how many rows are of it."""
    import pandas as pd

    truth, parts = measured.argmax(axis=1), []
    for predictor, shares in predicted.items():
        called = shares.argmax(axis=1)
        for k, name in enumerate(names):
            mine = truth == k
            recall = float((called[mine] == k).mean()) if mine.any() else np.nan
            auroc, auprc = _areas(mine, shares[:, k])
            scores = {"auroc": auroc, "auprc": auprc, "recall": recall, "n_of": int(mine.sum())}
            parts.append({"gene": name, "predictor": predictor, **scores, "n_spots": len(truth)})
    return pd.DataFrame(parts)


def class_scores(measured: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    """Balanced accuracy, macro AUROC and AUPRC over the classes that are there, log-loss, and calibration error."""
    truth, called = measured.argmax(axis=1), shares.argmax(axis=1)
    there = np.unique(truth)
    areas = np.array([_areas(truth == k, shares[:, k]) for k in there])
    varies = np.isfinite(areas[:, 0]).any()
    return {
        "balanced_accuracy": float(np.mean([(called[truth == k] == k).mean() for k in there])),
        "auroc": float(np.nanmean(areas[:, 0])) if varies else np.nan,
        "auprc": float(np.nanmean(areas[:, 1])) if varies else np.nan,
        "log_loss": float(-np.log(np.maximum(shares[np.arange(len(truth)), truth], LEAST)).mean()),
        "calibration_error": calibration_error(called == truth, shares.max(axis=1)),
    }


def calibration_error(right: np.ndarray, said: np.ndarray) -> float:
    """Mean over bins of as many rows each of how far the probability of the call is from how often it is right."""
    order = np.argsort(said, kind="stable")
    bins = [rows for rows in np.array_split(order, min(BINS, len(order))) if len(rows)]
    return float(sum(len(rows) * abs(right[rows].mean() - said[rows].mean()) for rows in bins) / len(order))


def composition_scores(measured: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    """Mean Jensen-Shannon divergence of rows, in bits: 0 where both are the same, 1 where they share no part."""
    middle = (measured + shares) / 2

    def apart(part: np.ndarray) -> np.ndarray:
        ratio = np.divide(part, middle, out=np.ones_like(middle), where=part > 0)
        return (part * np.log2(ratio)).sum(axis=1)

    return {"jensen_shannon": float(((apart(measured) + apart(shares)) / 2).mean())}


def as_shares(target: Target, values: np.ndarray) -> np.ndarray:
    """Values `(n, K)` of a target that sums to 1 as shares; others as they are."""
    if target.link != "softmax":
        return values
    values = values.clip(1e-3)
    return values / values.sum(axis=1, keepdims=True)


def aggregate_shares(
    measured: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], dict[str, float]],
    blocks: np.ndarray,
    seed: int = 0,
) -> DataFrame:
    """A row per predictor and metric of all rows, with the interval over spatial blocks drawn with replacement."""
    import pandas as pd

    rng, labels = np.random.default_rng(seed), np.unique(blocks)
    members = [np.flatnonzero(blocks == label) for label in labels]
    draws = [np.concatenate([members[k] for k in rng.integers(len(labels), size=len(labels))]) for _ in range(DRAWS)]
    found = []
    for predictor, shares in predicted.items():
        drawn = [score(measured[rows], shares[rows]) for rows in draws] if len(labels) > 1 else []
        for metric, mean in score(measured, shares).items():
            spread = interval(np.array([one[metric] for one in drawn]), 0.95) if drawn else (np.nan, np.nan)
            known = {"mean": mean, "low": spread[0], "high": spread[1], "n_units": len(labels)}
            found.append({"predictor": predictor, "metric": metric, **known, "n_genes": measured.shape[1]})
    return pd.DataFrame(found)


def _areas(mine: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    """Area under the curve of the rates, and average precision; rows of one probability count as one step."""
    n, total = int(mine.sum()), len(mine)
    if n in (0, total):
        return np.nan, np.nan
    order = np.argsort(-said, kind="stable")
    last = np.flatnonzero(np.append(np.diff(said[order]) != 0, True))
    right = np.concatenate([[0], np.cumsum(mine[order])[last]])
    wrong = np.concatenate([[0], last + 1]) - right
    steps = np.diff(right)
    auroc = (np.diff(wrong) * (right[1:] + right[:-1])).sum() / (2 * n * (total - n))
    return float(auroc), float((steps * right[1:] / (last + 1)).sum() / n)
