from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed, named
from sq_imputer.genes.panel import columns_for
from sq_imputer.genes.units import to_unit
from sq_imputer.predictor.registry import get_model
from sq_imputer.predictor.train import Plan
from sq_imputer.runs.checks import warn_of_picture
from sq_imputer.runs.sections import check_table, folds_of, read_sections, records
from sq_imputer.runs.totals import with_depth_of
from sq_imputer.runs.views import names_of, sections_of, views_of
from sq_imputer.scores import tables as scoring
from sq_imputer.scores.metrics import noise_ceiling
from sq_imputer.scores.splits import spatial_blocks
from sq_imputer.scores.targets import ScoredTarget
from sq_imputer.section.keys import verb
from sq_imputer.section.nearby import scored as rows_scored
from sq_imputer.section.pixel_size import as_seen
from sq_imputer.section.slide import Slide
from sq_imputer.target import Target
from sq_imputer.tl._as_predicted import as_predicted, taken
from sq_imputer.tl._baselines import baselines_of, eps_by_gene
from sq_imputer.tl._kept import keep

if TYPE_CHECKING:
    from typing import Unpack

    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.runs.sections import Sections
    from sq_imputer.section.keys import SlideKeys

LEAST_SPOTS = 3  # of a correlation given depth
N_BLOCKS = 5  # in which the baselines beside a model of others are fitted
ERRORS = ("mse", "r2")
CEILING_ROWS = 100_000  # that the noise ceiling is found on


@verb
def score(
    sdata: SpatialData,
    models: Sequence[str] | str | None = None,
    *,
    target: Target | str | None = None,
    key: str | None = None,
    sections: str | Sequence[str] | None = None,
    reference: Sections | None = None,
    baselines: bool = True,
    per: str = "gene",
    all_rows: bool = False,
    device: str = "auto",
    seed: int = 0,
    **keys: Unpack[SlideKeys],
) -> DataFrame:
    """Score what :func:`sq_imputer.tl.predict` wrote against what was measured, beside baselines.

    The baselines are fitted as the model was: on the other spatial blocks (same folds, same buffer) where it was
    predicted out of fold, else on `reference`. The mean knows nothing of the spot; depth only knows its total counts,
    which no image model is told; ridge on texture is the registered `ridge` with its defaults.

    Parameters
    ----------
    sdata
        The object; `tables[key].var` gets columns `<model>_pearson`, `<model>_pearson_given_depth`, `ceiling`, and with
        baselines `image_eps` and `image_eps_given_depth`.
    models
        Names of layers; all predictions in the table if left out.
    target
        What is scored; genes if left out. It names the table alone.
    key
        The table that `tl.predict` wrote; `"imputed"`, or `"imputed_NAME"` of another target, if left out.
    sections
        Of a table of several sections, which: names, or the column that names them. All if left out; each is scored by
        itself.
    reference
        The sections that the model was fitted on, for the baselines. Of a model of others, sections of yours to fit
        them on; left out, they are fitted on this section, in spatial blocks, which is to their advantage.
    baselines
        Compute the baselines.
    per
        `"gene"`: a row per predictor and gene. `"section"`: means over genes with bootstrap intervals over spatial
        blocks.
    all_rows
        Score also the spots of fold -1: what is measured there became known after the prediction, which is that of a
        model fitted on all that was measured, their neighbors included. They are left out otherwise, with a warning.
    device
        Where encoders run.
    seed
        Of the bootstrap and of the noise ceiling.
    **keys
        Where the counts are, if not where `tl.predict` found them.

    Returns
    -------
    With `per="gene"`: gene, predictor, section, pearson, pearson_given_depth (partial, on log total counts),
    spearman, mse, r2, n_spots, ceiling (highest Pearson that the counting noise allows; found on 100,000 rows at most),
    and with baselines image_eps and image_eps_given_depth (how much the texture tells of the gene before any model;
    :func:`sq_imputer.scores.smoothness.image_eps`). With `per="section"`:
    predictor, metric, mean, low, high, n_units, n_genes, n_nan, nan_genes. A gene that does not vary has NaN, and is
    counted and named; so is the error (mse, r2) of a model of others in a unit of its own.

    Of classes a row per class has auroc and auprc of it against all others, recall, and n_of, how many rows are of it;
    per section these are balanced_accuracy, macro auroc and auprc over the classes that are there, log_loss, and
    calibration_error (of the call's probability, in bins of as many rows). Of a composition a row per part has what a
    gene has; per section jensen_shannon is added, in bits. Beside each stands `coordinates only`: the mean of the
    nearest training rows; `mean` is how frequent classes are. There is no `depth only` where no counts are known.

    Raises
    ------
    MissingKey
        If there is no such table or layer.
    BadInput
        If nothing was measured at the predicted shapes, or the baselines lack their training sections.

    Examples
    --------
    >>> scores = sqi.tl.score(sdata, reference=sections)
    """
    import pandas as pd

    if per not in ("gene", "section"):
        raise BadInput(f"per is '{per}'; expected 'gene' or 'section'.")
    check_number("seed", seed, 0, 2**63 - 1, whole=True)
    key = key or Target.of(target).key
    how = {"key": key, "baselines": baselines, "all_rows": all_rows, "device": device, "seed": seed, **keys}
    found = scored_by_section(sdata, models, sections=sections, reference=reference, **how)
    if per == "gene":
        return pd.concat([one.per_gene for one in found.values()], ignore_index=True)
    if not sections_of(sdata.tables[key]):
        return next(iter(found.values())).per_section()
    return pd.concat([one.per_section().assign(section=name) for name, one in found.items()], ignore_index=True)


