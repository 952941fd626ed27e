"""Windows described together by the patch tokens of a vision transformer, beside the same crop by crop.

    python benchmarks/tokens.py [--data FOLDER] [--models vit_tiny_patch16_224 vit_small_patch16_224] [--cells 500]

Weights are random, of one seed: no others can be had without network. So the agreement says what tiles, positions and
the share of a patch at the rim cost, and nothing of what trained attention gathers from farther away. Rows are cells at
random on section C3 of her2st, crops of 150 µm in 224 pixels; the correlation is over the rows, and its median over
features.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from safetensors.torch import save_file

import sq_imputer as sqi
from sq_imputer import CropSpec, Slide
from sq_imputer.encoders import EncoderCard, get_encoder, in_blocks, register_encoder
from sq_imputer.section.features import compute, reader

SPEC = CropSpec(150.0, 224)


def random(model: str, pool: str, folder: Path):
    """The encoder with random weights, of which the features are its class token or the mean of its patches."""
    torch.manual_seed(0)
    options = {"global_pool": pool}
    tower = timm.create_model(model, pretrained=False, num_classes=0, **options)
    save_file(tower.state_dict(), folder / f"{model}.{pool}.safetensors")
    known = {"license": "BSD-3-Clause", "commercial": True, "gated": False, "architecture": model, "size_px": 224}
    look = {"dim": tower.num_features, "mpp": 0.5, "mean": (0.7, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    card = EncoderCard(name=f"{model}.{pool}", **look, **known, options=options, pool="model")
    register_encoder(card)
    return get_encoder(card.name, weights=folder / f"{model}.{pool}.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--models", nargs="+", default=["vit_tiny_patch16_224"])
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--side_um", type=float, default=600.0, help="of the square that they lie in")
    args = parser.parse_args()
    torch.set_num_threads(1)
    [sdata] = sqi.datasets.her2st(None if args.data is None else args.data / "her2st", ("C3",)).values()
    slide = Slide.from_sdata(sdata)
    middle, half = np.median(slide.centers_px, axis=0), args.side_um / slide.frame.pixel.mpp / 2
    at = middle + np.random.default_rng(0).uniform(-half, half, (args.cells, 2))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            for pool in ("avg", "token"):
                encoder = random(model, pool, Path(folder))
                form = in_blocks(encoder)
                found = {}
                for way, one, dense in (("crops", encoder, False), ("tokens", form, True), ("alone", form, False)):
                    start = time.process_time()
                    found[way] = compute(reader(slide.frame, at, SPEC, one, dense=dense), one)
                    found[f"{way} s"] = time.process_time() - start
                r = [
                    [np.corrcoef(a, b)[0, 1] for a, b in zip(found["crops"].T, found[way].T, strict=True)]
                    for way in ("tokens", "alone")
                ]
                rows.append(
                    {"encoder": model, "feature": pool, "r": np.median(r[0]), "r, crops' own tokens": np.median(r[1])}
                    | {f"rows per CPU-second, {way}": args.cells / found[f"{way} s"] for way in ("crops", "tokens")}
                )
                print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
