"""Features of many windows: described together against crop by crop, on one slide of real tissue, in one run.

    python benchmarks/dense.py [--data FOLDER] [--rows 10000 100000] [--per-mm2 5000] [--crops 60]
    python benchmarks/dense.py --rows 3000 --per-mm2 115 --json benchmarks/figures.json     # as spots of Visium lie

her2st C3 is repeated, mirrored at its seams, to a square that holds the rows at the given density, at .69 µm/px. The
three views of the default `ridge` (150, 400 and 800 µm in 224 px) are described with `texture`. Crop by crop, which
costs the same for every row, is timed on a few rows and takes the path of a turned section: `Crops`, then the encoder.
With `--json`, rows per CPU-second of every view are kept as those of spots.
Seconds are of the CPU, cutting and resampling included; the image is in memory. Memory is the most that the process
held above what it began with. Printed besides: how far rows are apart, in standard deviations of a feature, when each
has a block of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import dask.array as da
import numpy as np
import torch

import sq_imputer as sqi
from sq_imputer.contract import Views
from sq_imputer.encoders import get_encoder
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.dense import STRIDES, Dense
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.features import compute

CHUNK = 1024


def slide(data: Path | None, side: int) -> tuple[Pyramid, float]:
    """The tissue of C3 repeated to a square, in memory once; with three levels."""
    sdata = sqi.datasets.her2st(None if data is None else data / "her2st", sections=("C3",))["C3"]
    one = sqi.Slide.from_sdata(sdata)
    image = np.asarray(one.frame.pyramid.levels[0][:3])
    middle = image[:, 3000:5048, 3000:5048]
    pair = np.concatenate([middle, middle[:, :, ::-1]], axis=2)
    tile = np.concatenate([pair, pair[:, ::-1]], axis=1)
    times = -(-side // tile.shape[1])
    levels = []
    for factor in (1, 2, 4):
        parts = [tile[:, i::factor, j::factor].astype(np.uint16) for i in range(factor) for j in range(factor)]
        small = (sum(parts) // factor**2).astype(np.uint8)
        blocks = da.from_array(small, chunks=(3, CHUNK, CHUNK), name=False)
        levels.append(da.tile(blocks, (1, times, times)))
    return Pyramid(tuple(levels)), one.frame.pixel.mpp


def timed(work) -> tuple[np.ndarray, float]:
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--per-mm2", type=float, default=5000.0)
    parser.add_argument("--crops", type=int, default=60)
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = get_encoder("texture")
    views = Views().needs.views
    print(f"sq_imputer {sqi.__version__}, {args.per_mm2:g} rows per mm²")
    for n in sorted(args.rows):
        side = int(np.sqrt(n / args.per_mm2) * 1000 / 0.69)
        pyramid, mpp = slide(args.data, side)
        centers = np.random.default_rng(0).uniform(0, side, (n, 2))
        some = np.random.default_rng(1).choice(n, args.crops, replace=False)
        before, together, alone, worst = peak_mb(), 0.0, 0.0, 0.0
        shown = {}
        for spec in views:
            known = {"mpp": mpp, "block": encoder.block, "halo": encoder.halo}
            dense = Dense(pyramid, centers, spec, **known)
            values, seconds = timed(lambda dense=dense: compute(dense, encoder, device="cpu"))
            together += seconds
            crops = Crops(pyramid, centers[some], spec, mpp=mpp)
            seconds_alone = timed(lambda crops=crops: compute(crops, encoder, device="cpu"))[1]
            alone += seconds_alone
            shown[f"{spec.extent_um:g}"] = {"together": n / seconds, "crop by crop": args.crops / seconds_alone}
            single = Dense(pyramid, centers[some], spec, stride=STRIDES[0], **known)
            apart = np.abs(compute(single, encoder, device="cpu") - values[some]) / np.maximum(values.std(axis=0), 1e-3)
            worst = max(worst, float(apart.max()))
        rate, base = n / together, args.crops / alone
        print(
            f"{n:>9,} rows: {rate:8.0f} rows per CPU-second together, {base:6.1f} crop by crop, {rate / base:6.0f} x; "
            f"+{peak_mb() - before:.0f} MB; apart {worst:.1e} sd",
            flush=True,
        )
        if args.json is not None:
            shown["all"] = {"together": rate, "crop by crop": base}
            figures = json.loads(args.json.read_text())
            rates = {view: {way: round(rate, 1) for way, rate in row.items()} for view, row in shown.items()}
            figures["spots together"] = {"rows": n, "per mm2": args.per_mm2, **rates}
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
