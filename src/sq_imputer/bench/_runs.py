"""A benchmark from its config: case after case, kept as each ends, the same numbers every time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sq_imputer.bench._audit import audited, check_kinds, crop_hashes
from sq_imputer.bench._config import BenchConfig
from sq_imputer.bench._latent import latent
from sq_imputer.bench._protocols import Fold, folds_of, protocol
from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, check_number
from sq_imputer.progress import track
from sq_imputer.section.keys import verb
from sq_imputer.section.opened import open_for
from sq_imputer.section.slide import Slide
from sq_imputer.store.disk import check_writable

if TYPE_CHECKING:
    from pandas import DataFrame

RESULTS = "results.parquet"
VERSIONS = ("sq-imputer", "torch", "numpy", "scikit-learn", "spatialdata", "anndata")


@verb
def run_config(config: BenchConfig | str | Path, out: str | Path, *, processes: int = 1) -> DataFrame:
    """Run a benchmark and leave its table and all that is needed to run it again in a folder.

    Cases are kept as they end: a call that is repeated does what is missing. Before anything is fitted, what training
    and test share is looked for (:func:`sq_imputer.bench.audit`); it goes on only with what the config allows.

    Parameters
    ----------
    config
        A config, or the YAML file of one (:class:`sq_imputer.bench.BenchConfig`).
    out
        Folder for `results.parquet`, `audit.csv`, `config.yaml`, `provenance.json` and `parts/`. An earlier run of
        another config there is refused.
    processes
        So many cases at once, each in a process of its own with one thread. The numbers are the same.

    Returns
    -------
    Tidy: a row per protocol, case, section, seed, task, subject, detail, gene and metric, with `value` and `chance`.
    :func:`sq_imputer.bench.scores_of` makes of it what :func:`sq_imputer.pl.leaderboard` draws.

    Raises
    ------
    BadInput
        If the split leaks, or the folder holds another benchmark.

    Examples
    --------
    >>> table = sqi.bench.run_config("bench.yaml", "bench_out")  # doctest: +SKIP
    """
    import pandas as pd

    config = config if isinstance(config, BenchConfig) else BenchConfig.read(config)
    check_number("processes", processes, 1, whole=True)
    out = Path(out).resolve()
    _begin(config, out)
    slides, folds = _opened(config)
    if not (out / "audit.csv").exists():  # else an earlier call has looked: the split is the same
        _audited(config, folds, slides).to_csv(out / "audit.csv", index=False)
    units = [(case, seed) for case in range(len(folds)) for seed in config.seeds]
    missing = [unit for unit in units if not _part(config, out, *unit).exists()]
    _carry_out(config, out, missing, folds, processes)
    table = pd.concat([pd.read_parquet(_part(config, out, *unit)) for unit in units], ignore_index=True)
    _write(table, out / RESULTS)
    (out / "provenance.json").write_text(json.dumps(_provenance(config, table), indent=1))
    return table


def _begin(config: BenchConfig, out: Path) -> None:
    """Make the folder, or take it up where an earlier run of the same config has left it."""
    there = out / "config.yaml"
    if there.exists() and BenchConfig.read(there).identity != config.identity:
        raise BadInput(f"'{out}' holds another benchmark; pass another folder, or remove that one.")
    check_writable(out if out.exists() else out.parent)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    config.write(there)


def _opened(config: BenchConfig) -> tuple[list[Slide], list[Fold]]:
    """The sections, and the cases made of them."""
    slides, latents = [], {}
    for name, path in config.sections.items():
        sdata = open_for(path, config.keys)
        slides.append(Slide.from_sdata(sdata, section=name, **config.keys))
        if config.latent:
            latents[name] = latent(sdata, config.latent, **config.keys)
    folds = folds_of(protocol(config.protocol), slides, config.parts)
    return slides, [replace(fold, latents=latents) for fold in folds]


def _audited(config: BenchConfig, folds: Sequence[Fold], slides: Sequence[Slide]) -> DataFrame:
    import pandas as pd

    check_kinds(config.allow)
    share = ("patient",) if protocol(config.protocol).split in ("section", "replicate") else ()
    spec = CropSpec(config.extent_um, config.size_px)
    hashes, tables = {id(slide): crop_hashes(slide, spec) for slide in slides}, []
    for fold in folds:
        tested = tuple(case.test for case in fold.cases)
        parts = {"train": fold.cases[0].training, "val": fold.validation, "test": tested}
        parts = {name: part for name, part in parts.items() if part}
        found = audited(parts, hashes, allow=(*config.allow, *share))
        tables.append(found.assign(case=fold.name))
    return pd.concat(tables, ignore_index=True)


def _part(config: BenchConfig, out: Path, case: int, seed: int) -> Path:
    return out / "parts" / f"{config.identity}-{case}-{seed}.parquet"


def _carry_out(config: BenchConfig, out: Path, units: list, folds: Sequence[Fold], processes: int) -> None:
    if processes == 1 or len(units) < 2:
        for case, seed in track(units, f"bench {config.protocol}", len(units)):
            _one(config, folds[case], _part(config, out, case, seed), seed)
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    n = min(processes, len(units))
    with ProcessPoolExecutor(n, get_context("spawn"), initializer=_settle, initargs=(config,)) as pool:
        jobs = [pool.submit(_elsewhere, str(out), case, seed) for case, seed in units]
        for job in track(as_completed(jobs), f"bench {config.protocol}", len(jobs)):
            job.result()


_settled: dict = {}  # in a process of its own: the config, and the cases, whose sections keep what is read of them


def _settle(config: BenchConfig) -> None:
    """Open the sections once for all cases of a process, which then reads crops of each section once."""
    _settled.update(config=config, folds=_opened(config)[1])


def _elsewhere(out: str, case: int, seed: int) -> None:
    """One case in another process."""
    config = _settled["config"]
    _one(config, _settled["folds"][case], _part(config, Path(out), case, seed), seed)


def _one(config: BenchConfig, fold: Fold, path: Path, seed: int) -> None:
    from sq_imputer.bench._tasks import all_tasks
    from sq_imputer.device import one_thread

    with one_thread():  # sums of several threads differ in the last bits
        _write(all_tasks(config, fold, seed), path)


def _write(table: DataFrame, path: Path) -> None:
    """The whole table, or the one that was there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    table.to_parquet(beside, index=False)
    os.replace(beside, path)


