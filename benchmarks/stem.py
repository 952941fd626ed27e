"""Stem on a held-out section of real tissue: few steps against 1000, calibration, speed and how it grows.

    python benchmarks/stem.py [--data FOLDER] [--test C2] [--device cpu] [--spots 24] [--model FOLDER]

Fitted on the other sections of her2st C2 to C5 (replicates of one tumor), 250 genes chosen on them, log1p CP10k. The
few steps of the default sampler and 1000 ancestral ones run on the same weights, in one run. On a CPU the latter take
long: `--spots` says how many spots they are drawn for. On a GPU also: half against full precision, compiled against
eager, each for the default network and for the published size, and the share of the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import replace
from pathlib import Path

import frozen
import numpy as np
import pandas as pd
import torch
from scipy.stats import kurtosis

import sq_imputer as sqi
from sq_imputer.contract import Batch
from sq_imputer.genes.panel import choose_genes
from sq_imputer.models import stem
from sq_imputer.scores import metrics

N_GENES, LEVELS = 250, (0.5, 0.8, 0.95)


def timed(call, device: str) -> tuple[object, float]:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - start


def correlations(values: np.ndarray) -> np.ndarray:
    """Gene-gene correlations above the diagonal, of genes that vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(values.T)[np.triu_indices(values.shape[1], 1)]


def matrix_agreement(one: np.ndarray, other: np.ndarray) -> float:
    a, b = correlations(one), correlations(other)
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def standardized(drawn: np.ndarray) -> np.ndarray:
    """How far samples lie from the mean of their spot, in standard deviations of the gene."""
    gap = drawn - drawn.mean(axis=1, keepdims=True)
    return (gap / gap.std(axis=(0, 1))).ravel()


def few_against_many(model: stem.Model, test, rows: np.ndarray, device: str) -> pd.DataFrame:
    """Samplers of few steps and a second seed of DDPM, each against 1000 ancestral steps; spots per second of each."""

    def draw(**settings) -> tuple[np.ndarray, float]:
        sampler = model.sampling(keep_samples=20, n_samples=20, **settings)
        size = len(rows) if device == "cuda" else 16
        got, seconds = timed(lambda: sampler.predict(test, rows=rows, batch_size=size, device=device), device)
        return got.samples.numpy(), len(rows) / seconds

    ddpm = {"sampler": "ddpm", "n_steps": 1000, "mirrored": False}
    draw(sampler="dpm", n_steps=11)  # first use of the device
    many, rate = draw(**ddpm)
    runs = {
        "ddpm, 1000 steps": (many, rate),
        "ddpm, another seed": draw(**ddpm, sampling_seed=1),
        "sde-dpm, 20 steps": draw(n_steps=20, mirrored=False),
        "sde-dpm, 20 steps, mirrored (the default)": draw(n_steps=20),
        "sde-dpm, 15 steps, mirrored": draw(n_steps=15),
        "dpm, 20 steps, mirrored": draw(sampler="dpm", n_steps=20),
        "dpm, 11 steps, mirrored": draw(sampler="dpm", n_steps=11),
        "ddim, 100 steps": draw(sampler="ddim", n_steps=100, mirrored=False),
    }
    flat = many.reshape(-1, many.shape[2])
    table = {}
    for name, (drawn, speed) in runs.items():
        ratio = drawn.reshape(-1, many.shape[2]).var(axis=0) / flat.var(axis=0)
        table[name] = {
            "spots/s": speed,
            "times ddpm": speed / rate,
            "agreement of means": np.nanmean(metrics.pearson(many.mean(axis=1), drawn.mean(axis=1))),
            "variance ratio, median": np.median(ratio),
            "5 %": np.quantile(ratio, 0.05),
            "95 %": np.quantile(ratio, 0.95),
            "kurtosis": float(kurtosis(standardized(drawn))),
            "gene-gene r": matrix_agreement(flat, drawn.reshape(-1, many.shape[2])),
        }
    return pd.DataFrame(table).T


def calibration(model: stem.Model, training, test, rows: np.ndarray, device: str) -> pd.Series:
    """What 100 samples of every spot of the held-out section are worth, beside ridge."""
    size = 256 if device == "cuda" else 16
    got = model.sampling(n_samples=100, keep_samples=100).predict(test, rows=rows, batch_size=size, device=device)
    truth, drawn, mean = test.expression[rows], got.samples.numpy(), got.mean.numpy()
    single = drawn[:, 0]
    ridge = sqi.get_model("ridge")().fit(training).predict(test, rows=rows).mean.numpy()
    found = {}
    for level in LEVELS:
        low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=1)
        found[f"coverage of the {level:.0%} interval"] = ((truth >= low) & (truth <= high)).mean()
    top = slice(0, 50)
    found |= {
        "variance ratio of single samples (median gene)": np.nanmedian(single.var(axis=0) / truth.var(axis=0)),
        "variance ratio of the mean (median gene)": np.nanmedian(mean.var(axis=0) / truth.var(axis=0)),
        "RVD of single samples": np.nanmean(metrics.rvd(truth, single)),
        "RVD of the mean": np.nanmean(metrics.rvd(truth, mean)),
        "RVD of ridge": np.nanmean(metrics.rvd(truth, ridge)),
        "gene-gene agreement, single samples": metrics.genes_correlation_agreement(truth, single),
        "gene-gene agreement, mean": metrics.genes_correlation_agreement(truth, mean),
        "gene-gene agreement, ridge": metrics.genes_correlation_agreement(truth, ridge),
        "Pearson top-50, mean": np.nanmean(metrics.pearson(truth[:, top], mean[:, top])),
        "Pearson top-50, ridge": np.nanmean(metrics.pearson(truth[:, top], ridge[:, top])),
    }
    return pd.Series(found)


