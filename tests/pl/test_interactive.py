"""The page: its numbers are those of the layers, its panels move together, and it takes no name for markup."""

from __future__ import annotations

import html
import importlib.util
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata.models import TableModel

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl import _interactive, _panels, interactive
from sq_imputer.pl._values import Values

pytest.importorskip("bokeh", reason="the page is made by bokeh, which is not installed here")
GENES = ["NUC1", "<b>GLD1</b> $$x$$"]
MARKED = "<b>spot</b> @{x} $y"
UNIT = "log1p_cp10k"


def results(section, key="result", *, names=GENES, measured=True, std=True, spots=None, **record):
    """A table as `tl.predict` writes it, of spots in another order, of which two were not measured."""
    n = len(section.shapes["spots"])
    rng, order = np.random.default_rng(0), np.random.default_rng(1).permutation(n)
    truth = rng.gamma(2, size=(n, len(names))).astype(np.float32)
    truth[:2] = np.nan
    layers = {"measured": truth} if measured else {}
    layers["ridge"] = rng.normal(2, 0.3, size=(n, len(names))).astype(np.float32)
    if std:
        layers["ridge_std"] = rng.uniform(0.1, 1, size=(n, len(names))).astype(np.float32)
    obs = {"region": pd.Categorical(["spots"] * n), "spot": order}
    obs = pd.DataFrame(obs, index=[MARKED, *(f"s{k}" for k in range(1, n))])
    table = AnnData(layers["ridge"].copy(), obs=obs, var=pd.DataFrame(index=names), layers=layers)
    told = {"image_key": "he", "mpp": 1.25, "unit": UNIT, **record}
    table.uns["sq_imputer"] = {"ridge": told, "embeddings": {}}
    section.tables[key] = TableModel.parse(table, region="spots", region_key="region", instance_key="spot")
    return section.tables[key]


def of(page, kind: str) -> list:
    """Models of a kind, in the order of panels."""
    from bokeh import models

    return list(page.layout.select({"type": getattr(models, kind)}))


def figures(page) -> list:
    from bokeh.plotting import figure

    grid = page.layout.children[1]
    assert all(isinstance(one, figure) for one, *_ in grid.children)
    return [one for one, *_ in grid.children]


def spots(panel):
    return panel.select_one({"name": "spots"})


