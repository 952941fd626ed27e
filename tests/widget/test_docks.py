"""Real clicks in a real window. Needs napari, pytest-qt and a display (Xvfb): `xvfb-run pytest tests/widget`."""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from widget_names import GENES, SMALL

import sq_imputer as sqi

for package in ("napari", "napari_spatialdata", "pytestqt"):
    pytest.importorskip(package, reason=f"{package} is not installed: the docks were NOT tested")
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    pytest.skip("no display: the docks were NOT tested; run with xvfb-run", allow_module_level=True)

from qtpy.QtCore import Qt  # noqa: E402
from qtpy.QtWidgets import QApplication, QPushButton, QTabBar  # noqa: E402

from sq_imputer.progress import track  # noqa: E402
from sq_imputer.widget import _napari_spatialdata as theirs  # noqa: E402
from sq_imputer.widget import _window  # noqa: E402
from sq_imputer.widget._canvas import grid_of  # noqa: E402
from sq_imputer.widget._colors import NONE  # noqa: E402
from sq_imputer.widget._desk import desk_of  # noqa: E402
from sq_imputer.widget._job import Job  # noqa: E402
from sq_imputer.widget._predict import GRID  # noqa: E402

WAIT_MS = 180_000


@pytest.fixture(scope="module")
def window(home, qapp):
    """A window with all docks, on a section that was predicted."""
    job = home.fit("ridge", GENES, config=SMALL)
    assert job.wait(60) and job.ok, job.error
    viewer = _window.open_docks(home, show=False)
    yield viewer
    viewer.close()


@pytest.fixture
def dock(window, qtbot):
    """A dock by its name, once it has nothing more to do."""

    def of(name: str):
        found = window.window.dock_widgets[name]
        qtbot.waitUntil(lambda: not found.bar.busy, timeout=WAIT_MS)
        return found

    return of


def click(qtbot, dock, text: str) -> None:
    """Press a button, and wait until what it started has ended."""
    found = next(one for one in dock.findChildren(QPushButton) if one.text().startswith(text))
    qtbot.mouseClick(found, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.bar.busy, timeout=WAIT_MS)


def draw(drawing, desk, polygon_um) -> None:
    """A region, as the mouse leaves it."""
    drawing.begin()
    drawing._layer.add_polygons(desk.world_of(polygon_um))


def test_a_window_has_the_image_their_widgets_and_our_docks(window, home, dock):
    layer = theirs.image_layer(window, home.sdata, "he")
    assert layer is not None and set(_window.DOCKS) <= set(window.window.dock_widgets)
    assert {"SpatialData", theirs.VIEW} <= set(window.window.dock_widgets)
    predict = dock("Predict")
    assert predict.model.findText("stem") >= 0 and "Limits:" in predict.card.text()
    assert predict.where.itemText(0) == "spots" and predict.bar.text.text() == ""


def test_a_layer_of_ours_is_kept_as_theirs_is(window, home):
    assert version("napari-spatialdata").startswith(theirs.VERSION), "look at _napari_spatialdata.py again"
    maker = window.window.dock_widgets["SpatialData"].viewer_model
    their = maker.get_sdata_circles(home.sdata, "spots", "global", False)
    ours = theirs.layer_of(home.sdata, "spots", "imputed", "global", "ours")
    assert set(their.metadata) == set(ours.metadata)
    for name in ("region_key", "instance_key", "table_names", "name", "_current_cs", "_n_indices", "indices"):
        assert ours.metadata[name] == their.metadata[name], name
    np.testing.assert_allclose(ours.data, their.data)
    np.testing.assert_allclose(ours.affine.affine_matrix, their.affine.affine_matrix)
    np.testing.assert_allclose(ours.size, their.size, rtol=1e-6)


def test_places_of_the_window_are_places_of_the_section(window, home):
    desk, slide = desk_of(window), home.slide()
    layer = theirs.layer_of(home.sdata, "spots", "imputed", "global", "ours")
    world = np.array([layer.data_to_world(place) for place in layer.data[:5]])
    where = {instance: row for row, instance in enumerate(slide.instances)}
    rows = [where[one] for one in layer.metadata["indices"][:5]]
    np.testing.assert_allclose(desk.um_of(world), slide.xy_um[rows], atol=1e-3)
    np.testing.assert_allclose(desk.world_of(desk.um_of(world)), world, atol=1e-9)