def scored_by_section(
    sdata: SpatialData,
    models: Sequence[str] | str | None = None,
    *,
    key: str = "imputed",
    sections: str | Sequence[str] | None = None,
    reference: Sections | None = None,
    **how,
) -> dict[str, Scored]:
    """Every section of a table by itself, beside baselines that were fitted as its model was; means go into `var`."""
    import pandas as pd

    table = check_table(sdata, key)
    wanted = names_of(table, key, sections)
    if not sections_of(table):
        return {wanted[0]: scored(sdata, models, key=key, reference=reference, **how)}
    views, found = views_of(sdata, key), {}
    for name in wanted:
        record = next(iter(records(views[name].sdata.tables[key]).values()))
        others = reference
        if reference is None and record["leave_out"] in ("patient", "section"):
            others = {other: _slide(views[other].sdata, key) for other in record["training_sections"]}
        found[name] = scored(views[name].sdata, models, key=key, reference=others, **how)
    per_gene = pd.concat([one.per_gene for one in found.values()], ignore_index=True)
    means = per_gene.groupby(["predictor", "gene"], sort=False, as_index=False).mean(numeric_only=True)
    keep(sdata, key, means, [name for name in records(table) if name in set(per_gene["predictor"])])
    return found


def _slide(sdata: SpatialData, key: str) -> Slide:
    """A section as it was read for its prediction."""
    record = next(iter(records(sdata.tables[key]).values()))
    return Slide.from_sdata(sdata, **as_seen(record))


@dataclass(frozen=True)
class Scored:
    """Models and baselines beside what was measured: scores of every gene, and means over them when asked for."""

    per_gene: DataFrame
    measured: np.ndarray
    predicted: dict[str, np.ndarray]
    genes: list[str]
    depth: np.ndarray
    xy_um: np.ndarray
    seed: int
    ranked: tuple[str, ...] = ()  # predictors in another unit, which have no error

    def per_section(self) -> DataFrame:
        """Means over genes, with bootstrap intervals over spatial blocks."""
        blocks = spatial_blocks(self.xy_um, min(10, len(self.xy_um)))
        known = {"depth": self.depth, "blocks": blocks, "seed": self.seed}
        table = scoring.aggregate_blocks(self.measured, self.predicted, self.genes, **known)
        table.loc[table["predictor"].isin(self.ranked) & table["metric"].isin(ERRORS), ["mean", "low", "high"]] = np.nan
        return table


