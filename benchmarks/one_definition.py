"""Why a window that is described from its crop alone differs from the same window on its slide, cause by cause.

    python benchmarks/one_definition.py [--data FOLDER] [--windows 30] [--genes 100] [--json benchmarks/figures.json]

Windows lie on the tissue of her2st C3, up to 100 µm beside its spots. Each is described with `texture` on the slide, in
a block of its own: that is the definition. Then one thing after another is changed, and nothing else:

- phase: the blocks of 32 pixels begin at the window, and not on the grid of the slide;
- border: beside that, what lies around the window is mirrored and not read;
- pixels: phase, and pixels are those of a crop, moved and resized to 224 a side, with what lies around it;
- crop: all of that, as an encoder that is handed a crop has it; and `dense=False`, as verbs have it.

Printed for each: over all features of the three views of the default `ridge` (150, 400, 800 µm), the share whose
correlation over the windows is below .995, the median, the median of the largest of the differences in standard
deviations, and Pearson's r per gene of the predictions of a ridge fitted on C3.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch

import sq_imputer as sqi
from sq_imputer.contract import CropSpec
from sq_imputer.encoders import get_encoder
from sq_imputer.encoders._texture_maps import BLOCK, HALO
from sq_imputer.encoders._windows import Boxes
from sq_imputer.encoders.texture import FEATURES, _mirrored
from sq_imputer.pixels.dense import STRIDES, Dense
from sq_imputer.section.features import compute, reader

WAYS = ("phase", "border", "pixels", "crop", "dense=False")
NEAR_UM = 100.0


def windows(sdata, n: int) -> sqi.Slide:
    """A slide of windows on tissue, of which nothing was measured."""
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    spots = sqi.Slide.from_sdata(sdata)
    rng, mpp = np.random.default_rng(0), spots.frame.pixel.mpp
    centers = spots.centers_px[rng.choice(len(spots), n)] + rng.uniform(-NEAR_UM, NEAR_UM, (n, 2)) / mpp
    place = {"transformations": {spots.frame.coordinate_system: Identity()}}
    shapes = ShapesModel.parse(centers, geometry=0, radius=10.0, **place)
    own = SpatialData(images=dict(sdata.images), shapes={"windows": shapes})
    keys = {"shapes_key": "windows", "table_key": None, "mpp": mpp}
    return sqi.Slide.from_sdata(own, coordinate_system=spots.frame.coordinate_system, **keys)


def on_slide(slide, spec: CropSpec, encoder):
    """Per row, its block with room to move: pixels `(1, 3, S, S)`, and where the window begins and ends there."""
    known = {"mpp": slide.frame.pixel.mpp, "block": encoder.block, "halo": HALO + BLOCK, "stride": STRIDES[0]}
    for some in Dense(slide.frame.pyramid, slide.centers_px, spec, **known).batches(np.arange(len(slide))):
        for row, image, low, high in zip(some.rows, some.image, some.low, some.high, strict=True):
            yield row, torch.from_numpy(some.pixels[image][None]), low, high


def _box(low: np.ndarray, high: np.ndarray) -> Boxes:
    return Boxes(torch.zeros(1, dtype=torch.long), torch.from_numpy(low)[None], torch.from_numpy(high)[None])


def as_phase(encoder, pixels, low, high) -> torch.Tensor:
    """The same pixels, with blocks that begin where the window does."""
    first = np.floor(low).astype(int) - HALO
    side = BLOCK * int(np.ceil((high - low).max() / BLOCK + 1)) + 2 * HALO
    part = pixels[:, :, first[0] : first[0] + side, first[1] : first[1] + side]
    keep = part.shape[2] // BLOCK * BLOCK
    return encoder.windows(part[:, :, :keep, :keep], _box(low - first, high - first))


def as_border(encoder, pixels, low, high) -> torch.Tensor:
    """Beside that, mirrored at the pixels that the window touches."""
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int)
    part = pixels[:, :, first[0] : last[0], first[1] : last[1]]
    even = part[:, :, : part.shape[2] // 2 * 2, : part.shape[3] // 2 * 2]  # of an odd number new pixels would be made
    images = _mirrored(even)
    around = (np.array(images.shape[2:]) - even.shape[2:]) / 2
    end = np.minimum(high - first, even.shape[2:])
    return encoder.windows(images, _box(low - first + around, end + around))


def as_pixels(slide, spec: CropSpec, encoder) -> np.ndarray:
    """Crops with what lies around them, as they are resampled, described in their middle."""
    around = 2 * BLOCK
    size = spec.size_px + 2 * around
    crops = slide.frame.crops(slide.centers_px, CropSpec(spec.extent_um * size / spec.size_px, size))
    found = np.empty((len(slide), len(FEATURES)), np.float32)
    low = torch.full((1, 2), float(around), dtype=torch.float64)
    for rows, pixels in crops.batches(8):
        boxes = Boxes(torch.arange(len(rows)), *(x.expand(len(rows), 2) for x in (low, low + spec.size_px)))
        found[rows] = encoder.windows(torch.from_numpy(pixels), boxes).numpy()
    return found


def described(slide, spec: CropSpec, encoder) -> dict[str, np.ndarray]:
    """Features `(n, 231)` of one view, on the slide and in every other way."""
    found = {name: np.empty((len(slide), len(FEATURES)), np.float32) for name in ("slide", "phase", "border")}
    for row, pixels, low, high in on_slide(slide, spec, encoder):
        found["slide"][row] = encoder.windows(pixels, _box(low, high)).numpy()
        found["phase"][row] = as_phase(encoder, pixels, low, high).numpy()
        found["border"][row] = as_border(encoder, pixels, low, high).numpy()
    found["pixels"] = as_pixels(slide, spec, encoder)
    found["crop"] = compute(slide.frame.crops(slide.centers_px, spec), encoder, device="cpu")
    alone = reader(slide.frame, slide.centers_px, spec, encoder, dense=False)
    return found | {"dense=False": compute(alone, encoder, device="cpu")}


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's r of every column; of columns that do not vary NaN."""
    a, b = (x - x.mean(axis=0, dtype=np.float64) for x in (one, other))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def predicted(slide, views, features: dict[CropSpec, np.ndarray], model) -> np.ndarray:
    """What a model says of rows that are described so."""
    from dataclasses import replace

    fresh = replace(slide)
    for spec in views:
        fresh.remember("texture", spec, features[spec], {})
    return np.asarray(model.predict(fresh).mean)


