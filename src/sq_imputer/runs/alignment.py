"""Where expression lies best on the image: coarse to fine, with draws, a null, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput
from sq_imputer.progress import track
from sq_imputer.runs.turned import AS_IT_IS, REACH, STEPS, Turn, around, mirrored
from sq_imputer.scores import shifts
from sq_imputer.scores.shifts import Parts, Tried
from sq_imputer.scores.smoothness import sampled
from sq_imputer.scores.splits import spatial_blocks
from sq_imputer.section.lattice import pitch
from sq_imputer.section.smooth import Smooth, smooth

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.section.slide import Slide

LEAST_SPOTS = 30
CANDIDATES, N_GENES, N_COMPONENTS = 500, 200, 6
COARSE_UM = 100.0  # rows that lie closer are first looked at in squares of this side
FINER = 2.5  # times, from one look to the next
N_NULL, N_DRAWS = 39, 300
LEVEL = 0.05
TOLERANCE = 0.25  # of the distance of neighbors, by which a section may be off and is aligned
UNCERTAIN = 2.0  # times that distance, within which a section must lie to be called aligned
LEAST_OF_REGION = 150  # rows
AGAIN = 3  # times that the best shift is looked for around itself
ALIGNED, OFF, UNTOLD = "aligned", "off", "cannot be told"


@dataclass(frozen=True, eq=False)
class Alignment:
    """What :func:`sq_imputer.pp.alignment` found.

    Parameters
    ----------
    section
        Name of the section.
    verdict
        `"aligned"`, `"off"`, or `"cannot be told"`.
    reason
        The verdict in a sentence, with numbers.
    shift_um
        `(2,)` by how much the shapes must be moved, along x and y of the coordinate system, to lie on the image.
    low_um, high_um
        `(2,)` interval of 95 % of that, over spatial blocks drawn with replacement.
    within_um
        Distance that 95 % of these draws do not exceed.
    turn
        What is done before the shift: `"as it is"`, or a mirror image, turn or scale that is better.
    matrix_um
        `(3, 3)` both together, from places in µm to places on the image in µm.
    skill, skill_as_it_is
        Share of the variance of expression that the image explains out of fold, so placed, and as it is.
    p, null
        Share of displaced sections that find as good a place, and the best skill of each.
    against_shift
        A row per shift that was tried: `look` (0 is the coarsest), `x_um`, `y_um`, `skill`.
    regions
        A row per part of the section, where there are enough rows: `x_um`, `y_um` of its middle, `shift_x_um`,
        `shift_y_um`, and `within_um` of that.
    pitch_um
        Distance of neighboring rows.
    coordinate_system, transformation
        The transformation of the shapes after which they lie on the image there, as
        `spatialdata.transformations.set_transformation` takes it; that of now unless the section is off.
    """

    section: str
    verdict: str
    reason: str
    shift_um: np.ndarray
    low_um: np.ndarray
    high_um: np.ndarray
    within_um: float
    turn: str
    matrix_um: np.ndarray
    skill: float
    skill_as_it_is: float
    p: float
    null: np.ndarray
    against_shift: DataFrame
    regions: DataFrame
    pitch_um: float
    coordinate_system: str = "global"
    transformation: object = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Look:
    """Rows of a section: places `(n, 2)`, targets `(n, K)`, parts, how far neighbors lie apart, and what they see."""

    xy_um: np.ndarray
    targets: np.ndarray
    parts: Parts
    apart_um: float
    seen: Smooth

    def tried(self, turn: Turn, where: np.ndarray) -> Tried:
        """What is found at some shifts `(D, 2)`, once the places are turned."""
        return shifts.attempt(self.seen, turn(self.xy_um), self.targets, where, self.parts)


def align(slide: Slide, search_um: float, also: Sequence[str], seed: int) -> Alignment:
    """Where the expression of a section lies best on its image.

    Raises
    ------
    BadInput
        If fewer than 30 rows have counts.
    """
    looks = _looks(slide, search_um, seed)
    first, whole = looks[0], shifts.grid(np.zeros(2), search_um, looks[0].apart_um / 2)
    plain = first.tried(AS_IT_IS, whole)
    turn, coarse = _turned(first, whole, also, slide.frame.box_um, plain)
    tried = _refined(looks, turn, coarse)
    if turn is not AS_IT_IS:
        own = _refined(looks, AS_IT_IS, plain)
        if not _surely_better(tried[-1], own[-1], seed):
            turn, tried = AS_IT_IS, own
    null = shifts.null(first.seen, first.xy_um, first.targets, whole, first.parts, n=N_NULL, seed=seed)
    skill = float(tried[0].skill.max())
    p = (1 + int((null >= skill).sum())) / (1 + len(null))
    here = float(looks[-1].tried(AS_IT_IS, np.zeros((1, 2))).skill[0])
    return _said(slide.section, looks, turn, tried, search_um, seed, {"p": p, "null": null, "skill_as_it_is": here})


def _looks(slide: Slide, search_um: float, seed: int) -> list[Look]:
    """Rows with counts, coarse first: where they lie closer than 100 µm, the first looks are at squares of them."""
    rows = np.flatnonzero(slide.measured & (np.nan_to_num(slide.depth) > 0))
    if len(rows) < LEAST_SPOTS:
        raise BadInput(
            f"section '{slide.section}' has {len(rows)} rows with counts; alignment needs {LEAST_SPOTS} or more. Pass "
            "table_key= of a table with counts, or align it by hand."
        )
    xy, depth, counts = slide.xy_um[rows], slide.depth[rows], _counts(slide)[rows]
    low, high, apart = xy.min(axis=0) - search_um, xy.max(axis=0) + search_um, pitch(xy)
    found, side = [], COARSE_UM
    while side > 1.5 * apart:
        middle, (summed, deep) = shifts.bins(xy, side, [counts, depth])
        if len(middle) >= LEAST_SPOTS:
            found.append(_look(middle, summed, deep, side, smooth(slide.frame, low, high, side)))
        side /= FINER
    own, window = sampled(len(rows), seed), float(np.median(slide.size_um[rows]))
    found.append(_look(xy[own], counts[own], depth[own], apart, smooth(slide.frame, low, high, window)))
    return found


def _counts(slide: Slide) -> np.ndarray:
    """Counts `(n, G)` of up to 200 genes: the most variable of those that have most."""
    total = np.zeros(len(slide.var_names))
    for _, columns, block in slide.counts.blocks():
        total[columns] += np.asarray(block.sum(axis=0)).ravel()
    most = np.argsort(-total, kind="stable")[:CANDIDATES]
    counts = slide.counts.columns(most[total[most] > 0].tolist()).toarray().astype(float)
    values = np.log1p(counts * (1e4 / np.maximum(np.nan_to_num(slide.depth), 1))[:, None])
    return counts[:, np.argsort(-values.var(axis=0), kind="stable")[:N_GENES]]


def _look(xy: np.ndarray, counts: np.ndarray, depth: np.ndarray, apart: float, seen: Smooth) -> Look:
    values = np.log1p(counts * (1e4 / depth)[:, None])
    return Look(xy, shifts.components(values, depth, N_COMPONENTS), Parts.of(xy), apart, seen)


def _turned(
    first: Look, whole: np.ndarray, also: Sequence[str], box_um: np.ndarray, plain: Tried
) -> tuple[Turn, Tried]:
    """The best of the turns that are asked for, each at all shifts."""
    best = AS_IT_IS, plain

    def better(turns: list[Turn]) -> tuple[Turn, Tried]:
        found = [best] + [(turn, first.tried(turn, whole)) for turn in track(turns, "turns", len(turns))]
        return max(found, key=lambda one: one[1].skill.max())

    if "flip" in also:
        best = better(list(mirrored(box_um)))
    for kind in (kind for kind in STEPS if kind in also):
        base, value, reach = best[0], 0.0, REACH[kind]
        for step in STEPS[kind]:
            values = [value + k * step for k in range(-reach, reach + 1) if value + k * step]
            turns = [around(base, kind, one, base(first.xy_um).mean(axis=0)) for one in values]
            best = better(turns)
            value, reach = dict(zip(map(id, turns), values, strict=True)).get(id(best[0]), value), 2
    return best


def _refined(looks: Sequence[Look], turn: Turn, coarse: Tried) -> list[Tried]:
    """What is found around the best shift, look by look, finer and finer; the last is the finest."""
    found, step = [coarse], looks[0].apart_um / 2
    for k, look in enumerate(looks):
        if k == 0 and len(looks) > 1:
            continue
        last = look is looks[-1]
        reach = max(1.5 * step, look.apart_um / 2)
        step = min(look.apart_um / (8 if last else 4), reach / 3)
        for _ in range(AGAIN):
            tried = look.tried(turn, shifts.grid(found[-1].best(), reach, step))
            found.append(tried)
            if np.abs(tried.best() - tried.shifts.mean(axis=0)).max() < reach - step:
                break
    return found


def _surely_better(one: Tried, other: Tried, seed: int) -> bool:
    """Whether one explains more than another whichever blocks are drawn."""
    gain = other.errors[other.errors.sum(axis=1).argmin()] - one.errors[one.errors.sum(axis=1).argmin()]
    drawn = np.random.default_rng(seed).choice(gain, (N_DRAWS, len(gain))).sum(axis=1)
    return bool((drawn > 0).mean() > 1 - LEVEL / 2)


def _said(
    section: str, looks: Sequence[Look], turn: Turn, tried: Sequence[Tried], search_um: float, seed: int, more: dict
) -> Alignment:
    """The verdict."""
    last, fine = looks[-1], tried[-1]
    shift, draws = fine.best(), fine.draws(N_DRAWS, seed)
    low, high = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2), axis=0)
    within = float(np.quantile(np.hypot(*draws.T), 1 - LEVEL))
    near = float((np.hypot(*draws.T) <= TOLERANCE * last.apart_um).mean())
    edge = np.abs(shift).max() >= search_um - looks[0].apart_um / 4
    spread = float(np.quantile(np.hypot(*(draws - shift).T), 1 - LEVEL))
    verdict, reason = _verdict(turn, shift, within, near, edge, spread, last.apart_um, search_um, more["p"])
    matrix = np.eye(3)
    matrix[:2, 2] = shift
    return Alignment(
        section=section,
        verdict=verdict,
        reason=reason,
        shift_um=shift,
        low_um=low,
        high_um=high,
        within_um=within,
        turn=turn.name,
        matrix_um=matrix @ turn.matrix,
        skill=float(fine.skill.max()),
        against_shift=_against(tried),
        regions=_regions(last, fine, seed),
        pitch_um=last.apart_um,
        **more,
    )


def _verdict(turn: Turn, shift, within, near, edge, spread, apart: float, search_um: float, p: float):
    far = f"({shift[0]:+.0f}, {shift[1]:+.0f}) µm"
    if p > LEVEL:
        return UNTOLD, (
            f"no place within {search_um:g} µm lets the image explain expression better than that of a displaced "
            f"section (p = {p:.2f})"
        )
    if edge:
        return UNTOLD, f"the best place lies at the edge of what was searched, {far}: pass a larger search_um"
    if spread > UNCERTAIN * apart:
        return UNTOLD, f"the best place, {far}, is uncertain by {spread:.0f} µm, more than {UNCERTAIN:g} spots apart"
    if turn is AS_IT_IS and near >= LEVEL:
        return ALIGNED, f"image and expression lie on each other within {within:.0f} µm"
    done = "" if turn is AS_IT_IS else f"the shapes should be {turn.name}, then "
    return OFF, f"{done}off by {far}, uncertain by {spread:.0f} µm"


def _against(tried: Sequence[Tried]) -> DataFrame:
    import pandas as pd

    parts = [
        pd.DataFrame({"look": k, "x_um": one.shifts[:, 0], "y_um": one.shifts[:, 1], "skill": one.skill})
        for k, one in enumerate(tried)
    ]
    return pd.concat(parts, ignore_index=True)


def _regions(look: Look, fine: Tried, seed: int) -> DataFrame:
    """Shifts of parts of the section; none where it has too few rows for two of them."""
    import pandas as pd

    n = min(4, len(look.xy_um) // LEAST_OF_REGION)
    columns = ["x_um", "y_um", "shift_x_um", "shift_y_um", "within_um"]
    if n < 2:
        return pd.DataFrame(columns=columns, dtype=float)
    size = np.bincount(look.parts.block)
    middle = np.column_stack([np.bincount(look.parts.block, xy) / size for xy in look.xy_um.T])
    part, rows = spatial_blocks(middle, n), []
    for k in range(n):
        blocks = np.flatnonzero(part == k)
        shift = fine.best((part == k).astype(float))
        draws = fine.draws(N_DRAWS, seed, blocks)
        around = float(np.quantile(np.hypot(*(draws - shift).T), 1 - LEVEL))
        rows.append([*np.average(middle[blocks], axis=0, weights=size[blocks]), *shift, around])
    return pd.DataFrame(rows, columns=columns)