def scored(
    sdata: SpatialData,
    models: Sequence[str] | str | None = None,
    *,
    key: str = "imputed",
    reference: Sections | None = None,
    baselines: bool = True,
    all_rows: bool = False,
    device: str = "auto",
    seed: int = 0,
    **keys: Unpack[SlideKeys],
) -> Scored:
    """As :func:`score`, for callers that want both tables: the baselines are fitted once."""
    table = check_table(sdata, key)
    found = records(table)
    models = named("models", models or found)
    missing = [name for name in models if name not in found]
    if missing:
        raise MissingKey(f"no prediction {listed(missing)} in tables['{key}']; it has {listed(found)}.")
    spots = _measured(sdata, key, found[models[0]], keys)
    for name in models:
        _warn_of_picture(spots.slide, name, found[name])
    fit = _one_fit({name: found[name] for name in models}) if baselines else None
    ranked = _in_other_units({name: found[name] for name in models})
    if not all_rows:
        spots = _out_of_fold(table, spots, [name for name in models if found[name]["n_folds"]])
    slide, rows, genes = spots.slide, spots.rows, spots.genes
    predicted = {name: taken(table.layers[name], spots.at, spots.columns) for name in models}
    plan = Plan(seed=seed, device=device)
    if fit is not None:
        fold = folds_of(table, models[0])[spots.at] if fit["n_folds"] else None
        predicted |= _beside(spots, fold, fit, reference, keys, plan)
    measured = taken(slide.expression, rows, range(len(genes)))
    if "measured" in table.layers:
        then = table.layers["measured"]
        measured = as_predicted(measured, then, spots.at, spots.columns, slide.keys["table_key"])
    depth = slide.depth[rows]
    if not slide.target.is_genes:
        known = slide.target.kind, slide.section, measured, predicted, genes
        other = ScoredTarget(*known, depth, slide.xy_um[rows], seed)
        keep(sdata, key, other.per_gene, models)
        return other
    section = np.full(len(rows), slide.section)
    scores = scoring.score_table(measured, predicted, genes, depth=depth, section=section)
    scores["ceiling"] = scores["gene"].map(dict(zip(genes, _ceiling(slide, rows, genes, seed), strict=True)))
    if fit is not None:
        eps = eps_by_gene(slide, rows, measured, plan)
        scores = scores.assign(**eps.reindex(scores["gene"]).to_dict("list"))
    scores.loc[scores["predictor"].isin(ranked), list(ERRORS)] = np.nan
    keep(sdata, key, scores, models)
    return Scored(scores, measured, predicted, genes, depth, slide.xy_um[rows], seed, ranked)


def _ceiling(slide: Slide, rows: np.ndarray, genes: list[str], seed: int) -> np.ndarray:
    """Highest Pearson that counting allows; of a sample where rows are many, which tells it to a hundredth."""
    if len(rows) > CEILING_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, CEILING_ROWS, replace=False))
    columns = columns_for(genes, slide.var_names, f"section '{slide.section}'", slide.gene_ids)
    how = {"transform": partial(to_unit, unit=slide.unit), "seed": seed}
    return noise_ceiling(slide.counts.take(rows).columns(columns), slide.depth[rows], **how)


def _beside(spots: Spots, fold, fit: dict, reference: Sections | None, keys: Mapping, plan: Plan) -> dict:
    """Baselines that were fitted as the models were."""
    slide, rows, buffer_um = spots.slide, spots.rows, fit["buffer_um"]
    if fit.get("external") and reference is None:  # which has seen nothing of this section: the baselines do
        fold = spatial_blocks(slide.xy_um[rows], N_BLOCKS)[:, None]
        buffer_um = get_model("ridge")().needs.crop.extent_um
    training = None if fold is not None else _references(reference, keys, fit, spots.genes)
    return baselines_of(slide, rows, fold, buffer_um, training, plan)


def _in_other_units(found: dict[str, dict]) -> tuple[str, ...]:
    """Models whose predictions are in another unit than what was measured; their errors would compare two units."""
    other = {
        name: one["layer_unit"] for name, one in found.items() if one.get("layer_unit", one["unit"]) != one["unit"]
    }
    for name, unit in other.items():
        warnings.warn(
            f"'{name}' predicts in unit '{unit}', and what was measured is in '{found[name]['unit']}': it is scored by "
            "rank (spearman) and by Pearson, also given depth, not by error (mse, r2), which would compare two units.",
            UserWarning,
            stacklevel=4,
        )
    return tuple(other)


def _warn_of_picture(slide: Slide, name: str, record: dict) -> None:
    what = f"scores of '{name}' are of the picture of then, baselines of the present one"
    warn_of_picture(slide.frame, record, slide.keys["image_key"], what)


@dataclass(frozen=True)
class Spots:
    """What is scored: rows of the slide with counts, where they are in the table, genes and their columns there."""

    slide: Slide
    rows: np.ndarray
    at: np.ndarray
    genes: list[str]
    columns: list[int]


