"""Several fits in one folder: read as they were saved, and nothing that was changed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import ridge
from sq_imputer.predictor import folder as _folder

PLAN = sqi.Plan(device="cpu", progress=False)
CONFIG = ridge.Config(context_um=(), per_section=False)


@pytest.fixture
def several(source):
    """A model of three, which tell themselves apart by their penalties."""
    one, *others = (ridge.Model(replace(CONFIG, alpha=alpha)).fit(source, PLAN) for alpha in (0.1, 1.0, 9.0))
    for k, model in enumerate((one, *others)):
        model.provenance |= {"resolution": k + 1.0, "resolutions": [1.0, 2.0, 3.0]}
    one.coarser = tuple(others)
    return one


def test_all_are_read_as_they_were_saved(several, source, tmp_path):
    several.save(tmp_path)
    read = sqi.load(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and read.sha256 == several.sha256
    assert [model.provenance["resolution"] for model in read.coarser] == [2.0, 3.0]
    for mine, theirs in zip((read, *read.coarser), (several, *several.coarser), strict=True):
        assert torch.equal(mine.predict(source, device="cpu").mean, theirs.predict(source, device="cpu").mean)
        assert len(mine.training_rows) == 1 and mine.provenance == theirs.provenance
    assert "read at '1.0', '2.0', '3.0'" in repr(read)
    read.coarser[1].save(tmp_path)  # one alone replaces them
    assert sqi.load(tmp_path).sha256 == several.coarser[1].sha256 and not sqi.load(tmp_path).coarser


def test_a_model_fitted_anew_has_none_beside_it(several, source):
    assert several.coarser and not several.fit(source, PLAN).coarser


def test_a_coarser_one_that_cannot_be_used_is_not_saved(several, tmp_path):
    next(iter(several.coarser[0].buffers())).fill_(torch.nan)
    with pytest.raises(sqi.BadInput, match="'ridge' is not saved.*coarser.0."):
        several.save(tmp_path)


@pytest.mark.parametrize("told", [[], [{}], {"a": 1}, [{"sizes": {}, "provenance": {}, "history": 1}]])
def test_what_is_told_wrongly_of_them_is_refused(several, tmp_path, told):
    several.save(tmp_path)
    settings = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(_folder.sealed(settings | {"coarser": told})))
    with pytest.raises(sqi.BadInput, match="'coarser' is not what it should be|resolution that model.json does not"):
        sqi.load(tmp_path)
