"""Targets other than genes take the way of genes, through every verb."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sq_imputer as sqi
from sq_imputer import BadInput, MissingKey, Target

SMALL = {"size_px": 32, "context_um": ()}
PARTS = ["nuclei", "glands", "stroma"]


@pytest.fixture
def labelled(patients):
    """Sections of three patients with what lies most in a spot, of what is asked, and proportions of three parts."""
    for sdata in patients.values():
        table = sdata.tables["table"]
        parts = table.obs[PARTS].to_numpy() / [0.2, 0.24, 0.53] + 0.02
        table.obs["most"] = pd.Categorical(np.array(PARTS)[parts.argmax(axis=1)])
        shares = parts / parts.sum(axis=1, keepdims=True)
        table.obsm["parts"] = pd.DataFrame(shares, index=table.obs_names, columns=PARTS)
    return patients


def test_a_column_of_numbers_is_predicted_out_of_fold_into_a_table_of_its_own(labelled):
    sdata = labelled["P1"]
    sqi.tl.predict(sdata, "ridge", target="obs:nuclei", config=SMALL, progress=False)
    table = sdata.tables["imputed_nuclei"]
    said, measured = (np.asarray(table.layers[name])[:, 0] for name in ("ridge", "measured"))
    np.testing.assert_allclose(measured, sdata.tables["table"].obs["nuclei"], rtol=1e-6)
    assert np.corrcoef(said, measured)[0, 1] > 0.5 and (table.obs["ridge_fold"] >= 0).all()
    record = table.uns["sq_imputer"]["ridge"]
    assert (record["unit"], record["target"]["where"], list(table.var["kind"])) == ("value", "obs:nuclei", ["numbers"])
    assert "imputed" not in sdata.tables


@pytest.mark.parametrize("model", ["ridge", "mlp"])
def test_a_model_of_classes_is_saved_and_calls_the_rows_of_an_object_without_labels(labelled, model, tmp_path):
    config = SMALL if model == "ridge" else {**SMALL, "hidden": 16, "members": 2, "epochs": 20}
    training = [labelled["P1"], labelled["P2"]]
    sqi.tl.fit(training, model, target="obs:most", config=config, progress=False).save(tmp_path / "model")
    truth = labelled["P3"].tables["table"].obs.pop("most")
    sqi.tl.predict(labelled["P3"], tmp_path / "model", progress=False)
    table = labelled["P3"].tables["imputed_most"]
    said = np.asarray(table.layers[model])
    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(table.layers[f"{model}_std"]), np.sqrt(said * (1 - said)), rtol=1e-4)
    assert np.isnan(np.asarray(table.layers["measured"])).all() and not table.obs["measured"].any()
    called = table.obs[f"{model}_most"]
    assert list(called.cat.categories) == list(table.var_names)
    np.testing.assert_allclose(table.obs[f"{model}_most_p"], said.max(axis=1))
    usual = truth.value_counts(normalize=True).iloc[0]
    assert (called.to_numpy() == truth.to_numpy()).mean() > usual - 0.05


def test_a_composition_sums_to_one_and_its_errors_are_as_large_as_said(labelled):
    target = Target("obsm:parts", "composition")
    model = sqi.tl.fit([labelled["P1"], labelled["P2"]], "ridge", target=target, config=SMALL, progress=False)
    sqi.tl.predict(labelled["P3"], model, progress=False)
    table = labelled["P3"].tables["imputed_parts"]
    said, std, measured = (np.asarray(table.layers[name]) for name in ("ridge", "ridge_std", "measured"))
    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)
    assert np.corrcoef(said[:, 0], measured[:, 0])[0, 1] > 0.5
    assert 0.4 < (((said - measured) / std) ** 2).mean() < 2.5


@pytest.mark.parametrize("where", ["obsm:parts", "table:proteins"])
def test_numbers_of_a_matrix_and_of_another_table_are_predicted_and_scored(labelled, where):
    sdata = labelled["P1"]
    if where == "table:proteins":
        proteins = sdata.tables["table"][:, ["NUC1", "GLD1"]].copy()
        proteins.X = np.log1p(proteins.X.toarray() if hasattr(proteins.X, "toarray") else proteins.X)
        sdata.tables["proteins"] = proteins
    target = Target(where, "numbers", unit="log counts" if where == "table:proteins" else None)
    sqi.tl.predict(sdata, "ridge", target=target, config=SMALL, progress=False)
    slot = where.partition(":")[2]
    table = sdata.tables[f"imputed_{slot}"]
    names = ["NUC1", "GLD1"] if slot == "proteins" else PARTS
    assert list(table.var_names) == names and (table.obs["ridge_fold"] >= 0).all()
    truth = sdata.tables["proteins"].X if slot == "proteins" else sdata.tables["table"].obsm["parts"]
    np.testing.assert_allclose(table.layers["measured"], np.asarray(truth), rtol=1e-5)
    scores = sqi.tl.score(sdata, target=target, baselines=False).set_index("gene")
    assert scores["pearson"].max() > 0.5


def test_sections_are_left_out_for_targets_as_for_genes(labelled):
    import spatialdata

    for (
        one
    ) in labelled.values():  # spatialdata 0.7.3 renames rows, and not those of a DataFrame in obsm: anndata refuses
        del one.tables["table"].obsm["parts"]
    sdata = spatialdata.concatenate(labelled, concatenate_tables=True)
    how = {"sections": "region", "leave_out": "section", "config": SMALL, "progress": False}
    sqi.tl.predict(sdata, "ridge", target="obs:most", **how)
    table = sdata.tables["imputed_most"]
    assert table.obs["ridge_fold"].nunique() == 3 and set(table.obs["ridge_most"]) <= set(PARTS)


def test_what_is_not_there_or_not_fitted_is_said(labelled):
    with pytest.raises(MissingKey, match="no obs\\['mist'\\] of shapes 'spots'; there are obs .*'most'"):
        sqi.tl.predict(labelled["P1"], "ridge", target="obs:mist")
    with pytest.raises(BadInput, match="genes is 5; of target 'obs:most', pass names"):
        sqi.tl.fit(labelled["P1"], "ridge", target="obs:most", genes=5)
    model = sqi.tl.fit(labelled["P1"], "ridge", target="obs:nuclei", config=SMALL, progress=False)
    with pytest.raises(BadInput, match="target is 'obs:most', but this 'ridge' was fitted on 'obs:nuclei'"):
        sqi.tl.predict(labelled["P2"], model, target="obs:most")


def test_a_model_of_classes_calls_shapes_that_were_not_measured(labelled):
    model = sqi.tl.fit(labelled["P1"], "ridge", target="obs:most", config=SMALL, progress=False)
    sqi.pp.grid(labelled["P1"], spacing_um=200.0)
    sqi.tl.predict(labelled["P1"], model, shapes_key="grid", progress=False)
    table = labelled["P1"].tables["imputed_most"]
    assert np.isnan(np.asarray(table.layers["measured"])).all() and set(table.obs["ridge_most"]) <= set(PARTS)


# Expression as the published TRIPLEX has it ----------------------------------------------------------


def test_expression_as_triplex_has_it_goes_to_a_table_of_its_own_and_what_is_scored_is_not_smoothed(section, genes):
    sqi.tl.predict(section, "ridge", genes=genes, target="triplex_legacy", n_folds=3, config=SMALL, progress=False)
    table = section.tables["imputed_triplex_legacy"]
    counts = section.tables["table"][:, genes].X.toarray().astype(float)
    expected = np.log10(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(table.layers["measured"], expected, rtol=1e-5)
    record = table.uns["sq_imputer"]["ridge"]
    assert record["unit"] == "log10_cp10k_panel"
    assert record["target"] == {"where": "triplex_legacy", "kind": "genes"}
    scores = sqi.tl.score(section, target="triplex_legacy", baselines=False)
    said = np.asarray(table.layers["ridge"])
    mse = scores.set_index("gene")["mse"]
    np.testing.assert_allclose(mse[genes], ((said - expected) ** 2).mean(axis=0), rtol=1e-5)
    for verb in (sqi.tl.correct, sqi.tl.trust):  # what is left of single spots is not what a smoothed map lacks
        with pytest.raises(BadInput, match="'ridge' predicts"):
            verb(section, "ridge", key="imputed_triplex_legacy")


def test_a_model_of_smoothed_rows_is_saved_and_refuses_what_it_cannot_be_compared_with(patients, genes, tmp_path):
    target = patients.pop("P3")
    sqi.tl.fit(patients, "ridge", genes=genes, target="triplex_legacy", config=SMALL, progress=False).save(
        tmp_path / "m"
    )
    model = sqi.load(tmp_path / "m")
    assert (model.target, model.unit) == (Target("triplex_legacy"), "log10_cp10k_panel")
    sqi.tl.predict(target, model, progress=False)
    assert "imputed_triplex_legacy" in target.tables and "imputed" not in target.tables
    with pytest.raises(BadInput, match="was fitted on 'triplex_legacy'"):
        sqi.tl.predict(target, model, target="genes")
    target.tables["table"] = target.tables["table"][:, [g for g in target.tables["table"].var_names if g != genes[0]]]
    with pytest.raises(
        BadInput, match=f"lacks 1 of {len(genes)} genes \\('{genes[0]}'\\), and unit 'log10_cp10k_panel'"
    ):
        sqi.tl.predict(target, model, key_added="other", progress=False)


def test_the_unit_of_a_target_that_has_its_own_is_not_another(section):
    with pytest.raises(BadInput, match="that of target 'triplex_legacy' is 'log10_cp10k_panel'"):
        sqi.tl.predict(section, "ridge", target="triplex_legacy", unit="log2_counts")
