from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import sq_imputer as sqi
from sq_imputer.models import mlp, ridge
from sq_imputer.predictor import folder as _folder

PLAN = sqi.Plan(device="cpu", progress=False, seed=5)
CONFIG = ridge.Config(context_um=(), per_section=False, alpha=0.1)


@pytest.mark.parametrize("read", [sqi.load, ridge.Model.load, sqi.Predictor.load], ids=["load", "Model", "Predictor"])
def test_a_saved_model_is_the_same_when_read(fitted, folder, source, read) -> None:
    loaded = read(folder)
    assert type(loaded) is ridge.Model and not loaded.training
    for name in ("config", "genes", "unit", "sizes", "provenance", "history", "sha256"):
        assert getattr(loaded, name) == getattr(fitted, name)
    assert torch.equal(loaded.predict(source, device="cpu").std, fitted.predict(source, device="cpu").std)


def test_the_folder_holds_json_and_safetensors_and_nothing_else(folder, fitted) -> None:
    from safetensors.numpy import load_file

    name = f"weights-{fitted.sha256[:16]}.safetensors"
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", name]
    settings = json.loads((folder / "model.json").read_text())
    assert (settings["model"], settings["genes"], settings["format"]) == ("ridge", list(fitted.genes), 3)
    assert settings["files"] == {name: {"sha256": fitted.sha256, "bytes": (folder / name).stat().st_size}}
    assert settings == _folder.sealed(settings)
    rows = {"training_rows.0.xy_um", "training_rows.0.codes"}
    assert set(load_file(folder / name)) == set(fitted.state_dict()) | rows


def test_saving_again_replaces_what_was_there(folder, fitted, source) -> None:
    other = ridge.Model(replace(CONFIG, alpha=9.0)).fit(source, PLAN)
    other.save(str(folder))
    assert sqi.load(str(folder)).sha256 == other.sha256 != fitted.sha256
    assert len(list(folder.iterdir())) == 2


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


