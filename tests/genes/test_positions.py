"""Start sites from GTF, GFF3, BED and tables; genes found by name; what is of another build."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.genes.genome import Genome
from sq_imputer.genes.positions import place, read_annotation

GENOME = Genome({"chr1": "ACGT" * 250, "chr2": "ACGT" * 50})
GTF = """#!genome-build Some1
chr1\tx\tgene\t101\t200\t.\t+\t.\tgene_id "ENSG00000000001.3"; gene_name "AA"; gene_type "p";
chr1\tx\texon\t101\t120\t.\t+\t.\tgene_id "ENSG00000000001.3"; gene_name "AA";
chr2\tx\tgene\t11\t20\t.\t-\t.\tgene_id "ENSG00000000002.1"; gene_name "BB";
chr1\tx\tgene\t301\t310\t.\t+\t.\tgene_id "ENSG00000000003.1"; gene_name "TWICE";
chr1\tx\tgene\t401\t410\t.\t+\t.\tgene_id "ENSG00000000004.1"; gene_name "TWICE";
"""
GFF = """##gff-version 3
##sequence-region chr1 1 1000
chr1\tx\tgene\t101\t200\t.\t+\t.\tID=gene:ENSG00000000001;Name=AA
chr1\tx\tmRNA\t101\t200\t.\t+\t.\tID=transcript:T1;Parent=gene:ENSG00000000001
chr2\tx\tncRNA_gene\t11\t20\t.\t-\t.\tID=gene:ENSG00000000002;Name=BB
##FASTA
>chr1
ACGT
"""
BED = "chr1\t100\t200\tAA\t0\t+\nchr2\t10\t20\tBB\t0\t-\nchr1\t300\t301\tCC\t0\t.\n"
TRANSCRIPTS = """chr1\tx\ttranscript\t151\t200\t.\t+\t.\tgene_id "AA"; transcript_id "t1";
chr1\tx\ttranscript\t101\t180\t.\t+\t.\tgene_id "AA"; transcript_id "t2";
chr2\tx\texon\t11\t15\t.\t-\t.\tgene_id "BB"; transcript_id "t3";
chr2\tx\texon\t18\t20\t.\t-\t.\tgene_id "BB"; transcript_id "t3";
"""


def written(tmp_path, text: str, name: str = "some.file", packed: bool = False):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", [GTF, GFF, BED, TRANSCRIPTS])
def test_a_gene_starts_at_its_first_base_on_its_own_strand(text, packed, tmp_path):
    found = place(["BB", "AA"], [], written(tmp_path, text, packed=packed), GENOME)
    assert found.rows.tolist() == [0, 1] and found.chroms.tolist() == ["chr2", "chr1"]
    assert found.tss.tolist() == [19, 100] and found.strands.tolist() == ["-", "+"]


def test_a_table_has_them_as_columns():
    table = pd.DataFrame({"chrom": ["chr1", "chr2"], "tss": [100.0, np.nan], "strand": ["+", "-"]}, index=["AA", "BB"])
    with pytest.warns(UserWarning, match="1 of 2 genes are left out: 'BB'. the table of positions has no start site"):
        found = place(["AA", "BB"], [], table, GENOME)
    assert found.rows.tolist() == [0] and found.tss.tolist() == [100]
    with pytest.raises(sqi.MissingKey, match="no column 'strand'.*Pass annotation="):
        place(["AA"], [], table.drop(columns="strand"), GENOME)
    for odd in ({"strand": ["+", "plus"], "tss": [1, 2]}, {"tss": [1.5, 2]}):
        with pytest.raises(sqi.BadInput, match="has .*'tss' is not whole|column 'strand' has 'plus'"):
            place(["AA"], [], table.assign(**odd), GENOME)


def test_genes_are_found_by_symbol_or_id_and_never_by_a_guess(tmp_path):
    path = written(tmp_path, GTF)
    asked = ["ENSG00000000001", "ENSG00000000004.9", "TWICE", "aa"]
    with pytest.warns(UserWarning, match=r"2 of 4 genes are left out: 'TWICE', 'aa'.*stands for several genes \(pass"):
        found = place(asked, [], path, GENOME)
    assert found.rows.tolist() == [0, 1] and found.tss.tolist() == [100, 400]
    ids = ["x", "x", "ENSG00000000003.2", "ENSG00000000002"]
    assert place(asked, ids, path, GENOME).tss.tolist() == [100, 400, 300, 19]
    with pytest.raises(sqi.BadInput, match="none of the 2 genes, such as 'aa', 'bb'.*2 match but for case"):
        place(["aa", "bb"], [], path, GENOME)


def test_a_second_copy_on_chromosome_y_does_not_hide_a_symbol(tmp_path):
    """GENCODE lists the genes that X and Y share twice, with one symbol."""
    copy = 'chr2\tx\tgene\t51\t60\t.\t+\t.\tgene_id "ENSG00000000001.3_PAR_Y"; gene_name "AA";\n'
    path = written(tmp_path, GTF + copy)
    assert place(["AA", "ENSG00000000001.3_PAR_Y"], [], path, GENOME).tss.tolist() == [100, 50]


def test_the_symbol_of_a_yeast_gene_is_its_standard_name(tmp_path):
    path = written(tmp_path, "chr1\tSGD\tgene\t11\t20\t.\t+\t.\tID=YAL069W;Name=YAL069W;gene=FLO9\n")
    assert place(["FLO9", "YAL069W"], [], path, GENOME).tss.tolist() == [10, 10]


def test_genes_on_chromosomes_that_the_genome_lacks_are_left_out(tmp_path):
    path = written(tmp_path, BED + "KI27\t5\t6\tDD\t0\t+\n")
    with pytest.warns(UserWarning, match="1 of 2 genes are left out: 'DD'"):
        assert place(["AA", "DD"], [], path, GENOME).rows.tolist() == [0]


def test_other_names_other_lengths_and_positions_beyond_the_end_are_errors(tmp_path):
    short = written(tmp_path, BED.replace("chr", ""))
    with pytest.raises(sqi.BadInput, match="calls chromosomes '1', '2'.*pass rename='chr'"):
        place(["AA"], [], short, GENOME)
    assert place(["AA"], [], short, GENOME, lambda name: f"chr{name}").tss.tolist() == [100]
    longer = written(tmp_path, GFF.replace("chr1 1 1000", "chr1 1 1001"))
    with pytest.raises(sqi.BadInput, match="says that 'chr1' has 1,001 bases, and the genome has 1,000"):
        place(["AA"], [], longer, GENOME)
    beyond = written(tmp_path, "chr2\t300\t301\tAA\t0\t+\n")
    with pytest.raises(sqi.BadInput, match="1 positions beyond the end of 'chr2', such as 301 of 200 bases"):
        place(["AA"], [], beyond, GENOME)


@pytest.mark.parametrize("said", ["#!genome-build GRCh37.p13", "##description: human genome (GRCh37), version 19"])
def test_the_build_that_an_annotation_names_is_that_of_the_genome(said, tmp_path):
    genome = Genome({"chr1": "ACGT" * 250, "chr2": "ACGT" * 50})
    path = written(tmp_path, f"{said}\n{GTF}")
    assert read_annotation(path).build == "hg19" and place(["AA"], [], path, genome).tss.tolist() == [100]
    genome.lengths["chr1"] = 249_250_621
    assert place(["AA"], [], path, genome).tss.tolist() == [100]
    genome.lengths["chr1"] = 248_956_422
    with pytest.raises(sqi.BadInput, match="is of hg19, and the genome of hg38. Pass both of one build"):
        place(["AA"], [], path, genome)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no genes in"),
        ("a line\tof\ttext\n", "has the line 'a line"),
        ("chr1\t10\t20\tAA\n", "no strand for 'AA', of 10 bases.*sixth column"),
        ("chr1\t10\t11\tAA\nchr1\t20\t21\tAA\n", "has 'AA' at two places"),
    ],
)
def test_what_is_no_annotation_is_said(text, message, tmp_path):
    with pytest.raises(sqi.BadInput, match=message):
        read_annotation(written(tmp_path, text))


def test_a_damaged_or_missing_file_is_said(tmp_path):
    path = written(tmp_path, BED * 100, packed=True)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(sqi.BadInput, match="is damaged"):
        read_annotation(path)
    with pytest.raises(sqi.MissingKey, match="no file"):
        read_annotation(tmp_path / "none.gtf")
