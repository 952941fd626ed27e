"""The HESCAPE protocol on her2st and MOB: retrieval beside chance, tuned and untuned, batch effects, planted leaks.

    python benchmarks/hescape.py OUT [--data FOLDER] [--only her2st ...] [--seeds 0 1 2] [--processes 1]
        [--json benchmarks/figures.json]

her2st: each of C2 to C5 is tested once by a fit on two others, the third ends the training (patient shared, marked);
then A1 and B4, of other patients, by a fit on C. MOB: one section trains, the other tests, both ways. CLIP with the
published network of expression; on other patients also SigLIP, and CLIP with principal components; of `texture`.
`vit` is the smallest vision transformer of timm, **with random weights**: it shows what frozen features and low-rank
tuning cost and change, not what a pretrained encoder is worth. Every table stands in the report of its folder. Settings
are the defaults, chosen on no section. A call that is repeated goes on where it was, also with more seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import sq_imputer as sqi
from sq_imputer import bench, report

SPEC = sqi.CropSpec(112.0, 224)
VIT = "timm:test_vit"
FOUR = ("C2", "C3", "C4", "C5")
# each of the four is tested once; the one before it ends the training
TURNS = [{"train": [FOUR[k - 2], FOUR[k - 3]], "val": [FOUR[k - 1]], "test": [FOUR[k]]} for k in range(4)]
MLP, SIGLIP, PCA = {"clip x mlp": {}}, {"siglip x mlp": {"loss": "siglip"}}, {"clip x pca": {"genes": "pca"}}
FEW = {"steps": 40, "batch_size": 32}
RUNS = {
    "her2st": {"split": TURNS, "contrasts": MLP},
    "her2st, other patients": {
        "split": {"train": ["C2", "C3", "C5"], "val": ["C4"], "test": ["A1", "B4"]},
        "contrasts": MLP | SIGLIP | PCA,
    },
    "mob": {
        "split": [{"train": ["MOB1"], "test": ["MOB2"]}, {"train": ["MOB2"], "test": ["MOB1"]}],
        "contrasts": MLP,
    },
    "vit, untrained": {
        "split": {"train": ["C2", "C3"], "val": ["C4"], "test": ["C5"]},
        "contrasts": {"frozen": FEW, "low rank": {**FEW, "finetune": "lora"}},
        "encoders": (VIT,),
        "size_px": 160,
    },
}
PARTS = ["leaks", "labels", *RUNS, "again"]
BLOCK = 5  # spots along a side of what stands for a slide in the probe of labels


def stores(data: Path | None, out: Path) -> dict[str, str]:
    """The sections as stores; those that are there are kept."""
    found, folder = {}, out / "stores"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"her2st": ("A1", "B4", *FOUR), "mob": None}
    for name, sections in wanted.items():
        root = None if data is None else data / name
        there = sorted(folder.glob(f"{name}-*.zarr"))
        if not there:
            more = {} if sections is None else {"sections": sections}
            for key, sdata in getattr(sqi.datasets, name)(root, **more).items():
                sqi.pp.embed(sdata, "texture", spec=SPEC, device="cpu")  # read by every run and process below
                sdata.write(folder / f"{name}-{key}.zarr")
            there = sorted(folder.glob(f"{name}-*.zarr"))
        found |= {path.stem.removeprefix(f"{name}-"): str(path) for path in there}
    return found


def random_weights(path: Path) -> str:
    """A file of weights that nobody has trained, the same every time."""
    import timm
    import torch
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model(VIT.removeprefix("timm:"), num_classes=0).state_dict(), path)
    return str(path)


def configured(name: str, paths: dict[str, str], out: Path, seeds: tuple[int, ...]) -> bench.BenchConfig:
    """The config of a run."""
    how = dict(RUNS[name])
    split = how["split"] if isinstance(how["split"], list) else [how["split"]]
    used = dict.fromkeys(key for one in split for part in one.values() for key in part)
    if VIT in how.get("encoders", ()):
        how["weights"] = {VIT: random_weights(out / "untrained.safetensors")}
    sections = {key: paths[key] for key in used}
    return bench.BenchConfig("hescape", sections, seeds=seeds, allow=("patient",), device="cpu", **how)


def leaks(paths: dict[str, str], out: Path) -> dict[str, str]:
    """What is said of a section under another name, of a patient, of crops and of genes on both sides."""
    one, other = (sqi.Slide.from_sdata(sqi.io.read_zarr(paths[key]), section=key) for key in ("MOB1", "MOB2"))
    apart, genes = replace(other, group="another mouse"), list(one.var_names)
    copy = {"MOB1": paths["MOB1"], "copy": paths["MOB1"]}
    split, two = {"train": ["MOB1"], "test": ["copy"]}, {"train": [one], "test": [apart]}
    planted = {
        "a section under another name": lambda: bench.run_config(
            bench.BenchConfig("hescape", copy, split=split, allow=("patient",)), out / "leak"
        ),
        "a patient": lambda: bench.audit({"train": [one], "test": [replace(other, group=one.group)]}, crops=False),
        "crops alone": lambda: bench.audit(
            {"train": [one], "test": [replace(one, section="copy", group="another mouse")]}, allow=["counts"]
        ),
        "a gene": lambda: bench.audit(two, genes={"train": genes[:10], "test": genes[9:19]}, crops=False),
    }
    found = {}
    for what, call in planted.items():
        try:
            call()
        except sqi.BadInput as error:
            found[what] = str(error)
    if set(found) != set(planted):
        raise SystemExit(f"leaks that were not found: {set(planted) - set(found)}")
    bench.audit(two, crops=True)  # and two sections that share nothing pass
    return found


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Recall of the first five, the probe, and batch effects: mean, interval over sections, range of the seeds."""
    kept = table[table["metric"].isin(["recall@5", "pearson", "pearson_given_depth"]) | (table["task"] == "batch")]
    by = ["task", "subject", "detail", "what"]
    kept = kept.assign(section=kept["case"]).rename(columns={"metric": "what"})
    found = bench.over_sections(kept, ["value"], by=by).drop(columns="metric")
    per = kept.groupby([*by, "seed", "section"], sort=False)["value"].mean().groupby([*by, "seed"], sort=False).mean()
    seeds = per.groupby(by, sort=False).agg(["min", "max"])
    chance = kept.groupby([*by, "section"], sort=False)["chance"].mean().groupby(by, sort=False).mean()
    return found.set_index(by).join(seeds).join(chance).reset_index()


