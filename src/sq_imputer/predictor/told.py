"""What a model is told of genes: the knowledge that it was given, as buffers that are saved with its weights."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.knowledge import GeneKnowledge
from sq_imputer.predictor.registry import get_model, list_models

if TYPE_CHECKING:
    from sq_imputer.contract import Model

WIDTH = "knowledge"  # in the sizes of a fitted model: how wide a vector is


def unfitted(model: type, config, knowledge: GeneKnowledge | None) -> Model:
    """A model that is not fitted; one that is told nothing may have an `__init__` that takes a config alone."""
    return model(config) if knowledge is None else model(config, knowledge)


def checked(predictor: Model, knowledge: GeneKnowledge | None) -> GeneKnowledge | None:
    """The knowledge that a model was given, if it takes any; the error names models that do."""
    if knowledge is None:
        return None
    if not isinstance(knowledge, GeneKnowledge):
        raise BadInput(
            f"knowledge is a {type(knowledge).__name__}; expected a GeneKnowledge, such as "
            "GeneKnowledge.from_gene_sets(files)."
        )
    if not predictor.needs.knowledge:
        others = [name for name in list_models() if get_model(name)().needs.knowledge]
        raise BadInput(
            f"'{predictor.card.name}' takes no knowledge of genes; models that do: {listed(others, 20)}. Leave out "
            "knowledge=."
        )
    return knowledge


def register(predictor: Model) -> None:
    """Buffers for what is known of the genes, as large as the sizes say; none of a model that needs none."""
    if WIDTH in predictor.sizes:
        genes = len(predictor.genes)
        predictor.register_buffer("gene_vectors", torch.zeros(genes, predictor.sizes[WIDTH]))
        predictor.register_buffer("gene_known", torch.zeros(genes, dtype=torch.bool))


def choose(predictor: Model) -> dict[str, int]:
    """What a model that needs knowledge is told by, the spelling of names if by nothing else; its width, for sizes."""
    if not predictor.needs.knowledge:
        return {}
    if predictor.knowledge is None:
        predictor.knowledge = GeneKnowledge.lexical(predictor.genes)
        warnings.warn(
            f"'{predictor.card.name}' is told nothing of genes but the spelling of their names ('lexical'). Pass "
            "knowledge=, such as GeneKnowledge.from_gene_sets(files).",
            UserWarning,
            stacklevel=4,
        )
    return {WIDTH: predictor.knowledge.width}


def take(predictor: Model) -> None:
    """Set the buffers of a model to the vectors of its genes; a warning names genes of which nothing is known."""
    if WIDTH in predictor.sizes:
        found = predictor.knowledge.aligned(predictor.genes)
        predictor.gene_vectors.copy_(torch.from_numpy(found.vectors))
        predictor.gene_known.copy_(torch.from_numpy(found.known))


def provenance(predictor: Model) -> dict:
    """What a model was told by, and of which genes nothing is known."""
    if WIDTH not in predictor.sizes:
        return {}
    known = predictor.gene_known.tolist()
    without = [gene for gene, there in zip(predictor.genes, known, strict=True) if not there]
    return {"knowledge": predictor.knowledge.provenance | {"without": without}}
