"""Residual kriging: what is known of errors at some places, carried to others by Gaussian processes.

Residuals `(n, G)` of measured rows are scaled by gene and turned into their leading components, or taken gene by gene.
Each is a Gaussian process over places in µm (Matérn 3/2) with a nugget that is estimated, on top of the variance of
counting, which is known. Parameters are those of the largest marginal likelihood, on at most 500 rows.

Ours: a component, and then a gene, is believed by as much as it says of rows that were left out (the slope of the
residual on what the other rows say of it, from 0 to 1), so that residuals without a pattern change next to nothing.
That slope, and the mean residual of a gene, are drawn to 0 by the James-Stein factor. Below 2,000 rows the process is
exact and left-out values are in closed form; above, it lives on 400 inducing points (Nyström features of a Gaussian
kernel, Bayesian ridge on them), and left-out values are of five random parts.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

EXACT_BELOW = 2000  # rows
FITTED = 500  # rows on which the parameters of a process are found
INDUCING = 400
PARTS = 5
MOST_COUNTING = 0.9  # of a residual's variance that counting is taken to make


@dataclass(frozen=True)
class Field:
    """What is said of a pattern: at rows that were asked about, and of every known row by the others.

    `mean` and `var` are `(m, K)`, `left_mean` and `left_var` `(n, K)`; variances are those of the pattern, without
    the noise of a measurement. `share` `(K,)` is by how much it is believed.
    """

    mean: np.ndarray
    var: np.ndarray
    left_mean: np.ndarray
    left_var: np.ndarray
    share: np.ndarray


def krige(
    residual: np.ndarray,
    counting: np.ndarray,
    known: np.ndarray,
    asked: np.ndarray,
    *,
    components: int | None = 20,
    seed: int = 0,
) -> Field:
    """Residuals at places where nothing was measured.

    Parameters
    ----------
    residual
        `(n, G)` measured minus predicted, by models that have not seen the row.
    counting
        `(n, G)` variance of counting.
    known, asked
        `(n, D)` and `(m, D)` places in µm, two columns; further ones are features of the image, in any scale.
    components
        How many leading components of the residuals are used; None: every gene by itself.
    seed
        Of the rows that parameters are found on, of inducing points and of parts.
    """
    scale = np.maximum(residual.std(axis=0), 1e-9)
    offset = _offset(residual)
    unit = (residual - offset) / scale
    noise = counting / scale**2
    noise = noise * np.minimum(1, MOST_COUNTING / np.maximum(noise.mean(axis=0), 1e-12))
    turn = _components(unit, components)
    fields = [_field(unit @ axis, noise @ axis**2, known, asked, seed) for axis in turn.T]
    parts = {name: np.stack([getattr(one, name) for one in fields], axis=1) for name in vars(fields[0])}
    share = parts["share"][0]
    back, squares = (turn * share).T * scale, ((turn * share).T * scale) ** 2
    left = parts["left_mean"] @ back
    believed = _share(residual - offset, left)
    return Field(
        mean=offset + parts["mean"] @ back * believed,
        var=parts["var"] @ squares * believed**2,
        left_mean=offset + left * believed,
        left_var=parts["left_var"] @ squares * believed**2,
        share=believed,
    )


def _offset(residual: np.ndarray) -> np.ndarray:
    """Mean residuals `(G,)`, drawn to 0 where they are no larger than chance makes them."""
    mean, chance = residual.mean(axis=0), residual.var(axis=0) / len(residual)
    return mean * np.maximum(0, 1 - chance / np.maximum(mean**2, 1e-12))


def _components(unit: np.ndarray, components: int | None) -> np.ndarray:
    """Directions `(G, K)` in the space of genes: leading components, or the genes."""
    n_genes = unit.shape[1]
    if components is None or components >= n_genes:
        return np.eye(n_genes)
    from sklearn.decomposition import TruncatedSVD

    return TruncatedSVD(min(components, len(unit) - 1), algorithm="arpack", random_state=0).fit(unit).components_.T


def _share(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Slope `(K,)`, from 0 to 1, of what is true on what was said of it, drawn to 0 as far as chance makes it."""
    size = np.maximum((said**2).sum(axis=0), 1e-12)
    slope = (truth * said).sum(axis=0) / size
    chance = (((truth - slope * said) * said) ** 2).sum(axis=0) / size**2
    return np.clip(slope * np.maximum(0, 1 - chance / np.maximum(slope**2, 1e-12)), 0, 1)


