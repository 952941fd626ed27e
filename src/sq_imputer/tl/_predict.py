from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.sources import check_takes
from sq_imputer.predictor.train import Plan
from sq_imputer.predictor.zero_shot import trained_on
from sq_imputer.progress import quiet
from sq_imputer.runs.carry_out import carry_out
from sq_imputer.runs.checks import (
    check_alone,
    check_leave_out,
    check_repeats,
    check_unseen,
    warn_of_genes,
    warn_of_little,
    warn_of_looks,
    warn_of_shapes,
)
from sq_imputer.runs.decide import by_one_model, by_own_spots
from sq_imputer.runs.kept import columns_kept, cut
from sq_imputer.runs.lacking import warn_of_lacking
from sq_imputer.runs.run import journal_home, manifest, open_run
from sq_imputer.runs.sections import asked, pick_genes, read_sections, resolve_model, shelf_of
from sq_imputer.runs.slots import Place, layer_of, units, write_results
from sq_imputer.runs.streamed import stream, streams
from sq_imputer.runs.targets import in_their_sections, measured_of, read_targets, recall
from sq_imputer.runs.totals import share_of, warn_of_shares
from sq_imputer.scores.splits import check_folds
from sq_imputer.section.keys import verb
from sq_imputer.section.nearby import check_whole_panel
from sq_imputer.section.opened import open_for
from sq_imputer.section.resolution import check_resolution, common, fitting, for_model, read_at
from sq_imputer.store.workers import Workers
from sq_imputer.target import Target

if TYPE_CHECKING:
    from typing import Unpack

    import numpy as np
    from anndata import AnnData
    from distributed import Client
    from spatialdata import SpatialData

    from sq_imputer.encoders._shelf import Weights
    from sq_imputer.genes.knowledge import GeneKnowledge
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.decide import Decision
    from sq_imputer.runs.run import Run
    from sq_imputer.runs.sections import Sections
    from sq_imputer.runs.targets import Targets
    from sq_imputer.section.keys import SlideKeys
    from sq_imputer.section.slide import Slide


