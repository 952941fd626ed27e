"""What `tl.predict` writes, where it comes from, and what it refuses before any model runs."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import spatialdata
from scipy.spatial.distance import cdist

import sq_imputer as sqi
from sq_imputer.scores.splits import folds
from sq_imputer.section.slide import Slide
from sq_imputer.store import commit as store
from sq_imputer.store.provenance import pythonic

QUICK = {"n_folds": 3, "buffer_um": 100.0}


def files(store: Path) -> dict[str, str]:
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def same_tables(one, other) -> None:
    assert set(one.layers) == set(other.layers)
    np.testing.assert_array_equal(one.X, other.X)
    for name in one.layers:
        np.testing.assert_array_equal(one.layers[name], other.layers[name])
    for name in set(one.obsm) | set(other.obsm):
        np.testing.assert_array_equal(one.obsm[name], other.obsm[name])
    for axis in ("obs", "var"):
        left, right = getattr(one, axis), getattr(other, axis)
        assert list(left.columns) == list(right.columns)
        assert list(left.index) == list(right.index)
        for column in left:
            assert left[column].tolist() == right[column].tolist(), column
    assert pythonic(one.uns["sq_imputer"]) == pythonic(other.uns["sq_imputer"])


# Out of fold --------------------------------------------------------------------------------------


def test_predictions_of_a_block_do_not_depend_on_its_counts(section, spy, genes, change):
    other = spatialdata.deepcopy(section)
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    before = section.tables["imputed"]
    block = np.flatnonzero(before.obs["spy_fold"] == 1)
    change(other, block)
    sqi.tl.predict(other, "spy", genes=genes, **QUICK)
    after = other.tables["imputed"]
    assert (after.layers["measured"][block] != before.layers["measured"][block]).mean() > 0.9
    np.testing.assert_array_equal(after.layers["spy"][block], before.layers["spy"][block])
    elsewhere = np.setdiff1d(np.arange(len(before)), block)
    assert (after.layers["spy"][elsewhere] != before.layers["spy"][elsewhere]).all()


def test_a_model_on_features_is_out_of_fold_as_well(section, genes, change):
    other, how = spatialdata.deepcopy(section), {"config": {"size_px": 32, "context_um": (300.0,)}, **QUICK}
    sqi.tl.predict(section, "ridge", genes=genes, **how)
    before = section.tables["imputed"]
    block = np.flatnonzero(before.obs["ridge_fold"] == 0)
    change(other, block)
    sqi.tl.predict(other, "ridge", genes=genes, **how)
    after = other.tables["imputed"]
    for layer in ("ridge", "ridge_std"):
        np.testing.assert_array_equal(after.layers[layer][block], before.layers[layer][block])
    np.testing.assert_array_equal(after.obs["ridge_ood"], before.obs["ridge_ood"])
    assert not np.array_equal(after.layers["ridge"], before.layers["ridge"])


def test_a_fold_is_fitted_on_all_rows_beyond_the_buffer_and_no_other(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    xy_um = Slide.from_sdata(section).xy_um
    fold = section.tables["imputed"].obs["spy_fold"].to_numpy()
    assert sorted(set(fold)) == [0, 1, 2]
    for number in range(3):
        near = cdist(xy_um, xy_um[fold == number]).min(axis=1) <= 100.0 + 1e-6
        np.testing.assert_array_equal(spy.fits[number].xy_um, xy_um[~near])
        assert near.sum() > (fold == number).sum(), "the buffer took nothing away"


def test_the_buffer_is_the_side_of_the_crop_unless_said_otherwise(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, n_folds=3, config={"extent_um": 130.0})
    assert section.tables["imputed"].uns["sq_imputer"]["spy"]["buffer_um"] == 130.0
    xy_um = Slide.from_sdata(section).xy_um
    fold = section.tables["imputed"].obs["spy_fold"].to_numpy()
    assert cdist(spy.fits[0].xy_um, xy_um[fold == 0]).min() > 130.0


def test_unmeasured_spots_get_the_model_fitted_on_all_that_were(partly, spy, genes):
    section, dropped = partly
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table = section.tables["imputed"]
    missing = table.obs["instance_id"].isin(dropped).to_numpy()
    assert missing.sum() == len(dropped)
    assert table.obs["measured"].tolist() == (~missing).tolist()
    assert (table.obs.loc[missing, "spy_fold"] == -1).all() and (table.obs.loc[~missing, "spy_fold"] >= 0).all()
    assert np.isnan(table.layers["measured"][missing]).all() and np.isfinite(table.layers["measured"][~missing]).all()
    slide = Slide.from_sdata(section)
    np.testing.assert_array_equal(spy.fits[-1].xy_um, slide.xy_um[~missing])
    whole = sqi.tl.fit(section, "spy", genes=genes).predict(slide).mean.numpy()
    np.testing.assert_array_equal(table.layers["spy"][missing], whole[missing])
    assert not np.isclose(table.layers["spy"][~missing], whole[~missing]).all()


def test_a_known_truth_is_recovered_out_of_fold_and_shuffled_counts_are_not(wide):
    shuffled = spatialdata.deepcopy(wide)
    order = np.random.default_rng(0).permutation(shuffled.tables["table"].n_obs)
    shuffled.tables["table"].X = shuffled.tables["table"].X[order]
    found = {}
    for name, sdata in {"true": wide, "shuffled": shuffled}.items():
        sqi.tl.predict(sdata, "ridge", genes=60, config={"size_px": 64, "context_um": (300.0,)})
        scores = sqi.tl.score(sdata, baselines=False)
        found[name] = scores.groupby(scores["gene"].str.rstrip("0123456789"))["pearson"].mean()
    assert found["true"][["NUC", "GLD", "STR"]].min() > 0.45 and found["true"]["LYM"] > 0.25
    assert found["true"][["IND", "HK"]].abs().max() < 0.12
    assert found["shuffled"].abs().max() < 0.12


# Slots --------------------------------------------------------------------------------------------


def test_the_table_has_the_slots_that_the_page_lists(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table, slide = section.tables["imputed"], Slide.from_sdata(section)
    assert list(table.var_names) == genes and list(table.obs_names) == list(slide.names)
    assert {"measured", "spy", "spy_std"} == {name for name in table.layers if name}
    assert {layer.dtype for layer in table.layers.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(table.X, table.layers["spy"])
    np.testing.assert_array_equal(table.layers["measured"], slide.with_genes(genes).expression)
    np.testing.assert_array_equal(table.obsm["spatial"], slide.xy_um)
    assert table.obsm["spy"].shape == (len(slide), 4)
    assert (table.obs["section"] == "P1").all() and (table.obs["patient"] == "P1").all()
    assert table.obs["spy_ood"].between(0, 1).all()
    assert table.uns["spatialdata_attrs"] == {
        "region": "spots",
        "region_key": "region",
        "instance_key": "instance_id",
    }
    assert table.obs["instance_id"].tolist() == section.shapes["spots"].index.tolist()


def test_the_provenance_is_enough_to_redo_the_prediction(section, spy, genes):
    plan = sqi.Plan(seed=5)
    sqi.tl.predict(section, "spy", genes=genes, plan=plan, config={"extent_um": 90.0}, **QUICK)
    record = pythonic(section.tables["imputed"].uns["sq_imputer"]["spy"])
    assert record["model"] == "spy" and record["config"] == {"extent_um": 90.0, "size_px": 8, "fails": False}
    assert record["genes"] == genes and record["unit"] == "log1p_cp10k"
    assert (record["seed"], record["n_folds"], record["buffer_um"]) == (5, 3, 100.0)
    assert (record["mpp"], record["mpp_source"]) == (1.25, "transformation to 'um'")
    keys = ("image_key", "shapes_key", "table_key", "coordinate_system")
    assert tuple(record[key] for key in keys) == ("he", "spots", "table", "global")
    assert record["how"] == "out of fold" and record["training_sections"] == ["P1"] and record["shares_patient"]
    assert set(record["versions"]) == {"sq-imputer", "torch", "spatialdata", "anndata"}
    slide = Slide.from_sdata(section)
    assert record["rows"] == [len(slide)] and record["fingerprints"] == [slide.fingerprint]
    parts = [slide.take(split.train) for split in folds(slide.xy_um, 3, buffer_um=100.0)]
    again = [sqi.tl.fit(part, "spy", genes=genes, plan=plan, config={"extent_um": 90.0}) for part in parts]
    assert record["weights_sha256"] == [member.sha256 for member in again]


def test_features_are_kept_with_what_they_were_made_of_and_used_again(section, genes, monkeypatch):
    from sq_imputer.section import seen

    calls, compute = [], seen.compute
    monkeypatch.setattr(seen, "compute", lambda *args, **kw: calls.append(kw["label"]) or compute(*args, **kw))
    config = {"size_px": 32, "context_um": (300.0,)}
    sqi.tl.predict(section, "ridge", genes=genes, config=config, **QUICK)
    assert len(calls) == 2  # the crop and its context, for all folds
    table = section.tables["imputed"]
    assert set(pythonic(table.uns["sq_imputer"]["embeddings"])) == {"X_texture", "X_texture_300um"}
    np.testing.assert_array_equal(
        table.obsm["X_texture_300um"], Slide.from_sdata(section).features("texture", sqi.CropSpec(300.0, 32))
    )
    calls.clear()
    sqi.tl.predict(section, "ridge", layer_added="again", config=config, **QUICK)
    assert calls == []
    np.testing.assert_array_equal(table.layers["again"], table.layers["ridge"])


@pytest.mark.parametrize("layer", ["measured", "embeddings", "spatial", "a/b", ""])
def test_a_layer_cannot_take_the_name_of_another_slot(section, spy, genes, layer):
    if layer == "":
        sqi.tl.predict(section, "spy", genes=genes, layer_added="", **QUICK)  # as if left out
        assert "spy" in section.tables["imputed"].layers
        return
    with pytest.raises(sqi.BadInput, match="layer_added"):
        sqi.tl.predict(section, "spy", genes=genes, layer_added=layer)
    assert spy.fits == [] and "imputed" not in section.tables


# The store ----------------------------------------------------------------------------------------


def test_a_store_holds_what_memory_holds_and_nothing_else_changes(stored, spy, genes):
    store = Path(stored.path)
    before = files(store)
    sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    after = files(store)
    changed = {name for name in after if after[name] != before.get(name)}
    assert set(before) <= set(after)
    assert {name for name in changed if not name.startswith("tables/imputed/")} <= {"zarr.json"}
    read = spatialdata.read_zarr(store)
    same_tables(read.tables["imputed"], stored.tables["imputed"])


def test_a_second_model_adds_to_the_store_what_is_its_own(stored, spy, genes):
    sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    store, first = Path(stored.path), stored.tables["imputed"].layers["spy"].copy()
    before = files(store)
    sqi.tl.predict(stored, "nsl", config={"size_px": 8, "epochs": 2}, **QUICK)
    changed = {name for name, digest in files(store).items() if digest != before.get(name)}
    assert not [name for name in changed if not name.startswith(("tables/imputed/", "zarr.json"))]
    assert not [name for name in changed if name.startswith("tables/imputed/layers/spy")]
    table = spatialdata.read_zarr(store).tables["imputed"]
    same_tables(table, stored.tables["imputed"])
    np.testing.assert_array_equal(table.layers["spy"], first)
    np.testing.assert_array_equal(table.X, table.layers["nsl"])
    assert {"spy_fold", "spy_ood", "nsl_fold", "nsl_ood"} <= set(table.obs)
    assert {"spy", "nsl"} <= set(table.uns["sq_imputer"])


def test_memory_and_store_give_the_same(section, spy, genes, tmp_path):
    section.write(tmp_path / "s.zarr")
    stored = spatialdata.read_zarr(tmp_path / "s.zarr")
    alone = spatialdata.deepcopy(section)
    alone.path = None
    for sdata in (stored, alone):
        sqi.tl.predict(sdata, "spy", genes=genes, **QUICK)
    np.testing.assert_array_equal(stored.tables["imputed"].X, alone.tables["imputed"].X)
    assert stored.is_backed() and not alone.is_backed()


@pytest.mark.parametrize("layer", ["spy", "second"])
def test_a_failed_write_leaves_the_store_as_it_was_and_the_result_in_memory(
    stored, spy, genes, digest, monkeypatch, layer
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if layer == "second":
        sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    before, on_disk = digest(stored, without=("imputed",)), files(Path(stored.path))
    with (
        monkeypatch.context() as patch,
        pytest.raises(sqi.StoreError, match=r"is in memory, as sdata.tables\['imputed'"),
    ):
        patch.setattr(store, "flush", full)
        sqi.tl.predict(stored, "spy", genes=genes, layer_added=layer, **QUICK)
    assert digest(stored, without=("imputed",)) == before and files(Path(stored.path)) == on_disk
    assert layer in stored.tables["imputed"].layers
    assert os.listdir(stored.path.parent) == [stored.path.name]


def test_an_error_of_ours_while_writing_leaves_object_and_store(stored, spy, genes, digest, monkeypatch):
    def broken(*_):
        raise KeyError("a bug")

    before, on_disk = digest(stored), files(Path(stored.path))
    with monkeypatch.context() as patch, pytest.raises(KeyError, match="a bug"):
        patch.setattr(store, "flush", broken)
        sqi.tl.predict(stored, "spy", genes=genes, **QUICK)
    assert digest(stored) == before and files(Path(stored.path)) == on_disk


def test_a_model_that_fails_leaves_the_object_as_it_was(section, spy, genes, digest):
    before = digest(section)
    with pytest.raises(sqi.BadInput, match="told to fail"):
        sqi.tl.predict(section, "spy", genes=genes, config={"fails": True}, **QUICK)
    assert digest(section) == before


def test_nothing_but_the_new_table_is_touched(patients, spy, genes, digest):
    target = patients.pop("P3")
    before = {name: digest(sdata) for name, sdata in patients.items()}, digest(target)
    sqi.tl.predict(target, "spy", genes=genes, **QUICK)
    sqi.tl.predict(target, "spy", reference=patients, genes=genes, layer_added="from_others")
    assert ({name: digest(sdata) for name, sdata in patients.items()}, digest(target, ("imputed",))) == before


# More models, other shapes, another panel ---------------------------------------------------------


def test_a_second_model_takes_the_panel_of_the_table(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    first = section.tables["imputed"].layers["spy"].copy()
    sqi.tl.predict(section, "nsl", config={"size_px": 8, "epochs": 2}, **QUICK)
    table = section.tables["imputed"]
    assert list(table.var_names) == genes
    np.testing.assert_array_equal(table.layers["spy"], first)
    np.testing.assert_array_equal(table.X, table.layers["nsl"])


def test_another_panel_under_the_same_key_is_refused_before_any_model_runs(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    spy.fits.clear()
    with pytest.raises(sqi.BadInput, match="another panel.*key_added="):
        sqi.tl.predict(section, "spy", genes=genes[:3], layer_added="b", **QUICK)
    assert spy.fits == []
    sqi.tl.predict(section, "spy", genes=genes[:3], key_added="three", **QUICK)
    assert list(section.tables["three"].var_names) == genes[:3]


def test_another_unit_under_the_same_key_is_refused(patients, spy, genes):
    target = patients.pop("P3")
    sqi.tl.predict(target, sqi.tl.fit(patients, "spy", genes=genes))
    counts = sqi.tl.fit(patients, "spy", genes=genes, unit="log1p_counts")
    with pytest.raises(sqi.BadInput, match="unit: 7 genes in 'log1p_cp10k', now 7 in 'log1p_counts'.*key_added="):
        sqi.tl.predict(target, counts, layer_added="b")
    sqi.tl.predict(target, counts, key_added="counts")
    measured = Slide.from_sdata(target).with_genes(genes, "log1p_counts").expression
    np.testing.assert_array_equal(target.tables["counts"].layers["measured"], measured)


def test_a_named_model_is_fitted_in_the_unit_asked_for(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, unit="log2_counts", n_folds=3)
    table = section.tables["imputed"]
    counts = section.tables["table"][:, genes].X.toarray()
    np.testing.assert_allclose(table.layers["measured"], np.log2(counts + 1), rtol=1e-5)
    assert table.uns["sq_imputer"]["spy"]["unit"] == "log2_counts"
    sqi.tl.predict(section, "spy", layer_added="again", n_folds=3)  # the panel of the table, in its unit
    assert table.uns["sq_imputer"]["again"]["unit"] == "log2_counts"
    with pytest.raises(sqi.BadInput, match="holds another panel or unit"):
        sqi.tl.predict(section, "spy", genes=genes, unit="log1p_cp10k", layer_added="third")
    with pytest.raises(sqi.BadInput, match="no unit 'tpm'; there are 'log1p_cp10k'"):
        sqi.tl.predict(section, "spy", genes=genes, unit="tpm", key_added="other")


def test_other_shapes_under_the_same_key_are_refused_before_any_model_runs(section, spy, genes):
    sqi.pp.grid(section, spacing_um=150)
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    spy.fits.clear()
    with pytest.raises(sqi.BadInput, match="59 predicted rows of 'spots'.*'grid' are to be predicted.*key_added="):
        sqi.tl.predict(section, "spy", shapes_key="grid")
    assert spy.fits == []


def test_the_same_layer_again_is_refused_and_replaced_on_demand(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    sqi.tl.predict(section, "nsl", config={"size_px": 8, "epochs": 2}, **QUICK)
    first = section.tables["imputed"].layers["spy"].copy()
    with pytest.raises(sqi.BadInput, match="has a layer 'spy' already. Pass overwrite=True"):
        sqi.tl.predict(section, "spy", **QUICK)
    sqi.tl.predict(section, "spy", overwrite=True, config={"extent_um": 60.0}, **QUICK)
    table = section.tables["imputed"]
    assert not np.array_equal(table.layers["spy"], first) and "nsl" in table.layers
    np.testing.assert_array_equal(table.X, table.layers["spy"])


def test_replacing_a_layer_leaves_nothing_of_the_old_one(patients, spy, genes):
    target = patients.pop("P3")
    sqi.tl.predict(target, "spy", genes=genes, layer_added="a", **QUICK)
    sqi.tl.score(target, baselines=False)
    other = sqi.tl.fit(patients, "nsl", genes=genes, config={"size_px": 8, "epochs": 2})
    sqi.tl.predict(target, other, layer_added="a", overwrite=True)
    table = target.tables["imputed"]
    assert np.isnan(table.layers["a_std"]).all() and np.isnan(table.obsm["a"]).all()
    assert (table.obs["a_fold"] == -1).all()
    assert table.var[["a_pearson", "a_pearson_given_depth"]].isna().all(axis=None)
    assert table.uns["sq_imputer"]["a"]["model"] == "nsl"


def test_overwriting_with_another_panel_replaces_the_table(section, spy, genes):
    sqi.tl.predict(section, "spy", genes=genes, layer_added="old", **QUICK)
    sqi.tl.predict(section, "spy", genes=genes[:3], overwrite=True, **QUICK)
    table = section.tables["imputed"]
    assert list(table.var_names) == genes[:3] and "old" not in table.layers
    assert "old" not in table.uns["sq_imputer"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_measured_table_is_never_written_to(section, spy, genes, overwrite, digest):
    sqi.pp.embed(section, spec=sqi.CropSpec(100.0, 32))  # which leaves provenance of ours there
    before = digest(section)
    with pytest.raises(sqi.BadInput, match=r"tables\['table'\] is taken.*did not write.*key_added="):
        sqi.tl.predict(section, "spy", genes=genes, key_added="table", overwrite=overwrite)
    assert digest(section) == before and spy.fits == []


@pytest.mark.parametrize("key", ["he", "spots", "IMPUTED/1", "Table"])
def test_a_name_that_cannot_be_written_is_refused_before_any_model_runs(section, spy, genes, key):
    with pytest.raises(sqi.BadInput, match="key_added"):
        sqi.tl.predict(section, "spy", genes=genes, key_added=key)
    assert spy.fits == []


def test_a_grid_gets_the_model_fitted_on_the_measured_spots(section, spy, genes):
    sqi.pp.grid(section, spacing_um=90)
    sqi.tl.predict(section, "spy", genes=genes, shapes_key="grid", key_added="imputed_grid")
    table = section.tables["imputed_grid"]
    assert table.uns["spatialdata_attrs"]["region"] == "grid"
    assert table.obs["instance_id"].tolist() == section.shapes["grid"].index.tolist()
    assert not table.obs["measured"].any() and np.isnan(table.layers["measured"]).all()
    fitted = sqi.tl.fit(section, "spy", genes=genes)
    expected = fitted.predict(Slide.from_sdata(section, shapes_key="grid")).mean.numpy()
    np.testing.assert_array_equal(table.X, expected)
    assert "spy_fold" not in table.obs and len(spy.fits) == 2


def test_features_of_a_grid_are_scaled_as_those_of_the_spots(section, genes):
    section.shapes["copy"] = section.shapes["spots"].copy()
    config = {"size_px": 32, "context_um": ()}
    sqi.tl.predict(section, "ridge", genes=genes, shapes_key="copy", key_added="there", config=config)
    whole = sqi.tl.fit(section, "ridge", genes=genes, config=config).predict(Slide.from_sdata(section))
    np.testing.assert_allclose(section.tables["there"].X, whole.mean.numpy(), rtol=1e-5)


def test_polygons_are_predicted_at_their_centers(section, spy, genes):
    from spatialdata.models import ShapesModel

    spots = section.shapes["spots"]
    squares = spots.set_geometry(spots.geometry.buffer(spots["radius"], cap_style="square")).drop(columns="radius")
    section.shapes["squares"] = ShapesModel.parse(squares[["geometry"]])  # the transformations come along
    sqi.tl.predict(section, "spy", genes=genes, shapes_key="squares", key_added="cells")
    whole = sqi.tl.fit(section, "spy", genes=genes).predict(Slide.from_sdata(section)).mean.numpy()
    np.testing.assert_allclose(section.tables["cells"].X, whole, rtol=1e-4)


# Models fitted elsewhere --------------------------------------------------------------------------


def test_a_part_of_a_section_is_predicted_as_it_is_within_the_whole(patients, genes):
    target = patients.pop("P3")
    fitted = sqi.tl.fit(patients, "ridge", genes=genes, config={"size_px": 32, "context_um": ()})
    target.shapes["few"] = target.shapes["spots"].iloc[:25].copy()
    sqi.tl.predict(target, fitted)
    sqi.tl.predict(target, fitted, shapes_key="few", key_added="of_few")
    whole = target.tables["imputed"]
    rows = [whole.obs["instance_id"].tolist().index(one) for one in target.tables["of_few"].obs["instance_id"]]
    np.testing.assert_allclose(target.tables["of_few"].X, whole.X[rows], rtol=1e-4)


def test_a_name_with_references_a_fitted_model_and_its_folder_predict_the_same(patients, spy, genes, tmp_path):
    target = patients.pop("P3")
    fitted = sqi.tl.fit(patients, "spy", genes=genes)
    fitted.save(tmp_path / "model")
    sqi.tl.predict(target, "spy", reference=list(patients.values()), genes=genes, layer_added="name")
    sqi.tl.predict(target, fitted, layer_added="fitted")
    sqi.tl.predict(target, tmp_path / "model", layer_added="folder")
    sqi.tl.predict(target, str(tmp_path / "model"), layer_added="text")
    table = target.tables["imputed"]
    for layer in ("fitted", "folder", "text"):
        np.testing.assert_array_equal(table.layers[layer], table.layers["name"])
    records = pythonic(table.uns["sq_imputer"])
    assert [records[name]["how"] for name in ("name", "fitted")] == ["fitted on reference", "fitted model"]
    for name in ("name", "fitted", "folder"):
        assert records[name]["training_sections"] == ["P1", "P2"] and records[name]["n_folds"] == 0
        assert records[name]["weights_sha256"] == fitted.sha256 and not records[name]["shares_patient"]
    assert not [column for column in table.obs if column.endswith("_fold")]


def test_genes_are_chosen_on_the_references(patients, spy):
    target = patients.pop("P3")
    chosen = sqi.tl.fit(patients, "spy", genes=9).genes
    sqi.tl.predict(target, "spy", reference=patients, genes=9)
    assert tuple(target.tables["imputed"].var_names) == chosen


def test_a_gene_that_the_section_lacks_is_predicted_and_not_measured(patients, spy, genes):
    target = patients.pop("P3")
    table = target.tables["table"]
    target.tables["table"] = table[:, table.var_names != "GLD1"].copy()
    sqi.tl.predict(target, "spy", reference=patients, genes=genes)
    imputed = target.tables["imputed"]
    unknown = imputed.var_names == "GLD1"
    assert np.isfinite(imputed.X).all()
    assert np.isnan(imputed.layers["measured"][:, unknown]).all()
    assert np.isfinite(imputed.layers["measured"][:, ~unknown]).all()


def test_a_section_of_a_training_patient_is_marked(patients, spy, genes):
    target = patients["P3"]
    target.tables["table"].obs["patient"] = "P1"
    sqi.tl.predict(target, "spy", reference=[patients["P1"]], genes=genes)
    assert target.tables["imputed"].uns["sq_imputer"]["spy"]["shares_patient"]


def test_the_grid_of_a_section_is_predicted_from_references_without_one(patients, spy, genes):
    target = patients.pop("P3")
    sqi.pp.grid(target, spacing_um=150)
    sqi.tl.predict(target, "spy", reference=patients, genes=genes, shapes_key="grid")
    assert target.tables["imputed"].uns["spatialdata_attrs"]["region"] == "grid"
    assert spy.fits[0].sections == ["P1", "P2"]


def test_a_section_without_counts_is_predicted_from_references(patients, spy, genes):
    target = patients.pop("P3")
    expected = sqi.tl.fit(patients, "spy", genes=genes).predict(Slide.from_sdata(target)).mean.numpy()
    del target.tables["table"]
    sqi.tl.predict(target, "spy", reference=patients, genes=genes)
    np.testing.assert_array_equal(target.tables["imputed"].X, expected)
    assert not target.tables["imputed"].obs["measured"].any()


@pytest.mark.parametrize("way", ["reference", "fitted", "copy under another name"])
def test_a_training_section_is_not_predicted_as_if_it_were_new(section, spy, genes, way):
    same = {"other": spatialdata.deepcopy(section)} if way.startswith("copy") else section
    with pytest.raises(sqi.BadInput, match="the very section to be predicted.*out of fold"):
        if way == "fitted":
            sqi.tl.predict(section, sqi.tl.fit(section, "spy", genes=genes))
        else:
            sqi.tl.predict(section, "spy", reference=same, genes=genes)
    assert len(spy.fits) == (way == "fitted") and "imputed" not in section.tables


def test_the_grid_of_a_training_section_may_be_predicted(section, spy, genes):
    sqi.pp.grid(section, spacing_um=150)
    sqi.tl.predict(section, sqi.tl.fit(section, "spy", genes=genes), shapes_key="grid")
    assert len(section.tables["imputed"]) == len(section.shapes["grid"])


# Errors before any model runs ---------------------------------------------------------------------


def test_nothing_measured_and_no_reference_names_the_three_ways_out(section, spy, genes):
    del section.tables["table"]
    with pytest.raises(sqi.BadInput, match="Three ways out: pass table_key=.*pass reference=.*pass model="):
        sqi.tl.predict(section, "spy", genes=genes)
    assert spy.fits == []


WRONG = {
    "image": ({"image_key": "HE"}, "no image 'HE'; sdata has 'he'"),
    "shapes": ({"shapes_key": "spot"}, "no shapes 'spot'; sdata has 'spots'"),
    "system": ({"coordinate_system": "mm"}, "do not meet in 'mm'"),
    "layer": ({"layer": "counts"}, "no layer 'counts'"),
    "genes": ({"genes": ["NUC1", "nuc2"]}, "1 of 2 genes are not in.*'nuc2'.*ignoring case"),
    "text": ({"genes": "NUC1"}, "genes is the text 'NUC1'"),
    "number": ({"genes": 0}, "genes is 0"),
    "folds": ({"n_folds": 1}, "n_folds is 1; expected a whole number, 2 or more"),
    "buffer": ({"buffer_um": 5000.0}, "smaller buffer_um"),
    "model": ({"model": "stm"}, "no model 'stm'; there are .*'nsl'"),
    "type": ({"model": 3}, "model is a int"),
    "config": ({"config": {"colour": 1}}, "config names 'colour'; spy.Config has 'extent_um', 'size_px', 'fails'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named_before_any_model_runs(section, spy, digest, case):
    arguments, message = WRONG[case]
    before = digest(section)
    with pytest.raises(sqi.SqImputerError, match=message):
        sqi.tl.predict(section, **{"model": "spy", "genes": ["NUC1"], **QUICK, **arguments})
    assert spy.fits == [] and digest(section) == before


def test_two_images_are_ambiguous(section, spy, genes):
    section.images["second"] = section.images["he"]
    with pytest.raises(sqi.MissingKey, match="2 images: .*'second'.*Pass image_key="):
        sqi.tl.predict(section, "spy", genes=genes)
    sqi.tl.predict(section, "spy", genes=genes, image_key="he", **QUICK)
    assert section.tables["imputed"].uns["sq_imputer"]["spy"]["image_key"] == "he"


def test_a_table_of_two_shapes_is_ambiguous(section, spy, genes):
    import anndata

    section.shapes["more"] = section.shapes["spots"].copy()
    table = section.tables["table"]
    second = table.copy()
    second.obs["region"], second.obs_names = "more", [f"m{i}" for i in range(len(second))]
    both = anndata.concat([table, second])
    both.obs["region"] = both.obs["region"].astype("category")
    both.uns["spatialdata_attrs"] = {**table.uns["spatialdata_attrs"], "region": ["spots", "more"]}
    del section.tables["table"]
    section.tables["table"] = both
    with pytest.raises(sqi.MissingKey, match="annotates 2 shapes elements: 'spots', 'more'. Pass shapes_key="):
        sqi.tl.predict(section, "spy", genes=genes)


def test_values_that_are_not_counts_are_refused(section, spy, genes):
    section.tables["table"].layers["counts"] = section.tables["table"].X.copy()
    section.tables["table"].X = section.tables["table"].X.log1p()
    with pytest.raises(sqi.BadInput, match="not counts.*look log-transformed.*Pass layer="):
        sqi.tl.predict(section, "spy", genes=genes)
    assert spy.fits == []
    sqi.tl.predict(section, "spy", genes=genes, layer="counts", **QUICK)
    assert np.isfinite(section.tables["imputed"].layers["measured"]).all()


@pytest.mark.parametrize("absent", ["weights-*", "model.json"])
def test_an_incomplete_model_folder_is_named(section, spy, genes, tmp_path, absent):
    sqi.tl.fit(section, "spy", genes=genes).save(tmp_path / "model")
    [file] = (tmp_path / "model").glob(absent)
    file.unlink()
    with pytest.raises(sqi.MissingKey, match=f"no model folder: '{file.name}' not there"):
        sqi.tl.predict(section, tmp_path / "model")


def test_what_goes_with_a_name_does_not_go_with_a_fitted_model(patients, spy, genes):
    target = patients.pop("P3")
    fitted = sqi.tl.fit(patients, "spy", genes=genes)
    with pytest.raises(sqi.BadInput, match="reference goes with the name of a model"):
        sqi.tl.predict(target, fitted, reference=patients)
    with pytest.raises(sqi.BadInput, match="genes names 2 genes, but this 'spy' was fitted on 7"):
        sqi.tl.predict(target, fitted, genes=genes[:2])
    with pytest.raises(sqi.BadInput, match="config goes with the name"):
        sqi.tl.predict(target, fitted, config={"size_px": 4})
    sqi.tl.predict(target, fitted, genes=genes)
    assert list(target.tables["imputed"].var_names) == genes


# Numbers ------------------------------------------------------------------------------------------


def test_seeds_repeat(section, genes):
    how = {"config": {"size_px": 8, "epochs": 3}, **QUICK}
    for layer, seed in (("a", 1), ("b", 1), ("c", 2)):
        plan = sqi.Plan(seed=seed, progress=False)
        sqi.tl.predict(section, "nsl", genes=genes, layer_added=layer, plan=plan, **how)
    layers = section.tables["imputed"].layers
    np.testing.assert_array_equal(layers["a"], layers["b"])
    assert not np.array_equal(layers["a"], layers["c"])


@pytest.mark.parametrize("dtype", ["int64", "uint16", "float64", "float16", "dense"])
def test_the_type_of_the_counts_does_not_matter(section, spy, genes, dtype):
    sqi.tl.predict(section, "spy", genes=genes, **QUICK)
    table = section.tables["table"]
    if dtype == "float16":  # whole numbers up to 2048 only
        table.X.data = np.minimum(table.X.data, 2048)
        sqi.tl.predict(section, "spy", genes=genes, overwrite=True, **QUICK)
    expected = section.tables["imputed"].layers["measured"].copy()
    table.X = (
        table.X.toarray().astype("float16") if dtype == "float16" else table.X.astype(dtype.replace("dense", "f4"))
    )
    table.X = table.X.toarray() if dtype == "dense" else table.X
    sqi.tl.predict(section, "spy", genes=genes, key_added="again", **QUICK)
    np.testing.assert_allclose(section.tables["again"].layers["measured"], expected, rtol=1e-6)
    assert section.tables["again"].X.dtype == np.float32


# What comes after ---------------------------------------------------------------------------------


def test_scanpy_and_squidpy_take_the_table_as_it_is(wide, spy):
    import scanpy as sc
    import squidpy as sq

    sqi.tl.predict(wide, "spy", genes=20, **QUICK)
    table = wide.tables["imputed"]
    sc.pp.pca(table, n_comps=5)
    sc.pp.neighbors(table)
    sc.tl.leiden(table, flavor="igraph", n_iterations=2)
    sq.gr.spatial_neighbors(table)
    sq.gr.spatial_autocorr(table, mode="moran")
    assert table.obsm["X_pca"].shape == (len(table), 5) and table.obs["leiden"].nunique() > 1
    found = table.uns["moranI"]["I"]
    assert len(found) == 20 and found.between(-1, 1).all() and found.max() > 0.3
    sqi.tl.predict(wide, "nsl", config={"size_px": 8, "epochs": 2}, **QUICK)
    assert "leiden" in table.obs and "moranI" in table.uns