@pytest.mark.parametrize("part", ["model.json", "weights-*"])
def test_a_file_that_is_not_there_is_named(folder, part) -> None:
    [file] = folder.glob(part)
    file.unlink()
    with pytest.raises(sqi.MissingKey, match=f"is no model folder: '{file.name}' not there"):
        sqi.load(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(sqi.MissingKey, match=r"nowhere' is no model folder: 'model.json' not there"):
        sqi.load(tmp_path / "nowhere")


def damaged(content: bytes, how: str) -> bytes:
    flipped = bytearray(content)
    flipped[-3] ^= 1
    return {"truncated": content[:-20], "flipped": bytes(flipped), "empty": b""}[how]


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_weights_that_are_not_those_that_were_saved_are_refused(folder, how) -> None:
    [path] = folder.glob("weights-*")
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(sqi.BadInput, match="does not have the size and sha256 that model.json names"):
        sqi.load(folder)


def rewrite(folder, **changes) -> None:
    settings = json.loads((folder / "model.json").read_text())
    settings.update(changes)
    settings = {name: value for name, value in settings.items() if value is not None}
    (folder / "model.json").write_text(json.dumps(_folder.sealed(settings)))


def test_weights_of_other_sizes_are_refused(folder) -> None:
    rewrite(folder, genes=["A"])
    with pytest.raises(
        sqi.BadInput, match=r"do not fit the model 'ridge': .*weight \(4, 3\) float32, expected \(4, 1\)"
    ):
        sqi.load(folder)


def test_a_newer_format_says_to_upgrade_whatever_else_it_holds(folder) -> None:
    rewrite(folder, format=4, config={"new": 1}, genes=None)
    with pytest.raises(sqi.BadInput, match="has format 4; this version reads 3. Upgrade sq-imputer"):
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


def test_a_model_knows_its_training_rows_again(folder, fitted) -> None:
    [before], [after] = fitted.training_rows, sqi.load(folder).training_rows
    assert after.genes == before.genes and len(after) == 40
    for name in ("xy_um", "codes", "known"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype


@pytest.mark.parametrize(
    ("genes", "said"), [([], "without genes"), ([["A"] * 5], "damaged"), ([["A"], ["A"]], "section [01] .*damaged")]
)
def test_training_rows_that_are_not_whole_are_refused(folder, genes, said) -> None:
    rewrite(folder, training_genes=genes)
    with pytest.raises(sqi.BadInput, match=f"{said}.*Fit the model again"):
        sqi.load(folder)


def test_an_older_format_is_to_be_fitted_again(folder) -> None:
    rewrite(folder, format=2, training_genes=None)
    with pytest.raises(sqi.BadInput, match="has format 2; this version reads 3. Fit the model and save it again"):
        sqi.load(folder)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", "null", "\x00\xff"])
def test_settings_that_are_no_settings_are_refused(folder, text) -> None:
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(sqi.BadInput, match="model.json' is damaged: .* download"):
        sqi.load(folder)


@pytest.mark.parametrize("name", ["format", "model", "config", "genes", "sizes", "history", "training_genes", "files"])
def test_settings_that_lack_something_are_refused(folder, name) -> None:
    rewrite(folder, **{name: None})
    with pytest.raises(sqi.BadInput, match=f"model.json' is damaged: .*{name}"):
        sqi.load(folder)


# Saving -------------------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from sq_imputer.predictor import folder as _folder

real, n = getattr(os, sys.argv[2]), int(sys.argv[3])
left = iter(range(n))

def fatal(*arguments):
    if next(left, None) is None:
        os._exit(9)
    return real(*arguments)

weights = Path(sys.argv[4]).read_bytes()
settings = __import__("json").loads(Path(sys.argv[5]).read_text())
setattr(os, sys.argv[2], fatal)
_folder.write(sys.argv[1], settings, weights)
"""


@pytest.mark.parametrize(
    ("call", "n"), [("fsync", 0), ("replace", 0), ("fsync", 1), ("fsync", 2), ("replace", 1), ("fsync", 3)]
)
@pytest.mark.parametrize("first", [True, False], ids=["a new folder", "an older model"])
def test_a_killed_save_leaves_the_older_model_or_none(fitted, source, tmp_path, first, call, n) -> None:
    folder, other = tmp_path / "model", ridge.Model(replace(CONFIG, alpha=9.0)).fit(source, PLAN)
    other.save(tmp_path / "other")
    [weights] = (tmp_path / "other").glob("weights-*")
    if not first:
        fitted.save(folder)
    command = [sys.executable, "-c", KILLED, folder, call, str(n), weights, tmp_path / "other" / "model.json"]
    assert subprocess.run(list(map(str, command))).returncode == 9
    done = (call, n) == ("fsync", 3)  # only the folder's entry was not yet on the disk
    if first and not done:
        with pytest.raises(sqi.MissingKey, match="'model.json' not there"):
            sqi.load(folder)
    else:
        assert sqi.load(folder).sha256 == (other if done else fitted).sha256
    other.save(folder)  # and what was left is not in the way
    assert sqi.load(folder).sha256 == other.sha256


def test_what_killed_saves_left_is_removed_once_it_is_old(folder, fitted) -> None:
    left = [folder / f"weights-{'0' * 16}.safetensors", folder / f".model.json.{'a' * 8}", folder / "notes.txt"]
    for file in left:
        file.write_bytes(b"")
    fitted.save(folder)
    assert all(file.exists() for file in left)  # another save may be under way
    for file in left:
        os.utime(file, (0, 0))
    fitted.save(folder)
    assert [file.exists() for file in left] == [False, False, True]


@pytest.mark.parametrize("content", [b"my notes", b"{}", None])
def test_a_folder_of_something_else_is_left_alone(fitted, tmp_path, content) -> None:
    name = "notes.txt" if content == b"my notes" else "model.json"
    (tmp_path / name).write_bytes(content or json.dumps({"format": 2, "model": "someone else's"}).encode())
    with pytest.raises(
        sqi.BadInput, match="holds something else: 'notes.txt'|is not replaced, since it cannot be read"
    ):
        fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("n", [0, 1], ids=["weights", "settings"])
def test_a_full_disk_is_said_and_changes_nothing(folder, fitted, source, monkeypatch, n) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    left = iter(range(n))
    real = _folder.sync

    def full(path) -> None:
        if path.is_file() and next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    monkeypatch.setattr(_folder, "sync", full)
    other = ridge.Model(replace(CONFIG, alpha=9.0)).fit(source, PLAN)
    with pytest.raises(sqi.errors.StoreError, match="could not be saved .*No space left on device .* MB are needed"):
        other.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_values_that_json_does_not_have_come_back_as_none(fitted, tmp_path) -> None:
    fitted.history = {"train": [1.0, float("nan")], "rows": np.int64(3)}
    fitted.save(tmp_path)
    assert sqi.load(tmp_path).history == {"train": [1.0, None], "rows": 3}


def test_weights_that_are_not_finite_are_not_saved(fitted, tmp_path) -> None:
    fitted.weight[0, 0] = float("nan")
    with pytest.raises(sqi.BadInput, match="'ridge' is not saved.*NaN or infinite values in 'weight'"):
        fitted.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
