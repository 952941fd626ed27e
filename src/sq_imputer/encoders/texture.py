"""`texture`: color, stain and texture of an H&E window as named numbers. No weights, and the same for every batch size.

The pixels become optical densities, these become amounts of hematoxylin and eosin by the fixed stain vectors of
Ruifrok and Johnston (2001), and the window is described by the moments and shares of every amount, its energy per
octave (a Haar pyramid), its gradients, its local binary patterns, the hematoxylin blobs (nuclei, where the resolution
shows them) and where in the window it lies. All are functions of means of maps over the window and parts of it
(`_texture_maps.py`), so that windows that overlap share the work on their pixels, and none changes, beyond rounding,
when the window is turned by 90 degrees or mirrored.

Octave k describes structures of about 2^k pixels, so features are comparable only at one resolution. Windows have 32
pixels a side or more, as five octaves need. A crop without its surroundings is mirrored at its borders, and halved
around its middle. `FEATURES` names the numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sq_imputer.device import one_thread
from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.encoders._texture_maps import (
    BLOBS,
    BLOCK,
    CELL,
    COHERENT,
    DARK,
    HALO,
    OCTAVES,
    PLACED,
    SHARES,
    maps_of,
)
from sq_imputer.encoders._windows import Boxes, summed, window_means
from sq_imputer.errors import BadInput

REVISION = 3  # to be raised when the numbers change: features in a cache or a fitted model are then known to be old
MIN_SIZE = BLOCK
FAINT = 0.005  # a standard deviation: where nothing varies, a root alone would grow infinitely fast
FEW = {"nuc_l1": 1e-4, "nuc_l2": 4e-4, "nuc_l3": 1.6e-3}  # peaks per pixel of a level: about one in a window of 200 px
PIXELS = 600_000  # worked on at once: their maps stay near a CPU

Found = dict[str, Tensor]  # (n,) by name
Means = dict[str, Tensor]  # (n,) by name of the map


def _log(x: Tensor) -> Tensor:
    return torch.log(x + 1e-3)


def _root(variance: Tensor, faint: float = FAINT) -> Tensor:
    """Standard deviation, less of what is faint: a window that moves by a hair must change by no more than that."""
    return (variance.clamp(min=0) + faint**2).sqrt() - faint


def _sd(means: Means, name: str) -> Tensor:
    return _root(means[f"{name}^2"] - means[name].square())


def _correlation(means: Means, x: str, y: str, product: str) -> Tensor:
    return (means[product] - means[x] * means[y]) / (_sd(means, x) * _sd(means, y) + 1e-3)


def _color(means: Means) -> Found:
    """Distributions of optical densities and stains; saturation and hue."""
    found: Found = {}
    names = [f"od_{c}" for c in "rgb"] + [f"color_{c}" for c in ("saturation", "hue_a", "hue_b", "light")]
    for name in (*names, *(f"hed_{stain}" for stain in SHARES)):
        found |= {f"{name}_mean": means[name], f"{name}_sd": _sd(means, name)}
    for i, j in ("rg", "gb", "rb"):
        found[f"od_cor_{i}{j}"] = _correlation(means, f"od_{i}", f"od_{j}", f"od_{i}{j}")
    for stain, thresholds in SHARES.items():
        name, mean, sd = f"hed_{stain}", means[f"hed_{stain}"], found[f"hed_{stain}_sd"]
        third = means[f"{name}^3"] - 3 * mean * means[f"{name}^2"] + 2 * mean**3
        found[f"{name}_skew"] = third / (sd**3 + 1e-3)
        found |= {f"{name}_share{k}": means[f"{name}_share{k}"] for k in range(len(thresholds))}
    return found | {"hed_cor_he": _correlation(means, "hed_h", "hed_e", "hed_he")}


def _octaves(means: Means) -> Found:
    """Energy per octave, how sparse it is, how unevenly it is spread, and how far the two stains share it."""
    found: Found = {}
    for k in range(1, OCTAVES + 1):
        energy = {}
        for name in "hed":
            parts = (means[f"tex_{name}_{part}{k}"] for part in ("axes", "diagonal", "amplitude"))
            axes, corner, amplitude = (part.clamp(min=0) for part in parts)  # rounding leaves less where there is none
            energy[name] = axes + corner
            found[f"tex_{name}_axes{k}"] = torch.log(axes + 1e-5) / 2
            found[f"tex_{name}_diagonal{k}"] = torch.log(corner + 1e-6) / 2
            found[f"tex_{name}_sparse{k}"] = amplitude / (energy[name].sqrt() + 1e-3)
            if k <= OCTAVES - 2:
                found[f"tex_{name}_uneven{k}"] = _log(_sd(means, f"tex_{name}_uneven{k}"))
        found[f"tex_he_shared{k}"] = means[f"tex_he{k}"] / ((energy["h"] * energy["e"]).sqrt() + 1e-4)
    return found


def _gradients(means: Means) -> Found:
    """Magnitude of gradients; how much of their energy has one direction, over the window and over smaller squares."""
    found: Found = {}
    for name in "hd":
        for level, sides in COHERENT.items():
            key = f"grad_{name}{level}"
            xx, yy, xy, magnitude = (means[f"{key}_{part}"] for part in ("xx", "yy", "xy", "magnitude"))
            energy = xx + yy
            found[f"{key}_mean"] = _log(magnitude)
            found[f"{key}_sd"] = _log(_root(energy - magnitude.square(), 4 * FAINT))
            found[f"{key}_coherence"] = ((xx - yy).square() + 4 * xy.square()).sqrt() / (energy + 1e-3)
            for side in sides:
                found[f"{key}_coherence{side}"] = means[f"{key}_coherent{side}"] / (energy + 1e-3)
    return found


def _nuclei(means: Means) -> Found:
    """How many blobs, how large and how dark; the dark share, its area over its border, what lies in and around it."""
    found: Found = {}
    for key in ("nuc_l1", "nuc_l2", "nuc_l3"):
        found |= {f"{key}_{name}": _log(means[f"{key}_{name}"]) for name in ("bright", "hollow")}
        for k in range(len(BLOBS)):
            found[f"{key}_peaks{k}"] = 100 * means[f"{key}_peaks{k}"]
            found[f"{key}_area{k}"] = means[f"{key}_area{k}"]
        weight = means[f"{key}_weight"]
        total = {name: means[f"{key}_weight_{name}"] for name in ("blob", "h", "e", "hh")}
        count = weight + FEW[key]
        found |= {f"{key}_peak_{name}": total[name] / count for name in ("blob", "h", "e")}
        spread = (total["hh"] * weight - total["h"].square()) / count.square()
        found[f"{key}_peak_h_sd"] = _root(spread, 10 * FAINT)  # of few, each counts for much
    found |= {f"nuc_dark{k}": means[f"nuc_dark{k}"] for k in range(len(DARK))}
    share = means["nuc_inside"] + 1e-3
    found["nuc_share"] = share
    found["nuc_size"] = torch.log(share / (means["nuc_inside_border"] + 1e-3))  # area over perimeter
    found["nuc_h_inside"] = means["nuc_inside_h"] / share
    found["nuc_e_inside"] = means["nuc_inside_e"] / share
    found["nuc_e_outside"] = means["nuc_inside_outside_e"] / (1.002 - share)
    return found


def _shares(means: Means) -> Found:
    """Share of the window that is tissue, finely and coarsely seen; share of each local pattern."""
    return {name: values for name, values in means.items() if name.startswith(("tissue_", "lbp_"))}


GRID = 4  # cells a side, of which differences between parts of the window are made
NESTED = 4  # squares around the center


def _parts() -> tuple[Tensor, Tensor]:
    """Where the parts of a window begin and end, in shares of its sides: the cells, then the squares inside it."""
    at = torch.arange(GRID, dtype=torch.float64) / GRID
    cells = torch.cartesian_prod(at, at)
    half = torch.arange(1, NESTED, dtype=torch.float64)[:, None].expand(-1, 2) / NESTED / 2
    return torch.cat([cells, 0.5 - half]), torch.cat([cells + 1 / GRID, 0.5 + half])


def _layout(parts: dict[str, Tensor]) -> Found:
    """What lies where, of means `(n, parts)` of each placed map.

    Differences between halves and between quarters (an edge of tissue or of a layer), and means of the frames between
    nested squares, from the center outwards.
    """
    found: Found = {}
    for name, means in parts.items():
        cells, nested = means[:, : GRID**2], means[:, GRID**2 :]
        if name in ("hed_h", "hed_e", "density"):
            grid = cells.view(-1, GRID, GRID)
            for part in ("quarter", "half"):
                a, b, c, d = grid[:, 0::2, 0::2], grid[:, 0::2, 1::2], grid[:, 1::2, 0::2], grid[:, 1::2, 1::2]
                axes = ((a + c - b - d) / 4).square() + ((a + b - c - d) / 4).square()
                found[f"layout_{name}_{part}"] = _log(axes.mean((1, 2)).sqrt())
                found[f"layout_{name}_{part}_diagonal"] = _log(((a + d - b - c) / 4).square().mean((1, 2)).sqrt())
                grid = (a + b + c + d) / 4
        whole = torch.cat([torch.zeros_like(nested[:, :1]), nested, cells.mean(1, keepdim=True)], 1)
        area = torch.arange(NESTED + 1, dtype=whole.dtype, device=whole.device).square()
        frames = (whole * area).diff(dim=1) / area.diff()
        found |= {f"ring_{name}_{k}": frames[:, k] for k in range(NESTED)}
    return found


def _features(table: Tensor, boxes: Boxes) -> Found:
    """Features of windows, from the table of the sums of the maps of `MAPS`."""
    means = dict(zip(MAPS, window_means(table, boxes, CELL).unbind(1), strict=True))
    begin, end = (x.to(table.device) for x in _parts())
    placed = window_means(table[..., [MAPS.index(name) for name in PLACED]], boxes.parts(begin, end), CELL)
    by_name = dict(zip(PLACED, placed.view(len(boxes), len(begin), -1).unbind(2), strict=True))
    return _color(means) | _octaves(means) | _layout(by_name) | _gradients(means) | _nuclei(means) | _shares(means)


def _mirrored(crops: Tensor) -> Tensor:
    """Crops mirrored on all sides, evenly, up to whole blocks and the halo.

    Crops of an odd number of pixels are sampled between these: only so can they be halved around their middle.
    """
    between = 1
    for axis in (2, 3):
        size = crops.shape[axis]
        odd, whole = size % 2, -(-size // BLOCK) * BLOCK + 2 * HALO
        first = -((whole + odd - size) // 2) % (2 * size)
        to_and_fro = [crops, crops.flip(axis)] * -(-(first + whole + odd) // (2 * size))
        crops = torch.cat(to_and_fro, axis).narrow(axis, first, whole + odd)
        if odd:
            crops = crops.narrow(axis, 0, whole).int() + crops.narrow(axis, 1, whole)
            between *= 2
    return crops if between == 1 else (crops + between // 2) // between


def _surrounded(crops: Tensor) -> tuple[Tensor, Boxes]:
    """Crops with what mirrors show around them, and where they lie."""
    side = torch.tensor(crops.shape[2:], dtype=torch.float64, device=crops.device)
    images = _mirrored(crops)
    low = (torch.tensor(images.shape[2:], dtype=torch.float64, device=crops.device) - side) / 2
    low = low.expand(len(crops), 2)
    return images, Boxes(torch.arange(len(crops), device=crops.device), low, low + side)


class Texture(Encoder):
    """Hand-made features; see the top of this file. `FEATURES` names them."""

    halo, block, constant = HALO, BLOCK, True

    def __init__(self) -> None:
        super().__init__(TEXTURE, {"name": TEXTURE.name, "revision": REVISION})

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the features in order; what stands before the first underscore is their group."""
        return FEATURES

    def encode(self, crops: Tensor) -> Tensor:
        """Features of uint8 crops of one size, 32 pixels or more a side."""
        size = min(crops.shape[2:])
        if size < MIN_SIZE:
            raise BadInput(
                f"encoder 'texture' takes crops of {MIN_SIZE} pixels or more a side, got {size}; pass a larger size_px."
            )
        return torch.cat([self._crops(part) for part in crops.split(max(1, PIXELS // (size + 3 * BLOCK) ** 2))])

    def places(self, crops: Tensor, grid: int | None) -> Tensor:
        """Features of the cells of crops, of 32 pixels or so a side unless said otherwise."""
        grid = grid or max(1, min(crops.shape[2:]) // BLOCK)
        at = torch.cartesian_prod(*[torch.arange(grid, dtype=torch.float64, device=crops.device) / grid] * 2)
        at = at.view(-1, 2)
        found = [
            self.gather(self.maps(images), box.parts(at, at + 1 / grid))
            for images, box in (_surrounded(part) for part in crops.split(16))
        ]
        return torch.cat(found).view(len(crops), grid, grid, -1)

    def _crops(self, crops: Tensor) -> Tensor:
        """Features of crops without surroundings."""
        images, boxes = _surrounded(crops)
        return self.gather(self.maps(images), boxes)

    def maps(self, images: Tensor) -> Tensor:
        """Table of the sums of all maps of images `(B, 3, H, W)` whose sides are multiples of `block`."""
        with one_thread():  # a thousand small steps
            return summed(list(maps_of(images).values()))

    def gather(self, maps: Tensor, boxes: Boxes) -> Tensor:
        """Features `(n, dim)` of windows that lie `halo` pixels or more inside the images."""
        found = torch.stack(list(_features(maps, boxes).values()), 1)
        return (found * 2**20).round().div(2**20).float()  # of a blank image all windows are the same


MAPS: tuple[str, ...] = tuple(maps_of(torch.full((1, 3, BLOCK, BLOCK), 255, dtype=torch.uint8)))
FEATURES: tuple[str, ...] = tuple(
    _features(
        torch.zeros(1, 5, 5, len(MAPS), dtype=torch.float64),
        Boxes(torch.zeros(1).long(), torch.zeros(1, 2).double(), torch.full((1, 2), float(BLOCK)).double()),
    )
)
