"""One HTML file of what was done, that opens anywhere: no network, nothing beside it."""

from sq_imputer.report._bench import bench
from sq_imputer.report._prediction import prediction

__all__ = ["bench", "prediction"]
