"""Genes that a fitted model was not fitted on, asked for by what is known of them.

Nothing that was measured of such a gene goes into its prediction, its mean and spread least of all: these are pooled
over the genes of the fit. What is said of it is therefore ordinal. Where it is higher and where lower is predicted, how
high it is overall is not. Its standard deviation counts this in: the spread of a gene of the fit, less what the vectors
were found to explain of left-out genes (`history["left_out_genes_r2"]`, for models that look), and the spread of the
means of genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput, listed
from sq_imputer.predictor.registry import get_model, list_models

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.contract import Model
    from sq_imputer.genes.knowledge import Aligned, GeneKnowledge

LEFT_OUT = "left_out_genes_r2"  # where a fit notes which share of variance vectors explain of genes that it left out


def resolved(predictor: Model, genes: Sequence[str] | int | None, knowledge: GeneKnowledge | None) -> Model:
    """A fitted model as a verb asks for it: for its own genes, or for others, if it can say anything of these."""
    if predictor.card.zero_shot and predictor.fitted and not (genes is None or isinstance(genes, Integral | str)):
        if list(genes) != list(predictor.genes):
            return asked(predictor, genes, knowledge)
    if knowledge is not None:
        raise BadInput(
            "knowledge goes with a model that is to be fitted, or with genes= that a fitted one is to be asked for "
            "beyond its own; of its own a fitted or saved one keeps that of its fit. Leave out knowledge=."
        )
    return predictor


def asked(predictor: Model, genes: Sequence[str], knowledge: GeneKnowledge | None = None) -> Model:
    """The model with other genes; see :meth:`sq_imputer.Predictor.for_genes`."""
    from sq_imputer.predictor.chance import Chance

    genes = _checked(predictor, genes)
    found, where = _vectors(predictor, genes, knowledge)
    fresh = predictor.fresh()
    for name in ("unit", "target", "sizes", "training_rows", "history"):
        setattr(fresh, name, getattr(predictor, name))
    fresh.genes = tuple(genes)
    new = [gene for gene, row in zip(genes, where, strict=True) if row is None]
    without = [gene for gene, known in zip(genes, found.known, strict=True) if not known]
    told = predictor.provenance["knowledge"] | {"without": without}
    fresh.provenance = predictor.provenance | {"knowledge": told}
    fresh.provenance |= {"trained_on": list(predictor.genes)} | ({"zero_shot": new} if new else {})
    fresh._register_statistics()
    with Chance(0):  # initial weights are drawn only to be replaced
        fresh.build()
    changed = _of_genes(predictor, where) | _pooled(predictor, where) | _told(found)
    fresh.load_state_dict({**predictor.state_dict(), **changed})
    fresh.coarser = tuple(asked(model, genes, knowledge) for model in predictor.coarser)
    return fresh.eval()


def able() -> list[str]:
    """Names of the models that can be asked for genes that they were not fitted on."""
    return [name for name in list_models() if get_model(name).card.zero_shot]


def unseen(predictor: Model) -> list[str]:
    """Genes of a model that it was not fitted on."""
    return list(predictor.provenance.get("zero_shot", []))


def trained_on(predictor: Model) -> list[str]:
    """Genes that a fitted model was fitted on."""
    return list(predictor.provenance.get("trained_on", predictor.genes))


def _checked(predictor: Model, genes: Sequence[str]) -> list[str]:
    """The genes, each once, of a model that was fitted and can say anything of genes that it has not seen."""
    name = predictor.card.name
    if not predictor.card.zero_shot:
        raise BadInput(
            f"'{name}' predicts the genes of its fit alone; models that predict others: {listed(able(), 20)}."
        )
    if not predictor.fitted:
        raise BadInput(f"'{name}' is not fitted; fit it on genes that were measured first, by sq_imputer.tl.fit.")
    if "trained_on" in predictor.provenance:
        raise BadInput(f"this '{name}' was asked for other genes already; ask the one that was fitted.")
    if isinstance(genes, str) or not len(genes):
        raise BadInput(f"genes is {genes!r}; expected a list of names.")
    genes = list(map(str, genes))
    twice = sorted({gene for gene in genes if genes.count(gene) > 1}) if len(set(genes)) < len(genes) else []
    if twice:
        raise BadInput(f"genes names {listed(twice)} twice; expected each once.")
    return genes


def _vectors(
    predictor: Model, genes: Sequence[str], knowledge: GeneKnowledge | None
) -> tuple[Aligned, list[int | None]]:
    """What is known of each gene, and which gene of the fit it is; an error names those of which nothing is known."""
    own = {gene: row for row, gene in enumerate(predictor.genes)}
    where = [own.get(gene) for gene in genes]
    knowledge = knowledge or predictor.knowledge
    told = predictor.provenance["knowledge"]
    if knowledge is None:
        raise BadInput(
            f"a loaded '{predictor.card.name}' has vectors of its own genes alone. Pass knowledge= that it was fitted "
            f"with: '{told['name']}', from {told['source'] or 'arrays'}."
        )
    _check_same(predictor, knowledge)
    rows = knowledge.rows(genes)
    lost = [gene for gene, row, here in zip(genes, rows, where, strict=True) if row is None and here is None]
    if lost:
        raise BadInput(
            f"knowledge '{knowledge.name}' knows nothing of {len(lost)} of {len(genes)} genes: {listed(lost, 10)}. "
            "Leave them out, or pass knowledge= that has them and was known at the fit."
        )
    _check_names(predictor, knowledge, genes, rows, where)
    return knowledge.aligned(genes, quiet=True), where


def _check_same(predictor: Model, knowledge: GeneKnowledge) -> None:
    """The vectors of the genes of the fit are those of the fit: others lie along other axes."""
    import torch

    found = knowledge.aligned(predictor.genes, quiet=True)
    fits = knowledge.width == predictor.sizes["knowledge"]
    fits = fits and torch.allclose(torch.from_numpy(found.vectors), predictor.gene_vectors.cpu(), rtol=1e-4, atol=1e-5)
    if not fits:
        told = predictor.provenance["knowledge"]
        raise BadInput(
            f"knowledge '{knowledge.name}' has other vectors of the genes of the fit than the '{told['name']}' of "
            f"{told['genes']} genes, {told['width']} wide, that '{predictor.card.name}' was fitted with. Pass that."
        )


def _check_names(
    predictor: Model, knowledge: GeneKnowledge, genes: Sequence[str], rows: Sequence[int | None], where: Sequence
) -> None:
    """No gene of the fit is asked for under another name, as if it had not been seen."""
    known = dict(zip(knowledge.rows(predictor.genes), predictor.genes, strict=True))
    for gene, row, here in zip(genes, rows, where, strict=True):
        if here is None and row in known:
            raise BadInput(f"'{gene}' is '{known[row]}', which the model was fitted on. Ask for it by that name.")


def _of_genes(predictor: Model, where: Sequence[int | None]) -> dict[str, Tensor]:
    """What a model has for each gene (`per_gene`): its own, or 0 of a gene that it was not fitted on."""
    import torch

    state, own = predictor.state_dict(), torch.tensor([row is not None for row in where])
    rows = torch.tensor([row or 0 for row in where])
    kept = {name: state[name].cpu()[rows] for name in predictor.per_gene}
    return {name: part * own.view(-1, *[1] * (part.ndim - 1)).to(part.dtype) for name, part in kept.items()}


def _pooled(predictor: Model, where: Sequence[int | None]) -> dict[str, Tensor]:
    """Mean, spread and error of every gene: its own, or those pooled over the genes of the fit."""
    import torch

    mean, std = predictor.expression_mean, predictor.expression_std
    left = 1 - min(max(predictor.history.get(LEFT_OUT, 0.0), 0.0), 1.0)
    pooled = {
        "expression_mean": mean.mean(),
        "expression_std": std.square().mean().sqrt(),
        "std_factor": torch.tensor(left).sqrt(),
        "std_added": mean.std(correction=0),
    }
    place = torch.tensor([-1 if row is None else row for row in where], device=mean.device)
    return {name: torch.where(place < 0, value, getattr(predictor, name)[place]) for name, value in pooled.items()}


def _told(found: Aligned) -> dict[str, Tensor]:
    import torch

    return {"gene_vectors": torch.from_numpy(found.vectors), "gene_known": torch.from_numpy(found.known)}
