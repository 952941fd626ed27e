from __future__ import annotations

import pytest
import torch

from sq_imputer import Target
from sq_imputer.nn import heads

CLASSES = Target("obs:x", "classes")
FOLD = torch.arange(2000) % 4


@pytest.fixture
def rows():
    """Scores of 2000 rows, and the classes that were drawn by their softmax: 0, 1 and 2 by a known map."""
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    true = (2 * score + torch.tensor([1.0, 0.0, -1.0])).softmax(dim=1)
    drawn = torch.multinomial(true, 1, generator=generator)[:, 0]
    return score, true, torch.nn.functional.one_hot(drawn, 3).double()


def test_the_softmax_finds_the_probabilities_that_classes_were_drawn_by(rows):
    score, true, drawn = rows
    head = heads.link(CLASSES, 3)
    head.fit(score, drawn, FOLD, balanced=False)
    said = head(score.float())
    assert (said.double() - true).abs().mean() < 0.03
    torch.testing.assert_close(said.mean(dim=0).double(), drawn.mean(dim=0), atol=0.01, rtol=0)  # calibrated as a whole


def test_balanced_probabilities_are_those_of_classes_that_are_equally_frequent(rows):
    score, _, drawn = rows
    share = drawn.mean(dim=0)
    head = heads.link(CLASSES, 3)
    head.fit(torch.zeros_like(score), drawn, FOLD, balanced=True)
    assert share.max() > 0.45
    torch.testing.assert_close(head(score.float()), torch.full((2000, 3), 1 / 3), atol=0.01, rtol=0)


def test_a_class_of_no_row_is_improbable_and_finite(rows):
    score, _, drawn = rows
    drawn = torch.cat([drawn, drawn.new_zeros(2000, 1)], dim=1)
    head = heads.link(CLASSES, 4)
    head.fit(torch.cat([score, score[:, :1] * 0], dim=1), drawn, FOLD, balanced=False)
    said = head(torch.cat([score, score[:, :1] * 0], dim=1).float())
    assert said.isfinite().all() and said[:, 3].max() < 0.01


@pytest.mark.parametrize("balanced", [False, True])
def test_scores_of_forty_rows_that_say_nothing_leave_next_to_what_is_usual(rows, balanced):
    score, _, drawn = rows
    few, shuffled = slice(40), drawn[torch.arange(40).flip(0)]
    head = heads.link(CLASSES, 3)
    head.fit(score[few], shuffled, FOLD[few], balanced=balanced)
    usual = torch.full((3,), 1 / 3) if balanced else shuffled.mean(dim=0).float()
    assert (head(score[few].float()) - usual).abs().max() < 0.1
    assert heads.best_shrink(score, drawn, FOLD, balanced=balanced) < heads.best_shrink(score[few], shuffled, FOLD[few])


def test_a_fold_that_is_alone_says_nothing_and_shrinks_most(rows):
    score, _, drawn = rows
    assert heads.best_shrink(score, drawn, torch.zeros(2000)) == max(heads.SHRINKS)


def test_a_temperature_softens_what_is_too_certain_and_sharpens_nothing(rows):
    _, true, drawn = rows
    certain = true.pow(3) / true.pow(3).sum(dim=1, keepdim=True)
    found = heads.temperature(certain, drawn)
    assert 2.3 < found < 4
    assert heads.temperature(heads.tempered(true, torch.tensor(3.0)), drawn) == 1
    said = heads.tempered(certain, torch.tensor(found))
    assert heads.cross_entropy(said.log(), drawn) < heads.cross_entropy(certain.log(), drawn)


def test_numbers_are_left_as_they_are_and_classes_have_the_spread_of_their_probability():
    assert isinstance(heads.link(Target("obs:x", "numbers"), 2), torch.nn.Identity)
    mean = torch.tensor([[0.9, 0.1]])
    torch.testing.assert_close(heads.spread(CLASSES, mean, None), torch.tensor([[0.3, 0.3]]))
