from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.data import embeddings, read, write
from sq_imputer.data.genes import LOG1P_CP10K
from sq_imputer.data.slide import Slide
from sq_imputer.errors import BadInput, listed
from sq_imputer.progress import track
from sq_imputer.splits import folds
from sq_imputer.tl._sections import pick_genes, read_sections, records, resolve_model
from sq_imputer.train import Plan

if TYPE_CHECKING:
    from typing import Unpack

    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.data.slide import SlideKeys
    from sq_imputer.models._base import Predictor
    from sq_imputer.tl._sections import Sections

N_GENES = 250  # unless said otherwise; on a table that is there already, its panel
RESERVED = ("measured", "embeddings", "spatial")  # names of other slots of the table


@dataclass
class Result:
    """A prediction for every row of the target, and how it came about."""

    prediction: Prediction
    predictor: Predictor
    how: str
    training: list[str]
    fold: np.ndarray | None = None
    buffer_um: float = 0.0
    shares_patient: bool = False


def predict(
    sdata: SpatialData,
    model: str | Path | Predictor,
    *,
    reference: Sections | None = None,
    genes: Sequence[str] | int = N_GENES,
    key_added: str = "imputed",
    layer_added: str | None = None,
    overwrite: bool = False,
    n_folds: int = 5,
    buffer_um: float | None = None,
    config: Mapping | object | None = None,
    plan: Plan | None = None,
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
    config
        The `Config` of a named model, or a dict of the fields that differ from its defaults.
    plan
        How to train, and the device to run on.
    **keys
        Where to find image, shapes and counts, as :meth:`sq_imputer.data.slide.Slide.from_sdata` takes them. Give
        `shapes_key` of a grid (:func:`sq_imputer.pp.grid`) or of cells to predict there.

    Raises
    ------
    MissingKey
        If a key or a gene is missing.
    BadInput
        If the input cannot be used, nothing is measured and no reference given, or `key_added` is taken. Nothing has
        been computed then.

    Notes
    -----
    `docs/slots.md` lists what is written.
    """
    plan = plan or Plan()
    predictor = resolve_model(model, config)
    target = Slide.from_sdata(sdata, **keys)
    layer = layer_added or predictor.card.name
    table = _check_room(sdata, target, key_added, layer, overwrite)
    if table is not None:
        shapes_key = target.keys["shapes_key"]
        embeddings.recall(target, table, *read.rows_of(table, sdata.shapes[shapes_key], shapes_key, key_added))
    if predictor.fitted:
        _check_alone(predictor, reference, genes)
        _check_panel(table, key_added, predictor.genes, predictor.unit, overwrite)
        result = _by_fitted(target, predictor, plan)
    else:
        training = _training(sdata, target, reference, keys)
        again = table is not None and reference is None and isinstance(genes, int) and genes == N_GENES
        chosen = list(table.var_names) if again else pick_genes(training, genes)
        _check_panel(table, key_added, chosen, LOG1P_CP10K, overwrite)
        training = [slide.with_genes(chosen) for slide in training]
        if reference is not None:
            result = _by_reference(target, predictor, training, plan)
        else:
            result = _by_folds(target, training[0], predictor, n_folds, buffer_um, plan)
    _write(sdata, target, result, key_added, layer, overwrite, plan)


# Where the prediction comes from ------------------------------------------------------------------


def _check_alone(predictor: Predictor, reference, genes) -> None:
    """A fitted model has its training sections and its genes."""
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


def _training(sdata: SpatialData, target: Slide, reference: Sections | None, keys: Mapping) -> list[Slide]:
    """The sections that a named model is fitted on: the references, else the measured spots of the object."""
    if reference is None:
        return [target if target.measured.any() else _measured_here(sdata, target, keys)]
    slides = read_sections(reference, keys, reference=True)
    _check_unseen(target, [slide.fingerprint for slide in slides], [slide.section for slide in slides])
    return slides


def _check_unseen(target: Slide, fingerprints: Sequence[str], sections: Sequence[str]) -> None:
    if target.measured.any() and target.fingerprint in fingerprints:
        raise BadInput(
            f"section '{sections[list(fingerprints).index(target.fingerprint)]}' of the training data is the very "
            "section to be predicted: its measured spots would be a training fit. Leave it out of the reference, or "
            "give the model by name alone, which predicts out of fold."
        )


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


def _by_fitted(target: Slide, predictor: Predictor, plan: Plan) -> Result:
    _check_unseen(target, predictor.provenance["fingerprints"], predictor.provenance["sections"])
    shares = target.group in predictor.provenance["groups"]
    prediction = _ask(predictor, target, plan)
    return Result(prediction, predictor, "fitted model", predictor.provenance["sections"], shares_patient=shares)


def _by_reference(target: Slide, predictor: Predictor, training: list[Slide], plan: Plan) -> Result:
    fitted = type(predictor)(predictor.config).fit(training, plan)
    return replace(_by_fitted(target, fitted, plan), how="fitted on reference")


def _by_folds(
    target: Slide, measured: Slide, predictor: Predictor, n_folds: int, buffer_um: float | None, plan: Plan
) -> Result:
    """Out of fold where measured; by a model fitted on everything measured elsewhere."""
    fresh = type(predictor)(predictor.config)
    if target.keys["shapes_key"] != measured.keys["shapes_key"]:
        fitted = fresh.fit(measured, plan)
        prediction = _ask(fitted, replace(target, anchor=measured), plan)
        how = "fitted on the measured spots of this object"
        return Result(prediction, fitted, how, [measured.section], shares_patient=True)
    rows = np.flatnonzero(measured.measured)
    buffer_um = predictor.needs.crop.extent_um if buffer_um is None else buffer_um
    fold = np.full(len(measured), -1)
    pieces, index = [], []
    splits = folds(measured.xy_um[rows], n_folds, buffer_um=buffer_um)
    for number, split in track(enumerate(splits), "folds", len(splits), shown=plan.progress):
        member = type(predictor)(predictor.config).fit(measured.take(rows[split.train]), plan)
        out = rows[split.test]
        fold[out] = number
        pieces.append(_ask(member, measured, plan, out))
        index.append(out)
    fitted = fresh.fit(measured, plan)
    rest = np.flatnonzero(~measured.measured)
    if len(rest):
        pieces.append(_ask(fitted, measured, plan, rest))
        index.append(rest)
    prediction = _stack(pieces, index)
    return Result(prediction, fitted, "out of fold", [measured.section], fold, buffer_um, shares_patient=True)


def _ask(predictor: Predictor, slide: Slide, plan: Plan, rows: np.ndarray | None = None) -> Prediction:
    return predictor.predict(slide, rows=rows, batch_size=plan.batch_size or 64, device=plan.device)


def _stack(pieces: list[Prediction], index: list[np.ndarray]) -> Prediction:
    import torch

    return Prediction.gather(pieces, [torch.from_numpy(rows) for rows in index])


# Whether it fits, and where it goes ---------------------------------------------------------------


def _check_room(sdata: SpatialData, target: Slide, key: str, layer: str, overwrite: bool) -> AnnData | None:
    """Check, before anything is computed, that the result can be written. The table that it would be added to."""
    if layer in RESERVED or not re.fullmatch(r"[\w.-]+", layer):
        raise BadInput(
            f"{layer!r} cannot name a prediction: letters, digits, '_', '-' and '.' only, and not {listed(RESERVED)}. "
            "Pass another layer_added=."
        )
    write.check_free(sdata, "tables", key, overwrite=True)
    table = sdata.tables.get(key)
    if table is None:
        return None
    ours, regions = bool(records(table)), read.annotated(sdata, key)
    same = regions == [target.keys["shapes_key"]] and list(table.obs_names) == _names(target)
    if not ours or (not same and not overwrite):
        found = f"{table.n_obs} predicted rows of {listed(regions)}" if ours else "what sq_imputer did not write"
        raise BadInput(
            f"tables['{key}'] is taken: it holds {found}, and {len(target)} of '{target.keys['shapes_key']}' are to be "
            "predicted. Pass another key_added=" + (", or overwrite=True to replace it." if ours else ".")
        )
    if same and layer in table.layers and not overwrite:
        raise BadInput(
            f"tables['{key}'] has a layer '{layer}' already. Pass overwrite=True to replace it, layer_added= another "
            "name, or key_added= another table."
        )
    return table if same else None


def _check_panel(table: AnnData | None, key: str, genes: Sequence[str], unit: str, overwrite: bool) -> None:
    if table is None or overwrite or _same_panel(table, genes, unit):
        return
    held = f"{table.n_vars} genes in {listed(_units(table))}"
    raise BadInput(
        f"tables['{key}'] holds another panel or unit: {held}, now {len(genes)} in '{unit}'. Pass key_added= another "
        f"name, genes=list(sdata.tables['{key}'].var_names) for the same panel, or overwrite=True."
    )


def _same_panel(table: AnnData, genes: Sequence[str], unit: str) -> bool:
    return list(table.var_names) == list(genes) and _units(table) == {unit}


def _units(table: AnnData) -> set[str]:
    return {record["unit"] for record in records(table).values()}


def _names(target: Slide) -> list[str]:
    return list(target.names.astype(str))


def _write(
    sdata: SpatialData, target: Slide, result: Result, key: str, layer: str, overwrite: bool, plan: Plan
) -> None:
    import pandas as pd

    predictor, parts = result.predictor, _parts(target, result, layer, plan)
    table = sdata.tables.get(key)
    if table is not None and list(table.obs_names) == _names(target):
        if _same_panel(table, predictor.genes, predictor.unit):
            known = table.uns["sq_imputer"].get("embeddings", {})
            parts["uns"]["sq_imputer"]["embeddings"] = {**known, **parts["uns"]["sq_imputer"]["embeddings"]}
            parts = _over(table, layer, parts)
            write.put_layers(sdata, key, x=layer, **parts)
            return
    obs, layers = parts.pop("obs"), parts.pop("layers")
    new = write.new_table(
        layers[layer],
        _names(target),
        list(predictor.genes),
        region=target.keys["shapes_key"],
        instance_key="instance_id",
        instances=target.instances,
        obs=pd.DataFrame(obs, index=_names(target)),
        layers=layers,
        **parts,
    )
    write.write_element(sdata, "tables", key, new, overwrite=overwrite)


def _over(table: AnnData, layer: str, parts: dict) -> dict:
    """The parts, and blanks for what an earlier prediction of this name left and this one does not replace."""
    import pandas as pd

    names = (f"{layer}_pearson", f"{layer}_pearson_given_depth")
    layers, obs, obsm = dict(parts["layers"]), dict(parts["obs"]), dict(parts["obsm"])
    if f"{layer}_std" in table.layers:
        layers.setdefault(f"{layer}_std", np.full(table.shape, np.nan))
    if f"{layer}_fold" in table.obs:
        obs.setdefault(f"{layer}_fold", np.full(len(table), -1))
    if layer in table.obsm:
        obsm.setdefault(layer, np.full(table.obsm[layer].shape, np.nan, dtype=np.float32))
    var = pd.DataFrame({name: np.nan for name in names if name in table.var}, index=table.var_names)
    return {**parts, "layers": layers, "obs": pd.DataFrame(obs, index=table.obs_names), "obsm": obsm, "var": var}


def _measured_layer(target: Slide, predictor: Predictor) -> np.ndarray:
    """What was measured, in the unit of the prediction; NaN where it was not, or where this section lacks the gene."""
    values = np.full((len(target), len(predictor.genes)), np.nan, dtype=np.float32)
    there = set(target.var_names)
    columns = [i for i, gene in enumerate(predictor.genes) if gene in there]
    if columns:
        values[:, columns] = target.with_genes([predictor.genes[i] for i in columns], predictor.unit).expression
    return values


def _parts(target: Slide, result: Result, layer: str, plan: Plan) -> dict:
    prediction, predictor = result.prediction, result.predictor
    layers = {"measured": _measured_layer(target, predictor), layer: prediction.mean.numpy()}
    if prediction.std is not None:
        layers[f"{layer}_std"] = prediction.std.numpy()
    obs = {"section": target.section, "patient": target.group, "measured": target.measured}
    obs[f"{layer}_ood"] = prediction.ood.numpy()
    if result.fold is not None:
        obs[f"{layer}_fold"] = result.fold
    obsm = {"spatial": target.xy_um}
    if prediction.embedding is not None:
        obsm[layer] = prediction.embedding.numpy()
    kept = {}
    for name in predictor.needs.encoders if predictor.needs.neighbors < 2 else ():
        for spec in predictor.needs.views:
            key = embeddings.key(name, spec, predictor.needs.crop)
            obsm[key] = target.features(name, spec, device=plan.device)
            kept[key] = embeddings.record(target, name, spec)
    uns = {"sq_imputer": {layer: _provenance(target, result, plan), "embeddings": kept}}
    return {"layers": layers, "obs": obs, "obsm": obsm, "uns": uns}


def _provenance(target: Slide, result: Result, plan: Plan) -> dict:
    predictor = result.predictor
    return {
        **predictor.provenance,
        **target.keys,
        "model": predictor.card.name,
        "config": predictor.config,
        "unit": predictor.unit,
        "genes": list(predictor.genes),
        "weights_sha256": predictor.sha256,
        "mpp": float(target.frame.pixel.mpp),
        "mpp_source": target.frame.pixel.source,
        "how": result.how,
        "training_sections": result.training,
        "n_folds": 0 if result.fold is None else int(result.fold.max() + 1),
        "buffer_um": float(result.buffer_um),
        "shares_patient": bool(result.shares_patient),
        "seed": int(plan.seed),
    }
