"""What guides `bg_triplex`, and what comes of it: edges and nuclei in crops of real tissue, and maps of three genes.

    python benchmarks/guided.py [--data FOLDER] [--test C2] [--genes IGKC FN1 GNAS] [--out FOLDER]

As benchmarks/maps.py: fitted on the other sections of her2st C2 to C5 (replicates of one tumor, not new patients), 250
genes chosen on them, every model with its defaults. Below the maps are crops of the test section, at spots spread over
its darkness: as scanned, with the edges, and with the nuclei that were found. Writes bg_triplex.png for the page of
the model. Data: Andersson et al. 2021, CC BY 4.0.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import maps
import matplotlib.pyplot as plt
import numpy as np
import torch

import sq_imputer as sqi
from sq_imputer.pl import _panels as draw
from sq_imputer.section.slide import Slide

NAMES = ("triplex", "bg_triplex")
CROPS = 2


def crops_of(test: Slide) -> tuple[np.ndarray, np.ndarray]:
    """Crops `(n, 3, S, S)` at spots from pale to dark, and edges and nuclei drawn there, `(n, C, S, S)`."""
    needs = sqi.get_model("bg_triplex")().needs
    alone = {"context_um": (), "neighbors": 0, "whole_slide": False, "tokens": 0}
    drawn = np.empty((len(test), 4, needs.crop.size_px, needs.crop.size_px), dtype=np.uint8)
    for batch in test.batches(replace(needs, maps_px=needs.crop.size_px, **alone), 64):
        drawn[batch.index.numpy()] = batch.maps[:, 0].numpy()
    crops = test.crops(needs.crop)[: len(test)]
    order = crops.mean(axis=(1, 2, 3)).argsort()[::-1]
    chosen = order[(np.linspace(0.2, 0.95, CROPS) * (len(order) - 1)).astype(int)]
    return crops[chosen], drawn[chosen]


def show_crops(axes, crops: np.ndarray, drawn: np.ndarray) -> None:
    """A row per crop: as scanned, its edges, and the borders of its nuclei over it."""
    for row, crop, own in zip(axes, crops, drawn, strict=True):
        picture = crop.transpose(1, 2, 0)
        row[0].imshow(picture)
        row[1].imshow(255 - own[0], cmap="gray", vmin=0, vmax=255)
        over = picture.copy()
        over[own[2] > 0] = (0, 90, 255)
        row[2].imshow(over)
        for ax in row:
            ax.set_axis_off()
    for ax, title in zip(axes[0], ("crop", "edges", "nuclei"), strict=True):
        ax.set_title(title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--test", default="C2")
    parser.add_argument("--genes", nargs="+", default=["IGKC", "FN1", "GNAS"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=maps.OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    test, training = maps.left_out(args.data, args.test, args.genes)
    found, columns = {"measured": test.expression}, [test.genes.index(gene) for gene in args.genes]
    for name in NAMES:
        model = sqi.get_model(name)().fit(training, sqi.Plan(device=args.device, calibration=0))
        found[name] = model.predict(test, device=args.device).mean.numpy()
    values = {name: part[:, columns] for name, part in found.items()}
    own = maps.Maps(test, draw.background(test, {}), args.genes, values)
    figure, axes = maps.figure_of(len(args.genes) + CROPS, len(values), test)
    maps.rows_of_maps(axes[: len(args.genes)], own, list(values))
    show_crops(axes[len(args.genes) :], *crops_of(test))
    maps.write(figure, args.out / "bg_triplex.png")
    plt.close("all")


if __name__ == "__main__":
    main()
