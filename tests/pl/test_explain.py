"""What the panels show: where the map lies, symmetric limits, the crop of a spot, and what the tests said."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey

matplotlib.use("agg")
import matplotlib.pyplot as plt


@pytest.fixture(scope="module")
def explained():
    sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    plan = sqi.Plan(device="cpu", progress=False)
    model = sqi.tl.fit(sdata, "nsl", genes=["NUC1", "STR1"], config={"size_px": 28, "epochs": 20}, plan=plan)
    sqi.tl.explain(sdata, ["NUC1", "STR1"], model=model, method="stains")
    return sdata


@pytest.fixture
def axes(explained):
    yield sqi.pl.explain(explained, "NUC1")
    plt.close("all")


def test_three_panels_say_what_they_show(explained, axes):
    table = explained.tables["explanation_spots"]
    best = table.obs_names[np.argmax(np.asarray(table.X)[:, 0])]
    assert [ax.get_title() for ax in axes[:2]] == ["NUC1: stains of nsl", f"crop of {best}"]
    assert "faithful: gain" in axes[2].get_title() and "random weights" in axes[2].get_title()


def test_the_crop_is_that_of_the_spot_that_is_named(explained):
    table = explained.tables["explanation_spots"]
    axes = sqi.pl.explain(explained, "STR1", spot=table.obs_names[5])
    x, y = table.obsm["spatial"][5]
    for ax in axes[1:]:
        np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], [x - 56, x + 56, y + 56, y - 56])
    plt.close("all")


def test_the_map_of_the_crop_is_the_part_of_the_image_around_the_spot(explained, axes):
    shown = axes[2].images[1]
    left, right, bottom, top = shown.get_extent()
    x, y = axes[2].get_xlim(), axes[2].get_ylim()
    assert left <= x[0] + 1e-6 and right >= x[1] - 1e-6 and bottom >= y[0] - 1e-6 and top <= y[1] + 1e-6
    assert max(x[0] - left, right - x[1], bottom - y[0], y[1] - top) < 4 + 1e-6  # a pixel of the map
    made = explained.tables["explanation_spots"].uns["sq_imputer"]["explanation"]
    row, column = round((top - made["origin_um"][1]) / 4), round((left - made["origin_um"][0]) / 4)
    height, width = shown.get_array().shape[:2]
    values = explained.images["explanation"].data[0, row : row + height, column : column + width].compute()
    rgba = np.asarray(shown.get_array())
    strong = np.abs(np.nan_to_num(values)) > 0.2 * np.nanmax(np.abs(values))
    assert ((rgba[..., 0] > rgba[..., 2]) == (values > 0))[strong].all()  # red where it is raised, blue where lowered
    order = np.argsort(np.abs(np.nan_to_num(values)).ravel())
    assert (np.diff(rgba[..., 3].ravel()[order]) >= -1e-6).all()


def test_colors_are_symmetric(axes):
    for ax in (axes[0], axes[2]):
        low, high = ax.child_axes[0].get_ylim()
        assert low == -high and ax.child_axes[0].get_ylabel() == "contribution, log1p_cp10k"


def test_the_map_of_the_section_is_no_finer_than_the_screen(explained):
    small = plt.subplots(1, 3, figsize=(1.5, 0.6))[1]
    assert sqi.pl.explain(explained, "NUC1", ax=small)[0] is small[0]
    assert max(small[0].images[1].get_array().shape[:2]) <= 60
    plt.close("all")


def test_what_is_not_there_is_an_error(explained):
    with pytest.raises(MissingKey, match="no gene 'HK1' in map 'explanation'; it has 'NUC1', 'STR1'"):
        sqi.pl.explain(explained, "HK1")
    with pytest.raises(MissingKey, match="no map 'he'; .*Call tl.explain, or pass key="):
        sqi.pl.explain(explained, "NUC1", key="he")
    with pytest.raises(MissingKey, match="no spot 'nowhere'"):
        sqi.pl.explain(explained, "NUC1", spot="nowhere")
    with pytest.raises(BadInput, match="ax has 2 Axes; expected 3"):
        sqi.pl.explain(explained, "NUC1", ax=plt.subplots(1, 2)[1])
    plt.close("all")


def test_of_several_sections_one_is_drawn():
    import spatialdata

    sdata = spatialdata.concatenate(sqi.datasets.toy(2, size_px=400, mpp=1.25), concatenate_tables=True)
    config = {"size_px": 28, "epochs": 2}
    model = sqi.tl.fit(sdata, "nsl", genes=["NUC1", "STR1"], config=config, sections="region")
    found = sqi.tl.explain(sdata, "NUC1", model=model, method="stains", sections="region")
    sections = list(found.index.get_level_values("section").unique())
    assert sections == ["spots-P1", "spots-P2"] == list(found.attrs["faithfulness"])
    for name in sections:
        table = sdata.tables[f"explanation_{name}_spots"]
        assert set(table.obs["region"]) == {name} and f"explanation_{name}" in sdata.images
        axes = sqi.pl.explain(sdata, "NUC1", section=name, spot=table.obs_names[3])
        x, y = table.obsm["spatial"][3]
        np.testing.assert_allclose([*axes[1].get_xlim(), *axes[1].get_ylim()], [x - 56, x + 56, y + 56, y - 56])
        plt.close("all")
    with pytest.raises(MissingKey, match="maps 'explanation' are of sections 'spots-P1', 'spots-P2'. Pass section="):
        sqi.pl.explain(sdata, "NUC1")
    with pytest.raises(MissingKey, match="no map 'explanation' of section 'P3'"):
        sqi.pl.explain(sdata, "NUC1", section="P3")
