"""What `seq2exp` makes of DNA: a planted motif, promoters of yeast, its accessibility, known motifs, and what it costs.

    python benchmarks/sequence.py --parts motif mpra atac speed [--data FOLDER] [--json benchmarks/figures.json]
        [--seeds 0 1 2] [--pictures docs/_static]

`motif`: a motif of 9 bp is planted into windows of 160 bp of real yeast DNA (chromosome IV; tested on windows beyond
1.1 Mb, trained on those before 1.0 Mb) and raises expression where a track is high; as often it lies where the track is
low, and as often the track is high without it. Site AUROC: the highest mask within 8 bp, of active sites against
others. `signal only` is the Pearson of expression with the number of peaks, more than any reader of the track alone
has. `normed` is the published predictor, which brings every position to one size after it was masked.

`mpra`: 31,000 promoters of 110 bp (Vaishnav et al. 2022), whole families of origin left out. Beside a ridge on counts
of 1- to 5-mers and a convolutional network that is the same without masks.

`atac`: log(1 + cuts) of ATAC-seq in 50 bp of yeast, chromosomes left out. A window of 1,260 bp tells the 20 bins in
its middle; beside the same network without masks, a ridge on the 256 bp around a bin, and the share of G and C
there. `not leveled` reads a mask as it is, which is a tenth of every base.
Models learn of all bins, the ridge of 40,000; all are asked for the same 4,000. Then motifs: how often a base of a
known motif is among the tenth of the bases with the highest masks, over how often it is when the masks of every window
are rolled by a random number of bases; and over how often it is for words of the same letters in other orders, as what
is kept may follow composition alone.

`speed`: forward and backward of one window by one block of the scan, in a process of its own, at the published width
(128) and that of the defaults (32), against the recurrence step by step on a shorter sequence.

Seconds are of the processor, with one thread. Settings of `mpra` are first choices: none was changed after a tested
part was seen; nor were those of the first two rows of `atac` and of `not leveled`. What came after these had been seen
(leveled masks, 12 passes, a running mean of the weights, warming up, the weight of the divergence) was chosen on the
chromosomes for choices, mostly with two chromosomes to learn from. Settings of `motif` were found on other draws of
such windows. The penalty of ridge is chosen on a part of the training families or chromosomes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix, hstack

import sq_imputer as sqi
from sq_imputer.datasets import toy_genes
from sq_imputer.nn.masks import Betas

MOTIFS = {
    "Rap1": "ACACCCA",
    "Reb1": "TTACCCG",
    "Abf1": "TCA[ACGT]{6}ACG",
    "Gcn4": "TGACTCA",
    "Pho4": "CACGTG",
    "poly(A)": "AAAAAAA",
}
PLAN = sqi.Plan(device="cpu", progress=False, calibration=0)
NEAR = 8  # bp around a site that are searched for its highest mask
MODEL = sqi.get_model("seq2exp")
COMMON = {"backbone": "dilated", "validation": 0.0, "calibration": 0, "n_samples": 1}
MOTIF = {
    **COMMON,
    "length": 160,
    "promoter": 24,
    "width": 16,
    "layers": (2, 4),
    "lr": 6e-3,
    "batch_size": 12,
    "epochs": 7,
}
MPRA = {**COMMON, "length": 110, "promoter": 30, "layers": (2, 4), "lr": 4e-3, "batch_size": 64, "epochs": 5}
BINS, FLANK = 20, 130  # of atac: bins of 50 bp that one window tells, and bases on either side of them
ATAC = {
    **COMMON,
    "backbone": "pooled",
    "along": True,
    "length": 50 * BINS + 2 * FLANK,
    "promoter": 50 * BINS,
    "layers": (1, 4),
    "lr": 4e-3,
    "batch_size": 16,
    "epochs": 4,
}
MEAN = {"ema": 0.998}  # of atac: a running mean of the weights
ATAC_MODELS = {
    "the same without masks": {},
    "the same without masks, 8 passes": {"epochs": 8},
    "the same without masks, 12 passes": {**MEAN, "epochs": 12},
    "the same without masks, 12 passes, warmed up": {**MEAN, "epochs": 12, "warmup": 200},
    "seq2exp, not leveled": {"leveled": False},
    "seq2exp, 8 passes": {**MEAN, "epochs": 8, "kl_weight": 1e-4},
    "seq2exp": {**MEAN, "epochs": 12, "kl_weight": 1e-4, "warmup": 200},
}
TESTED = ("chrII", "chrVII", "chrXI", "chrXVI")  # of atac
CHOSEN_ON = ("chrV", "chrXIII")  # of atac: settings, and the penalty of ridge


def read_yeast(data: Path) -> dict[str, str]:
    """Chromosomes of yeast."""
    found: dict[str, list[str]] = {}
    with gzip.open(data / "sacCer3.fa.gz", "rt") as file:
        for line in file:
            if line.startswith(">"):
                parts = found.setdefault(line[1:].split()[0], [])
            else:
                parts.append(line.strip().upper())
    return {name: "".join(parts) for name, parts in found.items()}


def fitted(settings: dict, windows, seed: int, make=MODEL, **changes):
    """A model, and the seconds of its fit."""
    model, begun = make(MODEL.Config(**{**settings, **changes})), process_time()
    model.fit(windows, sqi.Plan(**{**vars(PLAN), "seed": seed}))
    return model, process_time() - begun


def said(model, windows) -> np.ndarray:
    """Predicted expression."""
    return model.predict(windows, batch_size=64, device="cpu").mean[:, 0].numpy()


def pearson(a, b) -> float:
    """Correlation."""
    return float(np.corrcoef(a, b)[0, 1])


def masks_of(model, windows) -> np.ndarray:
    """Mean masks `(n, L)`."""
    found = np.empty((len(windows), model.config.length), dtype=np.float32)
    with torch.inference_mode():
        for batch in model.seen(windows, 64):
            found[batch.index.numpy()] = model.regulation(batch)["mask"].numpy()
    return found


# Planted motif ----------------------------------------------------------------------------------------------


def site_scores(masks: np.ndarray, windows, sites: pd.DataFrame) -> dict[str, list[float]]:
    """Highest mask near every site by kind, and near as many places of the background."""
    row = {name: k for k, name in enumerate(windows.names)}
    rng, found = np.random.default_rng(0), {kind: [] for kind in ("active", "motif", "peak", "background")}

    def best(gene: int, place: int) -> float:
        return float(masks[gene, max(place - NEAR, 0) : place + NEAR + 1].max())

    for gene, part in sites.groupby("gene"):
        for kind, place in zip(part["kind"], part["position"], strict=True):
            found[kind].append(best(row[gene], place))
        far = np.abs(np.arange(masks.shape[1])[:, None] - part["position"].to_numpy()).min(axis=1) > 20
        far[:NEAR], far[-NEAR:], far[60:100] = False, False, False
        if far.any():
            found["background"].append(best(row[gene], int(rng.choice(np.flatnonzero(far)))))
    return found


def motif(args, yeast: dict[str, str]) -> dict:
    """The planted motif, for every seed, and by the published predictor."""
    from sklearn.metrics import roc_auc_score

    rows = {}
    test, sites = toy_genes(400, background=yeast["chrIV"][1_100_000:], seed=1000)
    peaks = sites[sites["kind"] != "motif"].groupby("gene").size().reindex(test.names, fill_value=0)
    for name, changes in {"seq2exp": {}, "normed": {"normed": True}}.items():
        for seed in args.seeds if name == "seq2exp" else args.seeds[:1]:
            train, _ = toy_genes(1500, background=yeast["chrIV"][:1_000_000], seed=seed)
            model, seconds = fitted(MOTIF, train.by_chromosome(), seed, **changes)
            masks = masks_of(model, test)
            scores = site_scores(masks, test, sites)
            truth = test.expression[:, 0]
            row = {"pearson": pearson(said(model, test), truth), "signal only": pearson(peaks, truth)}
            for kind in ("background", "motif", "peak"):
                labels = [1] * len(scores["active"]) + [0] * len(scores[kind])
                row[f"AUROC against {kind}"] = roc_auc_score(labels, scores["active"] + scores[kind])
            row |= {f"mask of {kind}": float(np.mean(values)) for kind, values in scores.items()}
            rows[f"{name}, seed {seed}"] = row | {"mean mask": float(masks.mean()), "seconds": seconds}
            if args.pictures and name == "seq2exp" and seed == args.seeds[0]:
                draw_motif(args.pictures / "models" / "seq2exp.png", model, test, sites, scores)
    return rows


def draw_motif(path: Path, model, windows, sites: pd.DataFrame, scores: dict) -> None:
    """Masks along four windows with the sites marked, and masks of sites by kind."""
    import matplotlib.pyplot as plt

    colors = {"active": "#009E73", "motif": "#0072B2", "peak": "#E69F00", "background": "0.6"}
    fig = plt.figure(figsize=(10, 5.6), layout="constrained")
    grid = fig.add_gridspec(4, 2, width_ratios=(2.2, 1))
    genes = [gene for gene, part in sites.groupby("gene") if part["kind"].nunique() == 3][:4]
    some = windows[np.isin(windows.names, genes)]
    (batch,) = model.seen(some, len(some))
    with torch.inference_mode():
        found = {name: part.numpy() for name, part in model.regulation(batch).items()}
    names = [some.names[k] for k in batch.index.tolist()]
    for k, gene in enumerate(names):
        ax = fig.add_subplot(grid[k, 0])
        x = np.arange(found["mask"].shape[1])
        ax.fill_between(x, found["mask"][k] - found["std"][k], found["mask"][k] + found["std"][k], color="0.88", lw=0)
        ax.plot(x, found["mask"][k], color="0.15", lw=1.2, label="mask, ± its standard deviation")
        ax.plot(x, found["signal"][k], color="#D55E00", lw=0.9, ls="--", label="by the track alone")
        for kind, place in sites.loc[sites["gene"] == gene, ["kind", "position"]].to_numpy():
            ax.axvspan(place - 4.5, place + 4.5, color=colors[kind], alpha=0.35, lw=0)
        ax.set(ylim=(0, 1), xlim=(0, len(x) - 1), ylabel=gene, yticks=(0, 0.5, 1))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelbottom=k == 3)
    ax.set_xlabel("base of the window")
    fig.axes[0].legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
    ax = fig.add_subplot(grid[:, 1])
    box = ax.boxplot([scores[kind] for kind in colors], tick_labels=list(colors), widths=0.6, patch_artist=True)
    for patch, color in zip(box["boxes"], colors.values(), strict=True):
        patch.set(facecolor=color, alpha=0.5)
    ax.set(ylabel="highest mask within 8 bp", title="400 windows, not seen")
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


# Promoters --------------------------------------------------------------------------------------------------


def kmers(sequences: list[str], longest: int = 5):
    """Counts of all words of 1 to 5 letters, sparse."""
    from sklearn.feature_extraction.text import CountVectorizer

    words = CountVectorizer(analyzer="char", ngram_range=(1, longest), lowercase=False, dtype=np.float32)
    return words.fit_transform(sequences)


def ridge(x, y: np.ndarray, train: np.ndarray, chosen: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Prediction of the tested rows by ridge; its penalty is chosen on `chosen`, a part of the training rows."""
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    inner = train & ~chosen
    scale = StandardScaler(with_mean=False).fit(x[train])
    x = scale.transform(x)
    penalties = (1e2, 1e3, 1e4, 1e5)
    scores = [pearson(Ridge(a, solver="lsqr").fit(x[inner], y[inner]).predict(x[chosen]), y[chosen]) for a in penalties]
    return Ridge(penalties[int(np.argmax(scores))], solver="lsqr").fit(x[train], y[train]).predict(x[test])


