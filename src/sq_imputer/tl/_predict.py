from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.errors import BadInput, listed
from sq_imputer.genes.units import LOG1P_CP10K
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import quiet, track
from sq_imputer.runs.retrieved import check_patient, pool
from sq_imputer.runs.run import Piece, Run, journal_home, manifest, open_run
from sq_imputer.runs.sections import pick_genes, read_sections, resolve_model
from sq_imputer.runs.slots import Place, Result, units, write_result
from sq_imputer.scores.splits import check_folds, folds
from sq_imputer.section import read
from sq_imputer.section.keys import verb
from sq_imputer.section.slide import Slide

if TYPE_CHECKING:
    from typing import Unpack

    from spatialdata import SpatialData

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.sections import Sections
    from sq_imputer.section.keys import SlideKeys

N_GENES = 250  # unless said otherwise; on a table that is there already, its panel


@verb
def predict(
    sdata: SpatialData,
    model: str | Path | Predictor,
    *,
    reference: Sections | None = None,
    genes: Sequence[str] | int = N_GENES,
    unit: str | None = None,
    key_added: str = "imputed",
    layer_added: str | None = None,
    overwrite: bool = False,
    n_folds: int = 5,
    buffer_um: float | None = None,
    allow_same_patient: bool = False,
    config: Mapping | object | None = None,
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
    resume: bool = False,
    output_path: str | Path | None = None,
    **keys: Unpack[SlideKeys],
) -> None:
    """Predict expression from the image and write it into the object as a table of its own.

    What is written at a measured spot is never a fit to that spot. A model given by name is fitted on `reference`, or
    else on this object's own measured spots in spatial blocks: each block is predicted by a model that has not seen
    it (nor rows within `buffer_um` of it), and shapes that were not measured are predicted by a model fitted on all
    that were.

    Parameters
    ----------
    sdata
        The object to predict. Only `tables[key_added]` is written, in the store as well if the object is backed.
    model
        Name of a registered model, folder written by `save`, or a fitted predictor.
    reference
        Sections to fit a named model on; this object must not be among them.
    genes
        Names of genes, or how many to choose on the training sections; without a reference and where `key_added`
        exists, its genes if left out. A fitted model has its own.
    unit
        Expression unit that a named model is fitted in, as in :func:`sq_imputer.tl.fit`; `"log1p_cp10k"` if left out. A
        fitted model has its own.
    key_added
        Name of the table. It holds one shapes element and one gene panel; more models on the same add layers to it.
    layer_added
        Name of the layer; the model's name if left out.
    overwrite
        Replace the layer, or a table of other genes or shapes, under these names.
    n_folds
        Spatial blocks, for out-of-fold prediction.
    buffer_um
        Training rows nearer than this to a row of the block are left out of its fold; the side of the model's crop if
        left out.
    allow_same_patient
        Let a model that retrieves be made of other sections of the patient to be predicted; the provenance then says
        so. Other models only record that they share the patient.
    config
        The `Config` of a named model, or a dict of the fields that differ from its defaults.
    plan
        How to train, and the device to run on.
    seed, device, progress
        As the fields of the plan: seed of all that is random, `"cpu"`, `"cuda"` or `"auto"`, whether bars are shown.
    resume
        Keep what is done on disk until all of it is written, and go on with what an earlier call with the same input
        and arguments has done. Features, fitted models and predicted rows are kept, in a hidden folder beside the store
        (or beside `output_path`) that is removed at the end; a call that was killed loses at most one shard of 256
        rows, or the model that it was fitting.
    output_path
        Write the table, and the shapes that it annotates, to a new store instead of the object's; in memory
        `tables[key_added]` is set all the same.
    **keys
        Where to find image, shapes and counts, as :meth:`sq_imputer.section.slide.Slide.from_sdata` takes them. Give
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
    `docs/slots.md` lists what is written. Of a model that retrieves, :func:`sq_imputer.tl.retrieved` tells which
    reference spots a prediction was made of.
    """
    plan = Plan.of(plan, seed=seed, device=device, progress=progress)
    check_folds(n_folds, buffer_um)
    predictor = resolve_model(model, config)
    target = _read_target(sdata, reference, keys)
    layer = layer_added or predictor.card.name
    place = Place(sdata, key_added, layer, overwrite, None if output_path is None else Path(output_path))
    table = place.check(target)
    home = journal_home(place) if resume else None
    if table is not None:
        shapes_key = target.keys["shapes_key"]
        target.recall(table, *read.rows_of(table, sdata.shapes[shapes_key], shapes_key, key_added))
    if predictor.fitted:
        _check_alone(predictor, reference, genes, unit)
        training, chosen, unit = [], list(predictor.genes), predictor.unit
        _check_unseen(target, predictor, predictor.provenance, allow_same_patient)
    else:
        training = _training(sdata, target, reference, keys)
        if reference is not None:
            _check_unseen(target, predictor, _known(training), allow_same_patient)
        again = table is not None and reference is None and isinstance(genes, int) and genes == N_GENES
        chosen = list(table.var_names) if again else pick_genes(training, genes)
        unit = unit or (units(table).pop() if again else LOG1P_CP10K)
    place.check_panel(table, chosen, unit)
    place.check_space(target, predictor, len(chosen))
    for slide in (target, *training):
        slide.check(predictor.needs, predictor.provenance.get("training_mpp"))
    training = [slide.with_genes(chosen, unit) for slide in training]
    how = {"genes": chosen, "unit": unit, "n_folds": n_folds, "buffer_um": buffer_um}
    with (
        quiet(not plan.progress),
        open_run(home, plan, lambda: manifest(predictor, target, training, plan, **how)) as run,
    ):
        target, *training = run.sections([target, *training])
        if predictor.fitted:
            result = _by_fitted(target, predictor, run)
        elif reference is not None:
            result = _by_reference(target, predictor, training, run)
        else:
            result = _by_folds(target, training[0], predictor, n_folds, buffer_um, run)
        write_result(place, target, replace(result, batch_size=run.size.rows), plan)


