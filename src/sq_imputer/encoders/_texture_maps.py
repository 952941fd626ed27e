"""The maps behind `texture`: numbers at every place of an image, whose means over a window describe the window.

Pixels become optical densities and these amounts of hematoxylin and eosin. Level k is the image halved k times, each
pixel the mean of 2^k x 2^k. A number at a place hangs on the pixels up to `HALO` away and on nothing else, and none
changes when the image is turned by 90 degrees or mirrored. Where the blocks of 2^`OCTAVES` pixels begin is given by the
caller: the image's sides are multiples of them.

What has been computed finely is averaged over cells of `CELL` pixels, as a window is much wider than these.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

HEMATOXYLIN = (0.650, 0.704, 0.286)  # stain vectors in the optical density of red, green, blue
EOSIN = (0.072, 0.990, 0.105)
OCTAVES = 5
BLOCK = 2**OCTAVES
LEVEL = 3  # of the cells
CELL = 2**LEVEL
HALO = BLOCK  # pixels; reach of the smoothing at level 3 and of the background at level 5
SHARES = {  # amounts above which the share of the window is taken
    "h": (0.05, 0.15, 0.3, 0.5, 0.8),
    "e": (0.02, 0.08, 0.15, 0.25, 0.4),
    "residual": (-0.1, -0.05, 0.0, 0.05, 0.1),
}
BLOBS = (0.03, 0.1, 0.2)
DARK = (0.2, 0.4, 0.6, 0.9)
TISSUE = (0.1, 0.2, 0.3)
COHERENT = {1: (4, 8, 16), 2: (8, 16, 32)}  # sides, in pixels, over which gradients are compared, by level

# by name, (B, H / CELL, W / CELL) each
Maps = dict[str, Tensor]


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


def _exact(x: Tensor) -> Tensor:
    """Rounded to 1/256 and no more than 4: sums are exact in any order down to level 3, and ties stay ties."""
    return x.clamp_(-4, 4).add_(32768).sub_(32768)


def _haar(x: Tensor) -> tuple[Tensor, ...]:
    """Mean, horizontal, vertical and diagonal difference of every 2 x 2 block."""
    a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    top, bottom, left, right = a + b, c + d, a - b, c - d
    return (top + bottom) / 4, (left + right) / 4, (top - bottom) / 4, (left - right) / 4


def _halve(x: Tensor, times: int = 1) -> Tensor:
    if times == 1:  # the same sums, in a fifth of the time
        x = x[:, 0::2] + x[:, 1::2]
        return (x[:, :, 0::2] + x[:, :, 1::2]) / 4
    side = 2**times
    return x.unflatten(1, (-1, side)).sum(2).unflatten(2, (-1, side)).sum(3) / side**2 if times else x


def _spread(x: Tensor, times: int) -> Tensor:
    return x.repeat_interleave(2**times, 1).repeat_interleave(2**times, 2) if times else x


def _sums(x: Tensor, side: int) -> Tensor:
    return F.avg_pool2d(x[:, None], side, 1, side // 2, divisor_override=1)[:, 0]


def _above(x: Tensor, threshold: float, width: float) -> Tensor:
    """Whether a value is above a threshold, from 0 to 1 over a width: a hard step would hang on rounding."""
    return ((x - threshold) / width + 0.5).clamp_(0, 1)


def _put(maps: Maps, level: int, name: str, x: Tensor, moments: int = 1) -> None:
    """A map of a level, and its powers, of whose means the moments are made."""
    x = x.double() if moments > 1 else x  # their differences are small
    power = x
    for k in range(1, moments + 1):
        power = power * x if k > 1 else x
        cells = _halve(power, LEVEL - level) if level < LEVEL else _spread(power, level - LEVEL)
        maps[f"{name}^{k}" if k > 1 else name] = cells


def _color(maps: Maps, rgb: list[Tensor], stains: dict[str, Tensor]) -> None:
    """Optical densities and stains, their moments and shares; saturation and hue. At level 2."""
    for name, x in zip("rgb", rgb, strict=True):
        _put(maps, 2, f"od_{name}", x, 2)
    for i, j in ((0, 1), (1, 2), (0, 2)):
        _put(maps, 2, f"od_{'rgb'[i]}{'rgb'[j]}", rgb[i] * rgb[j])
    for name, x in stains.items():
        _put(maps, 2, f"hed_{name}", x, 3)
        for k, threshold in enumerate(SHARES[name]):
            _put(maps, 2, f"hed_{name}_share{k}", _above(x, threshold, 0.05))
    _put(maps, 2, "hed_he", stains["h"] * stains["e"])
    red, green, blue = light = [torch.exp(-x) for x in rgb]
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    _put(maps, 2, "color_saturation", (high - low) / (high + 1e-3), 2)
    # Hue as the two axes of the color plane: an angle would jump, and mean nothing where there is no color.
    _put(maps, 2, "color_hue_a", red - (green + blue) / 2, 2)
    _put(maps, 2, "color_hue_b", math.sqrt(0.75) * (green - blue), 2)
    _put(maps, 2, "color_light", sum(light) / 3, 2)


def _octaves(maps: Maps, details: dict[str, list[tuple[Tensor, ...]]]) -> None:
    """Energy of the differences along the axes and the diagonal, amplitude, how it is spread, what two stains share."""
    for name, levels in details.items():
        for k, (horizontal, vertical, diagonal) in enumerate(levels, 1):
            axes, corner = horizontal.square() + vertical.square(), diagonal.square()
            amplitude = (axes + corner).sqrt()
            _put(maps, k, f"tex_{name}_axes{k}", axes)
            _put(maps, k, f"tex_{name}_diagonal{k}", corner)
            _put(maps, k, f"tex_{name}_amplitude{k}", amplitude)
            if k <= OCTAVES - 2:
                _put(maps, k + 2, f"tex_{name}_uneven{k}", _halve(amplitude, 2), 2)
    for k, (h, e) in enumerate(zip(details["h"], details["e"], strict=True), 1):
        _put(maps, k, f"tex_he{k}", sum(x * y for x, y in zip(h, e, strict=True)))


def _gradients(maps: Maps, pyramids: dict[str, list[Tensor]]) -> None:
    """Entries of the structure tensor, magnitude, and how far gradients are of one direction around a place."""
    for name in ("h", "d"):
        for level, sides in COHERENT.items():
            x = F.pad(pyramids[name][level][:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
            dx = x[:, 1:-1, 2:] - x[:, 1:-1, :-2]
            dy = x[:, 2:, 1:-1] - x[:, :-2, 1:-1]
            entries = {"xx": dx.square(), "yy": dy.square(), "xy": dx * dy}
            key = f"grad_{name}{level}"
            _put(maps, level, f"{key}_magnitude", (entries["xx"] + entries["yy"]).sqrt())
            for entry, values in entries.items():
                _put(maps, level, f"{key}_{entry}", values)
            for side in sides:
                at = side.bit_length() - 1
                xx, yy, xy = (_halve(values, at - level) for values in entries.values())
                _put(maps, at, f"{key}_coherent{side}", ((xx - yy).square() + 4 * xy.square()).sqrt())


def _nuclei(maps: Maps, pyramids: dict[str, list[Tensor]]) -> None:
    """Hematoxylin blobs of about 4, 8 and 16 pixels (peaks of a difference of smoothings); what is dark."""
    for level in (1, 2, 3):
        h, e, key = pyramids["h"][level], pyramids["e"][level], f"nuc_l{level}"
        narrow = _sums(h, 3)
        blob = (25 * narrow - _sums(narrow, 5)) / 225  # the sums are exact, so that ties are
        peak = (blob == F.max_pool2d(blob[:, None], 3, 1, 1)[:, 0]).float()
        _put(maps, level, f"{key}_bright", blob.clamp(min=0))
        _put(maps, level, f"{key}_hollow", (-blob).clamp(min=0))
        for k, threshold in enumerate(BLOBS):
            above = _above(blob, threshold, 0.02)
            _put(maps, level, f"{key}_area{k}", above)
            _put(maps, level, f"{key}_peaks{k}", above * peak)
        weight = _above(blob, 0.05, 0.02) * peak
        _put(maps, level, f"{key}_weight", weight)
        for name, x in (("blob", blob), ("h", h), ("e", e), ("hh", h * h)):
            _put(maps, level, f"{key}_weight_{name}", weight * x)
    h, e = pyramids["h"][1], pyramids["e"][1]
    for k, threshold in enumerate(DARK):
        _put(maps, 1, f"nuc_dark{k}", _above(h, threshold, 0.2))
    # Above what is around it: stains differ.
    background = F.interpolate(pyramids["h"][OCTAVES][:, None], scale_factor=2 ** (OCTAVES - 1), mode="bilinear")[:, 0]
    inside = _above(h - background, 0.15, 0.2)
    x = F.pad(inside[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across, down = (x[:, 1:-1, 1:] - x[:, 1:-1, :-1]).abs(), (x[:, 1:, 1:-1] - x[:, :-1, 1:-1]).abs()
    border = (across[:, :, 1:] + across[:, :, :-1] + down[:, 1:] + down[:, :-1]) / 2
    outside = (1 - inside) * e
    for name, x in (("", inside), ("_h", inside * h), ("_e", inside * e), ("_border", border), ("_outside_e", outside)):
        _put(maps, 1, f"nuc_inside{name}", x)


def _tissue(maps: Maps, pyramids: dict[str, list[Tensor]]) -> None:
    """What is not glass, fat or lumen, finely and coarsely seen."""
    for level in (1, 3, 4):
        for k, threshold in enumerate(TISSUE):
            _put(maps, level, f"tissue_l{level}_{k}", _above(pyramids["d"][level], threshold, 0.1))


def _patterns(maps: Maps, pyramids: dict[str, list[Tensor]]) -> None:
    """Local binary patterns: so many darker neighbors in a row; 9 where there are several rows."""
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    for level in (1, 2):
        x = F.pad(pyramids["d"][level][:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
        height, width = x.shape[1] - 2, x.shape[2] - 2
        center = x[:, 1:-1, 1:-1] + 0.02  # noise of an empty slide stays below
        darker = [x[:, 1 + i : height + 1 + i, 1 + j : width + 1 + j] > center for i, j in around]
        signs = torch.stack(darker).to(torch.uint8)
        changes = (signs != signs.roll(1, 0)).sum(0, dtype=torch.uint8)
        code = torch.where(changes > 2, 9, signs.sum(0, dtype=torch.uint8))
        for k in range(10):
            _put(maps, level, f"lbp_l{level}_{k}", (code == k).float())


def maps_of(pixels: Tensor) -> Maps:
    """All maps of uint8 images `(B, 3, H, W)`, by name."""
    density = torch.tensor(_DENSITY, device=pixels.device)
    channels = density.index_select(0, pixels.flatten().int()).view(pixels.shape).unbind(1)
    pyramids = {
        "h": [_exact(_mix(channels, _TO_H))],
        "e": [_exact(_mix(channels, _TO_E))],
        "d": [_exact(_mix(channels, (1 / 3, 1 / 3, 1 / 3)))],
    }
    details: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in pyramids}
    for name, levels in pyramids.items():
        for _ in range(OCTAVES):
            coarser, *detail = _haar(levels[-1])
            levels.append(coarser)
            details[name].append(tuple(detail))
    maps: Maps = {}
    rgb = [_halve(x, 2) for x in channels]
    _color(maps, rgb, {"h": pyramids["h"][2], "e": pyramids["e"][2], "residual": _mix(rgb, _TO_RESIDUAL)})
    _put(maps, 2, "density", pyramids["d"][2])
    _octaves(maps, details)
    for add in (_gradients, _nuclei, _tissue, _patterns):
        add(maps, pyramids)
    return maps


# of these, where in the window they lie is told too
PLACED = ("hed_h", "hed_e", "hed_residual", "density", "tex_h_amplitude2")
