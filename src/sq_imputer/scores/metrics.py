"""Scores of predicted against measured expression, per gene: arrays in, arrays out.

Everywhere `y` is measured and `p` predicted, both `(n, G)`: spots × genes in one unit. Sums run in float64. A gene
that is constant, measured or predicted, has no correlation: it scores NaN, never a warning, and is counted and named
by `scoring.aggregate`.

Depth (total counts of a spot) is visible in the image and alone reaches published headline scores, so Pearson is always
shown beside `pearson_given` depth, and every table should hold the baselines `mean_only` and `depth_only`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.scores.moments import chunks

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

# Layers are float32, good to 6e-8 of a value: a spread below this share of the largest value is rounding, not signal.
ROUNDING = 1e-6
_AT_ONCE = 2**22  # values converted to float64 at once


def _checked(y, p, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    names = [list(side.columns) for side in (y, p) if hasattr(side, "columns")]
    if len(names) == 2 and names[0] != names[1]:
        raise BadInput(
            f"measured has the genes {listed(names[0], 3)} and predicted {listed(names[1], 3)}; expected the same in "
            "one order. Take predicted[measured.columns]."
        )
    y, p = np.asarray(y), np.asarray(p)
    if y.ndim != 2 or y.shape != p.shape:
        raise BadInput(f"measured is {y.shape} and predicted {p.shape}; both must be (spots, genes), aligned.")
    if len(y) < least:
        raise BadInput(f"there are {len(y)} spots; this score needs {least} or more. Leave this section out.")
    return y, p


def log_depth(depth, n: int) -> np.ndarray:
    """Log of the `n` depths, after checking that each is a positive number."""
    depth = np.asarray(depth, dtype=float).ravel()
    if len(depth) != n:
        raise BadInput(f"depth has {len(depth)} values for {n} spots; pass one total count per spot.")
    empty = int((~(depth > 0) | np.isinf(depth)).sum())
    if empty:
        raise BadInput(f"depth is zero or missing at {empty} of {n} spots; leave empty spots out of the score.")
    return np.log(depth)


def centered(values: np.ndarray, given: np.ndarray | None = None) -> np.ndarray:
    """Values around their mean, or around their line on `given`; NaN where that leaves nothing but rounding."""
    values = np.asarray(values, dtype=float)
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(values).max(axis=0)
        rest = values - values.mean(axis=0)
        if given is not None and np.std(given) > ROUNDING:
            x = given - given.mean()
            rest -= np.outer(x, x @ rest / (x @ x))
        rest[:, ~(np.sqrt((rest**2).mean(axis=0)) > ROUNDING * largest)] = np.nan
    return rest


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.clip((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), -1, 1)


def pearson(y, p) -> np.ndarray:
    """Pearson correlation over spots, `(G,)`.

    Raises
    ------
    BadInput
        If the shapes differ or there are fewer than 2 spots.
    """
    y, p = _checked(y, p)
    return _cosine(centered(y), centered(p))


def pearson_given(y, p, depth) -> np.ndarray:
    """Partial correlation of measured and predicted given log depth, `(G,)`: what is left once depth is known to both.

    Both sides are replaced by their residuals on `[1, log(depth)]`. A prediction that is a line in log depth scores
    NaN.

    Raises
    ------
    BadInput
        If the shapes differ, there are fewer than 3 spots, or `depth` (`(n,)` total counts) is not positive everywhere.
    """
    y, p = _checked(y, p, least=3)
    given = log_depth(depth, len(y))
    return _cosine(centered(y, given), centered(p, given))


def spearman(y, p) -> np.ndarray:
    """Pearson correlation of ranks over spots, ties averaged, `(G,)`. Raises as `pearson`."""
    from scipy.stats import rankdata

    y, p = _checked(y, p)
    constant = np.isnan(centered(y)[0] + centered(p)[0])
    scores = pearson(rankdata(y, axis=0), rankdata(p, axis=0))
    return np.where(constant, np.nan, scores)


def mse(y, p) -> np.ndarray:
    """Mean squared error over spots, in squared units, `(G,)`. Raises as `pearson`."""
    y, p = _checked(y, p)
    return ((np.asarray(p, dtype=float) - y) ** 2).mean(axis=0)


def r2(y, p) -> np.ndarray:
    """Share of the measured variance explained, `(G,)`; negative if worse than the mean. Raises as `pearson`."""
    y, p = _checked(y, p)
    return 1 - mse(y, p) / (centered(y) ** 2).mean(axis=0)


def rvd(y, p) -> np.ndarray:
    """Relative variance deviation `(var(p) - var(y))² / var(y)²`, `(G,)`; its mean is Stem's RVD (arXiv 2501.15598).

    Not a test of calibration: a calibrated posterior mean with correlation ρ to the measurement has RVD `(1 - ρ²)²`,
    so a value near 0 is right for single samples and overconfident for means.
    """
    y, p = _checked(y, p)
    variance = (centered(y) ** 2).mean(axis=0)
    return (np.var(np.asarray(p, dtype=float), axis=0) / variance - 1) ** 2


def genes_correlation_agreement(y, p) -> float:
    """Pearson between the gene-gene correlations of measured and predicted, over pairs of genes that vary in both.

    NaN with fewer than 3 such genes. Builds two `(G, G)` matrices.
    """
    y, p = _checked(y, p)
    y, p = centered(y), centered(p)
    varies = ~np.isnan(y[0] + p[0])
    if varies.sum() < 3:
        return float("nan")
    pairs = np.triu_indices(int(varies.sum()), k=1)
    agree = [np.corrcoef(side[:, varies], rowvar=False)[pairs][:, None] for side in (y, p)]
    return float(pearson(*agree)[0])


def mean_only(train_y, n_test: int) -> np.ndarray:
    """The baseline that knows nothing: each gene's training mean, `(n_test, G)`.

    Constant, so its correlation is NaN. Pooled over folds of one section it is constant within folds only, and
    negative: where the tested block is high the others are low. Every out-of-fold prediction carries that offset; this
    one shows its size.
    """
    return np.tile(np.mean(train_y, axis=0, dtype=float), (n_test, 1))


def depth_only(train_y, train_depth, test_depth) -> np.ndarray:
    """The baseline that knows only depth: per gene, least squares on log depth, `(n_test, G)`.

    An oracle where `test_depth` is the measured depth of the test spots: no image model is given that number.

    Raises
    ------
    BadInput
        If depths and rows do not match, or a depth is not positive.
    """
    train_y = np.asarray(train_y, dtype=float)
    x, test = log_depth(train_depth, len(train_y)), log_depth(test_depth, np.size(test_depth))
    center, mean = x.mean(), train_y.mean(axis=0)
    spread = ((x - center) ** 2).sum()
    slope = (x - center) @ (train_y - mean) / spread if np.std(x) > ROUNDING else np.zeros_like(mean)
    return mean + np.outer(test - center, slope)


def log1p_cp10k(counts: np.ndarray, library: np.ndarray) -> np.ndarray:
    """`log(1 + 10,000 counts / library)`; `counts` is `(n, G)`, `library` `(n,)`. A spot without counts is all zero."""
    return np.log1p(counts * (1e4 / np.maximum(library, 1))[:, None])


def noise_ceiling(
    counts: np.ndarray | spmatrix | sparray,
    library,
    *,
    transform: Callable[[np.ndarray, np.ndarray], np.ndarray] = log1p_cp10k,
    n_repeats: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """Highest Pearson that a predictor blind to these counts can expect against them, `(G,)`.

    Counts are split in two halves by binomial thinning (p = .5): for Poisson sampling the halves are independent given
    the true rate. Each is transformed over its own thinned library. Their correlation r, averaged over repeats, gives
    the reliability of the full counts by Spearman-Brown, `2 r / (1 + r)`, and its square root is the ceiling; negative
    r counts as 0.

    What depth explains counts as signal here, as it does in `pearson`. Approximate, as the transform is not linear and
    a half is shallower than the whole; on planted rates the mean over genes was off by -.02 to +.04, by which rates
    were planted, at 300 and 1500 spots; one gene is off by up to .3 at 1500 spots and .45 at 300, and pure noise
    averages .1. NaN for a constant gene.

    Parameters
    ----------
    counts
        `(n, G)` raw integer counts, sparse or dense; may be a panel of the genes behind `library`.
    library
        `(n,)` total counts per spot over all genes.
    transform
        From `(n, g)` counts and `(n,)` library to the unit that is scored.

    Raises
    ------
    BadInput
        If counts are not whole and non-negative, or exceed the library.
    """
    from scipy.sparse import csc_array

    whole = csc_array(counts)
    library = np.rint(np.asarray(library, dtype=float).ravel()).astype(np.int64)
    data, total = _checked_counts(whole, library)
    rng, n_genes = np.random.default_rng(seed), whole.shape[1]
    r = np.zeros(n_genes)
    for _ in range(n_repeats):
        kept = np.empty_like(data)
        for all_, half in zip(chunks(data, _AT_ONCE), chunks(kept, _AT_ONCE), strict=True):
            half[:] = rng.binomial(all_, 0.5)
        in_panel = _sums(whole.indices, kept, len(library))
        half_library = in_panel + rng.binomial(library - total, 0.5)
        halves = [csc_array((part, whole.indices, whole.indptr), shape=whole.shape) for part in (kept, data - kept)]
        libraries = half_library, library - half_library
        for block in gene_blocks(*whole.shape):
            a, b = (transform(h[:, block].toarray(), size) for h, size in zip(halves, libraries, strict=True))
            r[block] += np.nan_to_num(pearson(a, b))  # an empty half shows no signal
    r = np.clip(r / n_repeats, 0, 1)
    ceiling = np.sqrt(2 * r / (1 + r))
    for block in gene_blocks(*whole.shape):
        ceiling[block][np.isnan(centered(transform(whole[:, block].toarray(), library))[0])] = np.nan
    return ceiling


def _checked_counts(whole, library: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    data = np.rint(whole.data).astype(np.int32 if whole.data.max(initial=0) < 2**31 else np.int64)
    if (data < 0).any() or not np.array_equal(data, whole.data):
        raise BadInput("counts are not whole non-negative numbers; pass the raw counts, not normalized expression.")
    if len(library) != whole.shape[0]:
        raise BadInput(f"library has {len(library)} values for {whole.shape[0]} spots; pass one total count per spot.")
    total = _sums(whole.indices, data, len(library))
    over = int((total > library).sum())
    if over:
        raise BadInput(f"library is below the sum of counts at {over} of {len(library)} spots; pass full totals.")
    return data, total


def _sums(rows: np.ndarray, counts: np.ndarray, n: int) -> np.ndarray:
    """Sums of counts by row, without a copy of all of them in float64."""
    found = np.zeros(n, dtype=np.int64)
    for at, part in zip(chunks(rows, _AT_ONCE), chunks(counts, _AT_ONCE), strict=True):
        found += np.bincount(at, weights=part, minlength=n).astype(np.int64)
    return found


def gene_blocks(n: int, n_genes: int) -> list[slice]:
    """Slices of genes narrow enough that `n` rows of one, in float64, stay small."""
    width = max(1, _AT_ONCE // max(n, 1))
    return [slice(start, min(start + width, n_genes)) for start in range(0, n_genes, width)]


def interval(draws, level: float) -> tuple[float, float]:
    """Percentile interval of bootstrap draws, `(low, high)`; NaN draws are left out."""
    draws = np.asarray(draws)
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_mean(values, *, n: int = 1000, level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """Mean over units with its percentile interval, `(mean, low, high)`, units drawn with replacement.

    Units are what is independent: patients, sections, spatial blocks; never spots or genes. NaN units are left out.
    One unit says nothing about its own spread: `(mean, nan, nan)`. With fewer than about ten the interval is too
    narrow; read it as a floor.
    """
    values = np.asarray(values, dtype=float).ravel()
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return (float(values[0]) if len(values) else float("nan"), float("nan"), float("nan"))
    means = values[np.random.default_rng(seed).integers(len(values), size=(n, len(values)))].mean(axis=1)
    return float(values.mean()), *interval(means, level)
