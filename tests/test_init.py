"""The names of the package: there, lazy, and known to `dir`."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sq_imputer as sqi


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_dir_lists_what_is_public():
    assert dir(sqi) == sorted(sqi.__all__)
    assert {"tl", "pp", "pl", "bench", "datasets", "io", "load", "Plan", "Predictor"} <= set(dir(sqi))


def test_namespaces_are_the_modules_and_stay_the_same():
    import sq_imputer.tl

    assert sqi.tl is sq_imputer.tl and sqi.tl.predict is sq_imputer.tl.predict


def test_lazy_names_are_the_objects_themselves():
    from sq_imputer.predictor.base import Predictor
    from sq_imputer.predictor.folder import load
    from sq_imputer.predictor.train import Plan

    assert (sqi.Predictor, sqi.load, sqi.Plan) == (Predictor, load, Plan)


def test_a_namespace_is_imported_when_it_is_asked_for():
    code = "import sys, sq_imputer as s; before = 'sq_imputer.bench' in sys.modules; s.bench; "
    assert fresh(code + "print(before, 'sq_imputer.bench' in sys.modules)") == "False True"


def test_star_import_gives_every_public_name():
    names = fresh("from sq_imputer import *; print(' '.join(sorted(n for n in globals() if n[0] != '_')))")
    assert set(sqi.__all__) == set(names.split())


@pytest.mark.parametrize("name", ["tool", "imputed", "_hidden"])
def test_an_unknown_name_is_an_attribute_error(name):
    assert not hasattr(sqi, name)
    with pytest.raises(AttributeError, match=f"module 'sq_imputer' has no attribute '{name}'"):
        getattr(sqi, name)


def test_cite_gives_the_paper_behind_a_model():
    assert sqi.cite("nsl").startswith("@inproceedings{dawood2021nsl,")
    assert sqi.cite("nsl").count("{") == sqi.cite("nsl").count("}")
    assert sqi.cite("ridge") == sqi.get_model("ridge").card.paper


def test_cite_of_an_unknown_model_names_the_models():
    with pytest.raises(sqi.MissingKey, match="no model 'stm'; there are .*'nsl'"):
        sqi.cite("stm")
