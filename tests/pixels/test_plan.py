from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from sq_imputer.contract import CropSpec
from sq_imputer.pixels.plan import Touched, in_groups, in_order, pick_level, place
from sq_imputer.pixels.pyramid import Pyramid

EYE = np.eye(2)


def pyramid(*sides: int) -> Pyramid:
    return Pyramid(tuple(da.zeros((3, side, side), dtype=np.uint8) for side in sides))


def lattice(n: int, side: int, window: int) -> np.ndarray:
    k = int(np.ceil(n**0.5))
    steps = np.linspace(0, side - window, k).astype(int)
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)[:n]


def edges(side: int, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    edge = np.append(np.arange(0, side, chunk), side)
    return edge, edge


@pytest.mark.parametrize(
    ("extent_um", "level"),
    [(10, 0), (50, 0), (99, 0), (100, 1), (198, 1), (200, 2), (5000, 2)],  # 100 px of .5, 1 and 2 µm
)
def test_the_coarsest_level_that_is_not_coarser_than_the_crop(extent_um, level):
    assert pick_level(pyramid(1000, 500, 250), CropSpec(extent_um, 100), mpp=0.5) == level


def test_equal_resolution_cuts_whole_pixels_around_the_center():
    windows = place(pyramid(1000), np.array([[50.0, 80.0], [50.4, 80.6], [0, 0]]), CropSpec(10, 10), 1.0, EYE)
    assert windows.offset is None
    assert windows.side == 10
    np.testing.assert_array_equal(windows.start, [[75, 45], [76, 45], [-5, -5]])


def test_at_another_resolution_the_crop_lies_inside_its_window():
    centers = np.random.default_rng(0).uniform(0, 1000, (50, 2))
    windows = place(pyramid(1000), centers, CropSpec(17.3, 10), 1.0, EYE)
    corner = windows.start[:, ::-1] + windows.offset
    np.testing.assert_allclose(corner, centers - 17.3 / 2, atol=1e-3)
    assert (windows.offset >= 2).all()
    assert (windows.offset + 17.3 <= windows.side - 2).all()


@pytest.mark.parametrize("angle", [0.3, 2.0, -1.2])
def test_the_window_of_a_turned_crop_holds_its_corners(angle):
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centers = np.random.default_rng(0).uniform(0, 1000, (50, 2))
    windows = place(pyramid(1000), centers, CropSpec(40, 10), 1.0, axes)
    for u, v in [(-20, -20), (20, -20), (-20, 20), (20, 20)]:
        corner = centers + axes @ (u, v) - windows.start[:, ::-1]
        assert (corner >= 1).all()
        assert (corner <= windows.side - 1).all()


def test_windows_know_the_tiles_they_touch():
    start = np.array([[0, 0], [5, 5], [9, 0], [-4, -4], [-5, 3], [98, 20], [100, 0], [3, -(10**12)]])
    touched = Touched.by(start, 5, edges(100, 10))
    np.testing.assert_array_equal(touched.first, [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [9, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(touched.last, [[0, 0], [0, 0], [1, 0], [0, 0], [-1, -1], [9, 2], [-1, -1], [-1, -1]])
    rows, tiles = touched[np.array([2, 4])].pairs(10)
    assert (rows.tolist(), tiles.tolist()) == ([0, 0], [0, 10])


def run(steps, touched, columns, start, edge, window):
    """Follow the steps, check that rows find their tiles; the most pixels held, the rows and tiles seen."""
    held, peak, out, decoded = {}, 0, [], []
    for step in steps:
        for tile in (tile for run in step.runs for tile in run):
            held[tile] = edge[tile // columns]
            decoded.append(tile)
        peak = max(peak, sum((edge[t // columns + 1] - y) * (edge[1] - edge[0]) for t, y in held.items()))
        for row in step.rows:
            _, tiles = touched[np.array([row])].pairs(columns)
            for tile in tiles:
                assert held[tile] <= max(start[row, 0], edge[tile // columns])
        out.append(step.rows)
        for tile, y in step.trim:
            held[tile] = max(held[tile], y)
        for tile in step.drop:
            del held[tile]
    assert not held
    return peak, np.concatenate(out), decoded


@pytest.mark.parametrize(("window", "chunk"), [(30, 100), (30, 20), (150, 40), (1, 7), (1200, 100)])
def test_in_order_every_tile_is_decoded_once_and_there_when_needed(window, chunk):
    rng = np.random.default_rng(0)
    start, edge = rng.integers(-window, 1000, (400, 2)), edges(1000, chunk)
    touched = Touched.by(start, window, edge)
    columns = len(edge[0]) - 1
    steps = in_order(touched, start, columns, tile_bytes=1 << 20)
    _, rows, decoded = run(steps, touched, columns, start, edge[0], window)
    assert sorted(rows) == list(range(400))
    assert decoded == sorted(set(touched.pairs(columns)[1]))


def test_memory_depends_neither_on_the_number_of_rows_nor_on_the_height():
    peaks = []
    for n, chunks_high in [(400, 10), (6400, 10), (1600, 40)]:
        start = lattice(n, 1000, 20) * (chunks_high // 10, 1)
        edge = edges(100 * chunks_high, 100)[0], edges(1000, 100)[0]
        touched = Touched.by(start, 20, edge)
        peaks.append(run(in_order(touched, start, 10, 10 << 20), touched, 10, start, edge[0], 20)[0])
    strip, tile = 20 * 1000, 100 * 100
    assert max(peaks) <= strip + 3 * tile


def test_groups_stand_alone():
    start, edge = lattice(900, 1000, 30), edges(1000, 50)
    touched = Touched.by(start, 30, edge)
    steps = list(in_groups(touched, 20, tile_bytes=4 << 20))
    assert len(steps) > 1
    _, rows, _ = run(iter(steps), touched, 20, start, edge[0], 30)
    assert sorted(rows) == list(range(900))
    for step in steps:
        assert step.drop == [tile for run in step.runs for tile in run]


def test_a_generator_shuffles_groups_and_rows_inside_them():
    start, edge = lattice(900, 1000, 30), edges(1000, 50)
    touched = Touched.by(start, 30, edge)

    def rows(seed=None):
        generator = None if seed is None else np.random.default_rng(seed)
        return [step.rows for step in in_groups(touched, 20, 4 << 20, generator)]

    plain, one, again, other = rows(), rows(1), rows(1), rows(2)
    assert np.array_equal(np.concatenate(one), np.concatenate(again))
    assert not np.array_equal(np.concatenate(one), np.concatenate(other))
    groups = {tuple(group) for group in plain}
    assert {tuple(sorted(group)) for group in one} == groups
    assert [tuple(sorted(group)) for group in one] != [tuple(group) for group in plain]
    assert any(tuple(group) not in groups for group in one)


@pytest.mark.parametrize("start", [np.empty((0, 2), int), np.full((3, 2), 10**9)])
def test_rows_outside_the_image_come_out_without_decoding(start):
    touched = Touched.by(start, 5, edges(100, 10))
    for steps in (in_order(touched, start, 10, 300), in_groups(touched, 10, 300)):
        steps = list(steps)
        assert sorted(row for step in steps for row in step.rows) == list(range(len(start)))
        assert not any(step.runs for step in steps)


def test_windows_of_different_sides_touch_what_those_of_one_side_do():
    rng = np.random.default_rng(5)
    start, sides = rng.integers(-20, 120, (40, 2)), rng.integers(1, 30, 40)
    found = Touched.by(start, np.stack([sides, sides], axis=1), edges(100, 10))
    for row, side in enumerate(sides.tolist()):
        alone = Touched.by(start[[row]], side, edges(100, 10))
        np.testing.assert_array_equal([found.first[row], found.last[row]], [alone.first[0], alone.last[0]])
