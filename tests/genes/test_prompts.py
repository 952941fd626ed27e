"""Prompts of genes say what is known of them in a fixed order, and not where they lie."""

from __future__ import annotations

import gzip

import pytest

import sq_imputer as sqi
from sq_imputer.genes.prompts import as_bytes, gene_prompts, text_of, words_of

SETS = {
    "keratinization (GO:0031424)": ["KRT5", "KRT14"],
    "HALLMARK_P53_PATHWAY": ["TP53", "P53", "KRT5", "X1"],
    "alone": ["EBS2"],
}


def test_a_prompt_has_its_parts_in_order(gene_info):
    found = gene_prompts(gene_info, SETS)
    assert found["KRT5"] == "expression of KRT5; keratin 5; in about 2 sets; p53 pathway; keratinization; alone"
    assert found["TP53"].endswith("in about 1 sets; p53 pathway; also called cellular tumor antigen p53")
    assert gene_prompts(gene_info, SETS, most_sets=1)["KRT5"].endswith("in about 2 sets; p53 pathway")
    assert gene_prompts(gene_info)["KRT5"] == "expression of KRT5; keratin 5"


def test_genes_are_found_by_synonym_and_id_and_keep_their_name(gene_info):
    found = gene_prompts(gene_info, SETS, genes=["P53", "ENSG00000141510.17", "NEW1"])
    assert found["P53"] == found["ENSG00000141510.17"] and found["P53"].startswith("expression of TP53; tumor protein")
    assert found["NEW1"] == "expression of NEW1; in about 0 sets"


def test_the_kind_of_gene_is_said_and_its_chromosome_is_not(tmp_path):
    columns = "Symbol\tSynonyms\tdbXrefs\tchromosome\tdescription\ttype_of_gene\tOther_designations"
    path = tmp_path / "info.gz"
    path.write_bytes(gzip.compress(f"{columns}\nMIR21\t-\t-\t17\tmicroRNA 21\tprotein-coding\t-".encode()))
    assert gene_prompts(path) == {"MIR21": "expression of MIR21; microRNA 21; protein coding"}


def test_names_of_sets_are_words():
    assert words_of("REACTOME_CELL_CYCLE") == "cell cycle" and words_of("ossification (GO:0001503)") == "ossification"
    with pytest.raises(sqi.BadInput, match="most_sets is -1"):
        gene_prompts("nowhere", most_sets=-1)


def test_texts_are_bytes_and_back_and_what_is_cut_off_is_no_half_letter():
    found = as_bytes(["zinc", "", "Förster"], 2)
    assert found.shape == (3, 2) and [text_of(row) for row in found] == ["zi", "", "F"]
    assert [text_of(row) for row in as_bytes(["zinc", "Förster"], 20)] == ["zinc", "Förster"]
