"""Encoders that are timm models: any of them as `timm:<name>`, and the pathology models of the cards.

A crop is normalized on its device in float32, runs through the frozen model, and is pooled as the card says. Pooling by
`"attention"` is the contrastive head of CoCa (Yu et al. 2022, arXiv:2205.01917), written from the paper.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sq_imputer.encoders._base import Encoder
from sq_imputer.encoders._cards import IMAGENET, EncoderCard
from sq_imputer.encoders._tokens import TokenEncoder, places_of, pooled
from sq_imputer.encoders._weights import State, load_strictly, locate
from sq_imputer.errors import BadInput, MissingKey, listed

PREFIX = "timm:"


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        raise BadInput(
            f"encoder '{name}' needs timm, which did not import ({error}). Run: pip install \"sq-imputer[encoders]\". "
            "encoder='texture' needs neither timm nor weights."
        ) from error
    return timm


def pooled_width(model: nn.Module) -> int:
    """Features that a timm model without classifier gives: some have a layer behind the pooling, with its own width."""
    return getattr(model, "head_hidden_size", None) or model.num_features


@lru_cache(256)
def timm_card(name: str) -> EncoderCard:
    """The card of `timm:<name>`, from what timm knows of the model. Builds it without weights to learn its width.

    Raises
    ------
    BadInput
        If timm is not installed.
    MissingKey
        If timm has no such model.
    """
    timm, model = _timm(name), name.removeprefix(PREFIX)
    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models())
        raise MissingKey(f"no encoder '{name}'; timm has {listed(near)}. See timm.list_models().")
    config = timm.get_pretrained_cfg(model)
    with torch.device("meta"):
        width = pooled_width(timm.create_model(model, pretrained=False, num_classes=0))
    return EncoderCard(
        name=name,
        dim=width,
        size_px=config.input_size[-1],
        mpp=0.5,
        mean=tuple(config.mean or IMAGENET[0]),
        std=tuple(config.std or IMAGENET[1]),
        license=config.license or "see the model's page",
        commercial=False,
        gated=False,
        source=config.hf_hub_id or "",
        paper=config.paper_ids or "",
        any_size=not config.fixed_input_size,
        architecture=model,
        pool="model",
        note="Not made for histology; mpp is this package's choice. `commercial` is False where unknown, as here.",
    )


class _AttentionPool(nn.Module):
    """One learned query attends to all tokens. The names are those of the CONCH weights."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, 8, kdim=width, vdim=width, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), -1, -1)
        return self.attn(query, tokens, tokens, need_weights=False)[0][:, 0]


def _options(card: EncoderCard, timm: ModuleType) -> dict[str, Any]:
    """What timm is told to build the model of a card."""
    options = {"num_classes": 0, **dict(card.options)}
    if isinstance(options.get("mlp_layer"), str):
        options["mlp_layer"] = getattr(timm.layers, options["mlp_layer"])
    return options


class _Tower(nn.Module):
    """A timm model and, for `pool="attention"`, the head on its tokens."""

    def __init__(self, card: EncoderCard, timm: ModuleType) -> None:
        super().__init__()
        self.pool = card.pool
        self.trunk = timm.create_model(card.architecture, pretrained=False, **_options(card, timm))
        if card.pool == "attention":
            self.attn_pool_contrast = _AttentionPool(self.trunk.num_features, card.dim)
            self.ln_contrast = nn.LayerNorm(card.dim)

    def dim(self, card: EncoderCard) -> int:
        width = self.trunk.num_features
        widths = {"token": width, "token+mean": 2 * width, "attention": card.dim}  # the head has the card's width
        return widths.get(self.pool) or pooled_width(self.trunk)

    def forward(self, images: Tensor) -> Tensor:
        if self.pool == "model":
            return _mean_of_places(self.trunk(images), pooled_width(self.trunk))
        tokens = self.trunk.forward_features(images)
        if self.pool == "attention":
            return self.ln_contrast(self.attn_pool_contrast(tokens))
        if self.pool == "token":
            return tokens[:, 0]
        # Registers stand between the class token and the patches, and describe neither.
        return torch.cat([tokens[:, 0], tokens[:, self.trunk.num_prefix_tokens :].mean(1)], 1)


def _mean_of_places(features: Tensor, width: int) -> Tensor:
    """Features `(B, F)` as they are; of a model that pools nothing, as towers of language models, their mean."""
    where = -1 if features.shape[-1] == width else 1
    places = [dim for dim in range(1, features.ndim) if dim != where % features.ndim]
    return features.mean(dim=places) if places else features


def _from_timm(state: State, tower: _Tower) -> State:
    head = tower.trunk.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ((head,) if isinstance(head, str) else head))
    return {f"trunk.{key}": value for key, value in state.items() if not (heads and key.startswith(heads))}


_DINOV2 = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer": "blocks",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm": "norm",
}


