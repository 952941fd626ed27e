"""Predictions of objects that were joined since: what joining drops or renames is found again.

`spatialdata.concatenate` drops `uns`, and with it the provenance of a result table, and it gives elements and
coordinate systems the name of their object as an ending. Columns of `obs` it keeps: so the provenance stands there as
well, once per section, as a category of a column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.scores.splits import told_apart
from sq_imputer.section.keys import PLACES
from sq_imputer.section.read import systems
from sq_imputer.store.provenance import plain, pythonic

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import Categorical
    from spatialdata import SpatialData

RECORD = "_record"  # behind the name of a layer, in obs
BANK = "_bank"  # behind the name of a layer, in obs: the reference spots of models that retrieve, once
LONG = ("genes", "bank")  # of the provenance, which the column is without: names of the columns, and a table
# what the provenance says of each section, where there are several
OF_SECTION = (
    *("section", *PLACES, "mpp", "mpp_source", "mpp_sources", "image_fingerprint", "how", "leave_out"),
    *("training_sections", "n_folds", "n_repeats", "buffer_um", "shares_patient", "weights_sha256", "fingerprints"),
    *("sections", "groups", "rows"),
)


def numbered(records: Sequence[dict]) -> dict:
    """The provenance of several sections as that of one table."""
    each = {str(k): {name: one[name] for name in OF_SECTION if name in one} for k, one in enumerate(records)}
    hashes = dict.fromkeys(h for one in records for h in np.atleast_1d(one["weights_sha256"]).tolist())
    return {
        **records[0],
        "sections_predicted": each,
        "weights_sha256": next(iter(hashes)) if len(hashes) == 1 else list(hashes),
    }


def column(records: Sequence[Mapping], lengths: Sequence[int]) -> Categorical:
    """The provenance of every row as text, for a table of sections of these lengths."""
    import pandas as pd

    texts = [json.dumps(pythonic(plain({k: v for k, v in one.items() if k not in LONG}))) for one in records]
    categories = list(dict.fromkeys(texts))
    codes = np.repeat([categories.index(text) for text in texts], lengths)
    return pd.Categorical.from_codes(codes, categories=categories)


def bank_column(bank: Mapping[str, Sequence], n_rows: int) -> Categorical:
    """The reference spots that the neighbors of every row count, as text."""
    import pandas as pd

    text = json.dumps(pythonic(plain(dict(bank))))
    return pd.Categorical.from_codes(np.zeros(n_rows, dtype=int), categories=[text])


def restore(sdata: SpatialData, key: str) -> None:
    """Give a result table its provenance back, in memory, if the object was joined since it was predicted."""
    table = sdata.tables.get(key)
    if table is None:
        return
    layers = [name.removesuffix(RECORD) for name in table.obs if name.endswith(RECORD)]
    layers = [name for name in layers if name in table.layers]
    known = table.uns.get("sq_imputer", {})
    if not layers or all(_lies_here(known.get(name), sdata) for name in layers):
        return
    region = table.obs[table.uns["spatialdata_attrs"]["region_key"]].astype(str)
    found = {}
    for layer in layers:
        texts = table.obs[f"{layer}{RECORD}"].astype(str)
        parts = list(dict.fromkeys(zip(region, texts, strict=True)))
        records = [_relocated(json.loads(text), sdata, name) for name, text in parts]
        names = told_apart([record["section"] for record in records])
        sections = dict(zip(parts, names, strict=True))
        for record, name in zip(records, names, strict=True):
            record |= {"section": name, "genes": list(table.var_names)}
        bank = _one_bank(table, layer)
        found[layer] = plain((records[0] if len(records) == 1 else numbered(records)) | bank)
    table.uns["sq_imputer"] = {"embeddings": {}, **known, **found}
    if len(set(sections.values())) > 1:
        table.obs["section"] = [sections[part] for part in zip(region, texts, strict=True)]


def _one_bank(table: AnnData, layer: str) -> dict[str, dict]:
    """The banks of all joined tables as one, by which the neighbors of all rows are counted; none if none retrieves."""
    name, slot = f"{layer}{BANK}", f"{layer}_neighbors"
    if name not in table.obs or slot not in table.obsm:
        return {}
    texts = table.obs[name].astype("category").cat.remove_unused_categories()
    banks, which = [json.loads(text) for text in texts.cat.categories], texts.cat.codes.to_numpy()
    starts = np.cumsum([0, *(len(one["spot"]) for one in banks)])
    neighbors = np.asarray(table.obsm[slot])
    table.obsm[slot] = np.where(neighbors < 0, -1, neighbors + starts[which][:, None])
    whole = {field: [value for one in banks for value in one[field]] for field in banks[0]}
    table.obs[name] = bank_column(whole, table.n_obs)
    return {"bank": whole}


def _lies_here(record: Mapping | None, sdata: SpatialData) -> bool:
    """Whether a provenance names shapes that the object has, in the coordinate system in which they were."""
    if record is None:
        return False
    each = list(record.get("sections_predicted", {}).values()) or [record]
    places = [(str(one["shapes_key"]), str(one["coordinate_system"])) for one in each]
    return all(shapes in sdata and system in systems(sdata[shapes]) for shapes, system in places)


def _relocated(record: dict, sdata: SpatialData, region: str) -> dict:
    """A provenance with the names that elements and coordinate systems have in a joined object."""
    ending = region.removeprefix(record["shapes_key"])
    moved = {**record, "shapes_key": region}
    for name, there in (("image_key", sdata.images), ("table_key", sdata.tables)):
        if record[name] not in there and record[name] + ending in there:
            moved[name] = record[name] + ending
    here = systems(sdata[region]) if region in sdata else []
    alike = [name for name in here if name.startswith(record["coordinate_system"] + ending)]
    if record["coordinate_system"] not in here and len(alike) == 1:
        moved["coordinate_system"] = alike[0]
    return moved
