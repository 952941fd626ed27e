"""What a test runs in an interpreter of its own and then kills.

That interpreter imports it by name: modules of tests themselves can be found only where pytest is run as a module.
"""

from __future__ import annotations

import time

import spatialdata
from fixtures_of_verbs import registered_spy

import sq_imputer as sqi
from sq_imputer.pixels import dense
from sq_imputer.store import journal
from sq_imputer.store.journal import Journal


def predict_slowly(path, how, begun) -> None:
    """A run that says when some of its shards are there and is then held up."""
    journal.ROWS, dense.STRIDES = 4, dense.STRIDES[:1]  # as the test has it that waits for it
    registered_spy()
    replace = Journal._replace

    def noted(self, path, content):
        replace(self, path, content)
        if path.name.endswith("00002.shard"):
            begun.set()
            time.sleep(600)

    Journal._replace = noted
    sqi.tl.predict(spatialdata.read_zarr(path), "spy", resume=True, **how)
