"""Sections to try things on: a toy with a known truth, and readers of published data in a local folder."""

from sq_imputer.datasets._dna import toy_genes
from sq_imputer.datasets._local import her2st, mob, mouse_brain
from sq_imputer.datasets._toy import toy

__all__ = ["her2st", "mob", "mouse_brain", "toy", "toy_genes"]
