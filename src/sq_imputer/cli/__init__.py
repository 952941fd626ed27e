"""`sq-imputer demo | fit | predict | score | report | models | doctor | bench | view`: verbs on stores."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from sq_imputer.cli import _bench, _doctor, _models, _view
from sq_imputer.cli._printed import interval, print_table
from sq_imputer.cli._words import options_of, spoken
from sq_imputer.errors import BadInput, SqImputerError, StoreError, listed, printable

app = typer.Typer(help="Gene expression from H&E, on SpatialData stores.", no_args_is_help=True, add_completion=False)
app.add_typer(_bench.app, name="bench")
app.command()(_models.models)
app.command()(_doctor.doctor)
app.command()(_view.view)

BASELINE = "ridge on texture"
COLUMNS = {"genes": "genes", "numbers": "columns", "classes": "classes", "composition": "parts"}
SHOWN = ("pearson", "pearson_given_depth", "r2", "balanced_accuracy", "auroc", "log_loss", "calibration_error")
Store = Annotated[Path, typer.Argument(help="SpatialData store (.zarr).")]
Genes = Annotated[
    str, typer.Option(help="Number of genes to choose on the training sections, or names, separated by commas.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
UNIT = "Expression unit: log1p_cp10k, log1p_counts, log2_counts or log10_cp10k_panel."
TargetOf = Annotated[
    str | None,
    typer.Option(
        help="What is predicted, if not genes: obs:NAME, obsm:NAME, table:NAME; --unit is that of a table. "
        "Or triplex_legacy: genes as the published TRIPLEX has them."
    ),
]
Kind = Annotated[str | None, typer.Option(help="Of a target that is a matrix: numbers (left out) or composition.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
ImageKey = Annotated[str | None, typer.Option(help="Image; needed if there are several.")]
ShapesKey = Annotated[str | None, typer.Option(help="Spots, bins, cells or grid; needed if there are several.")]
TableKey = Annotated[str, typer.Option(help="Table with counts.")]
Encoders = Annotated[
    list[str] | None,
    typer.Option("--encoder", help="Image encoder of a named model that reads features; repeat it for several."),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(help="Your own safetensors file of the encoder; ENCODER=FILE where there are several."),
]
Mpp = Annotated[float | None, typer.Option(help="µm per pixel, if the store does not say it.")]
Resolution = Annotated[
    str, typer.Option(help="µm per pixel that all sections are read at; auto: the coarsest that they have in common.")
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("sq-imputer"))
        raise typer.Exit


@app.callback()
def options(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Gene expression from H&E, on SpatialData stores."""


def _open(path: Path):
    from sq_imputer.io import read_zarr

    return read_zarr(path)


def _open_all(paths: Sequence[Path]) -> dict:
    """Sections by the name of their store, or by its path where two have one name."""
    names = [path.stem for path in paths]
    return {str(path) if names.count(path.stem) > 1 else path.stem: _open(path) for path in paths}


def _genes(genes: str) -> list[str] | int:
    return int(genes) if genes.isdigit() else [name.strip() for name in genes.split(",") if name.strip()]


def _target(target: str | None, kind: str | None):
    from sq_imputer.target import Target

    if kind is not None and target is None:
        raise BadInput(f"--kind is '{kind}', of no target. Pass --target as well.")
    return None if target is None else Target(target, kind or "")


def _with_key(model: str, target, key: str | None) -> tuple:
    """The model, and the table that its prediction goes to: the one named, that of what is asked for, or of its fit."""
    from sq_imputer import list_models, load
    from sq_imputer.target import Target

    if key or target is not None or model in list_models() or not Path(model).is_dir():
        return model, key or Target.of(target).key
    fitted = load(model)
    return fitted, fitted.target.key


def _columns(table) -> str:
    """What the columns of a table are called."""
    return COLUMNS[str(table.var["kind"].iloc[0])] if "kind" in table.var else COLUMNS["genes"]


def _resolution(text: str) -> str | float | list[float]:
    try:
        found = [float(part) for part in text.split(",")]
        return found if len(found) > 1 else found[0]
    except ValueError:
        return text


def _config(encoders: Sequence[str] | None) -> dict | None:
    """The config of a model with these encoders, and crops of the size that they take."""
    from sq_imputer.encoders import encoder_card

    if not encoders:
        return None
    cards = [encoder_card(name) for name in encoders]
    sizes = sorted({card.size_px for card in cards if not card.any_size})
    if len(sizes) > 1:
        raise BadInput(f"encoders {listed(encoders)} take crops of {listed(sizes)} pixels; a model has one size.")
    return {"encoders": tuple(encoders)} | ({"size_px": sizes[0]} if sizes else {})


def _weights(given: Sequence[str] | None) -> str | dict[str, str] | None:
    """Files by encoder; one file alone where nothing else is said."""
    if not given:
        return None
    if len(given) == 1 and ("=" not in given[0] or Path(given[0]).exists()):
        return given[0]
    bare = [one for one in given if "=" not in one]
    if bare:
        raise BadInput(f"--weights is {listed(bare)}; of several files each is ENCODER=FILE.")
    return dict(one.split("=", 1) for one in given)


