"""What spatialdata-io makes of real Space Ranger outputs: the facts that `data/` relies on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from spatialdata.models import get_table_keys
from spatialdata.transformations import get_transformation

from sq_imputer.section.lattice import mpp_of_lattice

spatialdata_io = pytest.importorskip("spatialdata_io", reason="spatialdata-io is not installed")
ROOT = Path(os.environ.get("SQ_IMPUTER_DATA") or Path(__file__).parents[2] / "shared" / "data")
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no data at {ROOT}; set SQ_IMPUTER_DATA")


def scale(element, coordinate_system: str) -> float:
    return get_transformation(element, coordinate_system).to_affine_matrix(("x", "y"), ("x", "y"))[0, 0]


@pytest.fixture(scope="module")
def visium():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spatialdata_io.visium(ROOT / "visium_crop", dataset_id="crop")


@pytest.fixture(scope="module")
def visium_hd():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spatialdata_io.visium_hd(ROOT / "visium_hd_crop", dataset_id="crop", load_segmentations_only=False)


def test_visium_has_three_coordinate_systems_that_agree(visium):
    assert set(visium.coordinate_systems) == {"crop", "crop_downscaled_hires", "crop_downscaled_lowres"}
    image = visium["crop_hires_image"]
    assert image.shape == (3, 401, 600)
    assert image.dtype == np.uint8
    assert image.coords["c"].values.tolist() == ["r", "g", "b"]
    assert scale(image, "crop") == pytest.approx(1 / 0.014432792)  # to pixels of the full resolution
    assert scale(visium["crop"], "crop") == 1
    assert scale(visium["crop"], "crop_downscaled_hires") == pytest.approx(0.014432792)


def test_visium_spots_and_table(visium):
    table = visium["table"]
    assert table.shape == (338, 36601)
    assert get_table_keys(table) == ("crop", "region", "spot_id")
    assert {"in_tissue", "array_row", "array_col"} <= set(table.obs)
    assert visium["crop"]["radius"].unique() == pytest.approx([176.5483 / 2])


def test_visium_keeps_no_scale_factors_but_the_spot_says_the_same_as_the_lattice(visium):
    assert "scalefactors" not in visium["table"].uns["spatial"]["crop"]
    spots = visium["crop"]
    xy = np.column_stack([spots.geometry.x, spots.geometry.y])
    by_pitch = mpp_of_lattice(xy, visium["table"].obs[["array_row", "array_col"]], "visium")
    # spot_diameter_fullres is that of a theoretical spot of 65 µm; the printed one has 55
    assert 65 / (2 * spots["radius"].iloc[0]) == pytest.approx(by_pitch, rel=0.01)


def test_visium_hd_bins_are_squares_of_their_size(visium_hd):
    assert visium_hd["square_016um"].shape == (675, 18085)
    assert visium_hd["square_002um"].shape == (33859, 18085)
    assert get_table_keys(visium_hd["square_016um"]) == ("crop_square_016um", "region", "location_id")
    for side in (2, 16):
        area = visium_hd[f"crop_square_{side:03d}um"].geometry.area
        assert np.sqrt(area).to_numpy() * 0.2738262923862567 == pytest.approx(side, rel=1e-3)


def test_visium_hd_cells_are_read_beside_the_bins(visium_hd):
    assert visium_hd["cell_segmentations"].shape == (1440, 18085)
    assert get_table_keys(visium_hd["cell_segmentations"]) == ("crop_cell_segmentations", "region", "cell_id")
    assert len(visium_hd["crop_cell_segmentations"]) == 1440


def test_visium_hd_image_shares_its_systems_with_the_bins(visium_hd):
    image = visium_hd["crop_hires_image"]
    assert image.shape == (3, 389, 600)
    assert image.coords["c"].values.tolist() == ["r", "g", "b"]
    assert scale(image, "crop") == pytest.approx(1 / 0.007973422)
    assert set(get_transformation(visium_hd["crop_square_016um"], get_all=True)) == {
        "crop",
        "crop_downscaled_hires",
        "crop_downscaled_lowres",
    }
