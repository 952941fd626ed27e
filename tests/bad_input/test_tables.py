"""Shapes, tables, counts and genes that cannot be used: rows 15 to 22 and 31 to 44 of the table of bad input."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import shapely
from spatialdata.models import ShapesModel

import sq_imputer as sqi
from sq_imputer import BadInput, MissingKey
from sq_imputer.section.slide import Slide


def part(sdata) -> SimpleNamespace:
    return SimpleNamespace(sdata=sdata, shapes=sdata.shapes["spots"], table=sdata.tables["table"])


# Shapes -------------------------------------------------------------------------------------------


def geometry(value):
    """Make this the geometry of the fourth shape."""

    def change(of) -> None:
        of.shapes.loc[of.shapes.index[3], "geometry"] = value

    return change


def radius(value):
    def change(of) -> None:
        of.shapes.loc[of.shapes.index[3], "radius"] = value

    return change


def polygons(odd):
    """Polygons, the fourth of which is something else."""

    def change(of) -> None:
        frame = of.shapes.drop(columns="radius")
        frame["geometry"] = [shape.buffer(10) for shape in of.shapes.geometry]
        frame.loc[frame.index[3], "geometry"] = odd
        of.sdata.shapes["spots"] = ShapesModel.parse(frame)

    return change


def no_shapes(of) -> None:
    of.shapes.drop(of.shapes.index, inplace=True)


def same_ids(of) -> None:
    of.shapes.index = [7, 7, *of.shapes.index[2:]]


def crs(code: int):
    def change(of) -> None:
        of.shapes.set_crs(epsg=code, inplace=True)

    return change


def text_radius(of) -> None:
    of.shapes["radius"] = of.shapes["radius"].astype(str)


SHAPES = [
    pytest.param(geometry(shapely.Point(np.nan, 3)), ["1 rows", "NaN", "'3'", "finite"], id="15-nan-coordinate"),
    pytest.param(geometry(shapely.Point(np.inf, 3)), ["1 rows", "infinite", "'3'", "finite"], id="16-inf-coordinate"),
    pytest.param(radius(np.nan), ["1 rows", "radii", "'3'"], id="17-nan-radius"),
    pytest.param(radius(np.inf), ["1 rows", "radii", "'3'"], id="17-inf-radius"),
    pytest.param(radius(0.0), ["not positive", "'3'"], id="17-no-radius"),
    pytest.param(text_radius, ["radii that are not positive numbers"], id="17-radius-of-text"),
    pytest.param(no_shapes, ["0 rows", "at least one"], id="18-empty-element"),
    pytest.param(geometry(shapely.Point()), ["1 empty geometries", "'3'", "Drop"], id="19-empty-geometry"),
    pytest.param(geometry(None), ["1 empty geometries", "'3'", "Drop"], id="19-no-geometry"),
    pytest.param(
        geometry(shapely.box(0, 0, 9, 9)), ["1 of 59", "'Polygon'", "'3'", "points"], id="20-polygon-of-circles"
    ),
    pytest.param(polygons(shapely.Point(99, 99)), ["1 of 59", "'Point'", "'3'"], id="20-point-of-polygons"),
    pytest.param(polygons(shapely.LineString([(0, 0), (9, 9)])), ["'LineString'", "'3'"], id="20-line-of-polygons"),
    pytest.param(same_ids, ["duplicate ids", "'7'", "unique"], id="21-same-ids"),
    pytest.param(crs(4326), ["EPSG:4326", "degrees", "without crs="], id="22-geographic-crs"),
]


@pytest.mark.parametrize(("change", "holds"), SHAPES)
def test_shapes_that_have_no_place_are_refused(change, holds, sdata, refused) -> None:
    change(part(sdata))
    refused(sdata, lambda: sqi.tl.predict(sdata, "ridge"), BadInput, "shapes 'spots'", *holds)


def test_another_reference_system_is_ignored_and_named(sdata, warned) -> None:
    crs(32633)(part(sdata))
    warned(sdata, lambda: sqi.pp.crops(sdata), "shapes 'spots'", "EPSG:32633", "ignored")


# Tables -------------------------------------------------------------------------------------------


def names(which: str):
    """Give the first two genes, or spots, one name."""

    def change(of) -> None:
        old = getattr(of.table, which)
        setattr(of.table, which, [old[0], old[0], *old[2:]])

    return change


def instances(values):
    def change(of) -> None:
        ids = of.table.obs["spot_id"].to_numpy().astype(object)
        of.table.obs["spot_id"] = values(ids)

    return change


def first(value):
    def values(ids):
        ids[0] = value
        return ids

    return instances(values)


def region(table: str, rows: str):
    """Let the table say that it annotates one element, and its rows another."""

    def change(of) -> None:
        of.table.uns["spatialdata_attrs"]["region"] = table
        of.table.obs["region"] = pd.Categorical([rows] * len(of.table))

    return change


def filtered(of) -> None:
    import scanpy

    scanpy.pp.filter_cells(of.table, min_counts=10**9)


def without(name: str):
    def change(of) -> None:
        del of.table.obs[name]

    return change


def value(x):
    """Make this the count of the fourth gene in the third spot."""

    def change(of) -> None:
        counts = of.table.X.toarray()
        counts[2, 3] = x
        of.table.X = counts

    return change


def no_counts(of) -> None:
    of.table.X = None


def no_genes(of) -> None:
    of.table._inplace_subset_var([])


def text_counts(of) -> None:
    of.table.X = of.table.X.toarray().astype(str)


def logged(of) -> None:
    import scanpy

    scanpy.pp.normalize_total(of.table)
    scanpy.pp.log1p(of.table)
    del of.table.uns["log1p"]


def as_text(ids):
    return ids.astype(str)


def halves(ids):
    return np.arange(len(ids)) + 0.5


def unknown(ids):
    return [f"z{k}" for k in range(len(ids))]


TABLES = [
    pytest.param(names("var_names"), ["duplicate genes", "'NUC1'", "var_names_make_unique"], id="31-same-gene-names"),
    pytest.param(names("obs_names"), ["duplicate spots", "'3x1'", "obs_names_make_unique"], id="33-same-spot-names"),
    pytest.param(instances(as_text), ["59 of 59", "'spot_id'", "int64", "same type"], id="34-ids-of-text"),
    pytest.param(instances(unknown), ["59 of 59", "not in 'spots'", "'z0'"], id="35-unknown-ids"),
    pytest.param(first("z"), ["1 of 59", "not in 'spots'", "'z'"], id="35-one-unknown-id"),
    pytest.param(region("spots", "other"), ["'spots'", "obs['region']", "'other'"], id="36-no-row-of-the-region"),
    pytest.param(first(1), ["same shape more than once", "'1'", "unique"], id="37-same-ids"),
    pytest.param(first(np.nan), ["1 of 59", "'nan'", "none missing"], id="37-missing-id"),
    pytest.param(instances(halves), ["59 of 59", "float64", "int64"], id="37-fractional-ids"),
    pytest.param(without("spot_id"), ["instance_key 'spot_id'", "TableModel.parse"], id="37-no-column-of-ids"),
    pytest.param(without("region"), ["region_key 'region'", "TableModel.parse"], id="37-no-column-of-regions"),
    pytest.param(filtered, ["is empty", "0 rows"], id="38-no-rows"),
    pytest.param(value(np.nan), ["X", "1 genes ('LYM1')", "1 spots", "nan", "layer="], id="39-nan-count"),
    pytest.param(value(np.inf), ["X", "1 genes ('LYM1')", "1 spots", "inf", "layer="], id="39-inf-count"),
    pytest.param(value(-1), ["X", "1 genes ('LYM1')", "1 spots", "-1", "layer="], id="39-negative-count"),
    pytest.param(no_counts, ["X is empty", "spots x genes"], id="40-no-counts"),
    pytest.param(no_genes, ["X is empty", "spots x genes"], id="40-no-genes"),
    pytest.param(text_counts, ["X", "type <U", "expected counts"], id="40-counts-of-text"),
    pytest.param(logged, ["not counts", "log-transformed", "layer="], id="41-log-transformed"),
]


@pytest.mark.parametrize(("change", "holds"), TABLES)
def test_tables_without_counts_of_known_spots_are_refused(change, holds, sdata, refused) -> None:
    change(part(sdata))
    refused(sdata, lambda: sqi.tl.predict(sdata, "ridge"), BadInput, "table 'table'", *holds)


def test_36_a_region_that_is_not_there_is_named(sdata, refused) -> None:
    region("gone", "gone")(part(sdata))
    holds = ["table 'table'", "'gone'", "'spots'", "table_key=None"]
    refused(sdata, lambda: sqi.tl.predict(sdata, "ridge"), MissingKey, *holds)
    assert len(sqi.pp.crops(sdata, table_key=None)) == 59


def test_36_a_table_of_another_element_leaves_the_shapes_unmeasured(sdata, refused) -> None:
    sdata.shapes["other"] = sdata.shapes["spots"]
    refused(sdata, lambda: sqi.tl.fit(sdata, "ridge", shapes_key="other"), BadInput, "'P1'", "no table of counts")
    region("nuclei", "nuclei")(part(sdata))
    del sdata.shapes["other"]
    holds = ["1 of 59 values of 'spot_id'", "not in 'nuclei'"]
    refused(sdata, lambda: sqi.tl.predict(sdata, "ridge"), BadInput, *holds)


@pytest.mark.parametrize(
    ("genes", "error", "holds"),
    [
        pytest.param(["NUC1", "none"], MissingKey, ["1 of 2 genes", "'none'", "60 genes"], id="32-unknown-gene"),
        pytest.param(["NUC1", "nuc2", "Gld1"], MissingKey, ["2 of 3", "2 of them match ignoring case"], id="32-case"),
        pytest.param(["NUC1", "NUC1"], BadInput, ["more than once", "'NUC1'"], id="32-same-gene-twice"),
        pytest.param(["NUC1", 2], BadInput, ["'2'", "a int", "as text"], id="32-number-for-a-gene"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "fit"])
def test_genes_that_are_not_there_are_counted(genes, error, holds, verb, sdata, refused) -> None:
    refused(sdata, lambda: getattr(sqi.tl, verb)(sdata, "ridge", genes=genes), error, *holds)


def test_34_ids_of_the_same_value_but_another_type_of_number_are_the_same(sdata) -> None:
    before = Slide.from_sdata(sdata)
    sdata.tables["table"].obs["spot_id"] = sdata.tables["table"].obs["spot_id"].astype(float)
    assert Slide.from_sdata(sdata).fingerprint == before.fingerprint


# Scores -------------------------------------------------------------------------------------------


def test_42_genes_that_do_not_vary_are_counted_and_named_and_in_no_mean(predicted) -> None:
    from spatialdata import deepcopy

    sdata = deepcopy(predicted)
    genes, layers = list(sdata.tables["imputed"].var_names), sdata.tables["imputed"].layers
    layers["ridge"] = np.array(layers["ridge"])
    layers["ridge"][:, 1] = 2.0
    per_gene = sqi.tl.score(sdata, baselines=False).set_index("gene")
    row = sqi.tl.score(sdata, baselines=False, per="section").set_index("metric").loc["pearson"]
    assert np.isnan(per_gene.loc[genes[1], "pearson"])
    assert (row["n_nan"], row["nan_genes"]) == (1, genes[1])
    assert row["mean"] == pytest.approx(per_gene["pearson"].drop(genes[1]).mean())


@pytest.mark.parametrize(
    ("name", "n"),
    [
        pytest.param("table", 1, id="43-one-measured-spot"),
        pytest.param("imputed", 2, id="43-two-predicted-spots"),
    ],
)
def test_a_correlation_needs_spots(name, n, predicted, refused) -> None:
    from spatialdata import deepcopy

    sdata = deepcopy(predicted)
    table = sdata.tables[name]
    table._inplace_subset_obs(np.arange(len(table)) < n)
    holds = [f"{n} spots of shapes 'spots'", "'imputed'", "3 or more"]
    refused(sdata, lambda: sqi.tl.score(sdata), BadInput, *holds)


def test_44_genes_in_another_order_are_aligned_by_name(predicted) -> None:
    from spatialdata import deepcopy

    sdata = deepcopy(predicted)
    turned = sdata.tables["table"][:, ::-1].copy()
    assert list(turned.var_names) != list(sdata.tables["table"].var_names)
    del sdata.tables["table"]
    sdata.tables["table"] = turned
    before, after = (sqi.tl.score(one, baselines=False) for one in (predicted, sdata))
    pd.testing.assert_frame_equal(before, after)


def test_44_frames_whose_genes_differ_are_refused(refused) -> None:
    from sq_imputer.scores import metrics

    y = pd.DataFrame(np.random.default_rng(0).random((9, 2)), columns=["A", "B"])
    refused(None, lambda: metrics.pearson(y, y[["B", "A"]]), BadInput, "measured", "'A', 'B'", "'B', 'A'")
    assert metrics.pearson(y, y) == pytest.approx(1)


@pytest.fixture
def spoilt(predicted):
    """The section with predictions, to be spoilt in memory."""
    from spatialdata import deepcopy

    return deepcopy(predicted)


def test_genes_that_a_prediction_has_twice_are_not_drawn(spoilt, refused) -> None:
    table = spoilt.tables["imputed"]
    table.var_names = [table.var_names[1], *table.var_names[1:]]
    for draw in (lambda: sqi.pl.compare(spoilt, table.var_names[3]), lambda: sqi.pl.genes_correlation(spoilt)):
        refused(spoilt, draw, BadInput, "table 'imputed'", "duplicate genes", "var_names_make_unique")


def test_a_layer_that_was_deleted_is_no_prediction(spoilt, refused) -> None:
    del spoilt.tables["imputed"].layers["ridge"]
    refused(spoilt, lambda: sqi.tl.score(spoilt, baselines=False), MissingKey, "no prediction in tables['imputed']")


def test_embedding_an_image_of_one_color_is_warned_of(sdata, warned) -> None:
    for level in sdata.images["he"].values():
        level["image"].data = level["image"].data * 0
    warned(sdata, lambda: sqi.pp.embed(sdata, spec=sqi.CropSpec(80, 32)), "no tissue-like crop", "image 'he'")
