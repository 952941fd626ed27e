"""Genes that vary together, or are in the same sets, have vectors alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from knowing import P53, cosine

import sq_imputer as sqi
from sq_imputer import GeneKnowledge


def test_varm_and_its_ids_are_taken_from_an_anndata():
    adata = AnnData(np.zeros((3, 2)), var=pd.DataFrame({"gene_ids": [P53, "ENSG00000186081"]}, index=["TP53", "KRT5"]))
    adata.varm["emb"] = np.eye(2)
    assert GeneKnowledge.from_anndata(adata, "emb").aligned([f"{P53}.3"]).vectors.tolist() == [[1, 0]]
    with pytest.raises(sqi.MissingKey, match="no varm 'PCs'; the AnnData has 'emb'"):
        GeneKnowledge.from_anndata(adata, "PCs")
    adata.varm["emb"] = np.array([[np.nan, np.nan], [0, 1]])  # as of a gene without a window
    assert GeneKnowledge.from_anndata(adata, "emb").names == ("KRT5",)
    adata.varm["emb"][1, 0] = np.nan
    with pytest.raises(sqi.BadInput, match="NaN or infinite of 'KRT5'"):
        GeneKnowledge.from_anndata(adata, "emb")
    adata.varm["emb"][:] = np.nan
    with pytest.raises(sqi.BadInput, match="varm 'emb' is NaN of all 2 genes"):
        GeneKnowledge.from_anndata(adata, "emb")


@pytest.mark.parametrize("unit", ["counts", "logged"])
def test_loadings_of_a_reference_tell_genes_that_vary_together(unit):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 400)
    mean = np.stack([kind * 20, kind * 30, (1 - kind) * 20, (1 - kind) * 10, np.zeros(400)], axis=1) + 1.0
    values = rng.poisson(mean).astype(float)
    values[:, 4] = 0
    adata = AnnData(values if unit == "counts" else np.log1p(values / 3), var=pd.DataFrame(index=list("ABCDE")))
    knowledge = GeneKnowledge.from_anndata(adata, n_components=3)
    assert knowledge.names == ("A", "B", "C", "D") and knowledge.source.startswith("PCA loadings of 400 cells")
    assert ("log1p CP10k of counts" in knowledge.source) == (unit == "counts")
    assert min(cosine(knowledge, "A", "B"), cosine(knowledge, "C", "D")) > 0.5 > 0 > cosine(knowledge, "A", "C")


def test_genes_of_the_same_sets_are_alike(tmp_path):
    pathways = {f"S{k}": [f"G{k}{letter}" for letter in "abcdef"] for k in range(6)} | {"all": ["G0a"] * 9}
    knowledge = GeneKnowledge.from_gene_sets(pathways, n_components=5)
    assert "6 gene sets of 'a mapping'" in knowledge.source and knowledge.width == 5
    assert cosine(knowledge, "G1a", "G1f") > 0.99 and abs(cosine(knowledge, "G1a", "G2a")) < 0.6
    (tmp_path / "a.gmt").write_text("\n".join(f"{k}\tremark\t" + "\t".join(v) for k, v in pathways.items()))
    read = GeneKnowledge.from_gene_sets(tmp_path / "a.gmt", n_components=5)
    np.testing.assert_allclose(read.vectors, knowledge.vectors, atol=1e-6)
    with pytest.raises(sqi.BadInput, match="0 of 7 gene sets have 50 to 500 genes"):
        GeneKnowledge.from_gene_sets(pathways, fewest=50)
