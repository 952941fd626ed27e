"""Tables of scores: every gene present, NaN named, intervals over independent units."""

from __future__ import annotations

import numpy as np
import pytest

from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.scores import metrics
from sq_imputer.scores import tables as scoring

GENES = [f"g{i}" for i in range(5)]


@pytest.fixture
def case():
    """Two sections of 60 spots; gene g4 is constant in section B, and three spots were not measured."""
    rng = np.random.default_rng(0)
    depth = rng.lognormal(7, 0.5, size=120)
    measured = rng.normal(size=(120, 5)) + np.log(depth)[:, None]
    section = np.repeat(["A", "B"], 60)
    measured[section == "B", 4] = 0
    measured[[1, 2, 90]] = np.nan
    good = np.nan_to_num(measured) + 0.3 * rng.normal(size=measured.shape)
    mean = metrics.mean_only(np.nan_to_num(measured), 120)
    return {"measured": measured, "predicted": {"good": good, "mean": mean}, "depth": depth, "section": section}


def table_of(case, **more):
    return scoring.score_table(
        case["measured"], case["predicted"], GENES, depth=case["depth"], section=case["section"], **more
    )


def test_every_gene_has_a_row_per_predictor_and_section(case):
    table = table_of(case)
    assert list(table.columns) == ["gene", "predictor", "section", *scoring.METRICS, "n_spots"]
    assert len(table) == 5 * 2 * 2
    assert table.groupby("section")["n_spots"].first().to_dict() == {"A": 58, "B": 59}


def test_scores_are_those_of_the_measured_spots_of_the_section(case):
    rows = (case["section"] == "A") & ~np.isnan(case["measured"][:, 0])
    y, p, depth = case["measured"][rows], case["predicted"]["good"][rows], case["depth"][rows]
    part = table_of(case).query("predictor == 'good' and section == 'A'")
    assert part["gene"].tolist() == GENES
    expected = [metrics.pearson(y, p), metrics.pearson_given(y, p, depth), metrics.spearman(y, p), metrics.mse(y, p)]
    for name, values in zip(scoring.METRICS, [*expected, metrics.r2(y, p)], strict=False):
        np.testing.assert_allclose(part[name], values)


def test_blocks_of_genes_do_not_change_the_table(case, monkeypatch):
    whole = table_of(case)
    monkeypatch.setattr(metrics, "_AT_ONCE", 120)
    assert len(metrics.gene_blocks(60, 5)) == 3
    np.testing.assert_array_equal(table_of(case)["pearson"], whole["pearson"])


def test_the_ceiling_column_is_the_noise_ceiling_of_each_section(case):
    counts = np.random.default_rng(0).poisson(5, size=(120, 5))
    case["depth"] = np.full(120, 1000)
    table = table_of(case, counts=counts, seed=4)
    rows = (case["section"] == "B") & ~np.isnan(case["measured"][:, 0])
    part = table.query("predictor == 'mean' and section == 'B'")
    np.testing.assert_array_equal(part["ceiling"], metrics.noise_ceiling(counts[rows], case["depth"][rows], seed=4))


def test_aggregate_counts_and_names_every_gene_without_a_score(case):
    summary = scoring.aggregate(table_of(case)).set_index(["predictor", "metric"])
    row = summary.loc[("good", "pearson")]
    assert (row["n_genes"], row["n_nan"], row["nan_genes"]) == (5, 1, "g4")
    assert summary.loc[("mean", "pearson"), "n_nan"] == 5
    assert np.isnan(summary.loc[("mean", "pearson"), "mean"])
    assert summary.loc[("good", "mse"), "n_nan"] == 0


def test_aggregate_averages_genes_within_sections_and_then_sections(case):
    table = table_of(case)
    units = table.query("predictor == 'good'").groupby("section")["pearson"].mean()
    row = scoring.aggregate(table, seed=1).query("predictor == 'good' and metric == 'pearson'").iloc[0]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(metrics.bootstrap_mean(units, seed=1))
    assert row["n_units"] == 2


def test_one_section_has_a_mean_and_no_interval(case):
    row = scoring.aggregate(table_of(case).query("section == 'A'")).iloc[0]
    assert row["n_units"] == 1
    assert np.isfinite(row["mean"]) and np.isnan(row["low"]) and np.isnan(row["high"])


