"""Which windows may be trained on and tested together: those that share no base.

Windows of neighboring genes overlap: at 200,000 bp most do. A model that was trained on one has seen much of the other,
and its signals, so genes are parted by whole chromosomes. Paralogs on other chromosomes stay alike; nothing here finds
them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.cut import Loci, Sequences
from sq_imputer.genes.genome import UNKNOWN
from sq_imputer.genes.windows import GeneWindows

Sources = GeneWindows | Sequence[GeneWindows]
Spans = dict[str, list[tuple[int, int, str]]]  # by chromosome: where windows begin and end, and their genes


def split_by_chromosome(windows: GeneWindows, test: Sequence[str]) -> tuple[list[GeneWindows], list[GeneWindows]]:
    """Sources to train on and sources to test, one per chromosome (or group).

    Parameters
    ----------
    windows
        Genes of several chromosomes.
    test
        The chromosomes that are tested, such as `("chr22", "chrX")`.

    Raises
    ------
    MissingKey
        If there are no genes on one of them.
    BadInput
        If none is left to train on, or sequences at hand are on both sides.
    """
    parts = windows.by_chromosome()
    names = [part.section for part in parts]
    test = [test] if isinstance(test, str) else list(test)
    missing = [name for name in test if name not in names]
    if missing or not test:
        raise MissingKey(f"no genes on {listed(missing)}; there are some on {listed(names, 30)}. Pass test= of these.")
    train, tested = ([p for p in parts if (p.section in test) == side] for side in (False, True))
    if not train:
        raise BadInput(f"all chromosomes are tested: {listed(names)}. Leave some to train on.")
    check_split(train, tested)
    return train, tested


def check_split(train: Sources, test: Sources) -> None:
    """Check that no window of one side shares a base with one of the other; of sequences, that none is on both sides.

    Raises
    ------
    BadInput
        If some do; the message names them, and the fix.
    """
    train, test = ([side] if isinstance(side, GeneWindows) else list(side) for side in (train, test))
    found = _overlaps(_spans(train), _spans(test))
    if found:
        what = f"windows of {len(found)} tested genes overlap windows that are trained on, such as "
        fix = (
            "Split by whole chromosomes: genes.split_by_chromosome(windows, test=...), or leave out the genes between."
        )
        raise BadInput(f"{what}'{found[0][0]}' and '{found[0][1]}'. {fix}")
    found = _same(_letters(train), _letters(test))
    if found:
        what = f"{len(found)} tested sequences are trained on as well, such as '{found[0][0]}', which is "
        raise BadInput(f"{what}'{found[0][1]}'. Give equal sequences one label of group=, or drop them.")


def _spans(sources: Sequence[GeneWindows]) -> Spans:
    """Windows on a genome."""
    found: Spans = {}
    for source in (source for source in sources if isinstance(source.cut, Loci)):
        for row, (chrom, name) in enumerate(zip(source.cut.chroms, source.names, strict=True)):
            found.setdefault(chrom, []).append((*source.cut.span(row, source.length), name))
    return found


def _overlaps(train: Spans, test: Spans) -> list[tuple[str, str]]:
    """Names of every tested gene that shares a base with a trained one, and of that one."""
    pairs = []
    for chrom in sorted(train.keys() & test.keys()):
        known = sorted(train[chrom])
        starts, ends = (np.array([one[k] for one in known]) for k in (0, 1))
        reach = np.maximum.accumulate(ends)
        for start, end, name in test[chrom]:
            before = int(np.searchsorted(starts, end, "left"))  # those that begin before this one ends
            if before and reach[before - 1] > start:
                pairs.append((name, known[int(ends[:before].argmax())][2]))
    return pairs


def _letters(sources: Sequence[GeneWindows]) -> dict[bytes, str]:
    """Sequences at hand, and what they are called; of genes told by text alone there is no base to be shared."""
    some = (source for source in sources if isinstance(source.cut, Sequences))
    rows = ((source.cut.whole(row), name) for source in some for row, name in enumerate(source.names))
    return {bases.tobytes(): name for bases, name in rows if (bases != UNKNOWN).any()}


def _same(train: dict[bytes, str], test: dict[bytes, str]) -> list[tuple[str, str]]:
    return [(name, train[letters]) for letters, name in test.items() if letters in train]
