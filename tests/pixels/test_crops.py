from __future__ import annotations

import multiprocessing
import pickle
import threading
import zlib

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import zarr

from sq_imputer.contract import CropSpec
from sq_imputer.errors import BadInput, SqImputerError
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.pyramid import Pyramid

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 300, 420
IMAGE = RNG.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)
# smooth enough that half a pixel does not matter
SMOOTH = np.stack(
    [
        127 + 100 * np.sin((np.arange(HEIGHT)[:, None] * a + np.arange(WIDTH) * b) / 15)
        for a, b in [(1, 0), (0, 1), (1, 1)]
    ]
).astype(np.uint8)
CENTERS = RNG.uniform((-40, -40), (WIDTH + 40, HEIGHT + 40), (150, 2))
CENTERS[:3] = [[1e300, 5], [-1e6, 1e6], [0, 0]]
TURNS = [np.array([[a, -s * b], [b, s * a]], float) for a, b in [(1, 0), (0, 1), (-1, 0), (0, -1)] for s in (1, -1)]


def lazy(image=IMAGE, chunks=(3, 64, 64)) -> Pyramid:
    return Pyramid((da.from_array(image, chunks=chunks),))


def stored(folder, image=IMAGE, **options) -> Pyramid:
    array = zarr.create_array(folder / "image.zarr", shape=image.shape, chunks=(3, 64, 64), dtype="uint8", **options)
    array[:] = image
    return Pyramid((da.from_zarr(array),))


def crops(pyramid=None, centers=CENTERS, size=32, extent=None, **options) -> Crops:
    spec = CropSpec(extent or size, size)
    return Crops(lazy() if pyramid is None else pyramid, centers, spec, **{"mpp": 1.0, **options})


def cut(image, center, size) -> np.ndarray:
    """What a crop must be, pixel for pixel."""
    out = np.full((3, size, size), 255, np.uint8)
    # a center just short of half a pixel counts as half
    corner = np.rint((np.clip(center, -1e6, 1e6) - size / 2) * 1024) / 1024
    left, top = np.floor(corner + 0.5 + 0.002 + 1 / 1024).astype(int)
    for y in range(max(top, 0), min(top + size, image.shape[1])):
        x0, x1 = max(left, 0), min(left + size, image.shape[2])
        if x0 < x1:
            out[:, y - top, x0 - left : x1 - left] = image[:, y, x0:x1]
    return out


def turned(image, axes) -> tuple[np.ndarray, np.ndarray]:
    """The image redrawn so that the axes of the crop become its own, and the same centers there.

    `axes` are the crop's directions in the given image; the new image is the one where they are x and y.
    """
    height, width = image.shape[1:]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ axes
    low = corners.min(axis=0)
    size = np.rint(corners.max(axis=0) - low).astype(int)
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    x, y = np.floor(np.einsum("ij,jvu->ivu", axes, np.stack([u + low[0], v + low[1]]))).astype(int)
    return image[:, y, x], low


@pytest.mark.parametrize("size", [1, 31, 32, 200])
def test_crops_are_the_pixels_of_the_image_and_white_around_it(size):
    expected = np.stack([cut(IMAGE, center, size) for center in CENTERS])
    np.testing.assert_array_equal(crops(size=size)[:], expected)
    assert (expected[0] == 255).all()


def test_each_chunk_is_decoded_once_in_a_pass(tmp_path):
    some = crops(stored(tmp_path))
    assert some.decodes == 0
    seen = np.concatenate([index for index, _ in some])
    assert sorted(seen) == list(range(len(some)))
    assert some.decodes == some.n_chunks == 35
    some[3:5]
    assert some.decodes <= some.n_chunks + 8


@pytest.mark.parametrize("extent", [32, 45, 20])
@pytest.mark.parametrize("angle", [0, 30])
def test_a_crop_depends_on_its_center_alone(extent, angle, tmp_path):
    turn = np.deg2rad(angle)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centers = CENTERS[:20]
    expected = np.stack([crops(centers=centers[[row]], extent=extent, axes=axes)[0] for row in range(20)])
    order = np.random.default_rng(1).permutation(20)
    for image in (lazy(chunks=(1, 17, 50)), lazy(chunks=(3, 300, 420)), stored(tmp_path)):
        for threads, batch_size in [(1, 1), (2, 16), (5, 1000)]:
            some = crops(image, centers, extent=extent, axes=axes, threads=threads)
            for index, batch in some.batches(batch_size):
                np.testing.assert_array_equal(batch, expected[index])
            np.testing.assert_array_equal(some[order], expected[order])