def _provenance(config: BenchConfig, table: DataFrame) -> dict:
    import pandas as pd

    files = {Path(path).name: _digest(path) for path in config.files}
    numbers = hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()).hexdigest()
    versions = {name: version(name) for name in VERSIONS} | {"python": platform.python_version()}
    known = {"config": config.identity, "results_sha256": numbers, "versions": versions}
    return known | ({"files_sha256": files} if files else {})


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scores_of(results: DataFrame, task: str = "models") -> DataFrame:
    """Scores per gene of one task of a benchmark, as :func:`sq_imputer.bench.run` returns them; seeds are averaged.

    Parameters
    ----------
    results
        As :func:`run_config` returns them.
    task
        `"models"`, `"zero_shot"` or `"expression"`.

    Raises
    ------
    BadInput
        If the results have no such task.

    Examples
    --------
    >>> table = sqi.bench.scores_of(benchmark, "expression")  # doctest: +SKIP
    """
    part = results[results["task"] == task]
    if part.empty:
        raise BadInput(f"no task '{task}' in these results; they have {sorted(set(results['task']))}.")
    kept = ["case", "section", "subject", "gene", "rank", "shares_patient"]
    wide = part.groupby([*kept, "metric"], sort=False)["value"].mean().unstack("metric")
    return wide.reset_index().rename(columns={"subject": "predictor"}).rename_axis(columns=None)
