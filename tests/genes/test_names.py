"""A gene is one gene by any of its names, and two genes of one name are two."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import sq_imputer as sqi
from sq_imputer.genes.names import check_ids, columns_by_name, symbols_of, unversioned
from sq_imputer.genes.panel import columns_for

P53, ACTB = "ENSG00000141510", "ENSG00000075624"


def test_ensembl_ids_lose_their_version_and_other_names_nothing():
    assert unversioned(f"{P53}.17") == P53 and unversioned("ENSMUSG00000059552.14") == "ENSMUSG00000059552"
    assert unversioned(f"{P53}.17_PAR_Y") == f"{P53}_PAR_Y"
    assert [unversioned(name) for name in ("RP11-34P13.7", "HLA-A", P53, "NM_000546.6")] == [
        "RP11-34P13.7",
        "HLA-A",
        P53,
        "NM_000546.6",
    ]


def test_symbols_and_ids_name_the_same_columns_and_a_symbol_goes_first():
    found = columns_by_name(["TP53", P53], [f"{P53}.17", ACTB])
    assert found == {"TP53": 0, f"{P53}.17": 0, P53: 1, ACTB: 1}
    assert columns_for([f"{ACTB}.1", "TP53"], ["TP53", "ACTB"], "here", [f"{P53}.17", ACTB]) == [1, 0]
    with pytest.raises(sqi.BadInput, match="by symbol and by id: 'TP53', 'ENSG00000141510'"):
        columns_for(["TP53", P53], ["TP53", "ACTB"], "here", [P53, ACTB])


def test_a_symbol_of_several_genes_merges_none():
    with pytest.warns(UserWarning, match="1 symbols stand for several genes: 'A'; these keep their ids"):
        assert symbols_of(["i1", "i2", "i3", "i4"], ["A", "A", "B", None]) == ["i1", "i2", "B", "i4"]


def test_one_name_of_two_ids_in_two_sections_is_said():
    ids = {"S1": {"A": f"{P53}.1", "B": ACTB}, "S2": {"A": f"{P53}.2", "B": "ENSG00000000001"}, "S3": {}}
    with pytest.warns(UserWarning, match="1 of 2 genes have different gene_ids in the sections: 'B .ENSG"):
        check_ids(ids, ["A", "B"])


def test_symbols_are_a_column_of_var_as_in_scanpy(section):
    table = section.tables["table"]
    table.var["symbol"] = table.var_names.to_numpy()
    table.var_names = [f"ENSG{k:011d}" for k in range(table.n_vars)]
    slide = sqi.Slide.from_sdata(section, gene_symbols="symbol")
    by_id = sqi.Slide.from_sdata(section).with_genes(["ENSG00000000003", "ENSG00000000000"]).expression
    mixed = [table.var["symbol"].iloc[3], "ENSG00000000000.5"]
    np.testing.assert_array_equal(slide.with_genes(mixed).expression, by_id)
    with pytest.raises(sqi.MissingKey, match="no 'symbols' in var of table 'table'; it has .*'symbol'"):
        sqi.Slide.from_sdata(section, gene_symbols="symbols")


def test_rows_without_counts_are_not_measured(section):
    table = section.tables["table"]
    counts = table.X.toarray()
    counts[:7] = 0
    table.X = csr_matrix(counts)
    with pytest.warns(UserWarning, match="7 of 59 rows of section 'P1' have no counts and are taken as not measured"):
        slide = sqi.Slide.from_sdata(section).with_genes(["NUC1"])
    assert not slide.measured[:7].any() and slide.measured[7:].all()
    assert np.isnan(slide.expression[:7]).all() and np.isfinite(slide.expression[7:]).all()


def test_a_model_that_meets_other_names_or_a_cut_library_says_so(section):
    config = {"size_px": 32, "context_um": ()}
    other = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=12)["P1"]
    model = sqi.tl.fit(other, "ridge", genes=["NUC1", "GLD1"], config=config)
    table = section.tables["table"]
    section.tables["table"] = table[:, ["NUC1", "GLD1", "HK1"]].copy()
    with pytest.warns(UserWarning, match="has 3 genes, those of the training sections had 60 or more"):
        sqi.tl.predict(section, model)
    table.var_names = [name.capitalize() for name in table.var_names]
    section.tables["table"] = table
    with pytest.warns(UserWarning, match="2 of 2 genes of the model are not in the table of section 'P1', 2 match but"):
        sqi.tl.predict(section, model, key_added="again")
    assert not section.tables["again"].obs["measured"].any()


def test_what_was_predicted_by_symbols_is_scored_by_symbols(section):
    expected = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    how = {"genes": ["NUC1", "GLD1"], "config": {"size_px": 32, "context_um": ()}}
    sqi.tl.predict(expected, "ridge", **how)
    table = section.tables["table"]
    table.var["symbol"] = table.var_names.to_numpy()
    table.var_names = [f"ENSG{k:011d}" for k in range(table.n_vars)]
    sqi.tl.predict(section, "ridge", gene_symbols="symbol", **how)
    mine, other = (sqi.tl.score(sdata, baselines=False) for sdata in (section, expected))
    np.testing.assert_allclose(mine["pearson"], other["pearson"], atol=1e-6)
    np.testing.assert_allclose(mine["ceiling"], other["ceiling"], atol=1e-6)
