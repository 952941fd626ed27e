"""The slots of the result table: whether a prediction fits there, and what is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import Prediction
from sq_imputer.errors import BadInput, listed
from sq_imputer.runs.sections import records
from sq_imputer.section import read
from sq_imputer.section.features import key as feature_key
from sq_imputer.section.slide import Slide
from sq_imputer.store import write
from sq_imputer.store.parts import with_parts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.train import Plan

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

    `bank` is the table of the reference spots that `prediction.neighbors` counts, for models that retrieve;
    `batch_size` is how many rows the device took at a time; `known` replaces what the provenance of `predictor` says,
    where it stands for several models.
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
    batch_size: int = 0
    known: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a result goes: `tables[key].layers[layer]` of an object, and its store, or a new one at `output_path`."""

    sdata: SpatialData
    key: str
    layer: str
    overwrite: bool
    output_path: Path | None = None

    @property
    def table(self) -> AnnData | None:
        """The table of this name, if there is one."""
        return self.sdata.tables.get(self.key)

    def check(self, target: Slide) -> AnnData | None:
        """Check, before anything is computed, that the result can be written. The table that it would be added to."""
        self._check_store(0)
        table, key = self.table, self.key
        _check_name(self.layer, () if table is None else records(table))
        if table is None:
            return None
        ours, regions = bool(records(table)), read.annotated(self.sdata, key)
        same = regions == [target.keys["shapes_key"]] and list(table.obs_names) == _names(target)
        if not ours or (not same and not self.overwrite):
            found = f"{table.n_obs} predicted rows of {listed(regions)}" if ours else "what sq_imputer did not write"
            raise BadInput(
                f"tables['{key}'] is taken: it holds {found}, and {len(target)} of '{target.keys['shapes_key']}' are "
                "to be predicted. Pass another key_added=" + (", or overwrite=True to replace it." if ours else ".")
            )
        if same and self.layer in table.layers and not self.overwrite:
            raise BadInput(
                f"tables['{key}'] has a layer '{self.layer}' already. Pass overwrite=True to replace it, layer_added= "
                "another name, or key_added= another table."
            )
        return table if same else None

    def check_panel(self, table: AnnData | None, genes: Sequence[str], unit: str) -> None:
        """Check, before anything is computed, that the table holds these genes in this unit, or may be replaced."""
        if table is None or self.overwrite or _same_panel(table, genes, unit):
            return
        held = f"{table.n_vars} genes in {listed(units(table))}"
        raise BadInput(
            f"tables['{self.key}'] holds another panel or unit: {held}, now {len(genes)} in '{unit}'. Pass key_added= "
            f"another name, genes=list(sdata.tables['{self.key}'].var_names) for the same panel, or overwrite=True."
        )

    def check_space(self, target: Slide, predictor: Predictor, n_genes: int) -> None:
        """Check, before anything is computed, that the store has room for what will be written."""
        from sq_imputer.encoders import encoder_card

        needs, samples = predictor.needs, getattr(predictor.config, "keep_samples", 0)
        matrices = 3 + bool(predictor.card.uncertainty) + samples  # measured, mean and X; standard deviation
        features = sum(encoder_card(name).dim for name in needs.encoders) * len(needs.views)
        nbytes = 4 * len(target) * (matrices * n_genes + features)
        self._check_store(nbytes)

    def _check_store(self, nbytes: int) -> None:
        if self.output_path is None:
            write.check_free(self.sdata, "tables", self.key, overwrite=True, nbytes=nbytes)
        else:
            write.check_name(self.sdata, "tables", self.key, overwrite=True)
            write.check_new(self.output_path, nbytes)


def _check_name(layer: str, others: Iterable[str]) -> None:
    """Whether all slots of a prediction are its own, and SpatialData can write them."""
    low = str(layer).lower()
    if not write.is_word(layer) or low in RESERVED or low.startswith("x_") or low.endswith(ENDINGS):
        raise BadInput(
            f"{layer!r} cannot name a prediction: letters, digits, '_', '-' and '.' only, not {listed(RESERVED)}, "
            f"nothing that begins with '__' or 'X_' or ends with {listed(ENDINGS)}: these name other slots; nor more "
            f"than {write.MOST_BYTES} bytes. Pass another layer_added=."
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


def write_result(place: Place, target: Slide, result: Result, plan: Plan) -> None:
    """Put a prediction into the table that :meth:`Place.check` found, or into a new one."""
    layer, parts = place.layer, _parts(target, result, place.layer, plan)
    old = place.table
    adds = old is not None and list(old.obs_names) == _names(target)
    adds = adds and _same_panel(old, result.predictor.genes, result.predictor.unit)
    if adds:
        known = old.uns["sq_imputer"].get("embeddings", {})
        parts["uns"]["sq_imputer"]["embeddings"] = {**known, **parts["uns"]["sq_imputer"]["embeddings"]}
        parts = {"x": layer, **_over(old, layer, parts)}
    if place.output_path is not None:
        table = with_parts(old, **parts) if adds else _new_table(target, result, layer, parts)
        _write_elsewhere(place, target.keys["shapes_key"], table)
    elif adds:
        write.put_layers(place.sdata, place.key, **parts)
    else:
        new = _new_table(target, result, layer, parts)
        write.write_element(place.sdata, "tables", place.key, new, overwrite=place.overwrite)


def _new_table(target: Slide, result: Result, layer: str, parts: dict) -> AnnData:
    import pandas as pd

    obs, layers = parts.pop("obs"), parts.pop("layers")
    return write.new_table(
        layers[layer],
        _names(target),
        list(result.predictor.genes),
        region=target.keys["shapes_key"],
        instance_key="instance_id",
        instances=target.instances,
        obs=pd.DataFrame(obs, index=_names(target)),
        layers=layers,
        **parts,
    )


def _write_elsewhere(place: Place, region: str, table: AnnData) -> None:
    """Into the object in memory, and with the shapes that it annotates into a store of its own."""
    from spatialdata import SpatialData

    def keep() -> None:
        write.assign(place.sdata, "tables", place.key, table)

    with write.kept(place.sdata, "tables", place.key, keep):
        new = SpatialData(tables={place.key: table}, shapes={region: place.sdata.shapes[region]})
        write.write_new(new, place.output_path)
    keep()


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
            key = feature_key(name, spec, predictor.needs.crop)
            obsm[key] = target.features(name, spec, device=plan.device)
            kept[key] = target.record(name, spec)
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
        "mpp_sources": target.frame.pixel.said,
        "how": result.how,
        "training_sections": result.training,
        "n_folds": 0 if result.fold is None else int(result.fold.max() + 1),
        "buffer_um": float(result.buffer_um),
        "shares_patient": bool(result.shares_patient),
        "seed": int(plan.seed),
        "batch_size": result.batch_size,
        **bank,
        **result.known,
    }
