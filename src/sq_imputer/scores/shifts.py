r"""How well an image tells expression when the measured places are shifted over it: skill against shift.

At a shift :math:`d` every place :math:`x_i` sees the image at :math:`x_i + d`. Targets (log depth and the leading
components of the genes) are predicted from a few smooth features of the image there, by ridge, out of fold in spatial
blocks. The share of their variance that is so explained is largest where image and expression lie on each other:
a cross-correlation of many channels with many targets, whose weights are learned and never judged where they were.

Errors are kept by block. Blocks drawn with replacement give draws of the best shift, and parts of the section a shift
of their own, without anything being fitted again. Ours, as is the null: the same targets after the section was
displaced as a torus, which keeps their pattern, and the best skill that they find over all shifts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sq_imputer.progress import track
from sq_imputer.scores.smoothness import displaced
from sq_imputer.scores.splits import spatial_blocks

N_FOLDS, BLOCKS_PER_FOLD = 5, 5
PENALTY = 0.02  # of ridge, relative to the number of training rows; features have unit variance
REACH = 2  # grid points around the best one, on which a parabola is laid

Seen = Callable[[np.ndarray], np.ndarray]  # features `(n, C)` of the image at places `(n, 2)` in µm


@dataclass(frozen=True, eq=False)
class Parts:
    """Folds and blocks within them, both `(n,)`; the blocks of a fold are numbered one after the other."""

    fold: np.ndarray
    block: np.ndarray

    @classmethod
    def of(cls, xy_um: np.ndarray) -> Parts:
        """Five compact folds of five compact blocks each; fewer blocks where there are few places."""
        fold, block, start = spatial_blocks(xy_um, N_FOLDS), np.zeros(len(xy_um), dtype=int), 0
        for k in range(N_FOLDS):
            rows = np.flatnonzero(fold == k)
            own = spatial_blocks(xy_um[rows], min(BLOCKS_PER_FOLD, len(rows)))
            block[rows] = start + own
            start += own.max() + 1
        return cls(fold, block)

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Sums `(blocks, K)` of values `(n, K)`."""
        order = np.argsort(self.block, kind="stable")
        starts = np.searchsorted(self.block[order], np.arange(self.block.max() + 1))
        return np.add.reduceat(values[order], starts, axis=0)


