"""What `tl.predict` is told must go together, and no spot may be predicted by what has seen it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.names import alike
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.zero_shot import able
from sq_imputer.progress import say
from sq_imputer.runs.decide import LEAVE_OUT, shows
from sq_imputer.runs.retrieved import check_patient
from sq_imputer.scores.splits import LEAST_TRAIN
from sq_imputer.section.looks import looks_of, unlike
from sq_imputer.section.nearby import lacking
from sq_imputer.section.resolution import trained

FEW_GENES = 5  # a panel of fewer, where more were asked for, is an accident
LEAST_LEFT = 0.2  # of the measured rows of a section are fitted on, once a fold and its buffer are left out

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sq_imputer.contract import Marks
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.decide import Decision, Told
    from sq_imputer.runs.targets import Targets
    from sq_imputer.section.frame import Frame
    from sq_imputer.section.slide import Slide


def check_leave_out(leave_out: str | None, reference) -> None:
    """What is left out of the object's own spots; with a reference, these train nothing."""
    if leave_out is None:
        return
    if leave_out not in LEAVE_OUT:
        raise BadInput(f"leave_out is {leave_out!r}; expected one of {listed(LEAVE_OUT)}, or None.")
    if reference is not None:
        raise BadInput(
            f"leave_out is '{leave_out}', but reference says what the model is fitted on. Leave out one of the two."
        )


def check_repeats(n_repeats: int, decision: Decision, n_folds: int, *, shown: bool) -> None:
    """Partitions are repeated where a section is predicted in blocks; how much that costs is said."""
    if n_repeats == 1:
        return
    parts = sum(told.leave_out == "block" for told in decision.told)
    if not parts:
        raise BadInput(
            f"n_repeats is {n_repeats}, but nothing here is predicted in blocks of its own section: "
            f"{listed(dict.fromkeys(told.how for told in decision.told))}. Leave it out."
        )
    whose = "" if parts == 1 else f" of {parts} sections each"
    say(
        f"{n_repeats} partitions into {n_folds} blocks{whose}: {len(decision.fits)} models are fitted, which takes "
        f"about {n_repeats} times as long as one partition.",
        shown=shown,
    )


def check_alone(predictor: Predictor, reference, genes, unit: str | None, resolution="auto") -> None:
    """A fitted model has its training sections, its genes, its unit and its resolution."""
    name = predictor.card.name
    if reference is not None:
        raise BadInput(
            f"reference goes with the name of a model; this '{name}' is fitted already. Leave out reference=, or pass "
            f"model='{name}' to fit one."
        )
    number = isinstance(genes, Integral)
    if genes is not None and (number or list(genes) != list(predictor.genes)):
        asked = f"is {genes}" if number else f"names {len(genes)} genes"
        raise BadInput(
            f"genes {asked}, but this '{name}' was fitted on {len(predictor.genes)} of its own "
            f"({listed(predictor.genes, 3)}). Leave out genes=, or fit the genes wanted; {listed(able(), 20)} can be "
            "asked for others."
        )
    own = trained(predictor.provenance, predictor.needs)
    known = ("auto", None, predictor.provenance.get("resolution"))
    if resolution not in known and own is not None and abs(resolution / own - 1) > 0.01:
        raise BadInput(
            f"resolution is {resolution:g} µm per pixel, but this '{name}' was fitted at {own:.3g}. Leave out "
            f"resolution=, or fit one by tl.fit(..., resolution={resolution:g})."
        )
    if unit not in (None, predictor.unit):
        raise BadInput(
            f"unit is '{unit}', but this '{name}' was fitted in '{predictor.unit}'. Leave out unit=, or fit one in it."
        )


