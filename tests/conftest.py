from __future__ import annotations

import gc
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from defaults import SMALL_CROPS, with_defaults

import sq_imputer as sqi
from sq_imputer.contract import Marks
from sq_imputer.scores.overlap import codes_of
from sq_imputer.section.slide import Slide

REAL_DATA = Path(os.environ.get("SQ_IMPUTER_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure() -> None:
    """Before torch is first imported: its waiting threads must not take the cores of a shared machine."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items) -> None:
    """The longest test begins first: it would else be left to one process at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


def pytest_collection_finish() -> None:
    """What is imported by now stays: a full collection that looks at it again takes most of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public data; tests on real tissue are skipped where it is not."""
    if not (REAL_DATA / "her2st").is_dir():
        pytest.skip(f"no public data at '{REAL_DATA}'; set SQ_IMPUTER_DATA to test on real tissue")
    return REAL_DATA


@pytest.fixture(autouse=True)
def threads():
    """Tests are small, so torch runs on one thread, whatever another package set: scanpy's PCA sets the number."""
    from sq_imputer.device import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="session")
def toy_slides() -> tuple[Slide, ...]:
    """Three small sections of one toy patient with 12 genes as targets. Shared: not to be changed."""
    from sq_imputer.testing import toy_slides

    return toy_slides()


@pytest.fixture(scope="session")
def pickled_section() -> bytes:
    """A small toy section, made once: a copy is a hundred times cheaper."""
    return pickle.dumps(sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"])


@pytest.fixture
def section(pickled_section):
    """A small toy section, fresh for every test."""
    return pickle.loads(pickled_section)


@pytest.fixture(scope="session")
def whole_store(pickled_section, tmp_path_factory) -> Path:
    """The same section in a store. Shared: not to be changed, copies are made of it."""
    path = tmp_path_factory.mktemp("whole") / "section.zarr"
    pickle.loads(pickled_section).write(path)
    return path


@pytest.fixture
def stored(whole_store, tmp_path):
    """The same section, backed by a store of its own."""
    import spatialdata

    return spatialdata.read_zarr(shutil.copytree(whole_store, tmp_path / "section.zarr"))


@contextmanager
def ridge_of_small_crops():
    """`ridge`, also as a baseline, sees small crops by default: it is quick."""
    with pytest.MonkeyPatch.context() as patch:
        with_defaults(patch, "ridge", SMALL_CROPS)
        yield


@pytest.fixture
def small_ridge():
    """As it says, for a test."""
    with ridge_of_small_crops():
        yield


@pytest.fixture(scope="module")
def small_ridges():
    """As it says, for all tests of a file."""
    with ridge_of_small_crops():
        yield


@dataclass
class Arrays:
    """A source made of arrays, in which features or pixels, and expression, are planted."""

    expression: np.ndarray | None
    features: np.ndarray | None = None
    crops: np.ndarray | None = None
    measured: np.ndarray | None = None
    xy_um: np.ndarray | None = None
    group: str = "P1"
    section: str = "A"
    genes: tuple[str, ...] = ()
    unit: str = "log1p_cp10k"
    fingerprint: str = "arrays"

    def __post_init__(self) -> None:
        if self.expression is not None:
            self.expression = np.asarray(self.expression, dtype=np.float32)
            self.genes = self.genes or tuple(f"G{g}" for g in range(self.expression.shape[1]))
        if self.measured is None:
            self.measured = np.full(len(self), self.expression is not None)
        if self.xy_um is None:
            self.xy_um = np.stack(np.divmod(np.arange(len(self)), 10), axis=1) * 100.0

    def __len__(self) -> int:
        return len(self.crops if self.features is None else self.features)

    @property
    def names(self) -> np.ndarray:
        return np.array([f"{self.section}-{row}" for row in range(len(self))], dtype=object)

    def all_features(self, needs, *, device="auto") -> np.ndarray:
        return np.asarray(self.features, dtype=np.float32)

    def moments(self, needs, *, device="auto"):
        values = self.all_features(needs)[self.measured if self.measured.any() else slice(None)].astype(float)
        return values.mean(axis=0), values.std(axis=0)

    def marks(self, genes) -> Marks:
        counts = np.abs(np.rint(self.expression[self.measured] * 100)).astype(int)
        codes = codes_of(counts)
        return Marks(self.genes, self.xy_um[self.measured], codes, np.ones(codes.shape[1], dtype=bool))

    def batches(self, needs, batch_size=64, *, rows=None, generator=None, device="auto"):
        rows = np.arange(len(self)) if rows is None else rows
        order = rows if generator is None else generator.permutation(rows)
        for start in range(0, len(order), batch_size):
            yield self._batch(order[start : start + batch_size])

    def _batch(self, index: np.ndarray) -> sqi.Batch:
        import torch

        parts = {"features": self.features, "crops": self.crops, "expression": self.expression}
        seen = {name: torch.from_numpy(np.asarray(part[index])) for name, part in parts.items() if part is not None}
        if "features" in seen:
            seen["features"] = seen["features"].float()
        section = torch.zeros(len(index), dtype=torch.long)
        return sqi.Batch(torch.from_numpy(index), xy_um=torch.from_numpy(self.xy_um[index]), section=section, **seen)


@pytest.fixture(scope="session")
def arrays() -> type[Arrays]:
    """Makes a source of planted arrays: `arrays(expression, features=...)` or `arrays(expression, crops=...)`."""
    return Arrays


@pytest.fixture
def digest() -> Callable:
    """A function that hashes everything a SpatialData object holds, but for named elements."""
    from spatialdata.transformations import get_transformation

    def of(sdata, without: tuple[str, ...] = ()) -> str:
        # a store that was read notes the version of spatialdata
        attrs = {name: value for name, value in sdata.attrs.items() if not name.startswith("spatialdata")}
        found = hashlib.sha256(json.dumps(attrs, sort_keys=True, default=str).encode())
        for kind, name, element in sdata.gen_elements():
            if name in without:
                continue
            found.update(f"{kind}/{name}".encode())
            if kind != "tables":
                for system, place in sorted(get_transformation(element, get_all=True).items()):
                    found.update(f"{system} {place.to_affine_matrix(('x', 'y'), ('x', 'y'))}".encode())
            for part in _parts(element):
                found.update(np.ascontiguousarray(part).tobytes())
        return found.hexdigest()

    return of


def _parts(element):
    import anndata
    import geopandas

    if isinstance(element, anndata.AnnData):
        x = element.X
        yield x.toarray() if hasattr(x, "toarray") else x
        for frame in (element.obs, element.var):
            yield np.frombuffer(frame.to_csv().encode(), dtype=np.uint8)
        for slot in (element.layers, element.obsm):
            for name in sorted(key for key in slot if key is not None):  # None is X
                yield np.frombuffer(name.encode(), dtype=np.uint8)
                yield slot[name].toarray() if hasattr(slot[name], "toarray") else np.asarray(slot[name])
        yield np.frombuffer(json.dumps(element.uns, sort_keys=True, default=str).encode(), dtype=np.uint8)
    elif isinstance(element, geopandas.GeoDataFrame):
        yield np.frombuffer(element.to_wkb().to_csv().encode(), dtype=np.uint8)
    else:
        level = next(iter(element["scale0"].ds.values())) if hasattr(element, "children") else element
        yield np.asarray(level.data)
