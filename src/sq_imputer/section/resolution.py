"""At which resolution sections are read together: what one shows more finely than another is no feature of both.

Two numbers of a section are compared, in µm per pixel: what its image resolves, by its spectrum, and what the model's
crop asks for. A scan finer than the crop is as good as the crop.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, listed

if TYPE_CHECKING:
    from sq_imputer.contract import Model, Needs
    from sq_imputer.section.slide import Slide

ALIKE = 1.5  # times coarser: sections are read as they are, and a fitted model takes them
FINEST, COARSEST = 0.05, 100.0  # µm per pixel that can be asked for


def check_resolution(resolution) -> None:
    """Check that what a verb was given is `"auto"`, None or µm per pixel."""
    if resolution is None or (isinstance(resolution, str) and resolution == "auto"):
        return
    number = isinstance(resolution, int | float | np.number) and not isinstance(resolution, bool)
    if not number or not FINEST <= resolution <= COARSEST:
        raise BadInput(
            f"resolution is {resolution!r}; expected 'auto', None for each as it is, or µm per pixel "
            f"from {FINEST:g} to {COARSEST:g}."
        )


def several(resolution: Sequence[float]) -> list[float]:
    """Resolutions that one model is to be fitted at, finest first.

    Raises
    ------
    BadInput
        If they are none, one twice, or no µm per pixel.
    """
    found = list(resolution)
    for one in found:
        if one is None or isinstance(one, str):
            raise BadInput(f"resolution names {one!r} among several; expected µm per pixel, such as [0.7, 1.4, 3.2].")
        check_resolution(one)
    if not found or len(set(found)) < len(found):
        raise BadInput(f"resolution is {resolution!r}; expected some µm per pixel, each once, such as [0.7, 1.4, 3.2].")
    return sorted(map(float, found))


def shown(slide: Slide, needs: Needs) -> float:
    """µm per pixel of what a model sees of a section as it is: what the image resolves, or what the crop asks for."""
    return max(slide.resolved_mpp, needs.crop.mpp)


def common(slides: Sequence[Slide], needs: Needs, resolution: str | float | None = "auto") -> float | None:
    """The resolution at which sections are read together; None: each as it is.

    Parameters
    ----------
    slides
        The sections, to fit on and to predict.
    needs
        What the model asks to see.
    resolution
        `"auto"`: the coarsest of all, where they are not alike; or what they are read at already. Or µm per pixel, or
        None: each as it is.

    Raises
    ------
    BadInput
        If a section does not resolve what was asked for.
    """
    check_resolution(resolution)
    if resolution is None:
        return None
    if resolution != "auto":
        coarse = {s.section: s.resolved_mpp for s in slides if s.resolved_mpp > ALIKE * resolution}
        if coarse:
            least = np.ceil(100 * max(coarse.values()) / ALIKE) / 100
            raise BadInput(
                f"resolution is {resolution:g} µm per pixel, and sections {listed(coarse)} resolve no more than "
                f"{max(coarse.values()):.3g}. Pass resolution={least:g} or more, 'auto', or leave them out."
            )
        return float(resolution)
    read = {slide.frame.resolution for slide in slides}
    if len(read) == 1 and None not in read:
        return read.pop()
    if len({slide.frame.pyramid.levels[0].name for slide in slides if slide.frame.pyramid}) < 2:
        return None
    seen = [shown(slide, needs) for slide in slides]
    if max(seen) <= ALIKE * min(seen):
        return None
    coarse, fine = slides[int(np.argmax(seen))], slides[int(np.argmin(seen))]
    warnings.warn(
        f"section '{coarse.section}' resolves {coarse.resolved_mpp:.3g} µm per pixel and '{fine.section}' "
        f"{fine.resolved_mpp:.3g}: all are read at {max(seen):.3g}, which shows less of the finer ones. Pass "
        "resolution= to say another, or leave the coarsest out.",
        UserWarning,
        stacklevel=3,
    )
    return max(seen)


def known(slides: Sequence[Slide], resolution: float | None) -> dict:
    """What a fitted model keeps of it: the resolution that was read at, what its sections resolve and are like."""
    looks = [slide.looks for slide in slides]
    resolved = [one.resolved_mpp for one in looks]
    return {"resolution": resolution, "resolved_mpp": resolved, "looks": [one.record() for one in looks]}


def trained(provenance: Mapping, needs: Needs) -> float | None:
    """µm per pixel of what a model saw where it was fitted; None if that is not known."""
    resolved = provenance.get("resolved_mpp") or [provenance.get("training_mpp") or 0.0]
    own = max(provenance.get("resolution") or 0.0, *resolved)
    return max(own, needs.crop.mpp) if own else None


def fitting(predictor: Model, slides: Sequence[Slide], resolution: str | float | None = "auto") -> Model:
    """Of a fitted model and the coarser ones beside it the one that is asked for, or the finest that sections allow.

    Parameters
    ----------
    predictor
        The finest.
    slides
        The sections to be predicted, all by one.
    resolution
        µm per pixel that one of them was fitted at; `"auto"` or None: by what the sections resolve.

    Returns
    -------
    The coarsest where none fits: :func:`for_model` refuses it.
    """
    models = (predictor, *predictor.coarser)
    if len(models) == 1:
        return predictor
    if resolution not in ("auto", None):
        return next((one for one in models if one.provenance.get("resolution") == resolution), predictor)
    worst = max(slide.resolved_mpp for slide in slides)
    fine = (one for one in models if worst <= ALIKE * (trained(one.provenance, one.needs) or np.inf))
    return next(fine, models[-1])


def for_model(slides: Sequence[Slide], needs: Needs, provenance: Mapping) -> float | None:
    """The resolution at which a fitted model reads sections; None: as they are.

    Raises
    ------
    BadInput
        If a section does not resolve what the model was fitted on.
    """
    own = trained(provenance, needs)
    if own is None:
        return None
    worst = max(slides, key=lambda slide: slide.resolved_mpp)
    if provenance.get("external"):
        _check_external(worst, own, provenance.get("coarsest_mpp") or ALIKE * own)
        return None
    if worst.resolved_mpp > ALIKE * own:
        raise BadInput(
            f"section '{worst.section}' resolves {worst.resolved_mpp:.3g} µm per pixel (its pixels are "
            f"{worst.frame.pixel.mpp:.3g}, from {worst.frame.pixel.source}), and the model was fitted at {own:.3g}: "
            f"its features mean nothing there; expected at most {ALIKE:g} times coarser. Fit it at a resolution that "
            f"both have: tl.fit(..., resolution={worst.resolved_mpp:.2g}), or pass its name and reference=. Or pass "
            "image_key= of a finer image, or mpp= if this one is wrong."
        )
    finer = own > ALIKE * min(shown(slide, needs) for slide in slides)
    return provenance.get("resolution") or (own if finer else None)


def _check_external(worst: Slide, own: float, coarsest: float) -> None:
    """A model of others is asked only about what its crops can show."""
    if worst.resolved_mpp > coarsest:
        raise BadInput(
            f"section '{worst.section}' resolves {worst.resolved_mpp:.3g} µm per pixel (its pixels are "
            f"{worst.frame.pixel.mpp:.3g}, from {worst.frame.pixel.source}), and the model was made for {own:.3g}; "
            f"expected at most {coarsest:.3g}. Pass image_key= of a finer image, mpp= if this one is wrong, or "
            f"config={{'coarsest_mpp': {np.ceil(100 * worst.resolved_mpp) / 100:g}}} to ask it all the same."
        )


def read_at(slides: Iterable[Slide], resolution: float | None) -> list[Slide]:
    """Sections that show nothing finer; those that share rows or features share them still."""
    done: dict[int, Slide] = {}
    return [slide.at(resolution, done) for slide in slides]
