"""CoMTIP-style; V1 to V5 are the list of what must hold of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import sq_imputer as sqi
from sq_imputer import GeneKnowledge
from sq_imputer.models import comtip
from sq_imputer.nn.clip import MOST

PLAN = sqi.Plan(device="cpu", progress=False, seed=1)
SIDE, ROWS = 3, 240
SEEN, HELD = tuple(f"G{k}" for k in range(36)), tuple(f"H{k}" for k in range(12))
CONFIG = comtip.Config(
    **{"context_um": (), "per_section": False, "tokens": SIDE, "width": 32, "heads": 2, "depth": 1, "dropout": 0.0},
    **{"input_dropout": 0.0, "lr": 3e-3, "batch_size": 60, "genes_per_text": 12, "epochs": 25, "calibration": 0},
)


@pytest.fixture(scope="module")
def seen(arrays):
    """Makes a source of features, parts of crops and expression."""

    class Seen(arrays):
        def moments(self, needs, *, device="auto", tokens=False):
            return super().moments(needs)

        def _batch(self, index):
            return replace(super()._batch(index), tokens=torch.from_numpy(self.parts[index]))

    def make(expression, features, parts, genes, name) -> Seen:
        source = Seen(expression, features=features.astype(np.float32), genes=genes, section=name)
        source.parts = parts.astype(np.float32)
        return source

    return make


@pytest.fixture(scope="module")
def knowledge() -> GeneKnowledge:
    """What genes do with three numbers of the image, and as much that says nothing."""
    vectors = np.random.default_rng(7).normal(size=(48, 6)).astype(np.float32)
    return GeneKnowledge((*SEEN, *HELD), vectors, "numbers", "a test")


@pytest.fixture(scope="module")
def section(seen, knowledge):
    """Makes sections whose genes are made of the image as their vectors say; parts of a crop are a checkerboard."""

    def make(seed: int, genes=SEEN):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(ROWS, 3))
        y = x @ knowledge.aligned(genes).vectors[:, :3].T + rng.normal(size=(ROWS, len(genes))) + 4
        parts = x[:, None] * (-1.0) ** np.arange(SIDE**2)[:, None] + 0.1 * rng.normal(size=(ROWS, SIDE**2, 3))
        return seen(y, x + 0.2 * rng.normal(size=x.shape), parts, tuple(genes), f"S{seed}")

    return make


@pytest.fixture(scope="module")
def fitted(section, knowledge) -> comtip.Model:
    return comtip.Model(CONFIG, knowledge).fit(section(0), PLAN)


def batch_of(model: comtip.Model, source) -> sqi.Batch:
    return next(model.seen(source, len(source), rows=np.arange(len(source))))


def sentences(model: comtip.Model, values: torch.Tensor) -> torch.Tensor:
    genes = model.known(torch.arange(values.shape[1]))
    return model.sentences(model.sentences.pairs(genes, model.codes(values)))[0]


def seen_by(model: comtip.Model, source) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in the common space, and standardized expression."""
    batch = batch_of(model, source)
    image = model.placed(model.image(batch.tokens, batch.features)[1])
    return image, (batch.expression - model.expression_mean) / model.expression_std


def correlations(said: torch.Tensor, source) -> np.ndarray:
    said, truth = (part - part.mean(axis=0) for part in (said.numpy(), source.expression))
    return (said * truth).sum(axis=0) / np.sqrt((said**2).sum(axis=0) * (truth**2).sum(axis=0) + 1e-12)


VISIBLE, HIDDEN = torch.tensor([0, 2, 4, 6, 8]), torch.tensor([1, 3, 5, 7])


