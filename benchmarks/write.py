"""Time of SpatialData writing a whole table against one streamed layer, on the same store.

python benchmarks/write.py --rows 5000 --genes 2000 --repeats 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np


def clock(call) -> tuple[float, float]:
    """(wall, CPU) seconds of a call, all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def make(rows: int, genes: int, folder: Path):
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel

    from sq_imputer.store.write import new_table

    rng = np.random.default_rng(0)
    x = rng.gamma(1, size=(rows, genes)).astype("float32")
    names, panel = [f"s{i}" for i in range(rows)], [f"g{i}" for i in range(genes)]
    table = new_table(x, names, panel, region="spots", instance_key="spot_id", instances=np.arange(rows))
    shapes = ShapesModel.parse(rng.uniform(0, 1e4, (rows, 2)), geometry=0, radius=50.0)
    sdata = SpatialData(shapes={"spots": shapes}, tables={"imputed": table})
    sdata.write(folder / "section.zarr")
    return sdata, table, x


def main(argv: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)

    from sq_imputer.store.write import stream_layer

    times: dict[str, list] = {"whole table": [], "streamed layer": []}
    with tempfile.TemporaryDirectory() as folder:
        sdata, table, x = make(args.rows, args.genes, Path(folder))
        for repeat in range(args.repeats + 1):  # the first round warms imports and caches and is not counted
            sdata.tables[f"whole{repeat}"] = table.copy()
            pieces = ((slice(i, i + args.batch), x[i : i + args.batch]) for i in range(0, args.rows, args.batch))
            rounds = {
                "whole table": clock(lambda name=f"whole{repeat}": sdata.write_element(name)),
                "streamed layer": clock(lambda name=f"s{repeat}", p=pieces: stream_layer(sdata, "imputed", name, p)),
            }
            sdata.delete_element_from_disk(f"whole{repeat}")
            del sdata.tables[f"whole{repeat}"]
            for name in rounds if repeat else ():
                times[name].append(rounds[name])
    median = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    for name, (wall, cpu) in median.items():
        print(f"{name:15s} wall {wall:.3f} s  CPU {cpu:.3f} s")
    (wall, cpu) = (b / a for a, b in zip(*median.values(), strict=True))
    print(f"ratio           wall {wall:.2f}    CPU {cpu:.2f}   (streamed layer / whole table; goal <= 0.60)")
    return cpu


if __name__ == "__main__":
    main()
