"""Which model predicts which rows: decided once, from what was read, and before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.scores.splits import folds

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.targets import Targets
    from sq_imputer.section.slide import Slide

LEAVE_OUT = ("patient", "section", "block")
FEWEST_BLOCKS = 3  # of which two or more say how large the error of another is
ALL = "all"  # name of the fit on everything, or of the fitted model


@dataclass(frozen=True)
class Ask:
    """Rows of a section, all of them if None, that the model of one fit predicts."""

    fit: str
    section: int
    rows: np.ndarray | None
    name: str
    repeat: int = 0  # the partition that the fit belongs to


@dataclass(frozen=True)
class Told:
    """What the provenance of a section says of how it was predicted.

    `fold` `(n,)` is of the first partition; `folds` `(n, repeats)` of all, where there are several.
    """

    how: str
    training: list[str]
    bank_from: str
    leave_out: str = ""
    fold: np.ndarray | None = None
    folds: np.ndarray | None = None
    buffer_um: float = 0.0
    shares_patient: bool = False
    anchor: int | None = None


@dataclass
class Decision:
    """Fits by name, each of training sections by number (and which of their rows), and what is asked of them.

    `crossed` names, for a fit, the fits whose errors on rows that they have not seen size its standard deviation.
    """

    fits: dict[str, list[tuple[int, np.ndarray | None]]] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    crossed: dict[str, list[str]] = field(default_factory=dict)


def by_one_model(targets: Targets, training: Sequence[Slide], predictor: Predictor) -> Decision:
    """All sections by one model: a fitted one, or one that is fitted on references."""
    how = "fitted model" if predictor.fitted else "fitted on reference"
    groups = predictor.provenance["groups"] if predictor.fitted else [slide.group for slide in training]
    names = predictor.provenance["sections"] if predictor.fitted else [slide.section for slide in training]
    decision = Decision({ALL: [(j, None) for j in range(len(training))]})
    for k, slide in enumerate(targets.slides):
        decision.asks.append(Ask(ALL, k, None, _named(ALL, k, targets)))
        shares = slide.group in groups or shows(predictor, training, slide)
        decision.told.append(Told(how, list(names), "reference sections", shares_patient=shares))
    return decision


def by_own_spots(
    targets: Targets,
    measured: Sequence[Slide],
    *,
    leave_out: str | None,
    n_folds: int,
    buffer_um: float,
    n_repeats: int = 1,
) -> Decision:
    """Every section by what is measured in the object, and never by the very spot that is predicted.

    Parameters
    ----------
    targets
        What is to be predicted.
    measured
        For every section what is measured on its image.
    leave_out
        What a model that predicts a spot has not seen: its `"patient"`, its `"section"`, or its `"block"`. None: the
        patient where there are several, else the block.
    n_folds, buffer_um
        Blocks of a section, and how near to a block training rows are left out.
    n_repeats
        Partitions of a section into blocks.
    """
    decision = Decision()
    groups = {slide.group for slide in measured}
    way = leave_out or ("patient" if len(groups) > 1 else "block")
    _check_way(way, measured, groups)
    for k, (target, own) in enumerate(zip(targets.slides, measured, strict=True)):
        if target.keys["shapes_key"] != own.keys["shapes_key"]:
            _elsewhere(decision, k, targets, measured)
        elif way == "block":
            _in_blocks(decision, k, targets, n_folds, buffer_um, n_repeats)
        else:
            _from_others(decision, k, targets, measured, way)
    return decision


def shows(predictor: Predictor, training: Sequence[Slide], slide: Slide) -> bool:
    """Whether a model was fitted on the very picture of a section, whoever it is said to be of."""
    pictures = predictor.provenance.get("pixels", []) if predictor.fitted else _pictures(training)
    return len(pictures) > 0 and slide.frame.pyramid.fingerprint in list(pictures)


def _pictures(training: Sequence[Slide]) -> list[str]:
    return [slide.frame.pyramid.fingerprint for slide in training]


def _named(name: str, k: int, targets: Targets) -> str:
    """The name of a step in the journal: of one section alone as it always was."""
    return f"{name}-of-{k}" if targets.several else name


def _check_way(way: str, measured: Sequence[Slide], groups: set[str]) -> None:
    if way == "patient" and len(groups) < 2:
        raise BadInput(
            f"leave_out is 'patient', but all {len(measured)} sections are of patient {listed(groups)}. Pass "
            "leave_out='section' or 'block', or name the patients by patient_key=."
        )
    if way == "section" and len(measured) < 2:
        raise BadInput(
            f"leave_out is 'section', but there is one: '{measured[0].section}'. Pass sections= that name several, or "
            "leave_out='block'."
        )


def _elsewhere(decision: Decision, k: int, targets: Targets, measured: Sequence[Slide]) -> None:
    """Shapes that were not measured, by a model fitted on everything that was."""
    decision.fits[ALL] = [(j, None) for j in range(len(measured))]
    decision.asks.append(Ask(ALL, k, None, _named(ALL, k, targets)))
    names = [slide.section for slide in measured]
    how = "fitted on the measured spots of this object"
    decision.told.append(Told(how, names, "all measured spots of this section", shares_patient=True, anchor=k))


def _in_blocks(decision: Decision, k: int, targets: Targets, n_folds: int, buffer_um: float, n_repeats: int) -> None:
    """Out of fold where measured; by a model fitted on everything measured of the section elsewhere."""
    slide = targets.slides[k]
    bank_from = f"other spatial blocks of this section, beyond {buffer_um:g} um"
    each = [_partition(decision, k, targets, n_folds, buffer_um, repeat) for repeat in range(n_repeats)]
    fold = each[0]
    blocks = [_named(f"fold-{number}", k, targets) for number in range(fold.max() + 1)]
    rest = np.flatnonzero(~slide.measured)
    if len(rest):
        name = _named(ALL, k, targets)
        if len(blocks) >= FEWEST_BLOCKS:
            decision.crossed[name] = blocks
        decision.fits[name] = [(k, None)]
        decision.asks.append(Ask(name, k, rest, _named("rest", k, targets)))
        bank_from += "; at spots that were not measured, all measured spots of this section"
    known = {"leave_out": "block", "fold": fold, "buffer_um": buffer_um, "shares_patient": True}
    how = "out of fold"
    if n_repeats > 1:
        how, known["folds"] = f"out of fold, mean of {n_repeats} partitions", np.column_stack(each)
    decision.told.append(Told(how, [slide.section], bank_from, **known))


def _partition(decision: Decision, k: int, targets: Targets, n_folds: int, buffer_um: float, repeat: int) -> np.ndarray:
    """The fits and asks of one partition into blocks; the block `(n,)` of every row, -1 where nothing is measured."""
    slide = targets.slides[k]
    rows, fold, blocks = np.flatnonzero(slide.measured), np.full(len(slide), -1), []
    ending = f"-repeat-{repeat}" if repeat else ""
    for number, split in enumerate(folds(slide.xy_um[rows], n_folds, buffer_um=buffer_um, turn=repeat)):
        name, out = _named(f"fold-{number}{ending}", k, targets), rows[split.test]
        fold[out] = number
        blocks.append(name)
        decision.fits[name] = [(k, rows[split.train])]
        decision.asks.append(Ask(name, k, out, name, repeat))
    if len(blocks) >= FEWEST_BLOCKS:
        decision.crossed |= {name: [other for other in blocks if other != name] for name in blocks}
    return fold


def _from_others(decision: Decision, k: int, targets: Targets, measured: Sequence[Slide], way: str) -> None:
    """By the sections of other patients, or by all other sections."""
    own = measured[k]
    others = [j for j, one in enumerate(measured) if (one.group != own.group if way == "patient" else j != k)]
    left = own.group if way == "patient" else own.section
    name = f"without-{[s.group if way == 'patient' else s.section for s in measured].index(left)}"
    decision.fits[name] = [(j, None) for j in others]
    decision.asks.append(Ask(name, k, None, _named(name, k, targets)))
    names, groups = [measured[j].section for j in others], {measured[j].group for j in others}
    fold = np.full(len(own), list(decision.fits).index(name))
    known = {"leave_out": way, "fold": fold, "shares_patient": own.group in groups}
    decision.told.append(Told(f"fitted on other {way}s", names, "the other sections", **known))
