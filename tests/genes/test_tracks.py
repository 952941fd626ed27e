"""Signals from files, tables and arrays say the same, base by base; and what keeps them from one genome."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer.genes import tracks as module
from sq_imputer.genes.genome import Genome
from sq_imputer.genes.tracks import Regions, Track, caller

GENOME = Genome({"chr1": "ACGT" * 25, "chr2": "ACGT" * 10})
STEPS = [("chr1", 2, 5, 1.5), ("chr1", 5, 7, 4.0), ("chr1", 90, 100, 0.5), ("chr2", 0, 1, 8.0)]
TABLE = pd.DataFrame(STEPS, columns=["chrom", "start", "end", "value"])


def arrays() -> dict[str, np.ndarray]:
    found = {name: np.zeros(length) for name, length in GENOME.lengths.items()}
    for chrom, start, end, value in STEPS:
        found[chrom][start:end] = value
    return found


def bigwig(path, lengths=GENOME.lengths, steps=STEPS):
    pybigtools = pytest.importorskip("pybigtools")
    pybigtools.open(str(path), "w").write(lengths, iter(steps))
    return path


@pytest.fixture(params=["table", "shuffled", "bedgraph", "bigwig"])
def track(request, tmp_path) -> Track:
    if request.param == "bigwig":
        return Track.of("a", bigwig(tmp_path / "a.bw"), GENOME)
    if request.param == "bedgraph":
        path = tmp_path / "a.bedgraph"
        TABLE.to_csv(path, sep="\t", header=False, index=False)
        return Track.of("a", path, GENOME)
    return Track.of("a", TABLE.sample(frac=1, random_state=0) if request.param == "shuffled" else TABLE, GENOME)


def test_every_kind_of_track_is_what_the_array_is(track):
    whole = arrays()
    for chrom in whole:
        padded = np.concatenate([np.zeros(20), whole[chrom], np.zeros(100)])
        length = len(whole[chrom])
        for start, end in ((0, length), (3, 6), (4, 91), (-10, 4), (length - 3, length + 9), (50, 60), (6, 7)):
            found = track.read(chrom, start, end)
            assert found.dtype == np.float32 and found.tolist() == padded[start + 20 : end + 20].tolist()
            assert found.tolist() == Track.of("a", whole, GENOME).read(chrom, start, end).tolist()
    assert track.signal.total == pytest.approx(4.5 + 8 + 5 + 8)


def test_tracks_are_normalized_by_one_number(track):
    whole = np.concatenate(list(arrays().values()))
    raw = track.read("chr1", 0, 100)
    known = whole[whole != 0]
    for how, divisor in (("p99", np.percentile(known, 99)), ("cpm", whole.sum() / 1e6), ("raw", 1)):
        found = Track("a", track.signal, GENOME, how).read("chr1", 0, 100)
        assert np.allclose(found, raw / divisor)


def test_a_percentile_is_taken_of_stretches_along_the_genome(monkeypatch):
    """Of a long genome only some are read."""
    genome = Genome({"chr1": "A" * 10_000})
    signal = Track.of("a", {"chr1": np.arange(10_000.0)}, genome, "p99")
    monkeypatch.setattr(module, "PROBES", 100)
    monkeypatch.setattr(module, "PROBE", 10)
    assert signal.divisor == pytest.approx(9900, rel=0.01)


def test_cut_sites_are_the_ends_of_fragments_each_row_once(tmp_path):
    path = tmp_path / "fragments.tsv"
    path.write_text("chr1\t0\t5\tA\t3\nchr1\t2\t5\tB\t1\nchr2\t39\t40\tA\t1\nchr9\t0\t9\tA\t1\n")
    track = Track.of("cuts", path, GENOME)
    assert track.read("chr1", -2, 8).tolist() == [0, 0, 1, 0, 1, 0, 2, 0, 0, 0]
    assert track.read("chr2", 36, 42).tolist() == [0, 0, 0, 2, 0, 0]
    assert track.signal.total == 6 and track.read("chr1", 50, 60).sum() == 0
    assert Track.of("cuts", path, GENOME, "cpm").read("chr1", 4, 5) == pytest.approx(2 * 1e6 / 6)


def test_what_a_track_says_is_in_its_fingerprint(track):
    other = Track.of("a", TABLE.assign(value=TABLE["value"] * 2), GENOME)
    assert track.fingerprint != other.fingerprint and track.fingerprint != Track("b", track.signal, GENOME).fingerprint
    assert track.fingerprint != Track("a", track.signal, GENOME, "p99").fingerprint
    halved = {name: part / 2 for name, part in arrays().items()}
    prints = {Track.of("a", source, GENOME).fingerprint for source in (arrays(), arrays(), halved)}
    assert len(prints) == 2


# Other genomes, and bad input ---------------------------------------------------------------------


def test_other_names_of_chromosomes_are_an_error_with_the_fix(tmp_path):
    renamed = TABLE.assign(chrom=TABLE["chrom"].str.removeprefix("chr"))
    short = {name.removeprefix("chr"): part for name, part in arrays().items()}
    lengths = {name.removeprefix("chr"): n for name, n in GENOME.lengths.items()}
    steps = [(chrom.removeprefix("chr"), *rest) for chrom, *rest in STEPS]
    for source in (renamed, short, bigwig(tmp_path / "a.bw", lengths, steps)):
        with pytest.raises(sqi.BadInput, match="track 'a' calls chromosomes '1', '2'.*pass rename='chr'"):
            Track.of("a", source, GENOME)
        found = Track.of("a", source, GENOME, called=caller("chr", GENOME))
        assert found.read("chr1", 0, 100).tolist() == arrays()["chr1"].tolist()
        mapped = caller({"1": "chr1", "2": "chr2"}, GENOME)
        assert Track.of("a", source, GENOME, called=mapped).read("chr2", 0, 1).tolist() == [8]
    with pytest.raises(sqi.BadInput, match="rename is 5; expected 'chr', a mapping"):
        caller(5, GENOME)


def test_another_build_is_an_error(tmp_path):
    path = bigwig(tmp_path / "a.bw", {"chr1": 120, "chr2": 40})
    with pytest.raises(sqi.BadInput, match="track 'a' says that 'chr1' has 120 bases, and the genome has 100"):
        Track.of("a", path, GENOME)
    with pytest.raises(sqi.BadInput, match="'chr1' has 99 bases, and the genome has 100"):
        Track.of("a", {"chr1": np.zeros(99)}, GENOME)
    with pytest.raises(sqi.BadInput, match="1 positions beyond the end of 'chr2', such as 41 of 40 bases"):
        Track.of("a", pd.DataFrame([("chr2", 39, 41, 1.0)], columns=TABLE.columns), GENOME)


def test_a_base_has_one_value():
    table = pd.DataFrame([("chr1", 1, 5, 1.0), ("chr1", 4, 6, 1.0)], columns=TABLE.columns)
    with pytest.raises(sqi.BadInput, match=r"1 intervals that overlap, such as at chr1:4; .*Merge them first"):
        Track.of("a", table, GENOME)


def test_odd_tracks_are_said(tmp_path, monkeypatch):
    with pytest.raises(sqi.BadInput, match="normalize is 'log' for track 'a'; expected one of 'raw', 'p99', 'cpm'"):
        Track.of("a", TABLE, GENOME, "log")
    with pytest.raises(sqi.BadInput, match="no line of numbers for 'chr1'"):
        Track.of("a", {"chr1": np.zeros((100, 2))}, GENOME)
    for how in ("p99", "cpm"):
        with pytest.raises(sqi.BadInput, match="is 0 everywhere and cannot be normalized"):
            Track.of("a", {"chr1": np.zeros(100)}, GENOME, how).read("chr1", 0, 5)
    path = tmp_path / "a.bw"
    path.write_bytes(b"\x26\xfc\x8f\x88" + b"\0" * 100)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pybigtools", None)
        with pytest.raises(sqi.MissingKey, match=r"pybigtools, .* pip install 'sq-imputer\[genomics\]'"):
            Track.of("a", path, GENOME)
    pytest.importorskip("pybigtools")
    with pytest.raises(sqi.BadInput, match="cannot be read as bigWig"):
        Track.of("a", path, GENOME)


def test_regions_are_merged_and_cover_what_they_cover():
    rows = [("chr1", 10, 20), ("chr1", 15, 17), ("chr1", 20, 22), ("chr1", 50, 51), ("chr2", 0, 40)]
    regions = Regions.of(pd.DataFrame(rows, columns=["chrom", "start", "end"]), GENOME, "blacklist")
    expected = np.zeros(120, dtype=bool)
    expected[30:42] = expected[70] = True
    for start, end in ((-20, 100), (0, 11), (16, 18), (21, 50), (50, 51), (22, 50)):
        assert regions.mask("chr1", start, end).tolist() == expected[start + 20 : end + 20].tolist()
    assert regions.mask("chr2", 5, 10).all() and not regions.mask("chr3", 0, 5).any()
    assert len(regions.parts["chr1"][0]) == 2
