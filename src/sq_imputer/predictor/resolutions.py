"""A model that was fitted at several resolutions: one predictor, and coarser ones beside it, in one folder.

All are of one config, on the same genes and training rows. In the folder the weights of the coarser ones stand in the
same file, as `coarser.<k>.<name>`, and what else tells them apart in the same `model.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from sq_imputer.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from sq_imputer.contract import Model

COARSER = re.compile(r"coarser\.(\d+)\.(.+)", re.DOTALL)
OWN = ("sizes", "provenance", "history")  # what each has of its own, beside weights


def tensors_of(predictor: Model) -> dict[str, Tensor]:
    """Weights of a predictor, and under prefixes those of the coarser ones."""
    found = dict(predictor.state_dict())
    for k, model in enumerate(predictor.coarser):
        found |= {f"coarser.{k}.{name}": tensor for name, tensor in model.state_dict().items()}
    return found


def settings_of(predictor: Model) -> dict:
    """What `model.json` says beside the files."""
    settings = {
        "model": predictor.card.name,
        "config": asdict(predictor.config),
        "genes": list(predictor.genes),
        "unit": predictor.unit,
        "target": predictor.target.told,
        **{name: getattr(predictor, name) for name in OWN},
        "training_genes": [list(marks.genes) for marks in predictor.training_rows],
    }
    if predictor.coarser:
        settings["coarser"] = [{name: getattr(model, name) for name in OWN} for model in predictor.coarser]
    return settings


def parted(tensors: Mapping[str, Tensor], settings: Mapping) -> list[tuple[dict[str, Tensor], dict]]:
    """Weights and own settings of each predictor in a folder, finest first.

    Raises
    ------
    BadInput
        If there are weights of a coarser one that is not told of.
    """
    told = [settings, *settings.get("coarser", [])]
    weights: list[dict[str, Tensor]] = [{} for _ in told]
    for name, tensor in tensors.items():
        found = COARSER.fullmatch(name)
        number = 1 + int(found[1]) if found else 0
        if number >= len(told):
            raise BadInput(f"weights '{name}' are of a resolution that model.json does not name. Fit the model again.")
        weights[number][found[2] if found else name] = tensor
    return [(mine, {name: one[name] for name in OWN}) for mine, one in zip(weights, told, strict=True)]


def check_told(settings: Mapping, fits) -> bool:
    """Whether what is told of coarser ones has the form of what is told of the finest; `fits(value, name)`."""
    told = settings.get("coarser", [])
    return isinstance(told, list) and all(
        isinstance(one, dict) and set(one) == set(OWN) and all(fits(one[name], name) for name in OWN) for one in told
    )