def _from_dinov2(state: State, tower: _Tower) -> State:
    """Names of transformers' Dinov2Model, turned into timm's; query, key and value become one matrix."""
    state = {key: value for key, value in state.items() if key != "embeddings.mask_token"}  # of pretraining
    for key in [key for key in state if ".attention.attention.query." in key]:
        parts = [state.pop(key.replace(".query.", f".{part}.")) for part in ("query", "key", "value")]
        state[key.replace(".query.", ".qkv.")] = torch.cat(parts)
    renamed = {}
    for key, value in state.items():
        for old, new in _DINOV2.items():
            key = key.replace(old, new)
        renamed[f"trunk.{key}"] = value
    return renamed


def _from_conch(state: State, tower: _Tower) -> State:
    """The image tower of CONCH up to the contrastive projection; its text tower and captioner are left out."""
    wanted = ("visual.trunk.", "visual.attn_pool_contrast.", "visual.ln_contrast.")
    return {key.removeprefix("visual."): value for key, value in state.items() if key.startswith(wanted)}


_LAYOUTS = {"timm": _from_timm, "dinov2": _from_dinov2, "conch": _from_conch}


class TimmEncoder(Encoder):
    """A frozen timm model; it moves to the device of the crops that it is given.

    `weights` is the file that they were read from: another process reads them from there.
    """

    def __init__(
        self, card: EncoderCard, provenance: dict[str, Any], model: nn.Module, weights: Path | None = None
    ) -> None:
        super().__init__(card, provenance)
        self.model, self.weights = model.eval().requires_grad_(False), weights
        self._mean = torch.tensor(card.mean).view(3, 1, 1) * 255
        self._std = torch.tensor(card.std).view(3, 1, 1) * 255

    def encode(self, crops: Tensor) -> Tensor:
        """Pooled features of uint8 crops."""
        return self.model(self.normalized(crops))

    def normalized(self, crops: Tensor) -> Tensor:
        """What the model sees of uint8 crops; it moves to their device."""
        device = crops.device
        if self._mean.device != device:
            self.model, self._mean, self._std = self.model.to(device), self._mean.to(device), self._std.to(device)
        return (crops.float() - self._mean) / self._std

    def places(self, crops: Tensor, grid: int | None) -> Tensor:
        """Tokens of patches, or what a convolutional model says of its places."""
        return pooled(places_of(self.model.trunk, self.normalized(crops)), grid)

    def together(self) -> Encoder:
        """The form that describes windows by patch tokens."""
        return TokenEncoder(self)

    @property
    def options(self) -> dict[str, Any]:
        """What timm was told to build the model."""
        return _options(self.card, _timm(self.card.name))

    def __reduce_ex__(self, protocol):
        """What another process makes the encoder of: the name of a file, not gigabytes."""
        if self.weights is None:
            return super().__reduce_ex__(protocol)
        return _again, (self.card, self.weights.absolute(), self.provenance)


def _again(card: EncoderCard, weights: Path, provenance: dict[str, Any]) -> TimmEncoder:
    """The encoder that another process has built, from the same file."""
    encoder = _built(card, weights)
    if encoder.provenance["sha256"] != provenance["sha256"]:
        raise BadInput(f"encoder '{card.name}': '{weights}' is another file on this machine. Copy the same to all.")
    encoder.provenance = provenance
    return encoder


@lru_cache(2)
def _built(card: EncoderCard, weights: Path) -> TimmEncoder:
    return build(card, weights)


def build(card: EncoderCard, weights: str | Path | None = None, revision: str | None = None) -> TimmEncoder:
    """The timm encoder of a card with its weights.

    Parameters
    ----------
    card
        A card with an `architecture`.
    weights
        A safetensors file; None to take it from the Hugging Face Hub or its cache.
    revision
        Branch, tag or commit in the hub; the card's if None.

    Raises
    ------
    BadInput
        If timm or the weights are missing, or the weights or the card's `dim` do not fit the architecture.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    timm = _timm(card.name)
    path, origin = locate(card, weights, revision)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
        tower = _Tower(card, timm)
    if tower.dim(card) != card.dim:
        raise BadInput(
            f"encoder '{card.name}': its card says {card.dim} features, {card.architecture} pooled by '{card.pool}' "
            f"gives {tower.dim(card)}. Correct `dim`, `pool` or `options` in the card."
        )
    try:
        state = _LAYOUTS[card.layout](load_file(path), tower)
    except (SafetensorError, KeyError, OSError, RuntimeError) as error:
        raise BadInput(
            f"encoder '{card.name}': '{path}' does not hold its weights ({type(error).__name__} {error}). Download or "
            "convert them again."
        ) from error
    load_strictly(card, tower, state)
    return TimmEncoder(card, origin | {"timm": timm.__version__, "torch": str(torch.__version__)}, tower, path)
