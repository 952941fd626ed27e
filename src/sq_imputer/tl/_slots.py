"""The slots of the result table: whether a prediction fits there, and what is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.data import embeddings, read, write
from sq_imputer.data.slide import Slide
from sq_imputer.errors import BadInput, listed
from sq_imputer.tl._sections import records

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.models._base import Predictor
    from sq_imputer.train import Plan

RESERVED = ("measured", "embeddings", "spatial")  # names of other slots of the table
# what of a prediction goes into obsm, what follows the name of its layer there, and what says that there is none
OBSM = {
    "embedding": ("", np.nan),
    "samples": ("_samples", np.nan),
    "neighbors": ("_neighbors", -1),
    "weights": ("_neighbor_weights", 0),
}
ENDINGS = ("_std", *(ending for ending, _ in OBSM.values() if ending))


@dataclass
class Result:
    """A prediction for every row of the target, and how it came about.

    `bank` is the table of the reference spots that `prediction.neighbors` counts, for models that retrieve; `known`
    replaces what the provenance of `predictor` says, where it stands for several models.
    """

    prediction: Prediction
    bank: dict[str, np.ndarray] | None
    predictor: Predictor
    how: str
    training: list[str]
    bank_from: str
    fold: np.ndarray | None = None
    buffer_um: float = 0.0
    shares_patient: bool = False
    allow_same_patient: bool = False
    known: dict = field(default_factory=dict)


def check_room(sdata: SpatialData, target: Slide, key: str, layer: str, overwrite: bool) -> AnnData | None:
    """Check, before anything is computed, that the result can be written. The table that it would be added to."""
    write.check_free(sdata, "tables", key, overwrite=True)
    table = sdata.tables.get(key)
    _check_name(layer, () if table is None else records(table))
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


def check_panel(table: AnnData | None, key: str, genes: Sequence[str], unit: str, overwrite: bool) -> None:
    """Check, before anything is computed, that the table holds these genes in this unit, or may be replaced."""
    if table is None or overwrite or _same_panel(table, genes, unit):
        return
    held = f"{table.n_vars} genes in {listed(units(table))}"
    raise BadInput(
        f"tables['{key}'] holds another panel or unit: {held}, now {len(genes)} in '{unit}'. Pass key_added= another "
        f"name, genes=list(sdata.tables['{key}'].var_names) for the same panel, or overwrite=True."
    )


def _check_name(layer: str, others: Iterable[str]) -> None:
    """Whether all slots of a prediction are its own, and SpatialData can write them."""
    low = layer.lower()
    valid = re.fullmatch(r"(?!__|x_)[\w.-]+", low) and low not in (*RESERVED, ".", "..")
    if not valid or low.endswith(ENDINGS):
        raise BadInput(
            f"{layer!r} cannot name a prediction: letters, digits, '_', '-' and '.' only, not {listed(RESERVED)}, "
            f"nothing that begins with '__' or 'X_' or ends with {listed(ENDINGS)}: these name other slots. Pass "
            "another layer_added=."
        )
    alike = [name for name in others if name != layer and name.lower() == low]
    if alike:
        raise BadInput(f"{layer!r} and the existing {alike[0]!r} differ in case only. Pass another layer_added=.")


def _same_panel(table: AnnData, genes: Sequence[str], unit: str) -> bool:
    return list(table.var_names) == list(genes) and units(table) == {unit}


def units(table: AnnData) -> set[str]:
    """Expression units of the predictions in a table: one, if any."""
    return {record["unit"] for record in records(table).values()}


def _names(target: Slide) -> list[str]:
    return list(target.names.astype(str))


def write_result(
    sdata: SpatialData, target: Slide, result: Result, key: str, layer: str, overwrite: bool, plan: Plan
) -> None:
    """Put a prediction into the table that :func:`check_room` found, or into a new one."""
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
    for ending, blank in OBSM.values():
        if layer + ending in table.obsm and layer + ending not in obsm:
            obsm[layer + ending] = np.full_like(np.asarray(table.obsm[layer + ending]), blank)
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
    for name, (ending, _) in OBSM.items():
        if getattr(prediction, name) is not None:
            obsm[layer + ending] = getattr(prediction, name).numpy()
    kept = {}
    for name in predictor.needs.encoders if predictor.needs.neighbors < 2 else ():
        for spec in predictor.needs.views:
            key = embeddings.key(name, spec, predictor.needs.crop)
            obsm[key] = target.features(name, spec, device=plan.device)
            kept[key] = embeddings.record(target, name, spec)
    uns = {"sq_imputer": {layer: _provenance(target, result, plan), "embeddings": kept}}
    return {"layers": layers, "obs": obs, "obsm": obsm, "uns": uns}


def _provenance(target: Slide, result: Result, plan: Plan) -> dict:
    predictor, bank = result.predictor, {}
    if predictor.retrieves:
        bank = {name: getattr(result, name) for name in ("bank", "bank_from", "allow_same_patient")}
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
        **bank,
        **result.known,
    }
