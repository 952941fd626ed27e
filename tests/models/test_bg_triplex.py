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
from sq_imputer.pixels.chunks import Tiles
from sq_imputer.section.slide import Slide

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


def right(mean, source) -> dict[str, float]:
    """Pearson of the two genes that only maps tell of: of cover by nuclei, and of the length of edges."""
    return {k: pearsonr(mean[:, g].numpy(), source.expression[:, g])[0] for k, g in (("nuclei", 3), ("edges", 4))}


@pytest.mark.parametrize("kind", ["nuclei", "edges"])
def test_what_only_the_maps_tell_is_learned_from_them(kind, fitted, unguided, sections) -> None:
    """V4: nuclear cover and length of edges that no feature tells of; maps of other rows, or none, do not help."""
    source = sections[2]
    assert right(fitted.predict(source, device="cpu").mean, source)[kind] > 0.8
    assert right(unguided.predict(source, device="cpu").mean, source)[kind] < 0.3
    batch = seen(fitted, source)
    with torch.no_grad():
        other = fitted.predict_step(replace(batch, maps=batch.maps.roll(5, 0))).mean
        none = fitted.predict_step(replace(batch, maps=torch.zeros_like(batch.maps))).mean
    assert max(right(mean, source)[kind] for mean in (other, none)) < 0.3


@pytest.mark.parametrize(("kind", "channels"), [("edges", [0]), ("nuclei", [1, 2, 3])])
def test_maps_of_one_kind_tell_nothing_of_the_other(kind, channels, fitted, sections) -> None:
    """V4: with the pictures of other rows in the place of one kind, its own gene is lost alone."""
    batch = seen(fitted, sections[2])
    maps = batch.maps.clone()
    maps[:, :, channels] = maps[:, :, channels].roll(5, 0)
    with torch.no_grad():
        said = right(fitted.predict_step(replace(batch, maps=maps)).mean, sections[2])
    assert said.pop(kind) < 0.3 and min(said.values()) > 0.7


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


@pytest.mark.parametrize("kind", ["edges", "nuclei"])
def test_boundaries_of_tiles_outside_do_not_guide(kind, fitted, sections) -> None:
    """The mask of tiles that lie outside is that of their boundary tokens as well: what these say is not asked."""
    batch = seen(fitted, sections[2])
    inside = batch.inside.clone()
    inside[:, :3] = False
    boundary = fitted.guidance.boundary[f"around {kind}"]
    strange = torch.randn(3, CONFIG.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = [fitted.said(replace(batch, inside=lies), STILL) for lies in (inside, batch.inside)]
        hook = boundary.register_forward_hook(
            lambda *a: torch.cat([strange.expand(len(batch), -1, -1), a[2][:, 3:]], 1)
        )
        after = [fitted.said(replace(batch, inside=lies), STILL) for lies in (inside, batch.inside)]
        hook.remove()
    for name in HEADS:
        assert torch.equal(before[0][name], after[0][name])
        guided = name in ("fused", "around")
        assert guided != torch.allclose(before[1][name], after[1][name], atol=1e-3)


@pytest.mark.parametrize("kind", [triplex, bg_triplex], ids=["triplex", "bg_triplex"])
def test_a_second_fit_reads_no_pixels(kind, monkeypatch) -> None:
    """Features of crops, parts and tiles, the section as a whole, and maps are kept with the section."""
    reads, read = [], Tiles._read
    monkeypatch.setattr(Tiles, "_read", lambda self, *tile: reads.append(tile) or read(self, *tile))
    drawn = sqi.datasets.toy(1, sections_per_patient=2, size_px=520, mpp=1.25, seed=11)
    slides = [Slide.from_sdata(one, section=name).with_genes(["NUC1", "GLD1"]) for name, one in drawn.items()]
    counts = []
    for _ in range(2):
        kind.Model(replace(kind.Config.small(), calibration=0)).fit(slides, replace(PLAN, epochs=1))
        counts.append(len(reads))
    assert counts[1] == counts[0] > 0


@pytest.mark.parametrize(
    ("own", "way", "told"),
    [
        ({"nuclei_key": "nuclei"}, "of the object", "way of the object, .* 'P2' are .* way blobs and watershed"),
        ({}, "blobs and watershed", "way blobs and watershed, .* 'P2' are .* way of the object"),
    ],
    ids=["own", "found"],
)
def test_whose_nuclei_they_are_is_in_the_provenance_and_held_to(own, way, told) -> None:
    first, other = sqi.datasets.toy(2, size_px=520, mpp=1.25, spots=24, seed=11).values()
    config = replace(bg_triplex.Config.small(), calibration=0, epochs=1)
    model = sqi.tl.fit(first, "bg_triplex", genes=["NUC1", "GLD1"], config=config, progress=False, **own)
    sqi.tl.predict(other, model, progress=False, **own)
    said = sqi.io.pythonic(other.tables["imputed"].uns["sq_imputer"])["bg_triplex"]["encoders"].values()
    assert {one["name"]: one.get("way") for one in said} == {
        "texture": None, "edges": "pixel differences", "nuclei": way
    }  # fmt: skip
    with pytest.raises(BadInput, match=f"fitted on maps of nuclei by .*{told}. Pass nuclei_key= to all or to none"):
        sqi.tl.predict(other, model, key_added="wrong", progress=False, **({} if own else {"nuclei_key": "nuclei"}))


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
