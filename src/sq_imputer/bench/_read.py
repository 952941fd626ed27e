"""Pairs as HESCAPE publishes them: one row per crop, with its picture and its expression."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sq_imputer.bench._pairs import Pairs
from sq_imputer.encoders._shelf import Shelf, Weights, weights_of
from sq_imputer.errors import BadInput, MissingKey, listed
from sq_imputer.genes.units import LOG1P_CP10K, to_unit
from sq_imputer.section.keys import verb

if TYPE_CHECKING:
    from pyarrow import RecordBatch

NEEDED = ("name", "image", "gexp")
AT_ONCE = 64  # rows decoded together
MOST_SIDE = 4096  # pixels of a picture


@verb
def read_pairs(
    path: str | Path | Sequence[str | Path],
    genes: Sequence[str],
    encoder: str = "texture",
    *,
    crop_px: int = 512,
    size_px: int = 224,
    unit: str = LOG1P_CP10K,
    names: Sequence[str] | None = None,
    weights: Weights | None = None,
    crops: bool = False,
    device: str = "auto",
) -> Pairs:
    """Read pairs from parquet or Arrow files with the columns of HESCAPE, and encode their pictures.

    The middle of every picture, always the same, is resized: the published loader draws one of two magnifications at
    random, also in tests.

    Parameters
    ----------
    path
        A file, several, or a folder of `.parquet` or `.arrow` files.
    genes
        Names of the values in `gexp`, which the files do not have.
    encoder
        Image encoder by name.
    crop_px, size_px
        Side of the middle that is taken, and of what the encoder sees.
    unit
        Of the expression. The library is the panel: nothing else was counted.
    names
        Slides to read, all if left out.
    weights
        File of the encoder.
    crops
        Keep the pixels as well.
    device
        Where the encoder runs.

    Returns
    -------
    Pairs whose `section` is the column `name`, `group` the column `patient` where there is one, else `name`.

    Raises
    ------
    MissingKey
        If a column is missing or no row is of the slides asked for.
    BadInput
        If `gexp` has another length than `genes`, or a picture cannot be read.

    Examples
    --------
    >>> pairs = sqi.bench.read_pairs("pairs.parquet", genes=genes)  # doctest: +SKIP
    """
    import torch

    from sq_imputer.device import pick_device

    encode, device = Shelf(weights_of(weights, [encoder])).get(encoder), pick_device(device)
    found: dict[str, list] = {name: [] for name in ("image", "counts", "section", "group", "xy_um", "crops")}
    for batch in _batches(_files(path)):
        kept = (
            np.flatnonzero(np.isin(batch["name"], list(names))) if names is not None else np.arange(len(batch["name"]))
        )
        if not len(kept):
            continue
        pixels = np.stack([_middle(batch["image"][row], crop_px, size_px) for row in kept])
        found["image"].append(encode(torch.from_numpy(pixels).to(device)).cpu().numpy())
        found["counts"].append(_counts(batch["gexp"], kept, genes))
        found["section"].append(batch["name"][kept])
        found["group"].append(batch.get("patient", batch["name"])[kept])
        found["xy_um"].append(_places(batch, kept))
        if crops:
            found["crops"].append(pixels)
    if not found["image"]:
        raise MissingKey(f"no row of {listed(names or ['any slide'])} in {listed(_files(path))}. Pass names=.")
    whole = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    counts = whole.pop("counts")
    depth = counts.sum(axis=1)
    expression = to_unit(counts, depth, unit).astype(np.float32)
    return Pairs(
        **whole,
        expression=expression,
        depth=depth,
        genes=tuple(genes),
        encoder=encoder,
        made_by=dict(encode.provenance),
        unit=unit,
    )


def _files(path) -> list[Path]:
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    found = []
    for one in paths:
        found += sorted(p for p in one.iterdir() if p.suffix in (".parquet", ".arrow")) if one.is_dir() else [one]
    lost = [one for one in found if not one.is_file()]
    if lost or not found:
        raise MissingKey(f"no file {listed(lost or paths)}; pass .parquet or .arrow files, or a folder of them.")
    return found


def _batches(files: Sequence[Path]) -> Iterator[dict[str, np.ndarray]]:
    """Columns of some rows after the other, as arrays."""
    for file in files:
        for batch in _opened(file):
            lost = [name for name in NEEDED if name not in batch.schema.names]
            if lost:
                raise MissingKey(f"'{file}' has no column {listed(lost)}; it has {listed(batch.schema.names, 12)}.")
            yield {name: _column(batch.column(name)) for name in batch.schema.names}


def _opened(file: Path) -> Iterator[RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if file.suffix == ".parquet":
            yield from pq.ParquetFile(file).iter_batches(AT_ONCE)
            return
        with pa.memory_map(str(file)) as source:
            for batch in pa.ipc.open_stream(source):
                yield from (batch.slice(start, AT_ONCE) for start in range(0, len(batch), AT_ONCE))
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"'{file}' cannot be read: {error}. Copy or download it again.") from error


def _column(column) -> np.ndarray:
    values = np.empty(len(column), dtype=object)
    values[:] = column.to_pylist()
    return values


def _middle(picture, crop_px: int, size_px: int) -> np.ndarray:
    """`(3, S, S)` of the middle of an encoded picture; of one that is smaller than the middle, all of it."""
    from PIL import Image

    raw = picture.get("bytes") if isinstance(picture, dict) else picture
    try:
        with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG", "TIFF")) as image:
            if max(image.size) > MOST_SIDE:
                raise BadInput(f"a picture has {image.size} pixels; at most {MOST_SIDE} a side are read.")
            side = min(crop_px, *image.size)
            left, top = ((length - side) // 2 for length in image.size)
            image = image.convert("RGB").crop((left, top, left + side, top + side))
            image = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    except (OSError, TypeError, Image.DecompressionBombError) as error:
        raise BadInput(
            f"a picture cannot be read ({error}); expected PNG, JPEG or TIFF in the column image."
        ) from error
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _counts(column: np.ndarray, kept: np.ndarray, genes: Sequence[str]) -> np.ndarray:
    rows = [np.asarray(column[row], dtype=np.float64).ravel() for row in kept]
    wrong = next((len(row) for row in rows if len(row) != len(genes)), None)
    if wrong is not None:
        raise BadInput(f"gexp has {wrong} values and there are {len(genes)} genes; pass the genes of this panel.")
    return np.stack(rows)


def _places(batch: dict[str, np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Places in the units of the file, where it has them: good for what is near, not for µm."""
    if "cell_coords" not in batch:
        return np.full((len(kept), 2), np.nan)
    return np.stack([np.asarray(batch["cell_coords"][row], dtype=float).ravel()[:2] for row in kept])
