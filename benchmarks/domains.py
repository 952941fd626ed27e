"""Domains of predictions against a pathologist's labels, and against domains of the measured expression.

    python benchmarks/domains.py [--data FOLDER] [--models ridge mlp mclstexp] [--out FOLDER]

her2st A1: models fitted on C2 to C5 (another patient); labels of a pathologist without `undetermined`, of which 83 %
are invasive cancer. Mouse brain: predicted out of fold in spatial blocks of one section, against domains of the
measured expression of the same 100 genes. Every model with its defaults, `tl.domains` with its defaults and as many
domains as there are labels (A1), or 12 (brain). `ari_folds` above that of random regions says that domains end where
the folds of the prediction do. `--out` gets pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
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
    parser.add_argument("--only", choices=("a1", "brain"), default=None)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, made, models, truth in (
        ("a1", a1, args.models, ("table", "label")),
        ("brain", brain, args.brain_models, ("imputed", "domain_measured")),
    ):
        if args.only in (None, name):
            sdata, found = made(args.data, models)
            print(f"{name}\n{found.round(3).to_string(index=False)}")
            if args.out is not None:
                draw(sdata, [truth, *(("imputed", f"domain_{model}") for model in models)], args.out / f"{name}.png")


if __name__ == "__main__":
    main()
