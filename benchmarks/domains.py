"""Domains of predictions against a pathologist's labels, and against domains of the measured expression.

    python benchmarks/domains.py [--data FOLDER] [--models ridge mlp mclstexp] [--only a1 brain] [--out FOLDER]
    python benchmarks/domains.py --only repeats [--repeats 1 3 5 10] [--json benchmarks/figures.json] [--out FOLDER]

her2st A1: models fitted on C2 to C5 (another patient); labels of a pathologist without `undetermined`, of which 83 %
are invasive cancer. Mouse brain: predicted out of fold in spatial blocks of one section, against domains of the
measured expression of the same 100 genes. Every model with its defaults, `tl.domains` with its defaults and as many
domains as there are labels (A1), or 12 (brain). `ari_folds` above that of random regions says that domains end where
the folds of the prediction do. `--out` gets pictures.

`--only repeats`: ridge out of fold on C2 (6 domains) and on the mouse brain (12), as the mean over more and more
partitions (`n_repeats`): how far its domains follow the partition that they agree with most, beside random regions of
the same sizes; what it is worth (mean Pearson over the panel); whether its standard deviation holds, and would if a
block were sized by the errors in the others; how much log sd differs from fold to fold; what it costs.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from time import process_time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import sq_imputer as sqi

N_BRAIN = 12


def compared(sdata, models: list[str], labels, n_domains: int) -> pd.DataFrame:
    """The table of `tl.agreement` for every model; rows that do not depend on it are shown once."""
    found = []
    for model in models:
        sqi.tl.domains(sdata, layer=model, n_domains=n_domains, key_added=f"domain_{model}")
        rows = sqi.tl.agreement(sdata, labels, domain=f"domain_{model}")
        found.append(rows[rows["predictor"].isin([f"domain_{model}", "random regions"])].assign(model=model))
    shared = rows[~rows["predictor"].isin([f"domain_{model}", "random regions"])]
    return pd.concat([*found, shared], ignore_index=True)


def a1(data: Path | None, models: list[str]):
    folder = None if data is None else data / "her2st"
    sdata = sqi.datasets.her2st(folder, ["A1"])["A1"]
    reference = sqi.datasets.her2st(folder)
    for model in models:
        panel = {"genes": list(sdata.tables["imputed"].var_names)} if "imputed" in sdata.tables else {}
        sqi.tl.predict(sdata, model, reference=reference, **panel)
    labels = sdata.tables["table"].obs["label"].astype(str).replace({"undetermined": None, "nan": None})
    return sdata, compared(sdata, models, labels, labels.nunique())


def brain(data: Path | None, models: list[str]):
    sdata = sqi.datasets.mouse_brain(None if data is None else data / "mbrain_visium")
    for model in models:
        sqi.tl.predict(sdata, model)
    sqi.tl.domains(sdata, use="measured", n_domains=N_BRAIN, key_added="domain_measured")
    return sdata, compared(sdata, models, "measured", N_BRAIN)


def repeated(sdata, n_domains: int, repeats: list[int]) -> pd.DataFrame:
    """One row for every number of partitions; the prediction and the domains of each stay in the object."""
    found = []
    for n in repeats:
        begun = process_time()
        sqi.tl.predict(sdata, "ridge", n_repeats=n, layer_added=f"ridge{n}")
        took = process_time() - begun
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of folds: they are what is measured
            sqi.tl.domains(sdata, layer=f"ridge{n}", n_domains=n_domains, key_added=f"domain{n}")
        table = sdata.tables["imputed"]
        rows = sqi.tl.agreement(sdata, domain=f"domain{n}").set_index("predictor")
        at = table.obs["measured"].to_numpy()
        y, mean, std = (table.layers[name][at] for name in ("measured", f"ridge{n}", f"ridge{n}_std"))
        fold = table.obs[f"ridge{n}_fold"].to_numpy()[at]
        z2 = ((y - mean) / std) ** 2
        others = np.stack([z2[fold != k].mean(axis=0) for k in range(fold.max() + 1)])[fold]  # what would size a block
        found.append(
            {
                "repeats": n,
                "ari folds": rows.loc[f"domain{n}", "ari_folds"],
                "ari folds, random regions": rows.loc["random regions", "ari_folds"],
                "ari measured": rows.loc[f"domain{n}", "ari"],
                "ari measured, random regions": rows.loc["random regions", "ari"],
                "ari measured, texture": rows.loc["texture alone", "ari"],
                "pearson": float(np.nanmean([np.corrcoef(a, b)[0, 1] for a, b in zip(y.T, mean.T, strict=True)])),
                "mean z2": float(z2.mean()),
                "mean z2, sized by other blocks": float((z2 / others if n > 1 else z2).mean()),  # one partition is
                "in 95%": float((z2 < 1.96**2).mean()),
                "sd, between folds": between(np.log(std), fold),
                "cpu s": took,
            }
        )
        print(pd.DataFrame(found[-1:]).round(3).to_string(index=False), flush=True)
    return pd.DataFrame(found)


def between(values: np.ndarray, fold: np.ndarray) -> float:
    """The standard deviation of the means of the folds of values `(n, G)`: of the median gene."""
    means = np.stack([values[fold == k].mean(axis=0) for k in range(fold.max() + 1)])
    return float(np.median(means.std(axis=0)))


def keep(path: Path, name: str, found: pd.DataFrame) -> None:
    """Put the rows of one section into the file of figures."""
    figures = json.loads(path.read_text())
    rows = {str(row.pop("repeats")): row for row in found.round(4).to_dict("records")}
    figures.setdefault("repeats", {})[name] = {n: {k: v for k, v in r.items() if k != "cpu s"} for n, r in rows.items()}
    path.write_text(json.dumps(figures, indent=1) + "\n")


def draw(sdata, columns: list[str], path: Path) -> None:
    axes = plt.subplots(1, len(columns), figsize=(5.5 * len(columns), 4.6), layout="constrained")[1]
    for ax, (key, column) in zip(axes, columns, strict=True):
        sqi.pl.domains(sdata, column, key=key, ax=ax)
    axes[0].figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st and mbrain_visium")
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "mclstexp"])
    parser.add_argument("--brain-models", nargs="+", default=["ridge", "mlp"])
    parser.add_argument("--only", nargs="+", choices=("a1", "brain", "repeats"), default=["a1", "brain"])
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--json", type=Path, default=None, help="file of figures that --only repeats adds to")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, made, models, truth in (
        ("a1", a1, args.models, ("table", "label")),
        ("brain", brain, args.brain_models, ("imputed", "domain_measured")),
    ):
        if name in args.only:
            sdata, found = made(args.data, models)
            print(f"{name}\n{found.round(3).to_string(index=False)}")
            if args.out is not None:
                draw(sdata, [truth, *(("imputed", f"domain_{model}") for model in models)], args.out / f"{name}.png")
    if "repeats" in args.only:
        brain_at = None if args.data is None else args.data / "mbrain_visium"
        for name, sdata, n_domains in (
            ("C2", sqi.datasets.her2st(None if args.data is None else args.data / "her2st", ["C2"])["C2"], 6),
            ("brain", sqi.datasets.mouse_brain(brain_at), N_BRAIN),
        ):
            print(name)
            found = repeated(sdata, n_domains, args.repeats)
            if args.json is not None:
                keep(args.json, name, found)
            if args.out is not None:
                columns = [("imputed", f"domain{n}") for n in args.repeats]
                draw(sdata, columns, args.out / f"repeats_{name}.png")
                gene = sdata.tables["imputed"].var_names[0]
                for n in args.repeats:
                    axes = sqi.pl.compare(sdata, [gene], layer=f"ridge{n}")
                    axes[0, 0].figure.savefig(args.out / f"compare_{name}_{n}.png", dpi=110)


if __name__ == "__main__":
    main()
