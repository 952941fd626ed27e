"""Windows cut from a genome or from sequences: which base lies where, on either strand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sq_imputer.genes.cut import Loci, Sequences
from sq_imputer.genes.genome import Genome, coded
from sq_imputer.genes.tracks import Regions, Track

LETTERS = {"chr1": "".join(np.random.default_rng(0).choice(list("ACGT"), 300)), "chr2": "ACGTN" * 20}
WHOLE = {name: coded(letters) for name, letters in LETTERS.items()}


def loci(turned: bool = False, **further) -> Loci:
    chroms = np.array(["chr1", "chr1", "chr2", "chr1"], dtype=object)
    strands = np.array(["+", "-", "-", "+"], dtype=object)
    return Loci(Genome(LETTERS), chroms, np.array([150, 150, 3, 20]), strands, turned, **further)


@pytest.mark.parametrize("length", [20, 21])
def test_the_start_site_is_in_the_middle_of_either_strand(length):
    kept, turned = loci(), loci(turned=True)
    middle = length // 2
    forward = kept.window(0, length).bases
    assert forward.tolist() == WHOLE["chr1"][150 - middle : 150 - middle + length].tolist()
    assert (kept.window(1, length).bases == forward).all() and (turned.window(0, length).bases == forward).all()
    back = turned.window(1, length).bases
    assert back[middle] == 3 - WHOLE["chr1"][150]
    for step in range(-5, 5):  # upstream on the other strand lies behind
        assert back[middle + step] == 3 - WHOLE["chr1"][150 - step]


def test_bases_beyond_the_ends_and_unknown_ones_are_not_allowed():
    found = loci().window(2, 20)
    assert found.bases.tolist() == [4] * 7 + WHOLE["chr2"][:13].tolist() and found.tracks is None
    assert (found.allowed == (found.bases != 4)).all() and found.allowed.sum() == 11


def test_masks_and_tracks_turn_with_the_window():
    genome = Genome(LETTERS)
    place = {"chr1": np.arange(300.0), "chr2": np.zeros(100)}
    parts = {"place": place, "none": {"chr2": place["chr2"]}}
    signals = tuple(Track.of(name, part, genome) for name, part in parts.items())
    table = pd.DataFrame({"chrom": ["chr1"], "start": [148], "end": [152]})
    masks = {"blacklist": Regions.of(table, genome, "blacklist"), "include": None}
    kept, turned = loci(signals=signals, **masks), loci(True, signals=signals, **masks)
    assert kept.tracks == ("place", "none")
    one, other = kept.window(1, 20), turned.window(1, 20)
    assert one.tracks[:, 0].tolist() == list(range(140, 160)) and not one.tracks[:, 1].any()
    assert other.tracks[:, 0].tolist() == list(range(160, 140, -1))
    assert np.flatnonzero(~one.allowed).tolist() == [8, 9, 10, 11]
    assert other.tracks[~other.allowed, 0].tolist() == [151, 150, 149, 148]
    only = loci(include=masks["blacklist"], blacklist=None).window(0, 20)
    assert np.flatnonzero(only.allowed).tolist() == [8, 9, 10, 11]


def test_windows_are_read_along_the_genome():
    assert loci().order(np.arange(4)).tolist() == [3, 0, 1, 2]
    assert loci()[[2, 3]].order(np.arange(2)).tolist() == [1, 0]


def test_a_fingerprint_knows_places_strands_tracks_and_masks():
    genome = Genome(LETTERS)
    table = pd.DataFrame({"chrom": ["chr1"], "start": [1], "end": [2]})
    track = Track.of("a", {"chr1": np.arange(300)}, genome)
    made = [
        loci(),
        loci(turned=True),
        loci()[[0, 1]],
        loci(signals=(track,)),
        loci(signals=(Track.of("a", {"chr1": np.arange(300)}, genome, "p99"),)),
        loci(blacklist=Regions.of(table, genome, "blacklist")),
        loci(include=Regions.of(table, genome, "include")),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert loci().fingerprint == loci().fingerprint


def test_sequences_lie_middle_on_middle():
    cut = Sequences.of(["ACGT", "AC", "GATTACA"], ["a", "a", "b"])
    assert cut.window(0, 4).bases.tolist() == [0, 1, 2, 3]
    assert cut.window(1, 6).bases.tolist() == [4, 4, 0, 1, 4, 4] and cut.window(1, 6).allowed.sum() == 2
    assert cut.window(2, 3).bases.tolist() == coded("TTA").tolist()
    assert cut[[2]].window(0, 7).bases.tolist() == coded("GATTACA").tolist() and cut[[2]].labels.tolist() == ["b"]
    assert cut.fingerprint != cut[[0, 2]].fingerprint != Sequences.of(["ACGT", "GATTACA"], ["a", "a"]).fingerprint