def untrained(config: stem.Config, genes: int, features: int, device: str) -> stem.Model:
    model = stem.Model(config)
    model.genes, model.sizes = tuple(f"G{i}" for i in range(genes)), {"features": features, "rows": 1}
    model._register_statistics()
    model.build()
    return model.to(device).eval()


def sampling_time(model: stem.Model, spots: int, device: str) -> float:
    """Seconds to draw for so many spots."""
    features = torch.randn(spots, model.sizes["features"])
    batch = Batch(torch.arange(spots), features=features, xy_um=torch.zeros(spots, 2)).to(device)
    with torch.inference_mode():
        model.sampling(n_steps=11, sampler="dpm").samples(batch)
        return min(timed(lambda: model.samples(batch), device)[1] for _ in range(2))


def growth(config: stem.Config, device: str) -> pd.Series:
    """How the time of sampling grows: each of genes, spots and samples four times as many."""
    genes, spots, samples = (64, 8, 8) if device == "cpu" else (128, 64, 16)
    base = replace(config, n_samples=samples, n_steps=11, sampler="dpm")
    start = sampling_time(untrained(base, genes, 64, device), spots, device)
    more = untrained(replace(base, n_samples=4 * samples), genes, 64, device)
    return pd.Series(
        {
            "seconds": start,
            "4 x genes": sampling_time(untrained(base, 4 * genes, 64, device), spots, device) / start,
            "4 x spots": sampling_time(untrained(base, genes, 64, device), 4 * spots, device) / start,
            "4 x samples": sampling_time(more, spots, device) / start,
        }
    )


def on_gpu(config: stem.Config) -> pd.DataFrame:
    """The network alone on a batch of sequences: precision, compilation, and the share of the card's bf16 rate."""
    from torch.utils.flop_counter import FlopCounterMode

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * 8192**3 / best(lambda: a @ b)
    rows = {}
    sizes = {"default": config, "published size": replace(config, width=384, depth=12, heads=6)}
    for name, setting in sizes.items():
        net = untrained(setting, 200, 1536, "cuda").net
        n = 4096 if name == "default" else 1024
        x, image = torch.randn(n, 200, device="cuda"), torch.randn(n, setting.width, device="cuda")
        t = torch.full((n,), 500, device="cuda")
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            net(x, t, image)
        for form in ("fp32", "bf16", "bf16, compiled"):
            run = copy.deepcopy(net)
            if "compiled" in form:
                run.compile()
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled="bf16" in form):
                seconds = best(lambda run=run, x=x, t=t, image=image: run(x, t, image))
            share = counter.get_total_flops() / seconds / rate
            rows[f"{name}, {form}"] = {"sequences/s": n / seconds, "share of bf16 rate": share}
    print(f"\n8192-cubed bf16 product: {rate / 1e12:.0f} TFLOP/s")
    return pd.DataFrame(rows).T


def best(call) -> float:
    for _ in range(3):
        call()
    return min(timed(call, "cuda")[1] for _ in range(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st, or frozen; or SQ_IMPUTER_DATA")
    parser.add_argument("--test", default="C2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--spots", type=int, default=None, help="spots that 1000 steps are drawn for; all on a GPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, default=None, help="folder of a fitted model; fitted and saved if absent")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    slides = frozen.read("her2st", args.data)
    test = next(slide for slide in slides if slide.section == args.test)
    training = [slide for slide in slides if slide is not test]
    genes = choose_genes(training, N_GENES)
    training, test = [slide.with_genes(genes) for slide in training], test.with_genes(genes)
    rows = np.flatnonzero(np.nan_to_num(test.depth) > 0)
    if args.model is not None and args.model.is_dir():
        model = sqi.load(args.model)
    else:
        plan = sqi.Plan(device=args.device)
        model, seconds = timed(lambda: stem.Model().fit(training, plan), args.device)
        print(f"fitted in {seconds:.0f} s on {sum(len(s) for s in training)} spots, {len(genes)} genes, {args.device}")
        if args.model is not None:
            model.save(args.model)
    few = rows[:: max(len(rows) // (args.spots or (len(rows) if args.device == "cuda" else 24)), 1)]
    print(f"\nfew steps against many, {len(few)} spots of {args.test}, 20 samples each")
    print(few_against_many(model, test, few, args.device).round(3).to_string())
    print(f"\ncalibration on {args.test}, {len(rows)} spots, 100 samples each")
    print(calibration(model, training, test, rows, args.device).round(3).to_string())
    print("\ngrowth of the time of sampling")
    print(growth(model.config, args.device).round(2).to_string())
    if args.device == "cuda":
        print(on_gpu(model.config).round(3).to_string())


if __name__ == "__main__":
    main()