def test_v1_hidden_parts_never_enter_the_encoder(fitted, section, monkeypatch):
    parts, inputs = batch_of(fitted, section(1)).tokens, []
    encode = fitted.image.encode
    monkeypatch.setattr(fitted.image, "encode", lambda *seen: inputs.append(seen) or encode(*seen))
    with torch.no_grad():
        fitted.masked(parts, encode(parts))
    [(shown, at)] = inputs
    assert shown.shape[1] == at.shape[1] == 5 and torch.equal(shown, parts.take_along_dim(at[..., None], 1))
    spoiled = parts.clone()
    spoiled[:, HIDDEN] = torch.nan
    with torch.no_grad():
        said = [encode(one[:, VISIBLE], VISIBLE) for one in (parts, spoiled)]
    assert torch.equal(*said) and said[0].isfinite().all()


def test_v1_hidden_parts_are_found_better_than_by_the_mean_of_visible_ones(fitted, section):
    parts, image = batch_of(fitted, section(1)).tokens, fitted.image
    with torch.no_grad():
        truth, known = F.layer_norm(image.encode(parts)[:, HIDDEN], (32,)), image.encode(parts[:, VISIBLE], VISIBLE)
        told = image.generator((image.hidden + image.place[HIDDEN]).expand(len(parts), -1, -1), known)
        error, by_mean = (
            (F.layer_norm(said, (32,)) - truth).square().mean() for said in (told, known.mean(dim=1, keepdim=True))
        )
    assert error < 0.7 * by_mean


def test_tokens_that_are_sums_cannot_tell_which_gene_has_which_value(fitted):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 36, generator=generator)
    pair = values, values[:, torch.randperm(36, generator=generator)]
    with torch.no_grad():
        genes = fitted.known(torch.arange(36))
        sums = [(genes + fitted.sentences.value(fitted.codes(one))).mean(dim=1) for one in pair]
        ours = [sentences(fitted, one) for one in pair]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-5)
    assert (ours[0] - ours[1]).abs().max() > 0.05


N = 12
TWO = tuple(f"T{k}" for k in range(N))


def two_valued(seen, seed: int, n: int):
    """Genes of two values each, of their own, of which the image shows the sum alone: the pairs tell nothing of it."""
    rng, size = np.random.default_rng(seed), np.geomspace(1 / 3, 3, N)
    y = np.where(rng.random((n, N)) < size**2 / (1 + size**2), 1 / size, -size)
    x = np.column_stack([y.sum(axis=1) / N**0.5, rng.normal(size=(n, 3))])
    return seen(y + 5, x, x[:, None] + 0.1 * rng.normal(size=(n, SIDE**2, 4)), TWO, f"T{seed}")


def right(seen, seed: int, pairing: float) -> dict[str, float]:
    """How often sentences are more like held-out images than those of the same genes and values, paired otherwise."""
    vectors = np.cos(np.pi * np.arange(N)[:, None] * np.arange(1, 5) / N + 0.3)
    config = replace(CONFIG, pairing=pairing, genes_per_text=N, singles=0, epochs=30)
    model = comtip.Model(config, GeneKnowledge(TWO, vectors, "numbers", "a test"))
    model.fit(two_valued(seen, 0, ROWS), replace(PLAN, seed=seed))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        image, values = seen_by(model, two_valued(seen, 1, ROWS))
        chosen, changed = model.repaired(image, model.known(torch.arange(N)), values)
        torch.testing.assert_close(chosen.sort(dim=1).values, values.sort(dim=1).values)  # of each row the same values
        one, other = comtip.matchings(1, values)
        swapped = comtip.exchange(values[None], one, other)
        some = comtip.worst(torch.rand(swapped.shape), (swapped - values).abs() >= comtip.APART, one, other)[0]
        own, worst, any_ = (
            (image * sentences(model, v)).sum(dim=1) for v in (values, chosen, torch.where(some, swapped[0], values))
        )
    rows = changed.any(dim=1) & some.any(dim=1)
    assert rows.float().mean() > 0.9 and (changed.sum(dim=1) <= 2 * round(0.3 * N / 2)).all()
    assert worst[rows].mean() > any_[rows].mean()  # the adversary finds what is more like the image
    return {"any": float((own > any_)[rows].float().mean()), "worst": float((own > worst)[rows].float().mean())}


