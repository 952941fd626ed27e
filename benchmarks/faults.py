"""What is left of a store after kills, a full disk, no permission and two writers: ours beside plain SpatialData.

    python benchmarks/faults.py
    python benchmarks/faults.py --quick

Every kill gets a fresh copy of a store and a process of its own, forked from one that has imported everything. A store
that fails to open in SpatialData's error mode is unreadable; an element that is neither of its two versions is partial;
one that was there and is not is lost; a name that neither writing, overwriting nor deleting and writing can use is
stuck. The disk of 30 MB is a tmpfs in a mount namespace of its own.
"""

from __future__ import annotations

import argparse
import collections
import functools
import hashlib
import itertools
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import resume

KINDS = {"table": "tables/t", "shapes": "shapes/s", "image": "images/i"}
ROWS, GENES, SIDE = 800, 300, 512
PRELOAD = [
    "spatialdata.models",
    "ome_zarr.reader",
    "ome_zarr.writer",
    "pyarrow.parquet",
    "distributed",
    "annsel",
    "sq_imputer.store.write",
]


def make(kind: str, seed: int, rows: int = ROWS, genes: int = GENES, side: int = SIDE):
    """Version `seed` of an element."""
    import pandas as pd
    from spatialdata.models import Image2DModel, ShapesModel

    from sq_imputer.store.write import new_table

    rng = np.random.default_rng(seed)
    if kind == "table":
        x = rng.random((rows, genes), dtype="float32")
        names, panel = [f"s{i}" for i in range(rows)], [f"g{i}" for i in range(genes)]
        return new_table(x, names, panel, region="spots", instance_key="spot_id", instances=np.arange(rows))
    if kind == "shapes":
        return ShapesModel.parse(rng.random((rows * 5, 2)), geometry=0, radius=1.0, index=pd.RangeIndex(rows * 5))
    pixels = rng.integers(0, 255, (3, side, side), dtype=np.uint8)
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=list("rgb"), scale_factors=[2], chunks=256)


def content(kind: str, element) -> str:
    parts = {
        "table": lambda: np.asarray(element.X),
        "shapes": lambda: np.column_stack([element.geometry.x, element.geometry.y]),
        "image": lambda: element["scale0"]["image"].to_numpy(),
    }
    return hashlib.sha256(np.ascontiguousarray(parts[kind]()).tobytes()).hexdigest()


@functools.cache
def version(kind: str, seed: int) -> str:
    return content(kind, make(kind, seed))


def put(sdata, kind: str, seed: int, way: str) -> None:
    """Write version `seed` in one of the ways that are compared."""
    from sq_imputer.store.write import put_layers, write_element

    group, _, key = KINDS[kind].partition("/")
    element = make(kind, seed)
    if way == "layer":
        put_layers(sdata, key, {"new": np.asarray(element.X)}, x="new")
    elif way == "ours":
        write_element(sdata, group, key, element, overwrite=True)
    else:
        getattr(sdata, group)[key] = element  # first: what is lazy cannot be deleted
        if way == "delete + write":
            sdata.delete_element_from_disk(key)
        sdata.write_element(key)


# Kills


def writer(store: str, kind: str, way: str, point: str | None, pipe) -> None:
    """The process that is killed."""
    import spatialdata

    quiet()
    sdata = spatialdata.read_zarr(store)
    make(kind, 2)
    if point:
        inject(point)
    pipe.send(time.monotonic())
    put(sdata, kind, 2, way)
    pipe.send(time.monotonic())


def inject(point: str) -> None:
    """Be killed at a point of a commit."""
    from sq_imputer.store import commit as store

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def renamed(source, target, rename=os.rename):
        rename(source, target)
        if "old" in Path(target).parts:
            die()

    if point == "between two renames":
        store.exchange, os.rename = lambda one, other: False, renamed
        return
    names = {"staging": "flush", "before the swap": "_put_in", "after the swap": "_consolidate"}
    setattr(store, names.get(point, "_remove"), die)


