"""Several partitions of one section: what is said in each is put together, and recorded."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.contract import Prediction
from sq_imputer.io import pythonic
from sq_imputer.runs.repeated import once, together
from sq_imputer.scores.splits import spatial_blocks

HOW = {"n_folds": 3, "buffer_um": 50.0}
N, G = 4000, 2


def said(seed: int, std: float = 1.0, **more) -> Prediction:
    mean = torch.randn(N, G, generator=torch.Generator().manual_seed(seed))
    return Prediction(mean, torch.full((N, G), std), **more)


def test_means_are_averaged_and_their_spread_belongs_to_the_deviation():
    one = together([said(0, 1.0), said(1, 2.0)], None)
    means = torch.stack([said(0).mean, said(1).mean])
    torch.testing.assert_close(one.mean, means.mean(dim=0))
    torch.testing.assert_close(one.std.square(), 2.5 + (means[0] - means[1]).square() / 4)


def test_the_deviation_has_the_size_of_the_errors_and_borders_nowhere():
    noise = torch.randn(N, G, generator=torch.Generator().manual_seed(9)) * torch.tensor([0.5, 2.0])
    parts = [said(0), said(1), said(2)]
    truth = torch.stack([part.mean for part in parts]).mean(dim=0) + noise
    truth[: N // 3] += 10  # a block that all models miss
    one, by_itself = together(parts, truth.numpy()), together(parts, None)
    z2 = ((one.mean - truth) / one.std).square().mean(dim=0)
    torch.testing.assert_close(z2, torch.ones(G), rtol=0.02, atol=0)
    shape = one.std.square() - by_itself.std.square() * (
        one.std.square().std(dim=0) / by_itself.std.square().std(dim=0)
    )
    assert (shape.std(dim=0) < 1e-2 * one.std.square().mean(dim=0)).all()  # affine in what the models say, everywhere


def test_samples_come_from_every_partition_and_are_as_many_as_of_one():
    parts = [said(k, samples=torch.full((N, 5, G), float(k))) for k in range(3)]
    one = together(parts, None)
    np.testing.assert_allclose(one.samples[7, :, 0], [0, 1, 2, 0, 1], atol=1e-5)


def test_a_neighbor_of_several_partitions_is_named_once():
    neighbors, weights = once(torch.tensor([[4, 2, -1, 2, 9, -1]]), torch.tensor([[0.3, 0.2, 0.0, 0.2, 0.3, 0.0]]))
    assert neighbors.tolist()[0] == [2, 4, 9, -1, -1, -1]
    np.testing.assert_allclose(weights[0], [0.4, 0.3, 0.3, 0, 0, 0])


def test_every_partition_is_out_of_fold_and_the_mean_of_what_one_would_say(partly, spy, genes, capsys):
    partly, _ = partly
    sqi.tl.predict(partly, "spy", genes=genes, n_repeats=2, **HOW)
    assert (
        "2 partitions into 3 blocks: 7 models are fitted, which takes about 2 times as long" in capsys.readouterr().err
    )
    table = partly.tables["imputed"]
    folds, measured = table.obsm["spy_folds"], table.obs["measured"].to_numpy()
    xy = table.obsm["spatial"]
    assert (folds[~measured] == -1).all() and (~measured).any()
    np.testing.assert_array_equal(table.obs["spy_fold"], folds[:, 0])
    for turn in range(2):
        np.testing.assert_array_equal(folds[measured, turn], spatial_blocks(xy[measured], 3, turn=turn))
    seen = [{tuple(place) for place in fit.xy_um.round(3)} for fit in spy.fits]
    asked = [(turn, number) for turn in range(2) for number in range(3)]
    for (turn, number), rows in zip(asked, seen, strict=False):
        assert not rows & {tuple(place) for place in xy[folds[:, turn] == number].round(3)}
    record = pythonic(table.uns["sq_imputer"]["spy"])
    assert (record["n_folds"], record["n_repeats"], record["how"]) == (3, 2, "out of fold, mean of 2 partitions")
    assert len(record["weights_sha256"]) == 7
    twice = table.layers["spy"]
    sqi.tl.predict(partly, "spy", genes=genes, layer_added="first", **HOW)
    first = partly.tables["imputed"].layers["first"]
    np.testing.assert_array_equal(twice[~measured], first[~measured])  # by one model, fitted on all that was measured
    assert (twice[measured] != first[measured]).any()
    sqi.tl.predict(partly, "spy", genes=genes, overwrite=True, **HOW)
    table = partly.tables["imputed"]
    np.testing.assert_array_equal(table.layers["spy"], first)
    assert (table.obsm["spy_folds"] == -1).all()  # what is no longer so
    assert pythonic(table.uns["sq_imputer"]["spy"])["n_repeats"] == 1


def test_baselines_are_means_over_the_same_partitions(section, spy, genes, small_ridge):
    sqi.tl.predict(section, "spy", genes=genes, n_repeats=2, **HOW)
    own = sqi.tl.score(section).set_index("predictor").loc["mean"]
    assert own["mse"].notna().all()
    sqi.tl.predict(section, "spy", genes=genes, layer_added="once", **HOW)
    with pytest.raises(sqi.BadInput, match="were not fitted on the same rows"):
        sqi.tl.score(section)
    one = sqi.tl.score(section, "once").set_index("predictor").loc["mean"]
    assert (own["mse"].to_numpy() != one["mse"].to_numpy()).all()


def test_neighbors_of_all_partitions_make_the_prediction(partly, recalls, genes):
    partly, _ = partly
    sqi.tl.predict(partly, "recalls", genes=genes, n_repeats=2, **HOW)
    table = partly.tables["imputed"]
    weights = table.obsm["recalls_neighbor_weights"]
    assert weights.shape[1] == 8
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    found = sqi.tl.retrieved(partly, layer="recalls")
    assert not found.duplicated(["spot", "reference_spot"]).any()
    values = dict(zip(table.obs_names, table.layers["measured"], strict=True))
    spot = table.obs_names[table.obs["measured"]][3]
    mine = found[found["spot"] == spot]
    made = sum(w * values[name] for w, name in zip(mine["weight"], mine["reference_spot"], strict=True))
    np.testing.assert_allclose(table[spot].layers["recalls"][0], made, atol=1e-4)


def test_domains_are_not_warned_of_and_compared_with_the_folds_they_agree_with_most(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, n_repeats=2, **HOW)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sqi.tl.domains(section, n_domains=3, method="kmeans")
    table = section.tables["imputed"]
    table.obs["domain"] = pd.Categorical(table.obsm["spy_folds"][:, 1].astype(str))
    found = sqi.tl.agreement(section, n_random=3).set_index("predictor")
    assert found.loc["domain", "ari_folds"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("how", "message"), [({}, "nothing here is predicted in blocks"), ({"n_repeats": 0}, "n_repeats")]
)
def test_partitions_of_what_is_not_predicted_in_blocks_are_an_error(section, wide, spy, genes, how, message):
    with pytest.raises(sqi.BadInput, match=message):
        sqi.tl.predict(wide, "spy", reference=section, genes=genes, **{"n_repeats": 2, **how})


def test_a_run_of_several_partitions_goes_on_where_it_was_killed(section, spy, genes, tmp_path):
    section.write(tmp_path / "section.zarr")
    how = {"genes": genes, "n_repeats": 2, "resume": True, **HOW}
    fit, calls = spy.optimize, []

    def stopped(self, sources, plan):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        fit(self, sources, plan)

    spy.optimize = stopped
    with pytest.raises(KeyboardInterrupt):
        sqi.tl.predict(section, "spy", **how)
    spy.optimize = fit
    before = len(spy.fits)
    sqi.tl.predict(section, "spy", **how)
    assert (before, len(spy.fits)) == (4, 6)
    resumed = section.tables["imputed"].layers["spy"].copy()
    sqi.tl.predict(section, "spy", genes=genes, n_repeats=2, overwrite=True, **HOW)
    np.testing.assert_array_equal(section.tables["imputed"].layers["spy"], resumed)
