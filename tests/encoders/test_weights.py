from __future__ import annotations

import hashlib
from dataclasses import replace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError
from torch import nn

from sq_imputer.encoders._cards import BUILTIN
from sq_imputer.encoders._weights import load_strictly, locate
from sq_imputer.errors import BadInput

UNI = BUILTIN["uni"]


@pytest.fixture
def hub(monkeypatch):
    """The hub's download, replaced by what a test puts here; no test goes online."""
    calls = []

    def answer(result):
        def download(repo, file, *, revision):
            calls.append((repo, file, revision))
            if isinstance(result, Exception):
                raise result
            return str(result)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
        return calls

    return answer


def gated():
    # Its constructor asks for an HTTP response, which differs between versions of the hub's client.
    error = GatedRepoError.__new__(GatedRepoError)
    error.args = ("Access to model is restricted.",)
    return error


def test_a_local_file_is_taken_and_hashed(tmp_path):
    file = tmp_path / "uni.safetensors"
    file.write_bytes(b"weights")
    path, origin = locate(UNI, file, None)
    assert path == file
    assert origin == {
        "name": "uni",
        "source": "MahmoodLab/UNI",
        "revision": "",
        "file": "uni.safetensors",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }


@pytest.mark.parametrize("name", ["pytorch_model.bin", "uni.pt", "uni.pth"])
def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path, name):
    (tmp_path / name).write_bytes(b"pickle")
    with pytest.raises(BadInput, match=r"safetensors only.*save_file.*pass weights='uni.safetensors'"):
        locate(UNI, tmp_path / name, None)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match="no file '.*nowhere.safetensors'"):
        locate(UNI, tmp_path / "nowhere.safetensors", None)


def test_a_download_records_the_commit_it_came_from(tmp_path, hub):
    file = tmp_path / "snapshots" / "abc123" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    calls = hub(file)
    assert locate(UNI, None, None)[1]["revision"] == "abc123"
    locate(UNI, None, "v1")
    assert calls == [("MahmoodLab/UNI", "model.safetensors", rev) for rev in ("main", "v1")]


@pytest.mark.parametrize("error", [gated(), LocalEntryNotFoundError("offline"), ConnectionError("no route")])
def test_weights_that_cannot_be_had_say_how_to_get_them(hub, error):
    hub(error)
    with pytest.raises(BadInput) as caught:
        locate(UNI, None, None)
    for part in (
        "https://huggingface.co/MahmoodLab/UNI",
        "accept the terms",
        "hf auth login",
        "HF_TOKEN",
        "weights=",
        "'texture'",
    ):
        assert part in str(caught.value)


def test_a_repository_without_safetensors_says_how_to_convert(hub):
    hub(EntryNotFoundError("404"))
    with pytest.raises(BadInput, match="'MahmoodLab/UNI' has no 'model.safetensors' at 'main'. Convert it"):
        locate(UNI, None, None)


def test_a_card_without_a_repository_asks_for_a_file():
    with pytest.raises(BadInput, match="no weights on the Hugging Face Hub; pass weights="):
        locate(replace(UNI, source=""), None, None)


def test_offline_mode_is_respected(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="HF_HUB_OFFLINE"):
        locate(UNI, None, None)


def test_weights_that_fit_are_loaded():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_strictly(UNI, target, source.state_dict())
    torch.testing.assert_close(target.weight, source.weight)


def test_weights_that_do_not_fit_are_listed():
    state = {"weight": torch.zeros(2, 4), "head.weight": torch.zeros(1)}
    with pytest.raises(BadInput) as caught:
        load_strictly(UNI, nn.Linear(3, 2), state)
    for part in ("missing 'bias'", "unexpected 'head.weight'", "weight (2, 4), expected (2, 3)"):
        assert part in str(caught.value)
