from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, check_number, listed
from sq_imputer.predictor.train import Plan
from sq_imputer.progress import quiet
from sq_imputer.runs import prior
from sq_imputer.runs.sections import resolve_model
from sq_imputer.section.keys import verb
from sq_imputer.store import write

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame
    from spatialdata import SpatialData

    from sq_imputer.genes.windows import GeneWindows
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.runs.prior import Said


@verb
def sequence_prior(
    sdata: SpatialData,
    windows: GeneWindows,
    model: str | Path | Predictor = "seq2exp",
    *,
    table_key: str = "table",
    key_added: str | None = None,
    overwrite: bool = False,
    n_folds: int = 5,
    allow_seen: bool = False,
    config: Mapping | object | None = None,
    plan: Plan | None = None,
    seed: int | None = None,
    device: str | None = None,
    progress: bool | None = None,
) -> None:
    """Predict how much genes are expressed from their DNA alone, and write it beside the genes of a table.

    What is written of a gene is never a fit to that gene. A model given by name is fitted on the genes that were
    measured, whole chromosomes left out in turn: every gene is predicted by a model that has seen nothing of its
    chromosome. Genes that were not measured are predicted by one fitted on all that were.

    It is one number per gene and context, the same for all spots: DNA says which genes are high, not where.

    Parameters
    ----------
    sdata
        The object, of which `tables[table_key].var`, `.varm` and `.uns` get the results, in the store as well if it is
        backed.
    windows
        DNA of the genes, with what is expressed of them. Of a table of this object:
        `GeneWindows.from_table(sdata.tables["table"], fasta, annotation)`.
    model
        Name of a model whose rows are genes, folder written by `save`, or a fitted predictor.
    table_key
        The table whose genes are told.
    key_added
        What it is called there; the model's name if left out.
    overwrite
        Replace what has this name.
    n_folds
        Parts that chromosomes are dealt into, by their number of genes.
    allow_seen
        Ask a fitted model about genes that it was trained on. They are marked, in `var["<key>_seen"]`: their numbers
        say nothing of how well it predicts.
    config
        The `Config` of a named model, or a dict of the fields that differ from its defaults.
    plan
        How to train, and the device to run on.
    seed, device, progress
        As the fields of the plan.

    Raises
    ------
    MissingKey
        If there is no such table or model.
    BadInput
        If no window is of a gene of the table, the name is taken, measured genes are on one chromosome alone, or a
        fitted model was trained on some of the genes.

    Notes
    -----
    Written are `var["<key>"]`, in the unit of the windows, and `var["<key>_std"]`, the spread over masks that are drawn
    with the noise of left-out chromosomes; of several contexts one column for each, `<key>_<context>`.
    `varm["X_<key>"]` is what the model makes of the DNA: one row per gene, on common axes, and knowledge of genes as
    others are (:class:`sq_imputer.GeneKnowledge`). `var["<key>_fold"]` is the fold that a gene was left out in, -1 if
    none. Genes of the table without a window are NaN. The provenance names the genes trained on.

    Su et al.: Learning to Discover Regulatory Elements for Gene Expression Prediction, ICLR 2025.

    Examples
    --------
    >>> sqi.tl.sequence_prior(sdata, windows, config={"length": 160, "promoter": 24, "backbone": "dilated",
    ...                       "layers": (1, 4), "epochs": 2, "calibration": 0}, n_folds=2)
    >>> expected = sdata.tables["table"].var.loc[list(windows.names), "seq2exp"]
    """
    plan = Plan.of(plan, seed=seed, device=device, progress=progress)
    check_number("n_folds", n_folds, 2, whole=True)
    check_windows(windows)
    predictor = resolve_model(model, config, rows="genes")
    key = key_added or predictor.card.name
    columns = _check(sdata, table_key, key, windows, overwrite)
    with quiet(not plan.progress):
        if predictor.fitted:
            seen = prior.check_seen(predictor, windows, allow_seen)
            said = prior.by_fitted(predictor, windows, plan)
        else:
            seen, said = [], prior.out_of_fold(predictor, windows, n_folds, plan)
    _write(sdata, table_key, key, columns, windows, said, seen)


