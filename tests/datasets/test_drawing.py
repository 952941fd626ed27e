from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sq_imputer.datasets._drawing import STAINS, Stain, draw_stain, draw_tissue, render


@pytest.fixture(scope="module")
def tissue():
    return draw_tissue(np.random.default_rng(3), 800, 1.0)


def test_the_masks_agree(tissue):
    assert not (tissue.glands & tissue.stroma).any()
    assert not (tissue.glands & ~tissue.tissue).any()
    assert (tissue.nuclei[tissue.lymphocytes] > 0).all()
    assert not tissue.tissue[:5].any() and not tissue.tissue[:, -5:].any()  # a margin of glass


def test_nuclei_are_stained_and_glass_is_not(tissue):
    assert tissue.hematoxylin[tissue.nuclei > 0].min() > 0.1
    assert tissue.eosin[~tissue.tissue].max() == 0


def test_nuclei_have_the_size_of_nuclei(tissue):
    area = np.bincount(tissue.nuclei.ravel())[1:]
    assert 20 < np.median(area[area > 0]) < 80  # µm²


def test_rendering_is_beer_lambert(tissue):
    stain = Stain(vectors=STAINS, strength=np.array([1.0, 0.8]), white=np.array([240.0, 238, 242]))
    flat = replace(tissue, hematoxylin=np.full((50, 50), 0.4, "f4"), eosin=np.full((50, 50), 0.5, "f4"))
    image = render(flat, stain, np.random.default_rng(0))
    expected = stain.white * np.exp(-0.4 * STAINS[0] - 0.8 * 0.5 * STAINS[1])
    np.testing.assert_allclose(image.mean(axis=(1, 2)) + 0.5, expected, atol=0.3)  # + 0.5: truncated to uint8


def test_laboratories_stain_differently():
    one, two = (draw_stain(np.random.default_rng(k)) for k in (1, 2))
    assert np.abs(one.vectors - two.vectors).max() > 0.02
    np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=1), 1)
    assert (one.white > 225).all() and (one.white < 256).all()


def test_halves_are_more_nuclei_with_longer_outlines_that_cover_and_stain_as_much(tissue):
    halved = draw_tissue(np.random.default_rng(3), 800, 1.0, halves=True)
    np.testing.assert_array_equal(halved.eosin, tissue.eosin)
    number, cover, stain, outline = (
        np.array([measure(one) for one in (tissue, halved)])
        for measure in (
            lambda one: len(np.unique(one.nuclei)),
            lambda one: (one.nuclei > 0).mean(),
            lambda one: one.hematoxylin.mean(),
            lambda one: sum((np.diff(one.nuclei, axis=axis) != 0).sum() for axis in (0, 1)),
        )
    )
    assert number[1] > 1.3 * number[0] and outline[1] > 1.1 * outline[0]
    assert abs(cover[1] / cover[0] - 1) < 0.08 and abs(stain[1] / stain[0] - 1) < 0.04
