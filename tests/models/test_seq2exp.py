"""Acceptance 3 to 6 of the specification by number, and what a fitted model gives back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import sq_imputer as sqi
from sq_imputer.datasets import toy_genes
from sq_imputer.errors import BadInput
from sq_imputer.models.seq2exp import Config, Model
from sq_imputer.nn import masks
from sq_imputer.predictor.chance import Chance

PLAN = sqi.Plan(device="cpu", progress=False, calibration=0)
SMALL = replace(Config.small(), length=136, promoter=24, calibration=0)


@pytest.fixture(scope="module")
def toy():
    """Toy genes with a track and further numbers, and where the motifs are."""
    windows, sites = toy_genes(96, length=136, seed=3)
    return replace(windows, extra=np.linspace(100, 200, 96, dtype=np.float32)[:, None]), sites


def built(windows, **changes) -> Model:
    """A model with its first weights."""
    return Model(replace(SMALL, **changes)).fit(windows.by_chromosome(), replace(PLAN, epochs=1))


def batch_of(model: Model, windows, rows: int = 8):
    return next(model.seen(windows, rows, rows=np.arange(rows)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_acceptance_4_the_error_alone_teaches_hard_masks(toy, packed, tied):
    """Upstream, kept bases are packed and never multiplied, so that the mask head has no gradient of the error."""
    model = built(toy[0], variant="hard", packed=packed, tied=tied, positions=True, least=0.0, prior_mean=0.45).train()
    with Chance(0).of(model):
        model.loss(batch_of(model, toy[0]))["error"].backward()
    assert model.keep.weight.grad.abs().max() > 0 and model.keep.weight.grad.isfinite().all()


@pytest.mark.parametrize("variant", ["soft", "hard"])
def test_acceptance_4_the_middle_is_read_and_what_is_unknown_or_forbidden_never(toy, variant):
    model, batch = built(toy[0], variant=variant), batch_of(built(toy[0]), toy[0])
    batch.allowed[:, 70:75], batch.bases[:, 3] = False, 4
    batch.allowed[:, 3] = False
    for random in (True, False):
        mask = model.mask(model.betas(batch), batch, random)
        assert (mask[:, 56:70] == 1).all() and (mask[:, 75:80] == 1).all()
        assert (mask[:, 70:75] == 0).all() and (mask[:, 3] == 0).all()
        assert variant == "soft" or set(mask.unique().tolist()) == {0.0, 1.0}
    other = replace(batch, bases=batch.bases.clone(), tracks=batch.tracks.clone())
    other.bases[:, 70:75], other.tracks[:, 70:75] = (other.bases[:, 70:75] + 1) % 4, 9.0
    model.generator, model.reader = torch.nn.Identity(), torch.nn.Identity()  # so that bases do not speak by others
    torch.testing.assert_close(model.predict_step(other).mean, model.predict_step(batch).mean)


def test_contexts_along_the_middle_are_told_by_their_own_bases_all_of_which_are_masked(toy):
    """With nothing but single bases to read, another base changes the bin that it is in, and no other."""
    bins = [f"bin {k}" for k in range(4)]
    windows = replace(toy[0], genes=bins, expression=np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32))
    model = built(windows, along=True)
    batch = batch_of(model, windows)
    assert (model.mask(model.betas(batch), batch, False) < 1).all()
    model.generator, model.reader = torch.nn.Identity(), torch.nn.Identity()
    other = replace(batch, bases=batch.bases.clone())
    other.bases[:, 62] = (other.bases[:, 62] + 1) % 4  # of the second six of 24 bases, that begin at 56
    changed = (model.predict_step(other).mean - model.predict_step(batch).mean).abs() > 1e-6
    assert changed[:, 1].all() and not changed[:, [0, 2, 3]].any()
    assert model.predict_step(batch).embedding.shape == (8, model.config.width)
    with pytest.raises(BadInput, match="promoter is 22, which 4 contexts along it do not divide"):
        built(windows, along=True, promoter=22)


@pytest.mark.parametrize("leveled", [True, False])
def test_a_mask_at_its_prior_along_the_middle_is_read_as_if_there_were_none(toy, leveled):
    """A tenth of every base, beside biases of their usual size, taught a predictor nothing."""
    bins = [f"bin {k}" for k in range(4)]
    values = np.random.default_rng(0).normal(size=(96, 4)).astype(np.float32)
    model = built(replace(toy[0], genes=bins, expression=values), along=True, leveled=leveled)
    batch = batch_of(model, toy[0])
    whole = model.reader(model._seen(batch))[:, 56:80].unflatten(1, (4, 6)).mean(dim=2)
    assert torch.allclose(model._read(batch, torch.full((8, 136), 0.1)), whole, atol=1e-5) == leveled
    hard = Model(replace(model.config, variant="hard"))
    hard.__dict__.update({name: value for name, value in model.__dict__.items() if name != "config"})
    torch.testing.assert_close(hard._read(batch, torch.ones(8, 136)), whole)  # what is kept is read as it is


def test_the_rate_of_learning_rises_in_the_first_steps(toy):
    """Without norms, the full rate at once shrank all that a predictor of yeast says to a constant."""
    model = built(toy[0], warmup=4, lr=0.8)
    optimizer, seen = model.optimizer(), []
    for _ in range(6):
        model.loss(batch_of(model, toy[0]))["error"].backward()
        optimizer.step()
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert built(toy[0]).optimizer().param_groups[0]["lr"] == SMALL.lr and Config.paper().warmup == 5000


def test_packed_windows_of_a_predictor_that_sees_base_by_base_say_what_whole_ones_say(toy):
    model = built(toy[0], variant="hard")
    model.reader = torch.nn.Identity()
    whole = model.predict_step(batch_of(model, toy[0])).mean
    packed = Model(replace(model.config, packed=True))
    packed.__dict__.update({name: value for name, value in model.__dict__.items() if name != "config"})
    torch.testing.assert_close(packed.predict_step(batch_of(model, toy[0])).mean, whole)


def test_acceptance_3_masks_are_drawn_in_training_and_are_their_mean_when_predicting(toy):
    model = built(toy[0])
    batch, betas = batch_of(model, toy[0]), model.betas(batch_of(model, toy[0]))
    torch.testing.assert_close(model.mask(betas, batch, False)[:, :50], betas.mean[:, :50])
    assert not torch.equal(model.mask(betas, batch, True), model.mask(betas, batch, True))
    one, other = (model.predict(toy[0], rows=np.arange(4), device="cpu") for _ in range(2))
    assert torch.equal(one.std, other.std) and (one.std > 0).all()


def test_parts_of_the_mask_add_up_to_it(toy):
    model = built(toy[0])
    found = model.regulation(batch_of(model, toy[0]))
    torch.testing.assert_close(found["dna"] + found["signal"], found["mask"])
    assert found["dna"].mean().abs().item() < 0.01 and found["dna"].abs().max() > 0
    model.keep.weight.data.zero_()  # a sequence that is everywhere the same says nothing
    assert model.regulation(batch_of(model, toy[0]))["dna"].abs().max() < 1e-6
    alone = built(toy_genes(40, length=136, tracks=False)[0])
    assert not alone.regulation(batch_of(alone, toy_genes(40, length=136, tracks=False)[0]))["signal"].any()


def test_further_numbers_are_brought_to_one_scale(toy):
    model = built(toy[0])
    assert model.extra_mean.item() == pytest.approx(150, abs=1) and model.extra_std.item() == pytest.approx(29, abs=1)
    batch = batch_of(model, toy[0])
    far = replace(batch, extra=batch.extra + 50)
    assert not torch.allclose(model.predict_step(far).mean, model.predict_step(batch).mean)


def test_a_predictor_is_trained_anew_on_the_highest_masks_of_a_frozen_generator(toy):
    windows = toy[0].by_chromosome()
    first = Model(replace(SMALL, epochs=2)).fit(windows, PLAN)
    again = Model(replace(SMALL, epochs=2, retrain_top=0.1)).fit(windows, PLAN)
    for name, weight in first.named_parameters():
        same = torch.equal(weight, again.get_parameter(name))
        assert same == name.startswith(("base", "track", "generator", "keep")), name
    batch = batch_of(again, toy[0])
    kept = again.mask(again.betas(batch), batch, True)
    assert set(kept.unique().tolist()) == {0.0, 1.0} and (kept[:, :56].sum(dim=1) <= 14).all()
    assert again.history["first"]["train"] == first.history["train"]
    with pytest.raises(BadInput, match="retrain_top freezes the generator, which is the predictor"):
        Model(replace(SMALL, retrain_top=0.1, tied=True)).fit(windows, PLAN)


def test_weights_of_tracks_must_be_one_each(toy):
    with pytest.raises(BadInput, match="Config.track_weights has 3 numbers, and the windows 1 tracks"):
        built(toy[0], track_weights=(2.0, 2.0, 1.0))


@pytest.mark.parametrize("variant", ["soft", "hard"])
def test_the_published_form_is_that_of_the_released_code(variant):
    c = Config.paper(variant)
    assert (c.length, c.promoter, c.width, c.layers, c.lr, c.kl_weight) == (200_000, 2000, 128, (4, 4), 5e-4, 0.01)
    a, b = masks.prior(c.prior_mean, c.prior_strength)
    assert (a, b) == pytest.approx((10, 90) if variant == "soft" else (0.1, 0.1222), rel=1e-3)
    assert (c.tied, c.positions, c.packed, c.normed) == ((variant == "hard",) * 3 + (True,))


def test_a_predictor_with_norms_reads_the_same_through_any_even_mask(toy):
    """Why there are none by default: a soft mask that is the same everywhere is undone by the first of them."""
    for normed in (True, False):
        model = built(toy[0], normed=normed)
        batch, even = batch_of(model, toy[0]), torch.full((8, 136), 0.5)
        x = model._seen(batch)
        read = [model.reader.blocks[0].norm(x * mask[..., None]) for mask in (even, even / 4)]
        assert torch.allclose(*read, rtol=1e-3, atol=1e-4) == normed


# What it learns ---------------------------------------------------------------------------------------------

LEARNED = replace(SMALL, width=16, layers=(2, 4), length=160, lr=6e-3, batch_size=12, epochs=7)


@pytest.fixture(scope="module")
def planted():
    """A model of the published soft recipe on a planted motif, genes that it has not seen, and their sites."""
    windows, _ = toy_genes(1200, seed=0)
    with sqi.device.one_thread():
        model = Model(LEARNED).fit(windows.by_chromosome(), PLAN)
    return model, *toy_genes(300, seed=1)


def site_scores(model, windows, sites) -> dict[str, np.ndarray]:
    """Highest mask within 8 bp of every site by kind; and of 17 bp in the first half where no site is near."""
    rows = {name: k for k, name in enumerate(windows.names)}
    (batch,) = model.seen(windows, len(windows))
    with torch.inference_mode():
        mask = model.regulation(batch)["mask"].numpy()
    found = {
        kind: np.array(
            [mask[rows[g], max(p - 8, 0) : p + 9].max() for g, p in zip(part.gene, part.position, strict=True)]
        )
        for kind, part in sites.groupby("kind")
    }
    free = [name for name in windows.names if (sites.loc[sites.gene == name, "position"] > 56).all()]
    return found | {"background": np.array([mask[rows[name], 24:41].max() for name in free])}


def test_acceptance_6_sites_of_a_planted_motif_are_told_from_decoys(planted):
    scores = site_scores(*planted)
    for kind in ("background", "motif", "peak"):
        labels = [1] * len(scores["active"]) + [0] * len(scores[kind])
        assert roc_auc_score(labels, np.concatenate([scores["active"], scores[kind]])) > 0.95, kind


def test_acceptance_6_expression_is_predicted_beyond_what_the_signal_alone_allows(planted):
    model, windows, sites = planted
    truth = windows.expression[:, 0]
    peaks = sites[sites.kind != "motif"].groupby("gene").size().reindex(windows.names, fill_value=0)
    said = model.predict(windows, device="cpu").mean[:, 0]
    ceiling = np.corrcoef(peaks, truth)[0, 1]
    assert ceiling < 0.8 and np.corrcoef(said, truth)[0, 1] > ceiling + 0.15


def test_acceptance_6_other_masks_of_the_same_size_predict_worse_and_kept_bases_carry_it(planted):
    model, windows, _ = planted
    (batch,) = model.seen(windows, len(windows))
    with torch.inference_mode():
        betas = model.betas(batch)
        own = model.mask(betas, batch, False)
        rng, middle = torch.Generator().manual_seed(0), model.middle
        aside = torch.ones(160, dtype=torch.bool)
        aside[middle] = False
        dealt = own.clone()
        order = torch.stack([torch.randperm(int(aside.sum()), generator=rng) for _ in range(len(own))])
        dealt[:, aside] = own[:, aside].gather(1, order)
        signal = model.mask(masks.of_tracks(batch.tracks, model.shares, model.against, 1.0, 10.0), batch, False)
        signal[:, aside] *= own[:, aside].mean() / signal[:, aside].mean()

        def said(mask):
            return model._said(model._read(batch, mask), batch)[:, 0]

        truth = batch.expression[:, 0]
        errors = {
            name: float((said(mask) - truth).square().mean())
            for name, mask in {"own": own, "dealt": dealt, "signal": signal}.items()
        }
        assert errors["own"] < min(errors["dealt"], errors["signal"]), errors
        high = masks.top(own * aside, batch.allowed & aside, 0.1)
        low = masks.top(-own * aside, batch.allowed & aside, 0.1)
        moved = [float((said(own * (1 - cut)) - said(own)).abs().mean()) for cut in (high, low)]
        assert moved[0] > 2 * moved[1]


@pytest.fixture(scope="module")
def swept():
    """Divergence, mean mask and Pearson by weight of the divergence, and by mean of the prior."""
    windows, test = toy_genes(240, length=136, seed=0)[0], toy_genes(120, length=136, seed=1)[0]
    (rows,) = Model(SMALL).seen(test, len(test))

    def one(kl_weight: float, prior_mean: float) -> dict:
        c = replace(SMALL, width=8, layers=(1, 2), track_scale=0.5, least=0.0, prior_strength=1.0, epochs=6, lr=2e-2)
        c = replace(c, promoter=112, kl_weight=kl_weight, prior_mean=prior_mean)
        with sqi.device.one_thread():
            model = Model(c).fit(windows.by_chromosome(), PLAN)
        betas = model.betas(rows)
        kl = masks.divergence(betas, masks.prior(prior_mean, 1.0)).mean()
        spread = betas.mean.std(dim=1).mean()
        r = np.corrcoef(model.predict(test, device="cpu").mean[:, 0], test.expression[:, 0])[0, 1]
        return {"kl": kl.item(), "mean": betas.mean.mean().item(), "contrast": spread.item(), "r": float(r)}

    weights = {weight: one(weight, 0.1) for weight in (0.0, 0.01, 0.1, 1.0)}
    return weights, {0.1: weights[0.1], **{mean: one(0.1, mean) for mean in (0.3, 0.03)}}


def test_acceptance_5_the_weight_of_the_divergence_draws_masks_to_the_prior(swept):
    found = [swept[0][weight] for weight in (0.0, 0.01, 0.1, 1.0)]
    for name in ("kl", "contrast"):
        values = [one[name] for one in found]
        assert values == sorted(values, reverse=True), (name, values)
    away = [abs(one["mean"] - 0.1) for one in found]
    assert away[0] > 0.5 and max(away[1:]) < 0.01, away
    assert max(one["r"] for one in found) - min(one["r"] for one in found) < 0.05


def test_acceptance_5_the_mean_of_the_prior_says_how_many_bases_are_kept(swept):
    means = [swept[1][mean]["mean"] for mean in (0.3, 0.1, 0.03)]
    assert means == sorted(means, reverse=True) and means[0] > 2 * means[1] > 4 * means[2], means
