from __future__ import annotations

import numpy as np
import pytest
from dna import small_model, windows_of

import sq_imputer as sqi
from sq_imputer.errors import BadInput, MissingKey


def test_stretches_have_the_highest_masks_and_survive_the_store(stored):
    import spatialdata

    windows, model = windows_of(stored), small_model()
    found = sqi.tl.regulatory_map(
        stored, windows, model, genes=windows.names[:4], share=0.2, merge_bp=0, device="cpu", progress=False
    )
    assert set(found["gene"]) <= set(windows.names[:4]) and (found["end"] - found["start"] >= 6).all()
    (batch,) = model.seen(windows, 4, rows=np.arange(4))
    mask = {
        windows.names[k]: row
        for k, row in zip(batch.index.tolist(), model.regulation(batch)["mask"].detach().numpy(), strict=True)
    }
    for one in found.to_dict("records"):
        place = one["start"] - (one["tss"] - 80)
        own = mask[one["gene"]][place : place + one["end"] - one["start"]]
        assert one["mask"] == pytest.approx(own.mean(), abs=1e-5) and own.mean() > mask[one["gene"]].mean()
        assert one["dna"] + one["signal"] == pytest.approx(one["mask"], abs=1e-5)
        assert one["promoter"] == (place < 92 and place + len(own) > 68)
    again = spatialdata.read_zarr(stored.path).tables["regulatory_map"]
    table = stored.tables["regulatory_map"]
    np.testing.assert_array_equal(again.X, table.X)
    assert again.obs["start"].tolist() == table.obs["start"].tolist()
    record = sqi.io.pythonic(again.uns["sq_imputer"]["regulatory_map"])
    assert record["sha256"] == model.sha256 and record["share"] == 0.2


def test_a_taken_name_and_bad_arguments_are_refused(section):
    windows, model = windows_of(section), small_model()
    sqi.tl.regulatory_map(section, windows, model, genes=windows.names[0], share=0.3, progress=False)
    with pytest.raises(BadInput, match="'regulatory_map' is taken"):
        sqi.tl.regulatory_map(section, windows, model, progress=False)
    with pytest.raises(BadInput, match="share is 1; expected a share"):
        sqi.tl.regulatory_map(section, windows, model, share=1)
    with pytest.raises(MissingKey, match="no window of 'none'"):
        sqi.tl.regulatory_map(section, windows, model, genes=["none"])
    with pytest.raises(BadInput, match="no stretch of 150 bases or more"):
        sqi.tl.regulatory_map(section, windows, model, least_bp=150, key_added="more", progress=False)
