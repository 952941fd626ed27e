"""The crop engine: squares of tissue around centers, read in the order of the image's chunks.

A crop at a time costs the decoding of one to four chunks; in chunk order every chunk is decoded once for all the crops
that touch it. Threads decode the next chunks while the current ones are cut.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from sq_imputer.errors import BadInput, SqImputerError, listed
from sq_imputer.pixels.chunks import BadChunk, Held, Tiles
from sq_imputer.pixels.plan import Step, Touched, Windows, in_groups, in_order, place
from sq_imputer.pixels.resample import resize, shift, turn

if TYPE_CHECKING:
    from sq_imputer.contract import CropSpec
    from sq_imputer.pixels.pyramid import Pyramid

WHITE = 255  # as scanners fill outside the glass
DASK_ROWS = 1024  # most crops in one block of `to_dask`


class Crops:
    """Crops around centers, all of one shape. Starts no thread until iterated or indexed.

    Until then it reads nothing but, where the sizes of the levels do not settle where these lie, a few places of two
    levels, once per image.

    Every crop is `(3, size_px, size_px)` uint8, white outside the image. It is cut from the coarsest pyramid level that
    is not coarser than the crop: pixel for pixel where the resolutions agree and the axes are those of the image (or
    turned by 90 degrees, or flipped), resampled with antialiasing otherwise. A crop depends on its center alone, not on
    the chunks, the batch, the order or the threads.

    Parameters
    ----------
    pyramid
        The image.
    centers_px
        `(n, 2)` centers `(x, y)` in pixels of the finest level; pixel `i` covers `[i, i + 1)`.
    spec
        Extent on the tissue and size of the tensor.
    mpp
        µm per pixel of the finest level.
    axes
        `(2, 2)` orthonormal; columns are the crop's x (right) and y (down) directions in the image. None: the image's.
    threads
        Threads that decode and resample.
    names
        What messages call the rows; their numbers if left out.

    Raises
    ------
    BadInput
        If centers are not finite, `mpp` is not positive, `axes` are not orthonormal, or a chunk of the image declares
        more than 2 GB. While reading: if a chunk is damaged or its values are no colors, with the rows that need it.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        centers_px: np.ndarray,
        spec: CropSpec,
        *,
        mpp: float,
        axes: np.ndarray | None = None,
        threads: int = 2,
        names: np.ndarray | None = None,
    ) -> None:
        centers = np.asarray(centers_px, dtype=np.float64)
        axes = np.eye(2) if axes is None else np.asarray(axes, dtype=np.float64)
        _check(centers, mpp, axes, threads)
        self._set(pyramid, place(pyramid, centers, spec, mpp, axes), spec.size_px, threads, names)
        self.spec = spec

    @classmethod
    def on_grid(
        cls, pyramid: Pyramid, windows: Windows, size_px: int, threads: int = 2, names: np.ndarray | None = None
    ) -> Crops:
        """Crops of `size_px` whose windows are placed already (`sq_imputer.pixels.dense`)."""
        crops = cls.__new__(cls)
        crops._set(pyramid, windows, size_px, threads, names)
        return crops

    def _set(self, pyramid: Pyramid, windows: Windows, size_px: int, threads: int, names: np.ndarray | None) -> None:
        self.pyramid, self.size_px, self.threads, self.names = pyramid, size_px, threads, names
        self._windows = windows
        self._tiles = Tiles(pyramid, self.level)
        self._touched = Touched.by(windows.start, windows.side, self._tiles.edges)

    def __len__(self) -> int:
        return len(self._windows.start)

    def __repr__(self) -> str:
        size = self.size_px
        return f"Crops of {len(self)} × (3, {size}, {size}) uint8 from level {self.level}, {self.n_chunks} chunks"

    @property
    def level(self) -> int:
        """Pyramid level that is read."""
        return self._windows.level

    @property
    def inside(self) -> np.ndarray:
        """`(n,)` whether a crop lies within the image, with what is read around it for resampling."""
        start, side = self._windows.start, self._windows.side
        return ((start >= 0) & (start + side <= self._tiles.extent)).all(axis=1)

    @property
    def decodes(self) -> int:
        """Chunks decoded so far by this object."""
        return self._tiles.decodes

    @property
    def n_chunks(self) -> int:
        """Chunks that hold pixels of at least one crop: what one pass decodes."""
        tiles = np.unique(self._touched.pairs(self._tiles.shape[1])[1])
        return len(tiles) * self._tiles.chunks_per_tile

    def __getitem__(self, key) -> np.ndarray:
        """The crop of a row `(3, S, S)`, or of a slice, an index array or a mask `(m, 3, S, S)`, in that order."""
        rows = np.arange(len(self))[key]
        out = self._empty(rows.size)
        at = rows.ravel()
        for step, held, pool in self._walk(self._in_order(at)):
            self._fill(at[step.rows], step.rows, held, out, pool)
        return out.reshape(*rows.shape, *out.shape[1:])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return self.batches()

    def batches(
        self, batch_size: int = 64, *, rows: np.ndarray | None = None, generator: np.random.Generator | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row numbers `(B,)` and crops `(B, 3, S, S)` in chunk order, the next two batches being read meanwhile.

        Every chunk is decoded once. With a generator, groups of chunks are shuffled, then the rows inside each; chunks
        at the rim of a group are then decoded by each group that reaches into them.

        Parameters
        ----------
        batch_size
            Rows in a batch; the last may be smaller.
        rows
            Row numbers or mask of the rows to read. None: all.
        generator
            Shuffles.
        """
        if batch_size < 1:
            raise BadInput(f"batch_size is {batch_size}; it must be 1 or more.")
        rows = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        steps = self._in_order(rows) if generator is None else self._in_groups(rows, generator)
        # drawn from the generator now, not in a thread
        return _ahead(self._batches(rows, list(steps), batch_size))

    def _batches(self, rows: np.ndarray, steps: list[Step], batch_size: int) -> Iterator:
        order = rows[np.concatenate([step.rows for step in steps])]
        done = 0
        for step, held, pool in self._walk(steps):
            stop = done + len(step.rows)
            while done < stop:
                slot = done % batch_size
                if slot == 0:
                    out = self._empty(min(batch_size, len(order) - done))
                n = min(stop - done, len(out) - slot)
                self._fill(order[done : done + n], np.arange(slot, slot + n), held, out, pool)
                done += n
                if slot + n == len(out):
                    yield order[done - len(out) : done], out

    def check(self) -> None:
        """Decode every chunk that a crop needs, once, and cut nothing: raises what reading the crops would."""
        for _ in self._walk(self._in_order(np.arange(len(self)))):
            pass

    def _walk(self, steps: Iterable[Step]) -> Iterator[tuple[Step, Held, ThreadPoolExecutor]]:
        """Steps through the tiles; an error says which rows need the tile."""
        try:
            yield from self._tiles.walk(steps, self.threads)
        except BadChunk as error:
            message, tile = error.args
            need = ((self._touched.first <= tile) & (tile <= self._touched.last)).all(axis=1)
            rows, every = self._called(np.flatnonzero(need)), self._called(np.arange(len(self)))
            raise BadInput(f"{message} {len(rows)} of {len(every)} rows need it: {listed(rows)}.") from error.__cause__

    def _called(self, rows: np.ndarray) -> dict:
        """What messages call these rows, each once: crops of one block have one name, a block of rows has several."""
        names = rows.tolist() if self.names is None else [self.names[row] for row in rows]
        if names and isinstance(names[0], np.ndarray):
            names = np.concatenate(names).tolist()
        return dict.fromkeys(names)

    def _empty(self, n: int) -> np.ndarray:
        return np.empty((n, 3, self.size_px, self.size_px), np.uint8)

    def _in_order(self, rows: np.ndarray) -> Iterator[Step]:
        return in_order(self._touched[rows], self._windows.start[rows], self._tiles.shape[1], self._tiles.nbytes)

    def _in_groups(self, rows: np.ndarray, generator: np.random.Generator | None = None) -> Iterator[Step]:
        return in_groups(self._touched[rows], self._tiles.shape[1], self._tiles.nbytes, generator)

    def _fill(self, rows: np.ndarray, slots: np.ndarray, held: Held, out: np.ndarray, pool: ThreadPoolExecutor) -> None:
        """Write the crops of these rows into these slots of `out`."""
        try:
            if self._windows.offset is None:
                self._cut(rows, slots, held, out)
                return
            parts = min(self.threads, max(1, len(rows)))
            jobs = zip(np.array_split(rows, parts), np.array_split(slots, parts), strict=True)
            for job in [pool.submit(self._resample, *job, held, out) for job in jobs]:
                job.result()
        except Exception as error:
            raise SqImputerError(
                f"{type(error).__name__} while cutting the crops of rows {listed(self._called(rows))} from "
                f"{self.pyramid.name}: {error}"
            ) from error

    def _cut(self, rows: np.ndarray, slots: np.ndarray, held: Held, out: np.ndarray) -> None:
        windows, touched, (high, wide) = self._windows, self._touched, self._tiles.extent
        side = windows.side
        places = (array[rows].tolist() for array in (windows.start, touched.first, touched.last))
        for slot, (y, x), (top, left), (bottom, right) in zip(slots.tolist(), *places, strict=True):
            view = windows.as_image(out[slot])
            if y < 0 or x < 0 or y + side > high or x + side > wide:
                view[...] = WHITE
            for i in range(top, bottom + 1):
                for j in range(left, right + 1):
                    tile_y, tile_x, tile = held[i, j]
                    y0, y1 = max(y, tile_y), min(y + side, tile_y + tile.shape[1])
                    x0, x1 = max(x, tile_x), min(x + side, tile_x + tile.shape[2])
                    pixels = tile[:, y0 - tile_y : y1 - tile_y, x0 - tile_x : x1 - tile_x]
                    view[:, y0 - y : y1 - y, x0 - x : x1 - x] = pixels

    def _resample(self, rows: np.ndarray, slots: np.ndarray, held: Held, out: np.ndarray) -> None:
        windows = self._windows
        window, moved = np.empty((1, 3, windows.side, windows.side), np.uint8), windows.keep_resolution(self.size_px)
        for row, slot in zip(rows, slots, strict=True):
            self._cut(np.array([row]), np.array([0]), held, window)
            if moved:
                shift(window[0], windows.offset[row], out[slot])
            elif windows.box is not None:
                resize(window[0], windows.offset[row], windows.box, out[slot])
            else:
                turn(window[0], windows.offset[row], windows.matrix, out[slot])

    def to_dask(self) -> da.Array:
        """Crops as a lazy `(n, 3, S, S)` uint8 array; row `k` is the crop of row `order[k]`.

        Rows are grouped by the chunks in which their windows begin; a group, or 1024 rows of it, is a block. Blocks
        know nothing of each other, so that any dask scheduler can spread them; each decodes its own chunks once.
        Reads nothing.
        """
        groups = self._dask_groups()
        sizes = tuple(map(len, groups)) or (0,)
        rows = da.from_array(self.order, chunks=(sizes,))
        worker = copy.copy(self)
        worker.threads = 1  # a cluster brings its own
        size = self.size_px
        return rows.map_blocks(
            _read_block,
            crops=worker,
            new_axis=(1, 2, 3),
            chunks=(sizes, 3, size, size),
            dtype=np.uint8,
            meta=np.empty((0, 0, 0, 0), np.uint8),
        )

    def __dask_tokenize__(self):
        return (
            self.pyramid.levels[self.level].name,
            self.pyramid.channels,
            self.pyramid.alpha,
            self.size_px,
            self._windows,
        )

    @property
    def order(self) -> np.ndarray:
        """`(n,)` row number of each row of `to_dask()`."""
        return np.concatenate([np.empty(0, np.int64), *self._dask_groups()])

    def _dask_groups(self) -> list[np.ndarray]:
        groups = (step.rows for step in self._in_groups(np.arange(len(self))))
        return [rows[k : k + DASK_ROWS] for rows in groups for k in range(0, len(rows), DASK_ROWS)]


def _read_block(rows: np.ndarray, crops: Crops) -> np.ndarray:
    return crops[rows]


def _ahead(batches: Iterator) -> Iterator:
    """The same items, two of them being made in a thread while the caller works on one."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="sq_imputer-batches")
    try:
        pending = deque(thread.submit(next, batches, None) for _ in range(2))
        while (batch := pending.popleft().result()) is not None:
            pending.append(thread.submit(next, batches, None))
            yield batch
    finally:
        # leaving the loop early comes here too: no thread outlives the iterator
        thread.shutdown(cancel_futures=True)
        with suppress(ValueError):  # Ctrl-C as a thread was started: the pool does not know it, and it is at work still
            batches.close()


def _check(centers: np.ndarray, mpp: float, axes: np.ndarray, threads: int) -> None:
    if centers.ndim != 2 or centers.shape[1] != 2:
        raise BadInput(f"centers_px has shape {centers.shape}; (n, 2) with x and y in pixels is expected.")
    bad = np.flatnonzero(~np.isfinite(centers).all(axis=1))
    if len(bad):
        raise BadInput(
            f"{len(bad)} of {len(centers)} centers are NaN or infinite, in rows {listed(bad)}. "
            "Drop these rows, or repair their coordinates."
        )
    if not (np.isfinite(mpp) and mpp > 0):
        raise BadInput(f"mpp is {mpp}; µm per pixel of the finest level must be positive.")
    if axes.shape != (2, 2) or not np.allclose(axes.T @ axes, np.eye(2), atol=1e-3):
        raise BadInput(
            f"axes are {axes.tolist()}; two orthogonal unit columns are expected. "
            "A transformation that shears or stretches the image has none: make it straight by pp.straighten first."
        )
    if threads < 1:
        raise BadInput(f"threads is {threads}; it must be 1 or more.")
