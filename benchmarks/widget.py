"""How quick the window is, and pictures of its docks. Needs the extra napari and a display.

    xvfb-run -a python benchmarks/widget.py [--data FOLDER] [--parts live points domains] [--json FILE]
    xvfb-run -a python benchmarks/widget.py --parts screens --screens docs/_static/window [--section mouse_brain]

live: ridge is fitted on her2st C2 (50 genes), then asked about regions of about 2,000 points: a first one, another of
which no point is known, and the first again. Longest pause: how late a timer of 10 ms came at most while a region was
predicted in its thread. points: 500,000 random cells of 200 genes, colored by one gene after the other and drawn, some
of them in view; the memory of the process after 5 genes and after 200. domains: 50,000 random rows of 50 genes, k-means
for one number after another; components are computed once. Seconds are of one thread: of points of the CPU, of the rest
of the clock, on whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

import sq_imputer as sqi


def timed(call, *args):
    """What a call returns, and the seconds that it took."""
    begun = time.perf_counter()
    found = call(*args)
    return found, round(time.perf_counter() - begun, 3)


def finish(job):
    """The result of a job, while the window goes on."""
    from qtpy.QtWidgets import QApplication

    while not job.wait(0.002):
        QApplication.processEvents()
    assert job.ok, job.error
    return job.result


def square(session, shift_um=(0.0, 0.0), side_um=880.0):
    """A square in the middle of a section, with 2,000 points 20 µm apart."""
    middle = session.slide().frame.box_um.mean(axis=0) + shift_um
    return session.region(middle + side_um / 2 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]), 20.0, 2500)


OUTLINE_PX = (
    37.62  # of the bins of this crop in a pixel of its outlines, by the bins that barcode_mappings has of cells
)


def section(data: Path | None, name: str = "C2"):
    """A section as a session: of her2st, the mouse brain, or the cells of the crop of Visium HD."""
    from sq_imputer.widget.session import Session

    data = Path(os.environ["SQ_IMPUTER_DATA"]) if data is None else data
    if name == "mouse_brain":
        return Session(sqi.datasets.mouse_brain(data / "mbrain_visium"))
    if name == "cells":
        import spatialdata_io

        colon = spatialdata_io.visium_hd(data / "visium_hd_crop", dataset_id="crop", load_segmentations_only=False)
        outlines = colon.shapes["crop_cell_segmentations"]
        outlines.geometry = outlines.geometry.scale(OUTLINE_PX, OUTLINE_PX, origin=(0, 0))
        return Session(colon, "crop_hires_image", "cell_segmentations")
    return Session(sqi.datasets.her2st(data / "her2st", [name])[name])


def live(data: Path | None) -> dict:
    """Seconds of regions, and the longest pause of the window meanwhile."""
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QApplication

    from sq_imputer.widget._job import Job

    app = QApplication.instance() or QApplication([])
    session = section(data)
    (model, fit_s), regions = timed(lambda: finish(session.fit("ridge", 50, "cpu"))), {}
    regions["first"] = square(session)
    regions["another"] = square(session, (2000.0, 0.0))
    regions["first again"] = regions["first"]
    ticks, timer = [time.perf_counter()], QTimer()
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(10)
    found = {"fit": fit_s}
    for name, region in regions.items():
        said, found[name] = timed(lambda region=region: finish(Job(lambda: session.look(region, model), "").start()))
        found[f"{name}, points"] = [len(said.mean), said.new]
    timer.stop()
    app.processEvents()
    return found | {"longest pause": round(float(np.diff(ticks).max()), 3)}


def points() -> dict:
    """CPU-seconds to show half a million points, to color them by another gene, to draw them, and what memory stays."""
    import napari
    from qtpy.QtWidgets import QApplication

    from sq_imputer.pl._compared import value_panels
    from sq_imputer.widget._canvas import Canvas, color
    from sq_imputer.widget._points import Points, by_column

    n, rng = 500_000, np.random.default_rng(0)
    viewer = napari.Viewer(show=True)
    canvas = Canvas(viewer)
    viewer.window._qt_window.resize(700, 500)
    values, rows = rng.gamma(1, 1, (n, 200)).astype(np.float32), np.arange(n)
    seconds, held, found = [], {}, {}

    def busy(call) -> float:
        begun = time.process_time()
        call()
        return time.process_time() - begun

    for count, name in ((10, ""), (n, "shown"), (n, "shown for others")):  # of a window that has drawn before
        canvas.points = canvas.points if name == "shown for others" else None
        layer = Points(by_column(rng.uniform(0, 5000, (count, 2))), size=5, border_width=0)
        color(layer, value_panels(None, values[:count, 0])[0], rows[:count])
        found[name] = round(busy(lambda layer=layer: canvas.show(layer)), 3)
        viewer.camera.center, viewer.camera.zoom = (100, 100), 20  # without a GPU all of them take seconds to draw
        QApplication.processEvents()
    for gene in range(200):
        colored = busy(lambda gene=gene: canvas.paint(value_panels(None, values[:, gene])[0], rows))
        seconds.append((colored, busy(QApplication.processEvents)))  # what is not drawn is kept in a queue until it is
        if gene in (4, 199):
            held[f"MB after {gene + 1}"] = resident()
    for gene, name in enumerate(("laid out side by side", "colored side by side")):
        panels = value_panels(*values.T[gene : gene + 3])
        found[name] = round(busy(lambda panels=panels: canvas.apart(panels, rows, None)), 3)
        QApplication.processEvents()
    viewer.close()
    colored, drawn = np.median(seconds, axis=0)
    longest = max(one for one, _ in seconds)
    found |= {"colored": round(float(colored), 3), "longest": round(longest, 3), "drawn": round(float(drawn), 3)}
    return {name: value for name, value in found.items() if name} | held


def resident() -> int:
    """MB of the process in memory, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


