"""The numbers in the names of tests are those of what the method's specification says must hold."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import mclstexp
from sq_imputer.models.mclstexp import Config, Model

PLAN = sqi.Plan(device="cpu", progress=False)
GENES, PARTS = 15, 6  # genes, and the independent parts of the image that they follow
rng = np.random.default_rng(0)
MIX_IMAGE, MIX_GENES = rng.normal(size=(PARTS, 20)), rng.normal(size=(PARTS, GENES))


def config(**changes) -> Config:
    base = Config.small()
    form = {"context_um": (), "per_section": False, "dropout": 0.1, "weight_decay": 0.1, "calibration": 0, "epochs": 20}
    return replace(base, **{**form, **changes})


def planted(arrays, n: int, seed: int, **about):
    """A section whose features and expression follow the same hidden parts."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, PARTS))
    features = hidden @ MIX_IMAGE + 0.2 * rng.normal(size=(n, 20))
    expression = 3 + hidden @ MIX_GENES + 0.3 * rng.normal(size=(n, GENES))
    return arrays(expression, features=features, **about)


def shuffled(source, rows: np.ndarray):
    """The same section with its rows in another order."""
    parts = {name: getattr(source, name)[rows] for name in ("expression", "features", "measured", "xy_um")}
    return replace(source, **parts)


@pytest.fixture(scope="module")
def train(arrays):
    return [
        planted(arrays, 150, 1, section="A", group="P1"),
        planted(arrays, 120, 2, section="B", group="P2"),
    ]


@pytest.fixture(scope="module")
def test(arrays):
    return planted(arrays, 140, 3, section="C", group="P3")


@pytest.fixture(scope="module")
def fitted(train) -> Model:
    return Model(config()).fit(train, PLAN)


@pytest.fixture(scope="module")
def said(fitted, test):
    return fitted.predict(test, device="cpu")


def explained(said, truth: np.ndarray) -> float:
    return float(1 - ((said.mean.numpy() - truth) ** 2).mean() / truth.var(axis=0).mean())


def test_1_with_nothing_to_see_the_loss_is_that_of_guessing(fitted, test) -> None:
    batch = next(fitted.seen(test, 50))
    same = replace(batch, features=batch.features[:1].expand(50, -1))
    with torch.no_grad():
        blind = fitted.eval().loss(same)["contrastive"].item()
        assert fitted.loss(batch)["contrastive"].item() < 0.8 * math.log(50)
    assert blind >= math.log(50) - 1e-4  # equal images are told apart by no spot, and tell no spot apart


def test_2_the_trained_loss_is_below_chance_and_images_find_their_spots(fitted, test) -> None:
    assert fitted.history["loss"] < 0.8 * fitted.history["chance"]
    own, pool = fitted.recall(test, 10, device="cpu"), fitted.recall(test, 10, with_bank=True, device="cpu")
    assert own.chance == pytest.approx(10 / 140) and pool.chance == pytest.approx(10 / (140 + 270))
    assert own.share > 5 * own.chance and pool.share > 5 * pool.chance
    assert own.hits.shape == (140,) and own.share == own.hits.mean() and (own.hits >= pool.hits).all()


def test_2_images_of_other_spots_find_nothing(fitted, test) -> None:
    wrong = replace(test, features=np.random.default_rng(0).permutation(test.features))
    recall = fitted.recall(wrong, 10, device="cpu")
    assert recall.share < 2 * recall.chance


@pytest.mark.parametrize("form", [{}, {"l2_normalize": False, "temperature": 1.0, "attention_context": "batch"}])
def test_2_a_loss_at_chance_is_said(arrays, train, form) -> None:
    blank = [replace(source, features=np.ones_like(source.features)) for source in train]
    with pytest.warns(
        UserWarning, match=r"loss of mclstexp .* not below chance \(\d\.\d+\), on rows held out.*temperature=0.07"
    ):
        Model(config(epochs=2, **form)).fit(blank, PLAN)