@verb
def predict(
    sdata: SpatialData | str | Path,
    model: str | Path | Predictor,
    *,
    reference: Sections | None = None,
    sections: str | Mapping | None = None,
    leave_out: str | None = None,
    target: Target | str | None = None,
    genes: Sequence[str] | int | None = None,
    unit: str | None = None,
    key_added: str | None = None,
    layer_added: str | None = None,
    overwrite: bool = False,
    n_folds: int = 5,
    n_repeats: int = 1,
    buffer_um: float | None = None,
    allow_same_patient: bool = False,
    config: Mapping | object | None = None,
    knowledge: GeneKnowledge | None = None,
    weights: Weights | None = None,
    resolution: str | float | None = "auto",
    dense: bool | None = None,
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
    resume: bool = False,
    client: Client | None = None,
    output_path: str | Path | None = None,
    keep: str = "all",
    **keys: Unpack[SlideKeys],
) -> None:
    """Predict expression, or another target, from the image and write it into the object as a table of its own.

    What is written at a measured spot is never a fit to that spot. A model given by name is fitted on `reference`, or
    else on this object's own measured spots: those of other patients where `sections` has several, else in spatial
    blocks, each of which is predicted by a model that has not seen it (nor rows within `buffer_um` of it). Shapes that
    were not measured are predicted by a model fitted on all that were.

    Parameters
    ----------
    sdata
        The object to predict. Only `tables[key_added]` is written, in the store as well if the object is backed. Or the
        path of a store, of which only what is needed is opened (:func:`sq_imputer.io.read_zarr` with `elements=`).
    model
        Name of a registered model, folder written by `save`, or a fitted predictor. Or `"zoo:<name>"`: a model of
        others, which comes fitted (`docs/models_of_others.md`).
    reference
        Sections to fit a named model on; this object must not be among them.
    sections
        The sections of an object that has several: a column of `obs` whose values name them, the region key included,
        or a mapping of names to keys. All are predicted, into one table.
    leave_out
        What a model that predicts a spot of this object has not seen: the spot's `"patient"`, its `"section"` or its
        `"block"`. Left out: the patient where there are several, else the block. The provenance says what was done.
    target
        What is predicted, as in :func:`sq_imputer.tl.fit`; genes if left out. A fitted model has its own.
    genes
        Names of genes, or how many to choose on the training sections; left out, the genes of the table `key_added`
        if it exists and there is no reference, else 250. Of another target names of its columns, all if left out. A
        fitted model has its own; one that can (`card.zero_shot`) may be asked for any of which something is known.
    unit
        Expression unit that a named model is fitted in, as in :func:`sq_imputer.tl.fit`; `"log1p_cp10k"` if left out. A
        fitted model has its own.
    key_added
        Name of the table; `"imputed"`, or `"imputed_NAME"` of another target, if left out. It holds these sections and
        one gene panel; more models on the same add layers to it.
    layer_added
        Name of the layer; the model's name if left out, with `_zero_shot` if it was not fitted on some of the genes.
    overwrite
        Replace the layer, or a table of other genes or shapes, under these names.
    n_folds
        Spatial blocks, for out-of-fold prediction.
    n_repeats
        Partitions into blocks, whose borders have other directions. The prediction is the mean over them, and takes as
        many times longer. With 1 every block is one model's own and the borders show: domains follow them.
    buffer_um
        Training rows nearer than this to a row of the block are left out of its fold; the side of the model's crop if
        left out.
    allow_same_patient
        Let a model that retrieves be made of other sections of the patient to be predicted; the provenance then says
        so. Other models only record that they share the patient.
    config
        The `Config` of a named model, or a dict of the fields that differ from its defaults.
    knowledge
        What a named model is told of genes, as in :func:`sq_imputer.tl.fit`. A fitted model has its own; a loaded one
        that is asked for genes that it was not fitted on needs it again.
    weights
        Weights of the model's encoders, as in :func:`sq_imputer.tl.fit`; of a fitted model they must be those of its
        fit.
    resolution
        µm per pixel: crops show nothing finer, of any section. `"auto"`: the coarsest that the sections resolve, by
        their spectra, where they differ by more than 1.5 times; else each is read as it is. None: as it is. A
        fitted model has its own, and refuses sections that resolve less; of one that was fitted at several the finest
        is taken that all sections allow, or the one that is named here, and the provenance says which.
    dense
        Whether windows that share pixels are described together, block by block, which costs what their pixels cost;
        False: window by window. Left out: together where the encoder can, in blocks as large as is cheapest for rows
        that lie as these do. Of `texture` both are the same numbers; networks see crops alone, and their patch tokens,
        which `dense=True` asks for, are another feature: fit and predict in one way. The provenance says which.
    plan
        How to train, and the device to run on.
    seed, device, progress
        As the fields of the plan: seed of all that is random, `"cpu"`, `"cuda"` or `"auto"`, whether bars are shown.
    resume
        Keep what is done on disk until all of it is written, and go on with what an earlier call with the same input
        and arguments has done. Features, fitted models and predicted rows are kept, in a hidden folder beside the store
        (or beside `output_path`) that is removed at the end; a call that was killed loses at most one shard of 256
        rows, or the model that it was fitting.
    client
        A `distributed.Client`: the workers of its cluster compute features, and the predictions of models that read the
        image itself, and write them where `resume` keeps them, which they all must see. A lost worker costs what it was
        at; a call that was killed goes on, as with `resume`. Models are fitted in this process.
    output_path
        Write the table, and the shapes that it annotates, to a new store instead of the object's; in memory
        `tables[key_added]` is set all the same.
    keep
        `"all"`, or `"reliable"`: the table then has only the genes that the model predicts beyond chance, and rows that
        are unlike the training tissue are NaN. For models fitted by `tl.fit(..., trust=True)`, which mark genes in
        `var["<model>_reliable"]` either way; :func:`sq_imputer.tl.trust` marks what others say.
    **keys
        Where to find image, shapes and counts, as :meth:`sq_imputer.Slide.from_sdata` takes them. Give
        `shapes_key` of a grid (:func:`sq_imputer.pp.grid`) or of cells to predict there.

    Raises
    ------
    MissingKey
        If a key or a gene is missing.
    BadInput
        If the input cannot be used, nothing is measured and no reference given, `key_added` is taken, a model that
        retrieves has spots of this patient, or an unfinished run to be resumed is of other input or arguments. Nothing
        has been computed then.
    StoreError
        If the store, or `output_path`, cannot be written or has too little room. Where this is found only at the end,
        the result is in memory.
    OutOfMemory
        If the device has no memory for one row. Larger batches are halved until they fit.

    Notes
    -----
    `docs/slots.md` lists what is written. A prediction of which one matrix has more than 64 MB (56,000 rows of 300
    genes) goes to the store some rows at a time, is never whole in memory, and is lazy (dask) in the object. Of a model
    that retrieves, :func:`sq_imputer.tl.retrieved` tells which reference spots a prediction was made of.

    Examples
    --------
    >>> sqi.tl.predict(sdata, model, shapes_key="spots")
    >>> predicted = sdata.tables["imputed"].layers["ridge"]
    """
    plan, workers = Plan.of(plan, seed=seed, device=device, progress=progress), client and Workers(client)
    _check_asked((n_folds, buffer_um, n_repeats), leave_out, reference, resolution)
    own = isinstance(sdata, str | Path)
    sdata, predictor = _opened(sdata, sections, output_path, keys), resolve_model(model, config, genes, knowledge)
    keys = {**keys, "target": _target(predictor, target, unit)}
    targets = read_targets(sdata, sections, reference, keys).seen_by(shelf_of(predictor, weights, dense))
    predictor, columns = _fitting(predictor, targets, resolution, keep)
    names = key_added or keys["target"].key, layer_added or layer_of(predictor)
    place = Place(sdata, *names, overwrite, _path(output_path))
    table = place.check(targets)
    home = journal_home(place) if resume or workers else None
    if table is not None:
        recall(targets, table, sdata, place.key)
    if predictor.fitted:
        check_alone(predictor, reference, genes, unit, resolution)
        training, chosen, unit = [], list(predictor.genes), predictor.unit
    else:
        training = _training(sdata, targets, predictor, reference, keys)
        chosen, unit = _panel(table if reference is None else None, training, genes, unit)
    place.check_panel(table, chosen if columns is None else [chosen[k] for k in columns], unit)
    place.check_space(len(targets), predictor, len(chosen))
    _compare_libraries(targets, predictor, training, chosen, unit)
    warn_of_shapes(sdata, targets.regions if output_path is None else ())
    elsewhere = predictor.fitted or reference is not None
    targets, training = _at_one_resolution(targets, training, predictor, resolution, sdata if elsewhere else None)
    blocks = {"leave_out": leave_out, "n_folds": n_folds, "buffer_um": buffer_um, "n_repeats": n_repeats}
    if elsewhere:
        decision = by_one_model(targets, training, predictor)
    else:
        blocks["buffer_um"] = predictor.needs.crop.extent_um if buffer_um is None else buffer_um
        decision = by_own_spots(targets, training, **blocks)
    warn_of_little(decision, training, chosen, genes)
    training = _measured(decision, targets, training, chosen, unit)
    check_unseen(decision, targets, training, predictor, allow_same_patient)
    check_repeats(n_repeats, decision, n_folds, shown=plan.progress)
    asked = {"genes": chosen, "unit": unit, **blocks} | ({} if dense is None else {"dense": dense})
    described = partial(manifest, predictor, targets.slides, training, plan, **asked)
    _let_go(sdata, own)
    with quiet(not plan.progress), open_run(home, plan, described, workers) as run:
        _write(run, place, decision, predictor, targets, training, columns)


