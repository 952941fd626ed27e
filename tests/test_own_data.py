"""The blocks of the page on one's own data run, in order, on real files of every kind that it speaks of."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from defaults import SMALL_CROPS, with_defaults
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Scale

import sq_imputer as sqi

spatialdata_io = pytest.importorskip("spatialdata_io", reason="spatialdata-io is not installed")
ROOT = Path(os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).parents[2] / "shared" / "data")
PAGE = Path(__file__).parent.parent / "docs" / "howto" / "own_data.md"
FOLDERS = {"visium": "visium_crop", "visium_hd": "visium_hd_crop", "her2st": "her2st"}


def xenium(path: str, *, cells_as_circles: bool, cells_labels: bool, transcripts: bool) -> sd.SpatialData:
    """Toy tissue in the form that the reader of Xenium gives: cells in µm, an aligned image, pixels of 0.2125 µm."""
    assert cells_as_circles and not cells_labels and not transcripts
    toy, per_px = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=3)["P1"], 1.25 / 0.2125
    table, spots = toy["table"].copy(), toy["spots"]
    xy_um = 1.25 * np.array([point.coords[0] for point in spots.geometry])
    index = [f"cell{k}-1" for k in range(len(xy_um))]
    to_global = {"global": Scale([1 / 0.2125] * 2, ("x", "y"))}
    circles = ShapesModel.parse(xy_um, geometry=0, radius=6.0, index=pd.Index(index), transformations=to_global)
    table.obs["region"], table.obs["cell_id"] = pd.Categorical(["cell_circles"] * table.n_obs), index
    table.uns.pop("spatialdata_attrs")
    table = TableModel.parse(table, region="cell_circles", region_key="region", instance_key="cell_id")
    pixels = np.asarray(toy["he"]["scale0"]["image"])
    place = {"global": Affine(np.diag([per_px, per_px, 1.0]), ("x", "y"), ("x", "y"))}
    images = {
        "he_image": Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=place),
        "morphology_focus": Image2DModel.parse(pixels[:1], dims=("c", "y", "x")),
    }
    return sd.SpatialData(images=images, shapes={"cell_circles": circles}, tables={"table": table})


@pytest.mark.slow
@pytest.mark.skipif(not ROOT.is_dir(), reason=f"NOT RUN: no data at {ROOT}; set SQ_IMPUTER_DATA to real sections")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of coarse images, of which these crops are
def test_the_blocks_of_the_page_run_on_real_files(tmp_path, monkeypatch):
    for name, source in FOLDERS.items():
        (tmp_path / name).symlink_to(ROOT / source)
    monkeypatch.chdir(tmp_path)
    with_defaults(monkeypatch, "ridge", SMALL_CROPS)
    monkeypatch.setattr(spatialdata_io, "xenium", xenium)
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
    assert there["mpp"] == pytest.approx(1.25) and there["cells"].tables["imputed"].n_vars == 50
    old = there["old"].tables["imputed"]
    same = tables["imputed"][old.obs_names, old.var_names].X  # but for what says how large a pixel is
    assert np.corrcoef(old.X.ravel(), same.ravel())[0, 1] > 0.99
