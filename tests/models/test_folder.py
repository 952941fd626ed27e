from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import _folder, mlp, ridge

PLAN = sqi.Plan(device="cpu", progress=False, seed=5)
CONFIG = ridge.Config(context_um=(), per_section=False, alpha=0.1)
N = 50


@pytest.fixture
def source(arrays):
    """50 rows whose expression is a line in their features; the last ten were not measured."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 4)) * [1, 2, 3, 4] + [0, 5, 0, -5]
    y = x @ rng.normal(size=(4, 3)) + 0.1 * rng.normal(size=(N, 3))
    y[40:] = np.nan
    return arrays(y, features=x, measured=np.arange(N) < 40)


@pytest.fixture
def fitted(source) -> sqi.Predictor:
    return ridge.Model(CONFIG).fit(source, PLAN)


@pytest.fixture
def folder(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("read", [sqi.load, ridge.Model.load, sqi.Predictor.load], ids=["load", "Model", "Predictor"])
def test_a_saved_model_is_the_same_when_read(fitted, folder, source, read) -> None:
    loaded = read(folder)
    assert type(loaded) is ridge.Model and not loaded.training
    for name in ("config", "genes", "unit", "sizes", "provenance", "history", "sha256"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert torch.equal(loaded.predict(source, device="cpu").std, fitted.predict(source, device="cpu").std)


def test_the_folder_holds_json_and_safetensors_and_nothing_else(folder, fitted) -> None:
    from safetensors.numpy import load_file

    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    settings = json.loads((folder / "model.json").read_text())
    assert (settings["model"], settings["genes"], settings["format"]) == ("ridge", list(fitted.genes), 1)
    assert settings["sha256"] == fitted.sha256
    assert set(load_file(folder / "weights.safetensors")) == set(fitted.state_dict())


def test_saving_again_replaces_what_was_there(folder, fitted, source) -> None:
    other = ridge.Model(replace(CONFIG, alpha=9.0)).fit(source, PLAN)
    other.save(str(folder))
    assert sqi.load(str(folder)).sha256 == other.sha256 != fitted.sha256


def test_a_model_that_is_not_registered_is_read_by_its_class(source, tmp_path) -> None:
    class Own(ridge.Model):
        card = replace(ridge.Model.card, name="own")

    model = Own(CONFIG).fit(source, PLAN)
    model.save(tmp_path)
    assert Own.load(tmp_path).sha256 == model.sha256
    with pytest.raises(sqi.MissingKey, match="no model 'own'"):
        sqi.load(tmp_path)


def test_another_model_in_the_folder_is_named(folder) -> None:
    with pytest.raises(sqi.BadInput, match=r"holds a 'ridge', not a 'mlp'. Use sq_imputer.load\(\)"):
        mlp.Model.load(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_file_that_is_not_there_is_named(folder, name) -> None:
    (folder / name).unlink()
    with pytest.raises(sqi.MissingKey, match=f"is no model folder: '{name}' not there"):
        sqi.load(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(sqi.MissingKey, match=r"nowhere' is no model folder: 'model.json', 'weights.safetensors' not"):
        sqi.load(tmp_path / "nowhere")


def damaged(content: bytes, how: str) -> bytes:
    flipped = bytearray(content)
    flipped[-3] ^= 1
    return {"truncated": content[:-20], "flipped": bytes(flipped), "empty": b""}[how]


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_weights_that_are_not_those_that_were_saved_are_refused(folder, how) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(sqi.BadInput, match="does not have the sha256 that model.json names"):
        sqi.load(folder)


def rewrite(folder, **changes) -> None:
    settings = json.loads((folder / "model.json").read_text())
    settings.update(changes)
    settings = {name: value for name, value in settings.items() if value is not None}
    (folder / "model.json").write_text(json.dumps(settings))


class Bomb:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("content", [pickle.dumps(Bomb()), b"not tensors"])
def test_weights_are_read_as_safetensors_whatever_they_are(folder, content) -> None:
    (folder / "weights.safetensors").write_bytes(content)
    rewrite(folder, sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(sqi.BadInput, match="does not fit the model 'ridge'"):
        sqi.load(folder)


def test_weights_of_other_sizes_are_refused(folder) -> None:
    rewrite(folder, genes=["A"])
    with pytest.raises(sqi.BadInput, match="does not fit the model 'ridge': (?s:.*)size mismatch"):
        sqi.load(folder)


def test_a_newer_format_says_to_upgrade_whatever_else_it_holds(folder) -> None:
    rewrite(folder, format=2, config={"new": 1}, genes=None)
    with pytest.raises(sqi.BadInput, match="has format 2; this version reads up to 1. Upgrade sq-imputer"):
        sqi.load(folder)


def test_an_unknown_field_of_the_config_is_named(folder) -> None:
    rewrite(folder, config={"alpha": 1.0, "depth": 3})
    with pytest.raises(sqi.BadInput, match="Config has no 'depth'; the model was saved by another version"):
        sqi.load(folder)


def test_a_value_that_the_config_refuses_is_named(folder) -> None:
    rewrite(folder, config={"kernel": "poly"})
    with pytest.raises(sqi.BadInput, match="kernel is 'poly'"):
        sqi.load(folder)


def test_an_unknown_model_is_named(folder) -> None:
    rewrite(folder, model="oracle")
    with pytest.raises(sqi.MissingKey, match="no model 'oracle'; there are .*'ridge'"):
        sqi.load(folder)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", "null", "\x00\xff"])
def test_settings_that_are_no_settings_are_refused(folder, text) -> None:
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(sqi.BadInput, match="model.json' is damaged: .* Save or download the model again"):
        sqi.load(folder)


@pytest.mark.parametrize("name", ["format", "model", "config", "genes", "sizes", "history", "sha256"])
def test_settings_that_lack_something_are_refused(folder, name) -> None:
    rewrite(folder, **{name: None})
    with pytest.raises(sqi.BadInput, match=f"model.json' is damaged: KeyError '{name}'"):
        sqi.load(folder)


def test_configs_come_back_as_they_were() -> None:
    @dataclass(frozen=True)
    class Inner:
        depth: int = 2

    @dataclass(frozen=True)
    class Config:
        names: tuple[str, ...] = ("a",)
        inner: Inner = field(default=Inner())
        rate: float = 0.1

    assert _folder._thaw(Config, {"names": ["x", "y"], "inner": {"depth": 7}, "rate": 1}) == Config(
        ("x", "y"), Inner(7), 1
    )
    assert _folder._thaw(Config, {}) == Config()
