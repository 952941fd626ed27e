"""Planted shifts, mirror images and scales on real tissue and toy cells, and what `pp.alignment` says of them.

    python benchmarks/alignment.py [--data FOLDER] [--sets published her2st mob mouse_brain cells many]
                                   [--json benchmarks/figures.json] [--pictures docs/_static]

Shapes are moved by some µm, along x and against y alike; nobody knows how well a section lies as it is, so that errors
are of the shift that is found beyond what was found of the section as it is. her2st: C2, also with its axes swapped.
mob: MOB1, also mirrored. Mouse brain: the section, also 10 % too large. Cells: circles of 10 µm on toy nuclei, whose
counts follow the colors within 8 µm. "many" is some 100,000 of them, the same tissue beside itself again and again.
"published" are six sections of her2st and two of the bulb as they are, which are taken to lie right. Seconds are of the
CPU, of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import sq_imputer as sqi
from sq_imputer.runs.alignment import Alignment, align
from sq_imputer.section.slide import Slide

SHIFTS_UM = {"cells": (0.0, 5.0, 20.0, 100.0), "many": (0.0, 20.0)}
OF_SPOTS_UM = (0.0, 5.0, 20.0, 100.0, 400.0)
SEARCH_UM = 500.0
MANY = 17  # toys along a side, for 100,000 cells


def moved(slide: Slide, change: Callable[[np.ndarray], np.ndarray]) -> Slide:
    """The section with its rows elsewhere on the image, in µm."""
    return replace(slide, centers_px=slide.frame.to_px(change(slide.xy_um)))


def toy_cells(side_px: int = 800, mpp: float = 0.5, n_tiles: int = 1) -> Slide:
    """Cells of a toy tissue, beside itself: a row for each nucleus, with counts that follow the tissue around it."""
    from skimage.measure import regionprops

    sdata = sqi.datasets.toy(1, size_px=side_px, mpp=mpp, seed=5)["P1"]
    labels = np.asarray(sdata.labels["nuclei"])
    props = regionprops(labels)
    px = np.array([one.centroid[::-1] for one in props]) + 0.5
    crop = np.asarray(sdata.images["he"]["scale0"]["image"].data).astype(float)
    rng = np.random.default_rng(0)
    at = px.astype(int)
    half = round(8 / mpp)
    padded = np.pad(crop, ((0, 0), (half, half), (half, half)), mode="reflect")
    seen = np.stack([padded[:, y : y + 2 * half, x : x + 2 * half].mean(axis=(1, 2)) for x, y in at])
    seen = (seen - seen.mean(axis=0)) / seen.std(axis=0)
    rate = np.exp(0.7 * seen @ rng.normal(size=(3, 60)) / np.sqrt(3))
    rate = np.tile(rate * 60 / rate.sum(axis=1, keepdims=True), (n_tiles**2, 1))
    counts, crop = rng.poisson(rate), np.tile(crop.astype(np.uint8), (1, n_tiles, n_tiles))
    tiles = np.stack(np.meshgrid(*[np.arange(n_tiles) * side_px] * 2), axis=-1).reshape(-1, 1, 2)
    px = (px + tiles).reshape(-1, 2)
    names = [f"cell-{k}" for k in range(len(px))]
    places = pd.DataFrame(px, index=names, columns=["px", "py"]).assign(measured=True, array_row=0, array_col=0)
    from scipy.sparse import csr_matrix

    from sq_imputer.io import assemble

    names = [f"G{k}" for k in range(counts.shape[1])]
    how = {"mpp": mpp, "spot_diameter_um": 10.0, "section": "cells", "patient": "P1"}
    return Slide.from_sdata(assemble(crop, places, csr_matrix(counts), names, **how))


def slides(name: str, data: Path | None) -> Slide:
    """One section of a set."""
    if name in SHIFTS_UM:
        return toy_cells(n_tiles=MANY if name == "many" else 1)
    found = {
        "her2st": lambda: sqi.datasets.her2st(data and data / "her2st", sections=("C2",))["C2"],
        "mob": lambda: sqi.datasets.mob(data and data / "mob")["MOB1"],
        "mouse_brain": lambda: sqi.datasets.mouse_brain(data and data / "mbrain_visium"),
    }[name]()
    return Slide.from_sdata(found)


def row(found: Alignment, expected: np.ndarray, own: np.ndarray, seconds: float) -> dict:
    """What was found of one planted shift."""
    away = found.shift_um - own - expected
    return {
        "verdict": found.verdict,
        "turn": found.turn,
        "x_um": float(found.shift_um[0]),
        "y_um": float(found.shift_um[1]),
        "error_um": float(np.hypot(*away)),
        "within_um": found.within_um,
        "skill": found.skill,
        "p": found.p,
        "pitch_um": found.pitch_um,
        "seconds": seconds,
    }


def measured(name: str, data: Path | None, pictures: Path | None) -> dict[str, dict]:
    """What is found of a section as it is, and of planted shifts, mirror images and scales."""
    slide, found = slides(name, data), {}
    middle, own = slide.xy_um.mean(axis=0), np.zeros(2)
    search = 150.0 if name in SHIFTS_UM else SEARCH_UM
    for um in SHIFTS_UM.get(name, OF_SPOTS_UM):
        planted = um * np.array([1.0, -1.0]) / np.sqrt(2)
        start = time.process_time()
        said = align(moved(slide, lambda xy, by=planted: xy + by), search, (), 0)
        own = said.shift_um if um == 0 else own
        found[f"{um:g} µm"] = row(said, -planted, own, time.process_time() - start)
        print(name, f"{um:g} µm", said.verdict, said.reason, found[f"{um:g} µm"], flush=True)
        if um == 100 and pictures is not None and name == "mouse_brain":
            axes = sqi.pl.alignment(said)
            axes[0].figure.savefig(pictures / "alignment.png", dpi=80)
    box = slide.frame.box_um
    others = {
        "her2st": ("axes swapped", "flip", lambda xy: box[0] + (xy - box[0])[:, ::-1]),
        "mob": ("mirrored", "flip", lambda xy: np.column_stack([box.sum(axis=0)[0] - xy[:, 0], xy[:, 1]])),
        "mouse_brain": ("10 % too large", "scale", lambda xy: (xy - middle) * 1.1 + middle),
    }
    if name in others:
        called, also, change = others[name]
        start = time.process_time()
        said = align(moved(slide, change), 200.0, (also,), 0)
        found[called] = row(said, np.zeros(2), own, time.process_time() - start)
        print(name, called, said.verdict, said.reason, found[called], flush=True)
    return found


def published(data: Path | None) -> dict[str, dict]:
    """What is found of sections as they were published."""
    sections = sqi.datasets.her2st(data and data / "her2st", sections=("A1", "B4", "C2", "C3", "C4", "C5"))
    found = {}
    for name, sdata in (sections | sqi.datasets.mob(data and data / "mob")).items():
        start = time.process_time()
        said = align(Slide.from_sdata(sdata), SEARCH_UM, (), 0)
        found[name] = row(said, np.zeros(2), np.zeros(2), time.process_time() - start)
        print(name, said.verdict, said.reason, found[name], flush=True)
    return found


def rounded(row: dict) -> dict:
    """What is kept of a row: times hang on the machine."""
    kept = {name: value for name, value in row.items() if name != "seconds"}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in kept.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st, mob, mbrain_visium")
    parser.add_argument("--sets", nargs="+", default=["published", "her2st", "mob", "mouse_brain", "cells", "many"])
    parser.add_argument("--pictures", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in args.sets:
        found = published(args.data) if name == "published" else measured(name, args.data, args.pictures)
        if args.json is not None:
            figures = json.loads(args.json.read_text())
            figures.setdefault("alignment", {})[name] = {case: rounded(one) for case, one in found.items()}
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
