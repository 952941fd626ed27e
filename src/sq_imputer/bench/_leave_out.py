"""Leave something out, fit on the rest, score on what was left out: models and baselines in one table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._outcome import Case, Outcome, baselines
from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.panel import choose_genes
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.registry import get_model
from sq_imputer.predictor.train import Plan
from sq_imputer.scores.splits import LEAST_TRAIN, by_section, folds, strips, told_apart
from sq_imputer.section.keys import verb
from sq_imputer.section.nearby import check_whole_panel, eps_of, scored
from sq_imputer.section.regions import common_names, slides_of
from sq_imputer.section.resolution import common
from sq_imputer.section.slide import Slide
from sq_imputer.section.targets import described
from sq_imputer.target import Target

if TYPE_CHECKING:
    from typing import Unpack

    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.section.keys import SlideKeys


@verb
def leave_one_out(
    slides: Sequence[Slide] | SpatialData,
    *,
    share_patient: bool = False,
    sections: str | Mapping | None = None,
    target: Target | str | None = None,
    **keys: Unpack[SlideKeys],
) -> list[Case]:
    """Each section is tested once, by a model fitted on the others.

    Parameters
    ----------
    slides
        Sections, or an object that has several.
    share_patient
        Allow sections of one individual on both sides; the cases are then marked.
    sections
        The sections of an object: a column of `obs`, or a mapping of names to keys, as :func:`sq_imputer.tl.predict`
        takes them.
    target
        What is predicted, as :func:`sq_imputer.tl.fit` takes it: sections of an object are read with it. Slides have
        one already, genes or what they were read with. Rows without a value of it are not scored.
    **keys
        Where to find image, shapes and counts of an object, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Examples
    --------
    >>> slides = [sqi.Slide.from_sdata(section) for section in sections]
    >>> cases = sqi.bench.leave_one_out(slides)
    """
    if sections is not None:
        slides = list(slides_of(slides, sections, {**keys, "target": Target.of(target)}).values())
    _check_slides(slides)
    _check_target(slides, target)
    names = told_apart([slide.section for slide in slides])  # two sections of one name are two cases
    splits = by_section(names, [s.group for s in slides], share_patient=share_patient)
    cases = []
    for split in splits:
        (k,) = np.flatnonzero(split.test)
        test, training = slides[k], tuple(slides[j] for j in np.flatnonzero(split.train))
        cases.append(Case(names[k], training, test, np.flatnonzero(scored(test)), split.shares_patient))
    return cases


def strips_of(slide: Slide, n_strips: int = 5, *, buffer_um: float = 0.0) -> list[Case]:
    """Vertical strips of one section, each tested once by a model fitted on the others, beyond a buffer."""
    _check_slides([slide])
    rows = np.flatnonzero(scored(slide))
    labels = strips(slide.xy_um[rows], n_strips)
    return [
        Case(f"{slide.section} {split.name}", (slide.take(rows[split.train]),), slide, rows[split.test], True)
        for split in folds(slide.xy_um[rows], buffer_um=buffer_um, blocks=labels)
    ]


def _check_slides(slides: Sequence[Slide]) -> None:
    """Sections are slides with counts, and no two of them share spots: these would be trained on and tested."""
    for slide in slides:
        if not isinstance(slide, Slide):
            raise BadInput(f"slides holds a {type(slide).__name__}; expected Slide.from_sdata(sdata).")
        if not slide.measured.any():
            what = "counts" if slide.target.is_genes else described(slide.target)
            raise BadInput(f"section '{slide.section}' has no {what}; expected measured spots. Leave it out.")
    marks = [slide.marks(()) for slide in slides]
    for k, slide in enumerate(slides):
        for j in range(k):
            n = int(slide.among(marks[j]).sum())
            if n:
                n_rows = int(slide.measured.sum())
                raise BadInput(
                    f"sections '{slides[j].section}' and '{slide.section}' have the same spots with the same counts "
                    f"({n} of {n_rows}): one would be trained on to predict the other. Leave one out."
                )


def _check_target(slides: Sequence[Slide], target: Target | str | None) -> None:
    """All slides are of one target, and of the one that was asked for."""
    asked = slides[0].target.where if target is None else Target.of(target).where
    other = next((slide for slide in slides if slide.target.where != asked), None)
    if other is not None:
        raise BadInput(
            f"section '{other.section}' was read for target '{other.target.where}', not '{asked}'. Read it by "
            f"Slide.from_sdata(sdata, target='{asked}')."
        )


def outcomes(
    cases: Sequence[Case],
    models: Mapping[str, Predictor],
    *,
    n_genes: int = 250,
    genes: Sequence[str] | None = None,
    unit: str = LOG1P_CP10K,
    resolution: str | float | None = "auto",
    image_eps: bool = False,
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> Iterator[Outcome]:
    """Fit and ask models on one case after the other, beside the baselines. Lazy.

    Parameters are those of :func:`run`.
    """
    check_run(cases, models)
    if image_eps and not cases[0].test.target.is_genes:
        raise BadInput(
            f"image_eps=True is of genes, and the cases are of '{cases[0].test.target.where}'. Leave it out."
        )
    plan = replace(Plan.of(plan, seed=seed, device=device, progress=progress), calibration=0)  # means are scored
    done: dict[float | None, dict] = {}  # a section that is in several cases is read once
    for case in cases:
        check_apart(case)
        warn_of_little(case)
        panel = _panel(case.training, n_genes) if genes is None else list(genes)
        tested = [panel[k] for k in case.test.which(panel)]
        known = [(slide, panel) for slide in case.training] + [(case.test, tested)]
        said = case.test.target.unit or unit
        check_whole_panel(case.test, panel, said)
        *training, target = [slide.with_genes(genes, said) for slide, genes in known]
        case = _of_known(case, target)
        predicted = baselines(training, target, panel, case.rows)
        for name, model in models.items():
            own = common([slide for slide, _ in known], model.needs, resolution)
            read = [slide.at(own, done.setdefault(own, {})).with_genes(genes, said) for slide, genes in known]
            *training, target = read
            fitted = model.fresh().fit(training, plan)
            mean = fitted.predict(target, rows=case.rows, device=plan.device).mean.numpy()
            predicted[name] = mean[:, [panel.index(gene) for gene in target.genes]]
        truth, depth = target.expression[case.rows], target.depth[case.rows]
        eps = _eps(case, known, resolution, done, truth, plan) if image_eps else {}
        yield Outcome(case, tuple(panel), truth, target.genes, predicted, depth, eps)


def _panel(training: Sequence[Slide], n_genes: int) -> list[str]:
    """Genes that are chosen on the training sections; of another target all names that these have."""
    return choose_genes(training, n_genes) if training[0].target.is_genes else common_names(training)


def _of_known(case: Case, test: Slide) -> Case:
    """The case without rows of classes or parts that are not fitted, which no model can have learned."""
    known = test.measured[case.rows]
    if test.target.is_genes or known.all():
        return case
    strange = [name for name in test.target.names if name not in set(test.genes)]
    what = f"{(~known).sum()} of {len(known)} rows are of {listed(strange)}, which no model is fitted on"
    if not known.any():
        raise BadInput(f"case '{case.name}': {what}; there is nothing to score. Leave it out.")
    warnings.warn(f"case '{case.name}': {what}; they are not scored.", UserWarning, stacklevel=4)
    return replace(case, rows=case.rows[known])


def _eps(case: Case, known: list, resolution, done: dict, truth: np.ndarray, plan: Plan) -> dict[str, np.ndarray]:
    """How smooth the tested genes are among spots whose texture, as `ridge` sees it, is alike."""
    needs = get_model("ridge")().needs
    own = common([slide for slide, _ in known], needs, resolution)
    return eps_of(case.test.at(own, done.setdefault(own, {})), case.rows, truth, needs, plan)


def check_run(cases: Sequence[Case], models: Mapping[str, Predictor]) -> None:
    """There are cases, and models by name."""
    from sq_imputer.predictor.base import Predictor

    if not isinstance(cases, Sequence) or not cases or not all(isinstance(case, Case) for case in cases):
        raise BadInput("no cases; make some with leave_one_out(slides) or strips_of(slide).")
    if not isinstance(models, Mapping) or not all(isinstance(model, Predictor) for model in models.values()):
        raise BadInput("models is no dict of predictors; expected such as {'ridge': get_model('ridge')()}.")


def warn_of_little(case: Case) -> None:
    """Say where a fit learns from next to nothing, before it is made."""
    n_rows = sum(int(slide.measured.sum()) for slide in case.training)
    if n_rows < LEAST_TRAIN:
        warnings.warn(
            f"case '{case.name}': models are fitted on {n_rows} measured rows of sections "
            f"{listed(slide.section for slide in case.training)}; fewer than {LEAST_TRAIN} say little. Pass "
            "sections that have more.",
            UserWarning,
            stacklevel=3,
        )


def check_apart(case: Case) -> None:
    """No row that is scored is trained on, whoever made the case."""
    tested = case.test.take(case.rows)
    for slide in case.training:
        n = int(tested.among(slide.marks(())).sum())
        if n:
            raise BadInput(
                f"case '{case.name}': {n} of {len(tested)} rows that are scored are among the training rows (section "
                f"'{slide.section}'). Make cases with leave_one_out(slides) or strips_of(slide)."
            )


def run(
    cases: Sequence[Case],
    models: Mapping[str, Predictor],
    *,
    n_genes: int = 250,
    genes: Sequence[str] | None = None,
    unit: str = LOG1P_CP10K,
    resolution: str | float | None = "auto",
    image_eps: bool = False,
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
    per: str = "gene",
) -> DataFrame:
    """Fit and score models on cases, beside the mean, depth alone, and, of other targets than genes, coordinates alone.

    What is predicted is the target that the slides of the cases were read for, genes or another.

    Parameters
    ----------
    cases
        As :func:`leave_one_out` and :func:`strips_of` make them.
    models
        Unfitted predictors by the name they have in the table; a copy of each is fitted per case.
    n_genes
        Size of the panel, chosen on the training sections of each case.
    genes
        The panel by name, instead; the same in all cases. Of another target names of its columns, all if left out.
    unit
        Expression unit; another target has its own.
    resolution
        At which the sections of a case are read, as of :func:`sq_imputer.tl.predict`.
    image_eps
        Add the columns `image_eps` and `image_eps_given_depth`: how much the texture of the test section tells of a
        gene before any model (:func:`sq_imputer.scores.smoothness.image_eps`). Reads its crops.
    plan
        How to train, and the device to run on.
    seed, device, progress
        As the fields of the plan: seed of all that is random, `"cpu"`, `"cuda"` or `"auto"`, whether bars are shown.
    per
        `"gene"`, or `"section"`: a row per case, predictor and metric.

    Returns
    -------
    A row per case, predictor and gene: as :func:`sq_imputer.scores.score_table`, with columns `case`, `rank` (place of
    the gene in the panel, which is ordered by variance on the training sections) and `shares_patient`. Of classes, and
    with `per="section"` (which alone has balanced accuracy, log-loss and the Jensen-Shannon divergence), the scores of
    :func:`sq_imputer.tl.score`, with intervals over spatial blocks of the section.

    Examples
    --------
    >>> ridge = sqi.get_model("ridge")
    >>> results = sqi.bench.run(cases, {"ridge": ridge()}, n_genes=10)
    """
    import pandas as pd

    if per not in ("gene", "section"):
        raise BadInput(f"per is '{per}'; expected 'gene' or 'section'.")
    found = outcomes(
        cases,
        models,
        n_genes=n_genes,
        genes=genes,
        unit=unit,
        resolution=resolution,
        image_eps=image_eps,
        plan=plan,
        seed=seed,
        device=device,
        progress=progress,
    )
    seed = Plan.of(plan, seed=seed).seed
    tables = [outcome.table() if per == "gene" else outcome.summary(seed) for outcome in found]
    return pd.concat(tables, ignore_index=True)