def check_unseen(
    decision: Decision, targets: Targets, training: Sequence[Slide], predictor: Predictor, allow_same_patient: bool
) -> None:
    """No section is predicted by a model that was fitted on it, nor, if the model retrieves, on its patient."""
    for k, (slide, told) in enumerate(zip(targets.slides, decision.told, strict=True)):
        if told.leave_out == "block" or told.anchor is not None:
            continue  # by what lies beyond the block, or shapes that nobody measured
        if predictor.fitted:
            known = predictor.provenance
            rows, names, groups = predictor.training_rows, known["sections"], known["groups"]
        else:
            fit = next(ask.fit for ask in decision.asks if ask.section == k)
            numbers = [j for j, _ in decision.fits[fit]]
            rows = [training[j].marks(training[j].genes) for j in numbers]
            names, groups = zip(*[(training[j].section, training[j].group) for j in numbers], strict=True)
        _check_uncounted(slide, predictor, training)
        check_rows(slide, rows, names)
        if predictor.retrieves and not allow_same_patient:
            check_patient(slide, predictor.card.name, groups, names)
            _check_picture(slide, predictor.card.name, told)


def _check_uncounted(slide: Slide, predictor: Predictor, training: Sequence[Slide]) -> None:
    """Rows that are measured without counts are known by their picture alone."""
    if slide.counts is None and slide.measured.any() and predictor.fitted and shows(predictor, training, slide):
        raise BadInput(
            f"section '{slide.section}' is of a picture that the model is fitted on, and has no counts by which rows "
            "could be told apart. Leave it out of the reference, or give the model by name alone."
        )


def _check_picture(slide: Slide, model: str, told: Told) -> None:
    if told.shares_patient:  # though the name of the patient is another
        raise BadInput(
            f"'{model}' makes a prediction of reference spots, and the picture of section '{slide.section}' is one "
            f"that it was fitted on, though patient '{slide.group}' was not among them. Leave it out of the reference, "
            "or pass allow_same_patient=True, which the provenance then says."
        )


def check_rows(target: Slide, training: Sequence[Marks], names: Sequence[str]) -> None:
    """No measured row of a section is one of the training rows, by whatever name, at whatever place.

    Parameters
    ----------
    target
        The section to be predicted.
    training, names
        Rows and name of every section of the training data.

    Raises
    ------
    BadInput
        If any is.
    """
    found = {k: rows for k, marks in enumerate(training) if (rows := target.among(marks)).any()}
    if not found:
        return
    n, n_seen = int(target.measured.sum()), int(np.any(list(found.values()), axis=0).sum())
    theirs = listed(names[k] for k in found)
    if n_seen == n and len(found) == 1:
        what = f"section {theirs} of the training data is the very section to be predicted: its measured spots"
    else:
        what = f"{n_seen} of {n} measured spots of section '{target.section}' are training spots (of {theirs}): they"
    rest = "" if n_seen == n else "keep only the others here, or "
    raise BadInput(
        f"{what} would be a training fit. Leave it out of the reference, {rest}give the model by name alone, which "
        "predicts out of fold."
    )


def warn_of_genes(targets: Targets, genes: Sequence[str], unit: str, n_library: Sequence[int]) -> None:
    """Say where a section lacks genes of the model, or has a library of far fewer genes than the training sections.

    Parameters
    ----------
    targets
        The sections to be predicted.
    genes, unit
        Of the model.
    n_library
        Genes in the tables of its training sections.
    """
    for slide in targets.slides:
        if slide.counts is None:
            continue
        missing = lacking(slide, genes)
        if 2 * len(missing) > len(genes):
            same = alike(missing, slide.var_names)
            hint = f", {len(same)} match but for case ({listed(same, 3)})" if same else ""
            _warn(
                f"{len(missing)} of {len(genes)} genes of the model are not in the table of section '{slide.section}'"
                f"{hint}; it has such as {listed(slide.var_names[:3])}. Their prediction has no measurement beside it."
            )
        least = min(n_library, default=0)
        if unit == LOG1P_CP10K and 2 * len(slide.var_names) < least:
            _warn(
                f"the table of section '{slide.section}' has {len(slide.var_names)} genes, those of the training "
                f"sections had {least} or more: counts per 10,000 are of another library, and 'measured' is in another "
                "unit than the prediction. Predict with the full table."
            )


