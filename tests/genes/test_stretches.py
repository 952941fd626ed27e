from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sq_imputer import GeneWindows
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.genes import write_bed, write_bedgraph
from sq_imputer.genes.genome import coded, other_strand
from sq_imputer.genes.stretches import Place, kept, rows_of

LETTERS = "".join(np.array(list("ACGT"))[np.random.default_rng(0).integers(0, 4, 400)])


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "gene": ["a", "b", "a"],
            "chrom": ["chr2", "chr1", "chr2"],
            "start": [20, 5, 10],
            "end": [30, 9, 25],
            "strand": ["+", "-", "+"],
            "mask": [0.5, 0.25, 1.0],
        }
    )


@pytest.mark.parametrize("strand", ["keep", "reverse_complement"])
def test_places_lead_to_the_bases_of_the_window_and_back(strand):
    about = pd.DataFrame({"chrom": "c", "tss": [150, 200], "strand": ["+", "-"], "y": 0.0}, index=["p", "m"])
    windows = GeneWindows.from_table(about, {"c": LETTERS}, target="y", length=80, strand=strand)
    for row in range(2):
        place = Place.of(windows, row, 60)
        start, end = place.outside(7, 19)
        found = coded(LETTERS[start:end])
        expected = windows.cut.window(row, 60).bases[7:19]
        assert np.array_equal(other_strand(found) if place.turned else found, expected)
        assert place.inside(start, end) == (7, 19)
        assert place.outside(30, 31)[0] == windows.cut.tss[row]


def test_sequences_at_hand_are_numbered_by_themselves():
    windows = GeneWindows.from_sequences(["ACGTACGT", "ACGT"], [0, 1], names=["x", "y"])
    assert Place.of(windows, 0, 4) == ("x", 2, 6, False, ".")
    assert Place.of(windows, 1, 8).start == -2  # what fills it up lies before it


def test_the_bases_with_the_highest_masks_are_kept_together():
    mask, allowed = np.zeros(100), np.ones(100, dtype=bool)
    mask[10:15], mask[18:21], mask[60:62] = 0.9, 0.8, 0.7
    assert kept(mask, allowed, 0.1, 3, 1) == [(10, 21), (60, 62)]
    assert kept(mask, allowed, 0.1, 2, 1) == [(10, 15), (18, 21), (60, 62)]
    assert kept(mask, allowed, 0.1, 2, 3) == [(10, 15), (18, 21)]
    allowed[10:15] = False
    assert (10, 15) not in kept(mask, allowed, 0.05, 2, 1) and not kept(mask, allowed & False, 0.1, 2, 1)


def test_a_bed_file_has_stretches_in_order_with_the_mask_as_score(table, tmp_path):
    lines = write_bed(table, tmp_path / "a.bed").read_text().splitlines()
    assert lines == ["chr1\t5\t9\tb\t250\t-", "chr2\t10\t25\ta\t1000\t+", "chr2\t20\t30\ta\t500\t+"]


def test_a_bedgraph_has_no_overlaps_and_the_mean_where_there_were(table, tmp_path):
    lines = write_bedgraph(table, tmp_path / "a.bedgraph").read_text().splitlines()
    assert lines == ["chr1\t5\t9\t0.25", "chr2\t10\t20\t1", "chr2\t20\t25\t0.75", "chr2\t25\t30\t0.5"]


def test_files_are_not_written_over_and_tables_must_be_of_stretches(table, tmp_path):
    write_bed(table, tmp_path / "a.bed")
    with pytest.raises(BadInput, match="exists, and nothing is written over it"):
        write_bedgraph(table, tmp_path / "a.bed")
    with pytest.raises(BadInput, match="there is no folder"):
        write_bed(table, tmp_path / "none" / "a.bed")
    with pytest.raises(MissingKey, match="no column 'signal'"):
        write_bedgraph(table, tmp_path / "b", "signal")
    with pytest.raises(BadInput, match="expected what tl.regulatory_map returns"):
        write_bed([1], tmp_path / "b")


def test_rows_are_found_by_name():
    windows = GeneWindows.from_sequences(["ACGT"] * 3, names=["x", "y", "z"])
    assert rows_of(windows, ["z", "x"]).tolist() == [2, 0] and rows_of(windows, "y").tolist() == [1]
    assert rows_of(windows, None).tolist() == [0, 1, 2]
    with pytest.raises(MissingKey, match="no window of 'w'; there are windows of 'x', 'y', 'z'"):
        rows_of(windows, ["w"])