class Asked(HTMLParser):
    """What a page asks a network for before its scripts run."""

    def __init__(self):
        super().__init__()
        self.tags, self.asked = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.asked += [value for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def compared(section):
    return section, results(section)


def test_the_page_holds_the_layers_and_all_panels_show_one_source(compared):
    section, table = compared
    page = interactive(section, "NUC1", key="result")
    panels = figures(page)
    assert [panel.below[1].title.text for panel in panels] == [UNIT, UNIT, f"difference, {UNIT}", UNIT]
    names = ["measured", "predicted", "measured − predicted", "standard deviation"]
    assert [panel.title.text.text for panel in panels] == names
    assert [spots(panel).glyph.fill_color.field for panel in panels] == names
    (source,) = {spots(panel).data_source for panel in panels}
    expected = [table.layers[name][:, 0] for name in ("measured", "ridge", "ridge_std")]
    expected.insert(2, expected[0] - expected[1])
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_array_equal(source.data[name], values)
        assert source.data[name].dtype == np.float32
    placed = Values.of(section, "result", None, None, ["NUC1"]).placed
    np.testing.assert_array_equal(np.column_stack([source.data["x"], source.data["y"]]), placed.xy_um)
    np.testing.assert_allclose(source.data["radius"], placed.radius_um, rtol=1e-6)
    assert source.data["spot"] == list(table.obs_names)


def test_measured_and_predicted_share_their_colors_which_are_those_of_compare(compared):
    section, table = compared
    page = interactive(section, GENES, key="result", vmax="p90")
    ends = [(spots(p).glyph.fill_color.transform.low, spots(p).glyph.fill_color.transform.high) for p in figures(page)]
    both = np.concatenate([table.layers[name][:, 0].astype(float) for name in ("measured", "ridge")])
    assert ends[0] == ends[1] == _panels.chosen_limits(both, None, "p90")
    assert ends[2][0] == pytest.approx(-ends[2][1]) and ends[2][0] < 0
    box = of(page, "Select")[0].js_property_callbacks["change:value"][0].args
    assert [tuple(one) for one in box["limits"][0]] == ends
    assert all(of_gene[0] == of_gene[1] for of_gene in box["limits"])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    bars = [panel.below[1].color_mapper for panel in figures(page)]
    assert bars == [spots(panel).glyph.fill_color.transform for panel in figures(page)]
    for bar, name in zip(bars, ("viridis", "viridis", "RdBu_r", "plasma"), strict=True):
        assert [bar.palette[k] for k in (0, -1)] == [to_hex(colormaps[name](end)) for end in (0.0, 1.0)]


def test_pan_and_zoom_move_all_panels_and_y_is_down(compared):
    panels = figures(interactive(compared[0], "NUC1", key="result"))
    assert len({panel.x_range for panel in panels}) == len({panel.y_range for panel in panels}) == 1
    x, y = panels[0].x_range, panels[0].y_range
    assert x.start < x.end and y.start > y.end
    assert panels[0].frame_width / panels[0].frame_height == pytest.approx((x.end - x.start) / (y.start - y.end), 0.01)


def test_every_gene_of_the_box_brings_its_own_values(compared):
    section, table = compared
    box = of(interactive(section, GENES, key="result"), "Select")[0]
    assert [label for _, label in box.options] == GENES and box.value == "0"
    kept = box.js_property_callbacks["change:value"][0].args["genes"]
    for k, source in enumerate(kept):
        np.testing.assert_array_equal(source.data["predicted"], table.layers["ridge"][:, k])
        np.testing.assert_array_equal(source.data["measured"], table.layers["measured"][:, k])
    assert of(interactive(section, "NUC1", key="result"), "Select") == []


def test_the_tissue_lies_below_where_it_is(compared):
    import base64
    import io

    from PIL import Image

    section, _ = compared
    page = interactive(section, "NUC1", key="result", panel_px=200)
    sources = {panel.renderers[0].data_source for panel in figures(page)}
    assert len(sources) == 1
    held = sources.pop().data
    placed = Values.of(section, "result", None, None, ["NUC1"]).placed
    expected, (left, right, bottom, top) = _panels.background(placed.slide, placed.made, 400)
    assert (held["left"], held["top"]) == ([left], [top])
    assert (held["width"], held["height"]) == ([right - left], [bottom - top])
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(held["url"][0].partition(",")[2]))), dtype=float)
    assert np.abs(seen - expected).mean() < 8  # compressed
    assert np.abs(seen[::-1] - expected).mean() > 8
    bare = interactive(section, "NUC1", key="result", background=False)
    assert [len(panel.renderers) for panel in figures(bare)] == [1] * 4


@pytest.mark.parametrize(
    ("changed", "titles"),
    [
        ({"std": False}, ["measured", "predicted", "measured − predicted"]),
        ({"measured": False}, ["predicted", "standard deviation"]),
        ({"layer_unit": "their own"}, ["measured", "predicted", "standard deviation"]),
        ({"n_folds": 5, "measured": False}, ["predicted", "standard deviation (a model per fold)"]),
    ],
)
def test_what_is_not_there_is_left_out(section, changed, titles):
    results(section, **changed)
    page = interactive(section, "NUC1", key="result", background=False)
    assert [panel.title.text.text for panel in figures(page)] == titles
    assert figures(page)[titles.index("predicted")].below[1].title.text == changed.get("layer_unit", UNIT)


def test_names_are_text_wherever_they_stand(section):
    results(section, unit="<b>unit</b> $$x$$")
    page = interactive(section, GENES[::-1], key="result", background=False)
    from bokeh.models import PlainText

    for panel in figures(page):
        assert isinstance(panel.title.text, PlainText) and isinstance(panel.below[1].title, PlainText)
    heading = of(page, "Div")[0]
    assert heading.text == "<i>&lt;b&gt;GLD1&lt;/b&gt; $$x$$</i>, ridge" and heading.disable_math
    text = page.html()
    assert "<b>GLD1" not in text and "<b>spot" not in text and "<b>unit" not in text
    assert "<title>&lt;b&gt;GLD1&lt;/b&gt; $$x$$, NUC1: ridge</title>" in text
    shown = page._repr_html_()
    assert shown.count("<") == 2 and 'sandbox="allow-scripts allow-downloads"' in shown


