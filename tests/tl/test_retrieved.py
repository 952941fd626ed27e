"""Which reference spots a prediction is made of: pooled over folds, kept in the table, not of the same patient."""

from __future__ import annotations

import re

import numpy as np
import pytest
import spatialdata
from scipy.spatial.distance import cdist

import sq_imputer as sqi
from sq_imputer.runs.retrieved import BANK
from sq_imputer.section.slide import Slide
from sq_imputer.store.provenance import pythonic

QUICK = {"n_folds": 3, "buffer_um": 100.0}


def bank_of(sdata, layer: str = "recalls", key: str = "imputed") -> dict[str, list]:
    return pythonic(sdata.tables[key].uns["sq_imputer"][layer])["bank"]


# What is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "store"])
def test_neighbors_count_the_rows_of_a_compact_table(request, recalls, genes, digest, where) -> None:
    sdata = request.getfixturevalue("stored" if where == "store" else "section")
    before = digest(sdata)
    sqi.tl.predict(sdata, "recalls", genes=genes, **QUICK)
    assert digest(sdata, ("imputed",)) == before
    table = spatialdata.read_zarr(sdata.path).tables["imputed"] if where == "store" else sdata.tables["imputed"]
    neighbors, weights = table.obsm["recalls_neighbors"], table.obsm["recalls_neighbor_weights"]
    assert neighbors.shape == weights.shape == (len(table), 4)
    assert (neighbors.dtype, weights.dtype) == (np.int64, np.float32)
    known = pythonic(table.uns["sq_imputer"]["recalls"])["bank"]
    assert set(known) == set(BANK)
    np.testing.assert_array_equal(np.unique(neighbors), np.arange(len(known["spot"])))  # each was retrieved
    assert len(set(zip(known["section"], known["spot"], strict=True))) == len(known["spot"])
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_a_prediction_is_made_of_the_spots_that_it_names(section, recalls, genes) -> None:
    """Every fold has a bank of its own; after pooling, the names still lead to the counts that were averaged."""
    sqi.tl.predict(section, "recalls", genes=genes, **QUICK)
    table = section.tables["imputed"]
    measured = Slide.from_sdata(section).with_genes(genes)
    row_of = {name: row for row, name in enumerate(measured.names)}
    rows = np.array([row_of[spot] for spot in bank_of(section)["spot"]])[table.obsm["recalls_neighbors"]]
    expected = (table.obsm["recalls_neighbor_weights"][:, :, None] * measured.expression[rows]).sum(axis=1)
    np.testing.assert_allclose(table.layers["recalls"], expected, rtol=1e-4, atol=1e-5)
    where = np.column_stack([bank_of(section)["x_um"], bank_of(section)["y_um"]])
    np.testing.assert_allclose(where, measured.xy_um[[row_of[spot] for spot in bank_of(section)["spot"]]])


def test_no_spot_is_made_of_itself_nor_of_any_near_its_block(partly, recalls, genes) -> None:
    section, dropped = partly
    sqi.tl.predict(section, "recalls", genes=genes, **QUICK)
    table, xy_um = section.tables["imputed"], Slide.from_sdata(section).xy_um
    fold, found = table.obs["recalls_fold"].to_numpy(), sqi.tl.retrieved(section, layer="recalls")
    assert (found["spot"] != found["reference_spot"]).all()
    row_of = {name: row for row, name in enumerate(table.obs_names)}
    there = np.array([row_of[name] for name in found["reference_spot"]])
    here = np.array([row_of[name] for name in found["spot"]])
    for number in range(3):
        mine = fold[here] == number
        assert cdist(xy_um[there[mine]], xy_um[fold == number]).min() > 100.0
    missing = table.obs["instance_id"].isin(dropped).to_numpy()
    assert not missing[there].any()  # nothing was measured there that could be retrieved
    near = cdist(xy_um[there], xy_um[here]).diagonal()[missing[here]]
    assert near.min() < 100.0, "spots that were not measured are made of all that were, the near ones too"


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("folds", "other spatial blocks of this section, beyond 100 um"),
        (
            "some unmeasured",
            "other spatial blocks .* 100 um; at spots that were not measured, all measured",
        ),
        ("grid", "all measured spots of this section"),
        ("reference", "reference sections"),
        ("fitted", "reference sections"),
    ],
)
def test_the_provenance_says_what_the_bank_was(patients, recalls, genes, way, said) -> None:
    target, keys = patients.pop("P3"), QUICK
    if way == "some unmeasured":
        target.tables["table"] = target.tables["table"][5:].copy()
    if way == "grid":
        sqi.pp.grid(target, spacing_um=150)
        keys = {"shapes_key": "grid"}
    if way == "fitted":
        sqi.tl.predict(target, sqi.tl.fit(patients, "recalls", genes=genes))
    else:
        sqi.tl.predict(target, "recalls", genes=genes, reference=patients if way == "reference" else None, **keys)
    record = target.tables["imputed"].uns["sq_imputer"]["recalls"]
    assert re.match(said, record["bank_from"])
    assert not record["allow_same_patient"]
    sections = {"P1", "P2"} if way in ("reference", "fitted") else {"P3"}
    assert set(bank_of(target)["section"]) == set(bank_of(target)["patient"]) == sections


