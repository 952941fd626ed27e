"""`tl.predict` of genes that a fitted model has not seen: the layer, the column and the provenance say so."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.store.provenance import pythonic

NAMES = ["NUC1", "NUC2", "GLD1", "STR1", "LYM1", "IND1", "HK1", "ABSENT"]


@pytest.fixture(scope="module")
def sections():
    return list(sqi.datasets.toy(1, sections_per_patient=2, size_px=480, mpp=1.25, seed=11).values())


@pytest.fixture(scope="module")
def model(sections):
    knowledge = sqi.GeneKnowledge.lexical(NAMES)
    config = {"size_px": 32, "context_um": (), "calibration": 0}
    return sqi.tl.fit(sections[1], "bilinear", genes=NAMES[:5], config=config, knowledge=knowledge, device="cpu")


@pytest.fixture
def section(sections):
    return spatialdata.deepcopy(sections[0])


def test_genes_that_the_model_has_not_seen_are_written_and_marked(section, model):
    sqi.tl.predict(section, model, genes=["NUC1", "IND1", "ABSENT"])
    table = section.tables["imputed"]
    assert list(table.var["zero_shot"]) == [False, True, True] and "bilinear" not in table.layers
    for layer in ("bilinear_zero_shot", "bilinear_zero_shot_std"):
        assert np.isfinite(table.layers[layer]).all()
    measured = table.layers["measured"][table.obs["measured"]]
    assert np.isfinite(measured[:, 1]).all() and np.isnan(measured[:, 2]).all()
    record = pythonic(table.uns["sq_imputer"]["bilinear_zero_shot"])
    assert record["zero_shot"] == ["IND1", "ABSENT"] and record["trained_on"] == NAMES[:5]
    assert record["knowledge"]["name"] == "lexical" and record["genes"] == ["NUC1", "IND1", "ABSENT"]
    sqi.tl.predict(section, model, layer_added="again", genes=["NUC1", "IND1", "ABSENT"])
    assert list(section.tables["imputed"].var["zero_shot"]) == [False, True, True]


def test_genes_of_the_fit_alone_are_no_zero_shot(section, model):
    sqi.tl.predict(section, model, genes=NAMES[1:3])
    table = section.tables["imputed"]
    assert "zero_shot" not in table.var
    assert set(table.layers) - {None} == {"measured", "bilinear", "bilinear_std"}  # anndata 0.13 lists X as None


def test_a_saved_model_is_told_its_knowledge_again(section, model, tmp_path):
    model.save(tmp_path / "model")
    with pytest.raises(sqi.BadInput, match="Pass knowledge="):
        sqi.tl.predict(section, tmp_path / "model", genes=["IND1"])
    sqi.tl.predict(section, tmp_path / "model", genes=["IND1"], knowledge=sqi.GeneKnowledge.lexical(NAMES))
    assert section.tables["imputed"].var["zero_shot"].all()


def test_models_that_cannot_say_who_can(section, model):
    own = sqi.tl.fit(section, "ridge", genes=NAMES[:3], config={"size_px": 32, "context_um": ()}, device="cpu")
    with pytest.raises(sqi.BadInput, match="'bilinear', 'comtip' can be asked for others"):
        sqi.tl.predict(section, own, genes=["IND1"])
    with pytest.raises(sqi.BadInput, match="knows nothing of 1 of 2 genes: 'NOPE'"):
        sqi.tl.predict(section, model, genes=["IND1", "NOPE"])