def test_the_page_needs_nothing_beside_it(compared, tmp_path):
    page = interactive(compared[0], "NUC1", key="result")
    path = page.save(tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    assert text == page.html() or len(text) == len(page.html())  # ids are drawn anew
    reader = Asked()
    reader.feed(text)
    assert reader.tags >= {"html", "script", "body"} and not reader.asked
    assert len(text) < 3e6


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SEES = Path(__file__).with_name("seen_in_a_browser.js")
LISTENS = """<script>
const errors = []
addEventListener("error", (event) => errors.push(String(event.message)))
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)))
for (const kind of ["error", "warn"]) console[kind] = (...said) => errors.push(said.join(" "))
</script>"""


def seen(page: str, folder: Path) -> dict:
    """What the script beside this file finds in a page that a browser without a screen shows; it has no network."""
    head, body = page.index("<head>") + 6, page.rindex("</body>")
    script = f"<script>{SEES.read_text(encoding='utf-8')}</script>"
    path = folder / "page.html"
    path.write_text(page[:head] + LISTENS + page[head:body] + script + page[body:], encoding="utf-8")
    how = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,700", "--virtual-time-budget=30000"]
    where = [f"--user-data-dir={folder / 'profile'}", "--proxy-server=127.0.0.1:1", "--dump-dom", path.as_uri()]
    done = subprocess.run([CHROMIUM, *how, *where], capture_output=True, text=True, timeout=300)
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, done.stderr[-2000:]
    return json.loads(html.unescape(told[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is found on PATH; the page is not looked at in a browser")
def test_a_browser_shows_the_page_and_what_is_done_with_it(section, tmp_path):
    table = results(section, unit="<b>unit</b>")
    found = seen(interactive(section, GENES[::-1], key="result").html(), tmp_path)
    assert found["errors"] == [] and "failed" not in found
    assert found["panels"] == found["painted"] == 4
    assert found["markup"] == [] and found["options"] == GENES[::-1]
    values = [table.layers[name][0, 1] for name in ("ridge", "ridge_std")]
    said = dict(zip(found["labels"], map(str.strip, found["values"]), strict=True))
    assert said["spot: "] == MARKED and said["measured: "] == said["measured − predicted: "] == "NaN"
    shown = [float(said[name]) for name in ("predicted: ", "standard deviation: ")]
    np.testing.assert_allclose(shown, values, atol=6e-4)
    assert (found["before"], found["after"]) == (GENES[1:], GENES[:1])
    np.testing.assert_allclose(found["predicted"], table.layers["ridge"][:, 0], rtol=1e-6)
    assert found["limits"][0] == found["limits"][1] != found["limits"][3]
    assert len(found["starts"]) == 1


def test_without_bokeh_the_next_step_is_said(compared, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(_interactive, "find_spec", lambda name: None if name == "bokeh" else found(name))
    with pytest.raises(BadInput, match=r"needs bokeh.*pip install 'sq-imputer\[interactive\]'.*pl.compare draws"):
        interactive(compared[0], "NUC1", key="result")


@pytest.mark.parametrize(
    ("error", "genes", "options", "message"),
    [
        (MissingKey, "ESR1", {}, "no gene 'ESR1' in table 'result'"),
        (MissingKey, "NUC1", {"layer": "nsl"}, "no layer 'nsl'"),
        (BadInput, "NUC1", {"vmin": "high"}, "vmin is 'high'; expected a number, or a percentile"),
        (BadInput, "NUC1", {"cmap": "virids"}, "did you mean 'viridis'"),
        (BadInput, "NUC1", {"panel_px": 5}, "panel_px is 5; expected a whole number from 100 to 2000"),
        (BadInput, "NUC1", {"gene": "x"}, "interactive"),
    ],
)
def test_errors_name_what_was_found(compared, error, genes, options, message):
    with pytest.raises(error, match=message):
        interactive(compared[0], genes, **{"key": "result", **options})


def test_a_page_that_no_browser_would_bear_is_refused_before_it_is_made(compared, monkeypatch):
    n = len(compared[0].shapes["spots"])
    monkeypatch.setattr(_interactive, "MOST_VALUES", n)
    interactive(compared[0], "NUC1", key="result", background=False)
    with pytest.raises(BadInput, match=f"{n} rows and 2 genes.*up to 1 genes fit.*sq_imputer.widget.open"):
        interactive(compared[0], GENES, key="result")