def test_rows_of_a_batch_and_of_a_subset():
    some, rows = crops(), np.array([7, 3, 3, -1])
    index, batch = next(some.batches(10, rows=rows))
    assert sorted(index) == [3, 3, 7, 149]
    np.testing.assert_array_equal(batch, some[index])
    sizes = [len(index) for index, _ in some.batches(64)]
    assert sizes == [64, 64, 22]
    mask = np.arange(150) % 7 == 0
    assert sorted(np.concatenate([index for index, _ in some.batches(5, rows=mask)])) == np.flatnonzero(mask).tolist()


def test_indexing_follows_numpy():
    some = crops()
    everything = some[:]
    for key in (5, -1, slice(3, 20, 4), [4, 4, 0], np.array([True] * 3 + [False] * 147), [], slice(0, 0), np.int64(9)):
        np.testing.assert_array_equal(some[key], everything[key])
    for key in (150, -151, [0, 150], 1.5):
        with pytest.raises(IndexError):
            some[key]


def test_shuffling_is_complete_and_follows_the_generator():
    some = crops(lazy(chunks=(3, 20, 20)))
    everything = some[:]

    def order(seed):
        parts = list(some.batches(16, generator=np.random.default_rng(seed)))
        np.testing.assert_array_equal(
            np.concatenate([batch for _, batch in parts]), everything[np.concatenate([i for i, _ in parts])]
        )
        return np.concatenate([index for index, _ in parts]).tolist()

    assert sorted(order(1)) == list(range(150))
    assert order(1) == order(1) != order(2)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize(("size", "extent"), [(32, 32), (31, 31), (32, 47.3), (32, 20)])
def test_a_flipped_or_turned_image_with_matching_axes_gives_the_same_crops(number, size, extent):
    axes = TURNS[number]
    redrawn, low = turned(IMAGE, axes)
    # whole and half pixels are where rounding could go either way
    centers = np.concatenate([CENTERS[3:], np.rint(CENTERS[3:] * 2) / 2])
    here = crops(lazy(), centers, size, extent, axes=axes)[:]
    there = crops(lazy(redrawn), centers @ axes - low, size, extent)[:]
    np.testing.assert_array_equal(here, there)


