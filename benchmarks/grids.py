"""What share of measured spots lies on the tissue that `pp.grid` finds: `python benchmarks/grids.py`.

Every shared section as it is, and as scanners and people change it: black and white strips, a black frame, crops inside
the tissue and over its border, light that falls off to one side, a dark half, and the slide turned in its system. The
changes are made to a picture of 8 µm per pixel, which is as fine as anything here looks. Beside it, how many of the
circles lie on black, and how many farther than 300 µm from every spot (a frame of fiducials would be there).
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine

import sq_imputer as sqi
from sq_imputer.section.frame import read_frame
from sq_imputer.section.overview import picture
from sq_imputer.section.slide import Slide
from sq_imputer.section.tissue import covers, tissue

DATA = Path(os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).parents[2] / "shared" / "data")
SPACING_UM = 100.0
UM = 8.0


def sections() -> Iterator[tuple[str, SpatialData]]:
    """Every shared section with an image, and the toy."""
    yield from sqi.datasets.her2st(DATA / "her2st", ("C2", "C3", "C4", "C5", "B4", "A1")).items()
    yield from sqi.datasets.mob(DATA / "mob").items()
    yield "mouse_brain", sqi.datasets.mouse_brain(DATA / "mbrain_visium")
    yield "toy", next(iter(sqi.datasets.toy(1).values()))


def changed(rgb: np.ndarray, spots: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray, float]]:
    """Name, picture, places of the spots in its pixels, and the angle by which it is turned in its system."""
    wide, (low, middle, high) = rgb.shape[1] // 10, np.percentile(spots, [30, 50, 70], axis=0).astype(int)
    yield "plain", rgb, spots, 0
    yield "black strip", np.pad(rgb, ((0, 0), (wide, 0), (0, 0))), spots + [wide, 0], 0
    yield "white strip", np.pad(rgb, ((0, 0), (wide, 0), (0, 0)), constant_values=255), spots + [wide, 0], 0
    yield "black frame", np.pad(rgb, ((wide, wide), (wide, wide), (0, 0))), spots + wide, 0
    yield "crop inside", rgb[low[1] : high[1], low[0] : high[0]], spots - low, 0
    yield "crop at border", rgb[: middle[1], : middle[0]], spots, 0
    light = np.linspace(0.5, 1, rgb.shape[1])[None, :, None]
    yield "light falls off", (rgb * light).astype(np.uint8), spots, 0
    dark = np.where(np.arange(rgb.shape[1])[None, :, None] < middle[0], rgb // 2, rgb)
    yield "dark half", dark, spots, 0
    yield "turned by 90", rgb, spots, 90
    yield "turned by 20", rgb, spots, 20


def placed(rgb: np.ndarray, um: float, angle: float) -> SpatialData:
    """An object with this picture, turned in "um"."""
    turn = np.deg2rad(angle)
    matrix = np.eye(3)
    matrix[:2, :2] = um * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    systems = {"um": Affine(matrix, ("x", "y"), ("x", "y"))}
    return SpatialData(images={"he": Image2DModel.parse(rgb, dims=("y", "x", "c"), transformations=systems)})


def main() -> None:
    """Print both tables, and draw the masks if asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    share, wrong = {}, {}
    for name, sdata in sections():
        slide = Slide.from_sdata(sdata)
        rgb, extent = picture(read_frame(sdata), 10_000, least_um=UM)
        um = (extent[1] - extent[0]) / rgb.shape[1]
        spots = (slide.xy_um[slide.measured] - [extent[0], extent[3]]) / um
        for change, image, at, angle in changed(rgb, spots):
            one = placed(image, um, angle)
            frame = read_frame(one)
            inside = ((at >= 0) & (at < image.shape[1::-1])).all(axis=1)
            xy_um = at @ frame.to_um[:2, :2].T + frame.to_um[:2, 2]
            mask, box = tissue(frame)
            sqi.pp.grid(one, spacing_um=SPACING_UM)
            px = np.column_stack([one["grid"].geometry.x, one["grid"].geometry.y])
            black = image[tuple(px.astype(int).T[::-1])].max(axis=1) < 12
            away = cKDTree(at).query(px)[0] * um > 300
            share.setdefault(name, {})[change] = covers(mask, box, xy_um[inside]).mean()
            wrong.setdefault(name, {})[change] = f"{black.mean():.1%}, {away.mean():.1%}"
            if options.pictures and change in ("plain", "black strip"):
                draw(rgb if change == "plain" else image, one, options.pictures / f"{name}_{change}.png")
    print("share of the measured spots on the image that lie on the tissue\n")
    print(pd.DataFrame(share).T.to_markdown(floatfmt=".3f"))
    print("\nshare of the circles on black, and farther than 300 µm from every spot\n")
    print(pd.DataFrame(wrong).T.to_markdown())


def draw(rgb: np.ndarray, sdata: SpatialData, path: Path) -> None:
    """The picture with the circles of the grid."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(14, 7))
    for ax in axes:
        ax.imshow(rgb)
        ax.set_axis_off()
    axes[1].scatter(sdata["grid"].geometry.x, sdata["grid"].geometry.y, s=2, color="gold")
    figure.savefig(path, dpi=70, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
