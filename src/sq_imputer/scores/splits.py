"""Who is trained on and who is tested: patients, sections, or spatial blocks with a buffer between them.

Neighboring spots share tissue, crops and ambient RNA, and sections of one patient share the patient, so rows drawn at
random measure memory. Arrays in, boolean masks out; labels and coordinates never leave their rows' order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sq_imputer.errors import BadInput, check_number, listed
from sq_imputer.places import APART_UM, grades, order

LEAST_TRAIN = 10  # rows; below, a fit says nothing whatever the model
GOLDEN_TURN = np.pi * (3 - 5**0.5)  # of its multiples no two have the same direction, and few ones lie far apart


@dataclass(frozen=True, eq=False)
class Split:
    """One fold.

    Parameters
    ----------
    name
        What is tested: `"block 3"`, or the label of a patient or section.
    train
        `(n,)` bool.
    test
        `(n,)` bool, disjoint from `train`; rows of neither lie in the buffer.
    shares_patient
        True if some patient is on both sides: the score is then one of replicates, not of new patients.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    shares_patient: bool = False


def _points(xy_um, n_parts: int, what: str) -> np.ndarray:
    xy = np.asarray(xy_um, dtype=float)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise BadInput(f"xy_um is {xy.shape}, {(~np.isfinite(xy)).sum()} values not finite; pass (n, 2) finite µm.")
    check_number(f"the number of {what}", n_parts, 1, whole=True)
    if not 1 <= n_parts <= len(xy):
        raise BadInput(f"{n_parts} {what} asked for and there are {len(xy)} spots; ask for 1 to {len(xy)}.")
    return xy


def strips(xy_um, n_strips: int, *, axis: int = 0) -> np.ndarray:
    """Labels `(n,)` of strips across x (`axis=0`) or y (`axis=1`) with equally many spots, to within one.

    Raises
    ------
    BadInput
        If coordinates are not finite `(n, 2)`, or there are fewer spots than strips.
    """
    xy = _points(xy_um, n_strips, "strips")
    labels = np.empty(len(xy), dtype=int)
    for label, rows in enumerate(np.array_split(order(xy, axis), n_strips)):
        labels[rows] = label
    return labels


def spatial_blocks(xy_um, n_blocks: int, *, turn: int = 0) -> np.ndarray:
    """Labels `(n,)` of compact blocks with equally many spots, to within one: the longer side is cut, again and again.

    Nothing is random, and neither the order of the rows nor rounding matters (`sq_imputer.places`): of sides that
    are equally long x is cut. Another `turn` (0, 1, ...) is another partition, whose borders have other directions.

    Raises
    ------
    BadInput
        If coordinates are not finite `(n, 2)`, or there are fewer spots than blocks.
    """
    xy = _points(xy_um, n_blocks, "blocks")
    xy = _turned(xy, turn)
    sizes = [len(part) for part in np.array_split(np.arange(len(xy)), n_blocks)]
    labels, grade = np.empty(len(xy), dtype=int), grades(xy)

    def cut(rows: np.ndarray, first: int, last: int) -> None:
        if last - first == 1:
            labels[rows] = first
            return
        middle = (first + last) // 2
        across, down = np.ptp(xy[rows], axis=0)
        axis = int(down > across + 2 * APART_UM)  # each of the four ends may have moved
        rows = rows[np.lexsort((grade[rows, 1 - axis], grade[rows, axis]))]
        here = sum(sizes[first:middle])
        cut(rows[:here], first, middle)
        cut(rows[here:], middle, last)

    cut(np.arange(len(xy)), 0, n_blocks)
    return labels


def _turned(xy: np.ndarray, turn: int) -> np.ndarray:
    """Places turned about the origin, by as many golden angles; none is as they are, to the last bit."""
    if not turn:
        return xy
    cos, sin = np.cos(turn * GOLDEN_TURN), np.sin(turn * GOLDEN_TURN)
    return xy @ np.array([[cos, sin], [-sin, cos]])


def check_folds(n_folds: int, buffer_um: float | None, n_repeats: int = 1) -> None:
    """Raise `BadInput` unless spatial folds can be made with these arguments; a buffer of None is chosen later."""
    check_number("n_folds", n_folds, 2, whole=True)
    check_number("n_repeats", n_repeats, 1, whole=True)
    if buffer_um is not None:
        check_number("buffer_um", buffer_um)


