"""What `tl.predict` is told must go together, and no spot may be predicted by what has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, listed
from sq_imputer.runs.decide import LEAVE_OUT
from sq_imputer.runs.retrieved import check_patient

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.decide import Decision
    from sq_imputer.runs.targets import Targets
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


def check_alone(predictor: Predictor, reference, genes, unit: str | None) -> None:
    """A fitted model has its training sections, its genes and its unit."""
    name = predictor.card.name
    if reference is not None:
        raise BadInput(
            f"reference goes with the name of a model; this '{name}' is fitted already. Leave out reference=, or pass "
            f"model='{name}' to fit one."
        )
    if isinstance(genes, Integral):
        raise BadInput(
            f"genes is {genes}, but this '{name}' was fitted on {len(predictor.genes)} of its own "
            f"({listed(predictor.genes, 3)}). Leave out genes=, or fit the genes wanted."
        )
    if genes is not None and list(genes) != list(predictor.genes):
        raise BadInput(
            f"genes names {len(genes)} genes, but this '{name}' was fitted on {len(predictor.genes)} of its own "
            f"({listed(predictor.genes, 3)}). Leave out genes=, or fit the genes wanted."
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
            fingerprints, names, groups = (known[key] for key in ("fingerprints", "sections", "groups"))
        else:
            fit = next(ask.fit for ask in decision.asks if ask.section == k)
            sources = [training[j] for j, _ in decision.fits[fit]]
            fingerprints, names, groups = zip(*[(s.fingerprint, s.section, s.group) for s in sources], strict=True)
        _check_section(slide, list(fingerprints), list(names))
        if predictor.retrieves and not allow_same_patient:
            check_patient(slide, predictor.card.name, groups, names)


def _check_section(target: Slide, fingerprints: list[str], names: list[str]) -> None:
    if target.measured.any() and target.fingerprint in fingerprints:
        raise BadInput(
            f"section '{names[fingerprints.index(target.fingerprint)]}' of the training data is the very section to be "
            "predicted: its measured spots would be a training fit. Leave it out of the reference, or give the model "
            "by name alone, which predicts out of fold."
        )
