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

`atac`: log(1 + cuts) of ATAC-seq in 50 bp of yeast from the 256 bp around, chromosomes left out; beside the ridge and
the share of G and C. Then motifs: how often a base of a known motif is among the tenth of the bases with the highest
masks, over how often it is when the masks of every window are rolled by a random number of bases.

`speed`: forward and backward of one window by one block of the scan, in a process of its own, at the published width
(128) and that of the defaults (32), against the recurrence step by step on a shorter sequence.

Seconds are of the processor, with one thread. Settings of `mpra` and `atac` are first choices: none was changed after
a tested part was seen. Those of `motif` were found on other draws of such windows. The penalty of ridge is chosen on a
part of the training families or chromosomes.
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
ATAC = {**COMMON, "length": 256, "promoter": 50, "layers": (2, 4), "lr": 4e-3, "batch_size": 32, "epochs": 3}
TESTED = ("chrII", "chrVII", "chrXI", "chrXVI")  # of atac
CHOSEN_ON = ("chrV", "chrXIII")  # of atac, the penalty of ridge


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


def fitted(settings: dict, windows, seed: int, **changes):
    """A model, and the seconds of its fit."""
    model, begun = MODEL(MODEL.Config(**{**settings, **changes})), process_time()
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
    table = table[table["chrom"].isin(yeast)]
    test = table[table["chrom"].isin(TESTED)].sample(4000, random_state=0)
    train = table[~table["chrom"].isin(TESTED)].sample(10_000, random_state=0)
    both = pd.concat([train, test])
    both = both.assign(tss=both["start"] + 25, strand="+", cuts=np.log1p(both["cuts"]))
    both.index = both["chrom"] + ":" + both["start"].astype(str)
    windows = sqi.GeneWindows.from_table(both, yeast, target="cuts", length=ATAC["length"])
    is_test = np.isin(windows.cut.labels, TESTED)
    y, half = windows.expression[:, 0], ATAC["length"] // 2
    letters = [yeast[c][max(t - half, 0) : t + half] for c, t in zip(windows.cut.chroms, windows.cut.tss, strict=True)]
    rows = {}
    chosen = np.isin(windows.cut.labels, CHOSEN_ON)
    gc = np.array([sum(map(one.count, "GC")) / len(one) for one in letters])
    middle = np.array([sum(map(one[half - 25 : half + 25].count, "GC")) / 50 for one in letters])
    for name, share in {"G and C of the window": gc, "G and C of the 50 bp": middle}.items():
        rows[name] = {"pearson": pearson(share[is_test], y[is_test])}
    begun = process_time()
    mean = ridge(kmers(letters), y, ~is_test, chosen, is_test)
    rows["ridge on 1- to 5-mers"] = {"pearson": pearson(mean, y[is_test]), "seconds": process_time() - begun}
    model, seconds = fitted(ATAC, windows[~is_test].by_chromosome(), args.seeds[0])
    rows["seq2exp"] = {"pearson": pearson(said(model, windows[is_test]), y[is_test]), "seconds": seconds}
    masks = masks_of(model, windows[is_test])
    rows["seq2exp"]["mean mask"] = float(masks.mean())
    if args.pictures:
        draw_locus(args.pictures / "regulatory_map.png", model, windows, is_test, letters, table, yeast)
    tests = [one for one, here in zip(letters, is_test, strict=True) if here]
    return {"trained": int((~is_test).sum()), "tested": int(is_test.sum()), **rows, "motifs": enrichment(masks, tests)}


def draw_locus(path: Path, model, windows, is_test: np.ndarray, letters: list[str], table: pd.DataFrame, yeast) -> None:
    """The map of the most accessible tested place with a site of Reb1, whose stretches are knocked out."""
    import matplotlib.pyplot as plt
    from spatialdata import SpatialData

    site = [bool(re.search("TTACCCG|CGGGTAA", one)) for one in letters]
    row = int(np.argmax(np.where(is_test & site, windows.expression[:, 0], -1)))
    gene, chrom = str(windows.names[row]), str(windows.cut.chroms[row])
    own, sdata = windows[np.array([row])], SpatialData()
    sqi.tl.regulatory_map(sdata, own, model, progress=False, device="cpu")
    sqi.tl.in_silico(sdata, own, model, n_controls=40, progress=False, device="cpu")
    cuts = np.zeros(len(yeast[chrom]), dtype=np.float32)
    for start, value in table.loc[table["chrom"] == chrom, ["start", "cuts"]].to_numpy():
        cuts[start : start + 50] = value
    about = pd.DataFrame({"chrom": chrom, "tss": own.cut.tss, "strand": ".", "y": 0.0}, index=[gene])
    shown = {"tracks": {"ATAC cuts, not shown to the model": {chrom: cuts}}, "length": ATAC["length"]}
    measured = sqi.GeneWindows.from_table(about, {chrom: yeast[chrom]}, target="y", **shown)
    ax = sqi.pl.regulatory_map(sdata, gene, windows=measured)
    start = int(own.cut.tss[0]) - ATAC["length"] // 2
    for name, pattern in MOTIFS.items():
        turned = letters[row].translate(str.maketrans("ACGT", "TGCA"))[::-1]
        spans = [hit.span() for hit in re.finditer(pattern, letters[row])]
        spans += [(ATAC["length"] - b, ATAC["length"] - a) for a, b in (h.span() for h in re.finditer(pattern, turned))]
        for a, b in spans:
            ax.plot([start + a, start + b], [0.93, 0.93], color="#CC79A7", linewidth=3, solid_capstyle="butt")
            ax.annotate(name, (start + (a + b) / 2, 0.95), ha="center", fontsize="x-small")
    ax.figure.savefig(path, dpi=110)
    plt.close(ax.figure)


