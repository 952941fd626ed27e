"""`sq-imputer bench run | report | protocols`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Benchmarks from a file, by the name of a protocol.", no_args_is_help=True)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file: protocol, sections, models, encoders, ...")],
    out: Annotated[Path, typer.Option(help="Folder for the results; what is there of this benchmark is kept.")] = Path(
        "bench"
    ),
    processes: Annotated[int, typer.Option(help="Cases at once, each in a process of its own.")] = 1,
) -> None:
    """Run a benchmark, and write its table and its report."""
    from sq_imputer import bench
    from sq_imputer import report as reports

    table = bench.run_config(config, out, processes=processes)
    typer.echo(f"{len(table)} numbers of {table['case'].nunique()} cases: {reports.bench(out)}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Folder of a benchmark that has run.")]) -> None:
    """Write the report of a benchmark again."""
    from sq_imputer import report as reports

    typer.echo(reports.bench(folder))


@app.command()
def protocols() -> None:
    """List the protocols, with what their numbers can be compared with."""
    import pandas as pd

    from sq_imputer import bench
    from sq_imputer.cli._printed import print_table

    rows = [(p.name, p.split, ", ".join(p.tasks), p.n_genes, p.compares) for p in bench.PROTOCOLS.values()]
    print_table(pd.DataFrame(rows, columns=["protocol", "split", "tasks", "genes", "compares with"]), "protocols")
