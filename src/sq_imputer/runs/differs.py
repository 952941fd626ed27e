"""In what a section differs most from those that a model was fitted on, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.encoders import encoder_card
from sq_imputer.section.looks import looks_of, unlike

if TYPE_CHECKING:
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.slide import Slide

APART_SD = 1.0  # between the means of features, in standard deviations of the training rows
MOST = 3  # features that are named


def differs(predictor: Predictor, slide: Slide) -> list[str]:
    """What of a scan, and which features of the image, lie farthest from those of the training rows."""
    theirs = looks_of(predictor.provenance.get("looks"))
    return [*(unlike(slide.looks, theirs) if theirs else []), *_features(predictor, slide)]


def _features(predictor: Predictor, slide: Slide) -> list[str]:
    """Up to three features, the farthest first, of which a section's mean is another."""
    needs = predictor.needs
    own = slide.moments(needs) if needs.encoders and hasattr(predictor, "feature_mean") else None
    if own is None:
        return []
    mean, std = (one.cpu().numpy() for one in (predictor.feature_mean, predictor.feature_std))
    apart = np.divide(own[0] - mean, std, out=np.zeros(len(mean)), where=std > 1e-6)
    far = [k for k in np.argsort(-np.abs(apart), kind="stable")[:MOST] if abs(apart[k]) > APART_SD]
    names = _names(predictor)
    side = {True: "above", False: "below"}
    return [f"{names[k]} is {abs(apart[k]):.1f} sd {side[bool(apart[k] > 0)]} the training mean" for k in far]


def _names(predictor: Predictor) -> list[str]:
    """What every feature is called, with its encoder and crop."""
    from sq_imputer.encoders.texture import FEATURES

    names, needs = [], predictor.needs
    for spec in needs.views:
        for encoder in needs.encoders:
            inner = FEATURES if encoder == "texture" else range(encoder_card(encoder).dim)
            names += [f"{encoder} {one} ({spec.extent_um:g} µm)" for one in inner]
    return names
