"""What the doctor finds is what is there."""

from __future__ import annotations

import re
from importlib.metadata import version

from typer.testing import CliRunner

import sq_imputer as sqi
from sq_imputer import cli


def test_the_doctor_says_what_is_installed_and_what_a_store_holds(stored):
    said = CliRunner().invoke(cli.app, ["doctor", str(stored.path)]).stdout
    assert f"torch │ {version('torch')}" in re.sub(" +", " ", said) and "cpu" in said
    assert "table 'table': 59 rows x 60; no prediction" in said and "59 of 59 rows measured" in said


def test_the_doctor_finds_a_model_that_cannot_be_had_and_a_store_that_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.zarr").mkdir()
    found = CliRunner().invoke(cli.app, ["doctor", "none.zarr"])
    assert found.exit_code == 1 and "FAILS none.zarr: " in found.stdout

    def broken(name):
        raise ImportError("no module named 'its_needs'")

    monkeypatch.setattr(sqi, "get_model", broken)
    found = CliRunner().invoke(cli.app, ["doctor"])
    assert found.exit_code == 1 and "FAILS model 'ridge': no module named 'its_needs'" in found.stdout


def test_the_doctor_says_whose_weights_are_here(tmp_path, monkeypatch):
    import huggingface_hub

    kept = {"owkin/phikon-v2": str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, *_, **__: kept.get(source))
    said = re.sub(" +", " ", CliRunner().invoke(cli.app, ["doctor"]).stdout)
    assert "│ phikon-v2 │ here │" in said and "│ texture │ none from the hub │" in said
    assert "│ uni │ not here; MahmoodLab/UNI, after a log-in │" in said
