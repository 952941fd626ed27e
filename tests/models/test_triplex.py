from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from around import planted
from scipy.stats import pearsonr

import sq_imputer as sqi
from sq_imputer.contract import Batch, WholeSlide
from sq_imputer.errors import BadInput
from sq_imputer.models import triplex
from sq_imputer.nn import triplex as shared

PLAN = sqi.Plan(device="cpu", progress=False, calibration=0)
CONFIG = replace(triplex.Config.small(), per_section=False, width=24, epochs=30, lr=5e-3, batch_size=144)


@pytest.fixture(scope="module")
def sections(arrays):
    return [planted(arrays, seed) for seed in range(4)]


@pytest.fixture(scope="module")
def fitted(sections) -> triplex.Model:
    return triplex.Model(CONFIG).fit(sections[:3], PLAN)


def right(model, source) -> list[float]:
    """Pearson of every gene on a section that was not trained on."""
    said = model.predict(source, device="cpu").mean.numpy()
    return [pearsonr(said[:, g], source.expression[:, g])[0] for g in range(3)]


def seen(model, source) -> Batch:
    return next(model.seen(source, 200))


def test_every_branch_learns_what_it_alone_can_see(fitted, sections, arrays) -> None:
    """A gene of the parts of the crop, one of the tiles around, one of the rows beside; an MLP sees the row alone."""
    assert min(right(fitted, sections[3])) > 0.75
    mlp = sqi.get_model("mlp")
    plain = [arrays(source.expression, features=source.features) for source in sections]
    alone = mlp(replace(mlp.Config.small(), context_um=(), per_section=False)).fit(plain[:3], PLAN)
    assert max(right(alone, plain[3])[1:]) < 0.6


@pytest.mark.parametrize(("without", "gene"), [({"neighbors": 0}, 1), ({"whole_slide": False}, 2)])
def test_without_a_branch_its_gene_is_lost(without, gene, sections) -> None:
    said = right(triplex.Model(replace(CONFIG, **without)).fit(sections[:3], PLAN), sections[3])
    assert said[gene] < 0.6 and said[0] > 0.7


def test_two_predictions_are_the_same_whatever_mode_the_model_was_left_in(sections) -> None:
    """Pitfall 2: the published dropout stays on. Here it is, in training alone, and changes what every head sees."""
    dropped = replace(CONFIG, dropout=(0.3,) * 4, input_dropout=0.3, depth=(1, 1, 1, 1), epochs=2)
    model = triplex.Model(dropped).fit(sections[:1], PLAN)
    one = model.predict(sections[3], device="cpu")
    model.train()
    batch = seen(model, sections[3])
    taught = [model.branches(batch) for _ in range(2)]
    assert not any(torch.allclose(taught[0][name], taught[1][name], atol=1e-2) for name in model.heads)
    again = model.predict(sections[3], device="cpu")
    assert torch.equal(again.mean, one.mean) and torch.equal(again.std, one.std)
    assert all(part.training is False for part in model.modules())


def test_the_section_is_looked_at_once_however_many_batches_are_predicted(fitted, sections, monkeypatch) -> None:
    """Pitfall 5: once per section and step, not once per row or batch."""
    calls = []
    forward = shared.SlideEncoder.forward
    monkeypatch.setattr(shared.SlideEncoder, "forward", lambda *a: calls.append(len(a[1])) or forward(*a))
    fitted.predict(sections[3], batch_size=10, device="cpu")
    assert calls == [144]
    fitted.train()
    fitted.loss(seen(fitted, sections[0]))
    assert calls == [144, 144]
    fitted.eval()


def test_what_was_kept_of_a_section_is_not_used_with_other_weights(fitted, sections) -> None:
    batch, before = seen(fitted, sections[3]), fitted.branches.row_in[1].weight.clone()
    with torch.no_grad():
        one = fitted.predict_step(batch).mean
        fitted.branches.row_in[1].weight.mul_(-1)
        other = fitted.predict_step(batch).mean
        fitted.branches.row_in[1].weight.copy_(before)
        assert not torch.allclose(one, other) and torch.equal(fitted.predict_step(batch).mean, one)


def test_rows_are_found_by_number_in_the_section_of_their_own(fitted, sections) -> None:
    """Pitfall 3: nothing hangs on the order of rows or sections; a batch may have rows of two."""
    one, other = seen(fitted, sections[2]), seen(fitted, sections[3])
    both = Batch.cat([one[[5, 3]], other[[7]], one[[0]]])
    with torch.no_grad():
        expected = torch.cat([fitted.predict_step(one).mean[[5, 3]], fitted.predict_step(other).mean[[7]]])
        torch.testing.assert_close(fitted.predict_step(both).mean[:3], expected, rtol=1e-4, atol=1e-5)


