"""Draws toy H&E: glands, fibers and nuclei as stain concentrations, rendered by Beer-Lambert.

Lengths are in µm, so that a seed and an extent give the same tissue at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

# Optical density per unit of stain in r, g, b (Macenko et al., 2009): hematoxylin, eosin.
STAINS = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
EPITHELIUM, STROMA, LYMPHOCYTE, HALF_EPITHELIUM, HALF_STROMA = range(5)
# semi-axes in µm and hematoxylin of the kinds of nuclei; halves are two that cover as much as one
_NUCLEI = {EPITHELIUM: (5.2, 3.9, 0.95), STROMA: (6.6, 2.1, 1.15), LYMPHOCYTE: (3.4, 3.2, 1.5)}
_HALVES = {
    half: (*np.multiply(_NUCLEI[kind][:2], 0.5**0.5), _NUCLEI[kind][2])
    for kind, half in ((EPITHELIUM, HALF_EPITHELIUM), (STROMA, HALF_STROMA))
}
_APART_UM = 0.7  # half of the gap between two halves
_VARIANTS, _ANGLES = 8, 24


@dataclass(frozen=True)
class Tissue:
    """What was drawn: stain concentrations and the masks they were drawn from, all `(y, x)`."""

    hematoxylin: np.ndarray
    eosin: np.ndarray
    nuclei: np.ndarray  # 0, or the number of the nucleus
    tissue: np.ndarray
    glands: np.ndarray
    stroma: np.ndarray
    lymphocytes: np.ndarray


@dataclass(frozen=True)
class Stain:
    """How a laboratory stains and scans: `(2, 3)` vectors, `(2,)` strengths, `(3,)` color of glass."""

    vectors: np.ndarray
    strength: np.ndarray
    white: np.ndarray


def draw_stain(rng: np.random.Generator) -> Stain:
    """A laboratory's stain: direction, strength and scanner white differ by as much as between real ones."""
    vectors = np.abs(STAINS + rng.normal(0, 0.05, (2, 3)))
    return Stain(
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        strength=rng.uniform(0.8, 1.25, 2),
        white=rng.uniform(236, 250) + rng.uniform(-4, 4, 3),
    )


def render(tissue: Tissue, stain: Stain, rng: np.random.Generator) -> np.ndarray:
    """`(3, y, x)` uint8: Beer-Lambert through both stains, the blur of a lens, the noise of a sensor."""
    image = np.empty((3, *tissue.eosin.shape), dtype=np.uint8)
    for channel in range(3):
        hematoxylin, eosin = (stain.vectors[:, channel] * stain.strength).astype(np.float32)
        light = stain.white[channel] * np.exp(-hematoxylin * tissue.hematoxylin - eosin * tissue.eosin)
        light = gaussian_filter(light.astype(np.float32), 0.6)
        light += rng.standard_normal(light.shape, dtype=np.float32) * 2
        image[channel] = np.clip(light, 0, 255)
    return image


