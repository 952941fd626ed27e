"""Chunks of a lazy image, decoded one by one.

Where a dask array is nothing but a zarr array, its chunks are read from zarr without the scheduler; where zarr would
only open a file and call zstd, so do we. Anything else is computed block by block.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import dask.array as da
import numpy as np
import zarr
from numcodecs import Zstd, zstd
from zarr.storage import LocalStore

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    from sq_imputer.pixels.plan import Step
    from sq_imputer.pixels.pyramid import Pyramid

Tile = tuple[int, int]  # position in the grid, (y, x)
Pixels = tuple[int, int, np.ndarray]  # y and x of the corner in the level, uint8 (3, h, w)
Held = dict[Tile, Pixels]
MOST_BYTES = 2 << 30  # in one chunk: more is a mistake, or malice


class BadChunk(BadInput):
    """A chunk that cannot be used: the message, and the tile that it belongs to."""

    def __str__(self) -> str:
        """The message alone."""
        return self.args[0]


def backing(array: da.Array) -> zarr.Array | None:
    """The zarr array that a dask array reads from, if it is exactly that array: no slice, no cast, no arithmetic.

    The test is that dask would build the same graph from the zarr array alone.
    """
    graph = array.__dask_graph__()
    source = f"original-{array.name}"
    if set(graph.layers) != {array.name, source}:
        return None
    found = graph.layers[source].get(source)
    if not isinstance(found, zarr.Array) or (found.shape, found.dtype) != (array.shape, array.dtype):
        return None
    plain = da.from_array(found, chunks=array.chunks, name=array.name).__dask_graph__()
    # one function serves every block, so the two corners speak for all
    corners = [(array.name, 0, 0, 0), (array.name, *(n - 1 for n in array.numblocks))]
    same = dict(graph.cull(corners)) == dict(plain.cull(corners))
    return found if same else None


class DaskBlocks:
    """Blocks of any dask array, computed in the calling thread."""

    def __init__(self, array: da.Array) -> None:
        self.array = array
        self.edges = tuple(np.cumsum((0, *sizes)) for sizes in array.chunks)
        self.name = f"the dask array {array.name}"
        self.chunk_bytes = math.prod(array.chunksize) * array.dtype.itemsize

    def read(self, chunk: tuple[int, int, int]) -> np.ndarray:
        """Compute one block."""
        key = (self.array.name, *chunk)
        # what compute() does, less the optimization of the graph, which takes longer than most blocks
        return np.asarray(dask.get(self.array.dask.cull([key]), key))


class ZarrChunks:
    """Chunks of a zarr array through zarr itself: any codec, any store; of a sharded array, the inner chunks."""

    def __init__(self, array: zarr.Array) -> None:
        self.array = array
        self.edges = tuple(
            np.append(np.arange(0, n, size), n) for n, size in zip(array.shape, array.chunks, strict=True)
        )
        self.name = str(array.store_path)
        self.chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize

    def extent(self, chunk: tuple[int, int, int]) -> tuple[slice, ...]:
        """Where the chunk lies in the array."""
        return tuple(slice(int(e[i]), int(e[i + 1])) for e, i in zip(self.edges, chunk, strict=True))

    def read(self, chunk: tuple[int, int, int]) -> np.ndarray:
        """Decode one chunk."""
        return np.asarray(self.array[self.extent(chunk)])


class ZstdFiles(ZarrChunks):
    """Chunks that are plain zstd files in a folder, decoded without going through zarr (1.2 times faster)."""

    @staticmethod
    def fits(array: zarr.Array) -> bool:
        """Whether a chunk of this array is one file that holds its bytes, in C order, compressed by zstd."""
        if type(array.store) is not LocalStore or array.shards is not None:
            return False
        meta = array.metadata
        if meta.zarr_format == 2:
            plain = isinstance(meta.compressor, Zstd) and not meta.filters and meta.order == "C"
            return plain and array.dtype.byteorder != ">"
        codecs = [codec.to_dict() for codec in meta.codecs]
        if [codec["name"] for codec in codecs] != ["bytes", "zstd"]:
            return False
        return codecs[0].get("configuration", {}).get("endian", "little") == "little"

    def read(self, chunk: tuple[int, int, int]) -> np.ndarray:
        """Decode one file; a missing one holds the fill value."""
        array = self.array
        shape = tuple(edge.stop - edge.start for edge in self.extent(chunk))
        path = Path(array.store.root, array.path, array.metadata.encode_chunk_key(chunk))
        try:
            packed = path.read_bytes()
        except FileNotFoundError:
            return np.full(shape, array.fill_value, array.dtype)
        size = zstd_size(packed)
        if size is None:
            return super().read(chunk)
        if size != self.chunk_bytes:  # before memory is taken for whatever the file declares
            raise ValueError(f"it holds {size} bytes; {self.chunk_bytes} are expected")
        block = np.frombuffer(zstd.decompress(packed), array.dtype).reshape(array.chunks)
        return block[tuple(slice(size) for size in shape)]


def zstd_size(packed: bytes) -> int | None:
    """Bytes that a zstd frame says it holds (RFC 8878); None if it does not say, or is no such frame."""
    if packed[:4] != b"\x28\xb5\x2f\xfd" or len(packed) < 6:
        return None
    single, flag = packed[4] >> 5 & 1, packed[4] >> 6
    start = 5 + (not single) + (0, 1, 2, 4)[packed[4] & 3]
    size = (single, 2, 4, 8)[flag]
    field = packed[start : start + size]
    return int.from_bytes(field, "little") + 256 * (size == 2) if size and len(field) == size else None


def source(array: da.Array) -> DaskBlocks | ZarrChunks:
    """The fastest exact way to read the chunks of a dask array."""
    found = backing(array)
    if found is None:
        return DaskBlocks(array)
    return ZstdFiles(found) if ZstdFiles.fits(found) else ZarrChunks(found)


def to_rgb(block: np.ndarray, channels: tuple[int, int, int] = (0, 1, 2), alpha: int | None = None) -> np.ndarray:
    """Channels of a `(c, y, x)` block as uint8 `(3, y, x)`, composited over white where there is an alpha channel.

    Raises
    ------
    BadInput
        If a float block leaves [0, 1], or has values that are NaN or infinite.
    """
    rgb = block[:3] if channels == (0, 1, 2) else block[list(channels)]
    if block.dtype == np.uint8:
        if alpha is None:
            return rgb
        opacity = block[alpha].astype(np.uint16)  # 255 * 255 + 127 still fits
        return ((rgb * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    _check_floats(rgb if alpha is None else block[[*channels, alpha]])
    if alpha is not None:
        rgb = rgb * block[alpha] + (1 - block[alpha])
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _check_floats(values: np.ndarray) -> None:
    low, high = values.min(), values.max()
    if low >= -1e-3 and high <= 1.001:  # NaN is neither
        return
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise BadInput(
            f"{bad} of {values.size} values of a float image are NaN or infinite; [0, 1] is expected. Fill them, with "
            "1 where there is glass."
        )
    raise BadInput(
        f"float image with values from {low:.4g} to {high:.4g}; [0, 1] is expected. Divide it by its white (255?), or "
        "store it as uint8."
    )


class Tiles:
    """Grid of the chunks of one pyramid level; a tile is all chunks at one `(y, x)` that hold a channel in use.

    Parameters
    ----------
    pyramid
        The image.
    level
        The level to read.
    """

    def __init__(self, pyramid: Pyramid, level: int) -> None:
        self.source = source(pyramid.levels[level])
        self.name = f"{pyramid.name}, level {level} ({self.source.name})"
        if self.source.chunk_bytes > MOST_BYTES:
            raise BadInput(
                f"one chunk of {self.name} takes {self.source.chunk_bytes / 2**30:,.1f} GB; at most "
                f"{MOST_BYTES / 2**30:g} GB are decoded at a time. Store it in smaller chunks, such as 1024 x 1024 px."
            )
        self.edges = self.source.edges[1:]
        self.shape = tuple(len(edge) - 1 for edge in self.edges)
        self.extent = tuple(int(edge[-1]) for edge in self.edges)
        self.decodes = 0
        self.nbytes = 3 * int(np.prod([np.diff(edge).max() for edge in self.edges]))
        used = np.unique([*pyramid.channels, *(() if pyramid.alpha is None else (pyramid.alpha,))])
        where = np.searchsorted(self.source.edges[0], used, side="right") - 1
        self._planes = {}  # chunk along c: the planes to keep of it
        kept = []
        for chunk in np.unique(where):
            first, mine = self.source.edges[0][chunk], used[where == chunk]
            self._planes[int(chunk)] = slice(int(mine[0] - first), int(mine[-1] - first) + 1)
            kept.extend(range(int(mine[0]), int(mine[-1]) + 1))
        self._channels = tuple(kept.index(channel) for channel in pyramid.channels)
        self._alpha = None if pyramid.alpha is None else kept.index(pyramid.alpha)
        self.chunks_per_tile = len(self._planes)

    def read(self, tiles: list[Tile]) -> Held:
        """Decode tiles: for each, the position `(y, x)` of its corner in the level and its uint8 `(3, h, w)` pixels.

        Raises
        ------
        BadChunk
            Naming the chunk that could not be read, with the error of the codec as its cause.
        """
        return {(i, j): (int(self.edges[0][i]), int(self.edges[1][j]), self._read(i, j)) for i, j in tiles}

    def _read(self, i: int, j: int) -> np.ndarray:
        chunk = None
        try:
            parts = []
            for c, planes in self._planes.items():
                chunk = (c, i, j)
                parts.append(self.source.read(chunk)[planes])
            block = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return to_rgb(block, self._channels, self._alpha)
        except BadInput as error:
            raise BadChunk(f"chunk {chunk} of {self.name}: {error}", (i, j)) from error
        except Exception as error:
            said = f"{str(error) or type(error).__name__}. {self._fix(error)}"
            raise BadChunk(f"chunk {chunk} of {self.name} cannot be read: {said}", (i, j)) from error

    def _fix(self, error: Exception) -> str:
        if isinstance(error, MemoryError):
            return "Free some memory."
        if isinstance(self.source, DaskBlocks):
            return "Look at how this array is computed, and at the files behind it."
        if getattr(error, "errno", None):  # the system could not read it; a codec has no such number
            return "Check the disk and the permissions."
        return "The file is damaged: copy it again."

    def walk(self, steps: Iterable[Step], threads: int) -> Iterator[tuple[Step, Held, ThreadPoolExecutor]]:
        """Go through steps while threads decode what comes next; yields each step with the tiles that its rows need."""
        steps = list(steps)
        runs = ([divmod(tile, self.shape[1]) for tile in run] for step in steps for run in step.runs)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="sq_imputer-chunks")
        held, pending = {}, deque()
        try:
            for step in steps:
                for run in step.runs:
                    while len(pending) <= threads and (todo := next(runs, None)):
                        pending.append(pool.submit(self.read, todo))
                    held |= pending.popleft().result()
                    self.decodes += len(run) * self.chunks_per_tile
                yield step, held, pool
                for tile, y in step.trim:
                    _trim(held, divmod(tile, self.shape[1]), y)
                for tile in step.drop:
                    del held[divmod(tile, self.shape[1])]
        finally:
            pool.shutdown(cancel_futures=True)


def _trim(held: Held, key: Tile, y: int) -> None:
    """Keep a tile's pixels from row `y` of the level on, if that frees half of it or more."""
    top, left, pixels = held[key]
    if 2 * (y - top) >= pixels.shape[1]:
        held[key] = (y, left, pixels[:, y - top :].copy())
