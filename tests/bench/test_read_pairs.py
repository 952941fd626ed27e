"""Pairs in files with the columns of HESCAPE, which the test makes."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import sq_imputer as sqi
from sq_imputer import bench

GENES = ["A", "B", "C"]


def picture(color: int, size: int = 96) -> bytes:
    held = np.full((size, size, 3), 255, dtype=np.uint8)
    held[size // 4 : -size // 4, size // 4 : -size // 4] = color
    out = io.BytesIO()
    Image.fromarray(held).save(out, format="PNG")
    return out.getvalue()


def table(**changes) -> pa.Table:
    columns = {
        "name": ["S1", "S1", "S2"],
        "image": [{"bytes": picture(color), "path": None} for color in (10, 90, 200)],
        "gexp": [[1.0, 0.0, 3.0], [0.0, 2.0, 2.0], [5.0, 5.0, 0.0]],
        "source": ["Breast"] * 3,
        "cell_coords": [[0.0, 0.0], [100.0, 0.0], [0.0, 0.0]],
    }
    return pa.table({**columns, **changes})


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_both_forms_are_read_in_order(tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".parquet":
        pq.write_table(table(), path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table().schema) as writer:
            writer.write_table(table())
    found = bench.read_pairs(tmp_path, GENES, crop_px=48, size_px=32, crops=True)
    assert found.section.tolist() == ["S1", "S1", "S2"] and found.genes == ("A", "B", "C")
    np.testing.assert_allclose(found.expression[0], np.log1p([2500, 0, 7500]), rtol=1e-5)  # over the panel's total
    assert found.depth.tolist() == [4, 4, 10]
    assert found.crops.shape == (3, 3, 32, 32) and [int(c.mean()) for c in found.crops] == [10, 90, 200]
    assert found.xy_um[1].tolist() == [100, 0] and len(found.image) == 3


def test_the_middle_is_always_the_same(tmp_path):
    pq.write_table(table(), tmp_path / "p.parquet")
    one, other = (bench.read_pairs(tmp_path, GENES, crop_px=48, size_px=32).image for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_slides_are_chosen_by_name(tmp_path):
    pq.write_table(table(), tmp_path / "p.parquet")
    found = bench.read_pairs(tmp_path / "p.parquet", GENES, names=["S2"], crop_px=48, size_px=32)
    assert found.section.tolist() == ["S2"]
    with pytest.raises(sqi.MissingKey, match="no row of 'S9'"):
        bench.read_pairs(tmp_path / "p.parquet", GENES, names=["S9"])


def test_what_cannot_be_read_is_said(tmp_path):
    pq.write_table(table(), tmp_path / "p.parquet")
    with pytest.raises(sqi.BadInput, match="gexp has 3 values and there are 2 genes"):
        bench.read_pairs(tmp_path, ["A", "B"], crop_px=48, size_px=32)
    pq.write_table(table().drop_columns(["gexp"]), tmp_path / "p.parquet")
    with pytest.raises(sqi.MissingKey, match="no column 'gexp'"):
        bench.read_pairs(tmp_path, GENES)
    pq.write_table(table(image=[{"bytes": b"none", "path": None}] * 3), tmp_path / "p.parquet")
    with pytest.raises(sqi.BadInput, match="a picture cannot be read"):
        bench.read_pairs(tmp_path, GENES)
    with pytest.raises(sqi.MissingKey, match="no file"):
        bench.read_pairs(tmp_path / "none.parquet", GENES)
