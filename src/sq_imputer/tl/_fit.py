from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sq_imputer.errors import listed
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.sources import check_takes
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import quiet
from sq_imputer.runs import reliability
from sq_imputer.runs.checks import warn_of_panel, warn_of_rows
from sq_imputer.runs.sections import asked, pick_genes, read_sections, resolve_model, shelf_of
from sq_imputer.runs.totals import share_of
from sq_imputer.section.keys import verb
from sq_imputer.section.resolution import common, known, read_at, several

if TYPE_CHECKING:
    from typing import Unpack

    from sq_imputer.encoders._shelf import Weights
    from sq_imputer.genes.knowledge import GeneKnowledge
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.sections import Sections
    from sq_imputer.section.keys import SlideKeys
    from sq_imputer.section.slide import Slide
    from sq_imputer.target import Target


@verb
def fit(
    sdata: Sections,
    model: str | Predictor | type[Predictor],
    *,
    sections: str | Mapping | None = None,
    target: Target | str = "genes",
    genes: Sequence[str] | int | None = None,
    unit: str | None = None,
    config: Mapping | object | None = None,
    knowledge: GeneKnowledge | None = None,
    weights: Weights | None = None,
    resolution: str | float | Sequence[float] | None = "auto",
    dense: bool | None = None,
    trust: bool = False,
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
    **keys: Unpack[SlideKeys],
) -> Predictor:
    """Fit a model on the measured spots of one section or several.

    Parameters
    ----------
    sdata
        A SpatialData object, a list of them, or a dict of section names to them. They are not changed.
    model
        Name of a registered model (:func:`sq_imputer.list_models`), a `Predictor` class, or an instance, of which an
        unfitted copy with the same config is fitted.
    sections
        The sections of an object that has several: a column of `obs` whose values name them, the region key included,
        or a mapping of names to keys. All are fitted on.
    target
        What is predicted (:class:`sq_imputer.Target`): `"genes"`, a column `"obs:NAME"` of numbers or categories, a
        matrix `"obsm:NAME"`, or `"table:NAME"`. Rows without a value of it are not measured. `"triplex_legacy"`: genes
        in the unit, and smoothed for training, as the published TRIPLEX has them.
    genes
        Names of genes, or how many to choose on these sections (:func:`sq_imputer.genes.choose_genes`); 250 if left
        out. Of another target names of its columns, all if left out.
    unit
        Expression unit: `"log1p_cp10k"` (if left out) over the full library, `"log1p_counts"`, `"log2_counts"` or
        `"log10_cp10k_panel"`. Of another target what its numbers are called; `"table:NAME"` wants it said.
    config
        The model's `Config`, or a dict of the fields that differ from its defaults.
    knowledge
        What is known of genes, for models that need it (`docs/concepts/knowledge.md`); the spelling of their names
        if left out, which a warning says.
    weights
        A safetensors file with the weights of the model's encoder, or a dict of encoders to such files. Left out:
        those of the features that the sections keep (:func:`sq_imputer.pp.embed`), else of the Hugging Face Hub.
    resolution
        µm per pixel: crops show nothing finer, of any section. `"auto"`: the coarsest that the sections resolve, by
        their spectra, where they differ by more than 1.5 times; else each is read as it is. None: as it is. A model
        says nothing of a section that resolves less than it was fitted at: pass that of the coarsest to be predicted.
        Several, such as `[0.7, 1.4, 3.2]`: a model is fitted at each, all are saved in one folder, and `tl.predict`
        takes the finest that a section allows. The coarser ones are `predictor.coarser`.
    dense
        Whether windows that share pixels are described together, block by block, which costs what their pixels cost;
        False: window by window. Left out: together where the encoder can, in blocks as large as is cheapest for rows
        that lie as these do. Of `texture` both are the same numbers; networks see crops alone, and their patch tokens,
        which `dense=True` asks for, are another feature: fit and predict in one way. The provenance says which.
    trust
        Measure which genes are predicted beyond chance, and how wide intervals must be, on parts of these sections that
        are left out in turn (one more fit for each, at most five), and keep it with the model: a slide without
        expression then gets it too (:func:`sq_imputer.tl.trust`).
    plan
        How to train: device, epochs, seed, early stopping.
    seed, device, progress
        As the fields of the plan: seed of all that is random, `"cpu"`, `"cuda"` or `"auto"`, whether bars are shown.
    **keys
        Where to find image, shapes and counts, as :meth:`sq_imputer.Slide.from_sdata` takes them.

    Returns
    -------
    The fitted predictor: `.save(folder)` keeps it, `tl.predict(sdata, model=...)` uses it.

    Raises
    ------
    MissingKey
        If a key or a gene is missing.
    BadInput
        If a section cannot be used, or sections keep features by different weights of an encoder.

    Examples
    --------
    >>> model = sqi.tl.fit(sections, "ridge", genes=["NUC1", "NUC2", "GLD1", "STR1"])
    >>> model.save("ridge_of_two_sections")
    """
    plan = Plan.of(plan, seed=seed, device=device, progress=progress)
    predictor = resolve_model(model, config, knowledge=knowledge)
    fresh = predictor.fresh()
    keys = {**keys, "target": asked(target, unit)}
    slides = read_sections(sdata, keys, within=sections, encoders=shelf_of(fresh, weights, dense))
    levels = several(resolution) if isinstance(resolution, list | tuple) else [resolution]
    chosen = pick_genes(slides, genes)
    check_takes(fresh.card, slides[0].target)
    unit = slides[0].target.unit or unit or LOG1P_CP10K
    n_rows = sum(int(slide.measured.sum()) for slide in slides)
    if slides[0].target.is_genes:
        warn_of_panel(chosen, genes)
    warn_of_rows(f"'{fresh.card.name}'", n_rows, listed(slide.section for slide in slides))
    read = [common(slides, fresh.needs, level) for level in levels]  # which refuses before anything is fitted
    with quiet(not plan.progress):
        models = [_fitted(fresh, slides, own, chosen, unit, plan, trust) for own in read]
    if len(models) > 1:
        for model in models:
            model.provenance["resolutions"] = levels
    models[0].coarser = tuple(models[1:])
    return models[0]


def _fitted(
    like: Predictor,
    slides: Sequence[Slide],
    resolution: float | None,
    genes: Sequence[str],
    unit: str,
    plan: Plan,
    trust: bool,
) -> Predictor:
    """A predictor like this one, fitted on sections that are read at one resolution."""
    fresh, slides = like.fresh(), read_at(slides, resolution)
    targets = [slide.with_genes(genes, unit) for slide in slides]
    fresh.fit(targets, plan)
    if trust:
        fresh.provenance[reliability.KEY] = reliability.measure(fresh, targets, plan)
    if fresh.target.is_genes:
        fresh.provenance["library_genes"] = [len(slide.var_names) for slide in slides]
        fresh.provenance["library_share"] = [share_of(slide, genes) for slide in slides]
    fresh.provenance["training_mpp"] = max(slide.frame.pixel.mpp for slide in slides)
    fresh.provenance |= known(slides, resolution)
    fresh.provenance["pixels"] = [slide.frame.pyramid.fingerprint for slide in slides]
    return fresh
