"""What a run predicts is read once, section after section."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.runs.targets import measured_of, read_targets
from sq_imputer.section.regions import slides_of


def test_rows_of_all_sections_follow_each_other_with_names_of_their_own(joined):
    targets = read_targets(joined, "region", None, {})
    assert len(targets) == joined.tables["table"].n_obs and targets.several
    assert targets.regions == ["spots-P1", "spots-P2", "spots-P3"]
    names = targets.names
    assert len(set(names)) == len(names) and names == list(joined.tables["table"].obs_names)
    assert [len(slide) for slide in targets.slides] == [(targets.region_of_rows == r).sum() for r in targets.regions]


def test_rows_of_sections_with_the_same_barcodes_have_the_section_behind_them(joined):
    joined.tables["table"].obs_names = np.concatenate([np.arange(59), np.arange(53), np.arange(57)]).astype(str)
    names = read_targets(joined, "region", None, {}).names
    assert len(set(names)) == len(names) and names[0] == "0-spots-P1"


def test_sections_of_no_known_patient_count_as_one_patients(joined):
    del joined.tables["table"].obs["patient"]
    joined.attrs.clear()
    assert {slide.group for slide in slides_of(joined, "region", {}).values()} == {"unknown"}
    with pytest.raises(sqi.BadInput, match="have a patient who also has other sections"):
        sqi.bench.leave_one_out(joined, sections="region")  # they may be cuts of one tumor
    assert all(case.shares_patient for case in sqi.bench.leave_one_out(joined, sections="region", share_patient=True))


def test_shapes_that_were_not_measured_find_what_was_on_their_image(joined):
    sqi.pp.grid(joined, image_key="he-P2", coordinate_system="um-P2", spacing_um=150, key_added="grid")
    targets = read_targets(joined, {"G": {"shapes_key": "grid", "image_key": "he-P2"}}, None, {})
    assert [slide.keys["shapes_key"] for slide in measured_of(joined, targets, {})] == ["spots-P2"]


def test_one_section_keeps_its_names(section):
    targets = read_targets(section, None, None, {})
    assert targets.names == list(section.tables["table"].obs_names) and not targets.several


def test_nothing_measured_names_the_three_ways_out(section):
    sqi.pp.grid(section, spacing_um=150)
    del section.tables["table"]
    targets = read_targets(section, None, None, {"shapes_key": "grid"})
    with pytest.raises(sqi.BadInput, match="Three ways out"):
        measured_of(section, targets, {"shapes_key": "grid"})
