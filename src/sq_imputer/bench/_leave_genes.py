"""Genes *and* sections that were both left out: what knowledge of genes is worth, beside what it must beat."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._leave_out import check_apart, check_run, warn_of_little
from sq_imputer.bench._outcome import Case
from sq_imputer.errors import BadInput, check_number, listed
from sq_imputer.genes.annotations import read_chromosomes
from sq_imputer.genes.folds import gene_folds
from sq_imputer.genes.panel import choose_genes
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.registry import get_model
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import track
from sq_imputer.scores.tables import score_table
from sq_imputer.section.keys import verb
from sq_imputer.section.resolution import common
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.predictor.base import Predictor

MEAN = "mean of seen genes"
SCORES = ("pearson", "pearson_given_depth", "spearman")  # what is said of a gene that was not seen is ordinal


@verb
def leave_genes_out(
    cases: Sequence[Case],
    models: Mapping[str, Predictor],
    *,
    n_genes: int = 250,
    genes: Sequence[str] | None = None,
    n_folds: int = 5,
    chromosomes: Mapping[str, str] | str | Path | None = None,
    measured: Predictor | None = None,
    nearest: int = 10,
    unit: str = LOG1P_CP10K,
    resolution: str | float | None = "auto",
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> DataFrame:
    """Score models on genes that they were not fitted on, in sections that they were not fitted on.

    Each fold of genes is left out of the training sections in turn, and predicted in the test section by models fitted
    on the other genes. Beside each model stand its controls, on the same genes and rows:

    - `"<model>, permuted"`: the same model, vectors dealt out to other genes of the panel, anew in each fold;
    - `"<model>, nearest genes"`: the mean of what `measured` says of the seen genes whose vectors are most like;
    - `"mean of seen genes"`: the same over all seen genes, which needs no knowledge;
    - `"<measured>, measured"`: `measured` fitted on the genes themselves, the upper bound.

    What is averaged is standardized by the training rows.

    Parameters
    ----------
    cases
        As :func:`leave_one_out` and :func:`strips_of` make them.
    models
        Unfitted predictors with their knowledge (`Model(config, knowledge)`) by the name that they have in the table.
    n_genes
        Size of the panel, chosen on the training sections of each case. Genes of which any model knows nothing, or that
        are another of the panel by another name, are left out, and said.
    genes
        The panel by name, instead.
    n_folds
        Parts of the panel.
    chromosomes
        Chromosomes of genes, or an NCBI gene_info file that has them: genes of one are left out together. A draw if
        left out, where paralogs and neighbors of a gene may have been seen.
    measured
        The model of the bound and of the averages; `ridge` with its defaults if left out.
    nearest
        How many genes are averaged.
    unit, resolution
        As of :func:`run`.
    plan, seed, device, progress
        As of :func:`run`; the seed also draws folds and permutations.

    Returns
    -------
    A row per case, predictor and gene, as :func:`run` has them, with correlations alone; `fold` is that of the gene,
    and `similarity` the highest cosine of its vector, of the first model, with that of a seen gene.

    Raises
    ------
    BadInput
        If a model cannot be asked for genes that it has not seen, or has no knowledge.

    Examples
    --------
    >>> bilinear = sqi.get_model("bilinear")
    >>> knowledge = sqi.GeneKnowledge.lexical(slides[0].var_names)
    >>> models = {"bilinear": bilinear(bilinear.Config.small(), knowledge)}
    >>> unseen = sqi.bench.leave_genes_out(cases, models, n_genes=12, n_folds=2, nearest=3)
    """
    import pandas as pd

    check_run(cases, models)
    _check_models(models)
    check_number("nearest", nearest, 1, whole=True)
    if isinstance(chromosomes, str | Path):
        chromosomes = read_chromosomes(chromosomes)
    plan = replace(Plan.of(plan, seed=seed, device=device, progress=progress), calibration=0)  # means are scored
    how = _How(models, measured or get_model("ridge")(), n_folds, chromosomes, nearest, unit, resolution, plan)
    tables, done = [], {}
    for case in cases:
        check_apart(case)
        warn_of_little(case)
        panel = choose_genes(case.training, n_genes) if genes is None else list(genes)
        tables.append(_Scored(case, _known(case, panel, models), how, done).table())
    return pd.concat(tables, ignore_index=True)


def _check_models(models: Mapping[str, Predictor]) -> None:
    for name, model in models.items():
        if not model.card.zero_shot:
            raise BadInput(
                f"'{name}' cannot be asked for genes that it was not fitted on (card.zero_shot). Leave it out."
            )
        if model.knowledge is None:
            raise BadInput(f"'{name}' has no knowledge of genes; make it by Model(config, knowledge).")


def _known(case: Case, panel: Sequence[str], models: Mapping[str, Predictor]) -> list[str]:
    """Genes of the panel that the test section has, of which all models know something, each of them once."""
    there = set(case.test.which(panel))
    kept = [gene for number, gene in enumerate(panel) if number in there]
    for model in models.values():
        rows = dict(zip(kept, model.knowledge.rows(kept), strict=True))
        first = {row: gene for gene, row in reversed(rows.items())}
        kept = [gene for gene in kept if rows[gene] is not None and first[rows[gene]] == gene]
    lost = [gene for gene in panel if gene not in set(kept)]
    if lost:
        warnings.warn(
            f"case '{case.name}': {len(lost)} of {len(panel)} genes are not scored, as nothing is known of them, they "
            f"are another gene of the panel, or the test section lacks them: {listed(lost)}.",
            UserWarning,
            stacklevel=4,
        )
    return kept


@dataclass(frozen=True, eq=False)
class _How:
    """What is the same for all cases."""

    models: Mapping[str, Predictor]
    measured: Predictor
    n_folds: int
    chromosomes: Mapping[str, str] | None
    nearest: int
    unit: str
    resolution: str | float | None
    plan: Plan


class _Scored:
    """A case, and what is said of every gene of its panel by models that have not seen it."""

    def __init__(self, case: Case, panel: list[str], how: _How, done: dict) -> None:
        self.case, self.panel, self.how, self.done = case, panel, how, done
        self.fold = gene_folds(panel, how.n_folds, chromosomes=how.chromosomes, seed=how.plan.seed)
        self.said: dict[str, np.ndarray] = {}
        self.similarity = np.zeros(len(panel))

    def table(self) -> DataFrame:
        """The scores of all that is said."""
        for k in track(range(self.how.n_folds), f"genes left out of {self.case.name}", self.how.n_folds):
            self._leave_out(np.flatnonzero(self.fold == k), np.flatnonzero(self.fold != k), k)
        bound = self._fitted(self.how.measured, self.panel)
        self.said[f"{self.how.measured.card.name}, measured"] = self._ask(bound)
        target = self._read(self.how.measured, self.panel)[-1]
        rows = self.case.rows
        found = score_table(target.expression[rows], self.said, self.panel, depth=target.depth[rows])
        place = found["gene"].map({gene: number for number, gene in enumerate(self.panel)}).to_numpy()
        found = found.assign(rank=place, fold=self.fold[place], similarity=self.similarity[place])
        name = self.case.name
        found = found.assign(section=name, case=name, shares_patient=self.case.shares_patient)
        return found.drop(columns=["mse", "r2"])

    def _leave_out(self, held: np.ndarray, seen: np.ndarray, k: int) -> None:
        """What is said of some genes by models, controls and averages that were fitted on the others."""
        genes, others = [self.panel[g] for g in held], [self.panel[g] for g in seen]
        by = self._fitted(self.how.measured, others)
        own = self._ask(by)
        own = (own - by.expression_mean.numpy()) / by.expression_std.numpy()
        averages = {MEAN: np.repeat(own.mean(axis=1)[:, None], len(held), axis=1)}
        for number, (name, model) in enumerate(self.how.models.items()):
            dealt = model.knowledge.only(self.panel).permuted(self.how.plan.seed + 1 + k)
            for said, like in ((name, model), (f"{name}, permuted", type(model)(model.config, dealt))):
                self._put(said, held, self._ask(self._fitted(like, others).for_genes(genes)))
            alike = _cosine(model.knowledge.aligned(genes).vectors, model.knowledge.aligned(others).vectors)
            if number == 0:
                self.similarity[held] = alike.max(axis=1)
            most = np.argsort(-alike, axis=1, kind="stable")[:, : self.how.nearest]
            averages[f"{name}, nearest genes"] = own[:, most].mean(axis=2)
        for said, values in averages.items():
            self._put(said, held, values)

    def _put(self, name: str, held: np.ndarray, values: np.ndarray) -> None:
        whole = self.said.setdefault(name, np.full((len(self.case.rows), len(self.panel)), np.nan, dtype=np.float32))
        whole[:, held] = values

    def _read(self, model: Predictor, genes: Sequence[str]) -> list[Slide]:
        """Training sections and the test section as a model reads them, with what is measured of some genes."""
        slides = [*self.case.training, self.case.test]
        own = common(slides, model.needs, self.how.resolution)
        done = self.done.setdefault(own, {})
        return [slide.at(own, done).with_genes(genes, self.how.unit) for slide in slides]

    def _fitted(self, model: Predictor, genes: Sequence[str]) -> Predictor:
        return model.fresh().fit(self._read(model, genes)[:-1], self.how.plan)

    def _ask(self, model: Predictor) -> np.ndarray:
        """What a fitted model says of the rows that are scored, whose measurement it does not get to see."""
        test = self.case.test
        own = common([*self.case.training, test], model.needs, self.how.resolution)
        test = test.at(own, self.done.setdefault(own, {}))
        return model.predict(test, rows=self.case.rows, device=self.how.plan.device).mean.numpy()


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of every row with every other, `(n, m)`."""
    one, other = (values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12) for values in (one, other))
    return one @ other.T
