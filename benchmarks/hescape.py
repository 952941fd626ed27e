"""The HESCAPE protocol on her2st and MOB: retrieval beside chance, tuned and untuned, batch effects, a planted leak.

    python benchmarks/hescape.py OUT [--data FOLDER] [--encoders texture] [--seeds 0 1 2] [--processes 1]
        [--json benchmarks/figures.json]

her2st: C2 and C3 train, C4 validates, C5 tests, and A1 and B4, of other patients, are a second test (protocol
`hescape`, patient shared within C and marked). MOB: one section trains, the other tests. For each, CLIP and SigLIP
with the published network of expression, and CLIP with principal components. Every table stands in the report of its
folder. Settings are the defaults, chosen on no section.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pandas as pd

import sq_imputer as sqi
from sq_imputer import bench, report

SPLITS = {
    "her2st": {"train": ["C2", "C3"], "val": ["C4"], "test": ["C5"]},
    "her2st, other patients": {"train": ["C2", "C3", "C5"], "val": ["C4"], "test": ["A1", "B4"]},
    "mob": {"train": ["MOB1"], "test": ["MOB2"]},
}
CONTRASTS = {
    "clip x mlp": {},
    "siglip x mlp": {"loss": "siglip"},
    "clip x pca": {"genes": "pca"},
}


def stores(data: Path | None, out: Path) -> dict[str, str]:
    """The sections as stores; those that are there are kept."""
    found, folder = {}, out / "stores"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"her2st": ("A1", "B4", "C2", "C3", "C4", "C5"), "mob": None}
    for name, sections in wanted.items():
        root = None if data is None else data / name
        there = sorted(folder.glob(f"{name}-*.zarr"))
        if not there:
            more = {} if sections is None else {"sections": sections}
            for key, sdata in getattr(sqi.datasets, name)(root, **more).items():
                sdata.write(folder / f"{name}-{key}.zarr")
            there = sorted(folder.glob(f"{name}-*.zarr"))
        found |= {path.stem.removeprefix(f"{name}-"): str(path) for path in there}
    return found


def leak(paths: dict[str, str]) -> str:
    """What the audit says of a section that is trained on and tested under another name."""
    config = bench.BenchConfig(
        "hescape",
        {"C2": paths["C2"], "copy": paths["C2"]},
        split={"train": ["C2"], "test": ["copy"]},
        allow=("patient",),
    )
    try:
        bench.run_config(config, Path(paths["C2"]).parent / "leak")
    except sqi.BadInput as error:
        return str(error)
    raise SystemExit("the planted leak was not found")


def means(results: pd.DataFrame) -> pd.DataFrame:
    """Recall of the first five with chance, and the probe given depth: mean over test sections, seeds and genes."""
    kept = results[results["metric"].isin(["recall@5", "pearson", "pearson_given_depth"])]
    kept = kept[kept["rank"].lt(50)]
    by = ["task", "subject", "detail", "metric"]
    return kept.groupby(by, sort=False)[["value", "chance"]].mean().reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--encoders", nargs="+", default=["texture"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    paths, found, start = stores(args.data, args.out), {}, time.process_time()
    print("planted leak refused:", leak(paths), "\n")
    for name, split in SPLITS.items():
        used = [key for part in split.values() for key in part]
        config = bench.BenchConfig(
            "hescape",
            {key: paths[key] for key in used},
            encoders=tuple(args.encoders),
            contrasts=CONTRASTS,
            split=split,
            seeds=tuple(args.seeds),
            allow=("patient",),
            device="cpu",
        )
        folder = args.out / name.replace(", ", "_").replace(" ", "_")
        table = bench.run_config(config, folder, processes=args.processes)
        found[name] = means(table)
        print(f"{name}\n{found[name].round(3).to_string(index=False)}\n{report.bench(folder)}\n")
        batch = table[table["task"] == "batch"].groupby(["subject", "metric"], sort=False)[["value", "chance"]].mean()
        print(batch.round(3).to_string(), "\n")
    print(f"{time.process_time() - start:.0f} CPU-seconds in this process")
    if args.json is not None:
        held = json.loads(args.json.read_text())
        held["hescape"] = {
            name: {
                f"{r.subject}, {r.detail or r.metric}, {r.metric}": [round(r.value, 3), round(r.chance, 3)]
                for r in table.itertuples()
            }
            for name, table in found.items()
        }
        args.json.write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    main()