def contradiction(table: pd.DataFrame) -> pd.DataFrame:
    """What a probe tells of expression after the contrast, less what it told before, paired by section and gene."""
    scores, rows = bench.scores_of(table, "expression"), []
    encoder = {name.split(" | ")[0] for name in scores["predictor"] if " | " in name}.pop()
    before = scores[scores["predictor"] == f"{encoder} | untuned"]
    for name in dict.fromkeys(scores["predictor"]):
        if name.startswith(f"{encoder} | ") and not name.endswith("untuned"):
            after = scores[scores["predictor"] == name]
            rows.append(bench.compare(after, before, metric="pearson_given_depth").assign(subject=name))
    return pd.concat(rows, ignore_index=True)


def repeats(name: str, paths: dict[str, str], out: Path, seed: int) -> bool:
    """Whether a second run of a seed into another folder has the same numbers to the bit."""
    again = bench.run_config(configured(name, paths, out, (seed,)), out / "again")
    first = pd.read_parquet(out / name / "results.parquet")
    mine = first[first["seed"] == seed].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, again, check_exact=True)
    return True


def labels(paths: dict[str, str]) -> pd.DataFrame:
    """The pathologist's labels of A1: whether blocks of spots are of invasive cancer throughout, by their features.

    There are three patients in her2st, and no label of whole slides that two patients of each kind have: blocks of one
    section stand for slides, columns of blocks for patients. It tests the probe, and says nothing of new patients.
    """
    sdata = sqi.io.read_zarr(paths["A1"])
    slide = sqi.Slide.from_sdata(sdata, section="A1", target="obs:label")
    known = slide.measured
    cancer = slide.labels[:, slide.target.names.index("invasive cancer")] > 0.5
    place = np.floor((slide.xy_um - slide.xy_um[known].min(axis=0)) / (200 * BLOCK)).astype(int)
    sides = {"texture": slide.features("texture", SPEC), "coordinates only": slide.xy_um}
    bags = {
        block: np.flatnonzero(known & (place == block).all(axis=1)) for block in map(tuple, np.unique(place, axis=0))
    }
    bags = {block: rows for block, rows in bags.items() if len(rows) >= 8}
    label = {block: "throughout" if cancer[rows].mean() >= 0.95 else "not" for block, rows in bags.items()}
    found = []
    for side, values in sides.items():
        for head in ("mean", "attention"):
            features = {block: np.asarray(values[rows]) for block, rows in bags.items()}
            one = bench.label_probe(features, label, group={block: str(block[0]) for block in bags}, head=head)
            found.append(one.assign(features=side, n_throughout=sum(v == "throughout" for v in label.values())))
    return pd.concat(found, ignore_index=True)


