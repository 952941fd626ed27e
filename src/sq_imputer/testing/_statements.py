"""What a model says of itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

from sq_imputer.contract import Needs
from sq_imputer.errors import SqImputerError
from sq_imputer.predictor.base import Predictor
from sq_imputer.predictor.registry import ModelCard
from sq_imputer.testing._subject import Subject, by_gradient


def check_card(subject: Subject) -> None:
    """The card says everything; the config is a frozen dataclass with a small form, and says how to train."""
    model = subject.model
    assert isinstance(model.card, ModelCard), "card is not a ModelCard"
    for field in fields(ModelCard):
        optional = field.name in ("doi", "citation", "uncertainty", "zero_shot")
        assert optional or getattr(model.card, field.name), f"card.{field.name} is empty"
    assert is_dataclass(model.Config) and model.Config.__dataclass_params__.frozen, "Config is not a frozen dataclass"
    assert isinstance(model.Config.small(), model.Config), "Config.small() is not a Config"
    absent = _read_in_training(model) - {field.name for field in fields(model.Config)}
    assert not absent, f"Config lacks {sorted(absent)}, which training reads"


def _read_in_training(model: type[Predictor]) -> set[str]:
    """Fields of the config that the harness reads, unless the model trains in its own way."""
    if not by_gradient(model) or model.optimize is not Predictor.optimize:
        return set()
    steps = {"lr", "weight_decay"} if model.optimizer is Predictor.optimizer else set()
    return {"epochs", "batch_size", "validation"} | steps


def check_needs(subject: Subject) -> None:
    """Needs are stated."""
    assert isinstance(subject.model(subject.config).needs, Needs), "needs is not a Needs"


def check_config(subject: Subject) -> None:
    """Fitting changes neither config nor needs, and a config of another type is refused."""
    config, given, kept = subject.config, subject.given, subject.fitted.config
    assert config == given, f"fitting changed the config from {given} to {config}"
    assert kept == given, f"the config is {kept} after the fit; given was {given}"
    before, after = subject.model(config).needs, subject.fitted.needs
    assert before == after, f"needs are {before} before the fit and {after} after it"
    assert refuses(lambda: subject.model(config=asdict(config))), "a dictionary was accepted as a config"


def check_unfitted(subject: Subject) -> None:
    """A model that was not fitted says so, and refuses to predict and to be saved."""
    empty = subject.model(subject.config)
    assert not empty.fitted, "fitted is True before the fit"
    assert refuses(lambda: subject.predict(empty)), "it predicts before the fit"
    with tempfile.TemporaryDirectory() as folder:
        assert refuses(lambda: empty.save(Path(folder) / "model")), "it can be saved before the fit"


def check_genes(subject: Subject) -> None:
    """Genes and unit are those of the training sources."""
    assert subject.fitted.genes == subject.training[0].genes, "genes differ from the training sources'"
    assert subject.fitted.unit == subject.training[0].unit, "unit differs from the training sources'"


def check_provenance(subject: Subject) -> None:
    """The provenance names sections, individuals, rows, plan and versions; it and the history can be kept as JSON."""
    said, slides = subject.fitted.provenance, subject.training
    expected = {
        "sections": [slide.section for slide in slides],
        "groups": [slide.group for slide in slides],
        "rows": [int(slide.measured.sum()) for slide in slides],
        "plan": asdict(subject.plan),
    }
    for name, value in expected.items():
        assert said.get(name) == value, f"provenance['{name}'] is {said.get(name)}; expected {value}"
    assert said.get("versions"), "provenance names no versions"
    assert json.loads(json.dumps(said)) == said, "provenance does not survive JSON"
    json.dumps(subject.fitted.history)


def refuses(call: Callable[[], object]) -> bool:
    """Whether a call raises an error of this package; another error is raised on."""
    try:
        call()
    except SqImputerError:
        return True
    return False
