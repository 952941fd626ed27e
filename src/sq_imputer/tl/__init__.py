"""Tools: fit a model, predict into the object, score what was predicted, see what it was made of."""

from sq_imputer.tl._agreement import agreement
from sq_imputer.tl._correct import correct
from sq_imputer.tl._domains import domains
from sq_imputer.tl._explain import explain
from sq_imputer.tl._fit import fit
from sq_imputer.tl._predict import predict
from sq_imputer.tl._retrieved import retrieved
from sq_imputer.tl._score import score
from sq_imputer.tl._trust import trust

__all__ = ["agreement", "correct", "domains", "explain", "fit", "predict", "retrieved", "score", "trust"]
