"""The column axis: names of genes, panels, the units that expression is given in, and what is known of genes."""

from sq_imputer.genes import text
from sq_imputer.genes.apart import check_split, split_by_chromosome
from sq_imputer.genes.panel import choose_genes
from sq_imputer.genes.prompts import gene_prompts
from sq_imputer.genes.stretches import write_bed, write_bedgraph
from sq_imputer.genes.units import UNITS, to_unit

__all__ = [
    "UNITS",
    "check_split",
    "choose_genes",
    "gene_prompts",
    "split_by_chromosome",
    "text",
    "to_unit",
    "write_bed",
    "write_bedgraph",
]
