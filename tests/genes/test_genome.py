"""Stretches of FASTA files, and what tells that two files are not of one genome."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.genes import genome as module
from sq_imputer.genes.genome import Genome, build_of, coded, other_strand, renamed

LETTERS = {"chr1": "ACGTNacgtn" * 12 + "GATTACA", "chr2": "TTTTT"}


def text(width: int = 10) -> str:
    lines = []
    for name, letters in LETTERS.items():
        lines += [f">{name} what else is said", *(letters[k : k + width] for k in range(0, len(letters), width))]
    return "\n".join(lines) + "\n"


@pytest.fixture(params=["plain", "gzipped", "letters"])
def genome(request, tmp_path) -> Genome:
    if request.param == "letters":
        return Genome(LETTERS)
    if request.param == "gzipped":
        path = tmp_path / "genome.fa.gz"
        path.write_bytes(gzip.compress(text().encode()))
        return Genome(path)
    pytest.importorskip("pyfaidx")
    path = tmp_path / "genome.fa"
    path.write_text(text())
    return Genome(path)


def test_any_stretch_is_as_the_file_has_it_and_unknown_beyond_the_ends(genome):
    whole = coded(LETTERS["chr1"])
    assert genome.lengths == {"chr1": 127, "chr2": 5}
    padded = np.concatenate([np.full(20, 4), whole, np.full(20, 4)])
    for start, end in ((0, 127), (9, 11), (10, 20), (19, 41), (-7, 3), (120, 140), (-20, 147), (126, 127), (60, 60)):
        assert genome.read("chr1", start, end).tolist() == padded[start + 20 : end + 20].tolist()
    assert genome.read("chr1", 500, 510).tolist() == [4] * 10 == genome.read("chr2", -30, -20).tolist()


def test_a_genome_is_told_by_its_bases_however_it_is_kept(genome):
    assert genome.fingerprint == Genome(LETTERS).fingerprint
    assert genome.fingerprint != Genome(LETTERS | {"chr2": "TTTTA"}).fingerprint


def test_bases_are_numbers_in_either_case():
    assert coded("ACGTacgtNnXR-").tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 4, 4, 4, 4]
    assert other_strand(coded("AACGN")).tolist() == coded("NCGTT").tolist()


def test_the_index_of_a_folder_that_may_not_be_written_is_not_left_behind(tmp_path, monkeypatch):
    pytest.importorskip("pyfaidx")
    path = tmp_path / "genome.fa"
    path.write_text(text())
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    assert Genome(path).read("chr1", 10, 14).tolist() == [0, 1, 2, 3]
    assert [one.name for one in tmp_path.iterdir()] == ["genome.fa"]


def test_an_index_that_does_not_fit_is_said(tmp_path):
    pytest.importorskip("pyfaidx")
    path = tmp_path / "genome.fa"
    path.write_text(text())
    (tmp_path / "genome.fa.fai").write_text("chr1\t100000\t30\t10\t11\n")
    with pytest.raises(sqi.BadInput, match="delete the '.fai' beside it"):
        Genome(path).read("chr1", 5000, 5100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "no sequences"),
        (b">\nACGT\n", "a sequence without a name"),
        (b">a\nAC\n>a\nAC\n", "'a' twice"),
        (b">a\n>b\nAC\n", "or empty ones"),
    ],
)
def test_what_is_no_fasta_is_said(content, message, tmp_path):
    path = tmp_path / "genome.fa.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(sqi.BadInput, match=message):
        Genome(path)


@pytest.mark.parametrize("piece", [3, 20, 1000])
def test_a_long_line_is_unpacked_in_parts(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    path = tmp_path / "genome.fa.gz"
    path.write_bytes(gzip.compress(f">c\n{LETTERS['chr1']}\n>d\nAC\n".encode()))
    genome = Genome(path)
    assert (
        genome.lengths == {"c": 127, "d": 2}
        and genome.fingerprint == Genome({"c": LETTERS["chr1"], "d": "AC"}).fingerprint
    )


def test_packages_that_are_missing_are_named_with_their_extra(tmp_path, monkeypatch):
    path = tmp_path / "genome.fa"
    path.write_text(text())
    monkeypatch.setitem(sys.modules, "pyfaidx", None)
    with pytest.raises(sqi.MissingKey, match=r"pyfaidx, .* is not installed; pip install 'sq-imputer\[genomics\]'"):
        Genome(path)


def test_a_damaged_or_missing_file_is_said(tmp_path, monkeypatch):
    path = tmp_path / "genome.fa.gz"
    path.write_bytes(gzip.compress(text().encode())[:-12])
    with pytest.raises(sqi.BadInput, match="is damaged"):
        Genome(path)
    with pytest.raises(sqi.MissingKey, match="no file"):
        Genome(tmp_path / "other.fa")
    path.write_bytes(gzip.compress(text().encode()))
    monkeypatch.setattr(module, "MOST_UNPACKED", 50)
    with pytest.raises(sqi.BadInput, match="more than 50 bases, too many for memory. Unpack it once"):
        Genome(path)


def test_lines_of_other_lengths_are_said(tmp_path):
    pytest.importorskip("pyfaidx")
    path = tmp_path / "genome.fa"
    path.write_text(">a\nACGTACGT\nAC\nACGTACGT\n")
    with pytest.raises(sqi.BadInput, match="no FASTA file that can be indexed"):
        Genome(path)


# Other genomes ------------------------------------------------------------------------------------


def test_names_that_differ_by_chr_are_an_error_with_the_fix():
    genome = Genome({"chr1": "ACGT", "chrM": "AC"})
    genome.check(["chr1", "scaffold_7"], "track 'a'")
    with pytest.raises(sqi.BadInput, match="calls chromosomes '1', 'MT', and the genome 'chr1'.*pass rename='chr'"):
        genome.check(["1", "MT"], "track 'a'")
    with pytest.raises(sqi.BadInput, match="NC_1.*Pass files of one genome, or rename="):
        genome.check(["NC_1"], "track 'a'")


def test_chromosomes_are_renamed_both_ways():
    ucsc, ensembl = {"chr1": 4, "chrM": 2}, {"1": 4, "MT": 2}
    assert [renamed(name, ucsc) for name in ("1", "MT", "chr1", "KI27")] == ["chr1", "chrM", "chr1", "KI27"]
    assert [renamed(name, ensembl) for name in ("chr1", "chrM", "1")] == ["1", "MT", "1"]


def test_another_build_is_told_by_the_length_of_chromosome_1():
    assert build_of({"chr1": 248_956_422}) == "hg38" and build_of({"1": 249_250_621}) == "hg19"
    assert build_of({"chr1": 5}) == "" == build_of({})
    genome = Genome({"chr1": "ACGT"})
    genome.lengths = {"chr1": 248_956_422, "chr2": 242_193_529}
    genome.check_lengths({"chr1": 248_956_422, "scaffold_7": 3}, "track 'a'")
    told = r"'chr1' has 249,250,621 bases, and the genome has 248,956,422 \(hg19 against hg38\); 1 of 2 chrom.* lift it"
    with pytest.raises(sqi.BadInput, match=told):
        genome.check_lengths({"chr1": 249_250_621, "scaffold_7": 3}, "track 'a'")
    with pytest.raises(sqi.BadInput, match=r"1 positions beyond .* 'chr1', such as 248,956,423 of 248,956,422"):
        genome.check_inside("chr1", np.array([5, 248_956_423]), "annotation 'a'")
    genome.check_inside("scaffold_7", np.array([10**9]), "annotation 'a'")
    assert repr(genome) == "Genome of 2 chromosomes, 491,149,951 bases (hg38) from letters"