def test_3_the_prediction_is_that_of_every_pair_sorted(fitted, said) -> None:
    keys, values = (part.numpy().astype(float) for part in (fitted.memory.keys, fitted.memory.values))
    v = said.embedding.numpy().astype(float)
    order = np.argsort(-(v / np.linalg.norm(v, axis=1)[:, None]) @ keys.T, axis=1, kind="stable")[:, : fitted.k]
    assert (said.neighbors.numpy() == order).mean() > 0.999  # the embedding was rounded to float32
    weight = 1 / (((v[:, None] - keys[order]) ** 2).sum(axis=2) + 1e-8)
    weight /= weight.sum(axis=1, keepdims=True)
    mean = (weight[..., None] * values[order]).sum(axis=1)
    squares = (weight**2).sum(axis=1, keepdims=True)
    spread = (weight[..., None] * (values[order] - mean[:, None]) ** 2).sum(axis=1) * (1 + squares) / (1 - squares)
    np.testing.assert_allclose(said.weights, weight, atol=1e-4)
    np.testing.assert_allclose(said.mean, mean, atol=1e-3)
    n, whole = 1 / squares, fitted.expression_std.numpy() ** 2  # which counts as five neighbors
    np.testing.assert_allclose(said.std, np.sqrt((n * spread + 5 * whole) / (n + 5)), atol=1e-3)


def test_3_weights_sum_to_one_and_the_prediction_stays_inside_the_bank(fitted, said) -> None:
    assert said.neighbors.shape == said.weights.shape == (140, fitted.k) and fitted.k == 27
    assert (said.weights >= 0).all()
    torch.testing.assert_close(said.weights.sum(dim=1), torch.ones(140))
    values = fitted.memory.values
    assert (said.mean >= values.min(dim=0).values).all() and (said.mean <= values.max(dim=0).values).all()


def refitted(train, **changes) -> Model:
    return Model(config(epochs=2, **changes)).fit(train, PLAN)


def test_3_one_neighbor_is_returned_as_it_is(train, test) -> None:
    model = refitted(train, k=1)
    said = model.predict(test, device="cpu")
    assert torch.equal(said.mean, model.memory.values[said.neighbors[:, 0]])
    assert (said.weights == 1).all()
    everything = ((model.memory.values.var(dim=0) + 5 * model.expression_std**2) / 6).sqrt()
    torch.testing.assert_close(said.std, everything.expand_as(said.std))


def test_3_all_rows_equally_near_give_the_mean_of_the_bank(train, test) -> None:
    model = refitted(train, k=270)
    model.memory.keys[:] = model.memory.keys[0].clone()
    said = model.predict(test, device="cpu")
    torch.testing.assert_close(said.weights, torch.full_like(said.weights, 1 / 270))
    torch.testing.assert_close(said.mean, model.memory.values.mean(dim=0).expand_as(said.mean))


def test_3_more_neighbors_than_rows_are_padded(train, test) -> None:
    said, all_of_them = (refitted(train, k=k).predict(test, device="cpu") for k in (300, 270))
    assert said.neighbors.shape == (140, 300)
    assert (said.neighbors[:, 270:] == -1).all() and (said.weights[:, 270:] == 0).all()
    assert (said.neighbors[:, :270] >= 0).all()
    torch.testing.assert_close(said.mean, all_of_them.mean)


def test_4_the_prediction_sees_neither_expression_nor_place(fitted, said, test) -> None:
    other = replace(test, expression=np.random.default_rng(0).normal(size=(140, GENES)), xy_um=test.xy_um[::-1] * 7 + 3)
    for source in (other, replace(test, expression=None)):
        again = fitted.predict(source, device="cpu")
        assert torch.equal(again.mean, said.mean) and torch.equal(again.neighbors, said.neighbors)


def test_4_the_bank_holds_the_measured_training_rows_and_no_others(train, arrays) -> None:
    measured = np.arange(150) % 3 > 0
    partly = replace(train[0], measured=measured)
    model = Model(config(epochs=1)).fit([partly, train[1]], PLAN)
    bank = model.bank()
    assert bank["section"].tolist() == ["A"] * 100 + ["B"] * 120
    assert bank["patient"].tolist() == ["P1"] * 100 + ["P2"] * 120
    assert bank["spot"].tolist() == [f"A-{row}" for row in np.flatnonzero(measured)] + [
        f"B-{row}" for row in range(120)
    ]
    xy = np.concatenate([partly.xy_um[measured], train[1].xy_um])
    np.testing.assert_allclose(np.column_stack([bank["x_um"], bank["y_um"]]), xy)
    held = np.concatenate([partly.expression[measured], train[1].expression])
    np.testing.assert_array_equal(model.memory.values, held)  # in the unit of the source: the axis defect is not here


