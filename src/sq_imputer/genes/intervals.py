"""Files of intervals, a piece at a time: bedGraph, BED, fragments; gzipped or not, whatever they are called."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.untrusted import PACKING

if TYPE_CHECKING:
    from pandas import DataFrame

PIECE = 2**20  # lines that are read at a time
BIGWIG = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")  # how such a file begins, in either order of bytes
HEADERS = ("#", "track", "browser")
COLUMNS = ("chrom", "start", "end")
Intervals = dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]  # starts, ends, values by chromosome


def is_bigwig(path: str | Path) -> bool:
    """Whether a file is a bigWig file, by how it begins."""
    if not Path(path).is_file():
        raise MissingKey(f"no file '{path}'; give the path of a bigWig, bedGraph or fragment file.")
    with Path(path).open("rb") as file:
        return file.read(4) in BIGWIG


def read_intervals(source: str | Path | DataFrame, what: str, *, values: bool = True) -> Intervals:
    """Intervals of a file or a table, counted from 0, by chromosome.

    Parameters
    ----------
    source
        bedGraph (the fourth column is a number), fragments (it is a barcode, or there is none) or BED; or a table with
        the columns `chrom`, `start`, `end` and, where it has values, one more.
    what
        What it is, for messages.
    values
        Whether a fourth column of numbers is wanted.

    Returns
    -------
    Starts, ends and values of every chromosome; no values where the file has none, as of fragments.
    """
    if isinstance(source, str | Path):
        pieces = _pieces(Path(source), what, values)
    elif hasattr(source, "columns"):
        pieces = [_of_table(source, what, values)]
    else:
        raise BadInput(f"{what} is a {type(source).__name__}; expected a path, a table, or an array per chromosome.")
    found: dict[str, list] = {}
    for piece in pieces:
        _check(piece, what)
        for chrom, part in piece.groupby("chrom", sort=False, observed=True):
            own = part["value"].to_numpy(np.float32) if "value" in part else None
            found.setdefault(str(chrom), []).append((part["start"].to_numpy(), part["end"].to_numpy(), own))
    if not found:
        raise BadInput(f"{what} has no intervals; expected lines of chromosome, start, end, by tabs.")
    return {chrom: _joined(parts) for chrom, parts in found.items()}


def _joined(parts: list) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    starts, ends, values = zip(*parts, strict=True)
    return np.concatenate(starts), np.concatenate(ends), None if values[0] is None else np.concatenate(values)


def _of_table(table: DataFrame, what: str, values: bool) -> DataFrame:
    missing = [name for name in COLUMNS if name not in table]
    further = [name for name in table if name not in COLUMNS]
    if missing or (values and len(further) > 1):
        raise BadInput(
            f"{what} has the columns {listed(table)}; expected 'chrom', 'start', 'end' and, for a signal, one of "
            "values."
        )
    found = table[[*COLUMNS, *further[:1]]] if values else table[list(COLUMNS)]
    return found.set_axis([*COLUMNS, "value"][: found.shape[1]], axis=1)


def _pieces(path: Path, what: str, values: bool):
    import pandas as pd

    if not path.is_file():
        raise MissingKey(f"no file '{path}' for {what}; give the path of one.")
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt") if packed else path.open() as file:
            skipped, columns = _layout(file, path, what)
            names = [*COLUMNS, "value"] if values and columns else list(COLUMNS)
        kinds = {"chrom": str, "start": np.int64, "end": np.int64, "value": np.float32}
        with gzip.open(path, "rt") if packed else path.open() as file:
            yield from pd.read_csv(
                file,
                sep="\t",
                header=None,
                skiprows=skipped,
                usecols=range(len(names)),
                names=names,
                dtype={name: kinds[name] for name in names},
                chunksize=PIECE,
                comment="#",
            )
    except (*PACKING, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        told = f"{what}: '{path}' is damaged, or not made of chromosome, start, end"
        raise BadInput(f"{told}, by tabs: {error}. Give bedGraph, BED, fragments or bigWig.") from error


def _layout(file, path: Path, what: str) -> tuple[int, bool]:
    """How many lines come before the first interval, and whether its fourth column is a number."""
    for number, line in enumerate(file):
        fields = line.rstrip("\n").split("\t")
        if not line.strip() or line.startswith(HEADERS):
            continue
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise BadInput(
                f"{what}: '{path}' has the line '{line.strip()[:60]}'; expected chromosome, start, end, by tabs."
            )
        return number, len(fields) == 4 and _is_number(fields[3])
    raise BadInput(f"{what}: '{path}' has no intervals; expected lines of chromosome, start, end, by tabs.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check(piece: DataFrame, what: str) -> None:
    odd = np.flatnonzero((piece["start"].to_numpy() < 0) | (piece["end"].to_numpy() <= piece["start"].to_numpy()))
    if len(odd):
        row = piece.iloc[odd[0]]
        raise BadInput(
            f"{what} has {len(odd)} intervals that are empty or begin before 0, such as {row['chrom']}:{row['start']}-"
            f"{row['end']}; starts are counted from 0, and ends are not inside."
        )
    if "value" in piece and not np.isfinite(piece["value"].to_numpy()).all():
        raise BadInput(f"{what} has values that are NaN or infinite; leave these intervals out.")