def warn_of_looks(slides: Sequence[Slide], training: Sequence[Slide], provenance: Mapping) -> None:
    """Name in what sections differ from those that a model is, or was, fitted on: light, stains, compression."""
    others = [slide.looks for slide in training] or looks_of(provenance.get("looks"))
    for slide in slides if others else ():
        found = unlike(slide.looks, others)
        if found:
            _warn(
                f"the scan of section '{slide.section}' is unlike those of the training sections: {'; '.join(found)}. "
                "Features scaled within each section (per_section) take some of it out; see pp.quality."
            )


def warn_of_little(decision: Decision, training: Sequence[Slide], genes: Sequence[str], asked) -> None:
    """Say where a fit has almost nothing to learn from, before it is made.

    Parameters
    ----------
    decision
        The fits.
    training
        The sections that its numbers stand for.
    genes, asked
        The panel, and what was asked for: names, a number, or None.
    """
    if not decision.fits or not training:
        return
    if training[0].target.is_genes:
        warn_of_panel(genes, asked)
    measured = [int(slide.measured.sum()) for slide in training]
    found = []
    for name, parts in decision.fits.items():
        n_rows = sum(measured[j] if rows is None else len(rows) for j, rows in parts)
        found.append((n_rows, sum(measured[j] for j, _ in parts), name, listed(training[j].section for j, _ in parts)))
    n_rows, whole, name, where = min(found)
    warn_of_rows(f"the model '{name}'", n_rows, where)
    if LEAST_TRAIN <= n_rows < LEAST_LEFT * whole:
        _warn(
            f"'{name}' of section {where} is fitted on {n_rows} of {whole} measured rows: the others are predicted or "
            "lie within buffer_um of these. Pass a smaller buffer_um, or more folds."
        )


def warn_of_panel(genes: Sequence[str], asked) -> None:
    """Say where a panel that was chosen, of what was asked for (names, a number, or None), has next to nothing."""
    if len(genes) < FEW_GENES and (asked is None or isinstance(asked, Integral)) and (asked or FEW_GENES) > len(genes):
        _warn(
            f"the training sections give a panel of {len(genes)} genes ({listed(genes)}) where {asked or 'more'} were "
            "asked for: a model learns next to nothing of them. Pass genes= by name, or sections with more counts."
        )


def warn_of_rows(what: str, n_rows: int, where: str) -> None:
    """Say that something is fitted on next to no measured rows of some sections."""
    if n_rows < LEAST_TRAIN:
        _warn(
            f"{what} is fitted on {n_rows} measured rows of sections {where}; one of fewer than {LEAST_TRAIN} says "
            "little. Pass sections that have more."
        )


def warn_of_picture(frame: Frame, made: Mapping, image_key: str, what: str) -> None:
    """Say that an image has other pixels than it had when something was made of it, and what that means.

    Parameters
    ----------
    frame
        The image as it is.
    made
        The record of what was made, with the fingerprint of then; nothing is said of one without.
    image_key, what
        Name of the image, and the consequence.
    """
    then = made.get("image_fingerprint")
    if then is not None and str(then) != frame.pyramid.fingerprint:
        _warn(
            f"image '{image_key}' is not what it was any more (other pixels, a crop, or other levels): {what}. Restore "
            "it, or predict or explain it again."
        )


def warn_of_shapes(sdata: SpatialData, regions: Sequence[str]) -> None:
    """Say which elements a result will annotate that the store of the object does not hold."""
    stored = {path.split("/")[-1] for path in sdata.elements_paths_on_disk()} if sdata.is_backed() else set(regions)
    lost = [name for name in regions if name not in stored]
    if lost:
        _warn(
            f"shapes {listed(lost)} are in memory only, and the result in the store will annotate them. Write them "
            f"with sdata.write_element('{lost[0]}'), or pass output_path=, which writes both."
        )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)
