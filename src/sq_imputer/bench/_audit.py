"""What training, validation and test share, before anything is fitted: what is not printed is found by reviewers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, listed
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.section.slide import Slide

KINDS = ("patient", "section", "counts", "crop", "gene")
SIDE = 16  # of the picture that a crop is compared by
NEAR = 40  # of its 256 bits that may differ: a shift by a pixel of .7 µm changes up to 34, other tissue 86 or more
FLAT = 4.0  # gray values; a crop that varies less shows nothing to be compared
_AT_ONCE = 2**22


@verb
def audit(
    parts: Mapping[str, Sequence[Slide]],
    *,
    genes: Mapping[str, Sequence[str]] | None = None,
    allow: Sequence[str] = (),
    crops: bool = True,
    spec: CropSpec | None = None,
) -> DataFrame:
    """Print what parts of a split share, and refuse what was not allowed by name.

    Parameters
    ----------
    parts
        Sections by part, such as `{"train": [...], "validation": [...], "test": [...]}`.
    genes
        Genes by part, where whole genes are held out.
    allow
        Kinds of overlap that are meant: `"patient"`, `"section"`, `"counts"` (rows with the same counts), `"crop"`
        (crops that look the same), `"gene"`.
    crops
        Compare crops; reads those of all sections once.
    spec
        Which crops; 112 µm if left out.

    Returns
    -------
    A row per overlap: `kind`, `one` and `other` (parts), `what`, `n` (rows of the second part, or 1), `allowed`. Empty
    where nothing is shared.

    Raises
    ------
    BadInput
        If there is an overlap of a kind that is not allowed, or `allow` names no kind.

    Examples
    --------
    >>> slides = [sqi.Slide.from_sdata(section) for section in sections]
    >>> found = sqi.bench.audit({"train": slides[:1], "test": slides[1:]})
    """
    check_kinds(allow)
    spec = CropSpec.of(spec)
    hashes = {id(s): crop_hashes(s, spec) for part in parts.values() for s in part} if crops else {}
    return audited(parts, hashes, genes=genes, allow=allow)


def check_kinds(allow: Sequence[str]) -> None:
    """Raise `BadInput` unless all of these are kinds of overlap."""
    strange = [kind for kind in allow if kind not in KINDS]
    if strange:
        raise BadInput(f"allow has {listed(strange)}; expected some of {listed(KINDS)}.")


def audited(
    parts: Mapping[str, Sequence[Slide]],
    hashes: Mapping[int, np.ndarray],
    *,
    genes: Mapping[str, Sequence[str]] | None = None,
    allow: Sequence[str] = (),
) -> DataFrame:
    """The same with what crops look like by the `id` of their section, so that many splits read each crop once."""
    import pandas as pd

    rows = []
    for (one, mine), (other, theirs) in combinations(parts.items(), 2):
        for kind, what, n in _shared(mine, theirs, hashes):
            rows.append((kind, one, other, what, n, kind in allow))
    for one, other in combinations(genes or {}, 2):
        both = sorted(set(genes[one]) & set(genes[other]))
        if both:
            rows.append(("gene", one, other, listed(both), len(both), "gene" in allow))
    table = pd.DataFrame(rows, columns=["kind", "one", "other", "what", "n", "allowed"])
    _refuse(table)
    return table


def _refuse(table: DataFrame) -> None:
    wrong = table[~table["allowed"].astype(bool)]
    if len(wrong):
        said = "; ".join(f"{r.kind}: {r.one} and {r.other} share {r.what} ({r.n})" for r in wrong[:4].itertuples())
        kinds = listed(dict.fromkeys(wrong["kind"]))
        raise BadInput(f"the split leaks. {said}. Take them out of one part, or allow={kinds} if that is meant.")


def _shared(mine: Sequence[Slide], theirs: Sequence[Slide], hashes: Mapping) -> Iterator[tuple[str, str, int]]:
    """Kind, what, and number of rows, of what two parts share."""
    for kind, name in (("patient", "group"), ("section", "section")):
        known = {getattr(slide, name) for slide in mine}
        for value in dict.fromkeys(getattr(slide, name) for slide in theirs):
            if value in known:
                yield kind, f"'{value}'", sum(len(s) for s in theirs if getattr(s, name) == value)
    for one in mine:
        for other in theirs:
            pair = f"rows of '{one.section}' and '{other.section}'"
            n = int(other.among(one.marks(())).sum()) if one.counts is not None else 0
            if n:
                yield "counts", pair, n
            n = int(alike(hashes[id(other)], hashes[id(one)]).sum()) if hashes else 0
            if n:
                yield "crop", pair, n


def crop_hashes(slide: Slide, spec: CropSpec) -> np.ndarray:
    """`(n, 4)` uint64: of every crop, whether each of 16 x 16 places is brighter than the next; 0 of flat ones."""
    found = np.zeros((len(slide), SIDE * SIDE // 64), dtype=np.uint64)
    small = CropSpec(spec.extent_um, 4 * (SIDE + 1))
    for rows, pixels in slide.crops(small).batches(256):
        gray = pixels.astype(np.float32).mean(axis=1).reshape(len(rows), SIDE + 1, 4, SIDE + 1, 4).mean(axis=(2, 4))
        brighter = gray[:, :SIDE, :SIDE] > gray[:, :SIDE, 1:]
        bits = np.packbits(brighter.reshape(len(rows), -1), axis=1).view(np.uint64)
        found[rows] = np.where(gray.std(axis=(1, 2))[:, None] > FLAT, bits, 0)
    return found


def alike(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """`(n,)` whether a crop looks as one of the others does; flat ones look like nothing."""
    found = np.zeros(len(mine), dtype=bool)
    theirs = theirs[theirs.any(axis=1)]
    if not len(theirs):
        return found
    for rows in np.array_split(np.arange(len(mine)), max(1, len(mine) * len(theirs) // _AT_ONCE)):
        apart = np.bitwise_count(mine[rows][:, None] ^ theirs[None]).sum(axis=2)
        found[rows] = (apart <= NEAR).any(axis=1)
    return found & mine.any(axis=1)