def _print_summary(summary, where: str, columns: str = "genes") -> None:
    """A row per predictor, a column per score: mean over genes [95 % interval over blocks of spots]."""
    order, n_genes = list(dict.fromkeys(summary["predictor"])), summary["n_genes"].iloc[0]
    shown = summary[summary["metric"].isin(SHOWN)].copy()
    shown["value"] = [interval(*values) for values in shown[["mean", "low", "high"]].to_numpy()]
    same = shown.pivot(index="predictor", columns="metric", values="value").apply(tuple, axis=1)
    twins = [name for name in order if name != BASELINE and BASELINE in same and same[name] == same[BASELINE]]
    order = [name for name in order if name != BASELINE or not twins]
    shown = shown.pivot(index="predictor", columns="metric", values="value").loc[order].reset_index()
    shown = shown.rename(columns=lambda name: name.replace("pearson_given", "given").replace("_", " "))
    print_table(shown, f"mean over {n_genes} {columns}, {where}")
    if twins:
        typer.echo(f"{printable(twins[0])} is {BASELINE}, the baseline, and stands there once")
    if "n_nan" not in summary:  # of classes
        return
    scored = summary[(summary["metric"] == "pearson") & summary["predictor"].isin(order)]
    for name, n_nan in zip(scored["predictor"], scored["n_nan"], strict=True):
        if 0 < n_nan < n_genes:
            typer.echo(f"{printable(name)}: {n_nan} {columns} do not vary and have no correlation")
    if (scored["n_nan"] == n_genes).any():
        typer.echo("– a constant, such as the mean, has no correlation")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the results go.")] = Path("demo"),
    overwrite: Annotated[bool, typer.Option(help="Replace a folder from an earlier run.")] = False,
    seed: Seed = 0,
) -> None:
    """Make toy tissue of three patients, fit on two, predict the third at its spots and between them, score it."""
    from sq_imputer._demo import run

    _print_summary(run(folder, overwrite=overwrite, seed=seed), f"third patient: {folder / 'score.csv'}")


