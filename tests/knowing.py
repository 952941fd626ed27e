"""How alike two genes are to some knowledge."""

from __future__ import annotations

import numpy as np

from sq_imputer import GeneKnowledge

P53 = "ENSG00000141510"


def cosine(knowledge: GeneKnowledge, one: str, other: str) -> float:
    a, b = knowledge.aligned([one, other]).vectors
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
