"""Regression kriging: what was measured at some places, and what was predicted everywhere, put together.

A gene is taken to be its mean, by some slope what was predicted of it, and a pattern over places: what of the residuals
`(n, G)` is carried to other rows by Gaussian processes (`sq_imputer.tl._processes`), of their leading components or of
every gene by itself.

Ours: how much is believed is counted, at rows that say nothing of themselves. The slope of a gene is that of what was
measured on what was predicted of it, drawn to the slope of all genes as far as chance makes it differ, and that to 1: a
prediction that says nothing here is left behind, and one that holds is kept. A component, and then a gene, of the
residuals is believed by as much as it says of rows that were left out (the slope of the residual on what the other rows
say of it, from 0 to 1), drawn to 0 by twice what chance makes of it, so that residuals without a pattern change next to
nothing. The mean residual of a gene is drawn to 0 by the James-Stein factor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sq_imputer.genes.units import counting_variance

MOST_COUNTING = 0.9  # of a residual's variance that counting is taken to make
CAUTION = 2.0  # times the variance by chance, by which what is believed is drawn to nothing


@dataclass(frozen=True)
class Field:
    """What is said at rows that were asked about, and of every known row by the others.

    `mean` and `var` are `(m, K)`, `left_mean` and `left_var` `(n, K)`; variances are those of the pattern, without
    the noise of a measurement. `share` `(K,)` is by how much it is believed.
    """

    mean: np.ndarray
    var: np.ndarray
    left_mean: np.ndarray
    left_var: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class Corrected(Field):
    """Values instead of residuals.

    `slope` `(G,)` is by how much the prediction is believed, `rest` `(G,)` the variance of a measurement that is left
    beside that of the pattern, at known rows by the others.
    """

    slope: np.ndarray
    rest: np.ndarray


def corrected(
    measured: np.ndarray,
    said: np.ndarray,
    said_of_asked: np.ndarray,
    known: np.ndarray,
    asked: np.ndarray,
    depth: np.ndarray,
    *,
    unit: str,
    components: int | None = 20,
    seed: int = 0,
) -> Corrected:
    """What is to be expected at places where nothing was measured, and at measured ones by the others.

    Parameters
    ----------
    measured, said
        `(n, G)` what was measured, and what was predicted by models that have not seen the row.
    said_of_asked
        `(m, G)` what was predicted at the other places.
    known, asked, components, seed
        As :func:`krige` has them.
    depth, unit
        `(n,)` total counts of the measured rows, and the unit of values: they tell the noise of counting.
    """
    slope, middle = slopes(measured, said), said.mean(axis=0)
    here, there = (middle + slope * (one - middle) for one in (said, said_of_asked))
    noise = counting_variance(here - middle + measured.mean(axis=0), depth, unit)
    field = krige(measured - here, noise, known, asked, components=components, seed=seed)
    left = here + field.left_mean
    error = ((measured - left) ** 2).mean(axis=0)
    rest = np.maximum(error - field.left_var.mean(axis=0), 0.05 * error)
    return Corrected(there + field.mean, field.var, left, field.left_var, field.share, slope, rest)


def slopes(measured: np.ndarray, said: np.ndarray) -> np.ndarray:
    """By how much the prediction of each gene is believed `(G,)`, 0 to 1; of a constant one 1, as it says nothing."""
    telling = said.std(axis=0) > 1e-6
    spread = np.maximum(measured.std(axis=0), 1e-9)
    y, p = (measured - measured.mean(axis=0)) / spread, (said - said.mean(axis=0)) / spread
    y, p = y[:, telling], p[:, telling]
    found = np.ones(len(telling))
    if telling.any():
        size = (p**2).sum(axis=0)
        common = (y * p).sum() / size.sum()
        chance = (((y - common * p) * p).sum(axis=1) ** 2).sum() / size.sum() ** 2  # genes of a row err together
        common = np.clip(1 + (common - 1) * _kept(common - 1, chance), 0, 1)
        own = (y * p).sum(axis=0) / size
        chance = np.maximum((((y - own * p) * p) ** 2).sum(axis=0) / size**2, 1e-6)
        apart = max(0.0, float((((own - common) ** 2 - chance) / chance**2).sum() / (1 / chance**2).sum()))
        weight = apart / (apart + CAUTION * chance)
        found[telling] = np.clip(weight * own + (1 - weight) * common, 0, 1)
    return found


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
        `(n, D)` and `(m, D)` places in µm, two columns; further ones are features of the image, the first of which has
        a standard deviation of 1.
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


def _kept(effect: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """By what an effect is multiplied, 0 to 1, given its variance by chance."""
    return np.maximum(0, 1 - CAUTION * chance / np.maximum(effect**2, 1e-12))


def _share(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Slope `(K,)`, from 0 to 1, of what is true on what was said of it, drawn to 0 as far as chance makes it."""
    size = np.maximum((said**2).sum(axis=0), 1e-12)
    slope = (truth * said).sum(axis=0) / size
    chance = (((truth - slope * said) * said) ** 2).sum(axis=0) / size**2
    return np.clip(slope * _kept(slope, chance), 0, 1)


def _field(y: np.ndarray, noise: np.ndarray, known: np.ndarray, asked: np.ndarray, seed: int) -> Field:
    """One component `(n,)` with the variance `(n,)` that counting gives to it."""
    from sq_imputer.tl._processes import process

    size = max(float(y.std()), 1e-9)
    y, noise = y / size, np.maximum(noise / size**2, 1e-6)
    said = process(y, noise, known, asked, seed)
    share = _share(y[:, None], said.left_mean[:, None])
    return Field(size * said.mean, size**2 * said.var, size * said.left_mean, size**2 * said.left_var, share)