POINTS = ("staging", "before the swap", "after the swap", "after consolidating", "between two renames")


def quiet() -> None:
    warnings.simplefilter("ignore")
    import logging

    logging.disable(logging.WARNING)


def template(folder: Path, consolidated: bool) -> Path:
    from spatialdata import SpatialData

    store = folder / f"template_{consolidated}.zarr"
    made = {group: {} for group in ("tables", "shapes", "images")}
    for kind, path in KINDS.items():
        group, _, key = path.partition("/")
        made[group] = {key: make(kind, 1), f"other_{kind}": make(kind, 9)}
    made["shapes"]["spots"] = make("shapes", 5)
    SpatialData(**made).write(store, consolidate_metadata=consolidated)
    return store


def kill(context, store: Path, kind: str, way: str, after: float | None, point: str | None = None) -> float | None:
    """Kill a writer so many seconds after it began (None: never). How long it took, if it came to its end."""
    ours, theirs = context.Pipe()
    process = context.Process(target=writer, args=(str(store), kind, way, point, theirs))
    process.start()
    begin = ours.recv()
    if after is not None:
        time.sleep(after)
        process.kill()
    process.join()
    return ours.recv() - begin if ours.poll() else None


def verdict(store: Path, kind: str, way: str, hashes: dict[str, str], others: dict) -> tuple[str, bool]:
    """What the store holds, and whether the name can be written again."""
    import spatialdata

    group, _, key = KINDS[kind].partition("/")
    try:
        sdata = spatialdata.read_zarr(store)
        found = getattr(sdata, group).get(key)
        state = hashes.get(content(kind, found), "partial") if found is not None else "absent"
    except Exception:  # noqa: BLE001 the point is whether it opens
        return "unreadable", writable(store, kind, way)
    if files(store, KINDS[kind]) != others:
        state = "others changed"
    return state, writable(store, kind, way)


def writable(store: Path, kind: str, way: str) -> bool:
    import spatialdata

    group, _, key = KINDS[kind].partition("/")

    def plain(sdata, **how):
        getattr(sdata, group)[key] = make(kind, 3)
        sdata.write_element(key, **how)

    def deleted(sdata):
        getattr(sdata, group)[key] = make(kind, 3)
        sdata.delete_element_from_disk(key)
        sdata.write_element(key)

    ours = [lambda sdata: put(sdata, kind, 3, "ours")]
    tries = ours if way in ("ours", "layer") else [plain, lambda sdata: plain(sdata, overwrite=True), deleted]
    for attempt in tries:
        try:
            attempt(spatialdata.read_zarr(store))
            element = getattr(spatialdata.read_zarr(store), group)[key]
        except Exception:  # noqa: BLE001 the point is whether any of them works
            continue
        leftovers = [path.name for path in store.parent.iterdir() if path.name.startswith(f".{store.name}")]
        return content(kind, element) == version(kind, 3) and not (way in ("ours", "layer") and leftovers)
    return False