def test_crops_of_a_turned_image_are_close_to_those_of_the_original():
    from PIL import Image

    turn, center = np.deg2rad(30), np.array([WIDTH / 2, HEIGHT / 2])
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shift = center - axes.T @ center  # new pixel -> old pixel
    data = (axes[0, 0], axes[1, 0], shift[0], axes[0, 1], axes[1, 1], shift[1])
    planes = [
        Image.fromarray(p).transform((WIDTH, HEIGHT), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
        for p in SMOOTH
    ]
    spots = RNG.uniform(center - 50, center + 50, (40, 2))
    new = (spots - shift) @ np.linalg.inv(axes.T).T
    for extent in (32, 64):
        before = crops(lazy(SMOOTH), spots, extent=extent)[:].astype(int)
        after = crops(lazy(np.stack(planes)), new, extent=extent, axes=axes)[:].astype(int)
        assert np.abs(before - after).mean() < 4
        wrong = crops(lazy(np.stack(planes)), new, extent=extent, axes=axes.T)[:].astype(int)
        assert np.abs(before - wrong).mean() > 30


@pytest.mark.parametrize("extent", [9.7, 24, 40, 110])
@pytest.mark.parametrize("angle", [0, 90, 25, 200])
def test_resampling_keeps_position_and_scale_to_a_fraction_of_a_pixel(extent, angle):
    # on a ramp the value of a pixel is its position; averaging and interpolation leave it alone
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    ramp = np.stack([x / WIDTH, y / HEIGHT, (x + y) / (WIDTH + HEIGHT)])
    turn = np.deg2rad(angle)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    center = np.array([[201.3, 148.8]])
    got = crops(lazy(ramp), center, 16, extent, axes=axes)[0]
    step = (np.arange(16) + 0.5 - 8) * extent / 16
    u, v = np.meshgrid(step, step)
    x, y = center[0] @ (1, 0) + axes[0, 0] * u + axes[0, 1] * v, center[0] @ (0, 1) + axes[1, 0] * u + axes[1, 1] * v
    expected = 255 * np.stack([x / WIDTH, y / HEIGHT, (x + y) / (WIDTH + HEIGHT)])
    assert np.abs(got - expected).max() <= 1.6  # uint8 rounding, once in the image and once in the crop


def test_downsampling_is_antialiased():
    checkers = (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2 * 255).astype(np.uint8)[None].repeat(3, axis=0)
    for angle in (0, 20):
        turn = np.deg2rad(angle)
        axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        got = crops(lazy(checkers), np.array([[200.0, 150.0]]), 16, 16 * 6.3, axes=axes)[0]
        assert np.abs(got.astype(int) - 127).max() < 20


def test_the_level_follows_from_the_extent_and_saves_chunks(tmp_path):
    levels = []
    for number, step in enumerate((1, 2, 4)):
        array = zarr.create_array(
            tmp_path / f"{number}", shape=(3, 75 * 4 // step, 420 // step), chunks=(3, 64, 64), dtype="uint8"
        )
        array[:] = number * 100
        levels.append(da.from_zarr(array))
    pyramid = Pyramid(tuple(levels))
    needed = []
    for extent, level in [(32, 0), (60, 0), (64, 1), (128, 2), (400, 2)]:
        some = crops(pyramid, np.array([[210.0, 150.0]]), extent=extent)
        assert some.level == level
        assert some[0][0, 16, 16] == 100 * level
        needed.append(crops(pyramid, CENTERS, extent=extent).n_chunks)
    assert needed[0] == 35 > needed[2] == 12 > needed[3] == 4


def test_floats_alpha_and_channel_order():
    image = np.concatenate([IMAGE, np.full((1, HEIGHT, WIDTH), 51, np.uint8)])
    blank = 255 - (255.0 - IMAGE[::-1]) * 0.2
    for levels in (image, image / np.float32(255)):
        pyramid = Pyramid((da.from_array(levels, chunks=(2, 64, 64)),), channels=(2, 1, 0), alpha=3)
        got = crops(pyramid, np.array([[100.0, 100.0]]))[0]
        np.testing.assert_array_equal(got, np.rint(blank[:, 84:116, 84:116]))


def test_a_float_image_in_0_to_255_is_an_error():
    with pytest.raises(BadInput, match=r"chunk \(0, 1, 1\).*\[0, 1\] is expected"):
        crops(lazy(IMAGE.astype("float32")), np.array([[96.0, 96.0]]))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centers": np.array([[0, 0], [np.nan, 1], [2, np.inf]])}, "2 of 3 centers .* rows '1', '2'"),
        ({"centers": np.zeros((4, 3))}, r"shape \(4, 3\)"),
        ({"mpp": 0}, "mpp is 0"),
        ({"mpp": np.nan}, "mpp is nan"),
        ({"axes": np.array([[2.0, 0], [0, 2]])}, "orthogonal unit columns"),
        ({"axes": np.array([[1, 0.5], [0, 1]])}, "shears or stretches"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_read(options, message):
    with pytest.raises(BadInput, match=message):
        crops(**options)


def test_no_rows():
    none = crops(centers=np.empty((0, 2)))
    assert len(none) == none.n_chunks == 0
    assert none[:].shape == (0, 3, 32, 32)
    assert list(none) == []
    assert none.to_dask().compute(scheduler="synchronous").shape == (0, 3, 32, 32)


def ours() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("sq_imputer")}


def test_leaving_the_loop_early_leaves_no_thread(tmp_path):
    some = crops(stored(tmp_path))
    for _ in some.batches(8):
        assert ours()
        break
    assert not ours()
    batches = some.batches(8, generator=np.random.default_rng(0))
    next(batches)
    batches.close()
    assert not ours()
    list(some)
    assert not ours()


@pytest.mark.parametrize("options", [{}, {"generator": np.random.default_rng(0)}])
def test_an_error_in_a_thread_reaches_the_caller_and_names_the_chunk(options, tmp_path):
    some = crops(stored(tmp_path))
    (tmp_path / "image.zarr" / "c" / "0" / "2" / "3").write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"chunk \(0, 2, 3\) of .*image.zarr\) cannot be read"):
        list(some.batches(8, **options))
    assert not ours()


@pytest.mark.parametrize("named", [False, True])
def test_a_damaged_chunk_is_told_with_the_rows_that_need_it(named, tmp_path):
    near = np.array([[10.0, 10], [70, 10], [200, 200], [90, 40]])
    names = np.array(["a", "b", "c", "d"], dtype=object) if named else None
    some = crops(stored(tmp_path), near, names=names)
    file = tmp_path / "image.zarr" / "c" / "0" / "0" / "1"
    file.write_bytes(file.read_bytes()[:-50])
    rows = "'b', 'd'" if named else "'1', '3'"
    with pytest.raises(BadInput, match=rf"damaged: copy it again. 2 of 4 rows need it: {rows}\.$") as caught:
        some.check()
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(BadInput, match=rf"2 of 4 rows need it: {rows}\.$"):
        some[[2, 0, 1]]
    assert some[[0, 2]].shape == (2, 3, 32, 32)
    assert not ours()


@pytest.mark.parametrize("extent", [32, 48])
def test_an_error_while_cutting_names_the_rows(monkeypatch, extent):
    def fail(*_):
        raise OSError("no memory for a picture")

    for name in ("cut", "resample"):
        monkeypatch.setattr(Crops, f"_{name}", fail)
    with pytest.raises(
        SqImputerError, match="OSError while cutting the crops of rows '4' from the image: no memory"
    ) as e:
        crops(extent=extent)[[4]]
    assert isinstance(e.value.__cause__, OSError)


@pytest.mark.parametrize("where", ["_cut", "_walk"])
def test_an_interrupt_passes_unchanged(monkeypatch, where):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Crops, where, interrupt)
    with pytest.raises(KeyboardInterrupt):
        crops()[3]
    assert not ours()