def compared(slide, model, encoder) -> dict[str, dict[str, float]]:
    views = model.needs.views
    ways = {spec: described(slide, spec, encoder) for spec in views}
    base = predicted(slide, views, {spec: ways[spec]["slide"] for spec in views}, model)
    shown = {}
    for way in WAYS:
        pairs = [(ways[spec]["slide"], ways[spec][way]) for spec in views]
        r = np.concatenate([correlations(*pair) for pair in pairs])
        sd = np.concatenate([np.abs(a - b).max(axis=0) / np.maximum(a.std(axis=0), 1e-3) for a, b in pairs])
        of_genes = correlations(base, predicted(slide, views, {spec: ways[spec][way] for spec in views}, model))
        shown[way] = {"share below .995": float(np.nanmean(r < 0.995)), "median r": float(np.nanmedian(r))}
        shown[way] |= {"median of largest, sd": float(np.median(sd)), "largest, sd": float(sd.max())}
        shown[way] |= {"genes, median r": float(np.median(of_genes)), "genes, least r": float(of_genes.min())}
        names = np.array([f"{name} {spec.extent_um:g}" for spec in views for name in FEATURES])
        print(way, {k: round(v, 4) for k, v in shown[way].items()}, "worst:", ", ".join(names[np.argsort(r)[:6]]))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="folder with her2st; or SQ_IMPUTER_DATA")
    parser.add_argument("--windows", type=int, default=30)
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--json", type=Path, default=None, help="file of figures to be brought up to date")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    data = None if args.data is None else args.data / "her2st"
    sdata = sqi.datasets.her2st(data, sections=("C3",))["C3"]
    model = sqi.tl.fit(sdata, "ridge", genes=args.genes, progress=False)
    found = compared(windows(sdata, args.windows), model, get_encoder("texture"))
    if args.json is not None:
        figures = json.loads(args.json.read_text())
        figures["one definition"] = {way: {k: round(v, 5) for k, v in row.items()} for way, row in found.items()}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
