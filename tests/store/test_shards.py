"""Files of a journal: what is damaged, or of other rows, is as good as none."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.errors import StoreError
from sq_imputer.store.shards import packed, read_shard, replace_file

ROWS = np.array([2, 5])


def test_a_shard_is_read_as_it_was_written_and_for_its_rows_alone(tmp_path):
    path = tmp_path / "a-00000.shard"
    assert read_shard(path, ROWS) is None
    replace_file(path, packed(ROWS, {"x": np.eye(2, dtype=np.float32)[:, ::-1]}))
    np.testing.assert_array_equal(read_shard(path, ROWS)["x"], [[0, 1], [1, 0]])
    assert read_shard(path, ROWS + 1) is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    path.write_bytes(path.read_bytes()[:-1])
    assert read_shard(path, ROWS) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match="gone' cannot be written: No such file"):
        replace_file(tmp_path / "gone" / "a.shard", b"")
