"""What other processes do in test_store.py: write into a store, be killed at a given point of it, or stopped."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import spatialdata
from spatialdata.models import Image2DModel, ShapesModel

from sq_imputer.store import commit as stores
from sq_imputer.store.write import new_table, put_layers, stream_layer, write_element

# what a server of forks imports once; after it, nothing has run that a fork could cut off
PRELOAD = ["spatialdata.models", "ome_zarr.reader", "ome_zarr.writer", "pyarrow.parquet", "distributed", "annsel"]
PRELOAD += ["sq_imputer.store.write", "sq_imputer.tl", "sq_imputer.models.ridge"]
N, G = 300, 20
NAMES = [f"s{i}" for i in range(N)]


def values(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1, size=(N, G)).astype("float32")


def table(seed: int):
    genes = [f"g{i}" for i in range(G)]
    return new_table(values(seed), NAMES, genes, region="spots", instance_key="spot_id", instances=np.arange(N))


def circles(seed: int):
    xy = np.random.default_rng(seed).uniform(0, 60, (N, 2))
    return ShapesModel.parse(xy, geometry=0, radius=2.0, index=pd.RangeIndex(N))


def image(seed: int):
    pixels = np.random.default_rng(seed).integers(0, 255, (3, 64, 64), dtype=np.uint8)
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=list("rgb"), scale_factors=[2])


def stored(store: Path, path: str) -> int | None:
    """Which version of an element is stored, as `number` says it, of a store of which other kinds are not read."""
    return number(spatialdata.read_zarr(store, selection=(path.partition("/")[0],)), path)


def number(sdata, path: str) -> int | None:
    """Which version of an element is stored, all of it; None if there is none."""
    kind, _, key = path.partition("/")
    if key not in getattr(sdata, kind):
        return None
    element = getattr(sdata, kind)[key]
    found = {
        "tables": lambda: np.asarray(element.X),
        "shapes": lambda: np.column_stack([element.geometry.x, element.geometry.y]),
        "images": lambda: element["scale0"]["image"].to_numpy(),
    }[kind]()
    made = {
        "tables": values,
        "shapes": lambda seed: np.column_stack([circles(seed).geometry.x, circles(seed).geometry.y]),
        "images": lambda seed: image(seed)["scale0"]["image"].to_numpy(),
    }[kind]
    return next(seed for seed in (1, 2, 3) if np.array_equal(found, made(seed)))


MAKE = {"tables": table, "shapes": circles, "images": image}


def put(sdata, path: str, seed: int) -> None:
    kind, _, key = path.partition("/")
    write_element(sdata, kind, key, MAKE[kind](seed), overwrite=True)


def add_layer(sdata, path: str, seed: int) -> None:
    """Another way to a new version of a table: only X and a layer are written."""
    put_layers(sdata, path.partition("/")[2], {"new": values(seed)}, x="new", obs=pd.DataFrame({"seed": seed}, NAMES))


def die(*_, **__) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_between_two_renames() -> None:
    rename = os.rename

    def once(source, target):
        rename(source, target)
        if "old" in Path(target).parts:
            die()

    stores.exchange = lambda one, other: False
    os.rename = once


POINTS = {
    "staging": lambda: setattr(stores, "flush", die),
    "before the swap": lambda: setattr(stores, "_put_in", die),
    "after the swap": lambda: setattr(stores, "_consolidate", die),
    "after consolidating": lambda: setattr(stores, "_remove", die),
    "between two renames": die_between_two_renames,
}


def write(store: str, path: str, how: str, point: str | None = None, ready=None) -> None:
    """Write version 2; with a `point`, be killed there; `ready` is told of begin and end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("ignore")
    sdata, do = spatialdata.read_zarr(store), {"put": put, "add": add_layer}[how]
    if point:
        POINTS[point]()
    try:
        if ready is not None:
            ready.send(time.monotonic())
        do(sdata, path, 2)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what comes now comes too late
    except KeyboardInterrupt:
        os._exit(7)
    if ready is not None:
        ready.send(time.monotonic())


def add_many(store: str, name: str, rounds: int, barrier) -> None:
    """Add layers to one table beside another process that does the same."""
    warnings.simplefilter("ignore")
    sdata = spatialdata.read_zarr(store)
    for i in range(rounds):
        barrier.wait()
        column = pd.DataFrame({f"{name}{i}": float(i)}, index=NAMES)
        put_layers(sdata, "table", {f"{name}{i}": values(i)}, obs=column, uns={"runs": {f"{name}{i}": i}})


def write_new(store: str, path: str, barrier) -> None:
    """Write the first element of a kind beside another process that does the same."""
    warnings.simplefilter("ignore")
    sdata = spatialdata.read_zarr(store)
    barrier.wait()
    put(sdata, path, 2)


def stream_slowly(store: str, started, go) -> None:
    """Stream a layer; wait in the middle of it."""
    warnings.simplefilter("ignore")

    def batches():
        yield slice(0, N // 2), values(2)[: N // 2]
        started.set()
        go.wait(60)
        yield slice(N // 2, N), values(2)[N // 2 :]

    stream_layer(spatialdata.read_zarr(store), "table", "slow", batches())


def hold(store: str, started, go) -> None:
    """Hold the lock of a store while writing to it."""
    warnings.simplefilter("ignore")
    sdata, put_in = spatialdata.read_zarr(store), stores._put_in

    def wait(*args):
        started.set()
        go.wait(60)
        put_in(*args)

    stores._put_in = wait
    put(sdata, "tables/table", 2)
