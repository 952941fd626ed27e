from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sq_imputer as sqi
from sq_imputer.predictor import registry
from sq_imputer.testing import check_predictor

MODELS = Path(sqi.__file__).parent / "models"

PLUGIN = """
from dataclasses import dataclass

import torch
from sq_imputer import CropSpec, ModelCard, Needs, Prediction, Predictor


@dataclass(frozen=True)
class Config:
    size_px: int = 64

    @classmethod
    def small(cls):
        return cls()


class Model(Predictor):
    Config = Config
    card = ModelCard("line", "A line in the features.", "None.", "Ridge.", "All.", "A toy.")

    @property
    def needs(self):
        return Needs(CropSpec(150.0, self.config.size_px), ("texture",), per_section=True)

    def build(self):
        self.register_buffer("weight", torch.zeros(self.sizes["features"], len(self.genes)))

    def optimize(self, sources, plan):
        batches = [b for s in sources for b in self.seen(s, 256, rows=s.measured.nonzero()[0])]
        x = torch.cat([batch.features for batch in batches])
        y = torch.cat([batch.expression for batch in batches]) - self.expression_mean
        self.weight.copy_(torch.linalg.solve(x.T @ x + 300 * torch.eye(x.shape[1]), x.T @ y))

    def predict_step(self, batch):
        return Prediction(mean=self.expression_mean + batch.features @ self.weight)
"""