def check_windows(windows: GeneWindows) -> None:
    """Check that windows are windows."""
    from sq_imputer.genes.windows import GeneWindows

    if not isinstance(windows, GeneWindows):
        told = "Make them by sq_imputer.GeneWindows.from_table(table, fasta, annotation)."
        raise BadInput(f"windows is a {type(windows).__name__}; expected the DNA of genes. {told}")


def _check(sdata: SpatialData, table_key: str, key: str, windows: GeneWindows, overwrite: bool) -> np.ndarray:
    """Which column `(n,)` of the table every window is, -1 for none."""
    if table_key not in sdata.tables:
        raise MissingKey(f"no table '{table_key}'; the object has {listed(sdata.tables)}. Pass table_key=.")
    table = sdata.tables[table_key]
    if not write.is_word(key):
        raise BadInput(f"key_added is {key!r}; expected letters, digits, '_', '-' and '.' only.")
    if not overwrite and any(str(one) in (key, f"{key}_fold") for one in table.var):
        raise BadInput(f"var of tables['{table_key}'] has '{key}' already. Pass overwrite=True, or another key_added=.")
    number = {name: k for k, name in enumerate(table.var_names)}
    columns = np.array([number.get(name, -1) for name in windows.names])
    if (columns < 0).all():
        raise BadInput(
            f"none of the {len(windows)} windows, such as {listed(windows.names, 3)}, is of a gene of "
            f"tables['{table_key}'], such as {listed(table.var_names, 3)}. Make windows from this table, or pass "
            "table_key=."
        )
    return columns


def _write(sdata, table_key: str, key: str, columns: np.ndarray, windows: GeneWindows, said: Said, seen) -> None:
    table = sdata.tables[table_key]
    var, there = _columns(table, key, columns, said), columns >= 0
    if seen:
        var[f"{key}_seen"] = var.index.isin(seen)
    varm = {}
    if said.embedding is not None:
        rows = np.full((table.n_vars, said.embedding.shape[1]), np.nan, dtype=np.float32)
        rows[columns[there]] = said.embedding[there]
        varm[f"X_{key}"] = rows
    record = _record(windows, said, seen)
    write.put_layers(sdata, table_key, {}, var=var, varm=varm, uns={"sq_imputer": {key: record}})


def _columns(table: AnnData, key: str, columns: np.ndarray, said: Said) -> DataFrame:
    import pandas as pd

    there, found, contexts = columns >= 0, {}, said.models[0].genes
    for k, context in enumerate(contexts):
        name = key if len(contexts) == 1 else f"{key}_{context if write.is_word(context) else k}"
        for ending, values in (("", said.mean), ("_std", said.std)):
            if values is not None:
                column = np.full(table.n_vars, np.nan, dtype=np.float32)
                column[columns[there]] = values[there, k]
                found[f"{name}{ending}"] = column
    fold = np.full(table.n_vars, -1)
    fold[columns[there]] = said.fold[there]
    return pd.DataFrame({**found, f"{key}_fold": fold}, index=table.var_names)


def _record(windows: GeneWindows, said: Said, seen: list[str]) -> dict:
    """What is needed to redo it."""
    first = said.models[0]
    trained = sorted({name for model in said.models for names in model.provenance["row_names"] for name in names})
    chroms = [sorted({str(one) for one in model.provenance["sections"]}) for model in said.models]
    return {
        "model": first.card.name,
        "config": asdict(first.config),
        "contexts": list(first.genes),
        "unit": first.unit,
        "windows": windows.provenance,
        "how": "out of fold by chromosome" if (said.fold >= 0).any() else "one fitted model",
        "trained_on": trained,
        "seen": seen or None,
        "models": {
            str(k): {"sha256": model.sha256, "chromosomes": names}
            for k, (model, names) in enumerate(zip(said.models, chroms, strict=True))
        },
        **{name: first.provenance[name] for name in ("plan", "versions", "date")},
    }