# Where the prediction comes from ------------------------------------------------------------------


def _read_target(sdata: SpatialData, reference: Sections | None, keys: Mapping) -> Slide:
    """The section to be predicted; the table that is named may be one that only the references have."""
    read.check_object(sdata)
    elsewhere = reference is not None and keys.get("table_key", "table") not in sdata.tables
    return Slide.from_sdata(sdata, **({**keys, "table_key": None} if elsewhere else keys))


def _check_alone(predictor: Predictor, reference, genes, unit: str | None) -> None:
    """A fitted model has its training sections, its genes and its unit."""
    name = predictor.card.name
    if reference is not None:
        raise BadInput(
            f"reference goes with the name of a model; this '{name}' is fitted already. Leave out reference=, or pass "
            f"model='{name}' to fit one."
        )
    if not isinstance(genes, Integral) and list(genes) != list(predictor.genes):
        raise BadInput(
            f"genes names {len(genes)} genes, but this '{name}' was fitted on {len(predictor.genes)} of its own "
            f"({listed(predictor.genes, 3)}). Leave out genes=, or fit the genes wanted."
        )
    if unit not in (None, predictor.unit):
        raise BadInput(
            f"unit is '{unit}', but this '{name}' was fitted in '{predictor.unit}'. Leave out unit=, or fit one in it."
        )


def _training(sdata: SpatialData, target: Slide, reference: Sections | None, keys: Mapping) -> list[Slide]:
    """The sections that a named model is fitted on: the references, else the measured spots of the object."""
    if reference is None:
        return [target if target.measured.any() else _measured_here(sdata, target, keys)]
    return read_sections(reference, keys, reference=True)


def _known(slides: Sequence[Slide]) -> dict[str, list[str]]:
    """What the provenance of a model fitted on these slides will say of them."""
    names = {"fingerprints": "fingerprint", "sections": "section", "groups": "group"}
    return {name: [getattr(slide, one) for slide in slides] for name, one in names.items()}