def test_a_model_that_does_not_retrieve_says_nothing_of_a_bank(section, spy, genes) -> None:
    sqi.tl.predict(section, "spy", genes=genes, allow_same_patient=True, **QUICK)
    table = section.tables["imputed"]
    assert not {"bank", "bank_from", "allow_same_patient"} & set(table.uns["sq_imputer"]["spy"])
    assert set(table.obsm) == {"spatial", "spy"}


# The same patient ---------------------------------------------------------------------------------


@pytest.fixture
def related(patients):
    """P3, whose patient is also that of P1."""
    for name in ("P1", "P3"):
        patients[name].tables["table"].obs["patient"] = "Ada"
    return patients


@pytest.mark.parametrize("way", ["reference", "fitted", "folder"])
def test_a_bank_with_the_patient_is_refused_unless_it_is_asked_for(
    related, recalls, genes, digest, way, monkeypatch
) -> None:
    target = related.pop("P3")
    model, how = "recalls", {"reference": related, "genes": genes}
    if way == "fitted":
        model, how = sqi.tl.fit(related, "recalls", genes=genes), {}
    recalls.fits.clear()
    before = digest(target)
    message = "patient 'Ada' of section 'P3' among them: sections 'P1'. Leave.*allow_same_patient=True.*patient_key="
    with pytest.raises(sqi.BadInput, match=message):
        sqi.tl.predict(target, model, **how)
    assert recalls.fits == [] and digest(target) == before
    sqi.tl.predict(target, model, allow_same_patient=True, **how)
    record = target.tables["imputed"].uns["sq_imputer"]["recalls"]
    assert record["allow_same_patient"] and record["shares_patient"]
    assert {"Ada", "P2"} == set(bank_of(target)["patient"])


def test_leave_that_was_not_needed_is_not_recorded(patients, recalls, genes) -> None:
    target = patients.pop("P3")
    sqi.tl.predict(target, "recalls", reference=patients, genes=genes, allow_same_patient=True)
    sqi.tl.predict(target, "recalls", layer_added="inside", allow_same_patient=True, **QUICK)
    for layer in ("recalls", "inside"):
        assert not target.tables["imputed"].uns["sq_imputer"][layer]["allow_same_patient"]


def test_the_very_section_is_refused_even_so(section, recalls, genes) -> None:
    for how in ({}, {"allow_same_patient": True}):
        with pytest.raises(sqi.BadInput, match="the very section to be predicted.*out of fold"):
            sqi.tl.predict(section, "recalls", reference=section, genes=genes, **how)
    assert recalls.fits == []


def test_models_that_do_not_retrieve_are_not_affected(related, spy, genes) -> None:
    target = related.pop("P3")
    sqi.tl.predict(target, "spy", reference=related, genes=genes)
    assert target.tables["imputed"].uns["sq_imputer"]["spy"]["shares_patient"]


# Looking up ---------------------------------------------------------------------------------------


@pytest.fixture
def looked_up(section, recalls, genes):
    """The section, predicted by retrieval."""
    sqi.tl.predict(section, "recalls", genes=genes, **QUICK)
    return section


