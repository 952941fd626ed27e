"""What the panels show: shared limits, symmetric residuals, true sizes, units, and the tissue below the spots."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl import _compared, _panels, compare
from sq_imputer.section.slide import Slide

matplotlib.use("agg")
import matplotlib.pyplot as plt

UNIT = "log1p_cp10k"


def panels(n=40, std=True, **changed):
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 2000, size=(n, 2))
    parts = {
        "measured": rng.gamma(2, size=n),
        "predicted": rng.normal(2, 0.3, size=n),
    } | changed
    spread = {True: np.full(n, 0.4), False: None}[std] if isinstance(std, bool) else std
    axes = plt.subplots(1, 3 if spread is None else 4)[1]
    drawn = _compared.value_panels(parts["measured"], parts["predicted"], spread, units=(UNIT, UNIT))
    _compared.draw(axes, drawn, xy, 50, heading="ERBB2")
    return xy, axes


def colored(ax) -> EllipseCollection:
    return next(part for part in ax.collections if part.get_array() is not None)


def hollow(ax) -> list[EllipseCollection]:
    return [part for part in ax.collections if part.get_array() is None]


def bar_of(ax):
    return colored(ax).colorbar


def test_measured_and_predicted_share_their_colors_and_the_residual_is_symmetric():
    _, axes = panels()
    spots = [colored(ax) for ax in axes]
    assert spots[0].get_clim() == spots[1].get_clim()
    assert spots[0].get_cmap().name == spots[1].get_cmap().name == "viridis"
    low, high = spots[2].get_clim()
    assert low == -high < 0
    np.testing.assert_allclose(spots[2].get_array(), spots[0].get_array() - spots[1].get_array())


def test_next_to_constant_deviations_have_next_to_one_color():
    _, axes = panels(std=np.linspace(0.99, 1.01, 40))
    np.testing.assert_allclose(colored(axes[3]).get_clim(), [0.9, 1.1])
    _, axes = panels(std=np.linspace(0.5, 1.5, 40))
    np.testing.assert_allclose(colored(axes[3]).get_clim(), np.percentile(np.linspace(0.5, 1.5, 40), [1, 99]))


@pytest.mark.parametrize("std", [True, False])
def test_every_panel_is_titled_and_every_color_bar_has_the_unit(std):
    _, axes = panels(std=std)
    titles = ["measured", "predicted", "measured − predicted", "standard deviation"][: len(axes)]
    assert [ax.get_title() for ax in axes] == titles
    assert [bar_of(ax).ax.get_ylabel() for ax in axes] == [UNIT, UNIT, f"difference, {UNIT}", UNIT][: len(axes)]
    assert axes[0].get_ylabel() == "ERBB2"


def test_spots_have_their_diameter_in_the_units_of_the_axes():
    xy, axes = panels()
    for ax in axes:
        spots = colored(ax)
        np.testing.assert_allclose(spots.get_widths(), 100)
        np.testing.assert_allclose(spots.get_heights(), 100)
        np.testing.assert_allclose(spots.get_offsets(), xy)
        assert spots.get_offset_transform() == ax.transData
        assert ax.get_aspect() == 1
        assert ax.yaxis_inverted()
        assert ax.get_xlim()[0] <= xy[:, 0].min() - 50 and ax.get_xlim()[1] >= xy[:, 0].max() + 50


def test_unmeasured_spots_are_hollow_where_they_have_no_value_and_colored_where_predicted():
    measured = np.random.default_rng(1).gamma(2, size=40)
    measured[:7] = np.nan
    xy, axes = panels(measured=measured)
    for ax in (axes[0], axes[2]):
        (circles,) = hollow(ax)
        np.testing.assert_allclose(circles.get_offsets(), xy[:7])
        assert len(circles.get_facecolor()) == 0
        assert len(colored(ax).get_array()) == 33
    assert hollow(axes[1]) == []
    assert len(colored(axes[1]).get_array()) == 40


def test_nothing_measured_and_constant_genes_still_make_a_picture():
    _, axes = panels(measured=np.full(40, np.nan), predicted=np.full(40, 2.0))
    axes[0].figure.canvas.draw()
    assert colored(axes[0]).get_clim() == colored(axes[1]).get_clim() == (1.5, 2.5)
    assert len(colored(axes[2]).get_array()) == 0


def test_a_gene_seen_in_one_spot_still_shows_it():
    measured = np.zeros(500)
    measured[3] = 4.0
    _, axes = panels(n=500, measured=measured, predicted=np.zeros(500), std=False)
    assert colored(axes[0]).get_clim() == (0, 4)
    assert colored(axes[2]).get_clim() == (-4, 4)


def test_color_bars_point_where_values_go_beyond_them():
    measured = np.linspace(0, 1, 200)
    measured[-1] = 50
    _, axes = panels(n=200, measured=measured, predicted=np.full(200, 0.5), std=False)
    assert bar_of(axes[0]).extend in ("max", "both")
    assert bar_of(axes[1]).extend == "neither"


@pytest.mark.parametrize(("width", "label"), [(900.0, "200 µm"), (6500.0, "1 mm"), (30.0, "5 µm")])
def test_the_scale_bar_is_a_round_length(width, label):
    ax = plt.subplots()[1]
    ax.set_xlim(0, width)
    _panels.scale_bar(ax)
    (bar,) = ax.artists
    assert bar.txt_label.get_text() == label
    assert bar.size_bar.get_children()[0].get_width() == float(label.split()[0]) * (1000 if "mm" in label else 1)


def test_many_spots_are_rasterized():
    _, axes = panels(n=3000, std=False)
    assert colored(axes[0]).get_rasterized()
    assert not colored(panels(n=30, std=False)[1][0]).get_rasterized()


def test_the_palest_spots_have_an_edge_where_they_are_larger_than_a_pixel():
    _, axes = panels()
    for ax in axes:
        spots = colored(ax)
        assert spots.get_linewidth()[0] > 0
        assert spots.get_edgecolor()[0, :3].max() < 0.6
    assert colored(panels(n=3000)[1][0]).get_linewidth()[0] == 0


def lattice(n):
    side = int(np.ceil(np.sqrt(n)))
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[:n] * 100.0


@pytest.mark.parametrize(("n", "diameter"), [(400, 55), (50_000, 144)])
def test_spots_below_a_few_pixels_are_widened_until_they_touch(n, diameter):
    axes = plt.subplots(1, 3, figsize=(12, 4))[1]
    values = np.linspace(0, 1, n)
    _compared.draw(axes, _compared.value_panels(values, values), lattice(n), 27.5)
    for ax in axes:
        np.testing.assert_allclose(colored(ax).get_widths(), diameter)
        assert colored(ax).get_rasterized() == (n > 2000)


def test_the_colors_of_50_000_spots_are_those_of_the_color_bar():
    fig, axes = plt.subplots(1, 3, figsize=(12, 4), dpi=100)
    values = np.full(50_000, 0.8)
    values[:500] = 0.0
    _compared.draw(axes, _compared.value_panels(values, values), lattice(50_000), 27.5)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    x, y = axes[1].transData.transform((11_000, 11_000)).astype(int)
    expected = colored(axes[1]).to_rgba(0.8, bytes=True)[:3]
    np.testing.assert_allclose(pixels[fig.bbox.height.astype(int) - y, x].astype(int), expected, atol=25)


@pytest.mark.parametrize("xy", [[[0, 0], [1000, 0]], [[0, 0], [0, 1000]], [[5, 5]]])
def test_one_or_two_spots_make_panels_in_which_the_color_bar_has_room(xy):
    xy = np.array(xy, dtype=float)
    axes = plt.subplots(1, 3)[1]
    _compared.draw(axes, _compared.value_panels(np.arange(len(xy)), np.ones(len(xy))), xy, 50)
    axes[0].figure.canvas.draw()
    width, height = (np.ptp(limits) for limits in (axes[0].get_xlim(), axes[0].get_ylim()))
    assert 0.5 <= width / height <= 2
    assert len(colored(axes[0]).get_array()) == len(xy)


def section(turned: bool = False, models=("ridge",), std=True):
    """A small image whose red is the expression, 12 spots of which 2 are unmeasured, and a table of predictions."""
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from shapely import Point
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine

    x, y = np.meshgrid(np.arange(4) * 60 + 40.0, np.arange(3) * 60 + 50.0)
    xy = np.column_stack([x.ravel(), y.ravel()])
    pixels = np.full((3, 220, 260), 200, np.uint8)
    red = (xy[:, 0] * 0.5 + xy[:, 1] * 0.4).astype(np.uint8)
    for (cx, cy), value in zip(xy.astype(int), red, strict=True):
        pixels[0, cy - 20 : cy + 20, cx - 20 : cx + 20] = value
    matrix = [[0, -2, 700], [2, 0, 30], [0, 0, 1]] if turned else [[2, 0, 0], [0, 2, 0], [0, 0, 1]]
    um = {"um": Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))}
    order = np.random.default_rng(0).permutation(12)
    rng = np.random.default_rng(1)
    measured = np.column_stack([red / 50.0, rng.gamma(2, size=12)]).astype(np.float32)
    measured[:2] = np.nan
    layers = {"measured": measured}
    for k, name in enumerate(models):
        layers[name] = np.nan_to_num(measured) * 0.5 + k + 1
        if std:
            layers[f"{name}_std"] = np.full_like(measured, 0.3)
    table = AnnData(
        layers[models[-1]][order].copy(),
        obs=pd.DataFrame(
            {"region": pd.Categorical(["spots"] * 12), "instance_id": order}, index=[f"s{i}" for i in order]
        ),
        var=pd.DataFrame(index=["ERBB2", "FN1"]),
        layers={name: values[order] for name, values in layers.items()},
    )
    record = {"image_key": "he", "coordinate_system": "um", "unit": UNIT, "mpp": 2.0}
    table.uns["sq_imputer"] = dict.fromkeys(models, record) | {"embeddings": {}}
    return SpatialData(
        images={"he": Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations=um)},
        shapes={
            "spots": ShapesModel.parse(
                GeoDataFrame({"radius": [20.0] * 12}, geometry=[Point(p) for p in xy]), transformations=um
            )
        },
        tables={
            "imputed": TableModel.parse(table, region="spots", region_key="region", instance_key="instance_id"),
        },
    ), red


@pytest.mark.parametrize("turned", [False, True])
def test_the_tissue_lies_below_its_spots_also_when_turned(turned):
    sdata, red = section(turned)
    axes = compare(sdata, ["ERBB2", "FN1"])
    assert axes.shape == (2, 4)
    spots, (image,) = colored(axes[0, 1]), axes[0, 1].images
    left, right, bottom, top = image.get_extent()
    height, width = image.get_array().shape[:2]
    xy, values = np.asarray(spots.get_offsets()), np.asarray(spots.get_array())
    column = ((xy[:, 0] - left) / (right - left) * width).astype(int)
    row = ((xy[:, 1] - top) / (bottom - top) * height).astype(int)
    below = image.get_array()[row, column, 0].astype(float)
    seen = np.isin(below, red[2:])  # the first two have no measured value and another prediction
    assert seen.sum() >= 10
    np.testing.assert_allclose(values[seen], below[seen] / 50 * 0.5 + 1, atol=1e-5)
    np.testing.assert_allclose(spots.get_widths(), 80)  # radius 20 px at 2 µm per pixel


def test_the_finest_level_of_a_stored_image_is_not_read_for_a_small_picture(tmp_path, monkeypatch):
    import spatialdata

    import sq_imputer as sqi
    from sq_imputer.pixels.chunks import ZarrChunks, ZstdFiles

    sdata = sqi.datasets.toy(1, size_px=2400, mpp=0.5, spots=30)["P1"]
    sqi.tl.predict(sdata, "ridge", genes=["NUC1"], config={"extent_um": 112.0, "size_px": 32, "context_um": ()})
    sdata.write(tmp_path / "section.zarr")
    stored, read = spatialdata.read_zarr(tmp_path / "section.zarr"), []
    for kind in (ZarrChunks, ZstdFiles):
        before = kind.read
        monkeypatch.setattr(
            kind, "read", lambda self, chunk, before=before: read.append(self.array.shape[-1]) or before(self, chunk)
        )
    sizes = [next(iter(level.ds.values())).shape[-1] for level in stored.images["he"].children.values()]
    compare(stored, "NUC1", ax=plt.subplots(1, 4, figsize=(8, 2))[1])
    assert len(sizes) > 1 and set(read) <= set(sizes[1:]) and read
    read.clear()
    compare(stored, "NUC1", ax=plt.subplots(1, 4, figsize=(80, 20))[1])
    assert set(read) == {max(sizes)}  # as many pixels are on the screen


def test_rows_of_axes_are_genes_and_axes_given_are_drawn_on():
    sdata, _ = section()
    given = plt.subplots(2, 3)[1]
    axes = compare(sdata, ["FN1", "ERBB2"], ax=given, background=False)
    assert axes.shape == (2, 3)
    assert (axes == given).all()
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["FN1", "ERBB2"]
    assert not any(ax.images for ax in axes.ravel())
    assert compare(sdata, "FN1", background=False).shape == (1, 4)
    assert compare(section(std=False)[0], "FN1", background=False).shape == (1, 3)


def test_the_last_prediction_written_is_the_default_and_layer_names_another():
    sdata, _ = section(models=("stem", "ridge"))
    table = sdata.tables["imputed"]
    for layer, expected in ((None, "ridge"), ("stem", "stem")):
        axes = compare(sdata, "ERBB2", layer=layer, background=False)
        np.testing.assert_allclose(colored(axes[0, 1]).get_array(), table.layers[expected][:, 0])


def test_a_streamed_layer_is_read_where_it_is_needed():
    import dask.array as da

    sdata, _ = section()
    table = sdata.tables["imputed"]
    expected = table.layers["ridge"][:, 1].copy()
    table.layers["ridge"] = da.from_array(table.layers["ridge"], chunks=(5, 2))
    np.testing.assert_allclose(colored(compare(sdata, "FN1", background=False)[0, 1]).get_array(), expected)


@pytest.mark.parametrize(
    ("error", "genes", "options", "message"),
    [
        (MissingKey, "ESR1", {}, "no gene 'ESR1' in table 'imputed'; it has 'ERBB2', 'FN1'"),
        (MissingKey, "FN1", {"key": "table"}, "no table 'table'; sdata has 'imputed'"),
        (MissingKey, "FN1", {"layer": "nsl"}, "no layer 'nsl'"),
        (BadInput, "FN1", {"ax": [None, None]}, r"ax has shape \(1, 2\); 1 genes with 4 panels need \(1, 4\)"),
    ],
)
def test_errors_name_what_was_found(error, genes, options, message):
    with pytest.raises(error, match=message):
        compare(section()[0], genes, **options)


def test_two_models_and_a_foreign_x_ask_for_the_layer():
    sdata, _ = section(models=("stem", "ridge"))
    sdata.tables["imputed"].X = np.zeros((12, 2), np.float32)
    with pytest.raises(MissingKey, match="does not say which prediction is its last.*Pass layer="):
        compare(sdata, "FN1")


def test_the_object_is_not_changed():
    sdata, _ = section()
    before = Slide.from_sdata(sdata, table_key=None, mpp=2.0).xy_um.copy(), sdata.tables["imputed"].copy()
    compare(sdata, "FN1")
    np.testing.assert_array_equal(Slide.from_sdata(sdata, table_key=None, mpp=2.0).xy_um, before[0])
    assert set(sdata.tables["imputed"].layers) == set(before[1].layers)
    assert list(sdata.tables["imputed"].obs) == list(before[1].obs)


@pytest.mark.parametrize(
    ("made", "title"),
    [
        ({"n_folds": 5}, "standard deviation\n(a model per fold)"),
        ({"n_folds": 5, "n_repeats": 4}, "standard deviation"),
        ({"n_folds": 0}, "standard deviation"),
        ({}, "standard deviation"),
    ],
)
def test_the_spread_of_models_of_folds_is_said(made, title):
    from sq_imputer.pl._compared import BY_FOLD, SPREAD
    from sq_imputer.pl._values import folded

    assert (BY_FOLD if folded(made) else SPREAD) == title


def test_cells_that_are_smaller_than_a_pixel_cover_it() -> None:
    ax = plt.figure(figsize=(1, 1), dpi=50).add_axes((0, 0, 1, 1))
    xy = np.random.default_rng(0).uniform(0, 1000, (5000, 2))  # 20 µm a pixel, and neighbors 7 µm apart
    assert 20 < 2 * np.min(_panels.visible_radius(ax, xy, np.full(5000, 3.0))) < 40
