"""What `tl.explain` writes, where it lies on the tissue, and that a store holds the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import spatialdata

import sq_imputer as sqi
from sq_imputer.encoders._shelf import Shelf
from sq_imputer.errors import BadInput, MissingKey
from sq_imputer.section.slide import Slide
from sq_imputer.store import write
from sq_imputer.store.provenance import pythonic
from sq_imputer.tl._explained import _summaries
from sq_imputer.tl._structures import STRUCTURES, Palette, glass_below

EXPLAINED = ("explanation", "explanation_spots")


SMALL = {"size_px": 32, "context_um": (300.0,)}
PLAN = sqi.Plan(device="cpu", progress=False)


@pytest.fixture(scope="module")
def other():
    """A section to fit models on."""
    return sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=12)["P1"]


@pytest.fixture(scope="module")
def model(other):
    return sqi.tl.fit(other, "nsl", genes=["NUC1", "STR1"], config={"size_px": 56, "epochs": 60}, plan=PLAN)


@pytest.fixture(scope="module")
def ridge(other):
    return sqi.tl.fit(other, "ridge", genes=["NUC1", "GLD1"], config=SMALL, plan=PLAN)


def test_a_nuclei_gene_is_raised_by_nuclei_and_lowered_by_the_rest(section, model):
    found = sqi.tl.explain(section, "NUC1", model=model, method="stains")
    assert list(found.index) == list(STRUCTURES) and list(found.columns) == ["NUC1"]
    assert found.loc["nuclei", "NUC1"] > 0 > found.loc["stroma", "NUC1"] > found.loc["background", "NUC1"]
    tests = found.attrs["faithfulness"]["NUC1"]
    assert tests["faithful"] and tests["gain"] > 0 and tests["random_weights"] < 0.5


def test_the_image_lies_on_the_tissue_that_it_explains(section, model):
    from sklearn.metrics import roc_auc_score
    from spatialdata.transformations import get_transformation

    sqi.tl.explain(section, ["NUC1", "STR1"], model=model, method="stains", mpp=2.0)
    image = section.images["explanation"]
    assert image.dims == ("c", "y", "x") and list(image.coords["c"].values) == ["NUC1", "STR1"]
    assert image.dtype == np.float32
    for system in get_transformation(section.images["he"], get_all=True):
        to = get_transformation(image, system).to_affine_matrix(("x", "y"), ("x", "y"))
        back = get_transformation(section.images["he"], system).to_affine_matrix(("x", "y"), ("x", "y"))
        rows, columns = np.indices(image.shape[1:])
        at = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5, np.ones(rows.size)])
        x, y = np.floor((np.linalg.inv(back) @ to @ at)[:2]).astype(int)
        values = image.data[0].compute().ravel()
        seen = np.isfinite(values) & (x >= 0) & (y >= 0) & (x < 640) & (y < 640)
        nuclei = section.labels["nuclei"].data.compute()[y[seen], x[seen]] > 0
        assert roc_auc_score(nuclei, values[seen]) > 0.9


def test_summaries_are_those_of_the_crops(section, model):
    spots = [str(name) for name in section.tables["table"].obs_names[[3, 1]]]
    sqi.tl.explain(section, ["NUC1", "STR1"], model=model, method="stains", spots=spots)
    table = section.tables["explanation_spots"]
    assert sorted(table.obs_names) == sorted(spots) and list(table.var_names) == ["NUC1", "STR1"]
    np.testing.assert_array_equal(table.obsm["mean"], table.X)
    slide = Slide.from_sdata(section, image_key="he")
    rows = [list(slide.names).index(name) for name in table.obs_names]
    said = model.predict(slide, rows=rows).mean.numpy()
    gap = said - table.obsm["mean"]  # what the baseline predicts: the same for all
    np.testing.assert_allclose(gap[0], gap[1], atol=1e-4)
    for name in ("positive_share", "concentration"):
        assert ((table.obsm[name] > 0) & (table.obsm[name] < 1)).all()


def test_every_view_reads_its_chunks_once(section, monkeypatch):
    from sq_imputer.tl._explained import Work

    config = {"size_px": 32, "extent_um": 80.0, "context_um": (160.0, 300.0)}
    model = sqi.tl.fit(section, "ridge", genes=["NUC1"], config=config)
    slide = replace(Slide.from_sdata(section, image_key="he"), encoders=Shelf())
    work = Work(model, slide, ["NUC1"], np.arange(len(slide)), "occlusion", 4, "tissue", 0, 8)
    made, crops = [], Slide.crops
    monkeypatch.setattr(Slide, "crops", lambda *a, **k: made.append(crops(*a, **k)) or made[-1])
    index, seen = zip(*work.views(work.rows), strict=True)
    assert max(map(len, index)) == 8 and sorted(np.concatenate(index)) == list(work.rows)
    assert [one.decodes for one in made] == [one.n_chunks for one in made] and len(made) == 3
    for view, spec in enumerate(model.needs.views):
        np.testing.assert_array_equal(np.concatenate(seen)[:, view], crops(slide, spec)[np.concatenate(index)])


def test_summaries_have_closed_forms():
    maps = np.zeros((1, 2, 10, 10), np.float32)
    maps[0, 0, 0] = [3, -1, 0, 0, 0, 0, 0, 0, 0, 0]
    maps[0, 1] = 2
    mean, positive, concentration = _summaries(maps)
    np.testing.assert_allclose(mean, [[0.02, 2]])
    np.testing.assert_allclose(positive, [[0.75, 1]])
    np.testing.assert_allclose(concentration, [[1, 0.1]], rtol=1e-6)


def test_a_store_holds_the_same_and_the_rest_is_untouched(section, stored, model, digest):
    how = {"model": model, "method": "stains", "mpp": 3.0}
    before = digest(section)
    memory, disk = (sqi.tl.explain(sdata, ["STR1", "NUC1"], **how) for sdata in (section, stored))
    assert digest(section, without=EXPLAINED) == digest(stored, without=EXPLAINED) == before
    assert memory.equals(disk)
    again = spatialdata.read_zarr(stored.path)
    values = section.images["explanation"].data.compute()
    for sdata in (stored, again):
        np.testing.assert_array_equal(sdata.images["explanation"].data.compute(), values)
        np.testing.assert_array_equal(
            sdata.tables["explanation_spots"].obsm["mean"], section.tables["explanation_spots"].obsm["mean"]
        )
    assert not list(stored.path.parent.glob(".*"))


def test_an_image_for_a_store_is_never_whole_in_memory(stored, model, monkeypatch):
    import dask

    from sq_imputer.section import mosaic

    blended = []
    window = mosaic.Mosaic.window
    monkeypatch.setattr(mosaic, "BLOCK", 64)
    monkeypatch.setattr(mosaic.Mosaic, "window", lambda *at: blended.append(window(*at)) or blended[-1])
    given = []
    element = write.write_element
    monkeypatch.setattr(
        write, "write_element", lambda s, kind, k, e, **how: given.append(e) or element(s, kind, k, e, **how)
    )
    sqi.tl.explain(stored, "NUC1", model=model, method="stains", mpp=2.0)
    assert dask.is_dask_collection(given[0].data) and given[0].data.npartitions > 20
    assert len(blended) == given[0].data.npartitions and max(part.size for part in blended) <= 64 * 64


def test_the_provenance_is_enough_to_redo_it(section, model):
    found = sqi.tl.explain(section, "NUC1", model=model, method="occlusion", grid=7, seed=3)
    made = pythonic(section.tables["explanation_spots"].uns["sq_imputer"]["explanation"])
    assert made["method"] == "occlusion" and made["grid"] == 7 and made["seed"] == 3 and made["image_key"] == "he"
    assert made["weights_sha256"] == model.sha256 and made["mpp"] == 112 / 28 and made["unit"] == "log1p_cp10k"
    assert made["faithfulness"]["gain"] == [found.attrs["faithfulness"]["NUC1"]["gain"]]
    assert made["structures"]["nuclei"] == [found.loc["nuclei", "NUC1"]]
    again = sqi.tl.explain(section, "NUC1", model=model, grid=7, seed=3, overwrite=True)
    assert again.equals(found)


def test_a_model_of_features_and_contexts_is_explained_from_a_folder(section, ridge, tmp_path):
    ridge.save(tmp_path / "ridge")
    spots = section.tables["table"].obs_names[:3]
    found = sqi.tl.explain(section, "NUC1", model=tmp_path / "ridge", spots=spots, grid=4, key_added="by_ridge")
    assert np.isfinite(found.loc["nuclei", "NUC1"])
    assert section.images["by_ridge"].shape[0] == 1 and len(section.tables["by_ridge_spots"]) == 3


def test_colors_tell_structures_apart():
    crop = np.full((1, 40, 40, 3), (220, 170, 200), np.uint8)
    crop[:, :, :10] = 245
    crop[:, 18:24, 25:31] = (90, 70, 140)
    palette = Palette.of(crop, glass_below(crop[0]))
    found = palette.classes(crop, um=1.0)[0]
    assert (found[:, :10] == 2).all() and (found[:, 10:15] == 3).all()
    assert (found[18:24, 25:31] == 0).all() and (found[:, 16:24] == 1).all()


def test_what_cannot_be_done_is_an_error_and_changes_nothing(section, model, digest):
    before = digest(section)
    for error, message, how in (
        (BadInput, "method is 'attention'; expected one of", {"method": "attention"}),
        (BadInput, "does not explain 'nsl'; these do:", {"method": "feature_groups"}),
        (BadInput, "baseline is 'blur'; expected one of 'tissue', 'glass'", {"baseline": "blur"}),
        (BadInput, "mpp is -1", {"mpp": -1.0}),
        (BadInput, "grid is 0; expected a whole number from 1 to 56", {"grid": 0}),
        (MissingKey, "no spot 'nowhere'", {"spots": ["nowhere"]}),
        (MissingKey, "no image 'ihc'", {"image_key": "ihc"}),
        (BadInput, "'he' is taken", {"key_added": "he"}),
    ):
        with pytest.raises(error, match=message):
            sqi.tl.explain(section, "NUC1", **{"model": model} | how)
    with pytest.raises(MissingKey, match="no gene 'nope'"):
        sqi.tl.explain(section, "nope", model=model)
    with pytest.raises(BadInput, match="is not fitted"):
        sqi.tl.explain(section, "NUC1", model="nsl")
    assert digest(section) == before and set(section.images) == {"he"}


def test_a_map_is_replaced_only_when_told(section, model):
    sqi.tl.explain(section, "NUC1", model=model, method="stains")
    with pytest.raises(BadInput, match="'explanation' is taken"):
        sqi.tl.explain(section, "STR1", model=model, method="stains")
    sqi.tl.explain(section, "STR1", model=model, method="stains", overwrite=True)
    assert list(section.images["explanation"].coords["c"].values) == ["STR1"]


def test_a_map_is_not_taken_for_an_image_of_tissue(section, model):
    sqi.tl.explain(section, "NUC1", model=model, method="stains", key_added="why")
    assert set(section.images) == {"he", "why"}
    sqi.tl.explain(section, "STR1", model=model, method="stains", key_added="why_not")
    sqi.tl.predict(section, "ridge", genes=["NUC1", "GLD1"], n_folds=2, config={"size_px": 32, "context_um": ()})
    assert section.tables["imputed"].uns["sq_imputer"]["ridge"]["image_key"] == "he"
    section.images["other"] = section.images["he"]
    with pytest.raises(MissingKey, match="sdata has 2 images: 'he', 'other'"):
        sqi.pp.pixel_size(section)


@pytest.mark.parametrize("where", ["section", "stored"])
def test_a_linear_ridge_is_taken_apart_exactly(request, ridge, where):
    sdata = request.getfixturevalue(where)
    found = sqi.tl.explain(sdata, ["GLD1", "NUC1"], model=ridge, method="feature_groups", key_added="parts")
    table = sdata.tables["parts_spots"]
    groups = table.uns["sq_imputer"]["parts"]["groups"]
    assert list(found.index) == list(groups) and any(name.endswith(", 300 um") for name in groups)
    said = ridge.predict(Slide.from_sdata(sdata)).mean.numpy()
    for column, gene in enumerate(("NUC1", "GLD1")):
        whole = table.obsm[gene].sum(axis=1) + float(ridge.expression_mean[column])
        np.testing.assert_allclose(whole, said[:, column], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(np.abs(table.obsm[gene]).mean(axis=0), found[gene], rtol=1e-5)
    assert "parts" not in sdata.images


def test_groups_of_features_do_not_explain_a_network(section, other):
    mlp = sqi.tl.fit(other, "mlp", genes=["NUC1"], config={"size_px": 32, "context_um": (), "epochs": 2})
    with pytest.raises(BadInput, match="'feature_groups' does not explain 'mlp'"):
        sqi.tl.explain(section, "NUC1", model=mlp, method="feature_groups", key_added="more")


def test_contributions_of_genes_of_any_name_are_kept_apart(section, other):
    names = ["CCL3/L1/L3", "spatial", "NUC1 (v2)", "G" * 300, "nuc1", "NUC1"]
    other = spatialdata.deepcopy(other)
    table = other.tables["table"]
    table.var_names = [*names, *table.var_names[len(names) :]]
    ridge = sqi.tl.fit(other, "ridge", genes=names, config={"size_px": 32, "context_um": ()})
    found = sqi.tl.explain(section, names, model=ridge, method="feature_groups", key_added="parts")
    made = section.tables["parts_spots"]
    record = pythonic(made.uns["sq_imputer"]["parts"])
    assert len(set(map(str.lower, record["obsm"]))) == len(names) and list(found.columns) == record["genes"]
    for column, (gene, slot) in enumerate(zip(record["genes"], record["obsm"], strict=True)):
        np.testing.assert_allclose(np.asarray(made.obsm[slot]).sum(axis=1), made.X[:, column], atol=1e-4)
        np.testing.assert_allclose(np.abs(made.obsm[slot]).mean(axis=0), found[gene], rtol=1e-5)
