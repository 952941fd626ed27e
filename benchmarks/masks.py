"""Why `seq2exp` learned nothing of accessibility: what a mask of a tenth, its noise and its divergence each cost.

    python benchmarks/masks.py [--data FOLDER] [--json benchmarks/figures.json]

Part `atac` of `benchmarks/sequence.py` with two chromosomes to learn from instead of ten, one fit and one seed a row,
and Pearson on 4,000 bins of the two chromosomes for choices; those for tests are not read. Without masks, every base is
read as it is; "a mask of .1" multiplies all of them by that, and "ten times a drawn mask" by ten times what is drawn
from the prior, which is noise around 1. The others are `seq2exp`, its masks as they are or leveled (divided by the
mean of the prior).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import sequence
import torch

from sq_imputer.nn import masks

LEARNED = ("chrIV", "chrXII")


class Tenth(sequence.Unmasked):
    """A tenth of every base."""

    def mask(self, betas, batch, random, generators=()):
        return 0.1 * super().mask(betas, batch, random, generators)


class Noise(sequence.Unmasked):
    """Every base, by ten times a mask that is drawn from the prior while learning."""

    def mask(self, betas, batch, random, generators=()):
        allowed = super().mask(betas, batch, random, generators)
        prior = masks.Betas(torch.full(allowed.shape, 10.0), torch.full(allowed.shape, 90.0))
        return 10 * masks.sample(prior) * allowed if random else allowed


FITS = {  # rates that rise at first: without, some fits stop learning in their first steps, which nothing here is about
    "without masks": (sequence.Unmasked, {}),
    "a mask of .1 everywhere": (Tenth, {}),
    "ten times a mask drawn from the prior": (Noise, {}),
    "masks as they are": (sequence.MODEL, {"leveled": False}),
    "masks, leveled": (sequence.MODEL, {}),
    "masks, leveled, divergence x .01, running mean": (sequence.MODEL, {"kl_weight": 1e-4, "ema": 0.998}),
}
PASSES, WARMUP = 8, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with dna/; or SQ_IMPUTER_DATA")
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = (args.data or Path(os.environ.get("SQ_IMPUTER_DATA", "../shared/data"))) / "dna"
    yeast = sequence.read_yeast(data)
    table = pd.read_csv(data / "yeast_atac_cuts_50bp.tsv.gz", sep="\t").assign(cuts=lambda t: np.log1p(t["cuts"]))
    train = sequence.tiles(table[table["chrom"].isin(LEARNED)], yeast).by_chromosome()
    left = table[table["chrom"].isin(sequence.CHOSEN_ON)]
    asked, windows = sequence.in_tiles(left, yeast).sample(4000, random_state=0), sequence.tiles(left, yeast)
    rows = {}
    for name, (make, changes) in FITS.items():
        model, seconds = sequence.fitted(sequence.ATAC, train, 0, make=make, epochs=PASSES, warmup=WARMUP, **changes)
        found = {"seconds": seconds}
        found["pearson"] = sequence.pearson(sequence.at_bins(model, windows, asked), asked["cuts"])
        if make is sequence.MODEL:
            found["mean mask"] = float(sequence.masks_of(model, windows).mean())
        rows[name] = sequence.rounded(found)
        print(name, rows[name], flush=True)
    if args.json is not None:
        figures = json.loads(args.json.read_text())
        figures["masks"] = rows
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
