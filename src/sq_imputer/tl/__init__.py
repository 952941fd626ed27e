"""Tools: fit a model, predict into the object, score what was predicted, see what it was made of."""

from sq_imputer.tl._agreement import agreement
from sq_imputer.tl._correct import correct
from sq_imputer.tl._domains import domains
from sq_imputer.tl._explain import explain
from sq_imputer.tl._fit import fit
from sq_imputer.tl._in_silico import in_silico
from sq_imputer.tl._predict import predict
from sq_imputer.tl._regulatory_map import regulatory_map
from sq_imputer.tl._retrieved import retrieved
from sq_imputer.tl._score import score
from sq_imputer.tl._sequence_prior import sequence_prior
from sq_imputer.tl._trust import trust

__all__ = [
    "agreement",
    "correct",
    "domains",
    "explain",
    "fit",
    "in_silico",
    "predict",
    "regulatory_map",
    "retrieved",
    "score",
    "sequence_prior",
    "trust",
]
