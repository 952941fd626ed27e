"""bedGraph, BED and fragments: told apart by what is in them, read a piece at a time."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.genes import intervals as module
from sq_imputer.genes import lines
from sq_imputer.genes.intervals import is_bigwig, read_intervals

BEDGRAPH = "track type=bedGraph\n#c\nchr1\t0\t5\t1.5\nchr2\t3\t4\t-2\nchr1\t7\t9\t3e1\n"
FRAGMENTS = "# id=x\nchr1\t0\t5\tAAAC-1\t2\nchr1\t7\t9\tCCCA-1\t1\n"


def written(tmp_path, text: str, packed: bool = False):
    path = tmp_path / "some.file"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("piece", [1, 20, 1000])
def test_a_bedgraph_has_values_and_is_read_in_pieces(packed, piece, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "PIECE", piece)
    found = read_intervals(written(tmp_path, BEDGRAPH, packed), "track 'a'")
    assert {name: [part.tolist() for part in parts] for name, parts in found.items()} == {
        "chr1": [[0, 7], [5, 9], [1.5, 30.0]],
        "chr2": [[3], [4], [-2.0]],
    }


def test_fragments_and_bed_have_none(tmp_path):
    starts, ends, values = read_intervals(written(tmp_path, FRAGMENTS), "track 'a'")["chr1"]
    assert starts.tolist() == [0, 7] and ends.tolist() == [5, 9] and values is None
    assert read_intervals(written(tmp_path, "chr1\t1\t2\n"), "a")["chr1"][2] is None
    assert read_intervals(written(tmp_path, BEDGRAPH), "blacklist", values=False)["chr2"][2] is None


def test_tables_say_the_same():
    table = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [0, 3], "end": [5, 4], "cuts": [7, 8]})
    assert read_intervals(table, "a")["chr2"][2].tolist() == [8]
    assert read_intervals(table.drop(columns="cuts"), "a")["chr1"][2] is None
    assert read_intervals(table.assign(chrom=table["chrom"].astype("category")), "a")["chr1"][2].tolist() == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no intervals"),
        ("#only\n", "no intervals"),
        ("chr1 0 5\n", "has the line 'chr1 0 5'; expected chromosome, start, end, by tabs"),
        ("chrom\tstart\tcuts\n", "has the line"),
        ("chr1\t5\t5\t1\n", r"1 intervals that are empty, begin before 0 or .*, such as chr1:5-5"),
        ("chr1\t5\t3000000000\t1\n", r"beyond any chromosome, such as chr1:5-3000000000"),
        ("chr1\t5\t99999999999999999999\t1\n", "is not made of chromosome, start, end"),
        ("chr1\t5\t6\t1\nchr1\t-5\t6\t1\n", "begin before 0"),
        ("chr1\t5\t6\t1\nchr1\t7\t8\tx\n", "is not made of chromosome"),
        ("chr1\t5\t6\t1\nchr1\t7\t8\tnan\n", "NaN or infinite"),
    ],
)
def test_what_is_no_interval_is_said(text, message, tmp_path):
    with pytest.raises(sqi.BadInput, match=message):
        read_intervals(written(tmp_path, text), "track 'a'")


def test_damaged_missing_and_other_things_are_said(tmp_path):
    path = written(tmp_path, FRAGMENTS * 1000, packed=True)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(sqi.BadInput, match="track 'a': .* is damaged"):
        read_intervals(path, "track 'a'")
    for read in (lambda path: read_intervals(path, "track 'a'"), is_bigwig):
        with pytest.raises(sqi.MissingKey, match="no file"):
            read(tmp_path / "none")
    with pytest.raises(sqi.BadInput, match="track 'a' is a int"):
        read_intervals(5, "track 'a'")
    with pytest.raises(sqi.BadInput, match="has the columns 'chrom', 'start'; expected 'chrom', 'start', 'end'"):
        read_intervals(pd.DataFrame({"chrom": ["a"], "start": [1]}), "track 'a'")
    with pytest.raises(sqi.BadInput, match="'start', 'end' or values that are no numbers"):
        read_intervals(pd.DataFrame({"chrom": ["a"], "start": [1], "end": ["x"]}), "track 'a'")
    many = pd.DataFrame({"chrom": ["a"], "start": [1], "end": [2], "x": [1.0], "y": [2.0]})
    with pytest.raises(sqi.BadInput, match="one of values"):
        read_intervals(many, "track 'a'")


def test_a_bigwig_is_told_by_how_it_begins(tmp_path):
    assert not is_bigwig(written(tmp_path, BEDGRAPH))
    path = tmp_path / "x"
    path.write_bytes(np.array([0x888FFC26], dtype="<u4").tobytes())
    assert is_bigwig(path)


def test_more_intervals_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 1)
    with pytest.raises(sqi.BadInput, match="has more than 1 intervals, too many for memory. Give a bigWig"):
        read_intervals(written(tmp_path, FRAGMENTS), "track 'a'")