def test_5_keys_do_not_depend_on_the_order_of_rows_or_sections(fitted, train, test) -> None:
    rows = np.random.default_rng(0).permutation(150)
    keys = fitted.keys(train[0])
    assert torch.equal(fitted.memory.keys[:150], keys)
    assert torch.equal(fitted.keys(shuffled(train[0], rows)), keys[torch.from_numpy(rows)])
    assert torch.equal(fitted.keys(train[1]), fitted.memory.keys[150:])


def test_5_a_large_section_attends_in_parts_in_any_order(fitted, train, monkeypatch) -> None:
    whole, sizes, spots = fitted.keys(train[0]), [], Model.spots
    monkeypatch.setattr(mclstexp, "MOST_ATTENDING", 40)
    monkeypatch.setattr(Model, "spots", lambda self, x, cells: sizes.append(len(x)) or spots(self, x, cells))
    rows = np.random.default_rng(0).permutation(150)
    keys = fitted.keys(train[0])
    assert max(sizes) <= 40 and sum(sizes) == 150
    assert torch.equal(fitted.keys(shuffled(train[0], rows)), keys[torch.from_numpy(rows)])
    assert (keys * whole).sum(dim=1).mean() > 0.9  # much the same as in the whole section


def test_5_the_prediction_does_not_depend_on_the_order_of_the_bank(fitted, said, test) -> None:
    order = torch.randperm(270, generator=torch.Generator().manual_seed(0))
    state = fitted.state_dict()
    turned = {f"memory.{name}": state[f"memory.{name}"][order] for name in ("keys", "values", "section")}
    other = Model(fitted.config)
    other.genes, other.unit, other.sizes = fitted.genes, fitted.unit, fitted.sizes
    other._register_statistics()
    other.build()
    other.load_state_dict(state | turned)
    again = other.predict(test, device="cpu")
    assert torch.equal(order[again.neighbors], said.neighbors)
    torch.testing.assert_close(again.mean, said.mean)


@pytest.mark.parametrize("position", ["none", "sinusoid", "learned"])
def test_6_every_kind_of_position_trains(train, test, position) -> None:
    model = Model(config(position=position, epochs=12)).fit(train, PLAN)
    assert explained(model.predict(test, device="cpu"), test.expression) > 0.4
    moved = replace(train[0], xy_um=train[0].xy_um[::-1])
    assert torch.allclose(model.keys(train[0]), model.keys(moved), atol=1e-5) == (position == "none")


def test_6_positions_count_from_the_corner_of_the_section(fitted, train) -> None:
    assert fitted.step.tolist() == [100, 100] and (fitted.sizes["grid_x"], fitted.sizes["grid_y"]) == (15, 10)
    elsewhere = replace(train[0], xy_um=train[0].xy_um + [5000.0, -300.0])
    assert torch.equal(fitted.keys(elsewhere), fitted.keys(train[0]))


@pytest.mark.filterwarnings("ignore:the loss of mclstexp")
def test_6_cells_are_those_of_the_array_where_every_table_has_it(toy_slides) -> None:
    small = replace(Config.small(), epochs=1, calibration=0)
    slides = toy_slides[:2]
    fitted = Model(small).fit(slides, PLAN)
    assert fitted.sizes["array"] and fitted.step.tolist() == [1, 1]
    array = slides[0].array[slides[0].measured]
    assert [fitted.sizes["grid_x"], fitted.sizes["grid_y"]] >= (np.ptp(array, axis=0) + 1).tolist()
    turned = replace(slides[0], centers_px=slides[0].centers_px[:, ::-1].copy())
    assert torch.allclose(fitted.keys(turned), fitted.keys(slides[0]), atol=1e-5)  # wherever the image was laid
    without = Model(small).fit([slides[0], replace(slides[1], array=None)], PLAN)
    assert not without.sizes["array"] and without.step.min() > 1


