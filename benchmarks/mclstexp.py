"""mclSTExp on real tissue: alignment of image and expression, accuracy, controls, ablations, and exact retrieval.

    python benchmarks/mclstexp.py [--data FOLDER] [--device cpu] [--keys 1000000]

her2st: sections C2 to C5 of one patient, each left out in turn (replicates of one tumor, not new patients), 250 genes
chosen on the others, log1p CP10k, texture features, the defaults. Recall: the share of held-out spots whose image finds
the spot's own expression among the ten nearest keys, of the section alone, and of the section and the whole bank.

Intervals are bootstrap intervals over the four sections, and for the control that is trained on shuffled spots over
sections and shuffles: what one shuffle teaches agrees or disagrees with the tissue by luck. "paper's loss" is that loss
(temperature 1, vectors of any length, positions of unit variance, batches across sections) on the same features,
otherwise the defaults; "paper's loss and training" has its optimizer settings and k too. "loss" is that of the training
rows after the fit, in batches of one section; guessing has ln B. Retrieval: random keys of width 256, against
scikit-learn in one run.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path

import frozen
import numpy as np
import pandas as pd
import torch
from accuracy import summary

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.genes.panel import choose_genes
from sq_imputer.models import mclstexp
from sq_imputer.nn.retrieval import nearest
from sq_imputer.section.slide import Slide

TOPS, NEIGHBORS = (50, 250), (1, 10, 50, 200)
LOSS = {"temperature": 1.0, "l2_normalize": False, "position_std": 1.0, "attention_context": "batch"}
TRAINING = {"dropout": 0.0, "lr": 1e-4, "weight_decay": 1e-3, "epochs": 90, "validation": 0.0, "k": 200}
FORMS = {
    "mclstexp": {},
    "sinusoid positions": {"position": "sinusoid"},
    "no positions": {"position": "none"},
    "paper's loss": LOSS,
    "paper's loss and training": LOSS | TRAINING,
}
SHUFFLED, SHUFFLES = "trained on shuffled spots", 8


def shuffled_images(slide: Slide, generator: np.random.Generator) -> Slide:
    """The section with the features of its spots in another order."""
    other, order = replace(slide, _features={}, _parent=None), generator.permutation(len(slide))
    for spec in mclstexp.Model().needs.views:
        other.remember("texture", spec, slide.features("texture", spec)[order], {})
    return other


def shuffled_spots(slide: Slide, generator: np.random.Generator) -> Slide:
    """The section with the expression of its measured spots in another order."""
    rows, expression = np.flatnonzero(slide.measured), slide.expression.copy()
    expression[rows] = expression[generator.permutation(rows)]
    return replace(slide, expression=expression)


def alignment(name: str, model: mclstexp.Model, test: Slide, device: str) -> dict:
    """Recall on a section left out, and the loss on the training sections."""
    own, pool = (model.recall(test, with_bank=bank, device=device) for bank in (False, True))
    found = {"fit": name, "section": test.section, "recall@10": own.share, "chance": own.chance}
    found |= {"ratio": own.share / own.chance, "with bank": pool.share, "of chance": pool.chance}
    history = {"loss": model.history["loss"], "ln B": model.history["chance"], "epochs": model.history["epochs"]}
    return found | {"bank ratio": pool.share / pool.chance} | history


def one_case(case: bench.Case, plan: sqi.Plan) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores per gene, and recall and loss per fit, of one section left out."""
    genes, generator = choose_genes(case.training, max(TOPS)), np.random.default_rng(plan.seed)
    training, test = [slide.with_genes(genes) for slide in case.training], case.test.with_genes(genes)
    truth, depth = test.expression[case.rows], test.depth[case.rows]

    def ask(model, section: Slide = test) -> np.ndarray:
        return model.predict(section, rows=case.rows, device=plan.device).mean.numpy()

    def scores(said: dict[str, np.ndarray]) -> pd.DataFrame:
        return bench.Outcome(case, tuple(genes), truth, test.genes, said, depth).table()

    said, aligned = {"ridge": ask(sqi.get_model("ridge")().fit(training, plan))}, []
    for name, changes in FORMS.items():
        model = mclstexp.Model(mclstexp.Config(**changes)).fit(training, plan)
        said[name] = ask(model)
        aligned.append(alignment(name, model, test, plan.device))
        if name == "mclstexp":
            said["shuffled images"] = ask(model, shuffled_images(test, generator))
            for k in NEIGHBORS:
                model.config = replace(model.config, k=k)
                said[f"k = {k}"] = ask(model)
    tables = [scores(said)]
    for number in range(SHUFFLES):
        model = mclstexp.Model().fit([shuffled_spots(slide, generator) for slide in training], plan)
        aligned.append(alignment(SHUFFLED, model, test, plan.device))
        tables.append(scores({SHUFFLED: ask(model)}).assign(case=f"{case.name}, shuffle {number}"))
    return pd.concat(tables), pd.DataFrame(aligned)