def figures(found: pd.DataFrame, paired: pd.DataFrame) -> dict[str, list]:
    """Mean, chance, interval over sections and range of the seeds; of differences interval and number of sections."""
    columns, key = ["mean", "chance", "low", "high", "min", "max"], ["subject", "detail", "what"]
    held = {", ".join(filter(None, r[key])): rounded(r[columns]) for _, r in found.iterrows()}
    columns = ["difference", "low", "high", "n_sections", "n_better"]
    return held | {f"{r['subject']}, less untuned": rounded(r[columns]) for _, r in paired.iterrows()}


def keep(path: Path | None, found: dict[str, dict]) -> None:
    """Put figures beside those that are in a file."""
    if path is None:
        return
    known = json.loads(path.read_text())
    for name, held in found.items():
        known[name] = known.get(name, {}) | held
    path.write_text(json.dumps(known, indent=1) + "\n")


def rounded(values) -> list[float | None]:
    return [None if value != value else round(float(value), 3) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    paths, start = stores(args.data, args.out), time.process_time()
    if "leaks" in args.only:
        for what, said in leaks(paths, args.out).items():
            print(f"planted, {what}: {said}", flush=True)
    if "labels" in args.only:
        told = labels(paths)
        print(told.round(3).to_string(index=False), flush=True)
        columns = ["auroc", "low", "high", "n_slides", "n_throughout"]
        found = {f"{r['features']}, {r['head']}": rounded(r[columns]) for _, r in told.iterrows()}
        keep(args.json, {"label_probe": found})
    for name in [name for name in args.only if name in RUNS]:
        folder = args.out / name.replace(", ", "_").replace(" ", "_")
        config = configured(name, paths, args.out, tuple(args.seeds))
        table = bench.run_config(config, folder, processes=args.processes)
        found, paired = means(table), contradiction(table)
        print(f"\n{name}: {report.bench(folder)}\n{found.round(3).to_string(index=False)}")
        print(paired.round(3).to_string(index=False))
        print(f"{time.process_time() - start:.0f} CPU-seconds in this process so far", flush=True)
        keep(args.json, {"hescape": {name: figures(found, paired)}})
    if "again" in args.only:
        same = repeats("mob", paths, args.out, args.seeds[0])
        print(f"a second run of mob in another folder has the same numbers to the bit: {same}")
    print(f"{time.process_time() - start:.0f} CPU-seconds in this process beside reading the data sets")


if __name__ == "__main__":
    main()
