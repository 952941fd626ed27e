"""A Gaussian process of one number over places in µm and, beside them, features of the image.

Matern 3/2 over the first two columns and, where there are more, an RBF kernel over these: a value is carried to rows
that lie near, and to rows that look alike. On top are a nugget, which is estimated, and the known variance of counting.
Parameters are those of the largest marginal likelihood, on at most 500 rows. Below 2,000 rows the process is exact and
values of rows that are left out are in closed form; above, it lives on 400 inducing points per kernel (Nyström features
of Gaussian kernels, Bayesian ridge on them), and left-out values are of five random parts. All by scikit-learn.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, Matern, WhiteKernel

EXACT_BELOW = 2000  # rows
FITTED = 500  # rows on which the parameters of a process are found
INDUCING = 400
PARTS = 5


class Said(NamedTuple):
    """Mean and variance of the pattern at rows that were asked about `(m,)`, and of every known row by the others."""

    mean: np.ndarray
    var: np.ndarray
    left_mean: np.ndarray
    left_var: np.ndarray


class Columns(Kernel):
    """A kernel that sees some of the columns; scikit-learn's own see all."""

    def __init__(self, kernel: Kernel, columns: tuple[int, int | None]) -> None:
        self.kernel = kernel
        self.columns = columns

    def of(self, rows: np.ndarray | None) -> np.ndarray | None:
        """The columns that it sees."""
        return None if rows is None else rows[:, slice(*self.columns)]

    def __call__(self, X, Y=None, eval_gradient=False):
        return self.kernel(self.of(X), self.of(Y), eval_gradient=eval_gradient)

    def diag(self, X):
        """Its value of every row with itself `(n,)`."""
        return self.kernel.diag(self.of(X))

    def is_stationary(self) -> bool:
        """Whether it hangs on differences of rows alone."""
        return self.kernel.is_stationary()

    @property
    def hyperparameters(self) -> list:
        """What is fitted: that of the kernel inside, as are the next two."""
        return self.kernel.hyperparameters

    @property
    def theta(self) -> np.ndarray:
        """Logarithms of what is fitted."""
        return self.kernel.theta

    @theta.setter
    def theta(self, theta: np.ndarray) -> None:
        """Set the kernel inside."""
        self.kernel.theta = theta

    @property
    def bounds(self) -> np.ndarray:
        """Logarithms of the least and the most `(n, 2)`."""
        return self.kernel.bounds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Columns) and (self.columns, self.kernel) == (other.columns, other.kernel)


def process(y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray, seed: int) -> Said:
    """What is said of a number that is known at some places, in units of its standard deviation.

    Parameters
    ----------
    y, noise
        `(n,)` the number, and the variance that counting gives to it.
    known, asked
        `(n, D)` and `(m, D)` places in µm, two columns, and features of the image, whose first has a standard deviation
        of 1.
    seed
        Of the rows that parameters are found on, of inducing points and of parts.
    """
    exact = len(y) < EXACT_BELOW
    kernel = fitted(y, noise, known, seed, smooth=not exact)
    return by_all(kernel, y, noise, known, asked) if exact else inducing(kernel, y, noise, known, asked, seed)


def fitted(y: np.ndarray, noise: np.ndarray, known: np.ndarray, seed: int, smooth: bool) -> Kernel:
    """The kernel of the largest marginal likelihood: patterns, and the nugget last."""
    from sq_imputer.section.lattice import pitch

    near, far = pitch(known[:, :2]), float(np.ptp(known[:, :2], axis=0).max())
    length = {"length_scale": 3 * near, "length_scale_bounds": (near / 2, 2 * max(far, near))}
    kernel = ConstantKernel(0.3, (1e-3, 10)) * Columns(RBF(**length) if smooth else Matern(**length, nu=1.5), (0, 2))
    if known.shape[1] > 2:
        kernel = kernel + ConstantKernel(0.3, (1e-3, 10)) * Columns(RBF(3.0, (0.5, 30)), (2, None))
    rows = np.sort(np.random.default_rng(seed).permutation(len(y))[:FITTED])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length beyond the section, or no pattern at all
        kernel = kernel + WhiteKernel(0.3, (1e-4, 10))
        return GaussianProcessRegressor(kernel, alpha=noise[rows]).fit(known[rows], y[rows]).kernel_


def by_all(kernel: Kernel, y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray) -> Said:
    """The exact process; left-out rows in closed form."""
    from scipy.linalg import cho_solve

    found = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(known, y)
    nugget = kernel.k2.noise_level
    mean, std = found.predict(asked, return_std=True) if len(asked) else (np.empty(0), np.empty(0))
    inverse = cho_solve((found.L_, True), np.eye(len(y)))
    alone = 1 / np.diag(inverse)  # variance of a row's measurement, given all others
    left = y - inverse @ y * alone
    return Said(mean, np.maximum(std**2 - nugget, 0), left, np.maximum(alone - nugget - noise, 0))


def inducing(kernel: Kernel, y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray, seed: int) -> Said:
    """The process on inducing points; left-out rows by five parts."""
    from sklearn.linear_model import BayesianRidge
    from sklearn.model_selection import KFold

    seen, wanted = _nystroem(kernel, known, asked, seed)
    weight = 1 / (kernel.k2.noise_level + noise)
    weight /= weight.mean()

    def said(rows, at) -> tuple[np.ndarray, np.ndarray]:
        ridge = BayesianRidge(max_iter=100).fit(seen[rows], y[rows], sample_weight=weight[rows])
        mean, std = ridge.predict(at, return_std=True)
        return mean, np.maximum(std**2 - 1 / ridge.alpha_, 0)

    left = np.zeros((2, len(y)))
    for rows, out in KFold(PARTS, shuffle=True, random_state=seed).split(seen):
        left[:, out] = said(rows, seen[out])
    mean, var = said(slice(None), wanted) if len(wanted) else (np.empty(0), np.empty(0))
    return Said(mean, var, *left)


def _nystroem(kernel: Kernel, known: np.ndarray, asked: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of known and asked rows, whose inner products are the patterns of the kernel, side by side."""
    from sklearn.kernel_approximation import Nystroem

    patterns = [kernel.k1] if isinstance(kernel.k1.k2, Columns) else [kernel.k1.k1, kernel.k1.k2]
    seen, wanted = [], []
    for size, shape in ((one.k1.constant_value**0.5, one.k2) for one in patterns):
        gamma = 0.5 / shape.kernel.length_scale**2
        near = Nystroem(kernel="rbf", gamma=gamma, n_components=INDUCING, random_state=seed).fit(shape.of(known))
        seen.append(size * near.transform(shape.of(known)))
        wanted.append(size * near.transform(shape.of(asked)) if len(asked) else np.empty((0, seen[-1].shape[1])))
    return np.hstack(seen), np.hstack(wanted)
