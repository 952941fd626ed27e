from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import spatialdata
import torch

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.contract import CropSpec, Needs
from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.slide import Slide

SPEC = CropSpec(50, 40)


@pytest.fixture
def counting(monkeypatch) -> SimpleNamespace:
    """An encoder named "counting": mean colors; `.seen` is how many crops it was shown, after `.fails` it fails."""
    told = SimpleNamespace(seen=0, fails=np.inf)

    class Counting(encoders.Encoder):
        def encode(self, crops):
            told.seen += len(crops)
            if told.seen > told.fails:
                raise RuntimeError("the card is gone")
            return crops.float().mean((2, 3))

    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setattr(encoders, "_with_canary", lambda encoder: encoder)  # which is no crop to be counted
    card = replace(TEXTURE, name="counting", dim=3)
    encoders.register_encoder(card, lambda card, weights, revision: Counting(card, {"weights": str(weights)}))
    return told


def truth(sdata, spec=SPEC) -> np.ndarray:
    return sqi.pp.crops(sdata, spec)[:].mean(axis=(2, 3))


def test_features_of_every_spot_are_kept_with_how_they_were_made(section, counting):
    assert sqi.pp.embed(section, "counting", spec=SPEC) is None
    table = section["table"]
    np.testing.assert_allclose(table.obsm["X_counting"], truth(section), rtol=1e-5)
    record = table.uns["sq_imputer"]["embeddings"]["X_counting"]
    assert (record["encoder"], record["extent_um"], record["size_px"]) == ("counting", 50, 40)
    made_by = {"weights": "None", "dense": False}
    assert (record["mpp"], record["image_key"], record["provenance"]) == (1.25, "he", made_by)


def test_kept_features_are_used_by_whatever_needs_them(section, counting):
    sqi.pp.embed(section, "counting", spec=SPEC)
    seen = counting.seen
    slide = Slide.from_sdata(section)
    (batch,) = slide.batches(Needs(crop=SPEC, encoders=("counting",)), len(slide))
    np.testing.assert_array_equal(batch.features[batch.index.argsort()], section["table"].obsm["X_counting"])
    assert counting.seen == seen
    slide.features("counting", CropSpec(60, 40))
    assert counting.seen == 2 * seen


def test_only_the_table_gains_only_these_features(section, counting, digest):
    before, table = digest(section, without=("table",)), section["table"].copy()
    sqi.pp.embed(section, "counting", spec=SPEC)
    assert digest(section, without=("table",)) == before
    after = section["table"]
    assert set(after.obsm) - set(table.obsm) == {"X_counting"} and set(after.uns) - set(table.uns) == {"sq_imputer"}
    assert after.obs.equals(table.obs) and after.var.equals(table.var)
    assert (after.X != table.X).nnz == 0


def test_several_encodings_lie_beside_each_other(section, counting):
    sqi.pp.embed(section, "counting", spec=SPEC)
    sqi.pp.embed(section, "counting", spec=CropSpec(100, 40), key_added="X_wide")
    records = section["table"].uns["sq_imputer"]["embeddings"]
    assert {name: record["extent_um"] for name, record in records.items()} == {"X_counting": 50, "X_wide": 100}
    seen, slide = counting.seen, Slide.from_sdata(section)
    np.testing.assert_array_equal(slide.features("counting", CropSpec(100, 40)), section["table"].obsm["X_wide"])
    np.testing.assert_array_equal(slide.features("counting", SPEC), section["table"].obsm["X_counting"])
    assert counting.seen == seen