def ready(device: str) -> float:
    """Now, with the device idle."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: str) -> float:
    """Most memory held since the peak was last cleared, in MB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def clear_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def measured(call, queries: int, device: str) -> tuple[object, dict[str, float]]:
    """What a search finds, its queries per second (the better of two runs), and growth of memory in the first."""
    clear_peak(device)
    before, seconds = peak(device), []
    for _ in range(2):
        start = ready(device)
        found = call()
        seconds.append(ready(device) - start)
        if len(seconds) == 1:
            growth = peak(device) - before
    return found, {"queries/s": queries / min(seconds), "memory growth, MB": growth}


def retrieval(n_keys: int, device: str, *, n_queries: int = 1000, k: int = 50, width: int = 256) -> pd.DataFrame:
    """Exact search by cosine: ours, and scikit-learn's at a tenth of the keys."""
    from sklearn.neighbors import NearestNeighbors

    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(n_keys, width, generator=generator).to(device)
    queries = torch.randn(n_queries, width, generator=generator).to(device)
    few = keys[: n_keys // 10]
    nearest(queries[:8], few[:1000], k)  # first use of the device
    theirs = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(few.cpu().numpy())
    asked = queries.cpu().numpy()
    runs = {
        f"sq_imputer, {n_keys:,} keys": lambda: nearest(queries, keys, k)[0].cpu().numpy(),
        f"sq_imputer, {len(few):,} keys": lambda: nearest(queries, few, k)[0].cpu().numpy(),
        f"scikit-learn, {len(few):,} keys": lambda: theirs.kneighbors(asked, return_distance=False),
    }
    found, rows = {}, {}
    for name, call in runs.items():
        found[name], rows[name] = measured(call, n_queries, device if name.startswith("sq") else "cpu")
    ours, sklearn = list(found.values())[1:]
    print(f"same neighbors as scikit-learn: {(np.sort(ours) == np.sort(sklearn)).mean():.2%}")
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st, or frozen; or SQ_IMPUTER_DATA")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", message="the loss of mclstexp")  # of the controls; the table has the losses
    plan, start = sqi.Plan(device=args.device, progress=False), time.monotonic()
    cases = bench.leave_one_out(frozen.read("her2st", args.data), share_patient=True)
    tables, aligned = zip(*(one_case(case, plan) for case in cases), strict=True)
    aligned = pd.concat(aligned)
    numbers = aligned.columns.drop(["fit", "section"])
    print(f"her2st, leave one section out, same patient; {args.device}; {time.monotonic() - start:.0f} s")
    print("\nper section, the defaults")
    print(aligned[aligned["fit"] == "mclstexp"].drop(columns="fit").round(3).to_string(index=False))
    print("\nmean over sections")
    print(aligned.groupby("fit", sort=False)[list(numbers)].mean().round(3).to_string())
    print("\naccuracy")
    table = pd.concat(tables, ignore_index=True)
    print(summary(table, TOPS).drop(columns=[f"mse top-{top}" for top in TOPS]).to_string(), flush=True)
    print(f"\nretrieval of 50 neighbors for 1000 queries, width 256; {args.device}, {args.threads} threads")
    print(retrieval(args.keys, args.device).round(0).to_string())


if __name__ == "__main__":
    main()
