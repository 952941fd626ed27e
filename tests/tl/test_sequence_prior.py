from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dna import SMALL, small_model, windows_of

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey

HOW = {"config": SMALL, "n_folds": 2, "progress": False, "device": "cpu"}


def test_acceptance_11_genes_get_a_prior_out_of_fold_that_survives_the_store(stored, tmp_path):
    import spatialdata

    windows = windows_of(stored)
    sqi.tl.sequence_prior(stored, windows, **HOW)
    table = stored.tables["table"]
    var, names = table.var, list(windows.names)
    assert var.loc[names, ["seq2exp", "seq2exp_std"]].notna().all().all() and (var["seq2exp_std"].dropna() > 0).all()
    others = ~var.index.isin(names)
    assert var.loc[others, "seq2exp"].isna().all() and (var.loc[others, "seq2exp_fold"] == -1).all()
    assert set(var.loc[names, "seq2exp_fold"]) == {0, 1}
    assert np.isfinite(table.varm["X_seq2exp"][~others]).all() and table.varm["X_seq2exp"].shape == (table.n_vars, 8)
    again = spatialdata.read_zarr(stored.path).tables["table"]
    np.testing.assert_array_equal(again.varm["X_seq2exp"], table.varm["X_seq2exp"])
    assert again.var.equals(var)
    record, kept = (sqi.io.pythonic(one.uns["sq_imputer"]["seq2exp"]) for one in (table, again))
    assert record == kept and sorted(record["trained_on"]) == sorted(names)
    assert record["how"] == "out of fold by chromosome" and record["windows"]["fingerprint"] == windows.fingerprint
    fold = var["seq2exp_fold"]
    for k, one in record["models"].items():
        chroms = set(windows.cut.labels[np.isin(names, var.index[fold == int(k)])])
        assert not chroms & set(one["chromosomes"])


def test_vectors_of_the_prior_are_knowledge_of_genes(section):
    windows = windows_of(section)
    sqi.tl.sequence_prior(section, windows, **HOW)
    table = section.tables["table"]
    told = sqi.GeneKnowledge(list(windows.names), table.varm["X_seq2exp"][: len(windows)], name="DNA")
    assert told.aligned(list(windows.names)).known.all()


def test_a_fitted_model_is_asked_about_genes_that_it_has_not_seen(section):
    windows, model = windows_of(section), small_model()
    sqi.tl.sequence_prior(section, windows, model, progress=False, device="cpu", key_added="dna")
    var = section.tables["table"].var
    assert (var["dna_fold"] == -1).all() and "dna_seen" not in var
    said = model.predict(windows, device="cpu").mean[:, 0].numpy()
    np.testing.assert_allclose(var.loc[windows.names, "dna"], said, rtol=1e-5)
    assert section.tables["table"].uns["sq_imputer"]["dna"]["how"] == "one fitted model"


def test_genes_that_it_has_seen_are_refused_or_marked(section):
    windows = windows_of(section)
    own = replace(windows, names=np.array([*windows.names[:28], "gene1", "gene2"], dtype=object))
    with pytest.raises(BadInput, match="trained on 2 of 30 genes: 'gene1', 'gene2'"):
        sqi.tl.sequence_prior(section, own, small_model(), progress=False)
    assert "seq2exp" not in section.tables["table"].var
    table = section.tables["table"]
    seen = sqi.get_model("seq2exp")(small_model().config).fit(windows.by_chromosome(), small_plan())
    sqi.tl.sequence_prior(section, windows, seen, progress=False, device="cpu", allow_seen=True)
    assert table.var["seq2exp_seen"].sum() == 30 and len(table.uns["sq_imputer"]["seq2exp"]["seen"]) == 30


def small_plan():
    from dna import PLAN

    return replace(PLAN, epochs=1)


def test_several_contexts_have_a_column_each(section):
    windows = windows_of(section)
    values = np.column_stack([windows.expression[:, 0], -windows.expression[:, 0]]).astype(np.float32)
    both = replace(windows, expression=values, genes=("liver", "T cell/1"))
    sqi.tl.sequence_prior(section, both, **HOW)
    found = [name for name in section.tables["table"].var if name.startswith("seq2exp")]
    assert found == ["seq2exp_liver", "seq2exp_liver_std", "seq2exp_1", "seq2exp_1_std", "seq2exp_fold"]


def test_what_cannot_be_done_is_refused_before_anything_is_fitted(section, monkeypatch):
    monkeypatch.setattr(sqi.get_model("seq2exp"), "fit", lambda *a: pytest.fail("fitted"))
    windows = windows_of(section)
    with pytest.raises(BadInput, match="windows is a dict; expected the DNA of genes"):
        sqi.tl.sequence_prior(section, {}, **HOW)
    with pytest.raises(MissingKey, match="no table 'none'"):
        sqi.tl.sequence_prior(section, windows, table_key="none", **HOW)
    with pytest.raises(BadInput, match="'ridge' reads images: it is asked by sq_imputer.tl.predict"):
        sqi.tl.sequence_prior(section, windows, "ridge")
    strange = replace(windows, names=np.array([f"none{k}" for k in range(30)], dtype=object))
    with pytest.raises(BadInput, match="none of the 30 windows"):
        sqi.tl.sequence_prior(section, strange, **HOW)
    with pytest.raises(BadInput, match="key_added is 'a b'"):
        sqi.tl.sequence_prior(section, windows, key_added="a b", **HOW)
    with pytest.raises(BadInput, match="measured on 1 chromosomes"):
        sqi.tl.sequence_prior(section, windows[windows.cut.labels == "chr1"], **HOW)
    section.tables["table"].var["seq2exp"] = 0.0
    with pytest.raises(BadInput, match="has 'seq2exp' already. Pass overwrite=True"):
        sqi.tl.sequence_prior(section, windows, **HOW)


@pytest.mark.parametrize("verb", ["predict", "fit"])
def test_verbs_of_spots_name_the_one_of_genes(section, verb):
    with pytest.raises(BadInput, match="'seq2exp' reads the DNA of genes: it is asked by sq_imputer.tl.sequence_prior"):
        getattr(sqi.tl, verb)(section, "seq2exp")
