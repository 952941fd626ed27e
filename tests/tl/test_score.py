"""What `tl.score` compares with what, on which rows, and beside which baselines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import spatialdata
from defaults import SMALL_CROPS, with_defaults
from scipy.spatial.distance import cdist
from spatialdata.transformations import Scale, set_transformation

import sq_imputer as sqi
from sq_imputer.scores import metrics
from sq_imputer.section.slide import Slide
from sq_imputer.tl._baselines import BASELINES

QUICK = {"n_folds": 3, "buffer_um": 100.0}
METRICS = ["pearson", "pearson_given_depth", "spearman", "mse", "r2"]
COLUMNS = ["gene", "predictor", "section", *METRICS, "n_spots", "ceiling", "image_eps", "image_eps_given_depth"]


@pytest.fixture(autouse=True)
def small_ridge(monkeypatch):
    """The baseline sees one small crop, as the defaults take their time."""
    with_defaults(monkeypatch, "ridge", SMALL_CROPS)


@pytest.fixture
def predicted(section, spy, genes):
    """A section predicted out of fold."""
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    return section


def of(scores, predictor: str, column: str = "pearson") -> np.ndarray:
    return scores.loc[scores["predictor"] == predictor, column].to_numpy()


def test_every_gene_has_a_row_per_model_and_baseline(predicted, genes):
    scores = sqi.tl.score(predicted)
    assert list(scores.columns) == COLUMNS
    assert scores.groupby("predictor", sort=False)["gene"].apply(list).to_dict() == dict.fromkeys(
        ("spy", *BASELINES), genes
    )
    assert (scores["section"] == "P1").all() and (scores["n_spots"] == 59).all()


def test_the_ceiling_of_many_rows_is_that_of_a_sample_of_them(predicted, monkeypatch):
    whole = sqi.tl.score(predicted, baselines=False)
    monkeypatch.setattr("sq_imputer.tl._score.CEILING_ROWS", 40)
    some, again = (sqi.tl.score(predicted, baselines=False, seed=1) for _ in range(2))
    assert some["ceiling"].equals(again["ceiling"]) and (some["ceiling"] != whole["ceiling"]).any()
    assert some.drop(columns="ceiling").equals(whole.drop(columns="ceiling")) and (some["n_spots"] == 59).all()


def test_the_baseline_takes_an_image_coarser_than_its_crops(predicted, monkeypatch):
    with_defaults(monkeypatch, "ridge", {"extent_um": 20.0, "size_px": 160})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        scores = sqi.tl.score(predicted, per="section")
    assert np.isfinite(of(scores, "ridge on texture", "mean")).any()


def test_a_thumbnail_can_be_predicted_scored_and_drawn(section, spy, genes):
    from sq_imputer.pl import compare, domains

    for name in ("he", "spots"):
        set_transformation(section[name], Scale([30.0, 30.0], axes=("x", "y")), "um")
    sqi.tl.predict(section, "spy", genes=genes, **QUICK, config={"extent_um": 960.0})
    assert len(sqi.tl.score(section, baselines=False)) == len(genes)
    sqi.tl.domains(section, n_domains=2, method="kmeans", use="texture")
    compare(section, genes[0])
    domains(section)


def test_scores_are_the_metrics_of_the_layer_and_the_counts(predicted, genes):
    scores = sqi.tl.score(predicted, baselines=False, seed=4)
    slide = Slide.from_sdata(predicted).with_genes(genes)
    y, p = slide.expression, predicted.tables["imputed"].layers["spy"]
    for name, expected in {
        "pearson": metrics.pearson(y, p),
        "pearson_given_depth": metrics.pearson_given(y, p, slide.depth),
        "spearman": metrics.spearman(y, p),
        "mse": metrics.mse(y, p),
        "r2": metrics.r2(y, p),
        "ceiling": metrics.noise_ceiling(predicted.tables["table"][:, genes].X, slide.depth, seed=4),
    }.items():
        np.testing.assert_allclose(of(scores, "spy", name), expected, err_msg=name)


def test_scores_of_the_models_are_kept_in_var(predicted, genes):
    scores = sqi.tl.score(predicted)
    var = predicted.tables["imputed"].var
    assert set(var) == {"spy_constant", "spy_pearson", "spy_pearson_given_depth", "ceiling", *COLUMNS[-2:]}
    np.testing.assert_array_equal(var["spy_pearson"], of(scores, "spy"))
    np.testing.assert_array_equal(var["ceiling"], of(scores, "spy", "ceiling"))


def test_scores_are_kept_in_the_store(stored, spy, genes):
    sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    scores = sqi.tl.score(stored, baselines=False)
    read = spatialdata.read_zarr(stored.path)
    np.testing.assert_array_equal(read.tables["imputed"].var["spy_pearson"], of(scores, "spy"))
    again = sqi.tl.score(read, baselines=False)
    np.testing.assert_array_equal(of(again, "spy"), of(scores, "spy"))


def test_nothing_but_var_is_touched(predicted, digest):
    layers = {name: values.copy() for name, values in predicted.tables["imputed"].layers.items() if name}
    before = digest(predicted, ("imputed",))
    sqi.tl.score(predicted)
    assert digest(predicted, ("imputed",)) == before
    for name, values in layers.items():
        np.testing.assert_array_equal(predicted.tables["imputed"].layers[name], values)


# Baselines ----------------------------------------------------------------------------------------


def test_baselines_are_fitted_on_the_folds_of_the_model(predicted, genes, monkeypatch):
    from sq_imputer.scores import tables as scoring

    seen, table = {}, scoring.score_table
    monkeypatch.setattr(scoring, "score_table", lambda y, p, *args, **kw: seen.update(p) or table(y, p, *args, **kw))
    sqi.tl.score(predicted)
    slide = Slide.from_sdata(predicted).with_genes(genes)
    fold, y = predicted.tables["imputed"].obs["spy_fold"].to_numpy(), slide.expression
    for number in range(3):
        test = fold == number
        train = cdist(slide.xy_um, slide.xy_um[test]).min(axis=1) > 100.0 + 1e-6
        assert 10 <= train.sum() < (~test).sum()
        np.testing.assert_allclose(seen["mean"][test], np.tile(y[train].mean(axis=0), (test.sum(), 1)), rtol=1e-5)
        lines = [np.polyfit(np.log(slide.depth[train]), y[train, g], 1) for g in range(len(genes))]
        expected = np.column_stack([np.polyval(line, np.log(slide.depth[test])) for line in lines])
        np.testing.assert_allclose(seen["depth only"][test], expected, rtol=1e-4, atol=1e-5)
        ridge = sqi.get_model("ridge")().fit(slide.take(np.flatnonzero(train)))
        expected = ridge.predict(slide, rows=np.flatnonzero(test)).mean.numpy()
        np.testing.assert_allclose(seen["ridge on texture"][test], expected, rtol=1e-4, atol=1e-5)


def test_baselines_of_a_model_fitted_elsewhere_are_fitted_there(patients, spy, genes):
    target = patients.pop("P3")
    sqi.tl.predict(target, "spy", reference=patients, genes=genes)
    scores = sqi.tl.score(target, reference=patients)
    training = [Slide.from_sdata(sdata).with_genes(genes) for sdata in patients.values()]
    slide = Slide.from_sdata(target).with_genes(genes)
    y = np.concatenate([s.expression for s in training])
    depth = np.concatenate([s.depth for s in training])
    line = metrics.depth_only(y, depth, slide.depth)
    np.testing.assert_allclose(of(scores, "depth only", "mse"), metrics.mse(slide.expression, line), rtol=1e-5)
    mean = metrics.mean_only(y, len(slide))
    np.testing.assert_allclose(of(scores, "mean", "mse"), metrics.mse(slide.expression, mean), rtol=1e-5)
    assert np.isnan(of(scores, "mean")).all()  # a constant correlates with nothing
    sqi.tl.predict(target, "ridge", reference=patients, genes=genes)
    both = sqi.tl.score(target, reference=patients)
    np.testing.assert_allclose(of(both, "ridge"), of(both, "ridge on texture"), rtol=1e-4)


def test_baselines_need_the_sections_that_the_model_was_fitted_on(patients, spy, genes):
    target = patients.pop("P3")
    sqi.tl.predict(target, "spy", reference=patients, genes=genes)
    with pytest.raises(sqi.BadInput, match="fitted on sections 'P1', 'P2'; pass them as reference="):
        sqi.tl.score(target)
    with pytest.raises(sqi.BadInput, match="reference is 'P1', but 'spy' was fitted on other counts: 'P1', 'P2'"):
        sqi.tl.score(target, reference=patients["P1"])
    with pytest.raises(sqi.BadInput, match="other counts"):  # the section itself would make them unbeatable
        sqi.tl.score(target, reference=[target, patients["P2"]])
    assert set(sqi.tl.score(target, baselines=False)["predictor"]) == {"spy"}


def test_models_fitted_on_different_rows_have_no_baseline_in_common(patients, spy, genes):
    target = patients.pop("P3")
    sqi.tl.predict(target, "spy", genes=genes, layer_added="inside", **QUICK)
    sqi.tl.predict(target, "spy", reference=patients, genes=genes, layer_added="outside")
    with pytest.raises(sqi.BadInput, match="'inside' .out of fold. and 'outside' .fitted on reference.*models="):
        sqi.tl.score(target, reference=patients)
    assert set(sqi.tl.score(target, "inside")["predictor"]) == {"inside", *BASELINES}
    assert set(sqi.tl.score(target, ["outside"], reference=patients)["predictor"]) == {"outside", *BASELINES}
    assert set(sqi.tl.score(target, baselines=False)["predictor"]) == {"inside", "outside"}


def test_ridge_beats_the_mean_and_depth_on_genes_that_the_image_shows(wide, spy):
    sqi.tl.predict(wide, "spy", genes=["NUC1", "GLD1", "STR1"], **QUICK)
    scores = sqi.tl.score(wide).groupby("predictor")[["r2", "pearson_given_depth"]].mean()
    assert (scores.loc["ridge on texture"] > [0.1, 0.4]).all()
    assert scores.loc[["mean", "depth only"], "r2"].max() < 0.02


# Rows and genes -----------------------------------------------------------------------------------


def test_a_constant_gene_is_nan_counted_and_named(section, spy, genes):
    table = section.tables["table"]
    counts = table.X.toarray()
    counts[:, table.var_names == "GLD1"] = 0
    table.X = type(table.X)(counts)
    with pytest.warns(UserWarning, match="1 of 7 genes: 'GLD1'"):
        sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    scores = sqi.tl.score(section, baselines=False).set_index("gene")
    assert scores.loc["GLD1", ["pearson", "pearson_given_depth", "spearman", "r2"]].isna().all()
    assert scores.drop(index="GLD1")["pearson"].notna().all()
    summary = sqi.tl.score(section, baselines=False, per="section").set_index("metric")
    assert summary.loc["pearson", ["n_genes", "n_nan", "nan_genes"]].tolist() == [7, 1, "GLD1"]
    assert summary.loc["mse", "n_nan"] == 0
    assert np.isnan(section.tables["imputed"].var.loc["GLD1", "spy_pearson"])


def test_sections_have_a_mean_and_an_interval_over_blocks(predicted):
    scores, summary = sqi.tl.score(predicted), sqi.tl.score(predicted, per="section", seed=1)
    rows = summary.set_index(["predictor", "metric"])
    assert set(summary["predictor"]) == {"spy", *BASELINES}
    for predictor in ("spy", "ridge on texture"):
        for metric in ("pearson", "pearson_given_depth", "r2", "mse"):
            row = rows.loc[(predictor, metric)]
            assert row["mean"] == pytest.approx(of(scores, predictor, metric).mean(), rel=1e-4)
            assert row["low"] < row["high"] and row["n_units"] == 10
    again = sqi.tl.score(predicted, per="section", seed=1)
    assert again.equals(summary)


def test_only_spots_that_were_measured_and_have_counts_are_scored(partly, spy, genes):
    section, dropped = partly
    table = section.tables["table"]
    counts = table.X.toarray()
    counts[:2] = 0
    table.X = type(table.X)(counts)
    with pytest.warns(UserWarning, match="2 of .* rows of section 'P1' have no counts and are taken as not measured"):
        sqi.tl.predict(section, "spy", genes=genes, **QUICK)
        scores = sqi.tl.score(section)
    assert (scores["n_spots"] == 59 - len(dropped) - 2).all()
    assert not section.tables["imputed"].obs["measured"].to_numpy()[:2].any()


def test_spots_measured_since_are_scored_only_when_told(section, spy, genes):
    whole = section.tables["table"]
    section.tables["table"] = whole[10:].copy()
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    section.tables["table"] = whole
    assert (section.tables["imputed"].obs["spy_fold"][:10] == -1).all()
    with pytest.warns(UserWarning, match=r"10 of 59 spots of section 'P1' were not measured .*all_rows=True"):
        scores = sqi.tl.score(section)
    assert (scores["n_spots"] == 49).all()
    every = sqi.tl.score(section, all_rows=True)
    assert (every["n_spots"] == 59).all() and np.isfinite(every["mse"]).all()
    predicted = section.tables["imputed"]
    slide = Slide.from_sdata(section).with_genes(genes)
    np.testing.assert_allclose(
        of(scores, "spy", "mse"), metrics.mse(slide.expression[10:], predicted.layers["spy"][10:]), rtol=1e-5
    )


def test_a_table_that_was_sorted_or_filtered_is_scored_by_name(predicted):
    scores = sqi.tl.score(predicted)
    table = predicted.tables["imputed"]
    order = np.random.default_rng(0).permutation(len(table))
    predicted.tables["imputed"] = table[order].copy()
    again = sqi.tl.score(predicted)
    np.testing.assert_allclose(again["mse"], scores["mse"], rtol=1e-5)
    kept = np.sort(order[:40])
    predicted.tables["imputed"] = table[kept].copy()
    some = sqi.tl.score(predicted, baselines=False)
    slide = Slide.from_sdata(predicted).with_genes(list(table.var_names))
    np.testing.assert_allclose(some["mse"], metrics.mse(slide.expression[kept], table.layers["spy"][kept]), rtol=1e-5)
    assert (some["n_spots"] == 40).all()


def test_genes_that_were_not_measured_are_left_out(patients, spy, genes):
    target = patients.pop("P3")
    table = target.tables["table"]
    target.tables["table"] = table[:, table.var_names != "GLD1"].copy()
    sqi.tl.predict(target, "spy", reference=patients, genes=genes)
    assert sqi.tl.score(target, reference=patients)["gene"].nunique() == 6
    assert np.isnan(target.tables["imputed"].var.loc["GLD1", "spy_pearson"])


def test_counts_are_read_where_the_prediction_found_them(section, spy, genes):
    table = section.tables["table"]
    expected = sqi.tl.score(_predicted(spatialdata.deepcopy(section), genes), baselines=False)
    table.layers["counts"], table.X = table.X.copy(), table.X.log1p()
    found = sqi.tl.score(_predicted(section, genes, layer="counts"), baselines=False)
    np.testing.assert_array_equal(of(found, "spy"), of(expected, "spy"))


def _predicted(sdata, genes, **keys):
    sqi.tl.predict(sdata, "spy", genes=genes, **QUICK, **keys)
    return sdata


# Errors -------------------------------------------------------------------------------------------


def test_what_cannot_be_scored_is_named(section, spy, genes):
    with pytest.raises(sqi.MissingKey, match=r"no prediction in tables\['imputed'\]; sdata has 'table'"):
        sqi.tl.score(section)
    sqi.pp.embed(section, spec=sqi.CropSpec(100.0, 32))
    with pytest.raises(sqi.MissingKey, match=r"no prediction in tables\['table'\]"):
        sqi.tl.score(section, key="table")
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    with pytest.raises(sqi.MissingKey, match="no prediction 'stem' in .*; it has 'spy'"):
        sqi.tl.score(section, "stem")
    with pytest.raises(sqi.BadInput, match="per is 'spot'"):
        sqi.tl.score(section, per="spot")


def test_a_grid_cannot_be_scored(section, spy, genes):
    sqi.pp.grid(section, spacing_um=150)
    sqi.tl.predict(section, "spy", genes=genes, shapes_key="grid")
    with pytest.raises(sqi.BadInput, match="nothing was measured at shapes 'grid'"):
        sqi.tl.score(section)


def test_a_table_without_any_of_the_genes_cannot_be_scored(patients, spy):
    target = patients.pop("P3")
    table = target.tables["table"]
    target.tables["table"] = table[:, table.var_names != "GLD1"].copy()
    with pytest.warns(UserWarning, match="1 of 1 genes of the model are not in the table of section 'P3'"):
        sqi.tl.predict(target, "spy", reference=patients, genes=["GLD1"])
    with pytest.raises(sqi.BadInput, match="none of the 1 predicted genes is in table 'table'"):
        sqi.tl.score(target, reference=patients)


@pytest.mark.parametrize("unit", ["log1p_counts", "log2_counts"])
def test_the_ceiling_is_that_of_the_unit_that_was_predicted(section, spy, genes, unit):
    sqi.tl.predict(section, "spy", genes=genes, unit=unit, n_folds=3, buffer_um=50.0)
    scores = sqi.tl.score(section, baselines=False).set_index("gene")
    slide = Slide.from_sdata(section)
    counts = slide.counts.columns([slide.var_names.index(gene) for gene in genes])
    expected = metrics.noise_ceiling(counts, slide.depth, transform=lambda c, d: np.log1p(c))  # a factor changes no r
    np.testing.assert_allclose(scores.loc[genes, "ceiling"], expected, atol=1e-6)
    assert np.abs(expected - metrics.noise_ceiling(counts, slide.depth)).max() > 1e-3


def test_scores_that_may_not_be_kept_are_returned(predicted, genes, monkeypatch):
    def refuse(*args, **keys):
        raise sqi.StoreError("'store.zarr' cannot be written: Permission denied. Ask for permission.")

    monkeypatch.setattr("sq_imputer.store.write.put_layers", refuse)
    with pytest.warns(UserWarning, match="scores are returned, but not kept in var: 'store.zarr' cannot be written"):
        scores = sqi.tl.score(predicted, baselines=False)
    assert set(scores["gene"]) == set(genes)


def test_counts_filtered_since_are_said_and_the_measured_layer_is_scored(predicted, genes):
    before = of(sqi.tl.score(predicted, baselines=False), "spy")
    predicted.tables["table"] = predicted.tables["table"][:, genes].copy()
    with pytest.warns(UserWarning, match="counts of table 'table' have changed since the prediction"):
        after = of(sqi.tl.score(predicted, baselines=False), "spy")
    np.testing.assert_allclose(after, before, atol=1e-6)
