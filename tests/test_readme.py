"""The blocks of README, in order, in a fresh interpreter, on toy tissue in the place of the stores that they name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sq_imputer as sqi

FEWER = "import sq_imputer.tl._explained as _e; _e.TESTED = 1"  # crops that maps are tested on, 19 times each
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.slow
def test_the_blocks_of_readme_run_in_order(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    spots = {"section": None, "C2": None, "C3": None, "C4": 10}  # explaining one takes seconds; domains need 10
    for seed, (name, n) in enumerate(spots.items()):
        sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, spots=n, seed=seed)["P1"]
        sdata.write(tmp_path / f"{name}.zarr")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([FEWER, *blocks]).replace("model=model)", "model=model, grid=3)")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = sqi.io.read_zarr(tmp_path / "C4.zarr")
    assert {"imputed", "imputed_grid"} <= set(written.tables) and "domain" in " ".join(written["imputed"].obs)