def domains() -> dict:
    """Seconds of the first look at domains, and of others."""
    from sq_imputer.tl._clusters import Settings, shared
    from sq_imputer.widget._domains import Preview

    n, rng = 50_000, np.random.default_rng(0)
    preview = object.__new__(Preview)
    blocks = [rng.normal(size=(n, 50)).astype(np.float32)]
    preview._spots, first = timed(shared, blocks, rng.uniform(0, 5000, (n, 2)), Settings("kmeans", 2))
    preview._known = {}
    return {"components": first} | {f"{k} domains": timed(preview.labels, k)[1] for k in (4, 8, 16)}


WIDE_PX = 620  # of a picture, without what is left of the canvas: napari's own docks
SHOWN = {"C2": "CD74", "mouse_brain": "Mbp"}  # genes that are predicted beyond chance; elsewhere the first
COARSE = {"cells": {"config": {"extent_um": 1100.0, "size_px": 32, "context_um": ()}}}  # an image of 34 µm per pixel


def to_tissue(viewer, session, desk) -> None:
    """The camera on all spots, once the docks have their sizes."""
    xy = session.slide().xy_um
    low, high = (desk.world_of(corner[None])[0] for corner in (xy.min(axis=0), xy.max(axis=0)))
    viewer.camera.center = tuple((low + high) / 2)
    area = viewer.window._qt_viewer.canvas.native
    viewer.camera.zoom = 0.9 * min(np.array([area.height(), area.width()]) / (high - low))


def screens(data: Path | None, folder: Path, name: str) -> dict:
    """A picture of every dock on a section, ridge out of fold and fitted there."""
    from PIL import Image
    from qtpy.QtWidgets import QApplication, QDockWidget

    from sq_imputer.widget import _window
    from sq_imputer.widget._requests import Request

    folder.mkdir(parents=True, exist_ok=True)
    session, how = section(data, name), COARSE.get(name, {})
    shapes = session.measured_shapes()[0]
    apart = {"buffer_um": 0.0} if how else {}  # the crops of all cells overlap there
    finish(session.predict(Request("ridge", 50, shapes, device="cpu", further=how | apart)))
    finish(session.fit("ridge", 50, "cpu", **how))
    viewer = _window.open_docks(session)
    docks, app = viewer.window.dock_widgets, QApplication.instance()
    viewer.window._qt_window.resize(1400, 900)
    compare, desk = docks["Compare"], docks["Region"].desk
    area = viewer.window._qt_viewer.canvas.native

    def pump(seconds: float = 0.4) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            app.processEvents()
            time.sleep(0.01)

    def settle(dock) -> None:
        end = time.monotonic() + 240
        for _ in range(3):  # a job may start another
            while dock.bar.busy and time.monotonic() < end:
                pump(0.01)
            pump(0.05)

    def taken(dock: str, file: str = "", panels: int = 1) -> None:
        widget = docks[dock]
        while not isinstance(widget, QDockWidget):
            widget = widget.parent()
        widget.raise_()
        pump(1.0)  # the dock takes its width
        to_tissue(viewer, session, desk)
        viewer.camera.zoom /= panels
        pump()
        path = folder / f"{file or dock.lower()}.png"
        viewer.screenshot(str(path), canvas_only=False, flash=False)
        picture = Image.open(path).convert("RGB")
        left = area.mapTo(area.window(), area.rect().topLeft()).x() * picture.width / area.window().width()
        picture = picture.crop((round(left), 0, *picture.size))
        picture.thumbnail((WIDE_PX, picture.height), Image.Resampling.LANCZOS)
        picture.quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)

    settle(docks["Predict"])
    compare.choose()
    settle(compare)
    compare.paint(SHOWN.get(name))
    taken("Predict")
    compare.spread.setChecked(True)
    taken("Compare", "side_by_side", 2)
    compare.spread.setChecked(False)
    docks["Trust"].judge()
    settle(docks["Trust"])
    taken("Trust")
    docks["Explain"].listen()
    docks["Explain"].explain(60)
    settle(docks["Explain"])
    taken("Explain")
    docks["Region"].begin()
    side = min(880.0, 0.4 * np.ptp(session.slide().xy_um, axis=0).min())
    shift = session.slide().xy_um.mean(axis=0) - session.slide().frame.box_um.mean(axis=0)
    docks["Region"].drawing._layer.add_polygons(desk.world_of(square(session, shift, side).polygon_um))
    docks["Region"].look()
    settle(docks["Region"])
    taken("Region")
    for layer in [layer for layer in viewer.layers if layer.name.startswith("drawn region")]:
        viewer.layers.remove(layer)
    docks["Domains"].look()
    settle(docks["Domains"])
    taken("Domains")
    viewer.close()
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with her2st; else SQ_IMPUTER_DATA")
    parser.add_argument("--parts", nargs="+", default=["live", "points", "domains"])
    parser.add_argument("--section", default="C2", help="of the screens: of her2st, mouse_brain, or cells")
    parser.add_argument("--screens", type=Path, default=Path("screens"))
    parser.add_argument("--json", type=Path, help="file that the figures go to, under 'window'")
    arguments = parser.parse_args()
    parts = {
        "live": lambda: live(arguments.data),
        "points": points,
        "domains": domains,
        "screens": lambda: screens(arguments.data, arguments.screens, arguments.section),
    }
    for part in arguments.parts:
        found = parts[part]()
        print(part, found, flush=True)
        if arguments.json is not None and found:
            kept = json.loads(arguments.json.read_text())
            kept["window"] = kept.get("window", {}) | {part: found}
            arguments.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