def test_v2_pairs_are_told_apart_with_the_adversary_and_not_without(seen):
    found = {w: [right(seen, seed, w) for seed in (0, 1)] for w in (0.0, 0.5)}
    mean = {w: {name: np.mean([one[name] for one in two]) for name in ("any", "worst")} for w, two in found.items()}
    assert mean[0.5]["any"] >= 0.9 and mean[0.5]["worst"] >= 0.9
    assert 0.25 < mean[0.0]["any"] < 0.75 and mean[0.0]["worst"] < 0.5  # near chance, and fooled


def test_v3_the_order_of_genes_in_a_sentence_does_not_matter(fitted):
    generator = torch.Generator().manual_seed(0)
    values, order = torch.randn(5, 36, generator=generator), torch.randperm(36, generator=generator)
    with torch.no_grad():
        genes, codes = fitted.known(torch.arange(36)), fitted.codes(values)
        one = fitted.sentences(fitted.sentences.pairs(genes, codes))[0]
        other = fitted.sentences(fitted.sentences.pairs(genes[order], codes[:, order]))[0]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_v4_genes_that_were_not_seen_are_predicted_by_their_vectors_and_not_by_those_of_others(
    fitted, section, knowledge, monkeypatch
):
    source, told, known = section(1, HELD), [], comtip.Model.known
    r = correlations(fitted.for_genes(HELD).predict(source, device="cpu").mean, source)
    shuffled = knowledge.permuted(3)
    monkeypatch.setattr(comtip.Model, "known", lambda *said: told.append(said[0].gene_vectors[said[1]]) or known(*said))
    control = comtip.Model(CONFIG, shuffled).fit(section(0), PLAN)
    held = torch.from_numpy(shuffled.aligned(HELD).vectors)
    assert told and not (torch.cat(told)[:, None] == held).all(dim=2).any()  # not seen before
    blind = correlations(control.for_genes(HELD).predict(source, device="cpu").mean, source)
    assert r.mean() > 0.35 and r.mean() > blind.mean() + 0.25


def test_v5_images_find_their_own_sentence_among_a_batch(fitted, section):
    with torch.no_grad():
        image, values = seen_by(fitted, section(1))
        found = (image[:60] @ sentences(fitted, values[:60]).T).argmax(dim=1)
    assert (found == torch.arange(60)).float().mean() > 10 / 60


def test_genes_of_the_fit_are_said_by_the_head_and_others_by_their_values(fitted, section, tmp_path):
    source = section(1)
    own = fitted.predict(source, device="cpu")
    r = correlations(own.mean, source)
    assert r.mean() > 0.6
    asked = fitted.for_genes([*HELD[:2], SEEN[3]])
    both = asked.predict(source, device="cpu")
    asked.save(tmp_path)
    assert torch.equal(sqi.load(tmp_path).predict(source, device="cpu").mean, both.mean)
    torch.testing.assert_close(both.mean[:, 2], own.mean[:, 3])
    grid = fitted.expression_mean.mean() + fitted.expression_std.square().mean().sqrt() * fitted.grid
    assert (both.mean[:, :2] >= grid[0]).all() and (both.mean[:, :2] <= grid[-1]).all()
    spread = np.quantile((source.expression - source.expression.mean(0)) / source.expression.std(0), 0.5 / 32)
    assert float(fitted.grid[0]) == pytest.approx(spread, abs=0.2)


def test_the_temperature_stays_at_one_hundredth_or_more(fitted):
    assert 1 <= float(fitted.contrast.scale.detach()) <= np.exp(MOST) + 1e-3 == pytest.approx(100, abs=0.01)


def test_what_cannot_be_is_refused():
    with pytest.raises(sqi.BadInput, match="heads is 5; expected a divisor of width=64"):
        comtip.Config(heads=5)
    with pytest.raises(sqi.BadInput, match="tokens is 1"):
        comtip.Config(tokens=1)