def test_genes_are_compared_in_one_view_and_side_by_side(window, home, dock, qtbot):
    compare, desk = dock("Compare"), desk_of(window)
    compare.choose()
    qtbot.waitUntil(lambda: desk.views is not None, timeout=WAIT_MS)
    qtbot.keyClicks(compare.search.line, "nuc1")
    qtbot.keyClick(compare.search.line, Qt.Key.Key_Return)
    layers = len(window.layers)
    assert desk.gene == "NUC1" and compare.bar.text.text() == ""
    titles = [one.text() for one in compare._buttons.buttons()]
    assert titles == ["measured", "predicted", "measured − predicted", "standard deviation (a model per fold)"]
    before = desk.canvas.points.face_color.copy()
    qtbot.mouseClick(compare._buttons.buttons()[0], Qt.MouseButton.LeftButton)
    assert desk.title == "measured" and not np.allclose(before, desk.canvas.points.face_color)
    for gene in desk.views.genes * 3:
        compare.paint(gene)
    assert len(window.layers) == layers  # no layer per gene
    compare.spread.setChecked(True)
    assert grid_of(window).enabled and grid_of(window).actual_shape(window.layers) == (2, 2)
    named = [*titles[:3], "standard deviation"]  # as a panel has room for
    grid, shown = grid_of(window), [one for one in window.layers if one.name in named]
    assert [one.name for one in shown] == named  # and in this order, from the top left
    places = [grid.position(window.layers.index(one), window.layers) for one in shown]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)] and all(one.name_overlay.visible for one in shown)
    assert len(window.layers) == layers + 6 and sum(not one.isHidden() for one in compare.legends.children()[1:]) == 4
    compare.spread.setChecked(False)
    assert not grid_of(window).enabled and len(window.layers) == layers
    assert desk.canvas.points.name == "imputed: ridge" and not desk.canvas.points.name_overlay.visible
    np.testing.assert_allclose(desk.canvas.points.face_color[0, 3], 1)


def test_points_are_made_ready_once_for_a_gene(window, dock, qtbot):
    desk, times = desk_of(window), []
    first, other = desk.views.genes[:2]
    desk.paint(first, "predicted")
    for event in (desk.canvas.points.events.face_color, desk.canvas.points._face.events.colors):
        event.connect(lambda *_: times.append(1))  # as napari's canvas listens to both
    desk.paint(other)
    assert times == [1]


def test_a_symbol_is_read_once_where_all_points_have_the_same():
    from sq_imputer.widget._points import Points

    layer = Points(np.zeros((5, 2)))
    assert layer._type_string == "points" and list(layer._view_symbol) == [layer.symbol[0]]
    layer.symbol = ["disc", "disc", "star", "disc", "disc"]
    assert list(map(str, layer._view_symbol)) == ["disc", "disc", "star", "disc", "disc"]


def test_what_is_shown_has_its_colors_before_it_is_drawn(window, dock):
    desk = desk_of(window)
    prepared = desk.prepare("imputed", "ridge")
    before = prepared.points.face_color.copy()
    desk.show(prepared)
    assert desk.canvas.points is prepared.points and len(np.unique(before, axis=0)) > 20
    desk.paint()
    np.testing.assert_array_equal(before, desk.canvas.points.face_color)


def test_panels_of_many_points_are_colored_one_after_the_other(window, dock, qtbot, monkeypatch):
    desk = desk_of(window)
    desk.spread = True
    desk.paint(desk.views.genes[0])
    layers = [desk.canvas.points, *(one for one in window.layers if one.metadata.get("panel"))]
    before = [one.face_color.copy() for one in layers]
    monkeypatch.setattr("sq_imputer.widget._canvas.AT_ONCE", 1)
    desk.paint(desk.views.genes[1])
    same = [np.array_equal(one.face_color, colors) for one, colors in zip(layers, before, strict=True)]
    assert same == [False, True, True, True]
    qtbot.waitUntil(lambda: not desk.canvas._waiting)
    assert not any(np.array_equal(one.face_color, colors) for one, colors in zip(layers, before, strict=True))
    desk.spread = False
    desk.paint()