def test_top_takes_the_first_genes_of_the_order_given(case):
    table = table_of(case)
    row = scoring.aggregate(table, genes=["g3", "g1", "g0"], top=2).iloc[0]
    expected = table.query("predictor == 'good' and gene in ['g1', 'g3']").groupby("section")["pearson"].mean().mean()
    assert row["mean"] == pytest.approx(expected)
    assert row["n_genes"] == 2


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (BadInput, {"top": 50}, "top=50 and genes is not given"),
        (BadInput, {"top": 3, "genes": ["g0", "g1"]}, "genes holds 2"),
        (MissingKey, {"genes": ["g0", "ESR1"]}, "no scores of 'ESR1'"),
        (MissingKey, {"by": "patient"}, "no column 'patient'"),
    ],
)
def test_aggregate_refuses_what_the_table_does_not_hold(case, error, options, message):
    with pytest.raises(error, match=message):
        scoring.aggregate(table_of(case), **options)


def one_section(n_blocks=25, per_block=16, n_genes=8, seed=0):
    """Spots of a block share most of their error, as neighbors do."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(n_blocks), per_block)
    shared = rng.normal(size=(2, n_blocks, n_genes))[:, blocks]
    y, noise = shared + 0.3 * rng.normal(size=shared.shape)
    return y, 0.5 * y + noise, rng.lognormal(7, 0.4, size=len(blocks)), blocks


def test_block_means_are_the_scores_of_the_section():
    y, p, depth, blocks = one_section()
    y[:, 3] = 2.0
    names = [f"g{i}" for i in range(8)]
    summary = scoring.aggregate_blocks(y, {"m": p}, names, depth=depth, blocks=blocks).set_index("metric")
    expected = scoring.aggregate(scoring.score_table(y, {"m": p}, names, depth=depth)).set_index("metric")
    for metric in ("pearson", "pearson_given_depth", "mse", "r2"):
        assert summary.loc[metric, "mean"] == pytest.approx(expected.loc[metric, "mean"], abs=1e-10)
        assert summary.loc[metric, "nan_genes"] == expected.loc[metric, "nan_genes"]


def test_a_block_draw_is_the_score_of_the_pooled_spots():
    y, p, depth, blocks = one_section(n_blocks=4)
    weights = np.array([[1, 1, 1, 1], [2, 0, 1, 1]])
    drawn = np.concatenate([np.flatnonzero(blocks == block) for block in (0, 0, 2, 3)])
    scores = scoring._resampled(y, p, np.log(depth), blocks, weights)
    expected = {
        "pearson": metrics.pearson(y[drawn], p[drawn]),
        "pearson_given_depth": metrics.pearson_given(y[drawn], p[drawn], depth[drawn]),
        "mse": metrics.mse(y[drawn], p[drawn]),
        "r2": metrics.r2(y[drawn], p[drawn]),
    }
    for name, values in expected.items():
        assert scores[name][0][1] == pytest.approx(values.mean(), abs=1e-10)


def test_blocks_give_a_wider_interval_than_spots_taken_for_independent():
    y, p, depth, blocks = one_section()
    names = [f"g{i}" for i in range(8)]

    def width(labels):
        row = scoring.aggregate_blocks(y, {"m": p}, names, depth=depth, blocks=labels).iloc[0]
        assert row["low"] < row["mean"] < row["high"]
        return row["high"] - row["low"]

    assert width(blocks) > 2 * width(np.arange(len(blocks)))


def test_a_prediction_that_is_missing_where_measured_is_an_error(case):
    case["predicted"]["good"][[60, 61, 90]] = np.nan  # 90 was not measured
    with pytest.raises(BadInput, match="'good' in section 'B' is missing at 2 of 59 measured spots"):
        table_of(case)


def test_nothing_to_score_is_an_error(case):
    case["measured"][3:60] = np.nan
    with pytest.raises(BadInput, match="section 'A' has 1 measured spots"):
        table_of(case)
    case["measured"][:] = np.nan
    with pytest.raises(BadInput, match="none of the 120 spots"):
        table_of(case)