def draw_tissue(rng: np.random.Generator, size_px: int, mpp: float, *, halves: bool = False) -> Tissue:
    """A square of glass with one piece of tissue: stroma with fibers, glands, and a crowd of lymphocytes.

    With `halves` many nuclei are two in some regions, which together cover as much and look the same by their color.
    """
    extent = size_px * mpp
    grain_rng, stamp_rng = rng.spawn(2)  # per pixel; apart from the rest, which then does not depend on mpp
    edge = _tissue_edge(rng, size_px)
    tissue = edge > 0
    crowd = _sigmoid(6 * (_smooth(rng, size_px, 260 / mpp) - 0.9))  # where lymphocytes gather
    cellularity = _sigmoid(1.5 * _smooth(rng, size_px, 120 / mpp))
    fibers, direction = _fibers(rng, size_px, mpp)
    soft = np.clip(edge * 40, 0, 1)
    eosin = soft * (0.28 + 0.42 * fibers) * (1 - 0.45 * crowd)
    hematoxylin = soft * (0.05 + 0.10 * crowd + 0.04 * fibers)
    rings = _place_glands(rng, extent, crowd, tissue, mpp)
    glands = np.zeros_like(tissue)
    for ring in rings:
        _draw_gland(ring, eosin, hematoxylin, glands, mpp)
    grain = gaussian_filter(grain_rng.standard_normal(eosin.shape, dtype=np.float32), 1.2)
    eosin *= 1 + 0.35 * grain

    free = (edge > 0.015) & ~glands
    placed = [
        _on_rings(rings, tissue, mpp),
        _scattered(rng, extent, 17, STROMA, free * (0.08 + 0.75 * cellularity) * (1 - crowd), direction, mpp),
        _scattered(rng, extent, 8, LYMPHOCYTE, free * (0.008 + 0.85 * crowd), direction, mpp),
    ]
    every = np.concatenate(placed)
    if halves:
        every = _halved(rng, every, _sigmoid(4 * _smooth(rng, size_px, 110 / mpp)), mpp)
    nuclei, kinds = _draw_nuclei(stamp_rng, every, hematoxylin, mpp)
    return Tissue(
        hematoxylin=hematoxylin,
        eosin=eosin,
        nuclei=nuclei,
        tissue=tissue,
        glands=glands,
        stroma=tissue & ~glands & (crowd < 0.5),
        lymphocytes=kinds[nuclei] == LYMPHOCYTE,
    )


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _smooth(rng: np.random.Generator, size_px: int, scale_px: float) -> np.ndarray:
    """Smooth noise of unit variance, float32: random values on a coarse grid, joined by Gaussian bumps."""
    knots = np.arange(-3, size_px / scale_px + 3)
    place = (np.arange(size_px)[:, None] + 0.5) / scale_px
    bumps = np.exp(-0.5 * ((place - knots) / 0.7) ** 2).astype(np.float32)
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    return bumps @ rng.standard_normal((len(knots), len(knots)), dtype=np.float32) @ bumps.T


