"""A section is known again after all that users do to one, and no other section is taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sq_imputer.section.counts import Counts
from sq_imputer.section.slide import Slide


@pytest.fixture(scope="module")
def whole(toy_slides):
    return toy_slides[0]


def without(slide: Slide, genes) -> Slide:
    """The slide as it is read when a table was cut to other genes."""
    keep = [c for c, name in enumerate(slide.var_names) if name not in set(genes)]
    return replace(
        slide, counts=Counts.of(slide.counts.columns(keep)), var_names=tuple(slide.var_names[c] for c in keep)
    )


def test_genes_are_those_of_the_panel_and_the_most_abundant_others(whole, monkeypatch):
    monkeypatch.setattr("sq_imputer.section.marks.MOST_GENES", 3)
    total = dict(zip(whole.var_names, whole.counts.toarray().sum(axis=0), strict=True))
    panel = sorted(whole.var_names, key=total.get)[:5]  # the rarest
    genes = whole.marks([*panel, "no such gene"]).genes
    assert genes[:3] == tuple(sorted(panel[2:]))
    assert genes[3:] == tuple(sorted(sorted(set(total) - set(panel), key=total.get)[-3:]))


def test_what_is_not_measured_is_no_row(whole):
    measured = whole.measured & (np.arange(len(whole)) % 3 > 0)
    part = replace(whole, measured=measured)
    assert len(part.marks(whole.genes)) == measured.sum()
    np.testing.assert_array_equal(part.among(whole.marks(whole.genes)), measured)
    assert not replace(whole, counts=None).among(whole.marks(whole.genes)).any()


def test_a_section_is_known_with_genes_filtered(whole):
    training = whole.marks(whole.genes)
    rare = (whole.counts.toarray() > 0).sum(axis=0) < len(whole) / 3
    for lost in (whole.var_names[-5:], np.array(whole.var_names)[rare], set(whole.var_names) - set(whole.genes)):
        assert without(whole, lost).among(training).all()
    assert not without(whole, training.genes).among(training).any()  # nothing to compare


def test_a_gene_is_known_by_its_id(whole):
    training = whole.marks(whole.genes)
    ids = tuple(f"ID{c}" for c in range(len(whole.var_names)))
    by_id = replace(whole, var_names=ids, gene_ids=whole.var_names)
    assert by_id.coded(training.genes).known.all() and by_id.among(training).all()


@pytest.mark.parametrize("moved", ["1e-9", "-0.0", "shifted", "turned"])
def test_a_section_is_known_at_other_coordinates(whole, moved):
    training = whole.marks(whole.genes)
    xy = whole.centers_px.copy()
    if moved == "1e-9":
        xy += np.random.default_rng(0).choice([-1e-9, 1e-9], xy.shape)
    elif moved == "-0.0":
        xy[0], training.xy_um[0] = -0.0, whole.frame.to_um[:2, 2]
    elif moved == "shifted":
        xy += 1234.5
    else:
        xy = xy[:, ::-1] * [1, -1]
    there = replace(whole, centers_px=xy)
    assert there.among(training).all() and there.fingerprint == whole.fingerprint


def test_another_section_is_not_taken_for_it(whole, toy_slides):
    training = whole.marks(whole.genes)
    for other in toy_slides[1:]:
        assert other.fingerprint != whole.fingerprint
        assert not other.among(training).any()
        n = min(len(other), len(whole))
        lattice = replace(other.take(np.arange(n)), centers_px=whole.centers_px[:n], frame=whole.frame)
        assert not lattice.among(training).any()


def test_the_fingerprint_is_of_counts_by_gene_in_any_order(whole):
    turned = replace(whole, counts=Counts.of(whole.counts.toarray()[:, ::-1]), var_names=whole.var_names[::-1])
    assert turned.fingerprint == whole.fingerprint == whole.take(np.arange(len(whole))[::-1]).fingerprint
    renamed = replace(whole, var_names=whole.var_names[::-1])
    assert len({whole.fingerprint, renamed.fingerprint, without(whole, whole.genes[:1]).fingerprint}) == 3
