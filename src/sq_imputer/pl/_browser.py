"""Panels in the browser, by bokeh: one source of rows for all of them, so that they move and point together.

Names come from data. Bokeh writes them as text in tooltips, in boxes to choose from and on its canvases, where it is
told not to take them for formulas (`PlainText`); a `Div` is HTML, and is given escaped ones.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sq_imputer.errors import printable
from sq_imputer.pl import _panels
from sq_imputer.pl._compared import DIFFERENCE, of_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sq_imputer.pl._compared import Look, Panel
    from sq_imputer.pl._values import Values

BESIDE_PX, ABOVE_PX = 14, 130  # of a panel, and of all of them: titles, color bars, tools
QUALITY = 85  # of the embedded image
NOT_THERE = "rgba(0, 0, 0, 0)"
RING = {"hover_line_color": "#000000", "hover_line_width": 2, "hover_line_alpha": 1.0}
SCALE = {"location": "bottom_left", "background_fill_alpha": 0.6, "border_line_color": None, "margin": 4, "padding": 4}
CHOOSE = """
const k = Number(this.value)
const data = {...source.data}
for (const name of names) data[name] = genes[k].data[name]
mappers.forEach((mapper, p) => mapper.setv({low: limits[k][p][0], high: limits[k][p][1]}))
heading.text = headings[k]
source.data = data
"""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison that a notebook shows, and that can be kept as a file.

    Parameters
    ----------
    layout
        What bokeh shows.
    title
        Of the page.
    size_px
        Width and height of what is shown.
    """

    layout: Any
    title: str
    size_px: tuple[int, int]

    @classmethod
    def of(cls, values: Values, look: Look, panel_px: int, picture, section: str | None) -> Comparison:
        """The panels of all genes, of which the first is shown."""
        about = ", ".join(printable(part) for part in (values.layer, section) if part)
        parts = _Parts(values, look, panel_px)
        title = f"{', '.join(map(printable, values.genes[:3]))}: {about}"
        return cls(parts.layout(picture, about), title, parts.size_px)

    def html(self) -> str:
        """The page: it holds all that it needs, and asks no network."""
        from bokeh.embed import file_html
        from bokeh.resources import INLINE

        return file_html(self.layout, INLINE, title=self.title)

    def save(self, path: str | Path) -> Path:
        """Write the page to a file; its path."""
        path = Path(path)
        path.write_text(self.html(), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        """In a frame of its own, which cannot touch the notebook around it."""
        width, height = self.size_px
        frame = 'sandbox="allow-scripts allow-downloads" style="border: 0; background: white; max-width: 100%"'
        return f'<iframe width="{width}" height="{height}" {frame} srcdoc="{escape(self.html())}"></iframe>'


class _Parts:
    """Sources, color mappers and figures."""

    def __init__(self, values: Values, look: Look, panel_px: int) -> None:
        from bokeh.models import ColumnDataSource, LinearColorMapper, Range1d

        placed = values.placed
        self.values, self.each, self.n = values, values.panels(look), len(placed.xy_um)
        self.names = [_one_line(panel.title) for panel in self.each[0]]
        radius = _panels.widened(placed.xy_um, placed.radius_um, panel_px)
        left, right, bottom, top = _panels.room(placed.xy_um, radius)
        self.x, self.y = Range1d(left, right), Range1d(bottom, top)  # y is down, as in the image
        self.width, self.height = panel_px, round(panel_px * (bottom - top) / (right - left))
        self.columns = [dict(zip(self.names, _shown(panels), strict=True)) for panels in self.each]
        x, y = placed.xy_um.T
        rows = {"x": x, "y": y, "radius": np.broadcast_to(radius, self.n).astype(np.float32)}
        spots = [printable(name) for name in placed.table.obs_names[placed.rows]]
        self.source = ColumnDataSource({**rows, "spot": spots, **self.columns[0]}, name="rows")
        self.mappers = [
            LinearColorMapper(_palette(panel), low=panel.limits[0], high=panel.limits[1], nan_color=NOT_THERE)
            for panel in self.each[0]
        ]

    @property
    def size_px(self) -> tuple[int, int]:
        """Of all together."""
        return len(self.names) * (self.width + BESIDE_PX) + 60, self.height + ABOVE_PX

    def layout(self, picture, about: str):
        """A row of panels below what they are of."""
        from bokeh.layouts import column, gridplot, row
        from bokeh.models import Div

        image = None if picture is None else _source_of(picture)
        figures = [self._figure(name, mapper, image) for name, mapper in zip(self.names, self.mappers, strict=True)]
        headings = [f"<i>{escape(printable(gene))}</i>, {escape(about)}" for gene in self.values.genes]
        heading = Div(text=headings[0], disable_math=True, styles={"font-size": "120%", "margin": "6px 12px"})
        above = [heading, *self._box(heading, headings), self._slider(figures)]
        grid = gridplot([figures], toolbar_location="right", toolbar_options={"logo": None})
        return column(row(*above), grid, styles={"background": "white"})

    def _unit(self, name: str) -> str:
        """What the color bar of a panel is called."""
        unit = self.values.units[name != "measured"]
        return printable(of_difference(unit) if name == DIFFERENCE else unit)

    def _figure(self, name: str, mapper, image):
        from bokeh.models import BoxZoomTool, ColorBar, PlainText, ScaleBar, Title, WheelZoomTool
        from bokeh.plotting import figure

        wheel = WheelZoomTool(zoom_on_axis=False)
        tools = ["pan", wheel, BoxZoomTool(match_aspect=True), "save", "reset"]
        panel = figure(
            title=Title(text=PlainText(name), text_font_size="12px", text_font_style="normal"),
            **{"frame_width": self.width, "frame_height": self.height, "x_range": self.x, "y_range": self.y},
            **{"tools": tools, "active_scroll": wheel, "min_border": 5, "outline_line_color": None},
            output_backend="webgl" if self.n > _panels.MANY else "canvas",
        )
        panel.axis.visible = panel.grid.visible = False
        if image is not None:
            panel.image_url("url", "left", "top", "width", "height", source=image, global_alpha=_panels.PALE)
        spots = panel.circle(
            *("x", "y", "radius"),
            **{"source": self.source, "fill_color": {"field": name, "transform": mapper}, "name": "spots", **RING},
            **{"line_color": "#666666", "line_width": 0.5 if self.n <= _panels.MANY else 0.2},
        )
        spots.nonselection_glyph = None
        panel.add_tools(self._hover(spots))
        bar = {"orientation": "horizontal", "height": 10, "width": self.width - 20, "background_fill_alpha": 0}
        panel.add_layout(ColorBar(color_mapper=mapper, title=PlainText(self._unit(name)), **bar), "below")
        if name == self.names[0]:
            panel.add_layout(ScaleBar(range=self.x, unit="\u00b5m", **SCALE))
        return panel

    def _hover(self, spots):
        from bokeh.models import HoverTool

        told = [("spot", "@spot"), *((name, f"@{{{name}}}{{0.000}}") for name in self.names)]
        return HoverTool(renderers=[spots], tooltips=told, limit=1)

    def _box(self, heading, headings: list[str]) -> list:
        """A box of genes, if there are several."""
        from bokeh.models import ColumnDataSource, CustomJS, Select

        if len(self.each) == 1:
            return []
        given = {
            "source": self.source,
            "genes": [ColumnDataSource(columns) for columns in self.columns],
            "names": self.names,
            "mappers": self.mappers,
            "limits": [[list(panel.limits) for panel in panels] for panels in self.each],
            "heading": heading,
            "headings": headings,
        }
        options = [(str(k), printable(gene)) for k, gene in enumerate(self.values.genes)]
        box = Select(options=options, value="0", width=160)
        box.js_on_change("value", CustomJS(args=given, code=CHOOSE))
        return [box]

    def _slider(self, figures: Sequence):
        """How opaque the spots are."""
        from bokeh.models import Slider

        slider = Slider(start=0, end=1, step=0.05, value=1, title="spots", width=160)
        for panel in figures:
            for end in ("fill_alpha", "line_alpha"):
                slider.js_link("value", panel.select_one({"name": "spots"}).glyph, end)
        return slider


def _one_line(title: str) -> str:
    return title.replace("\n", " ")


def _shown(panels: Sequence[Panel]) -> list[np.ndarray]:
    return [np.asarray(panel.values, dtype=np.float32) for panel in panels]


def _palette(panel: Panel) -> list[str]:
    """The colors of a panel, from the lowest to the highest."""
    import matplotlib
    from matplotlib.colors import to_hex

    colors = matplotlib.colormaps[panel.colors] if isinstance(panel.colors, str) else panel.colors
    return [to_hex(color) for color in colors(np.linspace(0, 1, 256))]


def _source_of(picture: _panels.Background):
    """An image as a source of one row, compressed, so that the page stays small."""
    from bokeh.models import ColumnDataSource
    from PIL import Image

    pixels, (left, right, bottom, top) = picture
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(held, format="JPEG", quality=QUALITY)
    url = f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"
    place = {"left": [left], "top": [top], "width": [right - left], "height": [bottom - top]}
    return ColumnDataSource({"url": [url], **place})
