from __future__ import annotations

from importlib.util import find_spec

import pytest

import sq_imputer as sqi


def test_without_napari_the_error_says_what_to_install_and_what_does_without(monkeypatch):
    absent = {"napari", "qtpy"}
    monkeypatch.setattr("sq_imputer.widget.find_spec", lambda name: None if name in absent else find_spec("json"))
    with pytest.raises(sqi.BadInput, match=r"the window needs napari, qtpy, .*\[napari\].*pl\.compare"):
        sqi.widget.open("section.zarr")