def install(folder: Path, package: str, points: dict[str, str], code: str = PLUGIN) -> Path:
    """A package as an installer leaves it in `folder`: its module, and metadata that name its entry points."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text("")
    (folder / package / "line.py").write_text(code)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[sq_imputer.models]\n{lines}")
    return folder


@pytest.fixture
def registered(monkeypatch) -> dict:
    """An empty register of this process; what is registered is gone after the test."""
    monkeypatch.setattr(registry, "_registered", {})
    return registry._registered


@pytest.fixture
def site(tmp_path, monkeypatch, registered):
    """Installs packages beside sq_imputer, for this test."""

    def add(package: str, points: dict[str, str], code: str = PLUGIN) -> None:
        monkeypatch.syspath_prepend(install(tmp_path / package, package, points, code))
        registry._plugins.cache_clear()

    yield add
    registry._plugins.cache_clear()
    for name in [name for name in sys.modules if name.startswith("plugin_")]:
        del sys.modules[name]


# Built-in models ----------------------------------------------------------------------------------


def test_models_are_the_files_in_models(registered) -> None:
    files = {path.stem for path in MODELS.glob("*.py") if not path.stem.startswith("_")}
    assert {"mlp", "nsl", "ridge"} <= files <= set(sqi.list_models())
    assert sqi.list_models() == sorted(sqi.list_models())


@pytest.mark.parametrize("name", registry._builtin())
def test_file_name_card_and_class_agree(name) -> None:
    model = sqi.get_model(name)
    assert (model.card.name, model.__name__, model.__module__) == (name, "Model", f"sq_imputer.models.{name}")
    assert issubclass(model, sqi.Predictor)


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(
        sqi.MissingKey, match=r"no model 'oracle'; there are .*'ridge'.* entry point 'sq_imputer.models'"
    ):
        sqi.get_model("oracle")


def test_cite_is_the_entry_of_the_paper_or_the_sentence_that_there_is_none() -> None:
    assert sqi.cite("nsl").startswith("@inproceedings{dawood2021nsl,")
    assert sqi.cite("mlp") == "No publication of its own."


# Registered in this process -----------------------------------------------------------------------


def own(name: str) -> type[sqi.Predictor]:
    ridge = sqi.get_model("ridge")
    return type("Own", (ridge,), {"card": replace(ridge.card, name=name)})


def test_a_registered_model_is_listed_and_found(registered) -> None:
    model = own("own")
    assert sqi.register_model(model) is model  # so that it can decorate a class
    assert "own" in sqi.list_models() and sqi.get_model("own") is model
    assert sqi.register_model(model) is model  # as when a notebook cell is run twice
    assert sqi.list_models().count("own") == 1


def test_a_taken_name_is_refused(registered) -> None:
    sqi.register_model(own("own"))
    for name in ("own", "ridge"):
        with pytest.raises(sqi.BadInput, match=f"a model named '{name}' exists already; give the card of Own another"):
            sqi.register_model(own(name))


def test_every_verb_takes_a_registered_model(registered, section) -> None:
    sqi.register_model(own("own"))
    config = {"size_px": 64, "context_um": (), "alpha": 1.0}
    sqi.tl.predict(section, "own", genes=["NUC1", "HK1"], n_folds=2, config=config)
    assert "own" in section.tables["imputed"].layers


# Plug-ins -----------------------------------------------------------------------------------------


def test_an_installed_plugin_is_listed_without_being_imported(tmp_path) -> None:
    folder = install(tmp_path, "plugin_a", {"line": "plugin_a.line:Model"})
    code = (
        "import sys, sq_imputer as sqi\n"
        "assert 'line' in sqi.list_models() and 'ridge' in sqi.list_models(), sqi.list_models()\n"
        "assert not {'plugin_a', 'torch', 'spatialdata'} & set(sys.modules)\n"
        "model = sqi.get_model('line')\n"
        "assert model.__module__ == 'plugin_a.line' and issubclass(model, sqi.Predictor)\n"
    )
    path = os.pathsep.join([str(folder), str(MODELS.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_plugin_keeps_the_contract_and_is_loaded_by_its_name(site, toy_slides, tmp_path) -> None:
    site("plugin_a", {"line": "plugin_a.line:Model"})
    assert "check_learns" in check_predictor("line")
    fitted = sqi.get_model("line")().fit(list(toy_slides[:2]), sqi.Plan(device="cpu"))
    fitted.save(tmp_path / "model")
    loaded = sqi.load(tmp_path / "model")
    assert type(loaded) is type(fitted)
    np.testing.assert_array_equal(loaded.predict(toy_slides[2]).mean, fitted.predict(toy_slides[2]).mean)


def test_a_plugin_with_the_name_of_a_builtin_model_is_an_error_and_hides_nothing_else(site) -> None:
    site("plugin_a", {"ridge": "plugin_a.line:Model"})
    assert sqi.list_models().count("ridge") == 1
    places = "'sq_imputer.models.ridge:Model', 'plugin_a.line:Model'"
    with pytest.raises(sqi.BadInput, match=f"several models are named 'ridge': {places}. Uninstall all but one"):
        sqi.get_model("ridge")
    assert sqi.get_model("mlp").card.name == "mlp"


def test_two_plugins_of_one_name_are_an_error(site) -> None:
    site("plugin_a", {"line": "plugin_a.line:Model"})
    site("plugin_b", {"line": "plugin_b.line:Model"})
    with pytest.raises(sqi.BadInput, match=r"several models are named 'line': .*plugin_a.*plugin_b|plugin_b.*plugin_a"):
        sqi.get_model("line")


def test_a_plugin_whose_card_has_another_name_is_an_error(site) -> None:
    site("plugin_a", {"closest": "plugin_a.line:Model"})
    with pytest.raises(
        sqi.BadInput, match="entry point 'closest' leads to plugin_a.line:Model, whose card is named 'l"
    ):
        sqi.get_model("closest")


def test_the_name_of_a_plugin_cannot_be_registered(site) -> None:
    site("plugin_a", {"line": "plugin_a.line:Model"})
    with pytest.raises(sqi.BadInput, match="a model named 'line' exists already"):
        sqi.register_model(own("line"))


def test_a_plugin_that_cannot_be_imported_says_why_and_leaves_the_others(site) -> None:
    site("plugin_a", {"line": "plugin_a.line:Model"}, code="import a_module_that_is_not_there\n")
    assert "line" in sqi.list_models() and sqi.get_model("ridge")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        sqi.get_model("line")