def _check_asked(blocks: tuple, leave_out, reference, resolution) -> None:
    """What can be checked before anything is opened."""
    check_folds(*blocks)
    check_leave_out(leave_out, reference)
    check_resolution(resolution)


def _let_go(sdata: SpatialData, own: bool) -> None:
    """Of an object of ours, the shapes: those of a million cells take as much memory as predicting these does."""
    if own:
        sdata.shapes.clear()


def _write(
    run: Run,
    place: Place,
    decision: Decision,
    predictor: Predictor,
    targets: Targets,
    training: Sequence[Slide],
    columns: np.ndarray | None,
) -> None:
    """What was decided, done and written: at once, or some rows at a time."""
    slides = run.sections([*targets.slides, *training])
    targets, training = targets.of(slides[: len(targets.slides)]), slides[len(targets.slides) :]
    how = decision, predictor, targets, training, run
    if streams(place, decision, predictor, targets, (predictor if predictor.fitted else training[0]).genes):
        if columns is not None:
            raise BadInput("keep='reliable' needs the prediction in memory, and this one is too large. Predict all.")
        stream(place, *how)
        return
    results = carry_out(*how)
    results = results if columns is None else cut(results, columns, targets.slides)
    write_results(place, targets, results, run.plan, run.size.rows)


def _opened(sdata: SpatialData | str | Path, sections, output_path, keys: Mapping) -> SpatialData:
    """The object, or what is needed of a store."""
    if not isinstance(sdata, str | Path):
        return sdata
    if output_path is not None:
        raise BadInput("output_path= copies shapes whole. Pass spatialdata.read_zarr(path) instead of the path.")
    return open_for(sdata, keys, sections)


