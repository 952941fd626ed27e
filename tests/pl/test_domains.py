"""What the picture of domains shows: their colors, the tissue below, names and numbers beside."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pl import domains
from sq_imputer.section.slide import Slide

matplotlib.use("agg")
import matplotlib.pyplot as plt

COLORS = ["#0072B2", "#E69F00", "#009E73"]


@pytest.fixture
def labeled(section):
    """A section with three domains, and five spots of none."""
    table = section.tables["table"]
    names = np.array(["0", "1", "2"], dtype=object)[np.arange(len(table)) % 3]
    names[:5] = None
    table.obs["domain"] = pd.Categorical(names, categories=["0", "1", "2"])
    table.uns["domain_colors"] = COLORS
    return section


def spots(ax) -> dict[bool, EllipseCollection]:
    """The circles of an Axes, by whether they are filled."""
    return {part.get_array() is not None: part for part in ax.collections if isinstance(part, EllipseCollection)}


def test_spots_have_the_colors_of_their_domains_and_their_place(labeled):
    ax = domains(labeled, key="table")
    ax.figure.canvas.draw()
    table, slide = labeled.tables["table"], Slide.from_sdata(labeled)
    filled = spots(ax)[True]
    expected = [COLORS[int(name)] for name in table.obs["domain"][5:]]
    assert [to_hex(color).upper() for color in filled.get_facecolors()] == expected
    np.testing.assert_allclose(filled.get_offsets(), slide.xy_um[5:])
    np.testing.assert_allclose(filled.get_widths(), slide.size_um[5:], rtol=1e-6)
    np.testing.assert_allclose(spots(ax)[False].get_offsets(), slide.xy_um[:5])
    assert len(ax.images) == 1 and ax.get_aspect() == 1 and ax.yaxis_inverted()


def test_the_legend_names_and_counts(labeled):
    legend = domains(labeled, key="table").get_legend()
    counts = labeled.tables["table"].obs["domain"].value_counts()
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"{name} ({counts[name]})" for name in "012"),
        "none (5)",
    ]
    assert legend.get_title().get_text() == "domain"


def test_axes_given_are_drawn_on_and_picture_and_legend_can_be_left_out(labeled):
    given = plt.subplots()[1]
    ax = domains(labeled, key="table", ax=given, background=False, legend=False)
    assert ax is given and not ax.images and ax.get_legend() is None


def test_labels_of_others_get_colors_too(labeled):
    table = labeled.tables["table"]
    table.obs["label"] = ["tumor" if k % 2 else "stroma" for k in range(len(table))]
    ax = domains(labeled, "label", key="table")
    ax.figure.canvas.draw()
    assert len({to_hex(color) for color in spots(ax)[True].get_facecolors()}) == 2
    table.obs["many"] = pd.Categorical([f"d{k}" for k in range(len(table))])
    assert len(domains(labeled, "many", key="table").get_legend().get_texts()) == len(table)


def test_many_spots_are_rasterized(labeled, monkeypatch):
    assert not spots(domains(labeled, key="table"))[True].get_rasterized()
    monkeypatch.setattr("sq_imputer.pl._panels.MANY", 10)
    assert spots(domains(labeled, key="table"))[True].get_rasterized()


def test_the_object_is_not_changed(labeled, digest):
    before = digest(labeled)
    domains(labeled, key="table")
    assert digest(labeled) == before


@pytest.mark.parametrize(
    ("error", "domain", "key", "message"),
    [
        (MissingKey, "domain", "imputed", "no table 'imputed'; sdata has 'table'"),
        (MissingKey, "niche", "table", r"no 'niche' in tables\['table'\].obs; it has .* Pass domain="),
        (BadInput, "array_row", "table", r"'array_row' holds numbers \(int64\); domains are labels"),
        (BadInput, "empty", "table", "'empty' has no label in any of its"),
    ],
)
def test_errors_name_what_was_found(labeled, error, domain, key, message):
    labeled.tables["table"].obs["empty"] = pd.Categorical([None] * len(labeled.tables["table"]))
    with pytest.raises(error, match=message):
        domains(labeled, domain, key=key)


@pytest.mark.parametrize("names", [["tumor", "stroma"], ["0", "1"]])
def test_colors_by_category_are_taken_and_what_is_no_color_is_said(labeled, names):
    table = labeled.tables["table"]
    table.obs["kind"] = pd.Categorical(np.where(np.arange(len(table)) % 2, *names), categories=names)
    table.uns["kind_colors"] = dict(zip(names, ["#d55e00", "#0072b2"], strict=True))
    shown = domains(labeled, "kind", key="table").get_legend()
    assert [to_hex(handle.get_markerfacecolor()) for handle in shown.legend_handles][:2] == ["#d55e00", "#0072b2"]
    for wrong in (["?", "!"], {names[0]: "#d55e00"}, "red", ["#d55e00", 3]):
        table.uns["kind_colors"] = wrong
        with pytest.warns(UserWarning, match="uns.'kind_colors'. is no color for each of 2 categories"):
            domains(labeled, "kind", key="table")


def test_matplotlibs_settings_of_images_change_nothing(labeled):
    expected = domains(labeled, key="table").images[0]
    with matplotlib.rc_context({"image.origin": "lower", "image.interpolation": "bicubic"}):
        image = domains(labeled, key="table").images[0]
    assert (image.origin, image.get_interpolation()) == (expected.origin, expected.get_interpolation())
    assert image.origin == "upper"


def test_a_doubled_column_is_refused(labeled):
    table = labeled.tables["table"]
    table.obs = pd.concat([table.obs, table.obs[["domain"]]], axis=1)
    with pytest.raises(BadInput, match="several columns 'domain'"):
        domains(labeled, key="table")
