from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from sq_imputer.nn.turns import Turn
from sq_imputer.pixels.boundaries import blobs, edges, nuclei, rendered, threshold

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])


def he(hematoxylin: np.ndarray, eosin: float = 0.3) -> np.ndarray:
    """An image `(3, H, W)` of these amounts of stain."""
    density = hematoxylin[None] * STAINS[0][:, None, None] + eosin * STAINS[1][:, None, None]
    return np.rint(255 * np.exp(-density)).astype(np.uint8)


def discs(side: int, places: np.ndarray, radius: float, mpp: float = 1.0) -> np.ndarray:
    """Nuclei of a radius at places, all in µm, on a square of so many µm."""
    at = (np.arange(round(side / mpp)) + 0.5) * mpp
    found = np.zeros((len(at), len(at)))
    for x, y in places:
        found[np.hypot(at[None] - x, at[:, None] - y) < radius] = 1.0
    return 0.9 * found


def lattice(side: int, step: float) -> np.ndarray:
    at = np.arange(step / 2, side, step)
    rng = np.random.default_rng(0)
    return np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2) + rng.uniform(-2, 2, (len(at) ** 2, 2))


def found(image: np.ndarray, mpp: float) -> np.ndarray:
    blob = blobs(image, mpp)
    return nuclei(blob, threshold([blob]), mpp)


def test_a_flat_image_has_no_edges_and_no_nuclei() -> None:
    """V1."""
    flat = he(np.full((60, 80), 0.2))
    assert not edges(flat, 1.0).any() and not found(flat, 1.0).any()


def test_the_edge_of_a_disc_is_a_ring() -> None:
    """V1: intersection over union with the true ring, both two pixels wide, is above one half."""
    image = he(discs(120, np.array([[60, 60]]), 25))
    said = edges(image, 1.0) > 0.3
    away = np.abs(np.hypot(*(np.mgrid[:120, :120] + 0.5 - 60)) - 25)
    ring = away < 0.7
    right, lost = (away[said] < 2).sum(), (distance_transform_edt(~said)[ring] > 2).sum()
    assert right / (said.sum() + lost) > 0.5 and lost < 0.05 * ring.sum()


def test_edges_do_not_hang_on_brightness_and_are_not_the_gray_image(toy_slides) -> None:
    """V1."""
    slide = toy_slides[0]
    pixels = np.asarray(slide.frame.pyramid.levels[0][:3, 300:556, 300:556])
    gray = pixels.mean(axis=0)
    said, brighter = edges(pixels, 1.25), edges((pixels.astype(int) // 2 + 60).astype(np.uint8), 1.25)
    darker = edges((pixels.astype(int) // 2 + 20).astype(np.uint8), 1.25)
    assert (np.abs(brighter - darker) > 1e-3).mean() < 1e-3
    assert 0 < said.max() < 1 and abs(np.corrcoef(said.ravel(), gray.ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("mpp", [0.5, 0.7, 1.0])
def test_nuclei_are_counted_whatever_the_resolution(mpp) -> None:
    """V2: within 5 %, alone and touching each other."""
    places = lattice(240, 16)
    labels = found(he(discs(240, places, 4.0, mpp)), mpp)
    assert labels.max() == len(np.unique(labels)) - 1
    assert abs(labels.max() - len(places)) <= 0.05 * len(places)


def test_nuclei_survive_cropping() -> None:
    """V2: of a part of the image, those well inside are the same."""
    image = he(discs(240, lattice(240, 16), 4.0))
    whole, part = found(image, 1.0), found(image[:, 40:200, 40:200], 1.0)
    inner = np.s_[50:110, 50:110]
    one, other = whole[40:200, 40:200][inner], part[inner]
    assert ((one > 0) == (other > 0)).mean() > 0.99
    assert len(np.unique(one)) == len(np.unique(other))


def test_two_that_touch_are_two() -> None:
    labels = found(he(discs(100, np.array([[45.0, 50], [53.5, 50]]), 5.0)), 0.5 * 2)
    assert labels.max() == 2


def test_nuclei_are_drawn_as_cover_border_and_distance() -> None:
    labels = np.zeros((40, 40), dtype=np.int32)
    labels[10:20, 10:20], labels[10:20, 20:30] = 1, 2
    cover, border, distance = rendered(labels, 1.0)
    np.testing.assert_array_equal(cover, labels > 0)
    assert border[10:20, 19:21].all() and border[10, 10:30].all() and not border[12:18, 12:18].any()
    assert not border[labels == 0].any()
    assert (distance[labels > 0] > 0.5).all() and (distance[labels == 0] < 0.5).all()
    assert distance[0, 0] == 0 and distance.max() <= 1
    assert not rendered(np.zeros((5, 5), dtype=int), 1.0).any()


TURNS = [Turn(*flags) for flags in itertools.product((False, True), repeat=3)]


@pytest.mark.parametrize("turn", TURNS)
def test_maps_of_a_turned_image_are_turned_maps(turn, toy_slides) -> None:
    """V3: turning pictures, as a model does in training, is as good as turning what they are of."""
    pixels = np.asarray(toy_slides[0].frame.pyramid.levels[0][:3, 300:556, 300:556])

    def turned(image: np.ndarray) -> np.ndarray:
        return turn.picture(torch.from_numpy(image)).numpy().copy()

    one, other = edges(turned(pixels), 1.25), turned(edges(pixels, 1.25))
    assert (np.abs(one - other) > 1e-3).mean() < 2e-3 and (other > 0.1).mean() > 0.05
    blob = blobs(pixels, 1.25)
    np.testing.assert_allclose(blobs(turned(pixels), 1.25), turned(blob), atol=1e-4)
    labels, again = (nuclei(each, threshold([blob]), 1.25) for each in (blob, turned(blob)))
    assert ((again > 0) == turned(labels > 0)).mean() > 0.999 and abs(again.max() - labels.max()) <= 2
    drawn = np.stack([turned(part) for part in rendered(labels, 1.25)])
    np.testing.assert_allclose(rendered(turned(labels), 1.25), drawn, atol=1e-6)
