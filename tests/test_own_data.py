"""The blocks of the page on one's own data run, in order, on real files of every kind that it speaks of."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from defaults import SMALL_CROPS, with_defaults

pytest.importorskip("spatialdata_io", reason="spatialdata-io is not installed")
ROOT = Path(os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).parents[2] / "shared" / "data")
PAGE = Path(__file__).parent.parent / "docs" / "howto" / "own_data.md"
FOLDERS = {"visium": "visium_crop", "visium_hd": "visium_hd_crop", "her2st": "her2st"}


@pytest.mark.slow
@pytest.mark.skipif(not ROOT.is_dir(), reason=f"NOT RUN: no data at {ROOT}; set SQ_IMPUTER_DATA to real sections")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of coarse images, of which these crops are
def test_the_blocks_of_the_page_run_on_real_files(tmp_path, monkeypatch):
    for name, source in FOLDERS.items():
        (tmp_path / name).symlink_to(ROOT / source)
    monkeypatch.chdir(tmp_path)
    with_defaults(monkeypatch, "ridge", SMALL_CROPS)
    there = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)[
        :-2
    ]:  # the last two are long
        exec(compile(block, PAGE.name, "exec"), there)
    tables = there["sdata"].tables
    for name in ("from_layer", "from_raw"):
        np.testing.assert_allclose(tables[name].X, tables["imputed"].X, atol=1e-4)
    assert {"ridge", "mean", "depth only"} <= set(there["scores"]["predictor"])
    assert there["hd"].tables["imputed"].shape == (675, 50)
    old = there["old"].tables["imputed"]
    same = tables["imputed"][old.obs_names, old.var_names].X  # but for what says how large a pixel is
    assert np.corrcoef(old.X.ravel(), same.ravel())[0, 1] > 0.99
