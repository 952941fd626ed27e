from __future__ import annotations

from dataclasses import replace

import numpy as np

from sq_imputer.section.nearby import by_place, counted


def test_coordinates_say_the_mean_of_the_ten_nearest_rows_and_of_what_is_usual(toy_slides):
    slide = toy_slides[0]
    kept = np.arange(len(slide)) > 0
    said = by_place(slide, np.array([0]), [slide], [kept])
    away = np.linalg.norm(slide.xy_um[1:] - slide.xy_um[0], axis=1)
    near = slide.expression[1:][np.argsort(away)[:10]]
    np.testing.assert_allclose(said[0], (near.sum(axis=0) + slide.expression[1:].mean(axis=0)) / 11, rtol=1e-5)


def test_other_sections_are_laid_on_each_other_by_their_middles(toy_slides):
    slide, other = toy_slides[:2]
    every, rows = [np.ones(len(other), dtype=bool)], np.arange(5)
    moved = replace(other, centers_px=other.centers_px + 1000)
    np.testing.assert_allclose(by_place(slide, rows, [other], every), by_place(slide, rows, [moved], every), rtol=1e-5)


def test_depth_is_known_where_all_rows_have_counts(toy_slides):
    slide = toy_slides[0]
    assert counted(slide, np.arange(3), toy_slides)
    assert not counted(replace(slide, counts=None), np.arange(3), toy_slides)
