"""Image networks of timm to be trained end to end by a model, up to their pooled features."""

from __future__ import annotations

from difflib import get_close_matches

from torch import Tensor, nn

from sq_imputer.encoders import get_encoder
from sq_imputer.errors import BadInput, MissingKey, listed


def trunk(name: str) -> nn.Module:
    """A network with random weights: crops `(B, 3, S, S)` to features `(B, F)`, F as timm pools them.

    A DenseNet ends before its last ReLU, so that features have both signs.

    Raises
    ------
    BadInput
        If timm cannot be imported.
    MissingKey
        If timm has no such network.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise BadInput(
            f"backbone '{name}' needs timm, which did not import ({error}). Run: pip install "
            '"sq-imputer[encoders]"; or leave backbone empty, for frozen features of Config.encoders.'
        ) from error
    if not timm.is_model(name):  # timm would download what others call "hf-hub:..."
        raise MissingKey(f"no backbone '{name}'; timm has {listed(get_close_matches(name, timm.list_models()))}.")
    network = timm.create_model(name, pretrained=False, num_classes=0)
    if name.startswith("densenet"):
        network.features.norm5.act = nn.Identity()
    return network


def initial_weights(name: str, weights: str) -> dict[str, Tensor]:
    """Published weights of a network: `"pretrained"`, which downloads them, or a safetensors file."""
    path = None if weights == "pretrained" else weights
    return get_encoder(f"timm:{name}", weights=path).model.trunk.state_dict()
