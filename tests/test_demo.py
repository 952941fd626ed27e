"""The demo, run once: what it leaves in its folder, and that it finds what was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer._demo import MODELS, SHOWN, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "made"


@pytest.fixture(scope="module")
def summary(folder):
    return run(folder).set_index("predictor")


@pytest.fixture(scope="module")
def scores(summary, folder):
    return pd.read_csv(folder / "score.csv")


def test_it_leaves_three_results(summary, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["prediction.png", "score.csv", "section.zarr"]


def test_every_predictor_has_a_score_for_every_gene(scores):
    predictors = [*MODELS, "mean", "depth only", "ridge on texture"]
    assert scores["predictor"].unique().tolist() == predictors
    assert scores.groupby("predictor")["gene"].nunique().eq(30).all() and len(scores) == 30 * len(predictors)
    assert {"pearson", "pearson_given_depth", "spearman", "mse", "r2", "n_spots", "ceiling"} < set(scores)
    assert (scores["section"] == "P3").all()


def test_genes_that_the_image_shows_are_found_and_the_others_are_not(scores):
    kind = scores["gene"].str.rstrip("0123456789")
    found = scores.groupby([kind, "predictor"])[["pearson", "r2"]].mean()
    for model in ("mlp", "ridge"):
        assert (found.loc[[("NUC", model), ("GLD", model), ("STR", model)], "pearson"] > 0.5).all()
        assert abs(found.loc[("IND", model), "pearson"]) < 0.15
    assert (found.loc[[("NUC", "nsl"), ("STR", "nsl")], "pearson"] > 0.4).all()  # glands have no color of their own
    assert found.xs("depth only", level="predictor")["pearson"].abs().max() < 0.1


def test_models_on_texture_beat_color_and_color_beats_the_mean(scores):
    r2 = scores.groupby("predictor")["r2"].mean()
    assert min(r2["mlp"], r2["ridge"]) > r2["nsl"] > max(r2["mean"], r2["depth only"])


def test_the_summary_has_means_of_the_scores_and_intervals(summary, scores):
    pearson = summary[summary["metric"] == "pearson"]
    assert list(pearson.index) == [*MODELS, "mean", "depth only", "ridge on texture"]
    means = scores.groupby("predictor")["pearson"].mean()
    for name in MODELS:
        assert pearson.loc[name, "mean"] == pytest.approx(means[name], rel=1e-4)
        assert pearson.loc[name, "low"] < pearson.loc[name, "high"]


def test_the_picture_shows_a_row_per_gene(summary, folder):
    from matplotlib.image import imread

    height, width, _ = imread(folder / "prediction.png").shape
    assert min(height, width) > 300 * len(SHOWN)
    assert imread(folder / "prediction.png")[..., :3].std() > 0.05


def test_the_store_holds_the_prediction_at_spots_and_between_them(summary, folder):
    sdata = spatialdata.read_zarr(folder / "section.zarr")
    spots, between = sdata.tables["imputed"], sdata.tables["imputed_grid"]
    assert len(spots) == len(sdata.shapes["spots"]) and len(between) == len(sdata.shapes["grid"]) > len(spots)
    for table in (spots, between):
        assert set(MODELS) <= set(table.layers) and table.n_vars == 30
        assert all(np.isfinite(table.layers[name]).all() for name in MODELS)
    assert np.isfinite(spots.layers["measured"]).all() and np.isnan(between.layers["measured"]).all()
    assert list(spots.uns["sq_imputer"]["ridge"]["training_sections"]) == ["P1", "P2"]


def test_it_does_not_write_over_what_is_there(summary, folder):
    with pytest.raises(sqi.BadInput, match="exists already; pass --overwrite"):
        run(folder)
