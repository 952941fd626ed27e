from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dna import PLAN, small_config, small_model, windows_of

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey


@pytest.fixture
def mapped(section):
    windows = windows_of(section)
    sqi.tl.regulatory_map(section, windows, small_model(), genes=windows.names[:3], share=0.2, progress=False)
    return section, windows


def test_every_stretch_of_the_map_is_knocked_out_beside_controls(mapped):
    section, windows = mapped
    found = sqi.tl.in_silico(section, windows, small_model(), n_controls=10, progress=False, device="cpu")
    obs = section.tables["regulatory_map"].obs
    assert len(found) == len(obs) and found["effect"].to_numpy() == pytest.approx(obs["effect"].to_numpy(), abs=1e-6)
    assert (
        (found["p"].dropna() >= 1 / 11).all()
        and (found["p"].dropna() <= 1).all()
        and (found["context"] == "expression").all()
    )
    again = sqi.tl.in_silico(section, windows, small_model(), n_controls=10, progress=False, device="cpu")
    pd.testing.assert_frame_equal(found[["effect", "p"]], again[["effect", "p"]])


def test_a_motif_that_a_model_counts_raises_the_prediction_and_random_places_do_as_much(section):
    """A stand-in that counts GGG in the window and adds the track: effects are known, and so is what is random."""
    model = sqi.get_model("seq2exp")(small_config()).fit(windows_of(section).by_chromosome(), PLAN)

    def expected(batch):
        three = (batch.bases == 2) & batch.allowed
        count = (three[:, :-2] & three[:, 1:-1] & three[:, 2:]).sum(dim=1)
        return (count + batch.tracks[:, 100:, 0].sum(dim=1))[:, None].float()

    model.expected = expected
    windows = windows_of(section)
    windows.cut.genome._held["chr1"][:] = 0
    edits = pd.DataFrame(
        [
            {"gene": windows.names[0], "start": 10, "motif": "GGG"},
            {"gene": windows.names[0], "start": 110, "end": 120, "track": "signal", "value": 2.0},
            {"gene": windows.names[0], "start": 10, "end": 20},
        ]
    )
    found = sqi.tl.in_silico(section, windows, model, edits=edits, n_controls=20, progress=False, device="cpu")
    signal = windows.cut.window(0, 160).tracks[110:120, 0]
    assert found["effect"].tolist() == pytest.approx([1, 20 - signal.sum(), 0], rel=1e-4)
    assert found["p"].iloc[0] == 1 and found["p"].iloc[2] == 1  # a motif anywhere does the same; nothing does nothing
    assert found["control"].iloc[0] == pytest.approx(1)
    assert "regulatory_map" not in section.tables


def test_no_room_for_controls_is_told(section):
    windows = windows_of(section)
    edits = pd.DataFrame([{"gene": windows.names[0], "start": 0, "end": 100}])
    found = sqi.tl.in_silico(section, windows, small_model(), edits=edits, progress=False, device="cpu")
    assert np.isfinite(found["effect"]).all() and found["p"].isna().all()


def test_bad_edits_are_refused(section):
    windows, model = windows_of(section), small_model()

    def ask(**edit):
        sqi.tl.in_silico(section, windows, model, edits=pd.DataFrame([{"gene": windows.names[0], **edit}]))

    with pytest.raises(MissingKey, match="no regulatory map"):
        sqi.tl.in_silico(section, windows, model)
    with pytest.raises(BadInput, match="500 to 510 is not in the window of"):
        ask(start=500, end=510)
    with pytest.raises(BadInput, match="motif is 'ACX'"):
        ask(start=5, motif="ACX")
    with pytest.raises(MissingKey, match="no track 'dnase'; the windows have 'signal'"):
        ask(start=5, end=9, track="dnase", value=1.0)
    with pytest.raises(MissingKey, match="expected gene, start, and end or motif"):
        ask(start=5)
