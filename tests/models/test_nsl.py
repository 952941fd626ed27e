"""NSL. The numbers in the names are those of the method's acceptance list."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import nsl

# Optical density of two stains, unit vectors in red, green and blue; not the ones that the model starts from.
STAINS = np.array([[0.55, 0.76, 0.35], [0.21, 0.90, 0.38]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def stained(n: int, seed: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Crops by Beer and Lambert's law, `(n, 3, side, side)`, and the mean amounts of the two stains, `(n, 2)`."""
    rng = np.random.default_rng(seed)
    level = rng.uniform([0.1, 0.2], [0.6, 0.7], size=(n, 2))
    amount = rng.gamma(4, level[:, None] / 4, size=(n, side * side, 2))
    light = 256 * 10 ** -(amount @ STAINS) - 1
    crops = light.round().clip(0, 255).astype(np.uint8)
    return crops.swapaxes(1, 2).reshape(n, 3, side, side), amount.mean(axis=1)


SLOPES = np.array([[3.0, 0.0], [0.0, 3.0], [2.0, -2.0], [2.0, 2.0]])  # genes x stains


@pytest.fixture(scope="module")
def slide():
    """Crops, and four genes that are lines in the mean amounts of the stains, with noise."""
    crops, amount = stained(220, seed=0)
    expression = 2 + amount @ SLOPES.T
    return crops, expression + 0.1 * np.random.default_rng(1).normal(size=expression.shape)


@pytest.fixture
def source(slide, arrays):
    return arrays(slide[1], crops=slide[0])


@pytest.fixture(scope="module")
def trained(slide, arrays):
    """NSL fitted on the slide, once for this file."""
    plan = sqi.Plan(device="cpu", progress=False)
    return nsl.Model(nsl.Config(size_px=12, epochs=150, lr=3e-2)).fit(arrays(slide[1], crops=slide[0]), plan)


def built(n_genes: int, **config) -> nsl.Model:
    """A model with its first weights, for standardized targets."""
    model = nsl.Model(nsl.Config(size_px=12, **config))
    model.genes, model.sizes = tuple(f"G{g}" for g in range(n_genes)), {"rows": 9, "features": 0}
    model._register_statistics()
    model.expression_std.fill_(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.build()
    return model.eval()


def untrained(n_genes: int = 3, **config) -> nsl.Model:
    """A model with weights of no particular meaning, for targets in units of their own."""
    model, generator = built(n_genes, **config), torch.Generator().manual_seed(0)
    model.expression_mean.copy_(torch.arange(n_genes) + 1.0)
    model.expression_std.copy_(torch.arange(n_genes) + 0.5)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator)
    return model