def _tissue_edge(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Positive inside the tissue, with a ragged outline and a margin of glass around it."""
    line = np.abs((np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2 - 1)
    x, y = line[None, :], line[:, None]
    ragged = 0.035 * _smooth(rng, size_px, size_px / 5) + 0.012 * _smooth(rng, size_px, size_px / 30)
    return np.minimum(0.94 + ragged - (x**3 + y**3) ** (1 / 3), 0.97 - np.maximum(x, y))


def _fibers(rng: np.random.Generator, size_px: int, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Wavy parallel fibers in [0, 1], and their direction in radians: level lines of a smooth function."""
    y, x = ((axis.astype(np.float32) + 0.5) * mpp for axis in np.ogrid[:size_px, :size_px])
    angle = rng.uniform(0, np.pi)
    height = np.cos(angle) * x + np.sin(angle) * y + 45 * _smooth(rng, size_px, 180 / mpp)
    coarse = height[::8, ::8]
    slope_y, slope_x = np.gradient(coarse)
    direction = np.repeat(np.repeat(np.arctan2(slope_x, -slope_y), 8, axis=0), 8, axis=1)[:size_px, :size_px]
    fibers = np.zeros_like(height)
    for width, weight in ((3.0, 0.4), (8.0, 0.6)):
        wavy = (height + 2.2 * width * _smooth(rng, size_px, 12 * width / mpp)) / width
        floor = np.floor(wavy)
        part = wavy - floor
        strands = rng.random(4096, dtype=np.float32)
        index = floor.astype(np.int32) & 4095
        fibers += weight * ((1 - part) * strands[index] + part * strands[(index + 1) & 4095])
    return fibers, direction


@dataclass(frozen=True)
class _Ring:
    """Outline of a gland: radius over the angle, and how much of it is lumen."""

    x: float
    y: float
    radius: float
    waves: np.ndarray  # (2, 2): amplitude and phase of the second and third harmonic
    lumen: float
    seed: int  # of its nuclei, which then do not depend on the other glands

    def outline(self, angle: np.ndarray) -> np.ndarray:
        """Radius in µm at an angle."""
        (a2, p2), (a3, p3) = self.waves
        return self.radius * (1 + a2 * np.cos(2 * angle + p2) + a3 * np.cos(3 * angle + p3))


def _place_glands(rng, extent: float, crowd: np.ndarray, tissue: np.ndarray, mpp: float) -> list[_Ring]:
    """Glands that do not touch, gathered in one part of the tissue, away from the lymphocytes."""
    rich = _sigmoid(2.5 * _smooth(rng, len(crowd), 300 / mpp))
    rings: list[_Ring] = []
    for x, y, radius, luck in rng.uniform([0, 0, 28, 0], [extent, extent, 70, 1], size=(int(extent**2 / 1500), 4)):
        row, col = int(y / mpp), int(x / mpp)
        waves = np.column_stack([rng.uniform(0.02, [0.16, 0.08]), rng.uniform(0, 2 * np.pi, 2)])
        lumen, ring_seed = rng.uniform(0.35, 0.6), int(rng.integers(2**32))
        apart = all(np.hypot(x - r.x, y - r.y) > 1.12 * (radius + r.radius) + 6 for r in rings)
        if tissue[row, col] and apart and luck < rich[row, col] * (1 - crowd[row, col]):
            rings.append(_Ring(x, y, radius, waves, lumen, ring_seed))
    return rings


def _draw_gland(ring: _Ring, eosin: np.ndarray, hematoxylin: np.ndarray, glands: np.ndarray, mpp: float) -> None:
    """Epithelium around a lumen, drawn over what was there."""
    reach = 1.3 * ring.radius
    rows, cols = (
        slice(max(0, int((middle - reach) / mpp)), int((middle + reach) / mpp) + 1) for middle in (ring.y, ring.x)
    )
    height, width = eosin[rows, cols].shape
    y = (rows.start + np.arange(height)[:, None] + 0.5) * mpp - ring.y
    x = (cols.start + np.arange(width)[None, :] + 0.5) * mpp - ring.x
    angle = np.arctan2(y, x)
    depth = np.hypot(x, y) / ring.outline(angle)  # 0 in the middle, 1 at the outline
    lumen = ring.lumen * (1 + 0.08 * np.cos(5 * angle + ring.x))
    inside = (depth < 1) & (eosin[rows, cols] > 0)
    apical = np.exp(-0.5 * ((depth - lumen) / 0.05) ** 2)
    hollow = _sigmoid((lumen - depth) * 60)
    wall_eosin, wall_hematoxylin = 0.40 + 0.25 * apical, 0.24 - 0.08 * apical
    eosin[rows, cols][inside] = (wall_eosin * (1 - hollow) + 0.05 * np.sin(ring.y) ** 2 * hollow)[inside]
    hematoxylin[rows, cols][inside] = (wall_hematoxylin * (1 - hollow))[inside]
    membrane = (depth >= 1) & (depth < 1 + 3 / ring.radius)
    eosin[rows, cols][membrane] *= 1.35
    glands[rows, cols] |= inside


def _on_rings(rings: list[_Ring], tissue: np.ndarray, mpp: float) -> np.ndarray:
    """Nuclei side by side in the epithelium, pointing at the lumen: rows of x, y, angle, kind."""
    found = [np.empty((0, 4))]
    for ring in rings:
        rng = np.random.default_rng(ring.seed)
        for level in (0.86, 0.68) if ring.radius * (1 - ring.lumen) > 24 else (0.82,):
            level = max(level, ring.lumen + 6 / ring.radius)
            angle = np.linspace(0, 2 * np.pi, int(2 * np.pi * ring.radius * level / 9.5), endpoint=False)
            angle = angle + rng.normal(0, 1.2 / ring.radius, len(angle))
            reach = ring.outline(angle) * level + rng.normal(0, 1.5, len(angle))
            x, y = ring.x + reach * np.cos(angle), ring.y + reach * np.sin(angle)
            turn = angle + rng.normal(0, 0.25, len(angle))
            found.append(np.column_stack([x, y, turn, np.full(len(angle), EPITHELIUM)])[rng.random(len(angle)) < 0.93])
    nuclei = np.concatenate(found)
    return nuclei[_at(tissue, nuclei, mpp) > 0]


def _scattered(rng, extent: float, spacing: float, kind: int, chance: np.ndarray, direction, mpp: float) -> np.ndarray:
    """Nuclei on a jittered lattice, kept by chance: apart from each other, and as dense as asked."""
    line = np.arange(0, extent, spacing)
    xy = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    xy = xy + rng.uniform(-0.42, 0.42, xy.shape) * spacing
    spread = 0.2 if kind == STROMA else np.pi
    turn = _at(direction, xy, mpp) + rng.uniform(-spread, spread, len(xy))
    nuclei = np.column_stack([xy, turn, np.full(len(xy), kind)])
    return nuclei[rng.random(len(nuclei)) < _at(chance, nuclei, mpp)]


def _halved(rng, nuclei: np.ndarray, chance: np.ndarray, mpp: float) -> np.ndarray:
    """Nuclei of which some are two halves, end to end; lymphocytes are too small, and stay whole."""
    kind = nuclei[:, 3].astype(int)
    halved = (kind != LYMPHOCYTE) & (rng.random(len(nuclei)) < _at(chance, nuclei, mpp))
    whole, cut = nuclei[~halved], nuclei[halved]
    half = np.where(cut[:, 3] == EPITHELIUM, HALF_EPITHELIUM, HALF_STROMA)
    reach = np.array([_HALVES[k][0] for k in half]) + _APART_UM
    step = np.column_stack([np.cos(cut[:, 2]), np.sin(cut[:, 2])]) * reach[:, None]
    ends = [np.column_stack([cut[:, :2] + sign * step, cut[:, 2], half]) for sign in (-1, 1)]
    return np.concatenate([whole, *ends])


def _at(field: np.ndarray, nuclei: np.ndarray, mpp: float) -> np.ndarray:
    """Values of a map at nuclei; 0 outside."""
    col, row = (np.floor(nuclei[:, i] / mpp).astype(int) for i in (0, 1))
    inside = (row >= 0) & (col >= 0) & (row < field.shape[0]) & (col < field.shape[1])
    values = np.zeros(len(nuclei))
    values[inside] = field[row[inside], col[inside]]
    return values


def _stamps(rng: np.random.Generator, kind: int, mpp: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Nuclei of one kind at all angles: hematoxylin and mask. A rim, chromatin, and in epithelium a nucleolus."""
    long, short, stain = (_NUCLEI | _HALVES)[kind]
    half = int(np.ceil(1.4 * long / mpp))
    y, x = np.mgrid[-half : half + 1, -half : half + 1] * mpp
    stamps = []
    looks = rng.uniform([0.82, 0.82, -0.4, -0.4], [1.18, 1.18, 0.4, 0.4], (_VARIANTS, 4))
    for size, strength, *spot in looks:
        chromatin = gaussian_filter(rng.standard_normal(x.shape), 0.9 / mpp) * 0.9 / mpp
        spot_x, spot_y = np.multiply(spot, (long, short))
        for turn in np.arange(_ANGLES) * np.pi / _ANGLES:
            u = (x * np.cos(turn) + y * np.sin(turn)) / (long * size)
            v = (y * np.cos(turn) - x * np.sin(turn)) / (short * size)
            radius = np.hypot(u, v)
            cover = np.clip((1 - radius) * short / mpp + 0.5, 0, 1)  # antialiased
            inner = 0.72 + 0.5 * chromatin + 0.3 * np.exp(-0.5 * ((radius - 0.85) / 0.12) ** 2)
            if kind in (EPITHELIUM, HALF_EPITHELIUM):
                inner += 0.6 * np.exp(-0.5 * ((u * long - spot_x) ** 2 + (v * short - spot_y) ** 2) / 0.7**2)
            stamps.append(((cover * stain * strength * np.clip(inner, 0.2, 1.6)).astype(np.float32), cover > 0.5))
    return stamps


def _draw_nuclei(rng, nuclei: np.ndarray, hematoxylin: np.ndarray, mpp: float) -> tuple[np.ndarray, np.ndarray]:
    """Stamps nuclei onto the stain: labels from 1 `(y, x)`, and the kind of each label (-1 for none)."""
    labels = np.zeros(hematoxylin.shape, dtype=np.int32)
    kinds = _NUCLEI | (_HALVES if (nuclei[:, 3] > LYMPHOCYTE).any() else {})
    stamps = {kind: _stamps(own, kind, mpp) for kind, own in zip(kinds, rng.spawn(len(kinds)), strict=True)}
    variant = rng.integers(_VARIANTS, size=len(nuclei)) * _ANGLES
    variant += np.rint(nuclei[:, 2] / np.pi * _ANGLES).astype(int) % _ANGLES
    for number, (x, y, _, kind) in enumerate(nuclei, start=1):
        stain, mask = stamps[int(kind)][variant[number - 1]]
        half = len(mask) // 2
        row, col = int(y / mpp) - half, int(x / mpp) - half
        if row < 0 or col < 0 or row + len(mask) > len(labels) or col + len(mask) > len(labels):
            continue
        window = np.s_[row : row + len(mask), col : col + len(mask)]
        np.maximum(hematoxylin[window], stain, out=hematoxylin[window])
        labels[window][mask] = number
    return labels, np.append(-1, nuclei[:, 3]).astype(int)