def test_rows_of_another_region_keep_what_they_have(section, counting):
    table = section["table"].copy()
    mine = np.arange(table.n_obs) % 2 == 0
    table.obs["region"] = np.where(mine, "spots", "more")
    table.obs["region"] = table.obs["region"].astype("category")
    table.uns["spatialdata_attrs"]["region"] = ["more", "spots"]
    section.shapes["more"] = section["spots"]
    section.tables["table"] = table
    sqi.pp.embed(section, "counting", spec=SPEC, shapes_key="spots")
    features = section["table"].obsm["X_counting"]
    expected = sqi.pp.crops(section, SPEC, shapes_key="spots")[:].mean(axis=(2, 3))[table.obs["spot_id"]]
    np.testing.assert_allclose(features[mine], expected[mine], rtol=1e-5)
    assert np.isnan(features[~mine]).all()
    sqi.pp.embed(section, "counting", spec=SPEC, shapes_key="more")
    np.testing.assert_allclose(section["table"].obsm["X_counting"], expected, rtol=1e-5)


def test_a_store_gets_the_features_at_once(stored, counting, digest):
    before = digest(stored, without=("table",))
    sqi.pp.embed(stored, "counting", spec=SPEC)
    there = spatialdata.read_zarr(stored.path)
    np.testing.assert_array_equal(there["table"].obsm["X_counting"], stored["table"].obsm["X_counting"])
    assert digest(there, without=("table",)) == before
    seen = counting.seen
    Slide.from_sdata(there).features("counting", SPEC)
    assert counting.seen == seen


def test_a_failure_leaves_object_and_store_as_they_were(stored, counting, digest):
    before = digest(stored)
    counting.fails = 10
    with pytest.raises(RuntimeError, match="the card is gone"):
        sqi.pp.embed(stored, "counting", spec=SPEC)
    assert digest(stored) == before
    there = spatialdata.read_zarr(stored.path)
    assert digest(there, without=("table",)) == digest(stored, without=("table",))
    for table in (stored["table"], there["table"]):
        assert set(table.obsm) == {"truth"} and set(table.uns) == {"spatialdata_attrs"}


def test_what_cannot_be_embedded_is_refused_before_any_crop_is_read(section, counting):
    with pytest.raises(MissingKey, match="no encoder 'counter'; there are"):
        sqi.pp.embed(section, "counter")
    with pytest.raises(MissingKey, match="no table 'counts'; sdata has 'table'"):
        sqi.pp.embed(section, "counting", table_key="counts", shapes_key="spots")
    with pytest.raises(BadInput, match="encoder 'texture' has no weights"):
        sqi.pp.embed(section, "texture", weights="w.safetensors")
    assert counting.seen == 0


def test_tokens_of_tiles_are_a_table_on_one_lattice(section):
    spec = CropSpec(120.0, 64)
    sqi.pp.grid(section, spacing_um=120.0, square=True, key_added="tiles")
    sqi.pp.embed(section, "texture", spec=spec, shapes_key="tiles", tokens=2)
    table, n = section.tables["texture_tokens"], len(section.shapes["tiles"])
    assert table.shape == (4 * n, encoders.encoder_card("texture").dim) and list(table.obs) == [
        "of",
        "array_row",
        "array_col",
    ]
    lattice = table.obs[["array_col", "array_row"]].to_numpy()
    assert len(np.unique(lattice, axis=0)) == len(table) and lattice.min() == 0
    step = table.obsm["spatial"] - table.obsm["spatial"].min(axis=0) - 60.0 * lattice
    assert np.abs(step).max() < 1e-3
    slide = Slide.from_sdata(section, shapes_key="tiles")
    whole = encoders.get_encoder("texture").tokens(torch.from_numpy(slide.crops(spec)[:3]), 2).flatten(0, 2)
    np.testing.assert_allclose(table.X[:12], whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table.obsm["spatial"][:4].mean(axis=0), slide.xy_um[0], atol=1e-3)
    with pytest.raises(sqi.BadInput, match="do not lie edge to edge.*pp.grid"):
        sqi.pp.embed(section, "texture", spec=CropSpec(150.0, 64), shapes_key="tiles", tokens=2, overwrite=True)
    with pytest.raises(sqi.BadInput, match="dense=True, but tokens"):
        sqi.pp.embed(section, "texture", spec=spec, shapes_key="tiles", tokens=True, dense=True)