def test_7_the_bank_is_saved_with_the_model(fitted, said, test, tmp_path) -> None:
    fitted.save(tmp_path)
    loaded = sqi.load(tmp_path)
    again = loaded.predict(test, device="cpu")
    assert torch.equal(again.mean, said.mean) and torch.equal(again.neighbors, said.neighbors)
    assert loaded.genes == fitted.genes and torch.equal(loaded.memory.values, fitted.memory.values)
    for name, column in fitted.bank().items():
        assert np.array_equal(loaded.bank()[name], column)


def test_it_predicts_what_the_image_shows(said, test, fitted) -> None:
    assert explained(said, test.expression) > 0.5
    inside = np.abs(said.mean.numpy() - test.expression) < 1.96 * said.std.numpy()
    assert 0.8 < inside.mean() < 1


def test_shuffled_images_predict_nothing(fitted, test) -> None:
    wrong = replace(test, features=np.random.default_rng(0).permutation(test.features))
    mean = fitted.predict(wrong, device="cpu").mean.numpy()
    r = [np.corrcoef(mean[:, gene], test.expression[:, gene])[0, 1] for gene in range(GENES)]
    assert abs(np.mean(r)) < 0.1


def test_shuffled_spots_teach_nothing(train, test) -> None:
    rng = np.random.default_rng(0)
    blind = [replace(source, expression=rng.permutation(source.expression)) for source in train]
    with pytest.warns(UserWarning, match="not below chance"):
        model = Model(config(epochs=5)).fit(blind, PLAN)
    mean = model.predict(test, device="cpu").mean.numpy()
    r = [np.corrcoef(mean[:, gene], test.expression[:, gene])[0, 1] for gene in range(GENES)]
    assert abs(np.mean(r)) < 0.1


def test_a_row_is_asked_about_by_itself(fitted, said, test) -> None:
    for size in (1, 3):
        again = fitted.predict(test, rows=np.arange(9), batch_size=size, device="cpu")
        assert torch.equal(again.neighbors, said.neighbors[:9])
        torch.testing.assert_close(again.mean, said.mean[:9])


def test_the_number_of_neighbors_is_a_tenth_of_the_rows_up_to_fifty() -> None:
    model = Model()
    for rows, k in ((4, 1), (270, 27), (900, 50)):
        model.sizes = {"rows": rows}
        assert model.k == k
    assert Model(Config(k=7)).k == 7


def test_training_keeps_no_copies_of_the_bank(train, monkeypatch) -> None:
    held, fit = [], mclstexp.Predictor.optimize
    monkeypatch.setattr(
        mclstexp.Predictor, "optimize", lambda self, *a: held.extend(self.state_dict()) or fit(self, *a)
    )
    model = refitted(train)
    assert held and not [name for name in held if name.startswith("memory")]
    assert "memory.keys" in model.state_dict()


def test_batches_are_of_one_section_unless_asked(train, monkeypatch) -> None:
    seen, loss = [], Model.loss
    monkeypatch.setattr(
        Model, "loss", lambda self, b: seen.append(len(b.section.unique()) if self.training else 1) or loss(self, b)
    )
    refitted(train)
    assert set(seen) == {1}
    refitted(train, attention_context="batch")
    assert 2 in seen


def test_a_config_that_makes_no_sense_is_an_error() -> None:
    for changes in ({"position": "polar"}, {"attention_context": "patient"}, {"k": 0}, {"temperature": 0.0}):
        with pytest.raises(sqi.errors.BadInput, match=f"mclstexp.Config.{next(iter(changes))} is"):
            Config(**changes)


def test_recall_needs_the_genes_of_the_model(fitted, test) -> None:
    for source in (replace(test, expression=None), replace(test, genes=("X",)), replace(test, unit="log1p_counts")):
        with pytest.raises(sqi.errors.BadInput, match="with_genes"):
            fitted.recall(source)
    with pytest.raises(sqi.errors.BadInput, match="not fitted"):
        Model().bank()


# The paper's form ---------------------------------------------------------------------------------


