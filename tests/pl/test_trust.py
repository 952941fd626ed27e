"""Pictures of trust are of what `tl.trust` wrote."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import sq_imputer as sqi


@pytest.fixture
def trusted(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, n_folds=3, buffer_um=50.0)
    with pytest.raises(sqi.MissingKey, match="Call tl.trust first"):
        sqi.pl.trust(section)
    with pytest.raises(sqi.MissingKey, match="no intervals of 'spy' in tables.'imputed'.. Call tl.trust first"):
        sqi.pl.uncertainty(section, genes[0])
    sqi.tl.trust(section, n_null=20)
    return section


def stripes(ax) -> int:
    return sum(len(one.get_offsets()) for one in ax.collections if one.get_hatch())


def test_pictures_show_genes_sections_and_spots(trusted, genes) -> None:
    obs = trusted.tables["imputed"].obs
    obs.loc[obs.index[:5], "spy_reliable"] = False
    strange = int((~obs["spy_reliable"]).sum())
    axes = sqi.pl.trust(trusted, background=False)
    assert sum(len(line.get_xdata()) for line in axes[0].lines if line.get_marker() == "o") == len(genes)
    assert stripes(axes[2]) == strange and f"{strange} of {len(obs)} spots" in axes[2].get_title()
    held = axes[1].lines[0].get_xdata()
    inside = trusted.tables["imputed"].var["spy_coverage"].mean()
    np.testing.assert_allclose(held, inside, rtol=1e-4)
    axes = sqi.pl.uncertainty(trusted, genes[0], background=False)
    assert [stripes(ax) for ax in axes] == [strange] * 2 and "interval of 90%" in axes[1].get_title()
    assert axes[0].get_title().split("\n")[0] == f"{genes[0]}, spy"
    with pytest.raises(sqi.BadInput, match="axes are 1; expected 2"):
        sqi.pl.uncertainty(trusted, genes[0], axes=axes[:1])
    with pytest.raises(sqi.BadInput, match="axes are 2; expected 3"):
        sqi.pl.trust(trusted, axes=axes)
    plt.close("all")
