"""Preprocessing: how large a pixel is, crops, features of crops, places to predict at."""

from sq_imputer.pp._alignment import alignment
from sq_imputer.pp._crops import crops
from sq_imputer.pp._embed import embed
from sq_imputer.pp._grid import grid
from sq_imputer.pp._pixel_size import pixel_size
from sq_imputer.pp._quality import quality
from sq_imputer.pp._straighten import straighten
from sq_imputer.pp._tissue import tissue

__all__ = ["alignment", "crops", "embed", "grid", "pixel_size", "quality", "straighten", "tissue"]