def _fitting(predictor: Predictor, targets: Targets, resolution, keep: str) -> tuple[Predictor, np.ndarray | None]:
    """The model at the resolution of the targets, and the numbers of its genes that are written."""
    found = fitting(predictor, targets.slides, resolution)
    return found, columns_kept(found, keep)


def _path(output_path: str | Path | None) -> Path | None:
    return None if output_path is None else Path(output_path)


def _at_one_resolution(
    targets: Targets,
    training: list[Slide],
    predictor: Predictor,
    resolution: str | float | None,
    sdata: SpatialData | None,
) -> tuple[Targets, list[Slide]]:
    """Targets and training sections that show what both resolve, and nothing finer.

    `sdata` is the object of the targets where the model is fitted elsewhere: they are then scaled as sections of it.
    """
    if predictor.fitted:
        own = for_model(targets.slides, predictor.needs, predictor.provenance)
    else:
        own = common([*targets.slides, *training], predictor.needs, resolution)
    slides = read_at([*targets.slides, *training], own)
    for slide in slides:
        slide.check(predictor.needs)
    seen, trained = targets.of(slides[: len(targets.slides)]), slides[len(targets.slides) :]
    if sdata is None:
        return seen, trained
    warn_of_looks(targets.slides, training, predictor.provenance)
    return in_their_sections(seen, sdata, predictor.needs), trained


def _training(
    sdata: SpatialData, targets: Targets, predictor: Predictor, reference: Sections | None, keys: Mapping
) -> list[Slide]:
    """The sections that a named model is fitted on: the references, else what is measured in the object."""
    if reference is None:
        found = measured_of(sdata, targets, keys)
    else:
        found = read_sections(reference, keys, reference=True, encoders=targets.slides[0].encoders)
    check_takes(predictor.card, found[0].target)
    return found


def _measured(
    decision: Decision, targets: Targets, training: Sequence[Slide], chosen: Sequence[str], unit: str
) -> list[Slide]:
    """The training sections with what is measured of the target; what a fit lacks of it is said."""
    found = [slide.with_genes(chosen, unit) for slide in training]
    warn_of_lacking(decision, targets, found, chosen)
    return found


def _compare_libraries(
    targets: Targets, predictor: Predictor, training: Sequence[Slide], genes: list[str], unit: str
) -> None:
    """Refuse sections whose unit a panel cannot have, and warn of those with another library than a model's own."""
    if not targets.slides[0].target.is_genes:
        return
    for slide in targets.slides:
        check_whole_panel(slide, genes, unit)
    own = predictor.provenance if predictor.fitted else {"library_genes": [len(s.var_names) for s in training]}
    genes = trained_on(predictor) if predictor.fitted else genes  # what nobody measured is no part of a library
    warn_of_genes(targets, genes, unit, own.get("library_genes", []))
    elsewhere = [slide for slide in targets.slides if slide not in training]
    if elsewhere:
        shares = own.get("library_share", [share_of(slide, genes) for slide in training])
        warn_of_shares(elsewhere, genes, unit, shares)


def _panel(
    table: AnnData | None, training: Sequence[Slide], genes: Sequence[str] | int | None, unit: str | None
) -> tuple[list[str], str]:
    """Genes and unit as asked for, else those of the table that is there, else the usual ones."""
    if genes is None and table is not None:
        return list(table.var_names), training[0].target.unit or unit or units(table).pop()
    return pick_genes(training, genes), training[0].target.unit or unit or LOG1P_CP10K


def _target(predictor: Predictor, target: Target | str | None, unit: str | None) -> Target:
    """What is predicted: what a fitted model was fitted on, else what is asked for."""
    if not predictor.fitted:
        return asked(target, unit)
    own = predictor.target
    if target is not None and Target.of(target).where != own.where:
        raise BadInput(
            f"target is '{Target.of(target).where}', but this '{predictor.card.name}' was fitted on '{own.where}'. "
            "Leave out target=, or fit one."
        )
    return own if own.is_genes else replace(own, unit=predictor.unit)
