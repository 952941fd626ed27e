"""What is run on a case, as rows of one tidy table: every number with its task, subject, metric and chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._contrast import contrast
from sq_imputer.bench._leave_genes import leave_genes_out
from sq_imputer.bench._leave_out import run
from sq_imputer.bench._pairs import Pairs, pairs
from sq_imputer.bench._probes import probed
from sq_imputer.bench._protocols import Fold, protocol
from sq_imputer.bench._retrieval import retrieval
from sq_imputer.contract import CropSpec
from sq_imputer.genes.panel import choose_genes
from sq_imputer.scores.batches import batch_table
from sq_imputer.scores.tables import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

    from sq_imputer.bench._config import BenchConfig
    from sq_imputer.bench._contrasts import Contrast

UNTUNED = "untuned"
EVERY = "all"  # section of what is said of all of a split together


def all_tasks(config: BenchConfig, fold: Fold, seed: int) -> DataFrame:
    """Every task of a config on the cases of one split with one seed.

    Returns
    -------
    Columns `protocol`, `case`, `section`, `shares_patient`, `seed`, `task`, `subject`, `detail`, `gene`, `rank`,
    `metric`, `value`, `chance`, `n`.
    """
    import pandas as pd

    how = protocol(config.protocol)
    tasks = config.tasks or how.tasks
    found = []
    if "models" in tasks:
        found.append(_models(config, fold, seed))
    if "zero_shot" in tasks:
        found.append(_zero_shot(config, fold, seed))
    if set(tasks) - {"models", "zero_shot"}:
        for encoder in config.encoders:
            found += list(_of_pairs(config, fold, encoder, tasks, seed))
    table = pd.concat(found, ignore_index=True)
    case = fold.name if len(fold.cases) == 1 else table["section"].replace(EVERY, fold.name)
    shared = {one.name: one.shares_patient for one in fold.cases}
    shared |= {fold.name: any(shared.values())}
    table = table.assign(protocol=config.protocol, case=case, seed=seed)
    return table.assign(shares_patient=table["case"].map(shared))


def _models(config: BenchConfig, fold: Fold, seed: int) -> DataFrame:
    models = {name: config.model(name) for name in config.models}
    table = run(fold.cases, models, n_genes=_size(config), unit=config.unit, seed=seed, device=config.device)
    return _long(table, "models")


def _zero_shot(config: BenchConfig, fold: Fold, seed: int) -> DataFrame:
    known = config.known()
    models = {name: config.model(name, known) for name in config.models}
    how = {"n_genes": _size(config), "unit": config.unit, "seed": seed, "device": config.device}
    found = leave_genes_out(fold.cases, models, chromosomes=config.chromosomes or None, **how)
    return _long(found, "zero_shot")


def _size(config: BenchConfig) -> int:
    return config.n_genes or protocol(config.protocol).n_genes


def _of_pairs(config: BenchConfig, fold: Fold, encoder: str, tasks: Sequence[str], seed: int) -> Iterator[DataFrame]:
    """The tasks on pairs, for one encoder: untuned, and after every contrast."""
    train, validation, test = _pairs(config, fold, encoder)
    how, device = protocol(config.protocol), _device(config)
    tuned = {
        name: contrast(
            train, validation, config=one, weights=_tuned_from(config, one, encoder), seed=seed, device=device
        )
        for name, one in ((name, config.contrast(name)) for name in config.contrasts)
    }
    if "retrieval" in tasks:
        for name, one in tuned.items():
            found = retrieval(one, test, gallery=how.galleries, exclude_um=config.exclude_um)
            yield _recalls(found, f"{encoder} | {name}")
    if not {"expression", "batch"} & set(tasks):
        return
    said = {name: (one.features(train), one.features(test)) for name, one in tuned.items()}
    features = {f"{encoder} | {n}": sides for n, sides in {UNTUNED: (train.image, test.image), **said}.items()}
    if "expression" in tasks:
        probe = config.probe or how.probe
        yield _long(probed(features, train, test, probe, seed=seed), "expression", probe)
    if "batch" in tasks:
        section = np.concatenate([train.section, test.section])
        for subject, sides in features.items():
            found = batch_table(np.concatenate(sides), section, scib=config.scib, seed=seed)
            yield _batches(found, subject, len(section))


def _tuned_from(config: BenchConfig, one: Contrast, encoder: str) -> str | None:
    """The file of weights that a contrast begins at, where it tunes the encoder."""
    return config.weights.get(encoder) if one.finetune == "lora" else None


def _device(config: BenchConfig) -> str:
    from sq_imputer.device import pick_device

    return pick_device(config.device)


def _pairs(config: BenchConfig, fold: Fold, encoder: str) -> tuple[Pairs, Pairs | None, Pairs]:
    training, spec = fold.cases[0].training, CropSpec(config.extent_um, config.size_px)
    genes = choose_genes(training, _size(config))
    lora = any(config.contrast(name).finetune == "lora" for name in config.contrasts)
    how = {"spec": spec, "unit": config.unit, "crops": lora, "device": config.device}
    how["weights"] = config.weights.get(encoder)
    parts = training, fold.validation, [case.test for case in fold.cases]
    train, validation, test = (
        pairs(part, genes, encoder, latent=fold.latents, **how) if part else None for part in parts
    )
    return train, validation, test


def _long(table: DataFrame, task: str, detail: str = "") -> DataFrame:
    """Scores per gene, a row per metric; genes are ranked by their place in the panel."""
    genes = list(dict.fromkeys(table["gene"]))
    table = table.assign(rank=table["gene"].map(genes.index), subject=table["predictor"], n=table["n_spots"])
    kept = ["section", "subject", "gene", "rank", "n"]
    metrics = [name for name in METRICS if name in table]
    long = table.melt(id_vars=kept, value_vars=metrics, var_name="metric", value_name="value")
    return long.assign(task=task, detail=detail, chance=np.nan)


def _recalls(table: DataFrame, subject: str) -> DataFrame:
    import pandas as pd

    rows = []
    for one in table.itertuples():
        where = f"{one.direction}, {one.gallery}"
        rows.append((one.section, subject, where, f"recall@{one.k}", one.recall, one.chance, one.n))
        if one.k == table["k"].min():
            rows.append((one.section, subject, where, "median_rank", one.median_rank, np.nan, one.n))
    names = ["section", "subject", "detail", "metric", "value", "chance", "n"]
    return pd.DataFrame(rows, columns=names).assign(task="retrieval", gene="", rank=-1)


def _batches(table: DataFrame, subject: str, n: int) -> DataFrame:
    kept = table[["metric", "value", "chance"]]
    return kept.assign(task="batch", subject=subject, detail="", section=EVERY, gene="", rank=-1, n=n)
