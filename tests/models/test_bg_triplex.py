from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from around import drawn_maps, planted
from scipy.stats import pearsonr

import sq_imputer as sqi
from sq_imputer.contract import WholeSlide
from sq_imputer.errors import BadInput
from sq_imputer.models import bg_triplex, triplex
from sq_imputer.nn.turns import STILL, Turn

PLAN = sqi.Plan(device="cpu", progress=False, calibration=0)
SAME = {"per_section": False, "width": 16, "epochs": 30, "lr": 5e-3, "batch_size": 144}
CONFIG = replace(bg_triplex.Config.small(), **SAME)
HEADS = ("fused", "spot0", "spot", "around0", "around", "row")


@pytest.fixture(scope="module")
def sections(arrays):
    return [drawn_maps(planted(arrays, seed), seed) for seed in range(3)]


@pytest.fixture(scope="module")
def fitted(sections) -> bg_triplex.Model:
    return bg_triplex.Model(CONFIG).fit(sections[:2], PLAN)


@pytest.fixture(scope="module")
def unguided(sections) -> triplex.Model:
    return triplex.Model(replace(triplex.Config.small(), **SAME)).fit(sections[:2], PLAN)


def seen(model, source):
    return next(model.seen(source, 200))


def right(model, source) -> float:
    said = model.predict(source, device="cpu").mean.numpy()
    return pearsonr(said[:, 3], source.expression[:, 3])[0]


def test_what_only_the_maps_tell_is_learned_from_them(fitted, unguided, sections) -> None:
    """V4: nuclear cover that no feature tells of; maps of other rows do not help."""
    assert right(fitted, sections[2]) > 0.8 and right(unguided, sections[2]) < 0.3
    batch = seen(fitted, sections[2])
    with torch.no_grad():
        own = fitted.predict_step(batch).mean
        other = fitted.predict_step(replace(batch, maps=batch.maps.roll(5, 0))).mean
        none = fitted.predict_step(replace(batch, maps=torch.zeros_like(batch.maps))).mean
    truth = sections[2].expression[:, 3]
    assert pearsonr(other[:, 3].numpy(), truth)[0] < 0.3
    assert not torch.allclose(own, none, atol=1e-3)


def test_without_guidance_it_is_triplex_bit_for_bit(unguided, sections) -> None:
    """V5."""
    model = bg_triplex.Model(CONFIG).fit(sections[:2], replace(PLAN, epochs=1))
    kept = model.load_state_dict(unguided.state_dict(), strict=False)
    assert not kept.unexpected_keys
    with torch.no_grad():
        for weight in model.guidance.parameters():
            weight.zero_()
    for source in sections:
        one, other = (each.predict(source, device="cpu").mean for each in (model, unguided))
        assert torch.equal(one, other)


def test_all_six_heads_are_taught(fitted, sections) -> None:
    """V6: the published code teaches three."""
    assert set(fitted.heads) == set(HEADS)
    fitted.zero_grad()
    parts = fitted.loss(seen(fitted, sections[0]))
    assert set(parts) == set(HEADS)
    sum(parts.values()).backward()
    still = [name for name, weight in fitted.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still
    fitted.zero_grad()


def test_three_terms_are_those_after_guidance(sections) -> None:
    model = bg_triplex.Model(replace(CONFIG, terms="three")).fit(sections[:1], replace(PLAN, epochs=1))
    assert set(model.heads) == {"fused", "spot", "around", "row"}


@pytest.mark.parametrize("turn", [Turn(*flags) for flags in itertools.product((False, True), repeat=3)])
def test_one_turn_is_that_of_maps_tokens_tiles_and_section(turn, fitted, sections) -> None:
    """V3: the published code turns image, edges and nuclei each by a draw of its own."""
    batch = seen(fitted, sections[2])
    slide = batch.slides[0]
    turned = replace(
        batch,
        tokens=turn.cells(batch.tokens),
        neighbors=turn.cells(batch.neighbors),
        inside=turn.cells(batch.inside),
        maps=turn.picture(batch.maps),
        slides=(WholeSlide(slide.tokens, turn.steps(slide.places)),),
    )
    with torch.no_grad():
        one, other = fitted.said(batch, turn), fitted.said(turned, STILL)
        for name in HEADS:
            torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_one_guidance_serves_both_branches(fitted) -> None:
    assert set(fitted.guidance.attention) == {"edges", "nuclei"}
    assert set(fitted.guidance.boundary) == {f"{b} {k}" for b in ("spot", "around") for k in ("edges", "nuclei")}


def test_boundaries_of_tiles_outside_do_not_guide(fitted) -> None:
    tokens, maps = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0)), torch.rand(2, 2, 4, 16, 16)
    inside = torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad():
        one = fitted.guidance("around", tokens, inside, maps)
        inside[:, 0] = False
        assert not torch.equal(fitted.guidance("around", tokens, inside, maps), one)


def test_without_a_branch_or_a_map_it_fits(sections) -> None:
    narrow = replace(CONFIG, maps=("nuclei",), neighbors=0)
    model = bg_triplex.Model(narrow)
    assert model.needs.maps == ("nuclei",) and model.needs.neighbors == 0
    source = drawn_maps(planted(type(sections[0]).__mro__[2], 5), 5)
    source.maps = source.maps[:, :1, 1:]
    assert model.fit(source, replace(PLAN, epochs=1)).predict(source, device="cpu").mean.isfinite().all()


def test_a_config_that_cannot_be_says_so() -> None:
    with pytest.raises(BadInput, match="maps is empty: nothing would guide. Take model 'triplex'"):
        bg_triplex.Config(maps=())
    with pytest.raises(BadInput, match="guide_heads is 5; expected a divisor of 64"):
        bg_triplex.Config(guide_heads=5)