def said(model: nsl.Model, crops: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.predict_step(sqi.Batch(torch.arange(len(crops)), crops=crops)).mean


def noise(n: int = 8, side: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


# 1 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_genes", [1, 2, 7])
def test_1_a_gene_has_exactly_11_weights(n_genes) -> None:
    model = untrained(n_genes)
    assert model.n_parameters_per_gene == 11
    assert sum(weight.numel() for weight in model.parameters()) == 11 * n_genes


def test_1_with_shared_stains_8_weights_serve_all_genes() -> None:
    model = untrained(5, shared=True)
    assert model.n_parameters_per_gene == 3
    assert sum(weight.numel() for weight in model.parameters()) == 8 + 3 * 5
    assert said(model, noise()).shape == (8, 5)


def test_1_genes_do_not_share_weights() -> None:
    model, crops = untrained(3), noise()
    before = said(model, crops)
    for weight in model.parameters():
        weight.data[1] += 1
    moved = (said(model, crops) - before).abs().amax(dim=0) > 0
    assert moved.tolist() == [False, True, False]


# 2 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("move", ["pixels permuted", "flipped", "rotated"])
def test_2_the_place_of_a_pixel_does_not_matter(activation, move) -> None:
    model, crops = untrained(activation=activation), noise()
    order = torch.randperm(144, generator=torch.Generator().manual_seed(1))
    moved = {
        "pixels permuted": crops.flatten(2)[:, :, order].reshape(crops.shape),
        "flipped": crops.flip(-1),
        "rotated": crops.rot90(1, (-2, -1)),
    }[move]
    assert not torch.equal(moved, crops)
    torch.testing.assert_close(said(model, moved), said(model, crops), rtol=1e-5, atol=1e-5)


def test_2_the_color_of_a_pixel_does() -> None:
    model, crops = untrained(), noise()
    assert (said(model, crops.flip(1)) - said(model, crops)).abs().min() > 1e-3


# 3 ------------------------------------------------------------------------------------------------


def test_3_on_a_beer_lambert_slide_fresh_crops_are_predicted(trained, arrays) -> None:
    crops, amount = stained(120, seed=5)
    truth = 2 + amount @ SLOPES.T
    mean = trained.predict(arrays(None, crops=crops), device="cpu").mean.numpy()
    for gene in range(4):
        assert np.corrcoef(mean[:, gene], truth[:, gene])[0, 1] > 0.99
        assert ((mean[:, gene] - truth[:, gene]) ** 2).mean() < 0.01 * truth[:, gene].var()


def test_3_the_color_that_a_gene_follows_is_that_of_its_stains(trained) -> None:
    """Within the plane of the slide's colors: what lies across it never occurs, and cannot be learned."""
    crops, _ = stained(50, seed=6)
    density = nsl.optical_density(torch.from_numpy(crops)).mean(dim=-1).requires_grad_()
    trained.eval()
    amount = trained.stains(density[..., None])[..., 0]  # (B, G, 2)
    response = (amount * trained.slope).sum(dim=-1).mean(dim=0)
    learned = torch.stack([torch.autograd.grad(r, density, retain_graph=True)[0].sum(dim=0) for r in response]).numpy()
    plane = np.linalg.qr(STAINS.T)[0]
    true = SLOPES @ np.linalg.pinv(STAINS.T)  # genes x colors
    a, b = learned @ plane, true @ plane
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert np.degrees(np.arccos(cosine)).max() < 5


# 4 ------------------------------------------------------------------------------------------------


def least_squares(crops: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    density = nsl.optical_density(torch.from_numpy(crops)).double().mean(dim=-1).numpy()
    design = np.column_stack([density, np.ones(len(density))])
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    return weights, design @ weights


def test_4_the_identity_variant_is_linear_in_the_mean_density() -> None:
    model, crops = untrained(3, activation="identity"), noise(40)
    mean = said(model, crops).double().numpy()
    _, fitted = least_squares(crops.numpy(), mean)
    np.testing.assert_allclose(fitted, mean, atol=1e-5)


def test_4_the_identity_variant_trained_to_the_end_is_least_squares(monkeypatch) -> None:
    """All rows at once, in float64, by L-BFGS from the model's own start: the loss has no other minimum."""
    density = nsl.optical_density
    monkeypatch.setattr(nsl, "optical_density", lambda crops: density(crops).double())
    rng = np.random.default_rng(0)
    crops = rng.integers(0, rng.integers(20, 256, size=(100, 3, 1, 1)), size=(100, 3, 12, 12), dtype=np.uint8)
    y = rng.normal(size=(100, 2))
    model = built(2, activation="identity").double()
    batch = sqi.Batch(torch.arange(100), crops=torch.from_numpy(crops), expression=torch.from_numpy(y))
    steps = torch.optim.LBFGS(
        model.parameters(), max_iter=1000, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        steps.zero_grad()
        total = model.loss(batch)["mse"]
        total.backward()
        return total

    steps.step(loss)
    np.testing.assert_allclose(said(model, batch.crops).numpy(), least_squares(crops, y)[1], rtol=0, atol=1e-6)


def test_4_with_relu_it_is_not() -> None:
    crops = noise(40)
    mean = said(untrained(3), crops).double().numpy()
    assert np.abs(least_squares(crops.numpy(), mean)[1] - mean).max() > 1e-3


# 5 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_5_gradient_reaches_the_matrix_of_every_gene(shared) -> None:
    model = untrained(3, shared=shared)
    batch = sqi.Batch(torch.arange(8), crops=noise(), expression=torch.zeros(8, 3))
    sum(model.loss(batch).values()).backward()
    assert model.unmix.grad.flatten(1).norm(dim=1).min() > 0
    assert model.unmix_bias.grad.norm() > 0


def test_5_a_learned_matrix_fits_better_than_a_frozen_one(source) -> None:
    class Frozen(nsl.Model):
        def build(self) -> None:
            super().build()
            self.unmix.requires_grad_(False)

    config, plan = nsl.Config(size_px=12, epochs=40, lr=3e-2), sqi.Plan(device="cpu", progress=False)
    learned, frozen = (model(config).fit(source, plan) for model in (nsl.Model, Frozen))
    assert not torch.equal(learned.unmix, frozen.unmix)
    assert learned.history["train"][-1] < frozen.history["train"][-1]


# 6 ------------------------------------------------------------------------------------------------


def test_6_optical_density_is_0_where_white_and_finite_where_black() -> None:
    crops = torch.stack([torch.full((3, 2, 2), value, dtype=torch.uint8) for value in (255, 127, 0)])
    density = nsl.optical_density(crops)
    assert density.shape == (3, 3, 4)
    torch.testing.assert_close(density[:, 0, 0], torch.tensor([0, np.log10(2), np.log10(256)], dtype=torch.float32))


@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_6_a_white_crop_is_offset_plus_slope_times_activated_bias(activation) -> None:
    model = untrained(4, activation=activation)
    bias = model.unmix_bias.relu() if activation == "relu" else model.unmix_bias
    standardized = model.offset + (model.slope * bias).sum(dim=1)
    white = torch.full((2, 3, 12, 12), 255, dtype=torch.uint8)
    expected = (model.expression_mean + model.expression_std * standardized).detach()
    torch.testing.assert_close(said(model, white), expected.expand(2, 4))
    if activation == "relu":
        assert (model.unmix_bias < 0).any()


# 7 ------------------------------------------------------------------------------------------------


def test_7_module_and_card_say_that_the_division_of_the_weights_is_inferred() -> None:
    words = " ".join(nsl.__doc__.split())
    assert "how the 11 weights are divided is inferred" in words and "not claimed to be reproduced" in words
    assert "11 trainable weights" in nsl.Model.card.established
    assert "6 + 2 + 2 + 1" in nsl.Model.card.ours and "inferred" in nsl.Model.card.ours
    assert nsl.Model.card.doi == "10.1007/978-3-030-93733-1_32" and nsl.Model.card.doi in nsl.Model.card.citation


# The rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"activation": "identity"}, {"shared": True}])
def test_the_mean_of_the_pixel_map_is_the_prediction(config) -> None:
    model, crops = untrained(3, **config), noise()
    with torch.no_grad():
        pixels = model.pixel_map(crops)
    assert pixels.shape == (8, 3, 12, 12)
    torch.testing.assert_close(pixels.mean(dim=(2, 3)), said(model, crops), rtol=1e-5, atol=1e-4)


def test_a_pixel_of_the_map_depends_on_that_pixel_alone() -> None:
    model, crops = untrained(2), noise(1)
    changed = crops.clone()
    changed[0, :, 4, 7] = 255 - changed[0, :, 4, 7]
    with torch.no_grad():
        moved = (model.pixel_map(changed) - model.pixel_map(crops)).abs()[0]
    assert moved[:, 4, 7].max() > 0
    moved[:, 4, 7] = 0
    assert moved.max() == 0


def test_it_starts_from_hematoxylin_and_eosin() -> None:
    model = built(1)
    amounts = model.unmix[0] @ torch.tensor(nsl.HEMATOXYLIN_EOSIN).T
    torch.testing.assert_close(amounts, torch.eye(2), rtol=0, atol=0.08)


def test_stain_vectors_are_the_colors_that_the_matrix_unmixes() -> None:
    model = untrained(3)
    colors = torch.nn.functional.normalize(torch.tensor(nsl.HEMATOXYLIN_EOSIN), dim=-1)
    with torch.no_grad():
        model.unmix[:] = torch.linalg.pinv(colors.T)
    vectors = model.stain_vectors()
    assert vectors.shape == (3, 2, 3) and not vectors.requires_grad
    torch.testing.assert_close(vectors, colors.expand(3, 2, 3))


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(sqi.BadInput, match=r"activation is 'gelu'; expected one of 'relu', 'identity'"):
        nsl.Config(activation="gelu")