def test_every_neighbor_is_a_row(looked_up, digest) -> None:
    before = digest(looked_up)
    found = sqi.tl.retrieved(looked_up, layer="recalls")
    table, known = looked_up.tables["imputed"], bank_of(looked_up)
    assert list(found) == ["spot", "rank", "weight", "section", "patient", "reference_spot", "x_um", "y_um"]
    assert len(found) == 4 * len(table) and digest(looked_up) == before
    assert found["spot"].tolist() == np.repeat(table.obs_names, 4).tolist()
    assert found["rank"].tolist() == [1, 2, 3, 4] * len(table)
    flat = table.obsm["recalls_neighbors"].ravel()
    for name, column in {"spot": "reference_spot", "x_um": "x_um", "section": "section", "patient": "patient"}.items():
        assert found[column].tolist() == [known[name][row] for row in flat]
    np.testing.assert_array_equal(found["weight"], table.obsm["recalls_neighbor_weights"].ravel())
    assert (found.groupby("spot")["weight"].diff().dropna() <= 0).all()  # nearest first


def test_spots_come_in_the_order_asked_for(looked_up) -> None:
    every, names = sqi.tl.retrieved(looked_up, layer="recalls"), looked_up.tables["imputed"].obs_names
    some = sqi.tl.retrieved(looked_up, [names[7], names[2]], layer="recalls")
    assert some["spot"].tolist() == [names[7]] * 4 + [names[2]] * 4
    expected = every.set_index("spot").loc[[names[7], names[2]]].reset_index()
    assert some.equals(expected)
    one = sqi.tl.retrieved(looked_up, names[7], layer="recalls")
    assert one.equals(some[:4])
    assert sqi.tl.retrieved(looked_up, [], layer="recalls").empty


def test_a_table_that_was_sorted_or_filtered_still_knows(looked_up) -> None:
    every = sqi.tl.retrieved(looked_up, layer="recalls").set_index("spot")
    order = np.random.default_rng(0).permutation(len(looked_up.tables["imputed"]))[:20]
    looked_up.tables["imputed"] = looked_up.tables["imputed"][order].copy()
    some = sqi.tl.retrieved(looked_up, layer="recalls").set_index("spot")
    assert some.equals(every.loc[some.index.unique()])


def test_where_the_bank_is_small_fewer_are_listed(section, recalls, genes) -> None:
    sqi.tl.predict(section, "recalls", genes=genes, config={"k": 50}, **QUICK)
    table, sizes = section.tables["imputed"], [len(fit.bank["spot"]) for fit in recalls.fits[:3]]
    assert max(sizes) < 50
    found = sqi.tl.retrieved(section, layer="recalls").groupby("spot")["rank"].max()
    expected = [sizes[fold] for fold in table.obs["recalls_fold"]]
    assert found.loc[list(table.obs_names)].tolist() == expected
    assert ((table.obsm["recalls_neighbors"] < 0) == (table.obsm["recalls_neighbor_weights"] == 0)).all()


def test_what_cannot_be_looked_up_is_named(section, recalls, genes) -> None:
    with pytest.raises(sqi.MissingKey, match=r"no prediction in tables\['imputed'\]; sdata has 'table'.*key_added="):
        sqi.tl.retrieved(section)
    sqi.tl.predict(section, "recalls", genes=genes, **QUICK)
    sqi.tl.predict(section, "ridge", config={"size_px": 32, "context_um": ()}, **QUICK)
    with pytest.raises(sqi.MissingKey, match="no prediction 'mclstexp' in .*; it has '.*'. Pass layer="):
        sqi.tl.retrieved(section)
    with pytest.raises(sqi.MissingKey, match="'ridge' in .* was not made by retrieval.*those that were: 'recalls'"):
        sqi.tl.retrieved(section, layer="ridge")
    first = section.tables["imputed"].obs_names[0]
    with pytest.raises(sqi.MissingKey, match=f"1 of 2 spots are not in tables.*: 'nowhere'; it has '{first}', "):
        sqi.tl.retrieved(section, [first, "nowhere"], layer="recalls")
