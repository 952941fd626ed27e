"""The course of a fit is drawn as the model keeps it."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi


@pytest.fixture(scope="module")
def agl():
    sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, n_genes=30, seed=11)["P1"]
    config = {"size_px": 32, "context_um": (), "primary": 6, "width": 8, "epochs": 4, "calibration": 0}
    return sqi.tl.fit(sdata, "agl", genes=12, config=config, progress=False)


def test_the_cutoff_and_the_control_are_those_of_the_model(agl):
    cutoff, control = sqi.pl.history(agl)
    np.testing.assert_array_equal(cutoff.lines[0].get_ydata(), agl.history["cutoff"])
    assert len(agl.history["cutoff"]) == 5 and [bar.get_height() for bar in control.patches] == list(
        agl.history["control"].values()
    )
    assert [tick.get_text() for tick in control.get_xticklabels()] == ["none", "all", "kept"]


def test_losses_are_drawn_with_the_epoch_that_was_kept(agl, monkeypatch):
    monkeypatch.setattr(agl, "history", {"train": [3.0, 2.0, 1.5], "validation": [3.0, 2.5, 2.75], "epochs": 2})
    (ax,) = sqi.pl.history(agl)
    assert [list(line.get_ydata()) for line in ax.lines[:2]] == [[3.0, 2.0, 1.5], [3.0, 2.5, 2.75]]
    assert list(ax.lines[2].get_xdata()) == [2, 2]


def test_what_has_no_course_is_said(agl, monkeypatch):
    with pytest.raises(sqi.BadInput, match="model is a str; expected a fitted model"):
        sqi.pl.history("agl")
    with pytest.raises(sqi.MissingKey, match="history of 'ridge': it is not fitted; call tl.fit first"):
        sqi.pl.history(sqi.get_model("ridge")())
    with pytest.raises(sqi.BadInput, match="axes has 0; expected 2, one per panel"):
        sqi.pl.history(agl, axes=[])
    monkeypatch.setattr(agl, "history", {})
    with pytest.raises(sqi.MissingKey, match="history of 'agl': its fit has no course to draw"):
        sqi.pl.history(agl)
