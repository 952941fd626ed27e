"""`texture`: color, stain and texture of an H&E crop as named numbers. No weights, and the same for every batch size.

The pixels become optical densities, these become amounts of hematoxylin and eosin by the fixed stain vectors of
Ruifrok and Johnston (2001), and every map is described by its distribution, its energy per octave (a Haar pyramid), its
gradients, its local binary patterns, the hematoxylin blobs (nuclei, where the resolution shows them) and where in the
crop it lies. All are statistics over the crop, and none changes, beyond rounding, when the crop is turned by 90 degrees
or mirrored.

Octave k describes structures of about 2^k pixels, so features are comparable only at one resolution. Crops have 32
pixels a side or more, as five octaves need; what a halving leaves over is dropped. `FEATURES` names the numbers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sq_imputer.device import one_thread
from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.errors import BadInput

HEMATOXYLIN = (0.650, 0.704, 0.286)  # stain vectors in the optical density of red, green, blue
EOSIN = (0.072, 0.990, 0.105)
REVISION = 1  # to be raised when the numbers change: features in a cache or a fitted model are then known to be old
OCTAVES = 5
MIN_SIZE = 2**OCTAVES
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CHUNK = 8  # crops worked on at once: their maps stay in the cache of a CPU

# Maps are (B, H, W). Level k of a pyramid is the map halved k times; `pyramids["h"][k]` is hematoxylin, "e" eosin,
# "d" density, the mean optical density of the channels. Features are (B,), collected in a dict by name.
Maps = dict[str, list[Tensor]]
Found = dict[str, Tensor]


def _unmixing() -> tuple[tuple[float, ...], ...]:
    """Columns: weights of red, green, blue in hematoxylin, eosin, and what is orthogonal to both stains."""
    h, e = (F.normalize(torch.tensor(stain, dtype=torch.float64), dim=0) for stain in (HEMATOXYLIN, EOSIN))
    residual = F.normalize(torch.linalg.cross(h, e), dim=0)
    return tuple(map(tuple, torch.linalg.inv(torch.stack([h, e, residual])).T.tolist()))


_TO_H, _TO_E, _TO_RESIDUAL = _unmixing()
_DENSITY = [-math.log((value + 1) / 256) for value in range(256)]


def _mix(channels, weights) -> Tensor:
    # Sums, not a matrix product: the same bits for every batch size.
    return channels[0] * weights[0] + channels[1] * weights[1] + channels[2] * weights[2]


def _haar(x: Tensor) -> tuple[Tensor, ...]:
    """Mean, horizontal, vertical and diagonal difference of every 2 x 2 block."""
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    a, b = x[..., 0:height:2, 0:width:2], x[..., 0:height:2, 1:width:2]
    c, d = x[..., 1:height:2, 0:width:2], x[..., 1:height:2, 1:width:2]
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return (top + bottom) / 4, (left + right) / 4, (top - bottom) / 4, (left - right) / 4


def _halve(x: Tensor, times: int = 1) -> Tensor:
    for _ in range(times):
        x = _haar(x)[0]
    return x


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def _sd(x: Tensor) -> Tensor:
    return x.flatten(1).std(1, unbiased=False)


def _log(x: Tensor) -> Tensor:
    return torch.log(x + 1e-3)


def _distribution(name: str, x: Tensor, *, quantiles: bool) -> Found:
    values = x.flatten(1)
    mean, sd = values.mean(1), _sd(values)
    found = {f"{name}_mean": mean, f"{name}_sd": sd}
    if quantiles:
        found[f"{name}_skew"] = (values - mean[:, None]).pow(3).mean(1) / (sd.pow(3) + 1e-3)
        ordered = values.sort(1).values
        for q in QUANTILES:
            found[f"{name}_q{100 * q:02.0f}"] = ordered[:, round(q * (values.shape[1] - 1))]
    return found


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.flatten(1), y.flatten(1)
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return (x * y).mean(1) / ((x.square().mean(1) * y.square().mean(1)).sqrt() + 1e-3)


def _color(rgb: list[Tensor], stains: dict[str, Tensor]) -> Found:
    """Distributions of optical densities and stains; saturation and hue."""
    found: Found = {}
    for name, x in zip("rgb", rgb, strict=True):
        found |= _distribution(f"od_{name}", x, quantiles=False)
    for i, j in ((0, 1), (1, 2), (0, 2)):
        found[f"od_cor_{'rgb'[i]}{'rgb'[j]}"] = _correlation(rgb[i], rgb[j])
    for name, x in stains.items():
        found |= _distribution(f"hed_{name}", x, quantiles=True)
    found["hed_cor_he"] = _correlation(stains["h"], stains["e"])
    red, green, blue = light = [torch.exp(-x) for x in rgb]
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    saturation = (high - low) / (high + 1e-3)
    # Hue as the two axes of the color plane: an angle would jump, and mean nothing where there is no color.
    for name, x in (
        ("saturation", saturation),
        ("hue_a", red - (green + blue) / 2),
        ("hue_b", math.sqrt(0.75) * (green - blue)),
        ("light", sum(light) / 3),
    ):
        found |= _distribution(f"color_{name}", x, quantiles=False)
    return found


def _octaves(details: dict[str, list[tuple[Tensor, ...]]]) -> Found:
    """Energy per octave, how sparse it is, how unevenly it is spread, and how far the two stains share it."""
    found: Found = {}
    for name, levels in details.items():
        for k, (horizontal, vertical, diagonal) in enumerate(levels, 1):
            axes, corner = horizontal.square() + vertical.square(), diagonal.square()
            amplitude = (axes + corner).sqrt()
            found[f"tex_{name}_axes{k}"] = torch.log(_mean(axes) + 1e-6) / 2
            found[f"tex_{name}_diagonal{k}"] = torch.log(_mean(corner) + 1e-6) / 2
            found[f"tex_{name}_sparse{k}"] = _mean(amplitude) / ((_mean(axes) + _mean(corner)).sqrt() + 1e-3)
            if k <= OCTAVES - 2:  # coarser, nothing is left to spread over in the smallest crops
                found[f"tex_{name}_uneven{k}"] = _log(_sd(_halve(amplitude, 2)))
    for k, (h, e) in enumerate(zip(details["h"], details["e"], strict=True), 1):
        shared = sum(_mean(x * y) for x, y in zip(h, e, strict=True))
        both = sum(_mean(x * x) for x in h) * sum(_mean(x * x) for x in e)
        found[f"tex_he_shared{k}"] = shared / (both.sqrt() + 1e-4)
    return found


def _layout(pyramids: Maps) -> Found:
    """Difference between the halves and between the quarters of the crop: an edge of tissue or of a layer."""
    found: Found = {}
    for name, levels in pyramids.items():
        grid = F.adaptive_avg_pool2d(levels[2][:, None], 4)[:, 0]
        for part in ("quarter", "half"):
            grid, horizontal, vertical, diagonal = _haar(grid)
            found[f"layout_{name}_{part}"] = _log(_mean(horizontal.square() + vertical.square()).sqrt())
            found[f"layout_{name}_{part}_diagonal"] = _log(_mean(diagonal.square()).sqrt())
    return found


def _coherence(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """How much of the gradient energy has one orientation within each cell of the structure tensor, 0 to 1."""
    return _mean(((xx - yy).square() + 4 * xy.square()).sqrt()) / (_mean(xx + yy) + 1e-4)


def _gradients(pyramids: Maps) -> Found:
    found: Found = {}
    for name in ("h", "d"):
        for level in (1, 2):
            x = F.pad(pyramids[name][level][:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
            dx = x[:, 1:-1, 2:] - x[:, 1:-1, :-2]
            dy = x[:, 2:, 1:-1] - x[:, :-2, 1:-1]
            xx, yy, xy = dx.square(), dy.square(), dx * dy
            key, magnitude = f"grad_{name}{level}", (xx + yy).sqrt()
            found[f"{key}_mean"] = _log(_mean(magnitude))
            found[f"{key}_sd"] = _log(_sd(magnitude))
            found[f"{key}_coherence"] = _coherence(*(x.flatten(1).mean(1)[:, None] for x in (xx, yy, xy)))
            xx, yy, xy = (_halve(x) for x in (xx, yy, xy))
            for cell in (4, 8, 16)[: 4 - level]:
                xx, yy, xy = (_halve(x) for x in (xx, yy, xy))
                found[f"{key}_coherence{cell}"] = _coherence(xx, yy, xy)
    return found


def _smooth(x: Tensor, times: int = 1) -> Tensor:
    for _ in range(times):
        x = F.avg_pool2d(x[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    return x


def _nuclei(pyramids: Maps) -> Found:
    """Hematoxylin blobs of about 4, 8 and 16 pixels (peaks of a difference of smoothings); the dark share."""
    found: Found = {}
    for level in (1, 2, 3):
        h, e, key = pyramids["h"][level], pyramids["e"][level], f"nuc_l{level}"
        narrow = _smooth(h)
        blob = narrow - _smooth(narrow, 4)
        peak = blob == F.max_pool2d(blob[:, None], 3, 1, 1)[:, 0]
        found[f"{key}_bright"] = _log(_mean(blob.clamp(min=0)))
        found[f"{key}_hollow"] = _log(_mean((-blob).clamp(min=0)))
        for threshold in (0.03, 0.1, 0.2):
            above = blob > threshold
            found[f"{key}_peaks{100 * threshold:.0f}"] = 100 * _mean((peak & above).float())
            found[f"{key}_area{100 * threshold:.0f}"] = _mean(above.float())
        weight = (peak & (blob > 0.05)).float()
        count = _mean(weight) + 1e-4
        at_peaks = {name: _mean(weight * x) / count for name, x in (("blob", blob), ("h", h), ("e", e), ("hh", h * h))}
        found |= {f"{key}_peak_{name}": at_peaks[name] for name in ("blob", "h", "e")}
        found[f"{key}_peak_h_sd"] = (at_peaks["hh"] - at_peaks["h"].square()).clamp(min=0).sqrt()
    h, e = pyramids["h"][1], pyramids["e"][1]
    for threshold in (0.2, 0.4, 0.6, 0.9):
        found[f"nuc_share{10 * threshold:.0f}"] = _mean(torch.sigmoid(20 * (h - threshold)))
    # Soft, and relative to the crop: stains differ, and a hard threshold would jump.
    inside = torch.sigmoid(20 * (h - h.mean((1, 2), keepdim=True) - 0.15))
    share = _mean(inside) + 1e-3
    border = _mean((inside[:, 1:] - inside[:, :-1]).abs()) + _mean((inside[:, :, 1:] - inside[:, :, :-1]).abs())
    found["nuc_share"] = share
    found["nuc_size"] = torch.log(share / (border + 1e-3))  # area over perimeter
    found["nuc_h_inside"] = _mean(inside * h) / share
    found["nuc_e_inside"] = _mean(inside * e) / share
    found["nuc_e_outside"] = _mean((1 - inside) * e) / (1.002 - share)
    return found


def _tissue(pyramids: Maps) -> Found:
    """Share of the crop that is not glass, fat or lumen, finely and coarsely seen."""
    return {
        f"tissue_l{level}_{100 * threshold:.0f}": _mean(torch.sigmoid(40 * (pyramids["d"][level] - threshold)))
        for level in (1, 3, 4)
        for threshold in (0.1, 0.2, 0.3)
    }


def _rings(maps: dict[str, Tensor]) -> Found:
    """Means at the center, around it, towards the edges and in the corners."""
    height, width = next(iter(maps.values())).shape[-2:]
    device = next(iter(maps.values())).device
    y = (torch.arange(height, device=device) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=device) + 0.5) / width * 2 - 1
    ring = ((y[:, None].square() + x.square()).sqrt() * 3).floor().clamp(max=3)
    return {
        f"ring_{name}_{i}": (values * (ring == i)).sum((1, 2)) / (ring == i).sum()
        for name, values in maps.items()
        for i in range(4)
    }


def _patterns(pyramids: Maps) -> Found:
    """Local binary patterns: share of pixels with so many darker neighbors in a row; 9 where there are several rows."""
    found: Found = {}
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    for level in (1, 2):
        x = pyramids["d"][level]
        height, width = x.shape[1:]
        center = x[:, 1:-1, 1:-1] + 0.02  # noise of an empty slide stays below
        darker = [x[:, 1 + i : height - 1 + i, 1 + j : width - 1 + j] > center for i, j in around]
        signs = torch.stack(darker, 1).to(torch.uint8)
        changes = (signs != signs.roll(1, 1)).sum(1, dtype=torch.uint8)
        code = torch.where(changes > 2, 9, signs.sum(1, dtype=torch.uint8))
        found |= {f"lbp_l{level}_{k}": _mean((code == k).float()) for k in range(10)}
    return found


def _describe(crops: Tensor) -> Found:
    channels = torch.tensor(_DENSITY, device=crops.device)[crops.int()].unbind(1)
    pyramids: Maps = {
        "h": [_mix(channels, _TO_H)],
        "e": [_mix(channels, _TO_E)],
        "d": [_mix(channels, (1 / 3, 1 / 3, 1 / 3))],
    }
    details: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in pyramids}
    for name, levels in pyramids.items():
        for _ in range(OCTAVES):
            coarser, *detail = _haar(levels[-1])
            levels.append(coarser)
            details[name].append(tuple(detail))
    rgb = [_halve(x, 2) for x in channels]
    stains = {"h": pyramids["h"][2], "e": pyramids["e"][2], "residual": _mix(rgb, _TO_RESIDUAL)}
    amplitude = sum(x.square() for x in details["h"][1]).sqrt()
    found = _color(rgb, stains) | _octaves(details) | _layout(pyramids) | _gradients(pyramids)
    found |= _nuclei(pyramids) | _tissue(pyramids) | _patterns(pyramids)
    return found | _rings(stains | {"density": pyramids["d"][2], "tex": amplitude})


FEATURES: tuple[str, ...] = tuple(_describe(torch.full((1, 3, MIN_SIZE, MIN_SIZE), 255, dtype=torch.uint8)))


class Texture(Encoder):
    """Hand-made features; see the top of this file. `FEATURES` names them."""

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
        if crops.device.type != "cpu":
            return torch.stack(list(_describe(crops).values()), 1)
        with one_thread():  # a thousand small steps on every chunk
            return torch.cat([torch.stack(list(_describe(part).values()), 1) for part in crops.split(CHUNK)])
