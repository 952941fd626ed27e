"""Every row of the table of bad input is refused in the same way: said clearly, at once, with nothing touched."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from quick_zarr import *  # noqa: F403

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.encoders import Encoder
from sq_imputer.predictor import train

SECONDS = 2  # of CPU time, within which bad input must be refused


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    """Import what verbs import where they use it: the time of that is not the time of a check."""
    import squidpy  # noqa: F401

    for name in sqi.list_models():
        sqi.get_model(name)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A backed section of 59 spots, shared: not to be changed."""
    section = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    section.write(tmp_path_factory.mktemp("toy") / "section.zarr")
    return section


@pytest.fixture(scope="session")
def states() -> dict:
    """What was hashed of objects that tests share, by their `id`: once, as nothing may change them."""
    return {}


@pytest.fixture(scope="session")
def predicted(toy, tmp_path_factory, states):
    """The section with predictions of 12 genes by ridge, out of fold, and domains, also backed and shared."""
    section = copied(toy)
    section.path = None
    sqi.tl.predict(section, "ridge", genes=12, n_folds=2, config={"size_px": 32, "context_um": ()})
    sqi.tl.domains(section, n_domains=3, method="kmeans")
    section.write(tmp_path_factory.mktemp("predicted") / "section.zarr")
    states[id(section)] = None
    return section


@pytest.fixture(scope="session")
def fitted(predicted):
    """A model that was fitted on the section."""
    return sqi.tl.fit(predicted, "ridge", genes=6, config={"size_px": 64, "context_um": ()})


@pytest.fixture
def sdata(toy):
    """The section to be spoilt in memory, backed by the store of all."""
    return copied(toy)


def copied(sdata):
    """A copy in memory that takes the same store for its own."""
    from spatialdata import deepcopy

    made = deepcopy(sdata)
    made.path = sdata.path
    return made


@contextmanager
def no_forward() -> Iterator[None]:
    """No encoder may see a crop (the one picture that tells which it is, is none), no model and no training may run."""

    def ran(*_args, **_keys):
        raise AssertionError("something was computed before the input was checked")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "_with_canary", lambda encoder: encoder)
        patch.setattr(Encoder, "__call__", ran)
        patch.setattr(train, "fit", ran)
        for name in sqi.list_models():
            patch.setattr(sqi.get_model(name), "predict_step", ran)
        yield


@pytest.fixture
def files() -> Callable:
    """A function that hashes every file of the store behind an object: its content and its place."""

    def of(sdata) -> dict[str, str]:
        root = None if sdata is None or sdata.path is None else Path(sdata.path)
        paths = sorted(path for path in root.rglob("*") if path.is_file()) if root else []
        return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    return of


@pytest.fixture
def unchanged(digest, files, states) -> Callable:
    """A function that calls another one and checks that object and store are as before. Gives error and warnings."""

    def held(sdata):
        try:
            return None if sdata is None else digest(sdata)
        except (RuntimeError, ValueError):
            return None  # a damaged chunk cannot be read, here or by the verb; its file is hashed

    def of(sdata, call: Callable) -> SimpleNamespace:
        before, error = states.get(id(sdata)) or (held(sdata), files(sdata)), None
        if id(sdata) in states:
            states[id(sdata)] = before
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            start = time.process_time()
            try:
                call()
            except sqi.errors.SqImputerError as caught:
                error = caught
            spent = time.process_time() - start
        assert (held(sdata), files(sdata)) == before
        return SimpleNamespace(error=error, warnings=[str(one.message) for one in told], seconds=spent)

    return of


@pytest.fixture
def refused(unchanged) -> Callable:
    """`refused(sdata, call, error_type, *holds)`: `call` raises exactly that error, whose message holds every string.

    It does so within two seconds, before any forward pass, and leaves `sdata` (or None) and its store as they were.
    Returns the message.
    """

    def check(sdata, call: Callable, error_type: type[sqi.errors.SqImputerError], *holds: str) -> str:
        with no_forward():
            found = unchanged(sdata, call)
        assert found.error is not None, "it was accepted"
        assert type(found.error) is error_type, f"{type(found.error)}: {found.error}"
        message = str(found.error)
        assert not [part for part in holds if part not in message], message
        assert found.seconds < SECONDS
        return message

    return check


@pytest.fixture
def warned() -> Callable:
    """`warned(sdata, call, *holds)`: some warning of `call`, which may write its output, holds every string."""

    def check(sdata, call: Callable, *holds: str) -> str:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
        messages = [str(one.message) for one in told]
        found = [message for message in messages if all(part in message for part in holds)]
        assert found, messages
        return found[0]

    return check
