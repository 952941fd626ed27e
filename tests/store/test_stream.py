"""Arrays that are written as they come; `tests/runs/test_streamed.py` writes whole tables so."""

import numpy as np
import zarr

from sq_imputer.store.stream import Sheet


def test_arrays_come_in_any_order_and_linked_ones_take_no_room(tmp_path) -> None:
    group, rng = zarr.open_group(tmp_path / "t", mode="w"), np.random.default_rng(0)
    sheet, values = Sheet(group, tmp_path, 1200), rng.normal(size=(1200, 3)).astype(np.float32)
    sheet.blank("layers/measured", (3,), "float32", np.nan)
    for rows in np.array_split(rng.permutation(1200), 5):
        sheet.put("layers/a", rows, values[rows])
        sheet.put("obsm/a_samples", rows, values[rows][:, None])
    sheet.put("layers/measured", np.array([3, 1100]), values[[3, 1100]])
    sheet.link("X", "layers/a")
    read = zarr.open_group(tmp_path / "t", mode="r")
    for path in ("layers/a", "X"):
        np.testing.assert_array_equal(read[path][:], values)
    np.testing.assert_array_equal(read["obsm/a_samples"][:, 0], values)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(read["layers/measured"][:, 0])), [3, 1100])
    files = [path for path in (tmp_path / "t/X").rglob("*") if path.is_file()]
    assert all(path.stat().st_nlink == 2 for path in files) and len(files) == 4
    assert not (tmp_path / "t/layers/measured/c/1").exists()
    assert sheet.names == ["layers/measured", "layers/a", "obsm/a_samples", "X"]
