"""What a verb says of its arguments is said of the options of the command that was called."""

from __future__ import annotations

import pytest
import typer

from sq_imputer import cli
from sq_imputer.cli._words import VERBS, options_of, spoken

PREDICT = options_of(cli.app, ["predict", "store.zarr"])


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("Pass overwrite=True, or another name.", "Pass --overwrite, or another name."),
        ("Pass shapes_key=, one of them.", "Pass --shapes-key, one of them."),
        ("Pass device='auto' to take the best.", "Pass --device 'auto' to take the best."),
        ("Ask for n_repeats=5.", "Ask for --n-repeats 5."),
        ("Pass section_key= of two.", "Pass section_key= (in Python) of two."),
        ("Call tl.predict first, or pass mpp=.", "Call `sq-imputer predict` first, or pass --mpp."),
        ("a folder written by predictor.save().", "a folder written by `sq-imputer fit`."),
        ("Known after encoders.from_callable(f, name).", "Known after encoders.from_callable(f, name) (in Python)."),
        ("tl.fit(..., resolution=0.5), or another", "tl.fit(..., resolution=0.5) (in Python), or another"),
        ("n_repeats is 0; pass another key_added.", "--n-repeats is 0; pass another --key-added."),
        ("tables['key_added'] of obs 'spot_id', a smaller buffer_um", None),
        ("weights == 3 and a=b stay", "weights == 3 and a=b stay"),
    ],
)
def test_arguments_are_options_where_the_command_has_them(python, shell):
    assert spoken(python, PREDICT) == (python if shell is None else shell)


def test_each_command_has_options_of_its_own():
    score = options_of(cli.app, ["score"])
    assert spoken("Pass baselines=False.", score) == "Pass --no-baselines."
    assert spoken("Pass baselines=False.", PREDICT) == "Pass baselines=False (in Python)."
    assert "processes" in options_of(cli.app, ["bench", "run", "config.yaml"])


def test_verbs_are_commands():
    assert set(VERBS.values()) <= set(typer.main.get_command(cli.app).commands)
