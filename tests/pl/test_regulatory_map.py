from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from dna import small_model, windows_of

import sq_imputer as sqi
from sq_imputer.errors import MissingKey

matplotlib.use("agg")
import matplotlib.pyplot as plt


@pytest.fixture
def mapped(section):
    windows = windows_of(section)
    genes = list(windows.names[:2])
    sqi.tl.regulatory_map(section, windows, small_model(), genes=genes, share=0.3, least_bp=3, progress=False)
    yield section, windows, genes[0]
    plt.close("all")


def test_bars_are_the_stretches_of_the_gene_and_add_up_to_their_masks(mapped):
    section, windows, gene = mapped
    ax = sqi.pl.regulatory_map(section, gene, windows=windows)
    table = section.tables["regulatory_map"]
    rows = table[(table.obs["gene"] == gene).to_numpy()]
    signal, dna = (ax.containers[k] for k in range(2))
    heights = [one.get_height() + other.get_height() for one, other in zip(signal, dna, strict=True)]
    np.testing.assert_allclose(heights, rows[:, "mask"].X.ravel(), atol=1e-5)
    np.testing.assert_allclose([bar.get_x() for bar in dna], rows.obs["start"], atol=1)
    assert {"kept by the tracks", "added by the DNA"} < {text.get_text() for text in ax.get_legend().get_texts()}
    assert ax.get_xlim() == (0, 160) and any(text.get_text() == gene for text in ax.texts)


def test_of_dna_alone_nothing_is_said_to_be_kept_by_tracks(mapped):
    section, _, gene = mapped
    table = section.tables["regulatory_map"]
    table.X[:, table.var_names.get_loc("signal")] = 0
    legend = sqi.pl.regulatory_map(section, gene).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["added by the DNA"]


def test_stretches_without_which_the_prediction_changes_are_marked(mapped):
    section, windows, gene = mapped
    obs = section.tables["regulatory_map"].obs
    obs["effect"], obs["p"] = 1.0, 0.5
    obs.loc[obs.index[0], ["effect", "p"]] = -1.0, 0.01
    ax = sqi.pl.regulatory_map(section, obs["gene"].iloc[0])
    marks = [line for line in ax.lines if line.get_marker() == "v"]
    assert len(marks) == 1 and len(marks[0].get_xdata()) == 1


def test_a_gene_without_stretches_is_named(mapped):
    section, _, gene = mapped
    with pytest.raises(MissingKey, match=f"no stretch of 'none'; there are some of '{gene}'|no stretch of 'none'"):
        sqi.pl.regulatory_map(section, "none")
    with pytest.raises(MissingKey, match="no regulatory map in tables\\['table'\\]"):
        sqi.pl.regulatory_map(section, gene, key="table")
