"""What models see that the color of a spot does not tell: genes of toy tissue that follow it, and nothing else.

    python benchmarks/beyond_color.py [--sections 6] [--seeds 3] [--epochs 60] [--features colors texture]
        [--json benchmarks/figures.json]

Sections of one patient of `sqi.datasets.toy(beyond_color=True)`: the last is tested, the others are trained on. Genes
follow the number of nuclei at one cover of them (DEN), the length of their outlines (EDG), or the nuclei 100 to 200 µm
around the spot (NBR), each less what the shares of nuclei, glands, stroma and lymphocytes in the spot say of it. Said
is the Pearson with the logarithm of the planted rate, mean over genes and seeds, and over seeds the lowest and highest.
`colors` is a histogram of every channel, made here; with `texture` the spot is described as by default. Crops are of 64
µm, a little more than a spot; all models see these alone, `triplex` and `bg_triplex` the tiles around as well.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import sq_imputer as sqi
from sq_imputer.encoders import Encoder, encoder_card, register_encoder
from sq_imputer.models import bg_triplex, mlp, triplex

KINDS = ("NUC", "DEN", "EDG", "NBR")
BINS = 8


class Colors(Encoder):
    """A histogram of red, green and blue: nothing of where in a crop a color is."""

    def encode(self, crops: torch.Tensor) -> torch.Tensor:
        """Shares `(B, 24)`."""
        return self._bins(crops).mean((2, 3))

    def places(self, crops: torch.Tensor, grid: int | None) -> torch.Tensor:
        """Shares `(B, grid, grid, 24)` of parts of crops."""
        return torch.nn.functional.adaptive_avg_pool2d(self._bins(crops), grid).movedim(1, -1)

    def _bins(self, crops: torch.Tensor) -> torch.Tensor:
        bins = (crops.float() * (BINS / 256)).long()
        return torch.nn.functional.one_hot(bins, BINS).movedim(-1, 2).flatten(1, 2).float()


def models(features: str, epochs: int) -> dict[str, sqi.Predictor]:
    """What is compared: a spot alone, with what is around it, and guided by edges and nuclei as well."""
    seen = {"encoders": (features,), "extent_um": 64.0, "size_px": 64, "context_um": ()}
    taught = {"tokens": 2, "neighbors": 5, "epochs": epochs, "lr": 3e-3, "batch_size": 64, "dropout": (0.1,) * 4}
    guided = {"maps_px": 64, "maps_um": 1.0}
    return {
        "mlp": mlp.Model(mlp.Config(**seen)),
        "triplex": triplex.Model(replace(triplex.Config.small(), **seen, **taught)),
        "bg_triplex, edges": bg_triplex.Model(
            replace(bg_triplex.Config.small(), **seen, **taught, **guided, maps=("edges",))
        ),
        "bg_triplex": bg_triplex.Model(replace(bg_triplex.Config.small(), **seen, **taught, **guided)),
    }


def right(model: sqi.Predictor, slides: list, truth: np.ndarray, seed: int) -> dict[str, float]:
    """Mean Pearson with the planted rates of a section that was not trained on, by kind of gene."""
    model = model.fresh().fit(slides[:-1], sqi.Plan(device="cpu", progress=False, calibration=0, seed=seed))
    said = model.predict(slides[-1], device="cpu").mean.numpy()
    found = [np.corrcoef(said[:, g], truth[:, g])[0, 1] for g in range(truth.shape[1])]
    return {kind: np.mean([r for r, g in zip(found, model.genes, strict=True) if g.startswith(kind)]) for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--features", nargs="+", default=["colors", "texture"])
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    card = replace(encoder_card("texture"), name="colors", dim=3 * BINS)
    register_encoder(card, lambda card, weights, revision: Colors(card, {"weights": "none"}))
    drawn = sqi.datasets.toy(1, sections_per_patient=args.sections, size_px=1600, n_genes=24, beyond_color=True, seed=1)
    slides = [sqi.Slide.from_sdata(sdata) for sdata in drawn.values()]
    genes = [gene for gene in slides[0].var_names if gene.startswith(KINDS)]
    slides = [slide.with_genes(genes) for slide in slides]
    table = list(drawn.values())[-1].tables["table"]
    truth = table.obsm["truth"][:, [table.var_names.get_loc(gene) for gene in genes]]
    found: dict = {}
    for features in args.features:
        for name, model in models(features, args.epochs).items():
            runs = [right(model, slides, truth, seed) for seed in range(args.seeds)]
            row = {kind: [float(f([run[kind] for run in runs])) for f in (np.mean, np.min, np.max)] for kind in KINDS}
            found.setdefault(features, {})[name] = row
            cells = (f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in row.values())
            print("|", features, "|", name, "|", " | ".join(cells), "|", flush=True)
    if args.json is not None:
        figures = json.loads(args.json.read_text())
        figures["beyond color"] = figures.get("beyond color", {}) | found
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
