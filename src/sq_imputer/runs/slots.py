"""The slots of the result table: whether a prediction fits there, and what is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.contract import CropSpec, Prediction
from sq_imputer.errors import BadInput, listed
from sq_imputer.predictor import zero_shot
from sq_imputer.predictor.parts import SD_OF_95
from sq_imputer.runs import joined, reliability
from sq_imputer.runs.constants import is_constant, warn_of_constants
from sq_imputer.runs.differs import differs
from sq_imputer.runs.retrieved import BANK
from sq_imputer.runs.sections import records
from sq_imputer.section import read
from sq_imputer.section.features import key as feature_key
from sq_imputer.section.slide import Slide
from sq_imputer.store import write
from sq_imputer.store.parts import with_parts
from sq_imputer.target import CLASSES, Target

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.train import Plan
    from sq_imputer.runs.decide import Told
    from sq_imputer.runs.targets import Targets

RESERVED = ("measured", "embeddings", "spatial")  # names of other slots of the table
# what of a prediction goes into obsm, what follows the name of its layer there, and what says that there is none
OBSM = {
    "embedding": ("", np.nan),
    "samples": ("_samples", np.nan),
    "neighbors": ("_neighbors", -1),
    "weights": ("_neighbor_weights", 0),
}
FOLDS = "_folds"  # behind the name of a layer, in obsm: the block of every row in each of several partitions
ENDINGS = ("_std", "_lower", "_upper", FOLDS, *(ending for ending, _ in OBSM.values() if ending))


@dataclass
class Result:
    """A prediction for every row of a section (None: it is written already), and how it came about.

    `bank` is the table of the reference spots that `prediction.neighbors` counts, for models that retrieve; `known`
    has the hash of its weights, or of those of several models, and what then replaces the provenance of `predictor`;
    `kept` says which rows are not left empty, if some are.
    """

    prediction: Prediction | None
    bank: dict[str, np.ndarray] | None
    predictor: Predictor
    told: Told
    known: dict = field(default_factory=dict)
    kept: np.ndarray | None = None


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

    def check(self, targets: Targets) -> AnnData | None:
        """Check, before anything is computed, that the result can be written. The table that it would be added to."""
        self._check_store(0)
        joined.restore(self.sdata, self.key)
        table, key = self.table, self.key
        check_layer_name(self.layer, () if table is None else records(table))
        if table is None:
            return None
        ours, regions = bool(records(table)), read.regions_of(table.uns)
        same = regions == targets.regions and list(table.obs_names) == targets.names
        if not ours or (not same and not self.overwrite):
            found = f"{table.n_obs} predicted rows of {listed(regions)}" if ours else "what sq_imputer did not write"
            raise BadInput(
                f"tables['{key}'] is taken: it holds {found}, and {len(targets)} of {listed(targets.regions)} are "
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
        same = [] if list(table.var_names) == list(genes) else [f"genes=list(sdata.tables['{self.key}'].var_names)"]
        same += [] if units(table) == {unit} else [f"unit={one!r}" for one in units(table)]
        raise BadInput(
            f"tables['{self.key}'] holds another panel or unit: {held}, now {len(genes)} in '{unit}'. Pass key_added= "
            f"another name, {' and '.join(same)} for the same, or overwrite=True; a fitted model has its own."
        )

    def check_space(self, n_rows: int, predictor: Predictor, n_genes: int) -> None:
        """Check, before anything is computed, that the store has room for what will be written."""
        from sq_imputer.encoders import encoder_card

        needs, samples = predictor.needs, getattr(predictor.config, "keep_samples", 0)
        matrices = 3 + bool(predictor.card.uncertainty) + samples  # measured, mean and X; standard deviation
        features = sum(encoder_card(name).dim for name in needs.encoders) * len(needs.views)
        nbytes = 4 * n_rows * (matrices * n_genes + features)
        self._check_store(nbytes)

    def _check_store(self, nbytes: int) -> None:
        if self.output_path is None:
            write.check_free(self.sdata, "tables", self.key, overwrite=True, nbytes=nbytes)
        else:
            write.check_name(self.sdata, "tables", self.key, overwrite=True)
            write.check_new(self.output_path, nbytes)


def check_layer_name(layer: str, others: Iterable[str]) -> None:
    """Whether all slots of a prediction are its own, and SpatialData can write them."""
    low = str(layer).lower()
    if not write.is_word(layer) or low in RESERVED or low.startswith("x_") or low.endswith(ENDINGS):
        raise BadInput(
            f"{layer!r} cannot name a prediction: letters, digits, '_', '-' and '.' only, not {listed(RESERVED)}, "
            f"nothing that begins with '__' or 'X_' or ends with {listed(ENDINGS, len(ENDINGS))}: these name other "
            f"slots; nor more than {write.MOST_BYTES} bytes. Pass another layer_added=."
        )
    alike = [name for name in others if name != layer and name.lower() == low]
    if alike:
        raise BadInput(f"{layer!r} and the existing {alike[0]!r} differ in case only. Pass another layer_added=.")


def _same_panel(table: AnnData, genes: Sequence[str], unit: str) -> bool:
    return list(table.var_names) == list(genes) and units(table) == {unit}


def units(table: AnnData) -> set[str]:
    """Expression units of the predictions in a table: one, if any."""
    return {record["unit"] for record in records(table).values()}


def is_added_to(table: AnnData | None, targets: Targets, genes: Sequence[str], unit: str) -> bool:
    """Whether a table has these rows and this panel, so that a prediction becomes a layer of it."""
    return table is not None and list(table.obs_names) == targets.names and _same_panel(table, genes, unit)


def write_results(place: Place, targets: Targets, results: Sequence[Result], plan: Plan, batch_size: int) -> None:
    """Put predictions into the table that :meth:`Place.check` found, or into a new one."""
    layer = place.layer
    each = [_parts(*one, layer, plan, batch_size) for one in zip(targets.slides, results, strict=True)]
    parts = _together(each, layer)
    told = [part["uns"]["sq_imputer"][layer] for part in each]
    parts["obs"][f"{layer}{joined.RECORD}"] = joined.column(told, [len(slide) for slide in targets.slides])
    if results[0].bank is not None:
        parts["obs"][f"{layer}{joined.BANK}"] = joined.bank_column(results[0].bank, len(targets))
    old, predictor = place.table, results[0].predictor
    parts["obs"] |= called(predictor, layer, parts["layers"][layer])
    parts["var"] |= kinds(predictor.target, len(predictor.genes)) | unseen(old, layer, predictor)
    warn_of_constants(layer, predictor.genes, parts["var"][f"{layer}_constant"])
    adds = is_added_to(old, targets, predictor.genes, predictor.unit)
    if adds:
        known = old.uns["sq_imputer"].get("embeddings", {})
        parts["uns"]["sq_imputer"]["embeddings"] = {**known, **parts["uns"]["sq_imputer"]["embeddings"]}
        parts = {"x": layer, **_over(old, layer, parts)}
    if place.output_path is not None:
        table = with_parts(old, **parts) if adds else new_table(targets, predictor.genes, layer, parts)
        _write_elsewhere(place, targets.regions, table)
    elif adds:
        write.put_layers(place.sdata, place.key, **parts)
    else:
        new = new_table(targets, predictor.genes, layer, parts)
        write.write_element(place.sdata, "tables", place.key, new, overwrite=place.overwrite)


def _together(parts: Sequence[dict], layer: str) -> dict:
    """The parts of all sections as those of one table; what is said of each is numbered in the provenance."""
    if len(parts) == 1:
        return parts[0]
    whole = {what: _stacked([part[what] for part in parts]) for what in ("layers", "obs", "obsm")}
    constant = f"{layer}_constant"
    whole["var"] = {**parts[0]["var"], constant: np.any([part["var"][constant] for part in parts], axis=0)}
    records = [part["uns"]["sq_imputer"][layer] for part in parts]
    kept = parts[0]["uns"]["sq_imputer"]["embeddings"]
    kept = {key: found for key, found in kept.items() if key in whole["obsm"]}
    return {**whole, "uns": {"sq_imputer": {layer: joined.numbered(records), "embeddings": kept}}}


def _stacked(parts: Sequence[dict]) -> dict:
    """Arrays by name, of all sections below each other; names that a section lacks are left out."""
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in names}


def new_table(targets: Targets, genes: Sequence[str], x: str | None, parts: dict) -> AnnData:
    """A table of these rows and genes that annotates their shapes; `x` is the layer that `X` is a copy of."""
    import pandas as pd

    obs, var, layers = parts.pop("obs"), parts.pop("var"), parts.pop("layers")
    regions = targets.regions
    return write.new_table(
        None if x is None else layers[x],
        targets.names,
        list(genes),
        region=regions[0] if len(regions) == 1 else targets.region_of_rows,
        instance_key="instance_id",
        instances=targets.instances,
        obs=pd.DataFrame(obs, index=targets.names),
        var=pd.DataFrame(var, index=list(genes)),
        layers=layers,
        **parts,
    )


def _write_elsewhere(place: Place, regions: Sequence[str], table: AnnData) -> None:
    """Into the object in memory, and with the shapes that it annotates into a store of its own."""
    from spatialdata import SpatialData

    def keep() -> None:
        write.assign(place.sdata, "tables", place.key, table)

    with write.kept(place.sdata, "tables", place.key, keep):
        new = SpatialData.init_from_elements({place.key: table, **{name: place.sdata[name] for name in regions}})
        write.write_new(new, place.output_path)
    keep()


def _over(table: AnnData, layer: str, parts: dict) -> dict:
    """The parts, and blanks for what an earlier prediction of this name left and this one does not replace."""
    import pandas as pd

    blanks, arrays = stale(table, layer), {"layers": {}, "obsm": {}}
    for path, (width, dtype, blank) in blanks["arrays"].items():
        slot, _, name = path.partition("/")
        if name not in parts[slot]:
            arrays[slot][name] = np.full((len(table), *width), blank, dtype)
    whole = {slot: {**found, **parts[slot]} for slot, found in arrays.items()}
    obs, var = {**blanks["obs"], **parts["obs"]}, {**blanks["var"], **parts["var"]}
    known = {"obs": pd.DataFrame(obs, index=table.obs_names), "var": pd.DataFrame(var, index=table.var_names)}
    return {**parts, **whole, **known}


def stale(table: AnnData, layer: str) -> dict:
    """What an earlier prediction of this name left, blanked: columns, and width, type and blank of arrays by path."""
    arrays = {}
    for ending in ("_std", "_lower", "_upper"):
        if f"{layer}{ending}" in table.layers:
            arrays[f"layers/{layer}{ending}"] = (table.n_vars,), np.float32, np.nan
    for ending, blank in (*OBSM.values(), (FOLDS, -1)):
        if layer + ending in table.obsm:
            old = table.obsm[layer + ending]
            arrays[f"obsm/{layer}{ending}"] = old.shape[1:], old.dtype, blank
    names = (f"{layer}_pearson", f"{layer}_pearson_given_depth", f"{layer}_coverage")
    obs = {f"{layer}_fold": np.full(len(table), -1)} if f"{layer}_fold" in table.obs else {}
    if f"{layer}{joined.BANK}" in table.obs:
        obs[f"{layer}{joined.BANK}"] = joined.bank_column(dict.fromkeys(BANK, ()), len(table))
    if f"{layer}_reliable" in table.obs:
        obs |= {f"{layer}_reliable": False, f"{layer}_reason": reliability.UNTESTED}
    var = {name: np.nan for name in names if name in table.var} | reliability.blanks(table.var.columns, layer)
    return {"arrays": arrays, "obs": obs, "var": var}


def _measured_layer(target: Slide, predictor: Predictor) -> np.ndarray:
    """What was measured, in the unit of the prediction; NaN where it was not, or where this section lacks the gene."""
    values = np.full((len(target), len(predictor.genes)), np.nan, dtype=np.float32)
    columns = target.which(predictor.genes)
    if columns:
        values[:, columns] = target.with_genes([predictor.genes[i] for i in columns], predictor.unit).expression
    return values


def _parts(target: Slide, result: Result, layer: str, plan: Plan, batch_size: int) -> dict:
    """Layers, columns, arrays and provenance of one section; arrays of columns are as long as it has rows."""
    found = {"layers/measured": _measured_layer(target, result.predictor), **matrices(result.prediction, layer)}
    layers, obsm = ({p[len(s) :]: v for p, v in found.items() if p.startswith(s)} for s in ("layers/", "obsm/"))
    measured = np.isfinite(layers["measured"]).any(axis=1)
    obs = columns(target, result.told, layer, measured, result.prediction.ood.numpy())
    if result.told.folds is not None:
        obsm[f"{layer}{FOLDS}"] = result.told.folds
    kept = {}
    for key, name, spec in feature_slots(result.predictor):
        obsm[key] = target.features(name, spec, device=plan.device)
        kept[key] = target.record(name, spec)
    uns = {"sq_imputer": {layer: provenance(target, result, plan, batch_size), "embeddings": kept}}
    full = layers[layer] if result.kept is None else layers[layer][result.kept]
    var = {f"{layer}_constant": is_constant(full)}
    var |= reliability.columns(result.predictor.provenance, layer, result.predictor.genes)
    return {"layers": layers, "obs": obs, "var": var, "obsm": {"spatial": target.xy_um, **obsm}, "uns": uns}


def matrices(prediction: Prediction, layer: str) -> dict[str, np.ndarray]:
    """The matrices of a prediction by their path in the table: "layers/stem", "obsm/stem_samples"."""
    found = {f"layers/{layer}": prediction.mean.numpy()}
    if prediction.std is not None:
        found[f"layers/{layer}_std"] = prediction.std.numpy()
    for name, (ending, _) in OBSM.items():
        if getattr(prediction, name) is not None:
            found[f"obsm/{layer}{ending}"] = getattr(prediction, name).numpy()
    return found


def called(predictor: Predictor, layer: str, mean: np.ndarray) -> dict:
    """Columns of `obs` of classes: the most probable one of every row, and its probability."""
    import pandas as pd

    if predictor.target.kind != CLASSES:
        return {}
    codes, name = mean.argmax(axis=1), f"{layer}_{predictor.target.name}"
    return {name: pd.Categorical.from_codes(codes, list(predictor.genes)), f"{name}_p": mean.max(axis=1)}


def kinds(target: Target, n: int) -> dict:
    """A column of `var` that says what the n columns are, of another target than genes."""
    return {} if target.is_genes else {"kind": np.full(n, target.kind, dtype=object)}


def layer_of(predictor: Predictor) -> str:
    """Name of the layer of a prediction, if the user gives none."""
    return f"{predictor.card.name}_zero_shot" if zero_shot.unseen(predictor) else predictor.card.name


def unseen(table: AnnData | None, layer: str, predictor: Predictor) -> dict:
    """A column of `var`: which genes the model of this or another layer was not fitted on, where there is any such."""
    others = {} if table is None else {name: record for name, record in records(table).items() if name != layer}
    names = {gene for record in others.values() for gene in record.get("zero_shot", ())}
    names |= set(zero_shot.unseen(predictor))
    return {"zero_shot": np.array([gene in names for gene in predictor.genes])} if names else {}


def columns(target: Slide, told: Told, layer: str, measured: np.ndarray, ood: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of `obs` of one section; `measured` says which rows have a value of the panel."""
    named = {"section": target.section, "patient": target.group}
    obs = {name: np.full(len(target), text, dtype=object) for name, text in named.items()}
    obs |= {"measured": target.measured & measured, f"{layer}_ood": ood}
    if told.fold is not None:
        obs[f"{layer}_fold"] = told.fold
    return {**obs, "total_counts": target.depth}


