"""Windows that are trained on share no base with those that are tested."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.genes.apart import check_split, split_by_chromosome
from sq_imputer.genes.windows import GeneWindows
from sq_imputer.scores.splits import by_patient

CHROMS = {"chr1": "ACGT" * 500, "chr2": "GATTACA" * 200, "chr3": "C" * 900}


def windows(length: int = 100, strand: str = "keep") -> GeneWindows:
    places = {"chrom": ["chr1"] * 5 + ["chr2", "chr2", "chr3"], "tss": [100, 150, 251, 900, 1900, 100, 900, 100]}
    table = pd.DataFrame({**places, "strand": ["+", "-"] * 4, "y": np.arange(8.0)}, index=list("abcdefgh"))
    return GeneWindows.from_table(table, CHROMS, length=length, strand=strand)


def test_whole_chromosomes_are_tested():
    train, test = split_by_chromosome(windows(), ("chr2", "chr3"))
    assert [part.section for part in train] == ["chr1"] and [part.section for part in test] == ["chr2", "chr3"]
    check_split(train, test)
    assert len(split_by_chromosome(windows(), "chr2")[1]) == 1
    parts = windows().by_chromosome()
    assert [split.name for split in by_patient([part.group for part in parts])] == ["chr1", "chr2", "chr3"]


def test_chromosomes_without_genes_and_splits_without_training_are_said():
    with pytest.raises(sqi.MissingKey, match="no genes on 'chrX'; there are some on 'chr1', 'chr2', 'chr3'"):
        split_by_chromosome(windows(), ("chr1", "chrX"))
    with pytest.raises(sqi.MissingKey, match="no genes on none"):
        split_by_chromosome(windows(), ())
    with pytest.raises(sqi.BadInput, match="all chromosomes are tested"):
        split_by_chromosome(windows(), tuple(CHROMS))


def test_windows_that_share_a_base_are_an_error_that_names_them():
    """a is at 100, b at 150, c at 251: windows of 100 bp of a and b overlap, those of b and c just do not."""
    found = windows()
    check_split(found[[0, 1]], found[[2, 3, 4]])
    told = r"windows of 1 tested genes overlap windows that are trained on, such as 'b' and 'a'. Split by whole"
    with pytest.raises(sqi.BadInput, match=told):
        check_split(found[[0]], found[1:])
    with pytest.raises(sqi.BadInput, match="'c' and 'b'"):
        check_split(windows(102)[[0, 1]], windows(102)[[2]])
    with pytest.raises(sqi.BadInput, match="such as 'c' and 'b'"):  # one side has longer windows
        check_split([windows(104)[[1]]], [windows(100)[[2]]])


@pytest.mark.parametrize("strand", ["keep", "reverse_complement"])
@pytest.mark.parametrize("length", [7, 50, 101, 400])
def test_overlaps_are_those_of_the_bases_themselves(length, strand):
    found = windows(length, strand)
    train, test = found[[0, 3, 5, 7]], found[[1, 2, 4, 6]]
    spans = {
        name: (chrom, set(range(*found.cut.span(k, length))))
        for k, (name, chrom) in enumerate(zip(found.names, found.cut.chroms, strict=True))
    }
    shared = {t for t in test.names for s in train.names if spans[t][0] == spans[s][0] and spans[t][1] & spans[s][1]}
    if shared:
        with pytest.raises(sqi.BadInput, match=f"windows of {len(shared)} tested genes"):
            check_split(train, test)
    else:
        check_split(train, test)


def test_a_sequence_is_on_one_side():
    found = GeneWindows.from_sequences(["ACGT", "GGTT", "ACGT"], names=["x", "y", "z"], group=["a", "b", "c"])
    check_split(found[[0]], found[[1]])
    with pytest.raises(
        sqi.BadInput, match="1 tested sequences are trained on as well, such as 'z', which is 'x'. Give equal"
    ):
        split_by_chromosome(found, "c")
    check_split(found, windows())  # a genome's windows and sequences at hand are not compared
    split_by_chromosome(GeneWindows.from_sequences(["N", "N"], group=["a", "b"]), "b")  # of which no base is known
