"""Maps on tissue whose truth is known, the sums that they keep, and tests of faithfulness that can fail."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer import explain
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.pixels.crops import Crops
from sq_imputer.pixels.pyramid import Pyramid
from sq_imputer.section.slide import Slide

GENES = ("NUC1", "NUC2", "STR1", "GLD1", "HK1")
PLAN = sqi.Plan(progress=False, device="cpu", seed=1)


@pytest.fixture(scope="module")
def tissue():
    """Two toy sections; crops of 24 spots of the second, and the share of nuclei in their pixels."""
    sections = sqi.datasets.toy(1, sections_per_patient=2, size_px=880, mpp=1.25, seed=7)
    train, test = (Slide.from_sdata(sdata, section=name).with_genes(GENES) for name, sdata in sections.items())
    config = sqi.get_model("nsl").Config(size_px=28)
    model = sqi.get_model("nsl")(config).fit(train, PLAN)
    rows = np.arange(0, len(test), 4)[:24]
    views = torch.from_numpy(test.crops(model.needs.crop)[rows])[:, None]
    truth = 255 * (sections["P1_2"].labels["nuclei"].data > 0).astype(np.uint8)
    drawn = Pyramid((da.stack([truth] * 3),))
    nuclei = Crops(drawn, test.centers_px[rows], model.needs.crop, mpp=1.25)[:][:, 0] / 255
    color = views.float().mean(dim=(0, 1, 3, 4)).round().byte()
    return SimpleNamespace(train=train, test=test, rows=rows, model=model, views=views, nuclei=nuclei, color=color)


@pytest.fixture(scope="module")
def ridge(tissue):
    return sqi.get_model("ridge")(sqi.get_model("ridge").Config.small()).fit(tissue.train, PLAN)


def auroc(maps: torch.Tensor, nuclei: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    share = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(nuclei), maps.shape[-1])
    return roc_auc_score((share > 0.5).flatten(), maps.flatten())


def difference(sight: explain.Sight, views: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    return sight(views) - sight(color.view(1, 1, 3, 1, 1).expand(1, *views.shape[1:]))


def views_of(slide: Slide, model, rows) -> torch.Tensor:
    return torch.from_numpy(np.stack([slide.crops(view)[rows] for view in model.needs.views], axis=1))


@pytest.mark.parametrize("method", explain.MAPS)
def test_the_map_of_a_nuclei_gene_falls_on_nuclei(tissue, method):
    sight = explain.Sight.of(tissue.model, ["NUC1"])
    maps = explain.attribute(sight, tissue.views, tissue.color, method, grid=14)
    assert auroc(maps[:, 0], tissue.nuclei) >= 0.9


@pytest.mark.parametrize("method", explain.MAPS)
def test_a_model_that_was_not_trained_finds_no_nuclei(tissue, method):
    sight = explain.Sight.of(tissue.model, ["NUC1"]).with_random(12, seed=0)
    maps = explain.attribute(sight, tissue.views[:6], tissue.color, method, grid=7)
    assert np.mean([auroc(maps[:, k], tissue.nuclei[:6]) for k in range(12)]) < 0.7


def test_a_sight_says_what_the_predictor_says(tissue, ridge):
    for model in (tissue.model, ridge):
        moments = tissue.test.moments(model.needs) if model.needs.per_section else None
        sight = explain.Sight.of(model, ["STR1", "NUC1"], moments)
        said = model.predict(tissue.test, rows=tissue.rows[:4]).mean[:, [2, 0]]
        # texture sees what surrounds a crop, too, where it reads the section: a crop alone is mirrored at its borders
        near = 1e-4 if model is tissue.model else 0.25
        torch.testing.assert_close(sight(views_of(tissue.test, model, tissue.rows[:4])), said, rtol=1e-4, atol=near)


def test_integrated_gradients_are_complete(tissue):
    sight = explain.Sight.of(tissue.model, ["NUC1", "STR1"])
    maps = explain.attribute(sight, tissue.views, tissue.color, "integrated_gradients")
    expected = difference(sight, tissue.views, tissue.color)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), expected, rtol=0, atol=3e-3)
    coarse = explain.attribute(sight, tissue.views, tissue.color, "input_x_gradient").mean(dim=(2, 3))
    assert (coarse - expected).abs().max() > 0.02


def test_stains_are_exact_and_what_integrated_gradients_approach(tissue):
    sight = explain.Sight.of(tissue.model, ["NUC1", "STR1"])
    maps = explain.attribute(sight, tissue.views, tissue.color, "stains")
    expected = difference(sight, tissue.views, tissue.color)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), expected, rtol=0, atol=1e-5)
    near = explain.attribute(sight, tissue.views, tissue.color, "integrated_gradients", nodes=64)
    assert np.corrcoef(maps.flatten(), near.flatten())[0, 1] > 0.9999


def test_occlusion_of_a_model_that_adds_pixels_up_is_the_exact_map_in_cells(tissue):
    sight = explain.Sight.of(tissue.model, ["NUC1"])
    maps = explain.attribute(sight, tissue.views[:4], tissue.color, "occlusion", grid=7)
    exact = explain.attribute(sight, tissue.views[:4], tissue.color, "stains")
    expected = torch.nn.functional.adaptive_avg_pool2d(exact, 7)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-3)


def test_a_cell_is_covered_in_every_view(ridge):
    sight = explain.Sight.of(ridge, ["NUC1"])
    shape = (1, 2, 3, 64, 64)  # 150 and 300 um
    cells = torch.zeros(1, 4, 4, dtype=torch.bool)
    cells[0, 0, 1] = True
    shown = sight.cover(torch.zeros(shape, dtype=torch.uint8), cells, torch.tensor([9, 8, 7], dtype=torch.uint8))[0]
    first, second = (np.argwhere(view[0].numpy() == 9) for view in shown)
    assert first.min(axis=0).tolist() == [0, 16] and first.max(axis=0).tolist() == [15, 31]
    assert second.min(axis=0).tolist() == [16, 24] and second.max(axis=0).tolist() == [23, 31]
    assert len(first) == 256 and len(second) == 64 and shown[0, :, 0, 16].tolist() == [9, 8, 7]


def test_contributions_of_feature_groups_sum_to_the_prediction(tissue, ridge):
    batch = next(iter(ridge.seen(tissue.test, 12, rows=tissue.rows[:12])))
    parts, groups = explain.feature_groups(ridge, batch.features, ["NUC1", "GLD1"])
    said = ridge.predict(tissue.test, rows=batch.index.numpy()).mean[:, [0, 3]]
    torch.testing.assert_close(parts.sum(dim=1), said - ridge.expression_mean[[0, 3]], rtol=0, atol=1e-5)
    assert len(groups) == len(set(groups)) == parts.shape[1] and {um for um, _ in groups} == {150.0, 300.0}
    assert ("nuc" in {name for _, name in groups}) and parts[:, groups.index((150.0, "nuc"))].abs().max() > 0


def test_a_feature_group_has_the_features_of_its_view_alone(tissue, ridge):
    from sq_imputer.encoders.texture import FEATURES

    features = ridge.mapped_mean.clone()[None]
    features[0, len(FEATURES) + FEATURES.index("od_r_mean")] += 2
    parts, groups = explain.feature_groups(ridge, features, ["NUC1"])
    expected = 2 * ridge.weight[len(FEATURES) + FEATURES.index("od_r_mean"), 0]
    assert parts[0, groups.index((300.0, "od")), 0] == pytest.approx(float(expected), rel=1e-4)
    assert np.count_nonzero(parts) == 1


@pytest.mark.parametrize("method", ["stains", "input_x_gradient"])
def test_maps_of_a_model_are_faithful_to_it(tissue, method):
    found = explain.faithfulness(
        explain.Sight.of(tissue.model, ["NUC1", "STR1"]), tissue.views[:8], tissue.color, method, grid=7
    )
    assert (found["gain"] > 0.005).all() and (found["random_weights"] < explain.MOST_ALIKE).all()
    assert found["faithful"].all()
    assert (found["deletion"] < found["deletion_random"]).all() and (
        found["insertion"] > found["insertion_random"]
    ).all()


def test_a_map_that_says_nothing_gains_nothing_and_its_opposite_loses(tissue):
    sight = explain.Sight.of(tissue.model, ["NUC1"])
    std = np.ones(1)
    noise = torch.rand(24, 1, 49, generator=torch.Generator().manual_seed(3))
    maps = torch.nn.functional.adaptive_avg_pool2d(
        explain.attribute(sight, tissue.views, tissue.color, "stains"), 7
    ).flatten(2)
    gain = [explain.areas(sight, tissue.views, tissue.color, m, std)["gain"][0] for m in (maps, noise, -maps)]
    assert gain[0] > 5 * abs(gain[1]) and gain[2] < -5 * abs(gain[1])


def test_a_map_that_does_not_depend_on_the_weights_is_not_faithful(tissue, monkeypatch):
    def darkness(sight, views, baseline, method, **how):
        return -views[:, 0].float().mean(dim=1, keepdim=True).expand(-1, len(sight.models), -1, -1)

    monkeypatch.setattr(explain, "attribute", darkness)
    sight = explain.Sight.of(tissue.model, ["NUC1"])
    found = explain.faithfulness(sight, tissue.views[:6], tissue.color, "stains")
    assert found["gain"][0] > 0 and found["random_weights"][0] == pytest.approx(1) and not found["faithful"][0]


def test_tests_are_repeatable(tissue):
    sight = explain.Sight.of(tissue.model, ["NUC1"])
    first, second = (explain.faithfulness(sight, tissue.views[:4], tissue.color, "stains", seed=2) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_weights_drawn_at_random_leave_the_model_as_it_was(tissue, ridge):
    for model in (tissue.model, ridge):
        before = model.sha256
        copies = explain.Sight.of(model).with_random(2).models
        assert model.sha256 == before and len({before, *(copy.sha256 for copy in copies)}) == 3
        assert all(torch.equal(copy.expression_mean, model.expression_mean) for copy in copies)


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    a, b = np.random.default_rng(0).normal(size=(2, 1, 30)).round(1)
    assert explain.rank_correlation(a, b)[0] == pytest.approx(spearmanr(a[0], b[0]).statistic)
    assert explain.rank_correlation(a, np.ones((1, 30)))[0] == 0


@pytest.mark.filterwarnings("ignore:the loss of mclstexp is")
def test_methods_are_those_that_the_model_serves(tissue, ridge):
    assert explain.available(tissue.model) == ("stains", "occlusion", "input_x_gradient", "integrated_gradients")
    assert explain.available(ridge) == ("occlusion", "feature_groups")
    small = sqi.get_model("mclstexp").Config.small()
    retrieves = sqi.get_model("mclstexp")(small).fit(tissue.train, replace(PLAN, epochs=3, calibration=0))
    assert explain.available(retrieves) == ("neighbors", "occlusion")
    with pytest.raises(
        BadInput, match=r"'stains' does not explain 'mclstexp'; these do: \['occlusion'\].*tl.retrieved"
    ):
        explain.check_method(retrieves, "stains")


@pytest.mark.filterwarnings("ignore:the loss of mclstexp is")
def test_gradients_of_a_model_that_retrieves_are_not_offered(tissue, monkeypatch):
    """From pixels to weights of neighbors all is differentiable; which neighbors there are is not."""
    from sq_imputer.models import mclstexp

    def pooled(name):
        trunk = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
        trunk.num_features = 12
        return trunk

    monkeypatch.setattr(mclstexp, "trunk", pooled)
    config = replace(mclstexp.Config.small(), backbone="pooled", weights="", epochs=2)
    model = mclstexp.Model(config).fit(tissue.train.take(np.arange(40)), PLAN)
    views = views_of(tissue.test, model, tissue.rows[:1]).float().requires_grad_()
    assert torch.autograd.grad(explain.Sight.of(model)(views).sum(), views)[0].abs().max() > 0
    assert explain.available(model) == ("neighbors", "occlusion")
    with pytest.raises(
        BadInput, match=r"'integrated_gradients' does not explain 'mclstexp'; these do: \['occlusion'\]"
    ):
        explain.check_method(model, "integrated_gradients")


def test_what_cannot_be_explained_is_an_error(tissue, ridge):
    with pytest.raises(BadInput, match="'integrated_gradients' does not explain 'ridge'; these do: .'occlusion'."):
        explain.check_method(ridge, "integrated_gradients")
    with pytest.raises(MissingKey, match="no gene 'nope'; 'nsl' predicts"):
        explain.Sight.of(tissue.model, ["nope"])
    with pytest.raises(BadInput, match="not fitted"):
        explain.Sight.of(sqi.get_model("nsl")())
    with pytest.raises(BadInput, match="1 to 28 cells"):
        explain.attribute(explain.Sight.of(tissue.model), tissue.views, tissue.color, "occlusion", grid=29)
    with pytest.raises(BadInput, match="'feature_groups' does not explain 'nsl'"):
        explain.feature_groups(tissue.model, torch.zeros(1, 4))


@pytest.fixture
def means(monkeypatch):
    """Views of an encoder that is linear in the pixels, and so has gradients."""
    from sq_imputer import encoders

    class Means(encoders.Encoder):
        def encode(self, crops):
            return crops.float().mean(dim=(2, 3))

    card = encoders.EncoderCard("means", 3, 32, 1.0, (0, 0, 0), (1, 1, 1), "BSD-3", True, False, "", any_size=True)
    monkeypatch.setattr("sq_imputer.encoders._registered", {})
    encoders.register_encoder(card, lambda card, weights, revision: Means(card, {"name": "means"}))
    return {"encoders": ("means",), "extent_um": 100.0, "size_px": 32, "context_um": (200.0,), "per_section": False}


@pytest.mark.filterwarnings("ignore:the loss of mclstexp is")
def test_integrated_gradients_are_complete_for_every_model_that_offers_them(tissue, means):
    offered = []
    for name in sqi.list_models():
        config = sqi.get_model(name).Config.small()
        if hasattr(config, "tokens") or hasattr(config, "length"):  # sees more than a crop, or DNA
            continue
        views = {field: value for field, value in (means | {"context_um": ()}).items() if hasattr(config, field)}
        model = sqi.get_model(name)(replace(config, **views)).fit(
            tissue.train.take(np.arange(60)), replace(PLAN, epochs=3, calibration=0)
        )
        if "integrated_gradients" not in explain.available(model):
            continue
        offered.append(name)
        sight = explain.Sight.of(model, ["NUC1", "STR1"])
        seen = views_of(tissue.test, model, tissue.rows[:3])
        maps = explain.attribute(sight, seen, tissue.color, "integrated_gradients", nodes=64)
        expected = difference(sight, seen, tissue.color)
        torch.testing.assert_close(maps.mean(dim=(2, 3)), expected, rtol=0.02, atol=0.01, msg=lambda m: f"{name}: {m}")  # noqa: B023
    assert {"nsl", "ridge", "mlp"} <= set(offered) and "mclstexp" not in offered


def test_gradients_of_all_views_add_up_where_they_overlap(tissue, means):
    """For a model that is linear in the pixels of a crop and of a wider context, occlusion and gradients agree."""
    model = sqi.get_model("ridge")(sqi.get_model("ridge").Config(**means)).fit(tissue.train, PLAN)
    assert "integrated_gradients" in explain.available(model)
    sight, views = explain.Sight.of(model, ["NUC1", "STR1"]), views_of(tissue.test, model, tissue.rows[:3])
    cells = explain.attribute(sight, views, tissue.color, "occlusion", grid=4)
    for method in explain.GRADIENTS:
        pixels = explain.attribute(sight, views, tissue.color, method)
        pooled = torch.nn.functional.adaptive_avg_pool2d(pixels, 4)
        torch.testing.assert_close(pooled, cells, rtol=1e-3, atol=2e-3)