def folds(xy_um, n_folds: int = 5, *, buffer_um: float, blocks=None, turn: int = 0) -> list[Split]:
    """Spatial blocks of one section, each tested once; spots within `buffer_um` of a tested one are not trained on.

    Parameters
    ----------
    xy_um
        `(n, 2)` centers.
    n_folds
        Number of blocks, by `spatial_blocks`.
    buffer_um
        Distance between tested and trained centers. The crop's extent keeps their pixels apart.
    blocks
        `(n,)` labels to use instead of `n_folds` blocks, as from `strips`.
    turn
        Which partition into `n_folds` blocks, as `spatial_blocks` takes it.

    Raises
    ------
    BadInput
        If there are fewer than 2 folds, fewer spots than folds, or fewer than 10 spots left to train on.
    """
    check_folds(n_folds, buffer_um)
    if blocks is None and len(xy_um) < n_folds:
        raise BadInput(
            f"n_folds is {n_folds} and there are {len(xy_um)} measured spots; expected more spots than folds. Pass a "
            "smaller n_folds, or have the model fitted on other sections."
        )
    labels = spatial_blocks(xy_um, n_folds, turn=turn) if blocks is None else np.asarray(blocks)
    xy, names = np.asarray(xy_um, dtype=float), np.unique(labels)
    if len(labels) != len(xy) or len(names) < 2:
        raise BadInput(
            f"{len(names)} folds of {len(labels)} labels for {len(xy)} spots; a split needs 2 folds or more."
        )
    splits = []
    for name in names:
        test = labels == name
        train = ~test & ~_near(xy, test, buffer_um)
        if train.sum() < LEAST_TRAIN:
            raise BadInput(
                f"fold {name}: {train.sum()} of {len(xy)} spots are left to train on, {test.sum()} are tested and "
                f"{(~test & ~train).sum()} lie within buffer_um={buffer_um:g} of them; {LEAST_TRAIN} are needed. "
                "Pass a smaller buffer_um, or more folds: smaller blocks leave more to train on."
            )
        splits.append(Split(f"block {name}", train, test))
    return splits


def _near(xy: np.ndarray, test: np.ndarray, buffer_um: float) -> np.ndarray:
    from scipy.spatial import cKDTree

    # the bound is exclusive and infinity is the answer beyond it; this one includes spots at exactly the buffer, moved
    return np.isfinite(cKDTree(xy[test]).query(xy, distance_upper_bound=buffer_um + APART_UM)[0])


def by_patient(groups: Sequence[str]) -> list[Split]:
    """Leave one patient out: a split per label of `groups`, `(n,)`, one per row or one per source.

    Raises
    ------
    BadInput
        If there is only one patient.
    """
    groups = np.asarray(groups).astype(str)
    names = list(dict.fromkeys(groups))
    if len(names) < 2:
        raise BadInput(
            f"a split by patient needs 2 patients or more; all {len(groups)} labels are {listed(names)}. "
            "Split by_section(..., share_patient=True), or folds(xy_um) within a section, and report it as such."
        )
    return [Split(name, groups != name, groups == name) for name in names]


def _sections_of_patients(groups: np.ndarray, sections: np.ndarray) -> list[tuple[str, str]]:
    """A section is one of a patient: two patients may both have a "1"."""
    return list(dict.fromkeys(zip(groups.tolist(), sections.tolist(), strict=True)))


def by_section(sections: Sequence[str], groups: Sequence[str], *, share_patient: bool = False) -> list[Split]:
    """Leave one section out, `(n,)` labels; other sections of its patient are trained on only with `share_patient`.

    Without it, a section whose patient has others is an error, not a smaller training set: the caller is to know which
    of the two is reported. Splits that share are marked `shares_patient`. Sections of an unknown patient (an empty
    label) count as one patient's, as nothing says otherwise.

    Raises
    ------
    BadInput
        If there is only one section, or a patient is shared and `share_patient` is False.
    """
    groups, sections = np.asarray(groups).astype(str), np.asarray(sections).astype(str)
    if len(sections) != len(groups):
        raise BadInput(f"{len(sections)} section labels and {len(groups)} patient labels; pass one of each per row.")
    pairs = _sections_of_patients(groups, sections)
    if len(pairs) < 2:
        raise BadInput(
            f"a split by section needs 2 sections or more; found {listed(dict.fromkeys(sections))}. Use folds(xy_um)."
        )
    splits, repeated = [], len(set(sections)) < len(pairs)
    for group, section in pairs:
        test = (groups == group) & (sections == section)
        name = f"{group} {section}" if repeated else section
        splits.append(Split(name, ~test, test, shares_patient=bool((groups[~test] == group).any())))
    shared = [split.name for split in splits if split.shares_patient]
    if shared and not share_patient:
        raise BadInput(
            f"sections {listed(shared)} have a patient who also has other sections: training on those would measure "
            "replicates. Use by_patient(groups), or pass share_patient=True and report it as such."
        )
    return splits


def whole_parts(groups, sections) -> np.ndarray | None:
    """Numbers `(n,)` of individuals where rows have several, else of sections; None where all are of one section."""
    for labels in (groups, sections):
        names = {label: number for number, label in enumerate(dict.fromkeys(np.asarray(labels).tolist()))}
        if len(names) > 1:
            return np.array([names[label] for label in np.asarray(labels).tolist()])
    return None