def mpra(args, data: Path) -> dict:
    """Promoters: whole families of origin are left out."""
    table = pd.read_csv(data / "yeast_promoter_mpra.tsv.gz", sep="\t", dtype={"origin": str})
    family = table["origin"].str.split("_").str[0]
    family = family.where(family.notna(), "alone" + table.index.astype(str)).to_numpy(dtype=object)
    names = np.random.default_rng(0).permutation(np.unique(family))
    test = np.isin(family, names[: len(names) // 7])
    chosen = np.isin(family, names[len(names) // 7 : len(names) // 4])
    y, ypd = table["expr"].to_numpy(dtype=np.float32), (table["medium"] == "YPD").to_numpy()
    train = ~test
    windows = sqi.GeneWindows.from_sequences(
        table["seq"].tolist(), y, group=["tested" if one else "trained" for one in test], extra=ypd[:, None] * 1.0
    )
    rows, random = {}, table["set"].to_numpy()[test] == "random_HQ"

    def note(name: str, mean: np.ndarray, **more) -> None:
        rows[name] = {
            "pearson": pearson(mean, y[test]),
            "random promoters": pearson(mean[random], y[test][random]),
            **more,
        }

    begun = process_time()
    x = hstack([kmers(table["seq"].tolist()), csr_matrix(ypd[:, None] * np.float32(1))]).tocsr()
    note("ridge on 1- to 5-mers", ridge(x, y, train, chosen, test), seconds=process_time() - begun)
    plain = {"promoter": MPRA["length"], "layers": (1, sum(MPRA["layers"])), "kl_weight": 0.0}
    for name, changes in {"seq2exp": {}, "the same without masks": plain}.items():
        model, seconds = fitted(MPRA, windows[train], args.seeds[0], **changes)
        size = sum(weight.numel() for key, weight in model.named_parameters() if not (changes and "generator" in key))
        note(name, said(model, windows[test]), seconds=seconds, weights=size)
        if not changes:
            rows[name]["mean mask"] = float(masks_of(model, windows[test]).mean())
    return {"trained": int(train.sum()), "tested": int(test.sum()), **rows}


# Accessibility ----------------------------------------------------------------------------------------------


def atac(args, data: Path, yeast: dict[str, str]) -> dict:
    """Cuts per 50 bp from the DNA around: chromosomes are left out. Then, what the masks keep."""
    table = pd.read_csv(data / "yeast_atac_cuts_50bp.tsv.gz", sep="\t")
    table = table[table["chrom"].isin(yeast) & (table["chrom"] != "chrM")].assign(cuts=lambda t: np.log1p(t["cuts"]))
    asked = {
        name: in_tiles(table[table["chrom"].isin(chroms)], yeast).sample(4000, random_state=0)
        for name, chroms in {"tested": TESTED, "chosen on": CHOSEN_ON}.items()
    }
    learned = table[~table["chrom"].isin(TESTED + CHOSEN_ON)]
    rows = by_composition(learned.sample(40_000, random_state=0), asked, yeast)
    train = tiles(learned, yeast)
    ways = {name: tiles(table[table["chrom"].isin(set(one["chrom"]))], yeast) for name, one in asked.items()}
    for name in args.models:  # seq2exp is the last of them
        make = Unmasked if "without" in name else MODEL
        model, seconds = fitted(ATAC, train.by_chromosome(), args.seeds[0], make=make, **ATAC_MODELS[name])
        scores = {way: pearson(at_bins(model, ways[way], asked[way]), asked[way]["cuts"]) for way in asked}
        rows[name] = {"seconds": seconds} | scores
    found = {"trained": len(learned), "tested": 4000, **rows}
    if "seq2exp" in args.models:
        masks, letters = masks_of(model, ways["tested"]), letters_of(ways["tested"], yeast)
        rows["seq2exp"]["mean mask"] = float(masks.mean())
        found["motifs"] = enrichment(masks, letters)
        if args.pictures:
            draw_locus(args.pictures / "regulatory_map.png", model, ways["tested"], letters, table, yeast)
    return found


class Unmasked(MODEL):
    """The same network, which reads every base as it is; nothing of the generator is used."""

    def betas(self, batch):
        return Betas(torch.ones(1, 1), torch.ones(1, 1))

    def mask(self, betas, batch, random, generators=()):
        return batch.allowed.float()


def in_tiles(table: pd.DataFrame, yeast: dict[str, str]) -> pd.DataFrame:
    """The bins that lie in whole tiles."""
    whole = table["chrom"].map(lambda chrom: len(yeast[chrom]) // (50 * BINS)).astype(int)
    return table[table["start"] < whole * 50 * BINS]


def tiles(table: pd.DataFrame, yeast: dict[str, str]):
    """Windows that lie beside each other, each with the bins of its middle as contexts."""
    parts, size, names = [], 50 * BINS, [f"bin {k}" for k in range(BINS)]
    for chrom, part in table.groupby("chrom", sort=False):
        n = len(yeast[chrom]) // size
        cuts = np.zeros(n * BINS, dtype=np.float32)
        part = in_tiles(part, yeast)
        cuts[part["start"] // 50] = part["cuts"]
        about = pd.DataFrame(cuts.reshape(n, BINS), columns=names)
        parts.append(about.assign(chrom=chrom, tss=np.arange(n) * size + size // 2, strand="+"))
    both = pd.concat(parts)
    both.index = both["chrom"] + ":" + both["tss"].astype(str)
    return sqi.GeneWindows.from_table(both, yeast, target=names, length=ATAC["length"])


def at_bins(model, windows, bins: pd.DataFrame) -> np.ndarray:
    """What is predicted of these bins."""
    size, mean = 50 * BINS, model.predict(windows, batch_size=64, device="cpu").mean.numpy()
    row = {name: k for k, name in enumerate(windows.names)}
    middle = bins["start"] // size * size + size // 2
    names = bins["chrom"] + ":" + middle.astype(str)
    return mean[[row[name] for name in names], bins["start"] % size // 50]


def letters_of(windows, yeast: dict[str, str]) -> list[str]:
    """The DNA of windows, shorter where it ends."""
    half = ATAC["length"] // 2
    return [yeast[c][max(t - half, 0) : t + half] for c, t in zip(windows.cut.chroms, windows.cut.tss, strict=True)]


def by_composition(learned: pd.DataFrame, asked: dict[str, pd.DataFrame], yeast: dict[str, str]) -> dict:
    """Pearson of the share of G and C, and of a ridge on counts of words, of the 256 bp around a bin."""
    both, begun = pd.concat([learned, *asked.values()]), process_time()
    at = zip(both["chrom"], both["start"], strict=True)
    letters = [yeast[chrom][max(start + 25 - 128, 0) : start + 25 + 128] for chrom, start in at]
    y, is_of = both["cuts"].to_numpy(dtype=np.float32), {}
    first = len(learned)
    for name, one in asked.items():
        is_of[name] = slice(first, first := first + len(one))
    gc = np.array([sum(map(one.count, "GC")) / max(len(one), 1) for one in letters])
    chosen, train = np.zeros(len(y), dtype=bool), np.ones(len(y), dtype=bool)
    chosen[is_of["chosen on"]], train[is_of["tested"]] = True, False
    mean = ridge(kmers(letters), y, train, chosen, np.ones(len(y), dtype=bool))
    shown = {"G and C of 256 bp": gc, "ridge on 1- to 5-mers": mean}
    rows = {name: {"tested": pearson(said[is_of["tested"]], y[is_of["tested"]])} for name, said in shown.items()}
    rows["ridge on 1- to 5-mers"]["seconds"] = process_time() - begun
    return rows


def draw_locus(path: Path, model, windows, letters: list[str], table: pd.DataFrame, yeast) -> None:
    """The map of the tested window with a site of Reb1 whose bins are the most accessible."""
    import matplotlib.pyplot as plt
    from spatialdata import SpatialData

    site = [bool(re.search("TTACCCG|CGGGTAA", one)) and len(one) == ATAC["length"] for one in letters]
    row = int(np.argmax(np.where(site, windows.expression.max(axis=1), -1)))
    gene, chrom = str(windows.names[row]), str(windows.cut.chroms[row])
    own, sdata = windows[np.array([row])], SpatialData()
    sqi.tl.regulatory_map(sdata, own, model, progress=False, device="cpu")
    cuts = np.zeros(len(yeast[chrom]), dtype=np.float32)
    for start, value in table.loc[table["chrom"] == chrom, ["start", "cuts"]].to_numpy():
        cuts[int(start) : int(start) + 50] = np.expm1(value)
    about = pd.DataFrame({"chrom": chrom, "tss": own.cut.tss, "strand": ".", "y": 0.0}, index=[gene])
    shown = {"tracks": {"ATAC cuts, not shown to the model": {chrom: cuts}}, "length": ATAC["length"]}
    measured = sqi.GeneWindows.from_table(about, {chrom: yeast[chrom]}, target="y", **shown)
    fig, (above, ax) = plt.subplots(2, 1, figsize=(9, 4.4), height_ratios=(1, 2), sharex=True, layout="constrained")
    sqi.pl.regulatory_map(sdata, gene, windows=measured, ax=ax)
    draw_sites(above, letters[row], int(own.cut.tss[0]) - ATAC["length"] // 2)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def draw_sites(ax, letters: str, start: int) -> None:
    """Where the known motifs are, each in a row of its own."""
    for row, pattern in enumerate(MOTIFS.values()):
        spans = [(start + a, b - a) for a, b in sites_of(pattern, letters)]
        ax.broken_barh(spans, (row - 0.4, 0.8), color="#CC79A7")
    ax.set(yticks=range(len(MOTIFS)), yticklabels=list(MOTIFS), ylim=(len(MOTIFS) - 0.5, -0.5))
    ax.hlines(range(len(MOTIFS)), *ax.get_xlim(), color="0.9", linewidth=0.6, zorder=0)
    ax.spines[["top", "right", "bottom", "left"]].set_visible(False)
    ax.tick_params(length=0, labelbottom=False, labelsize="small")


def sites_of(pattern: str, letters: str) -> list[tuple[int, int]]:
    """Where a motif begins and ends, on either strand."""
    turned = letters.translate(str.maketrans("ACGT", "TGCA"))[::-1]
    back = [(len(letters) - b, len(letters) - a) for a, b in (hit.span() for hit in re.finditer(pattern, turned))]
    return [hit.span() for hit in re.finditer(pattern, letters)] + back


def enrichment(masks: np.ndarray, letters: list[str], share: float = 0.1, draws: int = 100) -> dict:
    """By motif: its sites, the share of their bases that is kept, over that by rolled masks and its p, over others."""
    whole = [k for k, one in enumerate(letters) if len(one) == masks.shape[1]]
    masks, letters = masks[whole], [letters[k] for k in whole]
    kept = masks >= np.quantile(masks, 1 - share, axis=1, keepdims=True)
    rng, found, length = np.random.default_rng(0), {}, kept.shape[1]
    rolled = []
    for _ in range(draws):
        by = rng.integers(20, length - 20, len(kept))
        rolled.append(kept[np.arange(len(kept))[:, None], (np.arange(length) - by[:, None]) % length])
    for name, pattern in MOTIFS.items():
        inside, sites = bases_of(pattern, letters, length)
        own, null = kept[inside].mean(), np.array([one[inside].mean() for one in rolled])
        p = (1 + (null >= own).sum()) / (1 + draws)
        found[name] = {"sites": sites, "kept": float(own), "over rolled": float(own / null.mean()), "p": float(p)}
        others = [kept[bases_of(word, letters, length)[0]].mean() for word in shuffled(pattern)]
        if others:
            found[name]["over shuffled"] = float(own / np.mean(others))
    return found


def bases_of(pattern: str, letters: list[str], length: int) -> tuple[np.ndarray, int]:
    """Which bases of windows a motif takes, and how many sites it has."""
    inside, sites = np.zeros((len(letters), length), dtype=bool), 0
    for k, one in enumerate(letters):
        for a, b in sites_of(pattern, one):
            inside[k, a:b], sites = True, sites + 1
    return inside, sites


def shuffled(pattern: str, words: int = 10) -> list[str]:
    """Motifs of the same letters in other orders, around the same gap."""
    first, gap, last = re.fullmatch(r"([ACGT]+)(\[ACGT\]\{6\})?([ACGT]*)", pattern).groups("")
    rng, letters = np.random.default_rng(0), list(first + last)
    drawn = ("".join(rng.permutation(letters)) for _ in range(words))
    return sorted({word[: len(first)] + gap + word[len(first) :] for word in drawn} - {pattern})


# Cost -------------------------------------------------------------------------------------------------------


def naive(_, u, step, A, B, C):
    """The recurrence, one step after the other."""
    h, found = u.new_zeros(len(u), *A.shape), []
    for u_t, step_t, B_t, C_t in zip(*(part.unbind(1) for part in (u, step, B, C)), strict=True):
        h = torch.exp(step_t[..., None] * A) * h + (step_t * u_t)[..., None] * B_t[:, None]
        found.append((h * C_t[:, None]).sum(dim=-1))
    return torch.stack(found, dim=1), h


def seconds_of(what: str, length: int, width: int, scan: str) -> tuple[float, float]:
    """Seconds of a forward and backward of a block or scan, and the most memory beyond that before, in MB."""
    call = f"sequence.{what}({length}, {width}, {scan!r})"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import sequence; {call}"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, before, most = map(float, told.stdout.split())
    return seconds, most - before


def scan_named(name: str):
    """The recurrence as a loop, or the scan of either form."""
    from sq_imputer.nn import scan

    scan.COMPILED = name == "compiled"
    return naive if name == "loop" else scan.scan_on


def told(call, *given) -> None:
    """Print seconds of a forward and backward, and memory before and at most."""
    base, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, process_time()
    call(*given).square().mean().backward()
    print(process_time() - begun, base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def one_block(length: int, width: int, scan: str) -> None:
    """A block, which scans in both directions."""
    from sq_imputer.nn.sequence import BiMamba

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = BiMamba(width, scan=scan_named(scan))
        block(torch.randn(1, 64, width)).sum().backward()  # so that nothing is first
        told(block, torch.randn(1, length, width, requires_grad=True))


def one_scan(length: int, width: int, scan: str) -> None:
    """One of the two scans of a block of that width."""
    torch.set_num_threads(1)
    call, generator = scan_named(scan), torch.Generator().manual_seed(0)

    def given(length: int) -> list:
        u, step = torch.randn(2, 1, length, 2 * width, generator=generator)
        into, out = torch.randn(2, 1, length, 16, generator=generator)
        rates = -torch.arange(1.0, 17).repeat(2 * width, 1)
        return [one.requires_grad_() for one in (u, torch.nn.functional.softplus(step - 3), rates, into, out)]

    call(None, *given(64))[0].sum().backward()
    told(lambda *some: call(None, *some)[0], *given(length))


def speed() -> dict:
    """Bases per second, and memory by length."""
    rows = {}
    for what, run in {"block": "one_block", "scan": "one_scan"}.items():
        for width in (32, 128):
            slow, _ = seconds_of(run, 1000, width, "loop")
            rows[f"{what}, width {width}, loop, 1,000 bp"] = {"seconds": slow, "bases per second": 1000 / slow}
            for form, length in (("torch", 50_000), ("compiled", 50_000), ("compiled", 200_000)):
                seconds, memory = seconds_of(run, length, width, form)
                rows[f"{what}, width {width}, {form}, {length:,} bp"] = {
                    "seconds": seconds,
                    "bases per second": length / seconds,
                    "MB": memory,
                    "times the loop": length / seconds * slow / 1000,
                }
    return rows


def rounded(value):
    """Figures to four digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["motif", "mpra", "atac", "speed"])
    parser.add_argument("--data", type=Path, default=None, help="folder with dna/")
    parser.add_argument("--models", nargs="+", default=list(ATAC_MODELS), choices=ATAC_MODELS, help="of atac")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--pictures", type=Path, default=None, help="folder for a picture of the planted motif, and of a locus"
    )
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if args.pictures:
        (args.pictures / "models").mkdir(exist_ok=True)
    torch.set_num_threads(1)
    data = (args.data or Path(os.environ.get("SQ_IMPUTER_DATA", "../shared/data"))) / "dna"
    yeast = read_yeast(data) if {"motif", "atac"} & set(args.parts) else {}
    parts = {"motif": lambda: motif(args, yeast), "mpra": lambda: mpra(args, data)}
    parts |= {"atac": lambda: atac(args, data, yeast), "speed": speed}
    for name in args.parts:
        found = rounded(parts[name]())
        print(json.dumps({name: found}, indent=1), flush=True)
        if args.json is not None:
            figures = json.loads(args.json.read_text())
            of = figures.setdefault("sequence", {})
            of[name] = of.get(name, {}) | found if name == "atac" else found
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
