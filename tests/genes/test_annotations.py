"""What is written about genes is read as text, within bounds."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from knowing import P53, cosine

import sq_imputer as sqi
from sq_imputer import GeneKnowledge
from sq_imputer.genes.annotations import read_chromosomes, read_kinds


def test_gene_info_gives_texts_synonyms_and_ids(gene_info):
    knowledge = GeneKnowledge.from_gene_info(gene_info)
    assert knowledge.names == ("TP53", "KRT5", "KRT14") and knowledge.rows([P53, "EBS2"]) == [0, 1]
    assert cosine(knowledge, "KRT5", "KRT14") > cosine(knowledge, "KRT5", "TP53") + 0.2
    with pytest.raises(sqi.BadInput, match="lacks the columns 'Synonyms'"):
        gene_info.write_text("Symbol\tdbXrefs\tdescription\tOther_designations\n")
        GeneKnowledge.from_gene_info(gene_info)


def test_gene_info_says_on_which_chromosome_a_gene_lies(tmp_path):
    lines = ["Symbol\tdbXrefs\tchromosome", f"TP53\tEnsembl:{P53}\t17", "KRT5\t-\t12", "LOST\t-\t-"]
    (tmp_path / "info.tsv").write_text("\n".join(lines))
    assert read_chromosomes(tmp_path / "info.tsv") == {"TP53": "17", P53: "17", "KRT5": "12"}
    (tmp_path / "info.tsv").write_text("Symbol\tdbXrefs")
    with pytest.raises(sqi.BadInput, match="lacks the columns 'chromosome'"):
        read_chromosomes(tmp_path / "info.tsv")


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8bdamaged", b"\xff\xfe\x00", gzip.compress(b"A\tb" * 99, mtime=0)[:-20]],
    ids=["no gzip", "no text", "cut off"],
)
def test_damaged_files_are_said_to_be(tmp_path, content):
    (tmp_path / "texts.tsv").write_bytes(content)
    with pytest.raises(sqi.BadInput, match="is damaged, or no text in UTF-8"):
        GeneKnowledge.from_descriptions(tmp_path / "texts.tsv")
    with pytest.raises(sqi.MissingKey, match="no file"):
        GeneKnowledge.from_gene_sets(tmp_path / "nothing.gmt")


def test_large_files_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("sq_imputer.untrusted.MOST_TEXT", 1000)
    monkeypatch.setattr("sq_imputer.untrusted.MOST_UNPACKED", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"A\t" + b"b" * 5000))
    with pytest.raises(sqi.BadInput, match="more than 1000 bytes once it is unpacked"):
        GeneKnowledge.from_descriptions(tmp_path / "bomb.gz")
    np.savez_compressed(tmp_path / "bomb.npz", names=np.array(["A"]), vectors=np.zeros((1, 5000)))
    with pytest.raises(sqi.BadInput, match="'vectors' in .* has more than 1000 bytes"):
        GeneKnowledge.from_npz(tmp_path / "bomb.npz")


def test_gene_info_says_what_kind_of_gene_it_is(tmp_path):
    (tmp_path / "info.tsv").write_text("Symbol\ttype_of_gene\nTP53\tprotein-coding\nX\t-\n")
    assert read_kinds(tmp_path / "info.tsv") == {"TP53": "protein-coding"}
