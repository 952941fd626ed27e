from __future__ import annotations

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.contract import Batch
from sq_imputer.pixels.chunks import Tiles
from sq_imputer.predictor.held import Held, hold

PLAN = sqi.Plan(device="cpu", epochs=2, validation=0.25, refit=True)


@pytest.fixture
def nsl(toy_slides):
    """An unfitted model of pixels that knows its genes, as while it is fitted."""
    model = sqi.get_model("nsl")()
    model.genes = toy_slides[0].genes
    return model


def read(source, needs, rows, **how) -> Batch:
    batch = Batch.cat(list(source.batches(needs, 5, rows=rows, **how)))
    return batch[torch.argsort(batch.index)]


def test_rows_in_memory_are_those_of_the_source(nsl, toy_slides):
    held = hold(nsl, toy_slides, 100, shown=False)
    assert [one.section for one in held] == [slide.section for slide in toy_slides] and len(held[1]) == len(
        toy_slides[1]
    )
    for one, slide in zip(held, toy_slides, strict=True):
        for rows in (np.flatnonzero(slide.measured), np.flatnonzero(slide.measured)[[7, 3]]):
            found, expected = read(one, nsl.needs, rows), read(slide, nsl.needs, rows)
            for name in ("index", "crops", "expression", "xy_um", "section"):
                assert torch.equal(getattr(found, name), getattr(expected, name)), name
    shuffled = [
        Batch.cat(list(held[0].batches(nsl.needs, 5, generator=np.random.default_rng(k)))).index for k in (0, 0, 1)
    ]
    assert torch.equal(shuffled[0], shuffled[1]) and not torch.equal(shuffled[0], shuffled[2])


def test_what_does_not_fit_or_is_made_of_features_is_not_held(nsl, toy_slides):
    assert not any(isinstance(one, Held) for one in hold(nsl, toy_slides, 0, shown=False))
    ridge = sqi.get_model("ridge")()
    assert not any(isinstance(one, Held) for one in hold(ridge, toy_slides, 100, shown=False))


def test_a_fit_reads_the_chunks_of_its_rows_once(nsl, toy_slides, monkeypatch):
    tiles = []
    decode = Tiles._read
    monkeypatch.setattr(Tiles, "_read", lambda self, i, j: tiles.append((self.name, i, j)) or decode(self, i, j))
    for slide in toy_slides[:2]:
        slide.check(nsl.needs)  # which looks at a few crops
    tiles.clear()
    sqi.get_model("nsl")().fit(toy_slides[:2], PLAN)
    once = sum(slide.crops(nsl.needs.crop).n_chunks for slide in toy_slides[:2])
    assert len(tiles) == once


def test_in_memory_or_streamed_the_statistics_are_the_same(toy_slides):
    fits = [
        sqi.get_model("nsl")().fit(toy_slides[:2], sqi.Plan(device="cpu", epochs=1, memory_mb=mb)) for mb in (0, 100)
    ]
    for name in ("expression_mean", "expression_std"):
        assert torch.equal(*(getattr(model, name) for model in fits))
    parts = [model.applicability.state_dict() for model in fits]
    assert all(torch.allclose(parts[0][name], parts[1][name], atol=1e-4) for name in parts[0])
