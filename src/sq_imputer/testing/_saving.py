"""What a model carries along, and whether it survives being saved, loaded and copied."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sq_imputer.testing._subject import CLOSE, Subject, same


def check_save_load(subject: Subject) -> None:
    """A saved and loaded model is the same, and predicts the same bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        subject.fitted.save(folder)
        loaded = subject.model.load(folder)
    assert asdict(loaded.config) == asdict(subject.fitted.config), "config differs after loading"
    assert loaded.genes == subject.fitted.genes and loaded.unit == subject.fitted.unit, "genes or unit differ"
    assert loaded.provenance == subject.fitted.provenance, "provenance differs after loading"
    for training, slide in zip(loaded.training_rows, subject.training, strict=True):
        assert np.array_equal(slide.among(training), slide.measured), "training rows are not known after loading"
    if loaded.retrieves:
        banks = loaded.bank(), subject.fitted.bank()
        assert all(np.array_equal(banks[0][name], values) for name, values in banks[1].items()), "bank() differs"
    same(subject.predict(loaded), subject.prediction, exact=True)


def check_folder(subject: Subject) -> None:
    """A saved model is JSON and safetensors: nothing in it can run."""
    with tempfile.TemporaryDirectory() as folder:
        subject.fitted.save(folder)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        strange = sorted(path.name for path in files if path.suffix not in (".json", ".safetensors"))
    assert files and not strange, f"a saved model has the files {strange}"


def check_copy(subject: Subject) -> None:
    """A deep copy predicts the same bit for bit."""
    same(subject.predict(copy.deepcopy(subject.fitted)), subject.prediction, exact=True)


def check_training_rows(subject: Subject) -> None:
    """The expression of training rows is kept only by a model that says that it retrieves."""
    if subject.model.retrieves:
        return
    measured = np.concatenate([slide.expression[slide.measured] for slide in subject.training])
    rows = {row.tobytes() for row in measured.astype(np.float32) if row.any()}
    for name, value in subject.weights.items():
        if value.ndim == 2 and value.shape[1] == measured.shape[1]:
            kept = sum(row.tobytes() in rows for row in value.float().numpy())
            assert not kept, f"{name} holds the expression of {kept} training rows, but retrieves is False"


def check_retrieval(subject: Subject) -> None:
    """Predictions of a model that retrieves are made of the training rows that its bank names."""
    said, retrieves = subject.prediction, subject.model.retrieves
    assert (said.neighbors is not None) == retrieves, f"retrieves is {retrieves}; neighbors say otherwise"
    if not retrieves:
        return
    n = _check_bank(subject)
    assert ((said.neighbors >= -1) & (said.neighbors < n)).all(), f"neighbors lie outside of the {n} rows of bank()"
    assert said.weights is not None and said.weights.shape == said.neighbors.shape, "weights do not go with neighbors"
    assert not said.weights[said.neighbors < 0].any(), "there are weights where there is no neighbor"
    ones = torch.ones(len(said.weights))
    assert (said.weights >= 0).all() and torch.allclose(said.weights.sum(dim=1), ones, **CLOSE), "weights are no shares"
    measured = np.concatenate([slide.expression[slide.measured] for slide in subject.training])
    mean = said.mean.numpy()
    inside = (mean > measured.min(axis=0) - 1e-4) & (mean < measured.max(axis=0) + 1e-4)
    assert inside.all(), "mean lies beyond what was measured in training"


def _check_bank(subject: Subject) -> int:
    """Whether the bank names measured training rows, and where they lie. The number of its rows."""
    bank = subject.fitted.bank()
    sizes = {name: len(values) for name, values in bank.items()}
    assert len(set(sizes.values())) == 1, f"the arrays of bank() differ in length: {sizes}"
    places = {}
    for slide in subject.training:
        for row in np.flatnonzero(slide.measured):
            places[slide.section, slide.group, slide.names[row]] = slide.xy_um[row]
    named = list(zip(*(bank[name] for name in ("section", "patient", "spot")), strict=True))
    strange = [name for name in named if name not in places]
    assert not strange, f"bank() names {strange[:3]}, which are no measured training rows"
    xy_um = np.column_stack([bank["x_um"], bank["y_um"]])
    assert np.allclose(xy_um, [places[name] for name in named], atol=0.1), "x_um and y_um of bank() are not the spots'"
    return len(named)