def feature_slots(predictor: Predictor) -> list[tuple[str, str, CropSpec]]:
    """Name in `obsm`, encoder and crop of the features that are kept beside a prediction."""
    needs = predictor.needs
    return [(feature_key(name, spec, needs.crop), name, spec) for name in needs.encoders for spec in needs.views]


def provenance(target: Slide, result: Result, plan: Plan, batch_size: int) -> dict:
    """How the prediction of one section came about."""
    predictor, told, bank = result.predictor, result.told, {}
    if predictor.retrieves:
        asked = told.leave_out == "section" or told.bank_from == "reference sections"
        leave = {"allow_same_patient": asked and told.shares_patient}  # who shares it without leave has not come here
        bank = {"bank": result.bank, "bank_from": told.bank_from, **leave}
    own = told.leave_out == "block"
    held = None if own else predictor.history.get(SD_OF_95)  # a fit's own, not that of a fold
    return {
        **predictor.provenance,
        **({SD_OF_95: held} if held else {}),
        "encoders": [{"name": name, **made_by} for name, made_by in predictor.encoded.items()],
        **target.keys,
        "model": predictor.card.name,
        "config": predictor.config,
        "unit": predictor.unit,
        "genes": list(predictor.genes),
        **({} if predictor.target == Target() else {"target": predictor.target.told}),
        "section": target.section,
        "mpp": float(target.frame.pixel.mpp),
        "mpp_source": target.frame.pixel.source,
        "mpp_sources": target.frame.pixel.said,
        "image_fingerprint": target.frame.pyramid.fingerprint,
        "resolution": target.frame.resolution,
        "how": told.how,
        "leave_out": told.leave_out,
        "training_sections": told.training,
        "n_folds": int(told.fold.max() + 1) if told.leave_out == "block" else 0,
        "n_repeats": 1 if told.folds is None else told.folds.shape[1],
        "buffer_um": float(told.buffer_um),
        "shares_patient": bool(told.shares_patient),
        "seed": int(plan.seed),
        "batch_size": batch_size,
        "differs": [] if own else differs(predictor, target),
        **bank,
        **result.known,
    }