def files(store: Path, without: str) -> dict[str, str]:
    """Hash of every file of the other elements."""
    paths = {path.relative_to(store).as_posix(): path for path in store.glob("*/*/**/*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if not name.startswith(f"{without}/")
    }


def fresh(source: Path, folder: Path, kind: str, way: str) -> Path:
    """A copy of a store; without the element, if it is to be new."""
    store = folder / "section.zarr"
    for path in folder.glob("*section.zarr*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(source, store)
    if way == "write_element":
        shutil.rmtree(store / KINDS[kind])
        refresh(store)
    return store


def refresh(store: Path) -> None:
    """Renew the consolidated metadata, if there is any."""
    import zarr

    if "consolidated_metadata" in (store / "zarr.json").read_text():
        zarr.consolidate_metadata(zarr.storage.LocalStore(store))


def kills(context, folder: Path, templates: dict[bool, Path], ways: tuple[str, ...], each: int, title: str) -> dict:
    """Random kills over kinds and both kinds of stores; what was found, counted."""
    rng, total = np.random.default_rng(0), collections.Counter()
    print(f"\n{title}\n{'':27s} kills in time    old    new   lost partial unreadable stuck")
    for kind, (consolidated, source) in itertools.product(KINDS, templates.items()):
        count = collections.Counter()
        mine = [way for way in ways if way != "layer" or kind == "table"]
        hashes = {version(kind, 1): "old", version(kind, 2): "new"}
        times = {way: kill(context, fresh(source, folder, kind, way), kind, way, None) for way in mine}
        for i in range(each):
            way = mine[i % len(mine)]
            store = fresh(source, folder, kind, way)
            others = files(store, KINDS[kind])
            in_time = kill(context, store, kind, way, rng.uniform(0, 1.05) * times[way]) is None
            state, again = verdict(store, kind, way, hashes, others)
            if state == "absent":
                state = "old" if way == "write_element" else "lost"
            count.update({"kills": 1, state: 1, "stuck": not again, "in time": in_time})
        row(f"{kind}, {'' if consolidated else 'not '}consolidated", count)
        total += count
    row("all", total)
    return total


def row(name: str, count: dict) -> None:
    columns = ("kills", "in time", "old", "new", "lost", "partial", "unreadable", "stuck")
    widths = (6, 8, 7, 7, 7, 8, 11, 6)
    cells = "".join(f"{count.get(column, 0):{width}d}" for column, width in zip(columns, widths, strict=True))
    print(f"{name:27s}{cells}", f"   others changed: {count['others changed']}" if count.get("others changed") else "")


def points(context, folder: Path, templates: dict[bool, Path]) -> None:
    print("\nKilled at a point of the commit: what is there after recover() (table, table + layer, shapes, image)")
    import spatialdata

    from sq_imputer.store.commit import recover

    for point in POINTS:
        found = []
        for source, (kind, way) in itertools.product(
            templates.values(), [("table", "ours"), ("table", "layer"), ("shapes", "ours"), ("image", "ours")]
        ):
            store = fresh(source, folder, kind, way)
            others = files(store, KINDS[kind])
            kill(context, store, kind, way, None, point)
            spatialdata.read_zarr(store)  # opens before anything is recovered
            recover(store)
            hashes = {version(kind, 1): "old", version(kind, 2): "new"}
            state, again = verdict(store, kind, way, hashes, others)
            found.append(state if again else f"{state}, stuck")
        print(f"{point:27s}", dict(collections.Counter(found)))


# A full disk, and one that cannot be written


def on_small_disk(context, folder: Path) -> None:
    """Start this file again where a disk of 30 MB can be mounted."""
    options = ["-m"] if os.geteuid() == 0 else ["-Urm"]
    command = ["unshare", *options, sys.executable, __file__, "--small-disk", str(folder)]
    print("\nA disk of 30 MB, an element of 40 MB")
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        print("SKIPPED: there is no unshare(1)")
        return
    print(result.stdout.rstrip())
    if result.returncode:
        print("SKIPPED or failed:", result.stderr.strip().splitlines()[-1:])


def small_disk(folder: Path) -> None:
    quiet()
    disk = folder / "disk"
    disk.mkdir()
    for kind, way in itertools.product(KINDS, ("ours", "write_element")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(disk)], check=True)
        filled(disk, kind, way)
        subprocess.run(["umount", str(disk)], check=True)


def filled(disk: Path, kind: str, way: str) -> None:
    """Write more than there is room for; print what is left."""
    import spatialdata
    from spatialdata import SpatialData

    from sq_imputer.store.write import check_free, write_element

    store, group = disk / "section.zarr", KINDS[kind].partition("/")[0]
    SpatialData(shapes={"spots": make("shapes", 5)}, tables={"t": make("table", 1)}).write(store)
    sdata, before, held = spatialdata.read_zarr(store), shutil.disk_usage(disk).free, files(store, "none")
    big = make(kind, 2, rows=400_000 if kind == "shapes" else 4000, genes=2500, side=3700)

    def plain():
        getattr(sdata, group)["big"] = big
        sdata.write_element("big")

    call = plain if way == "write_element" else lambda: write_element(sdata, group, "big", big)
    message = refusal(call)
    kept = (before - shutil.disk_usage(disk).free) / 1e6
    same = "old files unchanged" if files(store, f"{group}/big") == held else "OLD FILES CHANGED"
    try:
        opens = "opens" if "big" not in getattr(spatialdata.read_zarr(store), group) else "opens, PARTIAL"
    except Exception as error:  # noqa: BLE001 the point is whether it opens
        opens = f"UNREADABLE ({type(error).__name__})"
    memory = "in memory" if "big" in getattr(sdata, group) else "NOT in memory"
    print(f"{kind:7s}{way:14s} {kept:6.1f} MB not given back, {same}, {opens}, result {memory}\n    {message[:230]}")
    if (kind, way) == ("table", "ours"):
        print("    asked before:", refusal(lambda: check_free(sdata, "tables", "more", nbytes=40_000_000))[:150])
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        print("    read-only:", refusal(lambda: check_free(sdata, "tables", "more"))[:150])


def refusal(call) -> str:
    try:
        call()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "NOT REFUSED"


def no_permission(source: Path) -> None:
    """Another user's store."""
    import spatialdata

    from sq_imputer.store.write import check_free

    print("\nNo permission, asked before anything is computed")
    if os.geteuid() != 0:
        print("SKIPPED: needs root, to become another user")
        return
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        sdata = spatialdata.read_zarr(shutil.copytree(source, Path(place) / "section.zarr"))
        os.seteuid(65534)
        try:
            print(refusal(lambda: check_free(sdata, "tables", "new"))[:200])
        finally:
            os.seteuid(0)


# Two writers


def one_of_two(store: str, name: str, way: str, barrier) -> None:
    import spatialdata

    from sq_imputer.store.write import put_layers, write_element

    quiet()
    sys.stderr = open(os.devnull, "w")  # how it fails is known; here it is counted
    sdata = spatialdata.read_zarr(store)
    element = make("table", ord(name), rows=200, genes=50)
    barrier.wait()
    if way == "new tables":
        write_element(sdata, "tables", name, element)
    elif way == "layers":
        put_layers(sdata, "t", {name: np.asarray(element.X)})
    else:
        sdata.tables[name] = element
        sdata.write_element(name)


def two_writers(context, folder: Path, rounds: int) -> None:
    import spatialdata
    from spatialdata import SpatialData

    print(f"\nTwo writers at once, {rounds} rounds of two writes")
    for way in ("layers", "new tables", "write_element"):
        failed = missing = 0
        for i in range(rounds):
            store = folder / f"two_{way.replace(' ', '_')}_{i}.zarr"
            tables = {"t": make("table", 1, rows=200, genes=50)} if way == "layers" else {}
            SpatialData(shapes={"spots": make("shapes", 5)}, tables=tables).write(store)
            barrier = context.Barrier(2)
            both = [context.Process(target=one_of_two, args=(str(store), name, way, barrier)) for name in "ab"]
            [process.start() for process in both]
            [process.join() for process in both]
            failed += sum(process.exitcode != 0 for process in both)
            tables = spatialdata.read_zarr(store).tables
            for name in "ab":
                x = np.asarray(make("table", ord(name), rows=200, genes=50).X)
                there = tables["t"].layers.get(name) if way == "layers" else getattr(tables.get(name), "X", None)
                missing += there is None or not np.array_equal(there, x)
            shutil.rmtree(store)
        title = {"layers": "ours, layers of one table", "new tables": "ours, the first tables"}
        print(f"{title.get(way, 'plain, the first tables'):27s} {failed} failed, {missing} missing or wrong")


# Overhead


def clock(call) -> tuple[float, float]:
    """(wall, CPU) seconds of a call, all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def overhead(folder: Path, kind: str, rounds: int, sizes: tuple[int, int, int]) -> None:
    """Time of a crash-safe commit against `write_element` of the same element into the same store."""
    import spatialdata
    from spatialdata import SpatialData

    store, group = folder / f"overhead_{kind}.zarr", KINDS[kind].partition("/")[0]
    element = make(kind, 1, *sizes)
    SpatialData(shapes={"spots": make("shapes", 5)}, tables={"t": make("table", 1, *sizes)}).write(store)
    sdata, times = spatialdata.read_zarr(store), collections.defaultdict(list)
    for i in range(rounds + 1):  # the first warms up
        calls = ways_to_write(sdata, group, element, i)
        for name in list(calls) if i % 2 else ["ours, new", "ours, replacing", *calls]:
            if name in calls:
                took = clock(calls.pop(name))
                times[name] += [took] if i else []
        for name in (f"plain{i}", f"ours{i}"):
            del sdata[name]
            shutil.rmtree(store / group / name)
        refresh(store)
    for name, measured in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*measured, strict=True))
        pairs = zip(measured, times["write_element"], strict=True)
        ratios = [[a / b for a, b in zip(ours, plain, strict=True)] for ours, plain in pairs]
        times_wall, times_cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"{kind:7s} {name:16s} wall {wall:6.3f} s ({times_wall:4.2f} x)  CPU {cpu:6.3f} s ({times_cpu:4.2f} x)")
    shutil.rmtree(store)


def ways_to_write(sdata, group: str, element, i: int) -> dict:
    from sq_imputer.store.write import put_layers, write_element

    getattr(sdata, group)[f"plain{i}"] = element
    ways = {
        "write_element": lambda: sdata.write_element(f"plain{i}"),
        "ours, new": lambda: write_element(sdata, group, f"ours{i}", element),
        "ours, replacing": lambda: write_element(sdata, group, f"ours{i}", element, overwrite=True),
    }
    if group == "tables":
        x = np.asarray(element.X)
        ways["ours, a layer"] = lambda: put_layers(sdata, "t", {"new": x})
    ways["delete + write"] = lambda: (sdata.delete_element_from_disk(f"plain{i}"), sdata.write_element(f"plain{i}"))
    return ways


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="of writes by sq_imputer")
    parser.add_argument("--plain-kills", type=int, default=60, help="of writes by SpatialData")
    parser.add_argument("--rounds", type=int, default=20, help="of two writers")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--small-disk", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.small_disk:
        small_disk(options.small_disk)
        return
    if options.quick:
        options.kills, options.plain_kills, options.rounds = 12, 12, 2
    quiet()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    begin = time.monotonic()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="sqi_faults") as temporary:
        folder = Path(temporary)
        work = folder / "work"
        work.mkdir()
        templates = {consolidated: template(folder, consolidated) for consolidated in (True, False)}
        kills(
            context,
            work,
            templates,
            ("ours", "layer"),
            options.kills // 6,
            "Random SIGKILLs, sq_imputer replacing an element",
        )
        for way in ("write_element", "delete + write"):
            title = {"write_element": "a new element", "delete + write": "replacing an element"}[way]
            kills(
                context,
                work,
                templates,
                (way,),
                options.plain_kills // 12,
                f"Random SIGKILLs, SpatialData's {way}, {title}",
            )
        points(context, work, templates)
        on_small_disk(context, work)
        no_permission(templates[True])
        two_writers(context, work, options.rounds)
        sizes, rounds = ((500, 200, 512), 2) if options.quick else ((5000, 2000, 4096), 7)
        print(f"\nOverhead against write_element: table {sizes[0]} x {sizes[1]}, image {sizes[2]}^2, {rounds} rounds")
        for kind in KINDS:
            overhead(work, kind, rounds, sizes)
        resume.resumed(context, folder, 3 if options.quick else 10)
    print(f"\n{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
