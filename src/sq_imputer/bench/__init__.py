"""Protocols over fitted predictors and encoders."""

from sq_imputer.bench._audit import audit
from sq_imputer.bench._compare import compare
from sq_imputer.bench._config import BenchConfig
from sq_imputer.bench._contrast import Tuned, contrast
from sq_imputer.bench._contrasts import Contrast
from sq_imputer.bench._labels import label_probe
from sq_imputer.bench._latent import latent
from sq_imputer.bench._leave_genes import leave_genes_out
from sq_imputer.bench._leave_out import leave_one_out, outcomes, run, strips_of
from sq_imputer.bench._outcome import Case, Outcome
from sq_imputer.bench._pairs import Pairs, pairs
from sq_imputer.bench._probes import expression_probe, over_sections
from sq_imputer.bench._protocols import PROTOCOLS, Protocol, protocol
from sq_imputer.bench._read import read_pairs
from sq_imputer.bench._retrieval import retrieval
from sq_imputer.bench._runs import run_config, scores_of
from sq_imputer.bench._splits import published_split
from sq_imputer.scores.batches import batch_table

__all__ = [
    "PROTOCOLS",
    "BenchConfig",
    "Case",
    "Contrast",
    "Outcome",
    "Pairs",
    "Protocol",
    "Tuned",
    "audit",
    "batch_table",
    "compare",
    "contrast",
    "expression_probe",
    "label_probe",
    "latent",
    "leave_genes_out",
    "leave_one_out",
    "outcomes",
    "over_sections",
    "pairs",
    "protocol",
    "published_split",
    "read_pairs",
    "retrieval",
    "run",
    "run_config",
    "scores_of",
    "strips_of",
]
