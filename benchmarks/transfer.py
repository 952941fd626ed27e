"""To another patient and to another resolution: models fitted on her2st C, each as it is and read at one resolution.

    python benchmarks/transfer.py [--data FOLDER] [--cases B4 A1 C3] [--models ridge mlp nsl stem mclstexp]
        [--read "as it is" auto] [--json benchmarks/figures.json]

Fitted on C2 to C5 (.69 µm per pixel), tested on B4 of patient B (as fine; shallow: median 648 UMI) and on A1 of
patient A (3.2 µm per pixel). Fitted on C2, C4, C5, tested on C3 that was downsampled to 3.2: how much is lost against
reading both at 3.2. "as it is" reads each image as it is, as the package did before; "auto" at the coarsest resolution
that they have in common. Ridge "no scaling" takes its features as they are, not scaled within each section.
"classical", beside ridge, is ridge on means, standard deviations and gradients of colors in crops of 3.1 µm per pixel
of both. Models that are told of genes are told as in benchmarks/accuracy.py. Every model is printed as it ends.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import models, summary
from coarse import coarser

import sq_imputer as sqi
from sq_imputer import Slide, bench
from sq_imputer.encoders import Encoder, EncoderCard, register_encoder
from sq_imputer.genes.panel import choose_genes
from sq_imputer.predictor.train import Plan

CASES = {"B4": ("C2", "C3", "C4", "C5"), "A1": ("C2", "C3", "C4", "C5"), "C3": ("C2", "C4", "C5")}
READ = {"as it is": None, "auto": "auto"}
MPP = 3.2
CLASSICAL = EncoderCard(
    name="classical",
    dim=12,
    size_px=48,
    mpp=3.125,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    license="BSD-3-Clause",
    commercial=True,
    gated=False,
    any_size=True,
    note="Means, deviations, gradients and correlations of colors.",
)


class Classical(Encoder):
    """Means, deviations and gradients of three colors, and how these go together."""

    def encode(self, crops: torch.Tensor) -> torch.Tensor:
        x = -torch.log((crops.float() + 1) / 256)
        mean, sd = x.mean(dim=(2, 3)), x.std(dim=(2, 3))
        edges = (x.diff(dim=2).abs().mean(dim=(2, 3)) + x.diff(dim=3).abs().mean(dim=(2, 3))) / 2
        z = (x - mean[..., None, None]).flatten(2) / (sd[..., None] + 1e-3)
        pairs = torch.stack([(z[:, i] * z[:, j]).mean(1) for i, j in ((0, 1), (1, 2), (0, 2))], 1)
        return torch.cat([mean, sd, edges, pairs], dim=1)


def chosen(name: str, data: Path | None, panel: list[str]) -> dict[str, sqi.Predictor]:
    """The model of a name; of ridge as well that without scaling, and the classical one."""
    found = models(name, data, panel)
    if name != "ridge":
        return found
    del found["ridge no context"]
    ridge = sqi.get_model("ridge")
    views = {"encoders": ("classical",), "size_px": 48, "context_um": (400.0,)}
    found["ridge no scaling"] = ridge(replace(ridge.Config(), per_section=False))
    return found | {"classical": ridge(replace(ridge.Config(), **views))}


def cases(names: list[str], data: Path | None) -> Iterator[bench.Case]:
    needed = dict.fromkeys([*(one for name in names for one in CASES[name]), *names])
    sections = sqi.datasets.her2st(None if data is None else data / "her2st", tuple(needed))
    slides = {name: Slide.from_sdata(sdata, section=name) for name, sdata in sections.items()}
    for name in names:
        test = slides[name]
        if name == "C3":
            test = Slide.from_sdata(coarser(sections[name], MPP), section=f"C3 at {MPP:g}")
        rows = np.flatnonzero(np.nan_to_num(test.depth) > 0)
        yield bench.Case(f"C to {test.section}", tuple(slides[k] for k in CASES[name]), test, rows, name == "C3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--models", nargs="+", default=["ridge", "mlp", "nsl", "stem", "mclstexp"])
    parser.add_argument("--read", nargs="+", default=list(READ), choices=list(READ), help="how resolutions are met")
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # that resolutions differ is what is measured
    register_encoder(CLASSICAL, lambda card, weights, revision: Classical(card, {"name": card.name}))
    plan = Plan(device=args.device, progress=False)
    for case in cases(args.cases, args.data):
        panel = choose_genes(case.training, 250)
        for read, name in product(args.read, args.models):
            run = {"genes": panel, "resolution": READ[read], "plan": plan}
            short = _short(summary(bench.run([case], chosen(name, args.data, panel), **run), (50, 250)))
            print(f"\n{case.name}, {read}\n{short.to_string()}", flush=True)
            if args.json is not None:
                _keep(args.json, case.test.section.split(" ")[0], read, short)


def _keep(file: Path, case: str, read: str, table: pd.DataFrame) -> None:
    """Bring the figures of some models up to date; B4 has a place of its own, as README quotes it."""
    figures = json.loads(file.read_text())
    if case == "B4" and read != "as it is":
        return
    into = figures["to B4"] if case == "B4" else figures.setdefault("transfer", {}).setdefault(case, {})
    into = into if case == "B4" else into.setdefault(read, {})
    for top in ("top-50", "top-250"):
        for model in table.index.drop("mean"):
            found = {name: float(table.loc[model, f"{name} {top}"]) for name in ("pearson", "pearson_given_depth")}
            into.setdefault(top, {})[model] = {name: None if np.isnan(v) else v for name, v in found.items()}
    file.write_text(json.dumps(figures, indent=1) + "\n")


def _short(table: pd.DataFrame) -> pd.DataFrame:
    """Means alone: there is one section, so no interval."""
    kept = [name for name in table if not name.startswith("mse")]
    return table[kept].map(lambda text: str(text).split(" ")[0])


if __name__ == "__main__":
    main()