def _check_unseen(target: Slide, predictor: Predictor, known: Mapping, allow_same_patient: bool) -> None:
    """The section is none of those that a model was fitted on; nor is its patient, if the model retrieves."""
    if target.measured.any() and target.fingerprint in known["fingerprints"]:
        raise BadInput(
            f"section '{known['sections'][known['fingerprints'].index(target.fingerprint)]}' of the training data is "
            "the very section to be predicted: its measured spots would be a training fit. Leave it out of the "
            "reference, or give the model by name alone, which predicts out of fold."
        )
    if predictor.retrieves and not allow_same_patient:
        check_patient(target, predictor.card.name, known["groups"], known["sections"])


def _measured_here(sdata: SpatialData, target: Slide, keys: Mapping) -> Slide:
    """The measured spots of the object, when other shapes of it are to be predicted."""
    table_key = keys.get("table_key", "table")
    if not read.annotated(sdata, table_key):
        raise BadInput(
            f"nothing is measured here: no table '{table_key}' annotates shapes (tables: {listed(sdata.tables)}), "
            "and no reference is given. Three ways out: pass table_key= of a table with counts; pass reference= "
            "sections with counts; or pass model= a fitted predictor or its folder."
        )
    measured = Slide.from_sdata(sdata, **{**keys, "image_key": target.keys["image_key"], "shapes_key": None})
    return replace(measured, section=target.section)


def _by_fitted(target: Slide, predictor: Predictor, run: Run) -> Result:
    shares = target.group in predictor.provenance["groups"]
    return Result(
        *_together([run.ask("all", predictor, target)]),
        predictor,
        "fitted model",
        predictor.provenance["sections"],
        bank_from="reference sections",
        shares_patient=shares,
        allow_same_patient=shares,  # who shares it without leave has not come here
    )


def _by_reference(target: Slide, predictor: Predictor, training: list[Slide], run: Run) -> Result:
    fitted = run.fit("all", predictor, training)
    return replace(_by_fitted(target, fitted, run), how="fitted on reference")


def _by_folds(
    target: Slide, measured: Slide, predictor: Predictor, n_folds: int, buffer_um: float | None, run: Run
) -> Result:
    """Out of fold where measured; by a model fitted on everything measured elsewhere."""
    all_here = "all measured spots of this section"
    if target.keys["shapes_key"] != measured.keys["shapes_key"]:
        fitted = run.fit("all", predictor, measured)
        found = _together([run.ask("all", fitted, replace(target, anchor=measured))])
        how = "fitted on the measured spots of this object"
        return Result(*found, fitted, how, [measured.section], bank_from=all_here, shares_patient=True)
    rows = np.flatnonzero(measured.measured)
    buffer_um = predictor.needs.crop.extent_um if buffer_um is None else buffer_um
    fold = np.full(len(measured), -1)
    pieces, hashes, bank_from = [], [], f"other spatial blocks of this section, beyond {buffer_um:g} um"
    splits = folds(measured.xy_um[rows], n_folds, buffer_um=buffer_um)
    for number, split in track(enumerate(splits), "folds", len(splits), shown=run.plan.progress):
        member = run.fit(f"fold-{number}", predictor, measured.take(rows[split.train]))
        out = rows[split.test]
        fold[out] = number
        pieces.append(run.ask(f"fold-{number}", member, measured, out))
        hashes.append(member.sha256)
    rest = np.flatnonzero(~measured.measured)
    if len(rest):
        member = run.fit("all", predictor, measured)
        pieces.append(run.ask("rest", member, measured, rest))
        hashes.append(member.sha256)
        bank_from += f"; at spots that were not measured, {all_here}"
    how = {"how": "out of fold", "fold": fold, "buffer_um": buffer_um, "bank_from": bank_from, "shares_patient": True}
    known = {**_known([measured]), "rows": [len(rows)], "weights_sha256": hashes}
    return Result(*_together(pieces), member, training=[measured.section], known=known, **how)


def _together(pieces: Sequence[Piece]) -> tuple[Prediction, dict[str, np.ndarray] | None]:
    """All rows in their order, and the one bank that their neighbors count."""
    import torch

    predictions, bank = [piece.prediction for piece in pieces], None
    if pieces[0].bank is not None:
        predictions, bank = pool(predictions, [piece.bank for piece in pieces])
    return Prediction.gather(predictions, [torch.from_numpy(piece.rows) for piece in pieces]), bank
