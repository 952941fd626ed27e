"""DKAN; V1 to V7 are the list of what must hold of it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer import GeneKnowledge
from sq_imputer.contract import WholeSlide
from sq_imputer.models import dkan
from sq_imputer.nn.transformer import Attention
from sq_imputer.scores.metrics import pearson

PLAN = sqi.Plan(device="cpu", progress=False, seed=1)
ROWS, GROUPS, EACH = 80, 4, 6  # genes of a group share their function: they follow one number of the image
GENES = tuple(f"F{group}-{k}" for group in range(GROUPS) for k in range(EACH))


def config(**changes) -> dkan.Config:
    base = replace(
        dkan.Config.small(), context_um=(), per_section=False, width=32, epochs=40, batch_size=ROWS, validation=0.0
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def around(arrays):
    """Makes sections whose expression follows from the image by four functions, with all that DKAN asks to see."""

    class Around(arrays):
        def moments(self, needs, *, device="auto", tokens=False):
            return super().moments(needs)

        def _batch(self, index):
            batch = super()._batch(index)
            if not hasattr(self, "slide"):
                places = torch.from_numpy((self.xy_um / 100).astype(np.int64))
                self.slide = WholeSlide(torch.from_numpy(self.features), places)
            seen = {"tokens": self.parts[index], "neighbors": self.tiles[index], "inside": self.lies[index]}
            batch = replace(batch, **{name: torch.from_numpy(part) for name, part in seen.items()})
            at = torch.stack([torch.zeros(len(index), dtype=torch.long), batch.index], dim=1)
            return replace(batch, at=at, slides=(self.slide,))

    def make(seed: int, n: int = ROWS) -> Around:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, GROUPS + 2)).astype(np.float32)
        truth = np.repeat(np.column_stack([x[:, 0], x[:, 1], np.abs(x[:, 2]), x[:, 3]]), EACH, axis=1)
        source = Around(truth + rng.normal(size=truth.shape), features=x, section=f"S{seed}", genes=GENES)
        source.parts = (x[:, None] + 0.3 * rng.normal(size=(n, 4, x.shape[1]))).astype(np.float32)
        source.tiles = (x[:, None] + rng.normal(size=(n, 9, x.shape[1]))).astype(np.float32)
        source.lies = rng.random((n, 9)) < 0.8
        source.lies[:, 4] = True
        source.truth = truth
        return source

    return make


@pytest.fixture(scope="module")
def knowledge() -> GeneKnowledge:
    """Which function a gene has, and as much beside it that says nothing."""
    told = np.repeat(np.eye(GROUPS), EACH, axis=0)
    noise = np.random.default_rng(5).normal(size=(len(GENES), GROUPS)) * 0.4
    return GeneKnowledge(GENES, np.concatenate([told, noise], axis=1), "functions", "a test")


@pytest.fixture(scope="module")
def fitted(around, knowledge) -> dkan.Model:
    return dkan.Model(config(), knowledge).fit(around(0), PLAN)


@pytest.fixture(scope="module")
def untrained(around, knowledge) -> dkan.Model:
    return dkan.Model(config(lr=0.0, epochs=1), knowledge).fit(around(0), PLAN)


@pytest.fixture
def batch(fitted, around) -> sqi.Batch:
    return next(fitted.seen(around(0), 48, rows=np.arange(48)))


def standard(model, batch) -> torch.Tensor:
    return (batch.expression - model.expression_mean) / model.expression_std


def skill(model, source) -> float:
    """Mean Pearson with what was planted."""
    return float(np.mean(pearson(source.truth, model.predict(source, device="cpu").mean.numpy())))


def with_vectors(model: dkan.Model, order: torch.Tensor) -> dkan.Model:
    other = copy.deepcopy(model)
    other.gene_vectors.copy_(model.gene_vectors[order])
    return other


# V1: the text is read, and nothing else tells genes apart --------------------------------------------


def test_v1_shuffled_vectors_after_training_lower_the_prediction(fitted, around) -> None:
    fresh = around(1)
    of_others = torch.arange(len(GENES)).roll(EACH)
    assert skill(fitted, fresh) > 0.5
    assert skill(with_vectors(fitted, of_others), fresh) < skill(fitted, fresh) - 0.2


def test_v1_genes_vectors_and_labels_in_another_order_are_predicted_in_that_order(fitted, batch) -> None:
    order = torch.randperm(len(GENES), generator=torch.Generator().manual_seed(1))
    moved = with_vectors(fitted, order)
    moved.expression_mean.copy_(fitted.expression_mean[order])
    moved.expression_std.copy_(fitted.expression_std[order])
    moved.expression_encoder.project.weight.data = fitted.expression_encoder.project.weight.data[:, order]
    for mine, other in zip(moved.heads.values(), fitted.heads.values(), strict=True):
        mine.weight.data, mine.bias.data = other.weight.data[order], other.bias.data[order]
    close = {"rtol": 1e-4, "atol": 1e-5}
    with torch.no_grad():
        one, other = moved.predict_step(batch), fitted.predict_step(batch)
        torch.testing.assert_close(one.mean, other.mean[:, order], **close)
        torch.testing.assert_close(one.std, other.std[:, order], **close)
        truth = standard(fitted, batch)
        one, other = (
            model.by_expression(model.gene_tokens(), t) for model, t in ((moved, truth[:, order]), (fitted, truth))
        )
        torch.testing.assert_close(one, other[:, order], **close)


# V2: expression is never reached ---------------------------------------------------------------------


def test_v2_noise_in_the_place_of_expression_changes_no_prediction(fitted, batch) -> None:
    noisy = replace(batch, expression=100 * torch.randn_like(batch.expression))
    with torch.no_grad():
        for other in (noisy, replace(batch, expression=None)):
            assert torch.equal(fitted.predict_step(other).mean, fitted.predict_step(batch).mean)


def test_v2_no_gradient_leads_from_the_prediction_to_expression_or_its_path(fitted, batch) -> None:
    model = copy.deepcopy(fitted).train()
    model.zero_grad()
    seen = replace(batch, expression=batch.expression.clone().requires_grad_(True))
    model.told(seen)[0].square().sum().backward()
    assert seen.expression.grad is None
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert not {name for name in reached if name.startswith("expression")} and "out.weight" in reached


# V3: the contrastive loss ----------------------------------------------------------------------------


def found_at_once(model, batch) -> tuple[float, float]:
    """The contrastive loss, and the share of pairs whose own partner is the nearest, of one block of a step."""
    with torch.no_grad():
        truth = standard(model, batch)
        genes = model.gene_tokens()[:, : dkan.MOST_GENES]
        found, *tokens = model.views(batch)
        one = model.image_path(genes, *tokens)[: dkan.MOST_SPOTS]
        other = model.by_expression(genes, truth[: dkan.MOST_SPOTS])
        cosine = (
            torch.nn.functional.normalize(one.flatten(0, 1), dim=1)
            @ torch.nn.functional.normalize(other.flatten(0, 1), dim=1).T
        )
        nearest = cosine.argmax(dim=1) == torch.arange(len(cosine))
        return float(dkan.infonce(one, other, model.config.temperature)), float(nearest.float().mean())


def test_v3_the_contrastive_loss_starts_at_chance_or_below_and_falls_and_pairs_find_each_other(
    untrained, fitted, batch
) -> None:
    pairs = dkan.MOST_SPOTS * dkan.MOST_GENES
    start, end = found_at_once(untrained, batch), found_at_once(fitted, batch)
    assert start[0] < np.log(pairs) + 0.1
    assert end[0] < start[0] - 0.3
    assert end[1] > 5 / pairs


def test_v3_where_nothing_tells_pairs_apart_the_loss_is_that_of_chance() -> None:
    same = torch.ones(3, 5, 8)
    torch.testing.assert_close(dkan.infonce(same, same, 0.1), torch.tensor(np.log(15.0), dtype=torch.float32))
    apart = torch.eye(15).view(3, 5, 15)
    assert dkan.infonce(apart, apart, 0.01) < 1e-6


# V4: adaptive weights --------------------------------------------------------------------------------


def test_v4_weights_follow_one_and_three_over_the_losses_and_are_constants() -> None:
    losses = torch.tensor([0.7, 5.0], requires_grad=True)
    weights = dkan.adaptive_weights(*losses)
    assert not weights.requires_grad and float(weights.sum()) == pytest.approx(1)
    assert float(weights[1] / weights[0]) == pytest.approx(3 * 0.7 / 5.0)
    assert float((weights * losses.detach()).sum()) == pytest.approx(4 * 0.7 * 5.0 / (5.0 + 3 * 0.7))
    (weights * losses).sum().backward()
    torch.testing.assert_close(losses.grad, weights)
    assert dkan.adaptive_weights(torch.tensor(0.7), torch.tensor(0.0)).tolist() == [1, 1]


def test_v4_the_loss_of_a_step_is_both_weighted_and_of_validation_the_error_alone(fitted, batch) -> None:
    truth = standard(fitted, batch)
    said = fitted.loss(batch)
    assert set(said) == {"mse"}
    torch.testing.assert_close(said["mse"], (fitted.told(batch)[0] - truth).pow(2).mean())
    model = copy.deepcopy(fitted).train()
    torch.manual_seed(3)
    total = sum(model.loss(batch).values())
    torch.manual_seed(3)
    supervised, contrastive = model.losses(batch, truth)
    torch.testing.assert_close(total, 4 * supervised * contrastive / (contrastive + 3 * supervised))


# V5: every view is held to what was measured and to the prediction -----------------------------------


def test_v5_without_a_view_the_loss_lacks_its_two_terms(fitted, batch) -> None:
    truth = standard(fitted, batch)
    with torch.no_grad():
        said, found = fitted.told(batch)
        whole = fitted.losses(batch, truth)[0]
        terms = {
            name: 0.7 * (head(found[name]) - truth).pow(2).mean() + 0.3 * (head(found[name]) - said).pow(2).mean()
            for name, head in fitted.heads.items()
        }
        assert set(terms) == {"fused", "spot", "around", "row"}
        torch.testing.assert_close(whole, (said - truth).pow(2).mean() + sum(terms.values()))
        for name, term in terms.items():
            without = copy.deepcopy(fitted)
            del without.heads[name]
            torch.testing.assert_close(without.losses(batch, truth)[0], whole - term)


# V6 and V7 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv", ["tokens", "vector"])
def test_v6_tiles_outside_of_the_slide_do_not_count(fitted, untrained, around, knowledge, batch, kv) -> None:
    model = fitted if kv == "tokens" else dkan.Model(config(kv=kv, epochs=2), knowledge).fit(around(0), PLAN)
    tiles = torch.where(batch.inside[..., None], batch.neighbors, 9.0)
    other = replace(batch, neighbors=tiles)
    with torch.no_grad():
        torch.testing.assert_close(model.predict_step(other).mean, model.predict_step(batch).mean)
        counted = replace(other, inside=torch.ones_like(batch.inside))
        assert not torch.allclose(model.predict_step(counted).mean, model.predict_step(batch).mean, atol=1e-4)


def test_v7_asked_again_it_says_the_same(fitted, around) -> None:
    fresh = around(2, 20)
    one, other = (fitted.predict(fresh, device="cpu") for _ in range(2))
    assert torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)
    assert not any(part.training for part in fitted.modules())


# One key, or many ------------------------------------------------------------------------------------


def test_attention_to_one_key_is_its_value_whatever_is_asked() -> None:
    whole, one = Attention(8, 2).eval(), dkan._One(8, 2, 0.3).eval()
    one.value.weight.data, one.out = whole.key_value.weight.data[8:], whole.out
    asked = torch.randn(3, 5, 8, requires_grad=True)
    key = torch.randn(3, 1, 8)
    torch.testing.assert_close(whole(asked, key), one(asked, key).expand(-1, 5, -1))
    whole(asked, key).sum().backward()
    assert asked.grad.abs().max() < 1e-6


def test_genes_weigh_tokens_for_themselves_and_cannot_weigh_a_vector(fitted, batch) -> None:
    with torch.no_grad():
        _, tokens, inside = fitted.views(batch)
        block, genes = fitted.image_path.blocks[0], fitted.gene_tokens()
        took = block.attention(block.norm(genes).expand(len(batch), -1, -1), block.norm(tokens), inside[:, None, None])
    assert tokens.shape[1] == 4 + 9 + 1
    assert took.std(dim=1).mean() > 1e-3 * took.std()
    assert all(isinstance(block.attention, dkan._One) for block in fitted.expression_path.blocks)


def test_the_contrastive_block_is_bounded(fitted, batch, monkeypatch) -> None:
    sizes = []
    infonce = dkan.infonce
    monkeypatch.setattr(
        dkan, "infonce", lambda one, other, t: sizes.append((one.shape, other.shape)) or infonce(one, other, t)
    )
    copy.deepcopy(fitted).train().loss(batch)
    width = fitted.config.width
    assert sizes == [((32, 16, width), (32, 16, width))] and len(batch) > 32 and len(GENES) > 16


# What is known of genes ------------------------------------------------------------------------------


def test_knowledge_of_shared_function_helps_and_permuted_does_not(fitted, around, knowledge) -> None:
    fresh = around(1)
    blind = dkan.Model(config(), knowledge.permuted(3)).fit(around(0), PLAN)
    assert skill(blind, fresh) < skill(fitted, fresh) - 0.02


def test_genes_of_which_nothing_is_known_learn_a_vector(around, knowledge) -> None:
    with pytest.warns(UserWarning, match="knows nothing of 2 of 24 genes: 'F0-0', 'F0-1'"):
        model = dkan.Model(config(epochs=2), knowledge.only(GENES[2:])).fit(around(0), PLAN)
    assert model.gene_encoder.own.shape == (2, 32)
    tokens = model.gene_tokens()[0]
    assert not torch.allclose(tokens[0], tokens[1], atol=1e-3)


def test_without_knowledge_spelling_is_taken_and_said_or_vectors_are_learned(around, knowledge) -> None:
    with pytest.warns(UserWarning, match=r"'dkan' is told nothing of genes but .* \('lexical'\)"):
        model = dkan.Model(config(epochs=1)).fit(around(0), PLAN)
    assert model.provenance["knowledge"]["name"] == "lexical" and model.gene_encoder.own is None
    learned = config(epochs=1, gene_vectors="learned")
    assert dkan.Model(learned).fit(around(0), PLAN).gene_encoder.own.shape == (24, 32)
    with pytest.raises(sqi.BadInput, match="'dkan' takes no knowledge"):
        dkan.Model(learned, knowledge)


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(sqi.BadInput, match=r"gene_heads is 5; expected a divisor of width=64"):
        dkan.Config(gene_heads=5)
    with pytest.raises(sqi.BadInput, match=r"gene_depth is \(1, 0, 1\); expected blocks of the gene encoder"):
        dkan.Config(gene_depth=(1, 0, 1))
