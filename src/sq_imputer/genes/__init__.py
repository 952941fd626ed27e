"""The column axis: names of genes, panels, and the units that their expression is given in."""

from sq_imputer.genes.panel import choose_genes
from sq_imputer.genes.units import UNITS, to_unit

__all__ = ["UNITS", "choose_genes", "to_unit"]
