"""Which model predicts which rows, as data, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.runs.decide import by_own_spots
from sq_imputer.runs.targets import read_targets

HOW = {"n_folds": 3, "buffer_um": 50.0}


def decided(sdata, leave_out, sections="region"):
    targets = read_targets(sdata, sections, None, {})
    return by_own_spots(targets, targets.slides, leave_out=leave_out, **HOW), targets.slides


@pytest.mark.parametrize("leave_out", [None, "patient", "section"])
def test_a_section_is_asked_of_a_model_fitted_on_the_others(joined, leave_out):
    decision, slides = decided(joined, leave_out)
    fits = {ask.section: [j for j, rows in decision.fits[ask.fit]] for ask in decision.asks}
    assert fits == {0: [1, 2], 1: [0, 2], 2: [0, 1]}
    assert [told.training for told in decision.told] == [[slides[j].section for j in fits[k]] for k in range(3)]
    assert not any(told.shares_patient for told in decision.told)


def test_sections_of_one_patient_are_left_out_together_or_say_that_they_share(joined):
    joined.tables["table"].obs["patient"] = [
        "A" if r != "spots-P3" else "B" for r in joined.tables["table"].obs["region"]
    ]
    decision, _ = decided(joined, None)
    assert {ask.section: [j for j, _ in decision.fits[ask.fit]] for ask in decision.asks} == {0: [2], 1: [2], 2: [0, 1]}
    assert len(decision.fits) == 2  # one fit per patient
    decision, _ = decided(joined, "section")
    assert [told.shares_patient for told in decision.told] == [True, True, False]


def test_of_one_patient_every_section_is_predicted_out_of_fold(joined):
    joined.tables["table"].obs["patient"] = "A"
    decision, slides = decided(joined, None)
    for k, slide in enumerate(slides):
        asked = np.sort(np.concatenate([ask.rows for ask in decision.asks if ask.section == k]))
        np.testing.assert_array_equal(asked, np.arange(len(slide)))
        for ask in (ask for ask in decision.asks if ask.section == k):
            ((j, rows),) = decision.fits[ask.fit]
            assert j == k and not set(rows) & set(ask.rows)
            gap = np.linalg.norm(slide.xy_um[rows][:, None] - slide.xy_um[ask.rows][None], axis=2).min()
            assert gap >= HOW["buffer_um"]


@pytest.mark.parametrize(
    ("sections", "leave_out", "message"),
    [
        ({"A": "spots-P1"}, "section", "leave_out is 'section', but there is one: 'A'"),
        ({"A": "spots-P1"}, "patient", "leave_out is 'patient', but all 1 sections are of patient"),
    ],
)
def test_what_cannot_be_left_out_is_an_error(joined, sections, leave_out, message):
    with pytest.raises(sqi.BadInput, match=message):
        decided(joined, leave_out, sections)