def elsewhere(batch: Batch, across: int, n: int) -> Batch:
    """The first rows, as if they were all rows of a section, on a lattice of so many columns."""
    y, x = np.divmod(np.arange(n), across)
    slide = WholeSlide(batch.slides[0].tokens[:n], torch.from_numpy(np.stack([x, y], axis=1)))
    return replace(batch[torch.arange(n)], slides=(slide,))


def test_every_section_of_a_batch_has_a_lattice_of_its_own_size(fitted, sections) -> None:
    """Pitfall 3: the published grid is that of the first section. As many rows in other lines, and fewer of them."""
    batch = seen(fitted, sections[3])
    alone = [batch, elsewhere(batch, 16, 144), elsewhere(batch, 5, 35)]
    expected = []
    for one in alone:
        fresh = shared.Branches(fitted.sizes, CONFIG).eval()
        fresh.load_state_dict(fitted.branches.state_dict())
        with torch.no_grad():
            expected.append(fresh(one)["row"][:35])
    assert not torch.allclose(expected[0], expected[1], atol=0.1)
    assert not torch.allclose(expected[1], expected[2], atol=0.1)
    with torch.no_grad():
        found = fitted.branches(Batch.cat([one[torch.arange(35)] for one in alone]))["row"]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_tiles_that_stick_out_of_the_image_do_not_count(fitted, sections) -> None:
    batch = seen(fitted, sections[3])
    inside = batch.inside.clone()
    inside[:, :3] = False
    tiles = batch.neighbors.clone()
    tiles[:, :3] = 9.0
    with torch.no_grad():
        one = fitted.predict_step(replace(batch, inside=inside)).mean
        assert torch.equal(fitted.predict_step(replace(batch, inside=inside, neighbors=tiles)).mean, one)
        assert not torch.allclose(fitted.predict_step(replace(batch, neighbors=tiles)).mean, one)


def test_one_cross_attention_serves_both_branches(fitted) -> None:
    names = [name for name, _ in fitted.branches.named_parameters() if "query" in name]
    assert sum(name.startswith("fusion") for name in names) == 1
    assert set(fitted.heads) == {"fused", "spot", "around", "row"}


def test_the_std_is_the_spread_of_the_heads_and_noise(fitted, sections) -> None:
    batch = seen(fitted, sections[3])
    with torch.no_grad():
        spread = torch.stack(list(fitted.said(batch).values())).std(dim=0, correction=0) * fitted.expression_std
    found = fitted.predict(sections[3], device="cpu").std
    torch.testing.assert_close(found, (spread**2 + fitted.std_added**2).sqrt(), rtol=1e-3, atol=1e-4)


def test_published_sizes_build() -> None:
    branches = shared.Branches({"features": 8, "tokens": 8}, replace(triplex.Config.paper(), width=32))
    assert [len(part.blocks) for part in (branches.around, branches.slide)] == [4, 5]
    assert branches.around.bias.bias.shape == (4, 15)
    assert triplex.Config.paper().needs.tokens == 7 and triplex.Config.paper().needs.neighbors == 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"neighbors": 4}, "neighbors is 4; expected an odd number from 3 on, or 0 for none"),
        ({"neighbors": 1}, "neighbors is 1; expected an odd number"),
        ({"heads": (4, 3, 4, 4)}, "heads has 3; expected divisors of width=64"),
        ({"depth": (1, 1, 2)}, r"depth is \(1, 1, 2\); expected four numbers"),
        ({"depth": (1, 1, 0, 1)}, "section and fusion take 1 block or more"),
        ({"distillation": 1.5}, "distillation is 1.5"),
    ],
)
def test_a_config_that_cannot_be_says_so(changes, told) -> None:
    with pytest.raises(BadInput, match=f"triplex.Config.{told}" if "depth" not in changes or "four" in told else told):
        triplex.Config(**changes)


def test_explaining_says_that_the_model_sees_more_than_a_crop(fitted) -> None:
    from sq_imputer import explain

    with pytest.raises(BadInput, match="'triplex' sees more than single crops"):
        explain.Sight.of(fitted)
    assert explain.available(fitted) == ()


def test_training_and_predicting_are_seeded(sections) -> None:
    short = replace(CONFIG, epochs=2)
    one, two = (triplex.Model(short).fit(sections[:1], PLAN).predict(sections[3], device="cpu") for _ in range(2))
    assert torch.equal(one.mean, two.mean)
    other = triplex.Model(short).fit(sections[:1], replace(PLAN, seed=1)).predict(sections[3], device="cpu")
    assert not np.allclose(one.mean, other.mean)
