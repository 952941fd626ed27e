from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pytest

from sq_imputer.errors import BadInput
from sq_imputer.store.provenance import plain, pythonic


@dataclass
class Config:
    width: int = 3
    rates: tuple[float, ...] = (0.1, 0.2)
    name: str | None = None


RECORD = {
    "config": Config(),
    "genes": ["a", "b"],
    "folds": (np.int64(1), 2),
    "empty": [],
    "mixed": [1, "a", {"deep": None, "kept": True}],
    "path": Path("a/b"),
    "mpp": np.float32(0.5),
    "flag": np.bool_(True),
    "weights": None,
    "nothing": {},
}
EXPECTED = {
    "config": {"width": 3, "rates": [0.1, 0.2]},
    "genes": ["a", "b"],
    "folds": [1, 2],
    "empty": [],
    "mixed": {"0": 1, "1": "a", "2": {"kept": True}},
    "path": "a/b",
    "mpp": 0.5,
    "flag": True,
    "nothing": {},
}


def test_what_is_in_memory_equals_what_is_read_back(tmp_path):
    table = anndata.AnnData(np.zeros((2, 2), "float32"), uns={"sq_imputer": plain(RECORD)})
    table.write_zarr(tmp_path / "table.zarr")
    stored = anndata.read_zarr(tmp_path / "table.zarr").uns["sq_imputer"]
    np.testing.assert_equal(stored, table.uns["sq_imputer"])
    assert pythonic(stored) == pythonic(table.uns["sq_imputer"]) == EXPECTED


def test_plain_twice_is_plain_once():
    np.testing.assert_equal(plain(plain(RECORD)), plain(RECORD))


def test_what_no_store_can_hold_is_refused():
    with pytest.raises(BadInput, match="object.*cannot be kept in uns"):
        plain({"a": [object()]})
