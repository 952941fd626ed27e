"""How good a prediction is: metrics, tables of them with intervals, and the splits that they are measured on."""

from sq_imputer.scores import metrics, smoothness, splits
from sq_imputer.scores.tables import aggregate, aggregate_blocks, score_table

__all__ = ["aggregate", "aggregate_blocks", "metrics", "score_table", "smoothness", "splits"]