def test_tabs_have_whole_names(window, qtbot):
    docks = window.window.dock_widgets
    main = docks["Compare"].window()
    _window.name_tabs(main)
    shown = [bar.tabText(k) for bar in main.findChildren(QTabBar) for k in range(bar.count())]
    assert {"View", *_window.DOCKS} <= set(shown)
    assert all(bar.elideMode() == Qt.TextElideMode.ElideNone for bar in main.findChildren(QTabBar))


def test_a_drawn_grid_is_predicted_by_clicks_and_is_a_layer_of_theirs_as_well(window, home, dock, qtbot, square):
    predict, desk = dock("Predict"), desk_of(window)
    predict.model.setCurrentText("ridge (fitted here)")
    predict.where.setCurrentText(GRID)
    predict.key.setText("grid_imputed")
    click(qtbot, predict, "Predict")
    assert predict.bar.text.text().startswith("no region is drawn. Press 'Draw the region'")
    draw(predict.drawing, desk, square)
    click(qtbot, predict, "Estimate")
    assert predict.bar.text.text().startswith("about ")
    click(qtbot, predict, "Predict")
    qtbot.waitUntil(lambda: "are in tables" in predict.bar.text.text(), timeout=WAIT_MS)
    layer, table = window.layers["grid_imputed: ridge"], home.sdata.tables["grid_imputed"]
    assert len(layer.data) == table.n_obs > 50 and window.layers.selection.active is layer
    assert len(np.unique(layer.face_color, axis=0)) > 20 and not (layer.face_color == NONE).all(axis=1).any()
    view = window.window.dock_widgets[theirs.VIEW]
    assert view.model.adata is not None and list(view.model.adata.var_names) == list(table.var_names)
    click(qtbot, predict, "Predict")
    assert "'grid' is taken" in predict.bar.text.text() and "Traceback" not in predict.bar.text.text()
    del home.sdata.tables["grid_imputed"], home.sdata.shapes["grid"]
    desk.changed.emit()


def test_a_region_is_asked_about_as_soon_as_it_is_drawn(window, home, dock, qtbot, square):
    region, desk = dock("Region"), desk_of(window)
    region.model.setCurrentText("ridge (fitted here)")
    draw(region.drawing, desk, square)
    qtbot.waitUntil(lambda: region.said is not None, timeout=WAIT_MS)
    assert region.table.rowCount() == len(GENES) and "points" in region.time.text()
    click(qtbot, region, "Copy")
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t")[:4] == ["gene", "predicted", "low", "high"] and len(lines) == 1 + len(GENES)
    layer, before = region.points, region.points.face_color.copy()
    region.table.cellClicked.emit(1, 0)
    assert region.points is layer and not np.allclose(layer.face_color, before)
    assert region.bar.text.text().startswith("The model was fitted on spots of this section")


def test_genes_are_judged_and_what_is_unlike_is_colored(window, home, dock, qtbot):
    trust, desk = dock("Trust"), desk_of(window)
    click(qtbot, trust, "Which genes")
    assert trust.table.rowCount() == len(GENES), trust.bar.text.text()
    assert "ridge_reliable" in home.sdata.tables["imputed"].var
    gene = trust.table.verticalHeaderItem(1).text()
    trust.table.cellClicked.emit(1, 0)
    qtbot.waitUntil(lambda: desk.gene == gene and not trust.bar.busy, timeout=WAIT_MS)
    click(qtbot, trust, "Color by")
    assert desk.title == "unlike what was learned" and "of the rows are unlike" in trust.bar.text.text()
    dock("Compare").paint(gene)
    assert desk.title == "predicted"


def test_a_spot_is_explained_by_its_crop_and_its_map(window, home, dock, qtbot):
    explain, desk = dock("Explain"), desk_of(window)
    click(qtbot, explain, "Click a spot")
    assert explain.bar.text.text() == "Click a spot." and explain._clicked in desk.canvas.points.mouse_drag_callbacks
    explain.model.setCurrentText("ridge (fitted here)")
    explain.explain(7)
    qtbot.waitUntil(lambda: not explain.bar.busy, timeout=WAIT_MS)
    name = home.sdata.tables["imputed"].obs_names[7]
    assert name in explain.spot.text() and "measured" in explain.spot.text(), explain.bar.text.text()
    assert explain.map.pixmap().width() == explain.crop.pixmap().width() > 100 and explain.table.isHidden()