def _measured(sdata: SpatialData, key: str, record: dict, keys: Mapping) -> Spots:
    """The rows with counts that the table predicts, and the genes that were measured."""
    slide = with_depth_of(Slide.from_sdata(sdata, **{**as_seen(record), **keys}), sdata, key)
    slide = slide.at(record.get("resolution"))
    if not slide.measured.any():
        raise BadInput(
            f"nothing was measured at shapes '{slide.keys['shapes_key']}', so their prediction cannot be scored. Score "
            "the prediction at measured spots, or pass table_key=."
        )
    table = sdata.tables[key]
    columns = slide.which(list(table.var_names))
    if not columns:
        raise BadInput(
            f"none of the {table.n_vars} predicted genes is in table '{slide.keys['table_key']}'; nothing can be "
            "scored."
        )
    genes = [table.var_names[i] for i in columns]
    slide = slide.with_genes(genes, record["unit"])
    in_table, where = slide.rows_in(table, key)
    slide.recall(table, in_table, where)
    at = np.full(len(slide), -1)  # the table may have been sorted or filtered since
    at[where] = in_table
    rows = np.flatnonzero(rows_scored(slide) & (at >= 0))
    _check_number(len(rows), slide, f"measured and in tables['{key}']")
    return Spots(slide, rows, at[rows], genes, columns)


def _check_number(n: int, slide: Slide, what: str) -> None:
    if n < LEAST_SPOTS:
        raise BadInput(
            f"{n} spots of shapes '{slide.keys['shapes_key']}' are {what}; a correlation needs {LEAST_SPOTS} or more. "
            "Score a section with more spots, or several by bench.run."
        )


def _out_of_fold(table: AnnData, spots: Spots, folded: Sequence[str]) -> Spots:
    """The spots that every one of some models predicted out of fold, where models did so."""
    inside = np.ones(len(spots.rows), dtype=bool)
    for name in folded:
        inside &= table.obs[f"{name}_fold"].to_numpy()[spots.at] >= 0
    n = int((~inside).sum())
    if not n:
        return spots
    warnings.warn(
        f"{n} of {len(inside)} spots of section '{spots.slide.section}' were not measured when they were predicted "
        "(fold -1), by a model fitted on all spots around them: they are not scored. Predict again, or pass "
        "all_rows=True.",
        UserWarning,
        stacklevel=4,
    )
    _check_number(int(inside.sum()), spots.slide, "predicted out of fold")
    return replace(spots, rows=spots.rows[inside], at=spots.at[inside])


def _one_fit(found: dict[str, dict]) -> dict:
    """How all of these models were fitted, which is how the baselines are to be."""
    first = next(iter(found.values()))
    for name, record in found.items():
        if _fitted_on(record) != _fitted_on(first):
            raise BadInput(
                f"'{next(iter(found))}' ({first['how']}) and '{name}' ({record['how']}) were not fitted on the same "
                "rows, so no baseline compares with both. Pass models= of one kind, or baselines=False."
            )
    return {**first, "buffer_um": max(record["buffer_um"] for record in found.values())}


def _fitted_on(record: Mapping) -> tuple:
    return record["n_folds"], record.get("n_repeats", 1), record["fingerprints"]


def _references(reference: Sections | None, keys: Mapping, fit: dict, genes: list[str]) -> list[Slide]:
    """The sections that the model was fitted on, with the genes scored."""
    if reference is None:
        raise BadInput(
            f"'{fit['model']}' was fitted on sections {listed(fit['training_sections'])}; pass them as reference= so "
            "that the baselines can be fitted on the same, or baselines=False."
        )
    target = as_seen(fit).get("target")  # which the references are measured for as well
    slides = read_sections(reference, keys if target is None else {**keys, "target": target}, reference=True)
    if not fit.get("external") and {slide.fingerprint for slide in slides} != set(fit["fingerprints"]):
        raise BadInput(
            f"reference is {listed(slide.section for slide in slides)}, but '{fit['model']}' was fitted on other "
            f"counts: {listed(fit['training_sections'])}. Pass these, so that the baselines are fitted on the same."
        )
    return [slide.at(fit.get("resolution")).with_genes(genes, fit["unit"]) for slide in slides]
