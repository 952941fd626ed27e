"""The task of a label of whole slides, such as a mutation: from the features of their crops, by leaving slides out.

`"mean"` is logistic regression on the mean of the features; `"attention"` attention over crops (Ilse et al. 2018,
arXiv:1802.04712), in the gated form. The public code of HESCAPE has none of it, so that nothing here is a published
setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.scores.metrics import interval
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from pandas import DataFrame

HEADS = ("mean", "attention")
FOLDS = 5
EPOCHS = 60
DRAWS = 1000


@verb
def label_probe(
    features: Mapping[str, np.ndarray],
    label: Mapping[str, str],
    *,
    group: Mapping[str, str] | None = None,
    head: str = "mean",
    seed: int = 0,
) -> DataFrame:
    """How well features of crops tell a label of their slide, two classes, out of fold.

    Parameters
    ----------
    features
        `(n, F)` features by slide, such as of an encoder before and after it was tuned.
    label
        Label by slide; two different ones.
    group
        Patient by slide: those of one patient are left out together. A slide is a patient if left out.
    head
        `"mean"` or `"attention"`.
    seed
        Of folds and weights.

    Returns
    -------
    One row: `head`, `auroc`, `low`, `high` (95 %, slides drawn with replacement), `chance` (.5), `n_slides`, `positive`
    (the label that is told, the later in order).

    Raises
    ------
    BadInput
        If there are not two labels, or fewer than two patients of each.

    Examples
    --------
    >>> import numpy as np
    >>> features = {f"slide {k}": np.random.default_rng(k).normal(size=(20, 4)) + k % 2 for k in range(8)}
    >>> table = sqi.bench.label_probe(features, {name: str(k % 2) for k, name in enumerate(features)})
    """
    import pandas as pd

    if head not in HEADS:
        raise BadInput(f"head is {head!r}; expected one of {listed(HEADS)}.")
    names = list(features)
    classes, y = np.unique([str(label[name]) for name in names], return_inverse=True)
    patients = np.array([str((group or {}).get(name, name)) for name in names])
    fewest = min((len(set(patients[y == k])) for k in range(len(classes))), default=0)
    if len(classes) != 2 or fewest < 2:
        raise BadInput(f"labels are {listed(classes)}; expected two, each of two patients or more.")
    said = _out_of_fold([np.asarray(features[name], dtype=np.float64) for name in names], y, patients, head, seed)
    auroc, low, high = _auroc(y, said, seed)
    found = {"head": head, "auroc": auroc, "low": low, "high": high, "chance": 0.5}
    return pd.DataFrame([{**found, "n_slides": len(names), "positive": classes[1]}])


def _out_of_fold(bags: Sequence[np.ndarray], y: np.ndarray, patients: np.ndarray, head: str, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(set(patients[y == k])) for k in (0, 1))
    cut = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    said = np.zeros(len(bags))
    for train, test in cut.split(np.zeros(len(bags)), y, patients):
        rows = np.concatenate([bags[k] for k in train])
        mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-9)
        scaled = [(bag - mean) / std for bag in bags]
        fit = _by_mean if head == "mean" else _by_attention
        said[test] = fit([scaled[k] for k in train], y[train], [scaled[k] for k in test], seed)
    return said


def _by_mean(bags: Sequence[np.ndarray], y: np.ndarray, new: Sequence[np.ndarray], seed: int) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=2000, class_weight="balanced")
    return model.fit([bag.mean(axis=0) for bag in bags], y).decision_function([bag.mean(axis=0) for bag in new])


def _by_attention(bags: Sequence[np.ndarray], y: np.ndarray, new: Sequence[np.ndarray], seed: int) -> np.ndarray:
    import torch

    from sq_imputer.nn.attention import GatedPool
    from sq_imputer.predictor.chance import Chance

    held, asked = ([torch.from_numpy(bag).float() for bag in part] for part in (bags, new))
    truth = torch.from_numpy(np.asarray(y)).float()
    with Chance(seed):
        model = GatedPool(held[0].shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(EPOCHS):
        said = torch.stack([model(bag) for bag in held])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(said, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return np.array([float(model(bag)) for bag in asked])


def _auroc(y: np.ndarray, said: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The share of pairs of both labels that are in order, and its interval over slides drawn with replacement."""
    one, other = said[y == 1][:, None], said[y == 0][None]
    in_order = (one > other) + 0.5 * (one == other)
    times = np.random.default_rng(seed).multinomial(len(y), np.full(len(y), 1 / len(y)), size=DRAWS).astype(float)
    mine, theirs = times[:, y == 1], times[:, y == 0]
    pairs = mine.sum(axis=1) * theirs.sum(axis=1)
    drawn = np.einsum("dp,pn,dn->d", mine, in_order, theirs)[pairs > 0] / pairs[pairs > 0]
    return float(in_order.mean()), *interval(drawn, 0.95)
