"""Shifts, mirror images and scales that were planted in a toy tissue are found, and undone by what is returned."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from spatialdata import deepcopy
from spatialdata.transformations import Affine, Sequence, get_transformation, set_transformation

import sq_imputer as sqi
from sq_imputer.section.slide import Slide

PITCH = 100.0
HERE = {"coordinate_system": "global"}  # where shapes are moved: elsewhere they stay


@pytest.fixture(scope="module")
def tissue():
    return sqi.datasets.toy(1, size_px=700, mpp=2.0, n_genes=24, seed=3)["P1"]


@pytest.fixture
def moved(tissue):
    """A function that moves the shapes by a matrix in µm."""

    def move(matrix):
        sdata = deepcopy(tissue)
        own = get_transformation(sdata.shapes["spots"], "global")
        to_um = Slide.from_sdata(sdata).frame.to_um
        there = np.linalg.inv(to_um) @ matrix @ to_um
        set_transformation(sdata.shapes["spots"], Sequence([own, Affine(there, ("x", "y"), ("x", "y"))]), "global")
        return sdata

    return move


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=float)


def test_a_section_as_it_was_drawn_is_aligned(tissue, digest) -> None:
    before = digest(tissue)
    found = sqi.pp.alignment(tissue, search_um=200)
    assert digest(tissue) == before
    assert found.verdict == "aligned" and found.within_um < PITCH / 4 and found.p < 0.05
    assert np.hypot(*found.shift_um) < PITCH / 8 and "lie on each other" in found.reason
    axes = sqi.pl.alignment(found)
    assert len(axes) == 3 and "aligned" in axes[0].figure._suptitle.get_text()
    plt.close("all")
    with pytest.raises(sqi.BadInput, match="found is a str; expected what pp.alignment returns"):
        sqi.pl.alignment("aligned")


def test_a_planted_shift_is_found_and_undone(moved, tissue) -> None:
    off = moved(shift(-120, 60))
    found = sqi.pp.alignment(off, search_um=200, **HERE)
    assert found.verdict == "off" and np.abs(found.shift_um - [120, -60]).max() < PITCH / 4
    set_transformation(off.shapes["spots"], found.transformation, found.coordinate_system)
    away = Slide.from_sdata(off, **HERE).xy_um - Slide.from_sdata(tissue, **HERE).xy_um
    assert np.abs(away).max() < PITCH / 4


def test_a_mirror_image_is_found_and_undone(moved, tissue) -> None:
    side = 1400.0
    off = moved(np.array([[-1, 0, side], [0, 1, 0], [0, 0, 1]], dtype=float))
    placed = sqi.pp.alignment(off, search_um=100, also="flip", apply=True, **HERE)
    set_transformation(off.shapes["spots"], placed, "global")
    away = Slide.from_sdata(off, **HERE).xy_um - Slide.from_sdata(tissue, **HERE).xy_um
    assert np.abs(away).max() < PITCH / 4


def test_counts_that_the_image_says_nothing_of_cannot_be_told(tissue) -> None:
    other = deepcopy(tissue)
    table = other.tables["table"]
    table.X = table.X[np.random.default_rng(0).permutation(table.n_obs)]
    found = sqi.pp.alignment(other, search_um=100)
    assert found.verdict == "cannot be told" and found.p > 0.05 and "displaced" in found.reason
    with pytest.raises(sqi.BadInput, match="section 'P1' is not moved: no place within 100 µm"):
        sqi.pp.alignment(other, search_um=100, apply=True)


def test_what_cannot_be_is_said(tissue) -> None:
    with pytest.raises(sqi.BadInput, match="also names 'twist'; expected some of 'flip', 'rotation', 'scale'"):
        sqi.pp.alignment(tissue, also="twist")
    few = deepcopy(tissue)
    few.tables["table"] = few.tables["table"][:20].copy()
    with pytest.raises(sqi.BadInput, match="has 20 rows with counts; alignment needs 30 or more"):
        sqi.pp.alignment(few)
