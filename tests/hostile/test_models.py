"""Folders that claim to be models."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import sq_imputer as sqi
from sq_imputer import untrusted
from sq_imputer.models import mclstexp, ridge
from sq_imputer.predictor import folder as _folder

HUGE = 10**12


@dataclass
class Folder:
    """The folder of a fitted model, to be tampered with by someone who knows how to make every sha256 right."""

    path: Path
    payload: object

    @property
    def json(self) -> Path:
        return self.path / "model.json"

    @property
    def weights(self) -> Path:
        return next(self.path.glob("weights-*"))

    @property
    def settings(self) -> dict:
        return json.loads(self.json.read_text())

    def write(self, settings: dict) -> None:
        self.json.write_text(json.dumps(_folder.sealed(settings)))

    def say(self, **changes) -> None:
        self.write(self.settings | changes)

    def configure(self, **changes) -> None:
        self.say(config=self.settings["config"] | changes)

    def put(self, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        self.weights.unlink()
        (self.path / f"weights-{digest[:16]}.safetensors").write_bytes(content)
        self.say(files={f"weights-{digest[:16]}.safetensors": {"sha256": digest, "bytes": len(content)}})

    def tensors(self, **changes) -> None:
        kept = load(self.weights.read_bytes()) | changes
        self.put(save({name: tensor for name, tensor in kept.items() if tensor is not None}))

    def flip(self, file: Path, at: int) -> None:
        content = bytearray(file.read_bytes())
        content[at] ^= 1
        file.write_bytes(content)


@pytest.fixture(scope="module")
def fitted(arrays) -> sqi.Predictor:
    rng = np.random.default_rng(0)
    source = arrays(rng.normal(size=(30, 3)), features=rng.normal(size=(30, 4)))
    config = ridge.Config(context_um=(), per_section=False, alpha=0.1)
    return ridge.Model(config).fit(source, sqi.Plan(device="cpu", progress=False))


@pytest.fixture
def folder(fitted, tmp_path, payload) -> Folder:
    fitted.save(tmp_path / "model")
    return Folder(tmp_path / "model", payload)


def header(declared: dict) -> bytes:
    text = json.dumps(declared).encode()
    return struct.pack("<Q", len(text)) + text


def checkpoint(f: Folder) -> None:
    torch.save({"weight": f.payload}, f.path / "x")
    content = (f.path / "x").read_bytes()
    (f.path / "x").unlink()
    f.put(content)


def linked(f: Folder, file: Path) -> None:
    elsewhere = f.path.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def piped(f: Folder) -> None:
    file = f.weights
    file.unlink()
    os.mkfifo(file)


def repeated(f: Folder) -> None:
    text = f.json.read_text()
    f.json.write_text(text.replace('"unit":', '"unit": "raw", "unit":', 1))


def no_number(f: Folder) -> None:
    f.json.write_text(f.json.read_text().replace('"alpha": 0.1', '"alpha": NaN'))


def deep(f: Folder) -> None:
    f.json.write_text('{"format": 2, "config": ' + "[" * 200_000 + "]" * 200_000 + "}")


def large(f: Folder) -> None:
    with f.json.open("ab") as file:
        file.truncate(untrusted.MOST_JSON + 1)


def vast(f: Folder) -> None:
    with f.weights.open("ab") as file:
        file.truncate(_folder.MOST_WEIGHTS + 1)  # a hole, which takes no space


def elsewhere(f: Folder) -> None:
    [said] = f.settings["files"].values()
    f.say(files={f"../model/{f.weights.name}": said})


def stranger(f: Folder) -> None:
    """The other model, with a number in its config that would keep it busy for ever, or fill the memory."""
    f.say(model="stem", config={"depth": HUGE})


DAMAGE = "Save or download the model again"
ARTIFACTS = {
    "pickle as weights": (lambda f: f.put(pickle.dumps(f.payload)), "is not safetensors"),
    "torch checkpoint as weights": (checkpoint, "is not safetensors"),
    "weights truncated": (lambda f: f.weights.write_bytes(f.weights.read_bytes()[:-9]), DAMAGE),
    "weights truncated, sha256 right": (lambda f: f.put(f.weights.read_bytes()[:-9]), "is not safetensors"),
    "bit of a weight": (lambda f: f.flip(f.weights, -3), "size and sha256 that model.json names"),
    "bit of model.json": (lambda f: f.flip(f.json, f.json.read_bytes().index(b'"alpha": 0.1') + 11), "or was changed"),
    "model.json edited": (lambda f: f.json.write_text(json.dumps(f.settings | {"unit": "raw"})), "or was changed"),
    "header longer than the file": (lambda f: f.put(struct.pack("<Q", 2**62) + b"{}"), "is not safetensors"),
    "header declares terabytes": (
        lambda f: f.put(header({"weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})),
        "is not safetensors",
    ),
    "header is deep": (lambda f: f.put(struct.pack("<Q", 20_000) + b"[" * 20_000), "is not safetensors"),
    "weights larger than any": (vast, "are read"),
    "NaN weight": (lambda f: f.tensors(weight=torch.full((4, 3), torch.nan)), "NaN or infinite values in 'weight'"),
    "infinite statistic": (
        lambda f: f.tensors(feature_std=torch.full((4,), torch.inf)),
        "infinite values in 'feature_",
    ),
    "tensor too many": (lambda f: f.tensors(code=torch.ones(1)), "unexpected 'code'"),
    "tensor missing": (lambda f: f.tensors(weight=None), "missing 'weight'"),
    "tensor of another type": (
        lambda f: f.tensors(noise=torch.zeros(3, dtype=torch.int64)),
        "noise (3,) int64, expected",
    ),
    "tensor of another shape": (lambda f: f.tensors(noise=torch.zeros(4)), "noise (4,) float32, expected (3,) float32"),
    "weights are a link": (lambda f: linked(f, f.weights), "is a link"),
    "model.json is a link": (lambda f: linked(f, f.json), "is a link"),
    "weights are a pipe": (piped, "not there"),
    "weights in another folder": (elsewhere, "'files' should name the weights"),
    "name twice": (repeated, "a name occurs twice"),
    "NaN in model.json": (no_number, "NaN is no number"),
    "number beyond floats": (lambda f: f.configure(alpha=float("inf")), "Infinity is no number"),
    "nested deeply": (deep, "nested too deeply"),
    "model.json larger than any": (large, "at most"),
    "newer format": (lambda f: f.say(format=4), "Upgrade sq-imputer"),
    "older format": (lambda f: f.say(format=2), "Fit the model and save it again"),
    "format is no number": (lambda f: f.say(format="3"), "has no format"),
    "unknown model": (lambda f: f.say(model="oracle"), "no model 'oracle'"),
    "model is a path": (lambda f: f.say(model="../../evil"), "no model '../../evil'"),
    "model is a module": (lambda f: f.say(model="os:system"), "no model 'os:system'"),
    "model is private": (lambda f: f.say(model="_base"), "no model '_base'"),
    "terminal commands in the model's name": (lambda f: f.say(model="\x1b]0;x\x07"), "'model' is not there, or not"),
    "config of another type": (lambda f: f.configure(context_um="400"), "Config.context_um is '400'"),
    "config with code": (lambda f: f.configure(kernel={"__reduce__": "os.system"}), "Config.kernel is"),
    "config with an unknown field": (lambda f: f.configure(__class__="os"), "Config has no '__class__'"),
    "config refused by the model": (lambda f: f.configure(kernel="poly"), "kernel is 'poly'"),
    "terabytes of features": (
        lambda f: f.say(sizes={"rows": 30, "features": 10**7}),
        "posterior (4, 4) float32, expec",
    ),
    "beyond the address space": (lambda f: f.say(sizes={"rows": 30, "features": 10**30}), "no 'ridge' can be made"),
    "negative size": (lambda f: f.say(sizes={"rows": 30, "features": -4}), "'sizes' is not there, or not"),
    "size missing": (lambda f: f.say(sizes={"rows": 30}), "KeyError 'features'"),
    "endless layers": (stranger, "more than the"),
    "genes with terminal commands": (lambda f: f.say(genes=["A", "\x1b[2J", "C"]), "'genes' is not there, or not"),
    "genes that are no names": (lambda f: f.say(genes=["A", {"x": 1}, "C"]), "'genes' is not there, or not"),
    "genes twice": (lambda f: f.say(genes=["A", "A", "C"]), "'genes' should name some, each once"),
}


def test_the_payload_works(payload, canary) -> None:
    pickle.loads(pickle.dumps(payload)).close()
    assert canary.exists()


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_hostile_folder_is_refused(folder, refused, name) -> None:
    tamper, words = ARTIFACTS[name]
    tamper(folder)
    refused(lambda: sqi.load(folder.path), words)


def test_the_folder_itself_is_accepted(folder, fitted) -> None:
    folder.say()
    folder.tensors()
    assert sqi.load(folder.path).sha256 == fitted.sha256


@pytest.mark.parametrize("which", ["json", "weights"])
def test_any_bit_that_flips_is_found_or_means_nothing(folder, fitted, which) -> None:
    file = getattr(folder, which)
    content, rng, found = file.read_bytes(), np.random.default_rng(0), 0
    for at, bit in zip(rng.integers(len(content), size=300), rng.integers(8, size=300), strict=True):
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        file.write_bytes(flipped)
        try:
            loaded = sqi.load(folder.path)
        except sqi.SqImputerError as error:
            found += 1
            assert str(error).isprintable()
        else:  # a space became another space
            for name in ("config", "genes", "unit", "sizes", "provenance", "history", "sha256"):
                assert getattr(loaded, name) == getattr(fitted, name)
    assert found > 250


def test_no_truncated_file_is_accepted(folder, refused) -> None:
    for file in (folder.json, folder.weights):
        content = file.read_bytes()
        for length in np.linspace(0, len(content) - 1, 40).astype(int):
            file.write_bytes(content[:length])
            refused(lambda: sqi.load(folder.path))
        file.write_bytes(content)


def test_code_in_a_folder_is_not_run(folder, canary) -> None:
    code = f"open({str(canary)!r}, 'w')"
    for name in ("model.py", "ridge.py", "__init__.py", "sitecustomize.py", "modeling_ridge.py"):
        (folder.path / name).write_text(code)
    (folder.path / "model.pkl").write_bytes(pickle.dumps(folder.payload))
    sqi.load(folder.path)
    assert not canary.exists()


def test_an_infinite_value_in_a_bank_is_refused(tmp_path, payload, refused) -> None:
    model = mclstexp.Model(mclstexp.Config(width=8, blocks=1, heads=1, head_width=4))
    model.genes, model.unit = ("A", "B"), "log1p_cp10k"
    model.sizes = {"rows": 5, "features": 3, "sections": 1, "grid_x": 2, "grid_y": 2, "name_bytes": 4}
    model._register_statistics()
    model.build()
    model.save(tmp_path / "model")
    sqi.load(tmp_path / "model")
    Folder(tmp_path / "model", payload).tensors(**{"memory.values": torch.full((5, 2), torch.inf)})
    refused(lambda: sqi.load(tmp_path / "model"), "infinite values in 'memory.values'")


def test_a_backbone_is_not_fetched_from_where_a_folder_says(tmp_path, payload, refused) -> None:
    model = mclstexp.Model(mclstexp.Config(width=8, blocks=1, heads=1, head_width=4))
    model.genes, model.unit = ("A", "B"), "log1p_cp10k"
    model.sizes = {"rows": 5, "features": 3, "sections": 1, "grid_x": 2, "grid_y": 2, "name_bytes": 4}
    model._register_statistics()
    model.build()
    model.save(tmp_path / "model")
    Folder(tmp_path / "model", payload).configure(backbone="hf-hub:evil/model")
    refused(lambda: sqi.load(tmp_path / "model"), "backbone 'hf-hub:evil/model'")
