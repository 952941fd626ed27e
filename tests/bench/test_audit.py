"""What a split shares is found and refused: planted leaks of every kind, and none where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer import bench
from sq_imputer.bench._audit import alike, crop_hashes
from sq_imputer.section.slide import Slide


@pytest.fixture(scope="module")
def slides() -> list[Slide]:
    """Sections of three patients."""
    return [Slide.from_sdata(one) for one in sqi.datasets.toy(3, size_px=640, mpp=1.25, seed=11).values()]


def test_a_split_that_shares_nothing_is_an_empty_table(slides):
    parts = {"train": slides[:1], "validation": slides[1:2], "test": slides[2:]}
    assert bench.audit(parts, genes={"train": ["A"], "test": ["B"]}).empty


def test_a_shared_patient_is_refused_and_allowed_by_name(slides):
    parts = {"train": slides[:1], "test": [replace(slides[1], group=slides[0].group)]}
    with pytest.raises(sqi.BadInput, match="patient: train and test share 'P1'"):
        bench.audit(parts)
    table = bench.audit(parts, allow=["patient"])
    assert table["kind"].tolist() == ["patient"] and table["allowed"].all() and table["n"].tolist() == [len(slides[1])]


def test_a_section_under_another_name_is_found_by_its_counts_and_crops(slides):
    copied = replace(slides[0], section="new", group="new")
    allowed = bench.audit({"train": slides[:2], "test": [copied]}, allow=["counts", "crop"])
    assert allowed["kind"].tolist() == ["counts", "crop"] and (allowed["n"] > 0.9 * len(copied)).all()
    with pytest.raises(sqi.BadInput, match="counts: train and test share rows of 'P1' and 'new'"):
        bench.audit({"train": slides[:2], "test": [copied]})


def test_a_duplicated_crop_is_found_where_all_else_differs(slides):
    stolen = slides[0].take(np.arange(4))
    stolen = replace(stolen, section="new", group="new", counts=None, measured=np.zeros(4, dtype=bool))
    with pytest.raises(sqi.BadInput, match="crop: train and test"):
        bench.audit({"train": [slides[0]], "test": [stolen]})
    assert bench.audit({"train": [slides[0]], "test": [stolen]}, crops=False).empty


def test_brighter_and_shifted_by_a_pixel_is_still_the_same_crop_and_others_are_not(slides):
    spec = sqi.CropSpec(112.0, 224)
    first = crop_hashes(slides[0], spec)
    moved = crop_hashes(replace(slides[0], centers_px=slides[0].centers_px + 0.5), spec)
    telling = first.any(axis=1)
    assert telling.mean() > 0.5
    assert alike(moved, first)[telling].mean() > 0.9
    assert not alike(crop_hashes(slides[1], spec), first).any()


def test_a_gene_on_both_sides_is_refused(slides):
    with pytest.raises(sqi.BadInput, match="gene: train and test share 'B'"):
        bench.audit({}, genes={"train": ["A", "B"], "test": ["B", "C"]})


def test_kinds_that_do_not_exist_are_refused(slides):
    with pytest.raises(sqi.BadInput, match="allow has 'patients'"):
        bench.audit({}, allow=["patients"])


def test_published_splits_are_apart_but_one_which_says_so():
    for panel in ("5k", "multi_tissue", "immuno_oncology", "colon", "breast", "lung_healthy"):
        split = bench.published_split(f"hescape/{panel}")
        names = sum(split.values(), [])
        assert len(names) == len(set(names)) and all(split.values())
    assert len(bench.published_split("hescape/lung_healthy")["train"]) == 12
    with pytest.raises(sqi.BadInput, match="'TENX117' in two parts"):
        bench.published_split("hescape/skin")
    assert bench.published_split("hescape/skin", allow_shared=True)["test"] == ["TENX117"]
    with pytest.raises(sqi.MissingKey, match="no split 'hest'"):
        bench.published_split("hest")
