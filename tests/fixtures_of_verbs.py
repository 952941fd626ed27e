"""Toy models and toy sections, for the tests of verbs and of what runs them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import sq_imputer as sqi
from sq_imputer.contract import Batch, CropSpec, Needs, Prediction
from sq_imputer.predictor import registry
from sq_imputer.predictor.base import Predictor

__all__ = [  # the fixtures, which the tests of verbs and of runs take as theirs
    "_pickled_toys",
    "_toys",
    "change",
    "draws",
    "genes",
    "joined",
    "partly",
    "patients",
    "recalls",
    "section",
    "spy",
    "wide",
]

GENES = ["NUC1", "NUC2", "GLD1", "STR1", "LYM1", "IND1", "HK1"]


@dataclass(frozen=True)
class Config:
    extent_um: float = 100.0
    size_px: int = 8
    fails: bool = False

    @classmethod
    def small(cls) -> Config:
        return cls()


class Spy(Predictor):
    """Least squares on the mean color of a crop, which notes down what every fit was given."""

    Config = Config
    measures_error = True  # so that fits are those that the verb asks for
    card = sqi.ModelCard(name="spy", summary="s", paper="p", established="e", ours="o", limits="l", uncertainty="u")
    fits: list[SimpleNamespace]

    @property
    def needs(self) -> Needs:
        return Needs(crop=CropSpec(self.config.extent_um, self.config.size_px))

    def build(self) -> None:
        self.register_buffer("weight", torch.zeros(4, len(self.genes)))

    def optimize(self, sources, plan) -> None:
        if self.config.fails:
            raise sqi.BadInput("told to fail")
        rows = [np.flatnonzero(source.measured) for source in sources]
        seen = Batch.cat([b for s, r in zip(sources, rows, strict=True) for b in self.seen(s, 64, rows=r)])
        self.weight.copy_(torch.linalg.lstsq(self._colors(seen).double(), seen.expression.double()).solution)
        xy_um = np.concatenate([source.xy_um[r] for source, r in zip(sources, rows, strict=True)])
        sections = [source.section for source in sources]
        self.fits.append(SimpleNamespace(xy_um=xy_um, sections=sections, genes=self.genes, unit=self.unit, plan=plan))

    def _colors(self, batch: Batch) -> torch.Tensor:
        pixels = batch.crops.flatten(2).float().mean(dim=2) / 255
        return torch.cat([torch.ones(len(pixels), 1), pixels], dim=1)

    def predict_step(self, batch: Batch) -> Prediction:
        colors = self._colors(batch)
        mean = colors @ self.weight
        return Prediction(mean=mean, std=torch.ones_like(mean), embedding=colors)


class Draws(Spy):
    """The same, with draws around its mean."""

    card = sqi.ModelCard(name="draws", summary="s", paper="p", established="e", ours="o", limits="l", uncertainty="u")

    def predict_step(self, batch: Batch) -> Prediction:
        said = super().predict_step(batch)
        return replace(said, samples=said.mean[:, None] + torch.arange(-2.0, 3.0)[None, :, None])


@dataclass(frozen=True)
class RecallConfig(Config):
    k: int = 4


class Recalls(Spy):
    """The weighted mean of the training spots of the nearest mean color, which it names."""

    Config = RecallConfig
    card = sqi.ModelCard(name="recalls", summary="s", paper="p", established="e", ours="o", limits="l")
    retrieves = True

    def build(self) -> None:
        self.register_buffer("keys", torch.zeros(self.sizes["rows"], 4))
        self.register_buffer("values", torch.zeros(self.sizes["rows"], len(self.genes)))

    def optimize(self, sources, plan) -> None:
        rows = [np.flatnonzero(source.measured) for source in sources]
        seen = Batch.cat([b for s, r in zip(sources, rows, strict=True) for b in self.seen(s, 64, rows=r)])
        order = np.concatenate([np.full(len(r), k) for k, r in enumerate(rows)])
        index = seen.index.numpy()
        self.keys.copy_(self._colors(seen)), self.values.copy_(seen.expression)
        self.known = {
            "section": np.array([sources[k].section for k in order], dtype=object),
            "patient": np.array([sources[k].group for k in order], dtype=object),
            "spot": np.array([sources[k].names[i] for k, i in zip(order, index, strict=True)], dtype=object),
            "x_um": np.array([sources[k].xy_um[i, 0] for k, i in zip(order, index, strict=True)]),
            "y_um": np.array([sources[k].xy_um[i, 1] for k, i in zip(order, index, strict=True)]),
        }
        self.fits.append(SimpleNamespace(sections=[source.section for source in sources], bank=self.known))

    def bank(self) -> dict[str, np.ndarray]:
        return self.known

    def predict_step(self, batch: Batch) -> Prediction:
        k = min(self.config.k, len(self.keys))
        far, rows = torch.cdist(self._colors(batch), self.keys).topk(k, largest=False)
        weights = (-far / 0.02).softmax(dim=1)
        pad = (0, self.config.k - k)
        mean = (weights[:, :, None] * self.values[rows]).sum(dim=1)
        return Prediction(
            mean, neighbors=nn.functional.pad(rows, pad, value=-1), weights=nn.functional.pad(weights, pad)
        )


@pytest.fixture
def draws(monkeypatch) -> type[Predictor]:
    """A model with samples, registered as "draws" for one test."""
    monkeypatch.setattr(registry, "_registered", {})
    return sqi.register_model(type("Model", (Draws,), {"fits": []}))


@pytest.fixture
def recalls(monkeypatch) -> type[Predictor]:
    """A model that retrieves, registered as "recalls" for one test; `recalls.fits` lists what it was fitted on."""
    monkeypatch.setattr(registry, "_registered", {})
    return sqi.register_model(type("Model", (Recalls,), {"fits": []}))


@pytest.fixture
def spy(monkeypatch) -> type[Predictor]:
    """A fast model, registered as "spy" for one test; `spy.fits` lists what it was fitted on."""
    monkeypatch.setattr(registry, "_registered", {})
    return registered_spy()


def registered_spy() -> type[Predictor]:
    return sqi.register_model(type("Model", (Spy,), {"fits": []}))


@pytest.fixture
def genes() -> list[str]:
    """Some genes of every kind that the toy has."""
    return list(GENES)


@pytest.fixture(scope="session")
def _toys() -> dict:
    return sqi.datasets.toy(3, size_px=640, mpp=1.25, seed=11) | {
        "wide": sqi.datasets.toy(1, size_px=640, mpp=2.5, seed=11)["P1"]
    }


@pytest.fixture(scope="session")
def _pickled_toys(_toys) -> dict[str, bytes]:
    """To make copies of, in a tenth of the time of `spatialdata.deepcopy`."""
    return {name: pickle.dumps(sdata) for name, sdata in _toys.items()}


@pytest.fixture
def patients(_pickled_toys) -> dict:
    """Sections of three patients; the first is that of the fixture `section`."""
    return {name: pickle.loads(_pickled_toys[name]) for name in ("P1", "P2", "P3")}


@pytest.fixture
def section(patients):
    return patients["P1"]


@pytest.fixture
def wide(_pickled_toys):
    """A section of 237 spots."""
    return pickle.loads(_pickled_toys["wide"])


@pytest.fixture
def partly(section):
    """The section, and the ids of the spots that its table says nothing about."""
    table = section.tables["table"]
    dropped = table.obs["spot_id"].to_numpy()[::4]
    section.tables["table"] = table[~table.obs["spot_id"].isin(dropped)].copy()
    return section, dropped


@pytest.fixture
def change() -> Callable:
    """A function that gives some spots the counts of others."""

    def spots(sdata, rows) -> None:
        table = sdata.tables["table"]
        counts = table.X.toarray()
        counts[rows] = counts[rows][:, ::-1] + 7
        table.X = type(table.X)(counts)

    return spots


@pytest.fixture
def joined(patients):
    """Three patients' sections in one object and one table, as `spatialdata.concatenate` joins them."""
    import spatialdata

    return spatialdata.concatenate(patients, concatenate_tables=True)