def test_reference_spots_are_shown_by_their_crops_and_where_they_lie(home, dock, qtbot, monkeypatch):
    explain, slide = dock("Explain"), home.slide()
    there = {"section": slide.section, "weight": [0.7, 0.3], "x_um": [300.0, 500.0], "y_um": [400.0, 400.0]}
    found = pd.DataFrame(there, index=["near", "far"])
    monkeypatch.setattr("sq_imputer.widget._explain_dock.behind", lambda *_: found)
    explain.explain(3)
    qtbot.waitUntil(lambda: not explain.bar.busy, timeout=WAIT_MS)
    assert [one.isHidden() for one in explain.references] == [False, False, True, True, True]
    assert [one.isHidden() for one in explain.places] == [False, True, True]
    assert explain.places[0].toolTip() == f"{slide.section}: 1.00 of the weight" and not explain.table.isHidden()


@pytest.mark.filterwarnings("default:domains of sections")
def test_domains_follow_the_slider_and_are_written_when_asked_to(window, home, dock, qtbot):
    domains, desk = dock("Domains"), desk_of(window)
    domains.slider.setValue(3)
    qtbot.waitUntil(lambda: desk.title == "domain", timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not domains.bar.busy, timeout=WAIT_MS)
    assert len(np.unique(desk.canvas.points.face_color, axis=0)) == 3
    assert "domain" not in home.sdata.tables["imputed"].obs
    click(qtbot, domains, "Write")
    assert domains.bar.text.text().startswith("3 domains are in tables['imputed'].obs['domain']")
    assert home.sdata.tables["imputed"].obs["domain"].nunique() == 3


def test_docks_write_one_after_the_other(dock, window, qtbot):
    predict, trust = dock("Predict"), dock("Trust")
    predict.write(lambda: Job(lambda: time.sleep(0.5), "the prediction").start(), lambda _: None)
    trust.judge()
    assert trust.bar.text.text().startswith("the prediction is still at work in another dock.")
    qtbot.waitUntil(lambda: not predict.bar.busy, timeout=WAIT_MS)


def test_work_can_be_cancelled_and_says_so(dock, qtbot):
    predict, results = dock("Predict"), []

    def slow() -> None:
        for _ in track(range(10_000), "training", 10_000):
            time.sleep(0.01)

    predict.start(Job(slow, "the prediction").start(), results.append)
    qtbot.waitUntil(lambda: predict.bar.progress.value() > 2, timeout=WAIT_MS)
    assert predict.bar.stop.isVisibleTo(predict) and "training" in predict.bar.progress.format()
    click(qtbot, predict, "Cancel")
    assert predict.bar.text.text() == "the prediction was cancelled. Nothing was written." and not results
    assert not predict.bar.stop.isVisibleTo(predict)


def test_docks_of_a_window_without_a_section_say_how_to_open_one_and_fill_themselves_then(qtbot, home):
    from napari.components import ViewerModel

    from sq_imputer.widget._compare import CompareDock

    viewer = ViewerModel()
    compare = CompareDock(viewer)
    qtbot.addWidget(compare)
    assert compare.bar.text.text().startswith("no layer of this window is of a SpatialData object. Open one:")
    kept = {"sdata": home.sdata, "name": "he", "_current_cs": "global"}
    viewer.add_image(np.zeros((4, 4)), metadata=kept)
    compare.fill_in()
    assert compare.prediction.currentText() == "imputed · ridge" and desk_of(viewer).session.image_key == "he"
    assert desk_of(viewer) is compare.desk


def test_the_manifest_names_what_is_there():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(Path(sqi.__file__).parent / "napari.yaml")
    titles = [one.display_name for one in manifest.contributions.widgets]
    assert titles == list(_window.DOCKS)
    for command, dock in zip(manifest.contributions.commands, _window.DOCKS.values(), strict=True):
        module, _, name = str(command.python_name).partition(":")
        assert getattr(sys.modules[module], name) is dock
