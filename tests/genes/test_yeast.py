"""Windows of the real genome of yeast: its genes, its chromatin, and a reporter assay of its promoters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer import GeneWindows, Needs
from sq_imputer.genes.apart import check_split, split_by_chromosome
from sq_imputer.genes.genome import Genome
from sq_imputer.genes.tracks import Track
from sq_imputer.nn.bases import composition

# Coding sequences as the Saccharomyces Genome Database has them, counted from 1, without introns.
CODING = {
    "PGK1": ("chrIII", 137746, 138996, "+"),
    "LEU2": ("chrIII", 91324, 92418, "+"),
    "URA3": ("chrV", 116167, 116970, "+"),
    "GAL1": ("chrII", 279021, 280607, "+"),
    "GAL10": ("chrII", 276253, 278352, "-"),
    "TDH3": ("chrVII", 882812, 883810, "-"),
    "ADH1": ("chrXV", 159548, 160594, "-"),
}
STOPS = ([3, 0, 0], [3, 0, 2], [3, 2, 0])  # TAA, TAG, TGA


@pytest.fixture(scope="module")
def dna(real_data) -> Path:
    if not (real_data / "dna").is_dir():
        pytest.skip("no DNA in the public data; set SQ_IMPUTER_DATA to a folder that has dna/")
    return real_data / "dna"


@pytest.fixture(scope="module")
def genome(dna) -> Genome:
    return Genome(dna / "sacCer3.fa.gz")


def annotation(path: Path, prefix: str = "chr") -> Path:
    line = '{}\tSGD\tgene\t{}\t{}\t.\t{}\t.\tgene_id "{}"; gene_name "{}";\n'
    rows = [
        (prefix + c.removeprefix("chr"), start, end, strand, f"Y{g}", g)
        for g, (c, start, end, strand) in CODING.items()
    ]
    path.write_text("".join(line.format(*row) for row in rows))
    return path


def test_genes_of_both_strands_begin_with_a_start_codon_and_end_with_a_stop(genome, tmp_path):
    table = pd.DataFrame({"y": np.zeros(len(CODING))}, index=list(CODING))
    gtf = annotation(tmp_path / "genes.gtf")
    windows = GeneWindows.from_table(table, genome, gtf, length=5000, strand="reverse_complement")
    (batch,) = windows.batches(Needs(sequence=5000))
    for row, bases in zip(batch.index.tolist(), batch.bases.tolist(), strict=True):
        _, start, end, _ = CODING[windows.names[row]]
        assert bases[2500:2503] == [0, 3, 2] and bases[2500 + end - start - 2 : 2500 + end - start + 1] in STOPS
    kept = GeneWindows.from_table(table, genome, gtf, length=5000)
    assert [kept.cut.flipped(k) for k in range(len(kept))] == [False] * len(CODING)


def test_ensembls_names_of_chromosomes_are_an_error_with_the_fix(genome, tmp_path):
    table = pd.DataFrame({"y": np.zeros(len(CODING))}, index=list(CODING))
    gtf = annotation(tmp_path / "genes.gtf", prefix="")
    with pytest.raises(sqi.BadInput, match="calls chromosomes 'II', .*pass rename='chr'"):
        GeneWindows.from_table(table, genome, gtf, length=100)
    found = GeneWindows.from_table(table, genome, gtf, length=100, rename="chr")
    assert found.cut.chroms.tolist() == [chrom for chrom, *_ in CODING.values()]


def test_neighbors_on_a_chromosome_may_not_be_parted(genome, tmp_path):
    """GAL1 and GAL10 share a promoter of 668 bp."""
    table = pd.DataFrame({"y": np.zeros(len(CODING))}, index=list(CODING))
    windows = GeneWindows.from_table(table, genome, annotation(tmp_path / "genes.gtf"), length=700)
    gal = np.isin(windows.names, ["GAL1"])
    with pytest.raises(sqi.BadInput, match="such as 'GAL1' and 'GAL10'"):
        check_split(windows[~gal], windows[gal])
    split_by_chromosome(windows, ["chrII"])


def test_cut_sites_are_those_that_were_counted_elsewhere(dna, genome):
    """The counts per 50 bp, made by others of the same fragments, count each as often as it was read."""
    columns = ["chrom", "start", "end", "barcode", "reads"]
    rows = pd.read_csv(dna / "yeast_500k_SRR1822137.frag.gz", sep="\t", header=None, names=columns)
    every = Track.of("all", rows.loc[rows.index.repeat(rows["reads"]), columns[:3]], genome)
    bins = pd.read_csv(dna / "yeast_atac_cuts_50bp.tsv.gz", sep="\t")
    for chrom in ("chrI", "chrIV"):
        known = bins[bins["chrom"] == chrom]
        n = genome.lengths[chrom] // 50 + 1
        expected = np.zeros(n)
        expected[known["start"] // 50] = known["cuts"]
        assert (every.read(chrom, 0, 50 * n).reshape(n, 50).sum(axis=1) == expected).all()
    once = Track.of("once", dna / "yeast_500k_SRR1822137.frag.gz", genome)
    assert once.signal.total == 2 * len(rows) < every.signal.total == 2 * rows["reads"].sum()


def accessible(dna: Path, genome: Genome) -> GeneWindows:
    """A window of 500 bp in every 2,000, and how often its middle 50 bp were cut."""
    bins = pd.read_csv(dna / "yeast_atac_cuts_50bp.tsv.gz", sep="\t")
    some = bins[(bins["start"] % 2000 == 1000) & bins["chrom"].isin(["chrII", "chrIV", "chrVII", "chrXV"])]
    some = some.set_index(some["chrom"] + ":" + some["start"].astype(str))
    places = {"chrom": some["chrom"], "tss": some["start"] + 25, "strand": "+", "y": np.log1p(some["cuts"])}
    return GeneWindows.from_table(pd.DataFrame(places), genome, length=500)


def test_composition_tells_open_chromatin_of_a_chromosome_that_was_not_seen(dna, genome):
    """GC alone is known to reach r = .31 on single stretches of 50 bp; a planted shuffle must not."""
    train, (test,) = split_by_chromosome(accessible(dna, genome), ["chrIV"])
    looks = [composition(b.bases).numpy() for part in (*train, test) for b in part.batches(Needs(sequence=500), 4096)]
    places = [np.argsort(part.cut.order(np.arange(len(part)))) for part in (*train, test)]
    looks = [look[place] for look, place in zip(looks, places, strict=True)]
    x, y = np.concatenate(looks[:-1]), np.concatenate([part.expression for part in train])
    for target, low, high in ((y, 0.2, 0.6), (np.random.default_rng(0).permutation(y), -0.12, 0.12)):
        weights = np.linalg.lstsq(np.c_[x, np.ones(len(x))], target, rcond=None)[0]
        said = np.c_[looks[-1], np.ones(len(test))] @ weights
        assert low < np.corrcoef(said[:, 0], test.expression[:, 0])[0, 1] < high


def test_families_of_promoters_stay_together(dna):
    assay = pd.read_csv(dna / "yeast_promoter_mpra.tsv.gz", sep="\t")
    assay = assay[assay["medium"] == "SCUra"].reset_index(drop=True)
    family = assay["origin"].where(assay["origin"].notna(), assay.index.astype(str))
    found = GeneWindows.from_sequences(assay["seq"], assay["expr"], group=family)
    parts = found.by_chromosome(5)
    assert found.length == 110 and sum(map(len, parts)) == len(assay)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) < 0.02 * len(assay)
    held = [set(part.cut.labels) for part in parts]
    assert not any(held[k] & held[j] for k in range(5) for j in range(k))