@dataclass(frozen=True, eq=False)
class Tried:
    """What was found at some shifts `(D, 2)` in µm: squared errors `(D, B)` by block, of a total `(B,)`."""

    shifts: np.ndarray
    errors: np.ndarray
    total: np.ndarray

    @property
    def skill(self) -> np.ndarray:
        """`(D,)` share of the variance that is explained out of fold; below 0 if worse than the mean."""
        return 1 - self.errors.sum(axis=1) / self.total.sum()

    def best(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The best shift `(2,)`, between the shifts tried, or where blocks count by `weights` `(B,)`."""
        errors = self.errors.sum(axis=1) if weights is None else self.errors @ weights
        return _lowest(self.shifts, errors)

    def draws(self, n: int, seed: int, blocks: np.ndarray | None = None) -> np.ndarray:
        """Best shifts `(n, 2)` of blocks, all or some, drawn with replacement."""
        rng, blocks = np.random.default_rng(seed), np.arange(len(self.total)) if blocks is None else blocks
        counts = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=n)
        weights = np.zeros((n, len(self.total)))
        weights[:, blocks] = counts
        return np.stack([self.best(one) for one in weights])


def grid(middle: np.ndarray, reach_um: float, step_um: float) -> np.ndarray:
    """Shifts `(D, 2)` around one, on a square lattice that has it."""
    n = max(1, round(reach_um / step_um))
    line = np.arange(-n, n + 1) * step_um
    return np.asarray(middle, dtype=float) + np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def attempt(seen: Seen, xy_um: np.ndarray, targets: np.ndarray, shifts: np.ndarray, parts: Parts) -> Tried:
    """Predict targets `(n, K)` at every shift."""
    errors = np.stack([_errors(seen(xy_um + shift), targets, parts).sum(axis=1) for shift in shifts])
    return Tried(np.asarray(shifts), errors, _total(targets, parts).sum(axis=1))


def null(
    seen: Seen, xy_um: np.ndarray, targets: np.ndarray, shifts: np.ndarray, parts: Parts, *, n: int, seed: int
) -> np.ndarray:
    """The best skill `(m,)` over all shifts of targets that were displaced; fewer than n where few can be displaced."""
    rng = np.random.default_rng(seed)
    moves = [move for move in (displaced(xy_um, rng) for _ in range(n)) if move is not None]
    if not moves:
        return np.empty(0)
    moved = np.concatenate([targets[source] for source, _ in moves], axis=1)
    whole = _total(moved, parts).sum(axis=0).reshape(len(moves), -1).sum(axis=1)
    found = np.full(len(moves), -np.inf)
    for shift in track(shifts, "null", len(shifts)):
        errors = _errors(seen(xy_um + shift), moved, parts).sum(axis=0).reshape(len(moves), -1).sum(axis=1)
        found = np.maximum(found, 1 - errors / whole)
    return found


def _total(targets: np.ndarray, parts: Parts) -> np.ndarray:
    """Squares `(B, K)` around the mean of each fold."""
    rest = targets - targets.mean(axis=0)
    for k in range(parts.fold.max() + 1):
        rest[parts.fold == k] -= rest[parts.fold == k].mean(axis=0)
    return parts.summed(rest**2)


def _errors(x: np.ndarray, y: np.ndarray, parts: Parts) -> np.ndarray:
    """Squared errors `(B, K)` of ridge on features `(n, C)`, out of fold, less the mean error of each fold.

    How high a whole fold is, the others cannot tell, and it says nothing of shifts that are smaller than a fold.
    """
    spread = x.std(axis=0)
    x = np.where(spread > 1e-9, (x - x.mean(axis=0)) / np.maximum(spread, 1e-9), 0)
    x = np.column_stack([np.ones(len(x)), x])
    rows = [np.flatnonzero(parts.fold == k) for k in range(parts.fold.max() + 1)]
    sums = [(x[r].T @ x[r], x[r].T @ y[r]) for r in rows]
    xx, xy = (np.sum(part, axis=0) for part in zip(*sums, strict=True))
    error = np.empty_like(y)
    for own, (own_xx, own_xy) in zip(rows, sums, strict=True):
        penalty = PENALTY * (len(x) - len(own)) * np.eye(x.shape[1])
        penalty[0, 0] = 0
        error[own] = y[own] - x[own] @ np.linalg.solve(xx - own_xx + penalty, xy - own_xy)
        error[own] -= error[own].mean(axis=0)
    return parts.summed(error**2)


def _lowest(shifts: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Where a parabola through the errors around the lowest one has its bottom; that one if it has none nearby."""
    k = int(np.argmin(errors))
    step = np.min([np.min(np.diff(np.unique(shifts[:, axis].round(6)))) for axis in (0, 1)])
    near = np.abs(shifts - shifts[k]).max(axis=1) <= REACH * step * 1.01
    x, y = ((shifts[near] - shifts[k]) / step).T
    if near.sum() < 9:
        return shifts[k]
    design = np.column_stack([np.ones(len(x)), x, y, x * x, x * y, y * y])
    _, bx, by, xx, xy, yy = np.linalg.lstsq(design, errors[near], rcond=None)[0]
    bend = np.array([[2 * xx, xy], [xy, 2 * yy]])
    if np.linalg.eigvalsh(bend)[0] <= 0:
        return shifts[k]
    move = -np.linalg.solve(bend, [bx, by])
    return shifts[k] + step * move if np.abs(move).max() <= 1 else shifts[k]


def components(expression: np.ndarray, depth: np.ndarray, n: int) -> np.ndarray:
    """Targets `(n, 1 + K)`: log depth, and the leading components of genes `(n, G)`, weighted by how much they vary.

    Depth varies as much as the first component.
    """
    values = expression - expression.mean(axis=0)
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    kept = left[:, :n] * sizes[:n]
    log = np.log(depth)
    spread = np.std(log)
    scale = np.std(kept[:, 0]) if kept.shape[1] else 1.0
    return np.column_stack([(log - log.mean()) / max(spread, 1e-9) * scale, kept])


def bins(xy_um: np.ndarray, side_um: float, values: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Places that lie closer than a side as squares of it: mean places `(m, 2)`, and sums of values by square."""
    square = np.floor((xy_um - xy_um.min(axis=0)) / side_um).astype(int)
    _, where = np.unique(square, axis=0, return_inverse=True)
    where = where.ravel()
    n = np.bincount(where)
    middle = np.column_stack([np.bincount(where, xy) / n for xy in xy_um.T])
    summed = []
    for one in values:
        found = np.zeros((len(n), *one.shape[1:]))
        np.add.at(found, where, one)
        summed.append(found)
    return middle, summed