@app.command()
def fit(
    stores: Annotated[list[Path], typer.Argument(help="SpatialData stores with counts.")],
    model: Annotated[str, typer.Option(help="Name of a model; see `sq-imputer models`.")] = "ridge",
    out: Annotated[Path, typer.Option(help="Folder for the fitted model.")] = Path("model"),
    target: TargetOf = None,
    kind: Kind = None,
    genes: Genes | None = None,
    unit: Annotated[str | None, typer.Option(help=UNIT)] = None,
    encoder: Encoders = None,
    weights: Weights = None,
    image_key: ImageKey = None,
    shapes_key: ShapesKey = None,
    table_key: TableKey = "table",
    mpp: Mpp = None,
    resolution: Resolution = "auto",
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Fit a model on the measured spots of some stores and save it."""
    from sq_imputer import Plan, tl

    seen = {"config": _config(encoder), "weights": _weights(weights), "resolution": _resolution(resolution)}
    if out.exists():
        raise BadInput(f"'{out}' exists already; pass --out another folder.")
    _check_folder(out, "--out")
    keys = {"image_key": image_key, "shapes_key": shapes_key, "table_key": table_key, "mpp": mpp}
    sections = _open_all(stores)
    plan = Plan(device=device, seed=seed)
    what = {"target": _target(target, kind), "genes": None if genes is None else _genes(genes), "unit": unit}
    predictor = tl.fit(sections, model, **{k: v for k, v in what.items() if v is not None}, plan=plan, **seen, **keys)
    out.parent.mkdir(parents=True, exist_ok=True)
    predictor.save(out)
    of = f"{len(predictor.genes)} {COLUMNS[predictor.target.kind]}"
    typer.echo(f"{predictor.card.name} of {of}, fitted on {len(stores)} sections: {out}")


@app.command()
def predict(
    store: Store,
    model: Annotated[str, typer.Option(help="Name of a model, or folder of a fitted one.")] = "ridge",
    reference: Annotated[list[Path] | None, typer.Option(help="Stores to fit a named model on.")] = None,
    target: TargetOf = None,
    kind: Kind = None,
    genes: Genes | None = None,
    unit: Annotated[str | None, typer.Option(help=UNIT)] = None,
    encoder: Encoders = None,
    weights: Weights = None,
    key_added: Annotated[
        str | None, typer.Option(help="Table to write; imputed, or imputed_NAME of another target, if left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a prediction of this name.")] = False,
    allow_same_patient: Annotated[
        bool, typer.Option(help="Let a model that retrieves use sections of the patient to be predicted.")
    ] = False,
    image_key: ImageKey = None,
    shapes_key: ShapesKey = None,
    table_key: TableKey = "table",
    mpp: Mpp = None,
    resolution: Resolution = "auto",
    n_repeats: Annotated[
        int, typer.Option(help="Partitions into blocks whose mean an out-of-fold prediction is; each takes as long.")
    ] = 1,
    device: Device = "auto",
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option(help="Keep what is done beside the store, and go on with what an earlier call has done.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Write the result to a new store here instead.")] = None,
) -> None:
    """Predict expression, or another target, into a store: by a fitted model, fitted on references, or out of fold."""
    from sq_imputer import Plan, tl

    sdata, wanted = _open(store), _target(target, kind)
    asked, key_added = _with_key(model, wanted, key_added)
    keys = {"image_key": image_key, "shapes_key": shapes_key, "table_key": table_key, "mpp": mpp}
    references = _open_all(reference) if reference else None
    plan = Plan(device=device, seed=seed)
    tl.predict(
        sdata,
        asked,
        reference=references,
        target=wanted,
        genes=None if genes is None else _genes(genes),
        unit=unit,
        config=_config(encoder),
        weights=_weights(weights),
        resolution=_resolution(resolution),
        key_added=key_added,
        overwrite=overwrite,
        allow_same_patient=allow_same_patient,
        n_repeats=n_repeats,
        plan=plan,
        resume=resume,
        output_path=output,
        **keys,
    )
    table = sdata.tables[key_added]
    typer.echo(f"{table.n_obs} rows x {table.n_vars} {_columns(table)}: {output or store}/tables/{key_added}")


@app.command()
def score(
    store: Store,
    key: Annotated[str, typer.Option(help="Table with predictions.")] = "imputed",
    reference: Annotated[list[Path] | None, typer.Option(help="Stores that the model was fitted on.")] = None,
    baselines: Annotated[bool, typer.Option(help="Compute the baselines.")] = True,
    all_rows: Annotated[bool, typer.Option(help="Score also what was not predicted out of fold.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the scores of every gene here.")] = None,
    seed: Seed = 0,
) -> None:
    """Score predictions against what was measured, beside baselines; each section of a table of several by itself."""
    import pandas as pd

    from sq_imputer.tl._score import scored_by_section

    if csv is not None:
        _check_folder(csv, "--csv")
    sdata = _open(store)
    references = _open_all(reference) if reference else None
    how = {"baselines": baselines, "all_rows": all_rows, "seed": seed}
    found = scored_by_section(sdata, key=key, reference=references, **how)
    for name, scores in found.items():
        where = f"{store}/tables/{key}" + (f", section {name}" if len(found) > 1 else "")
        _print_summary(scores.per_section(), where, _columns(sdata.tables[key]))
    per_gene = pd.concat([scores.per_gene for scores in found.values()], ignore_index=True)
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        per_gene.to_csv(csv, index=False)


@app.command()
def report(
    store: Store,
    out: Annotated[Path, typer.Option(help="The file.")] = Path("report.html"),
    key: Annotated[str, typer.Option(help="Table with predictions.")] = "imputed",
    genes: Annotated[str | None, typer.Option(help="Genes that are drawn, separated by commas.")] = None,
    reference: Annotated[list[Path] | None, typer.Option(help="Stores that the model was fitted on.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file of this name.")] = False,
    seed: Seed = 0,
) -> None:
    """Write one HTML file of a prediction: where it comes from, scores beside baselines, trust, pictures."""
    import matplotlib

    from sq_imputer import report as reports

    matplotlib.use("agg")
    _check_folder(out, "--out")
    references = _open_all(reference) if reference else None
    wanted = None if genes is None else _genes(genes)
    how = {"genes": wanted, "reference": references, "overwrite": overwrite, "seed": seed}
    typer.echo(reports.prediction(_open(store), out, key=key, **how))


def _check_folder(path: Path, option: str) -> None:
    """Check, before anything is computed, that a file or folder can be made here, and the folders that lead to it."""
    from sq_imputer.store.disk import check_writable

    if path.is_dir() and option == "--csv":
        raise BadInput(f"'{path}' is a folder; pass {option} the name of a file.")
    below = [path.resolve(), *path.resolve().parents]
    first = next(one for one in below[1:] if one.exists())  # what is missing below it is made at the end
    if not first.is_dir():
        raise BadInput(f"'{first}' is a file, so that '{path}' cannot be made; pass {option} elsewhere.")
    try:
        check_writable(below[below.index(first) - 1])
    except StoreError as error:
        raise BadInput(f"{error} Pass {option} elsewhere.") from error


def main() -> None:
    """Run the command line; expected errors are one line, not a traceback."""
    warnings.filterwarnings("ignore", message="zarr v3 autosharding")  # anndata's note on every array it writes
    logging.getLogger("ome_zarr").setLevel(logging.ERROR)  # its note on every label image it reads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not take the cores of a shared machine
    try:
        app()
    except SqImputerError as error:
        typer.echo(f"error: {spoken(str(error), options_of(app, sys.argv[1:]))}", err=True)
        sys.exit(1)