def half_of(sections, xy_um, rows: np.ndarray) -> np.ndarray:
    """Half of `rows`, both masks `(n,)`: a compact half of those of every section."""
    sections, xy = np.asarray(sections), np.asarray(xy_um, dtype=float)
    half = np.zeros(len(rows), dtype=bool)
    for section in dict.fromkeys(sections[rows].tolist()):
        own = np.flatnonzero(rows & (sections == section))
        half[own[spatial_blocks(xy[own], min(len(own), 2)) == 0]] = True
    return half


def left_out(groups, sections, xy_um, n_folds: int, *, buffer_um: float) -> list[Split]:
    """Folds in which every training row is left out once, to measure an error: of at most `n_folds`.

    Whole individuals where there are several, else whole sections, else spatial blocks beyond a buffer (without, where
    it would leave too few rows). None if fewer than 2 folds are asked for, or there are fewer than 4 rows.

    Parameters
    ----------
    groups, sections
        `(n,)` labels of individual and section.
    xy_um
        `(n, 2)` centers, each in the coordinates of its own section.
    n_folds
        Most folds.
    buffer_um
        Distance between trained and left-out centers of one section.
    """
    xy = np.asarray(xy_um, dtype=float)
    if n_folds < 2 or len(xy) < 4:
        return []
    whole = whole_parts(groups, sections)
    if whole is not None:
        fold = whole % n_folds
        splits = [Split(f"fold {k}", fold != k, fold == k) for k in range(fold.max() + 1)]
        return [split for split in splits if split.train.sum() > 1]
    n_folds = min(n_folds, len(xy) // 2)
    try:
        return folds(xy, n_folds, buffer_um=buffer_um)
    except BadInput:  # few rows: those that share pixels are better than none
        fold = spatial_blocks(xy, n_folds)
        return [Split(f"block {k}", fold != k, fold == k) for k in range(n_folds)]


def told_apart(names: Sequence[str]) -> list[str]:
    """Names that tell sections apart: of those that have one name each gets its number behind it."""
    names = list(names)
    return [f"{name}-{names[:k].count(name) + 1}" if names.count(name) > 1 else name for k, name in enumerate(names)]


def inner_split(groups, sections, xy_um, fraction: float = 0.1, *, seed: int = 0) -> np.ndarray:
    """Validation mask `(n,)` for early stopping: about `fraction` of the rows, kept together.

    Whole patients if there are more than two, else whole sections if there are more than two, else a spatial block of
    every section. Rows without a place (`xy_um=None`, such as genes) are drawn one by one in that last case. `seed`
    says which; equal seeds give equal masks.

    Parameters
    ----------
    groups
        `(n,)` patient labels.
    sections
        `(n,)` section labels.
    xy_um
        `(n, 2)` centers, each in the coordinates of its own section; or None.
    fraction
        Share of patients, sections, or spots to hold out; between 0 and 1.
    seed
        Of the choice.

    Raises
    ------
    BadInput
        If `fraction` is not between 0 and 1, or there are fewer than 2 rows.
    """
    groups, sections = np.asarray(groups).astype(str), np.asarray(sections).astype(str)
    if not 0 < fraction < 1:
        raise BadInput(f"fraction is {fraction}; the share of rows held out is between 0 and 1.")
    if len(groups) < 2:
        raise BadInput(f"{len(groups)} rows cannot be split into training and validation; fit on 2 or more.")
    rng = np.random.default_rng(seed)
    number = {pair: i for i, pair in enumerate(_sections_of_patients(groups, sections))}
    section_of = np.array([number[pair] for pair in zip(groups.tolist(), sections.tolist(), strict=True)])
    patients = {group: i for i, group in enumerate(dict.fromkeys(groups.tolist()))}
    for labels in (np.array([patients[group] for group in groups.tolist()]), section_of):
        if labels.max() >= 2:
            return np.isin(labels, _drawn(labels.max() + 1, fraction, rng))
    held = np.zeros(len(groups), dtype=bool)
    for label in range(len(number)) if xy_um is not None else ():
        rows = np.flatnonzero(section_of == label)
        if len(rows) > 1:
            blocks = spatial_blocks(np.asarray(xy_um)[rows], min(len(rows), max(2, round(1 / fraction))))
            held[rows[blocks == rng.integers(blocks.max() + 1)]] = True
    if not held.any():
        held[_drawn(len(held), fraction, rng)] = True
    return held


def _drawn(n: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """About `fraction` of `n` numbers, at least one and never all."""
    return rng.permutation(n)[: min(n - 1, max(1, round(fraction * n)))]
