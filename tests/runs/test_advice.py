"""What verbs advise is done, with the arguments that the message names, and then it works."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.errors import SqImputerError

QUICK = {"n_folds": 3, "buffer_um": 50.0}
ALONE = {"baselines": False}


def helps(call: Callable, wrong: dict, *ways: tuple[str, dict]) -> None:
    """A call is refused, and every way out that its message names is one; what a way does not change stays."""
    with pytest.raises(SqImputerError) as refused:
        call(**wrong)
    for words, changes in ways:
        assert words in str(refused.value), str(refused.value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call(**{name: value for name, value in {**wrong, **changes}.items() if value is not None})


@pytest.fixture
def predict(section, spy, genes):
    """`tl.predict` of the first section by a fast model, after it was predicted once."""

    def call(model="spy", sdata=section, **how):
        sqi.tl.predict(sdata, model, **({**QUICK, "genes": genes} if isinstance(model, str) else {}) | how)

    call()
    return call


def test_a_table_that_is_taken(predict, section, genes):
    layer = ("layer_added=", {"layer_added": "other"})
    helps(predict, {}, ("overwrite=True", {"overwrite": True}), layer, ("key_added=", {"key_added": "b"}))
    unit = {"unit": "log1p_counts", "layer_added": "c"}
    helps(predict, unit, ("unit='log1p_cp10k'", {"unit": "log1p_cp10k"}), ("key_added=", {"key_added": "d"}))
    panel = {"genes": genes[:2], "layer_added": "e"}
    same = ("genes=list(sdata.tables['imputed'].var_names)", {"genes": list(section.tables["imputed"].var_names)})
    helps(predict, panel, same, ("overwrite=True", {"overwrite": True}))


def test_a_fitted_model(predict, section, patients, genes):
    others = [patients["P2"], patients["P3"]]
    model = sqi.tl.fit(others, "spy", genes=genes)
    wrong = {"model": model, "reference": others, "layer_added": "a"}
    named = ("model='spy' to fit one", {"model": "spy", "overwrite": True})
    helps(predict, wrong, ("Leave out reference=", {"reference": None}), named)
    helps(predict, {"model": model, "genes": genes[:1], "layer_added": "c"}, ("Leave out genes=", {"genes": None}))
    unit = {"model": model, "unit": "log1p_counts", "layer_added": "d"}
    helps(predict, unit, ("Leave out unit=", {"unit": None}))
    own = sqi.tl.fit([section, *others], "spy", genes=genes)
    helps(predict, {"model": own, "layer_added": "e"}, ("give the model by name alone", {"model": "spy"}))


def test_patients_that_are_not_named(joined, spy, genes):
    how = {"sections": "region", "genes": genes, "overwrite": True, **QUICK}

    def call(**changes):
        sqi.tl.predict(joined, "spy", **how, **changes)

    obs = joined.tables["table"].obs
    obs["donor"], obs["patient"] = obs["region"].astype(str), "one"
    ways = ("'section'", {"leave_out": "section"}), ("'block'", {"leave_out": "block"})
    helps(call, {"leave_out": "patient"}, *ways, ("patient_key=", {"patient_key": "donor"}))


def test_a_bank_of_the_same_patient(patients, recalls, genes):
    section, other = patients["P1"], patients["P2"]
    for one in (section, other):
        one.tables["table"].obs["patient"] = "one"
        one.tables["table"].obs["donor"] = str(one.attrs["section"])

    def call(reference=other, unnamed=False, **how):
        if unnamed:
            for one in (section, other):
                del one.tables["table"].obs["patient"]
            section.attrs["patient"], other.attrs["patient"] = "one", "another"
        sqi.tl.predict(section, "recalls", reference=reference, genes=genes, overwrite=True, **how)

    ways = ("Leave these out", {"reference": patients["P3"]}), ("allow_same_patient=True", {"allow_same_patient": True})
    helps(
        call, {}, *ways[1:], ("patient_key=", {"patient_key": "donor"}), ("sdata.attrs['patient']", {"unnamed": True})
    )
    other.tables["table"].obs["patient"] = section.tables["table"].obs["patient"] = "one"
    helps(call, {}, ways[0])


def test_scores_of_models_that_were_not_fitted_alike(predict, section, patients, genes, small_ridge):
    predict(reference=[patients["P2"]], layer_added="other")

    def call(**how):
        sqi.tl.score(section, **how)

    helps(call, {}, ("models= of one kind", {"models": ["spy"]}), ("baselines=False", ALONE))


def test_a_run_that_has_no_store(predict, tmp_path):
    wrong = {"resume": True, "layer_added": "a"}
    helps(predict, wrong, ("output_path=", {"output_path": tmp_path / "out.zarr"}))
    helps(predict, {"resume": True, "layer_added": "b"}, ("leave out resume=", {"resume": None}))


def test_a_buffer_that_leaves_nothing(predict):
    helps(predict, {"buffer_um": 1e4, "layer_added": "a"}, ("smaller buffer_um", {"buffer_um": 10.0}))


def test_domains(predict, section, monkeypatch):
    def call(key_added="domain", **how):
        sqi.tl.domains(section, **{"method": "kmeans", "key_added": key_added, "overwrite": True, **how})

    both = {"n_domains": 2, "resolution": 1.0}
    helps(call, both, ("Pass one of them", {"resolution": None}))
    monkeypatch.setattr("sq_imputer.tl._domains.find_spec", lambda _: None)
    kmeans = {"method": "kmeans", "n_domains": 2}
    helps(call, {"method": "leiden"}, ("method='kmeans' and n_domains=", kmeans))
    del section.tables["imputed"].obsm["spatial"]

    def restored(again: Sequence = ()):
        for _ in again:
            predict(overwrite=True)
        call(n_domains=2)

    helps(restored, {}, ("call tl.predict again", {"again": [1]}))


def test_constants_are_left_out_as_the_warning_says(predict, section, genes, spy, monkeypatch):
    monkeypatch.setattr("sq_imputer.runs.slots.is_constant", lambda values: np.arange(values.shape[1]) == 0)
    with pytest.warns(UserWarning, match="predicts one value") as told:
        predict(layer_added="flat")
    said = next(str(one.message) for one in told if "leave them out, as by" in str(one.message))
    advice = said.split("as by ")[1].split(", before")[0]
    assert list(eval(advice, {"table": section.tables["imputed"]}).var_names) == genes[1:]


def test_settings_that_contradict_the_plan(section, spy, genes):
    def call(**how):
        sqi.tl.fit(section, "spy", genes=genes, **how)

    wrong = {"plan": sqi.Plan(seed=1), "seed": 2}
    helps(call, wrong, ("Leave out seed=", {"seed": None}), ("set it in", {"plan": sqi.Plan(seed=2)}))