def _field(y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray, seed: int) -> Field:
    """One component `(n,)` with the variance `(n,)` that counting gives to it."""
    size = max(float(y.std()), 1e-9)
    y, noise = y / size, np.maximum(noise / size**2, 1e-6)
    exact = len(y) < EXACT_BELOW
    process = _fitted(y, noise, known, seed, smooth=not exact)
    found = _exact(process, y, noise, known, asked) if exact else _inducing(process, y, noise, known, asked, seed)
    share = _share(y[:, None], found.left_mean[:, None])
    return Field(size * found.mean, size**2 * found.var, size * found.left_mean, size**2 * found.left_var, share)


def _fitted(y: np.ndarray, noise: np.ndarray, known: np.ndarray, seed: int, smooth: bool):
    """The kernel of the largest marginal likelihood."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

    from sq_imputer.section.lattice import pitch

    near, far = pitch(known[:, :2]), float(np.ptp(known[:, :2], axis=0).max())
    features = known[:, 2:].std(axis=0)
    start = np.concatenate([[3 * near] * (2 if len(features) else 1), 3 * features])
    bounds = np.stack([start / 6, np.concatenate([[2 * max(far, near)] * (len(start) - len(features)), 30 * features])])
    length = {"length_scale": start if len(start) > 1 else float(start[0]), "length_scale_bounds": bounds.T}
    shape = RBF(**length) if smooth else Matern(**length, nu=1.5)
    kernel = ConstantKernel(0.3, (1e-3, 10)) * shape + WhiteKernel(0.3, (1e-4, 10))
    rows = np.sort(np.random.default_rng(seed).permutation(len(y))[:FITTED])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length beyond the section, or no pattern at all
        return GaussianProcessRegressor(kernel, alpha=noise[rows]).fit(known[rows], y[rows]).kernel_


def _exact(kernel, y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray) -> Field:
    from scipy.linalg import cho_solve
    from sklearn.gaussian_process import GaussianProcessRegressor

    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(known, y)
    nugget = kernel.k2.noise_level
    mean, std = process.predict(asked, return_std=True) if len(asked) else (np.empty(0), np.empty(0))
    inverse = cho_solve((process.L_, True), np.eye(len(y)))
    alone = 1 / np.diag(inverse)  # variance of a row's measurement, given all others
    left = y - inverse @ y * alone
    pattern = np.maximum(alone - nugget - noise, 0)
    return Field(mean, np.maximum(std**2 - nugget, 0), left, pattern, np.empty(0))


def _inducing(kernel, y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray, seed: int) -> Field:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import BayesianRidge
    from sklearn.model_selection import KFold

    length = np.broadcast_to(kernel.k1.k2.length_scale, known.shape[1])
    near = Nystroem(kernel="rbf", gamma=0.5, n_components=INDUCING, random_state=seed).fit(known / length)
    seen, wanted = near.transform(known / length), near.transform(asked / length) if len(asked) else None
    weight = 1 / (kernel.k2.noise_level + noise)
    weight /= weight.mean()

    def said(rows, at) -> tuple[np.ndarray, np.ndarray]:
        ridge = BayesianRidge(max_iter=100).fit(seen[rows], y[rows], sample_weight=weight[rows])
        mean, std = ridge.predict(at, return_std=True)
        return mean, np.maximum(std**2 - 1 / ridge.alpha_, 0)

    left = np.zeros((2, len(y)))
    for rows, out in KFold(PARTS, shuffle=True, random_state=seed).split(seen):
        left[:, out] = said(rows, seen[out])
    mean, var = said(slice(None), wanted) if wanted is not None else (np.empty(0), np.empty(0))
    return Field(mean, var, *left, np.empty(0))
