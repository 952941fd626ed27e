"""What a verb says of its arguments is said of the options of the command that was called."""

from __future__ import annotations

import pytest

from sq_imputer import cli
from sq_imputer.cli._words import options_of, spoken

PREDICT = options_of(cli.app, ["predict", "store.zarr"])


@pytest.mark.parametrize(
    ("python", "shell"),
    [
        ("Pass overwrite=True, or another name.", "Pass --overwrite, or another name."),
        ("Pass shapes_key=, one of them.", "Pass --shapes-key, one of them."),
        ("Pass device='auto' to take the best.", "Pass --device 'auto' to take the best."),
        ("Ask for n_repeats=5.", "Ask for --n-repeats 5."),
        ("Pass section_key= of two.", "Pass section_key= (in Python) of two."),
        ("weights == 3 and a=b stay", "weights == 3 and a=b stay"),
    ],
)
def test_arguments_are_options_where_the_command_has_them(python, shell):
    assert spoken(python, PREDICT) == shell


def test_each_command_has_options_of_its_own():
    score = options_of(cli.app, ["score"])
    assert spoken("Pass baselines=False.", score) == "Pass --no-baselines."
    assert spoken("Pass baselines=False.", PREDICT) == "Pass baselines=False (in Python)."
    assert "processes" in options_of(cli.app, ["bench", "run", "config.yaml"])
