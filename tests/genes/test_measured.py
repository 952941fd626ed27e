"""What is expressed of genes: columns of a table, or what the rows of an AnnData have together."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

import sq_imputer as sqi
from sq_imputer.genes.measured import expressed

COUNTS = np.array([[1, 0, 9], [3, 0, 7], [0, 5, 5]])


def cells(values=COUNTS) -> anndata.AnnData:
    obs = pd.DataFrame({"type": ["b", "a", "b"]}, index=list("xyz"))
    var = pd.DataFrame({"gene_ids": ["E1", "E2", "E3"]}, index=["G1", "G2", "G3"])
    return anndata.AnnData(csr_matrix(values.astype(np.float32)), obs=obs, var=var)


def test_numbers_of_a_table_are_the_contexts():
    table = pd.DataFrame({"chrom": ["1", "1"], "tss": [3, 4], "K562": [1.0, np.nan], "H1": [3, 4]}, index=["A", "B"])
    found = expressed(table, None, None, None)
    assert found.names == ["A", "B"] and found.contexts == ("K562", "H1") and found.unit == "as given"
    assert found.values.dtype == np.float32 and np.isnan(found.values[1, 0])
    assert expressed(table, (), None, None).values is None
    one = expressed(table, "H1", None, "log10 CAGE")
    assert one.contexts == ("H1",) and one.unit == "log10 CAGE" and one.values.tolist() == [[3], [4]]


def test_counts_are_summed_over_the_rows_of_a_context():
    found = expressed(cells(), "type", None, None)
    assert found.contexts == ("a", "b") and found.unit == "log1p_cp10k" and found.ids == ["E1", "E2", "E3"]
    assert np.allclose(found.values[:, 0], np.log1p(1e4 * COUNTS[1] / 10))
    assert np.allclose(found.values[:, 1], np.log1p(1e4 * (COUNTS[0] + COUNTS[2]) / 20))
    every = expressed(cells(), None, None, None)
    assert every.contexts == ("expression",) and np.allclose(every.values[:, 0], np.log1p(1e4 * COUNTS.sum(0) / 30))


def test_other_values_are_averaged_and_rows_without_a_label_left_out():
    adata = cells(COUNTS / 2)
    adata.layers["own"] = adata.X
    adata.obs["type"] = pd.Categorical(["b", None, "b"])
    found = expressed(adata, "type", "own", None)
    assert found.contexts == ("b",) and found.unit == "mean of own"
    assert np.allclose(found.values[:, 0], (COUNTS[0] + COUNTS[2]) / 4)


def test_what_cannot_be_a_target_is_said():
    table = pd.DataFrame({"y": [1.0, 2.0], "chrom": ["1", "1"]}, index=["A", "A"])
    with pytest.raises(sqi.BadInput, match="genes twice: 'A'"):
        expressed(table, None, None, None)
    with pytest.raises(sqi.MissingKey, match="no column 'z' to predict; the table has 'y', 'chrom'"):
        expressed(table, ["y", "z"], None, None)
    with pytest.raises(sqi.MissingKey, match="no column none to predict"):
        expressed(table[["chrom"]], None, None, None)
    with pytest.raises(sqi.BadInput, match="table is a dict"):
        expressed({}, None, None, None)
    with pytest.raises(sqi.MissingKey, match="no layer 'raw'"):
        expressed(cells(), None, "raw", None)
    with pytest.raises(sqi.MissingKey, match="no 'cluster' in obs; it has 'type'"):
        expressed(cells(), "cluster", None, None)
    with pytest.raises(sqi.BadInput, match="NaN or infinite"):
        expressed(cells(COUNTS * np.nan), None, None, None)
    with pytest.raises(sqi.MissingKey, match="has no X"):
        expressed(anndata.AnnData(obs=cells().obs, var=cells().var), None, None, None)
