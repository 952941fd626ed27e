"""The examples of docs/extending.md keep the contracts that the page speaks of."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from documents import DOCS, PAGES, blocks_of


@pytest.fixture
def example(monkeypatch):
    """Runs a file of docs/_examples, or of another folder, as a module."""

    def run(name: str, folder: str = "_examples"):
        spec = spec_from_file_location(f"example_{name}", DOCS / folder / f"{name}.py")
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return run


def test_the_example_model_keeps_the_contract(example, monkeypatch):
    from sq_imputer import register_model
    from sq_imputer.testing import check_predictor

    monkeypatch.setattr("sq_imputer.predictor.registry._registered", {})
    assert check_predictor(register_model(example("narrow").Model))


def test_the_example_model_of_classes_is_short_and_takes_classes_alone(example, monkeypatch):
    import numpy as np
    import pandas as pd

    import sq_imputer as sqi
    from sq_imputer.testing import check_predictor

    monkeypatch.setattr("sq_imputer.predictor.registry._registered", {})
    assert check_predictor(sqi.register_model(example("grade").Model))
    assert len((DOCS / "_examples" / "grade.py").read_text().splitlines()) <= 60
    sdata = sqi.datasets.toy(1, size_px=640, mpp=1.25, seed=11)["P1"]
    table = sdata.tables["table"]
    table.obs["cells"] = pd.Categorical(np.where(table.obs["nuclei"] > table.obs["nuclei"].median(), "many", "few"))
    sqi.tl.predict(sdata, "grade", target="obs:cells", config={"size_px": 32, "epochs": 20}, n_folds=2, progress=False)
    table = sdata.tables["imputed_cells"]
    np.testing.assert_allclose(np.asarray(table.layers["grade"]).sum(axis=1), 1, rtol=1e-5)
    assert set(table.obs["grade_cells"]) == {"few", "many"} and "grade_std" in table.layers
    with pytest.raises(sqi.BadInput, match="'grade' predicts 'classes', and target 'genes' is of kind 'genes'"):
        sqi.tl.predict(sdata, "grade", genes=4)


def test_the_page_on_extending_shows_every_check_and_what_it_states(example):
    from sq_imputer.testing import CHECKS

    assert "```{include} generated/checks.txt" in (DOCS / "extending.md").read_text()
    rows = example("contract", "_ext").table().splitlines()[2:]
    assert len(rows) == len(CHECKS) and all(row.count("|") == 3 and "\n" not in row for row in rows)


def test_the_example_encoder_sees_colors(example, monkeypatch):
    import torch

    from sq_imputer.encoders import get_encoder, list_encoders

    monkeypatch.setattr("sq_imputer.encoders._registered", {})
    example("mean_color")
    assert "mean_color" in list_encoders()
    red = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 255
    assert get_encoder("mean_color")(red).tolist() == [[1, 0, 0, 0, 0, 0]] * 2


def test_every_public_verb_is_in_the_api_page():
    from types import ModuleType

    import sq_imputer as sqi

    page = (DOCS / "api.md").read_text()
    verbs = [
        f"{space}.{name}" for space in ("datasets", "io", "pp", "tl", "pl") for name in getattr(sqi, space).__all__
    ]
    top = [name for name in sqi.__all__ if not isinstance(getattr(sqi, name), ModuleType)]
    assert [name for name in (*verbs, *top) if f"   {name}\n" not in page] == []


def test_every_name_of_the_api_page_is_there_in_a_fresh_interpreter():
    names = re.findall(r"^   ([A-Za-z_][\w.]*)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert {"tl.predict", "section.keys.SlideKeys", "encoders.Encoder"} <= set(names)
    # those of one module from a package without what others imported, first to last and last to first
    code = """
import importlib, operator, sys
last = ""
for name in [*sys.argv[1:], *reversed(sys.argv[1:])]:
    if name.rpartition(".")[0] != last:
        last = name.rpartition(".")[0]
        for loaded in [m for m in sys.modules if m.partition(".")[0] == "sq_imputer"]:
            del sys.modules[loaded]
    try:
        operator.attrgetter(name)(importlib.import_module("sq_imputer"))
    except AttributeError as error:
        print(name, error)
