"""Files of intervals, a piece at a time: bedGraph, BED, fragments; gzipped or not, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.lines import pieces

if TYPE_CHECKING:
    from pandas import DataFrame

MOST = 2**29  # intervals, which lie in memory
FARTHEST = 2**31 - 1  # place of a base: no chromosome is longer
BIGWIG = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")  # how such a file begins, in either order of bytes
HEADERS = ("#", "track", "browser")
COLUMNS = ("chrom", "start", "end")
KINDS = {"chrom": str, "start": np.int64, "end": np.int64, "value": np.float32}
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
        parts = _pieces(Path(source), what, values)
    elif hasattr(source, "columns"):
        parts = [_of_table(source, what, values)]
    else:
        raise BadInput(f"{what} is a {type(source).__name__}; expected a path, a table, or an array per chromosome.")
    found: dict[str, list] = {}
    for piece in parts:
        _check(piece, what)
        for chrom, part in piece.groupby("chrom", sort=False, observed=True):
            own = part["value"].to_numpy(np.float32) if "value" in part else None
            ends = (part[name].to_numpy(np.int32) for name in ("start", "end"))
            found.setdefault(str(chrom), []).append((*ends, own))
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
    found = found.set_axis([*COLUMNS, "value"][: found.shape[1]], axis=1)
    try:
        return found.astype({name: KINDS[name] for name in found})
    except (TypeError, ValueError) as error:
        raise BadInput(f"{what} has 'start', 'end' or values that are no numbers: {error}.") from error


def _pieces(path: Path, what: str, values: bool) -> Iterator[DataFrame]:
    import pandas as pd

    names, total = None, 0
    for piece in pieces(path, what):
        skipped = 0
        if names is None:
            skipped, is_signal = _layout(piece, path, what)
            if skipped is None:
                continue
            names = [*COLUMNS, "value"] if values and is_signal else list(COLUMNS)
        try:
            found = pd.read_csv(
                BytesIO(piece),
                sep="\t",
                header=None,
                skiprows=skipped,
                usecols=range(len(names)),
                names=names,
                dtype={name: KINDS[name] for name in names},
                comment="#",
            )
        except (ValueError, OverflowError) as error:
            told = f"{what}: '{path}' is not made of chromosome, start, end, by tabs: {error}"
            raise BadInput(f"{told}. Give bedGraph, BED, fragments or bigWig.") from error
        total += len(found)
        if total > MOST:
            raise BadInput(f"{what}: '{path}' has more than {MOST:,} intervals, too many for memory. Give a bigWig.")
        yield found


def _layout(piece: bytes, path: Path, what: str) -> tuple[int | None, bool]:
    """Lines before the first interval, None if there is none; whether its fourth column, the last, is a number."""
    for number, line in enumerate(piece.decode("utf-8", "replace").split("\n")):
        fields = line.rstrip("\r").split("\t")
        if not line.strip() or line.startswith(HEADERS):
            continue
        if len(fields) < 3 or not (fields[1].isdigit() and fields[2].isdigit()):
            raise BadInput(
                f"{what}: '{path}' has the line '{line.strip()[:60]}'; expected chromosome, start, end, by tabs."
            )
        return number, len(fields) == 4 and _is_number(fields[3])
    return None, False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check(piece: DataFrame, what: str) -> None:
    starts, ends = piece["start"].to_numpy(), piece["end"].to_numpy()
    odd = np.flatnonzero((starts < 0) | (ends <= starts) | (ends > FARTHEST))
    if len(odd):
        chrom, start, end = piece.iloc[odd[0]][list(COLUMNS)]
        raise BadInput(
            f"{what} has {len(odd)} intervals that are empty, begin before 0 or lie beyond any chromosome, such as "
            f"{chrom}:{start}-{end}; starts are counted from 0, and ends are not inside."
        )
    if "value" in piece and not np.isfinite(piece["value"].to_numpy()).all():
        raise BadInput(f"{what} has values that are NaN or infinite; leave these intervals out.")
