"""Small stores are read and written without a thread for each of their files; for `import *` in a conftest."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

__all__ = ["zarr_in_one_thread"]


@pytest.fixture(scope="module", autouse=True)
def zarr_in_one_thread():
    """Zarr hands every file to another thread, which costs more than the few bytes in a file of a test."""
    from zarr.storage import _local

    async def here(function, *args, **kwargs):
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local, "asyncio", SimpleNamespace(**vars(asyncio) | {"to_thread": here}))
        yield