"""
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_a_model_page_shows_its_picture_and_where_that_comes_from(example, monkeypatch, tmp_path):
    pages = example("model_pages", "_ext")
    monkeypatch.setattr(pages, "FIGURES", tmp_path)
    assert "{figure}" not in pages.page("ridge")
    (tmp_path / "ridge.png").touch()
    page = pages.page("ridge")
    assert "```{figure} ../_static/models/ridge.png" in page
    assert all(said in page for said in ("C2", "same patient", "`python benchmarks/maps.py`", "CC BY 4.0"))


def test_a_model_page_lists_the_values_of_every_form_of_its_config(example):
    from sq_imputer import get_model

    pages, stem = example("model_pages", "_ext"), get_model("stem").Config
    row = [line for line in pages.page("stem").splitlines() if line.startswith("| `n_steps`")]
    assert row == [f"| `n_steps` | `{stem().n_steps}` | `{stem.small().n_steps}` | `{stem.paper().n_steps}` |"]
    assert "Config.paper()` |" in pages.settings(get_model("stem"))
    assert "Config.paper()` |" not in pages.settings(get_model("ridge"))


def test_pictures_of_the_docs_are_small_and_shown():
    from sq_imputer import list_models

    found = {path.stem: path.stat().st_size for path in (DOCS / "_static" / "models").glob("*.png")}
    assert {"stem", "mclstexp"} <= set(found) <= {"maps", *list_models()}
    assert max(found.values()) < 400_000


def test_the_page_on_encoders_has_the_cards():
    from sq_imputer.encoders._cards import BUILTIN

    lines = (DOCS / "encoders.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list(BUILTIN)
    yes = {True: "yes", False: "no"}
    for row, card in zip(rows, BUILTIN.values(), strict=True):
        size = "any from 32" if card.any_size else str(card.size_px)
        assert [row[1], row[2], row[4]] == [str(card.dim), size, card.license]
        assert row[5:7] == [yes[card.commercial], yes[card.gated]]
        assert row[7].startswith(card.source or "no weights") and ("pickle" in row[7]) == ("pickle" in card.note)


def wrong_calls(code: str) -> list[str]:
    """Names below `sqi` that are not there, and arguments that what they name does not take."""
    import ast
    import inspect
    from functools import reduce

    import sq_imputer as sqi

    found = []
    calls = {id(node.func): node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
    for node in ast.walk(ast.parse(code)):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if re.fullmatch(r"sqi(\.\w+)+", dotted):
            try:
                reduce(getattr, dotted.split(".")[1:], sqi)
            except AttributeError:
                found.append(dotted)
    for call in calls.values():
        dotted = ast.unparse(call.func)
        if re.fullmatch(r"sqi(\.\w+)+", dotted) and dotted not in found:
            parameters = inspect.signature(reduce(getattr, dotted.split(".")[1:], sqi)).parameters.values()
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                known = {p.name for p in parameters}
                found += [f"{dotted}({k.arg}=)" for k in call.keywords if k.arg and k.arg not in known]
    return found


@pytest.mark.parametrize(
    "page", [*PAGES, DOCS.parent / "README.md"], ids=lambda page: str(page.relative_to(DOCS.parent))
)
def test_names_and_arguments_in_the_blocks_of_pages_are_there(page):
    assert [wrong for block in blocks_of(page) for wrong in wrong_calls(block)] == []


def test_names_and_arguments_in_the_blocks_of_model_pages_are_there(example):
    from sq_imputer import list_models

    pages = example("model_pages", "_ext")
    blocks = [re.findall(r"```python\n(.*?)```", pages.page(name), re.DOTALL) for name in list_models()]
    assert all(blocks) and [wrong for page in blocks for block in page for wrong in wrong_calls(block)] == []


def test_a_name_or_an_argument_that_is_not_there_is_found():
    code = "sqi.tl.predict(a, model='ridge', folds=3)\nsqi.tl.impute(a)\nsqi.io.read_st(image=1, mp=2)"
    assert sorted(wrong_calls(code)) == ["sqi.io.read_st(mp=)", "sqi.tl.impute", "sqi.tl.predict(folds=)"]


def test_tests_that_pages_name_are_there():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", "".join(page.read_text() for page in DOCS.rglob("*.md")))
    assert len(named) > 30
    texts = {file: (DOCS.parent / "tests" / file).read_text() for file, _ in named}
    assert not [f"{file}::{name}" for file, name in named if f"def {name}(" not in texts[file]]
