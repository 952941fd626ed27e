"""Toy genes: windows of DNA in which a motif raises expression where it is accessible, and where alone it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, check_number
from sq_imputer.genes.windows import GeneWindows

if TYPE_CHECKING:
    from pandas import DataFrame

LETTERS = np.frombuffer(b"ACGT", dtype=np.uint8)
KINDS = ("active", "motif", "peak")
SLOT = 16  # bases that a site has to itself
PROMOTER = 24  # bases in the middle without a site
HEIGHT, WIDTH, NOISE = 1.5, 5.0, 0.1  # of the signal at a site, and of that around it
EFFECT, ERROR = 0.5, 0.05  # of an accessible motif on expression, and what else there is


def toy_genes(
    n: int = 300,
    *,
    length: int = 160,
    motif: str = "ATGACTCAT",
    tracks: bool = True,
    background: str | None = None,
    chromosomes: int = 3,
    seed: int = 0,
) -> tuple[GeneWindows, DataFrame]:
    """Genes that a planted motif raises where it is accessible, and decoys: the motif alone, and accessibility alone.

    Expression is .5 for every accessible motif (none to two a gene), with noise of .05. There are as many motifs that
    are not accessible, and as many accessible places without a motif, so that neither sequence nor signal alone tells
    more than half of the variance: no predictor of the signal alone exceeds a Pearson of .71.

    Parameters
    ----------
    n
        Genes.
    length
        Base pairs of a window.
    motif
        Letters of the motif, at most 16.
    tracks
        Whether there is a signal; without one, the motif alone raises expression and there are no decoys.
    background
        Letters of real DNA that windows are cut from; random ones if left out.
    chromosomes
        Chromosomes that the genes lie on.
    seed
        Of all that is drawn.

    Returns
    -------
    The windows, with the track `"signal"`, and a table of the sites: gene, position in the window, and kind,
    `"active"`, `"motif"` or `"peak"`.

    Examples
    --------
    >>> windows, sites = sqi.datasets.toy_genes(60)
    """
    import pandas as pd

    for name, value, least in (("n", n, 2), ("length", length, 7 * SLOT + PROMOTER), ("chromosomes", chromosomes, 1)):
        check_number(name, value, least, whole=True)
    if not 0 < len(motif) <= SLOT or set(motif) - set("ACGT"):
        raise BadInput(f"motif is {motif!r}; expected 1 to {SLOT} letters of A, C, G, T.")
    if background is not None and len(background) < length:
        raise BadInput(f"background has {len(background)} letters; windows have {length}.")
    rng = np.random.default_rng(seed)
    letters, signal = _background(rng, n, length, background), NOISE * np.abs(rng.normal(size=(n, length)))
    names = [f"gene{k}" for k in range(n)]
    kinds = [kind for kind in (KINDS if tracks else KINDS[:1]) for _ in range(2)]
    rows, active = [], np.zeros(n)
    for k in range(n):
        for kind, start in _sites(rng, kinds, length):
            rows.append({"gene": names[k], "position": start + len(motif) // 2, "kind": kind})
            if kind != "peak":
                letters[k, start : start + len(motif)] = np.frombuffer(motif.encode(), dtype=np.uint8)
            if kind != "motif":
                signal[k] += HEIGHT * np.exp(-0.5 * ((np.arange(length) - rows[-1]["position"]) / WIDTH) ** 2)
            active[k] += kind == "active"
    expression = EFFECT * active + ERROR * rng.normal(size=n)
    windows = _windows(names, letters, signal if tracks else None, expression, chromosomes)
    return windows, pd.DataFrame(rows, columns=["gene", "position", "kind"])


def _background(rng: np.random.Generator, n: int, length: int, background: str | None) -> np.ndarray:
    """Letters `(n, length)` uint8."""
    if background is None:
        return LETTERS[rng.integers(0, 4, (n, length))]
    whole = np.frombuffer(background.upper().encode(), dtype=np.uint8)
    return whole[rng.integers(0, len(whole) - length + 1, n)[:, None] + np.arange(length)]


def _sites(rng: np.random.Generator, kinds: list[str], length: int) -> list[tuple[str, int]]:
    """Kinds and starts of the sites of a window: none to two of each kind, none of them in the middle."""
    starts = np.arange(0, length - SLOT + 1, SLOT)
    middle = (length - PROMOTER) // 2
    free = starts[(starts + SLOT <= middle) | (starts >= middle + PROMOTER)]
    chosen = [kind for kind in dict.fromkeys(kinds) for _ in range(rng.integers(0, 3))]
    return list(zip(chosen, rng.permutation(free)[: len(chosen)].tolist(), strict=True))


def _windows(names, letters, signal, expression, chromosomes: int) -> GeneWindows:
    """Windows that lie one after the other on chromosomes of their own."""
    import pandas as pd

    n, length = letters.shape
    number = np.arange(n) * chromosomes // n
    place = np.concatenate([np.arange((number == k).sum()) for k in range(chromosomes)])
    chroms = [f"chr{k + 1}" for k in number]
    about = {"chrom": chroms, "tss": place * length + length // 2, "strand": "+", "expression": expression}
    fasta = {f"chr{k + 1}": letters[number == k].tobytes().decode() for k in range(chromosomes)}
    tracks = None
    if signal is not None:
        tracks = {"signal": {f"chr{k + 1}": signal[number == k].ravel() for k in range(chromosomes)}}
    table = pd.DataFrame(about, index=names)
    return GeneWindows.from_table(table, fasta, tracks=tracks, target="expression", length=length)