def test_the_papers_form_on_features_learns(train, test) -> None:
    """Vectors of any length, temperature 1, positions of variance 1, random batches, 200 neighbors."""
    form = replace(Config.paper(), backbone="", context_um=(), per_section=False, lr=1e-3, epochs=45)
    model = Model(form).fit(train, PLAN)
    said = model.predict(test, device="cpu")
    assert model.mixes_sections and said.neighbors.shape == (140, 200)
    assert said.embedding.norm(dim=1).min() > 2
    assert explained(said, test.expression) > 0
    assert model.recall(test, 10, device="cpu").share > 3 * 10 / 140


def pixels(arrays, n: int, seed: int, **about):
    """Crops of one color each, redder where both genes are higher."""
    rng = np.random.default_rng(seed)
    red = rng.integers(0, 256, n)
    crops = np.full((n, 3, 32, 32), 120, dtype=np.uint8)
    crops[:, 0] = red[:, None, None]
    expression = red[:, None] / 100 + 0.05 * rng.normal(size=(n, 2))
    return arrays(expression, crops=crops, **about)


@pytest.fixture
def timm():
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"a backbone needs timm, which does not import here: {error}")
    return timm


END_TO_END = Config(
    backbone="densenet121", weights="", size_px=32, width=16, heads=2, head_width=8, k=3, weight_decay=1e-3, epochs=2
)


def test_without_timm_a_backbone_says_what_to_do(arrays, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(sqi.errors.BadInput, match=r"'densenet121' needs timm.*pip install.*leave backbone empty"):
        Model(END_TO_END).fit(pixels(arrays, 12, 0), PLAN)


def test_a_backbone_asks_for_pixels_and_nothing_else() -> None:
    assert Model(Config.paper()).needs == sqi.Needs(sqi.CropSpec(154.0, 224))


def test_a_backbone_is_trained_end_to_end_saved_and_loaded_without_a_download(
    timm, arrays, monkeypatch, tmp_path
) -> None:
    source, test = pixels(arrays, 96, 0), pixels(arrays, 40, 1, section="B")
    form = replace(END_TO_END, validation=0.0, lr=1e-3, batch_size=48, epochs=8)
    model = Model(form).fit(source, PLAN)
    said = model.predict(test, device="cpu")
    assert explained(said, test.expression) > 0.3
    assert isinstance(model.trunk.features.norm5.act, torch.nn.Identity)
    model.save(tmp_path)
    monkeypatch.setattr(mclstexp, "initial_weights", None)  # would be called for a download
    assert torch.equal(sqi.load(tmp_path).predict(test, device="cpu").mean, said.mean)
    one = model.predict(test, rows=np.array([3]), device="cpu")
    torch.testing.assert_close(one.embedding, said.embedding[[3]], rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:the loss of mclstexp")  # one epoch is too short to learn
def test_a_backbone_starts_from_a_local_file_and_every_layer_of_it_learns(timm, arrays, monkeypatch, tmp_path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    published = timm.create_model("densenet121", pretrained=False)
    save_file({name: value.contiguous() for name, value in published.state_dict().items()}, tmp_path / "d.safetensors")
    started, optimize = {}, mclstexp.Predictor.optimize

    def watch(self, *a):
        started.update({name: value.clone() for name, value in self.trunk.named_parameters()})
        optimize(self, *a)

    monkeypatch.setattr(mclstexp.Predictor, "optimize", watch)
    form = replace(END_TO_END, weights=str(tmp_path / "d.safetensors"), validation=0.0, epochs=1, weight_decay=0.0)
    model = Model(form).fit(pixels(arrays, 24, 0), PLAN)
    assert torch.equal(started["features.conv0.weight"], published.features.conv0.weight)
    assert not [name for name, value in model.trunk.named_parameters() if torch.equal(value, started[name])]


@pytest.mark.filterwarnings("ignore:the loss of mclstexp")  # one epoch is too short to learn
def test_crops_are_turned_in_training_alone(timm, arrays, monkeypatch) -> None:
    calls, turned = [], mclstexp.turned
    monkeypatch.setattr(mclstexp, "turned", lambda crops: calls.append(len(crops)) or turned(crops))
    model = Model(replace(END_TO_END, validation=0.0, epochs=1, calibration=0)).fit(pixels(arrays, 12, 0), PLAN)
    assert calls == [12]
    model.predict(pixels(arrays, 5, 1), device="cpu")
    assert calls == [12]
