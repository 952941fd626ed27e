from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from drawn import GLASS, PINK
from quick_zarr import *  # noqa: F403
from scipy.sparse import csr_matrix
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Scale

WIDTH_UM, HEIGHT_UM = 320, 240
CENTERS_UM = np.array([[60, 60], [100, 70], [160, 60], [260, 60], [60, 180], [110, 170], [160, 120], [250, 180]], float)
COUNTS = np.random.default_rng(0).poisson(3, (len(CENTERS_UM), 6)) + 1
GENES = [f"G{i}" for i in range(COUNTS.shape[1])]
RGB = ("r", "g", "b")


def field(xy_um: np.ndarray) -> np.ndarray:
    """The color planted at points `(..., 2)`, in [0, 1]: no two places, and no two directions, look alike."""
    x, y = xy_um[..., 0], xy_um[..., 1]
    waves = x / 19, y / 17, (x + 2 * y) / 41
    return np.stack([0.5 + 0.4 * np.sin(wave) for wave in waves], axis=-1)


def window(center_um: np.ndarray, size: int = 40) -> np.ndarray:
    """The crop `(3, size, size)` that must be seen around a point at 1 µm per pixel."""
    steps = np.arange(size) + 0.5 - size / 2
    points = center_um + np.stack(np.meshgrid(steps, steps), axis=-1)
    return np.moveaxis(field(points), -1, 0) * 255


def place(angle: float = 0.0, flip: bool = False, mpp: float = 1.0) -> tuple[np.ndarray, tuple[int, int]]:
    """From pixels to µm for an image that covers the section, turned and mirrored; and the image's height and width."""
    turn = np.deg2rad(angle)
    linear = mpp * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([1 - 2 * flip, 1])
    corners = np.array([[0, 0], [WIDTH_UM, 0], [0, HEIGHT_UM], [WIDTH_UM, HEIGHT_UM]]) @ np.linalg.inv(linear).T
    width, height = np.ceil(np.ptp(corners, axis=0) - 1e-6).astype(int)
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, linear @ corners.min(axis=0)
    return matrix, (int(height), int(width))


def draw(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels `(3, y, x)` uint8 of the planted field under a transformation to µm."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    points = np.stack([x, y], axis=-1) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.rint(np.moveaxis(field(points), -1, 0) * 255).astype(np.uint8)


def affine(matrix: np.ndarray) -> Affine:
    return Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def image(pixels: np.ndarray, transformations, channels=RGB, scales=()):
    """An image element in chunks of 64 pixels; with `scales`, of several resolutions."""
    return Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=list(channels) if channels else None,
        scale_factors=list(scales) or None,
        chunks=(3, 64, 64),
        transformations=transformations,
    )


def circles(xy: np.ndarray, radius: float = 10.0, transformations=None):
    return ShapesModel.parse(np.asarray(xy, float), geometry=0, radius=radius, transformations=transformations)


def squares(xy: np.ndarray, side: float = 20.0, transformations=None):
    from geopandas import GeoDataFrame
    from shapely import box

    half = side / 2
    frame = GeoDataFrame(geometry=[box(x - half, y - half, x + half, y + half) for x, y in xy])
    return ShapesModel.parse(frame, transformations=transformations)


def table(instances, region="spots", counts=COUNTS, genes=GENES, **columns) -> AnnData:
    """A table of counts; `region` is a name, or one for every row."""
    regions = [region] * len(instances) if isinstance(region, str) else list(region)
    obs = pd.DataFrame({"region": pd.Categorical(regions), "spot_id": np.asarray(instances), **columns})
    obs.index = [f"s{i}" for i in range(len(obs))]
    found = AnnData(csr_matrix(counts[: len(obs)], dtype=np.float32), obs=obs, var=pd.DataFrame(index=list(genes)))
    return TableModel.parse(found, region=sorted(set(regions)), region_key="region", instance_key="spot_id")


def section(
    angle: float = 0.0,
    flip: bool = False,
    mpp: float = 1.0,
    *,
    unit: float = 1.0,
    shapes=circles,
    system: str = "um",
    scales=(),
    rows=slice(None),
) -> SpatialData:
    """A section of the planted field, with spots at `CENTERS_UM` of which the table annotates `rows`.

    `angle`, `flip` and `mpp` say how the image lies; `unit` is how many µm a unit of the shapes is.
    """
    matrix, shape = place(angle, flip, mpp)
    to_um = {system: Scale([unit, unit], axes=("x", "y"))}
    spots = shapes(CENTERS_UM / unit, (10 if shapes is circles else 20) / unit, to_um)
    return SpatialData(
        images={"he": image(draw(matrix, shape), {system: affine(matrix)}, scales=scales)},
        shapes={"spots": spots},
        tables={"table": table(np.arange(len(CENTERS_UM))[rows], counts=COUNTS[rows])},
    )


@pytest.fixture(scope="session")
def planted() -> SimpleNamespace:
    """What makes sections whose every pixel, center and count is known."""
    return SimpleNamespace(
        section=section,
        window=window,
        place=place,
        draw=draw,
        affine=affine,
        image=image,
        circles=circles,
        squares=squares,
        table=table,
        centers_um=CENTERS_UM,
        counts=COUNTS,
        genes=GENES,
    )


@pytest.fixture
def counting(monkeypatch) -> SimpleNamespace:
    """An encoder named "counting" whose features are the mean color; `.seen` is how many crops it was shown."""
    from sq_imputer import encoders
    from sq_imputer.encoders._cards import TEXTURE

    told = SimpleNamespace(seen=0, provenance={"weights": "none"})

    class Counting(encoders.Encoder):
        def encode(self, crops):
            told.seen += len(crops)
            return crops.float().mean((2, 3))

    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)  # which is no crop to be counted
    card = replace(TEXTURE, name="counting", dim=3)
    encoders.register_encoder(card, lambda card, weights, revision: Counting(card, told.provenance))
    return told


@pytest.fixture
def slide(planted):
    """A function that makes a slide of 1600 x 1200 µm with tissue of some shape, on an image that is placed anyhow."""

    def make(inside, mpp=4.0, angle=0.0, flip=False, glass=GLASS):
        matrix, shape = planted.place(angle, flip, mpp / 5)
        matrix[:2] *= 5
        y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
        x, y = np.moveaxis(np.stack([x, y], axis=-1) @ matrix[:2, :2].T + matrix[:2, 2], -1, 0)
        pixels = np.where(inside(x, y), *np.array([PINK, glass])[:, :, None, None])
        pixels = pixels + np.random.default_rng(0).integers(-4, 5, pixels.shape)
        pixels = pixels.clip(0, 255).astype(np.uint8)
        return SpatialData(images={"he": planted.image(pixels, {"um": planted.affine(matrix)}, scales=[2])})

    return make


@pytest.fixture(scope="session")
def _toy_section() -> bytes:
    from sq_imputer.datasets import toy

    return pickle.dumps(toy(1, size_px=640, mpp=1.25, seed=11)["P1"])


@pytest.fixture
def toy_section(_toy_section):
    """A toy section of its own, to be given columns."""
    return pickle.loads(_toy_section)
