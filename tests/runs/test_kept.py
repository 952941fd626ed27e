"""Only what can be believed is written, if that is asked for."""

from __future__ import annotations

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.runs import reliability

pytestmark = pytest.mark.filterwarnings("ignore:.*unlike the training tissue.*:UserWarning")


def test_genes_and_rows_that_do_not_pass_are_not_written(patients, spy, genes) -> None:
    model = sqi.tl.fit(patients["P1"], "spy", genes=genes, trust=True)
    kept = model.provenance[reliability.KEY]
    kept["reliable"] = [k < 3 for k in range(len(genes))]
    sqi.tl.predict(patients["P2"], model, key_added="whole")
    sqi.tl.predict(patients["P2"], model, keep="reliable")
    whole, some = (patients["P2"].tables[name] for name in ("whole", "imputed"))
    assert list(some.var_names) == genes[:3] and list(whole.var_names) == genes
    rows = reliability.like(whole.obs["spy_ood"].to_numpy())
    assert np.isnan(some.layers["spy"][~rows]).all() and np.isnan(some.layers["spy_std"][~rows]).all()
    np.testing.assert_array_equal(some.layers["spy"][rows], whole.layers["spy"][rows][:, :3])
    assert list(some.uns["sq_imputer"]["spy"]["genes"]) == genes[:3]
    np.testing.assert_allclose(some.var["spy_skill"], np.array(kept["skill"], dtype=float)[:3])
    kept["reliable"] = [False] * len(genes)
    with pytest.raises(sqi.BadInput, match="none of the 7 genes of 'spy' is reliable"):
        sqi.tl.predict(patients["P2"], model, keep="reliable", key_added="more")


def test_a_model_that_does_not_say_is_refused_before_anything_is_done(section, spy, genes) -> None:
    with pytest.raises(sqi.BadInput, match="keep='reliable' needs a model that says which genes are, and 'spy'"):
        sqi.tl.predict(section, "spy", genes=genes, keep="reliable")
    with pytest.raises(sqi.BadInput, match="keep is 'good'; expected one of 'all', 'reliable'"):
        sqi.tl.predict(section, "spy", genes=genes, keep="good")
    assert not spy.fits


def test_a_section_that_is_another_passes_nothing() -> None:
    usual = (np.arange(100) + 0.5) / 100
    assert reliability.like(usual).dtype == bool
    assert reliability.like(usual).sum() == 99 and reliability.beyond(usual) == 0.05
    assert not reliability.like(np.concatenate([usual, np.full(40, 0.97)])).any()
    assert np.isnan(reliability.beyond(np.full(3, np.nan))) and not reliability.like(np.full(3, np.nan)).any()