def enrichment(masks: np.ndarray, letters: list[str], share: float = 0.1, draws: int = 200) -> dict:
    """By motif: its sites, the share of their bases that is kept, over that by rolled masks, and the p of that."""
    whole = [k for k, one in enumerate(letters) if len(one) == masks.shape[1]]
    masks, letters = masks[whole], [letters[k] for k in whole]
    kept = masks >= np.quantile(masks, 1 - share, axis=1, keepdims=True)
    rng, found, length = np.random.default_rng(0), {}, kept.shape[1]
    rolled = []
    for _ in range(draws):
        by = rng.integers(20, length - 20, len(kept))
        rolled.append(kept[np.arange(len(kept))[:, None], (np.arange(length) - by[:, None]) % length])
    turned = str.maketrans("ACGT", "TGCA")
    for name, pattern in MOTIFS.items():
        inside, sites = np.zeros(kept.shape, dtype=bool), 0
        for k, one in enumerate(letters):
            back = one.translate(turned)[::-1]
            spans = [hit.span() for hit in re.finditer(pattern, one)]
            spans += [(len(one) - b, len(one) - a) for a, b in (hit.span() for hit in re.finditer(pattern, back))]
            for a, b in spans:
                inside[k, a:b], sites = True, sites + 1
        own, null = kept[inside].mean(), np.array([one[inside].mean() for one in rolled])
        p = (1 + (null >= own).sum()) / (1 + draws)
        found[name] = {"sites": sites, "kept": float(own), "over rolled": float(own / null.mean()), "p": float(p)}
    return found


# Cost -------------------------------------------------------------------------------------------------------


def naive(u, step, A, B, C):
    """The recurrence, one step after the other."""
    h, found = u.new_zeros(len(u), *A.shape), []
    for u_t, step_t, B_t, C_t in zip(*(part.unbind(1) for part in (u, step, B, C)), strict=True):
        h = torch.exp(step_t[..., None] * A) * h + (step_t * u_t)[..., None] * B_t[:, None]
        found.append((h * C_t[:, None]).sum(dim=-1))
    return torch.stack(found, dim=1)


def block_seconds(length: int, width: int, scan: str = "ours") -> tuple[float, float]:
    """Seconds of a forward and backward of one block, and the most memory beyond that before, in MB."""
    call = f"sequence.one_block({length}, {width}, {scan!r})"
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import sequence; {call}"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, before, most = map(float, told.stdout.split())
    return seconds, most - before


def one_block(length: int, width: int, scan: str) -> None:
    """Print seconds, and memory before and at most."""
    from sq_imputer.nn.scan import selective_scan
    from sq_imputer.nn.sequence import BiMamba

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = BiMamba(width, scan=naive if scan == "naive" else selective_scan)
        block(torch.randn(1, 64, width)).sum().backward()  # so that nothing is first
        x = torch.randn(1, length, width, requires_grad=True)
    base, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, process_time()
    block(x).square().mean().backward()
    print(process_time() - begun, base, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def speed() -> dict:
    """Bases per second, and memory by length."""
    rows = {}
    for width, lengths in {32: (25_000, 50_000, 100_000, 200_000), 128: (50_000, 200_000)}.items():
        for length in lengths:
            seconds, memory = block_seconds(length, width)
            rows[f"width {width}, {length:,} bp"] = {
                "seconds": seconds,
                "bases per second": length / seconds,
                "MB": memory,
                "KB per base": memory * 1024 / length,
            }
        seconds, _ = block_seconds(1000, width, "naive")
        rows[f"width {width}, step by step, 1,000 bp"] = {"seconds": seconds, "bases per second": 1000 / seconds}
        last = rows[f"width {width}, 200,000 bp"]
        last["times the step by step"] = last["bases per second"] * seconds / 1000
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
            figures.setdefault("sequence", {})[name] = found
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
