"""`sq-imputer doctor`: what is installed, what runs, and whether a store can be read, before anything long begins."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from sq_imputer.cli._printed import print_table
from sq_imputer.errors import SqImputerError, printable

PACKAGES = ("sq-imputer", "spatialdata", "anndata", "scanpy", "squidpy", "zarr", "dask", "torch", "numpy")
EXTRAS = {
    "encoders": ("timm", "image encoders by name"),
    "zoo": ("lazyslide-models", "encoders zoo:NAME and models of others"),
    "io": ("spatialdata-io", "readers of Visium, Xenium and others"),
    "text": ("transformers", "knowledge of genes from texts"),
    "genomics": ("pyfaidx", "genomes and tracks for models of DNA"),
    "dask": ("distributed", "predictions on a cluster"),
    "interactive": ("bokeh", "comparisons in the browser"),
    "napari": ("napari-spatialdata", "the napari widget"),
}


def doctor(
    store: Annotated[Path | None, typer.Argument(help="Also look at this SpatialData store (.zarr).")] = None,
) -> None:
    """Show versions, devices, extras, encoders, models, and whether a store can be predicted; exits with 1 if not."""
    import pandas as pd

    versions = [("Python", platform.python_version())] + [(name, _version(name) or "missing") for name in PACKAGES]
    print_table(pd.DataFrame(versions, columns=["package", "version"]), "installed")
    print_table(pd.DataFrame(_devices(), columns=["device", "what"]), "devices")
    extras = [(name, _version(of) or f'pip install "sq-imputer[{name}]"', what) for name, (of, what) in EXTRAS.items()]
    print_table(pd.DataFrame(extras, columns=["extra", "version", "for"]), "extras")
    print_table(pd.DataFrame(_encoders(), columns=["encoder", "weights"]), "encoders")
    well = [_models(), store is None or _store(store)]
    if not all(well):
        raise typer.Exit(1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _devices() -> list[tuple[str, str]]:
    import torch

    found = [("cpu", f"threads: {torch.get_num_threads()}")]
    for k in range(torch.cuda.device_count()):
        found.append((f"cuda:{k}", torch.cuda.get_device_name(k)))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple's"))
    return found


def _encoders() -> list[tuple[str, str]]:
    """Encoders that are named here, and whether their weights are on this machine; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    from sq_imputer.encoders import encoder_card, list_encoders

    found = []
    for card in map(encoder_card, list_encoders()):
        if not card.source:
            said = "none from the hub"
        elif isinstance(try_to_load_from_cache(card.source, card.file, revision=card.revision), str):
            said = "here"
        else:
            said = f"not here; {card.source}, {'after a log-in' if card.gated else 'without a log-in'}"
        found.append((card.name, said))
    return found


def _models() -> bool:
    """Whether every model that is registered can be had, plug-ins among them."""
    from sq_imputer import get_model, list_models

    names, broken = list_models(), []
    for name in names:
        try:
            get_model(name)
        except Exception as error:  # noqa: BLE001 - a plug-in's import may fail in any way
            broken.append(f"model '{name}': {error}")
    typer.echo(f"models: {', '.join(map(printable, names))}")
    for line in broken:
        typer.echo(f"FAILS {printable(line)}")
    return not broken


def _store(path: Path) -> bool:
    """Whether what `sq-imputer predict` reads at its defaults is there, and what was predicted before."""
    from sq_imputer.io import read_zarr
    from sq_imputer.runs.run import journals_beside
    from sq_imputer.runs.sections import records
    from sq_imputer.section.slide import Slide

    try:
        sdata = read_zarr(path)
    except SqImputerError as error:
        typer.echo(f"FAILS {path}: {error}")
        return False
    for name, table in sdata.tables.items():
        layers = ", ".join(map(printable, records(table))) or "no prediction"
        typer.echo(f"table '{printable(name)}': {table.n_obs} rows x {table.n_vars}; {layers}")
    for left in journals_beside(path):
        typer.echo(f"unfinished: {left.name}; predict --resume goes on with it, or remove it")
    try:
        slide = Slide.from_sdata(sdata)
    except SqImputerError as error:
        typer.echo(f"FAILS at the defaults: {printable(str(error))}")
        return False
    typer.echo(f"{printable(repr(slide))}")
    return True