def test_checking_reads_every_chunk_once_and_cuts_nothing(monkeypatch, tmp_path):
    some = crops(stored(tmp_path))
    monkeypatch.setattr(Crops, "_fill", None)
    some.check()
    assert some.decodes == some.n_chunks


def test_to_dask_is_lazy_and_says_its_order(tmp_path):
    some = crops(stored(tmp_path))
    array = some.to_dask()
    assert array.shape == (150, 3, 32, 32)
    assert array.dtype == np.uint8
    assert sorted(some.order) == list(range(150))
    assert some.decodes == 0
    assert not ours()
    np.testing.assert_array_equal(array.compute(scheduler="synchronous"), some[some.order])
    assert array.name == crops(some.pyramid).to_dask().name != crops(some.pyramid, CENTERS + 9).to_dask().name
    np.testing.assert_array_equal(array[40:43].compute(scheduler="threads"), some[some.order[40:43]])


def test_blocks_of_to_dask_can_be_sent_elsewhere(tmp_path):
    some = crops(stored(tmp_path), extent=48, threads=3)
    list(some.batches(rows=range(5)))  # a used object must travel too
    there = pickle.loads(cloudpickle.dumps(some.to_dask()))
    np.testing.assert_array_equal(there.compute(scheduler="synchronous"), some[some.order])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(some))[:], some[:])


def _checksum(some, numbers, queue) -> None:
    queue.put([zlib.crc32(some[number]) for number in numbers] + [len(list(some.batches(16)))])


@pytest.mark.parametrize("kind", ["files", "sharded", "dask"])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_forked_workers_finish_and_read_the_same(kind, tmp_path):
    pyramid = {
        "files": lambda: stored(tmp_path),
        "sharded": lambda: stored(tmp_path, shards=(3, 128, 128)),
        "dask": lambda: lazy(chunks=(3, 64, 64)),
    }[kind]()
    some = crops(pyramid)
    list(some)  # threads have run in the parent
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_checksum, args=(some, range(k, 150, 30), queue)) for k in range(2)]
    for worker in workers:
        worker.start()
    try:
        found = sorted(queue.get(timeout=60) for _ in workers)
    finally:
        for worker in workers:
            worker.join(timeout=10)
            worker.kill()
    assert found == sorted([zlib.crc32(some[number]) for number in range(k, 150, 30)] + [10] for k in range(2))


def test_crops_without_white_are_known():
    inside = crops().inside
    np.testing.assert_array_equal(inside, [cut(np.zeros_like(IMAGE), center, 32).max() == 0 for center in CENTERS])
    assert 0 < inside.sum() < len(inside)
