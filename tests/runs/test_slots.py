"""Slots of the result table beyond mean and standard deviation: draws, what is left of others, and names."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.runs.slots import ENDINGS

QUICK = {"n_folds": 3, "buffer_um": 100.0}


# Draws --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "store"])
def test_draws_are_written_beside_the_mean(request, draws, genes, digest, where) -> None:
    sdata = request.getfixturevalue("stored" if where == "store" else "section")
    before = digest(sdata)
    sqi.tl.predict(sdata, "draws", genes=genes, **QUICK)
    assert digest(sdata, ("imputed",)) == before
    table = sdata.tables["imputed"]
    samples = table.obsm["draws_samples"]
    assert samples.shape == (len(table), 5, len(genes)) and samples.dtype == np.float32
    np.testing.assert_allclose(samples.mean(axis=1), table.layers["draws"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.diff(samples, axis=1), 1, rtol=1e-4)
    if where == "store":
        read = spatialdata.read_zarr(sdata.path).tables["imputed"].obsm["draws_samples"]
        np.testing.assert_array_equal(read, samples)
        assert read.dtype == np.float32


def test_draws_are_of_the_spots_that_they_stand_at(partly, draws, genes) -> None:
    """Folds and spots that were not measured are put together in the order of the rows."""
    section, dropped = partly
    sqi.tl.predict(section, "draws", genes=genes, **QUICK)
    table = section.tables["imputed"]
    assert 0 < table.obs["instance_id"].isin(dropped).sum() < len(table)
    np.testing.assert_allclose(table.obsm["draws_samples"][:, 2], table.layers["draws"], rtol=1e-5)


def test_tables_with_draws_are_cut_joined_saved_and_queried(stored, draws, genes, tmp_path) -> None:
    sqi.tl.predict(stored, "draws", genes=genes, **QUICK)
    table = stored.tables["imputed"]
    samples = table.obsm["draws_samples"]
    np.testing.assert_array_equal(table[5:9, genes[:2]].copy().obsm["draws_samples"], samples[5:9])  # all genes stay
    assert anndata.concat([table[:9], table[9:]]).obsm["draws_samples"].shape == samples.shape
    table.write_h5ad(tmp_path / "table.h5ad")
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "table.h5ad").obsm["draws_samples"], samples)
    stored.write(tmp_path / "again.zarr")
    again = spatialdata.read_zarr(tmp_path / "again.zarr")
    np.testing.assert_array_equal(again.tables["imputed"].obsm["draws_samples"], samples)
    corner = {"min_coordinate": [0, 0], "max_coordinate": [300, 300], "target_coordinate_system": "global"}
    some = again.query.bounding_box(axes=("x", "y"), **corner).tables["imputed"]
    assert 0 < len(some) < len(table) and some.obsm["draws_samples"].shape == (len(some), 5, len(genes))


def test_scanpy_takes_a_table_with_draws(wide, draws) -> None:
    import scanpy as sc

    sqi.tl.predict(wide, "draws", genes=20, **QUICK)
    table = wide.tables["imputed"]
    sc.pp.pca(table, n_comps=5)
    sc.pp.neighbors(table, method="gauss")  # that of UMAP is compiled for half a minute
    sc.pp.filter_cells(table, min_genes=1)
    assert table.obsm["draws_samples"].shape == (len(table), 5, 20)
    assert table.obsp["connectivities"].shape == (len(table), len(table))


# What is left of an earlier prediction ------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "store"])
def test_replacing_a_layer_leaves_no_draws_of_the_old_one(request, draws, genes, where) -> None:
    sdata = request.getfixturevalue("stored" if where == "store" else "section")
    sqi.tl.predict(sdata, "draws", genes=genes, layer_added="a", **QUICK)
    sqi.tl.predict(sdata, "draws", layer_added="b", **QUICK)
    sqi.tl.predict(sdata, "ridge", layer_added="a", overwrite=True, config={"size_px": 32, "context_um": ()}, **QUICK)
    tables = [sdata.tables["imputed"]]
    tables += [spatialdata.read_zarr(sdata.path).tables["imputed"]] if where == "store" else []
    for table in tables:
        assert np.isnan(table.obsm["a_samples"]).all() and np.isfinite(table.obsm["b_samples"]).all()
        assert np.isfinite(table.layers["a"]).all()


def test_draws_are_replaced_by_as_many_as_there_are_now(section, draws, genes, monkeypatch) -> None:
    sqi.tl.predict(section, "draws", genes=genes, **QUICK)
    whole = draws.predict_step

    def fewer(self, batch):
        said = whole(self, batch)
        said.samples = said.samples[:, :2]
        return said

    monkeypatch.setattr(draws, "predict_step", fewer)
    sqi.tl.predict(section, "draws", overwrite=True, **QUICK)
    assert section.tables["imputed"].obsm["draws_samples"].shape[1] == 2


def test_how_many_standard_deviations_hold_95_percent_stands_beside_a_prediction_by_one_fit(section, wide) -> None:
    config = sqi.get_model("ridge").Config.small()
    fitted = sqi.tl.fit(wide, "ridge", genes=5, config=config)
    sqi.tl.predict(section, fitted, allow_same_patient=True)
    sqi.tl.predict(section, "ridge", genes=5, config=config, key_added="folds")
    one, folds = (section.tables[key].uns["sq_imputer"]["ridge"] for key in ("imputed", "folds"))
    assert one["sd_of_95"] == fitted.history["sd_of_95"] and 1 < one["sd_of_95"] < 3
    assert "sd_of_95" not in folds


def test_replacing_a_layer_leaves_no_neighbors_of_the_old_one(section, recalls, genes) -> None:
    sqi.tl.predict(section, "recalls", genes=genes, layer_added="a", **QUICK)
    sqi.tl.predict(section, "ridge", layer_added="a", overwrite=True, config={"size_px": 32, "context_um": ()}, **QUICK)
    table = section.tables["imputed"]
    assert (table.obsm["a_neighbors"] == -1).all() and not table.obsm["a_neighbor_weights"].any()
    assert "bank" not in table.uns["sq_imputer"]["a"]
    with pytest.raises(sqi.MissingKey, match="'a' in .* was not made by retrieval .its model is 'ridge'"):
        sqi.tl.retrieved(section, layer="a")


# Names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        *(f"spy{ending}" for ending in ENDINGS),
        "X_texture",
        "x_pca",
        "Measured",
        "__spy",
        "..",
        "SPY_Samples",
        "s" * 201,
    ],
)
def test_a_layer_cannot_take_a_slot_of_another(section, spy, genes, layer) -> None:
    with pytest.raises(sqi.BadInput, match="cannot name a prediction.*'_samples', '_neighbors'.*layer_added="):
        sqi.tl.predict(section, "spy", genes=genes, layer_added=layer)
    assert spy.fits == [] and "imputed" not in section.tables


def test_layers_that_differ_in_case_only_are_refused(section, spy, genes) -> None:
    """SpatialData does not write such a table."""
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    spy.fits.clear()
    with pytest.raises(sqi.BadInput, match="'Spy' and the existing 'spy' differ in case only. Pass another"):
        sqi.tl.predict(section, "spy", layer_added="Spy", **QUICK)
    assert spy.fits == []


@pytest.mark.parametrize("layer", ["stem.paper", "ridge-2", "samples", "my_samples_of_spy", "std"])
def test_other_names_are_fine(section, spy, genes, layer) -> None:
    sqi.tl.predict(section, "spy", genes=genes, layer_added=layer, **QUICK)
    assert np.isfinite(section.tables["imputed"].layers[layer]).all()
