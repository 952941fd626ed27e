from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file

from sq_imputer import encoders
from sq_imputer.encoders import encoder_card, get_encoder, register_encoder
from sq_imputer.encoders._cards import BUILTIN, EncoderCard
from sq_imputer.errors import BadInput, MissingKey

SIZE = 32
TINY = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm is an extra: sq-imputer[encoders]", exc_type=ImportError)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(encoders, "_registered", {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tiny(**changes):
    card = {
        "name": "tiny", "dim": 16, "size_px": SIZE, "mpp": 0.5, "mean": (0.7, 0.5, 0.6),
        "std": (0.2, 0.3, 0.25), "license": "BSD-3-Clause", "commercial": True, "gated": False,
        "architecture": "vit_tiny_patch16_224", "options": TINY,
    }  # fmt: skip
    return register_encoder(EncoderCard(**{**card, **changes}))


def reference(timm, seed=0, **options):
    """A random model, every weight of it set, so that a key gone astray shows."""
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **{**TINY, **options})
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.3
    return model.eval()


def crops(n=5, size=SIZE):
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def normalized(x):
    mean, std = torch.tensor((0.7, 0.5, 0.6)).view(3, 1, 1), torch.tensor((0.2, 0.3, 0.25)).view(3, 1, 1)
    return (x.float() / 255 - mean) / std


def save(tmp_path, state):
    path = tmp_path / "tiny.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def close(found, expected):
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BadInput, match=r'pip install "sq-imputer\[encoders\]".*texture'):
        get_encoder("uni", weights="uni.safetensors")


def test_class_token_of_normalized_crops(timm, tmp_path):
    tiny()
    model = reference(timm)
    encoder = get_encoder("tiny", weights=save(tmp_path, model.state_dict()))
    close(encoder(crops()), model.forward_features(normalized(crops()))[:, 0])
    assert not any(weight.requires_grad for weight in encoder.model.parameters()) and not encoder.model.training


def test_batch_size_does_not_change_the_features(timm, tmp_path):
    tiny()
    encoder = get_encoder("tiny", weights=save(tmp_path, reference(timm).state_dict()))
    close(torch.cat([encoder(part) for part in crops().split(2)]), encoder(crops()))


def test_class_token_and_mean_patch_token_leave_the_registers_out(timm, tmp_path):
    options = {**TINY, "reg_tokens": 4, "mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    tiny(dim=32, pool="token+mean", options=options)
    model = reference(timm, **{**options, "mlp_layer": timm.layers.SwiGLUPacked})
    encoder = get_encoder("tiny", weights=save(tmp_path, model.state_dict()))
    tokens = model.forward_features(normalized(crops()))
    close(encoder(crops()), torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1))


def as_dinov2(state):
    """The names that transformers gives to the weights of a Dinov2Model, as in Phikon-v2."""
    renamed = {"embeddings.mask_token": torch.zeros(1, 16)}
    pairs = (
        ("cls_token", "embeddings.cls_token"),
        ("pos_embed", "embeddings.position_embeddings"),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("blocks.", "encoder.layer."),
        ("attn.proj", "attention.output.dense"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
    )
    for key, value in state.items():
        if key.startswith("norm."):
            key = f"layer{key}"
        for new, old in pairs:
            key = key.replace(new, old)
        if "attn.qkv" not in key:
            renamed[key] = value
            continue
        for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
            renamed[key.replace("attn.qkv", f"attention.attention.{part}")] = piece
    return renamed


def test_weights_named_by_transformers_give_the_same_features(timm, tmp_path):
    tiny(layout="dinov2", options={**TINY, "init_values": 1.0})
    model = reference(timm, init_values=1.0)
    state = as_dinov2(model.state_dict())
    assert "encoder.layer.1.attention.attention.key.bias" in state and "layernorm.weight" in state
    encoder = get_encoder("tiny", weights=save(tmp_path, state))
    close(encoder(crops()), model.forward_features(normalized(crops()))[:, 0])


def test_the_attending_query_of_conch(timm, tmp_path):
    tiny(dim=24, pool="attention", layout="conch")
    model, dim, width = reference(timm), 24, 16
    generator = torch.Generator().manual_seed(2)
    query, q, k, v, out = (
        torch.randn(shape, generator=generator)
        for shape in ((1, dim), (dim, dim), (dim, width), (dim, width), (dim, dim))
    )
    head = {"query": query, "attn.q_proj_weight": q, "attn.k_proj_weight": k, "attn.v_proj_weight": v}
    head |= {
        "attn.in_proj_bias": torch.zeros(3 * dim),
        "attn.out_proj.weight": out,
        "attn.out_proj.bias": torch.zeros(dim),
    }
    head |= {f"ln_{name}.weight": torch.ones(n) for name, n in (("q", dim), ("k", width))}
    head |= {f"ln_{name}.bias": torch.zeros(n) for name, n in (("q", dim), ("k", width))}
    state = {f"visual.trunk.{key}": value for key, value in model.state_dict().items()}
    state |= {f"visual.attn_pool_contrast.{key}": value for key, value in head.items()}
    state |= {"visual.ln_contrast.weight": torch.ones(dim), "visual.ln_contrast.bias": torch.zeros(dim)}
    state |= {"text.positional_embedding": torch.zeros(2), "logit_scale": torch.zeros(1)}
    encoder = get_encoder("tiny", weights=save(tmp_path, state))

    tokens = torch.nn.functional.layer_norm(model.forward_features(normalized(crops())), (width,))
    asked = torch.nn.functional.layer_norm(query, (dim,)) @ q.T
    asked, keys, values = (x.unflatten(-1, (8, dim // 8)) for x in (asked, tokens @ k.T, tokens @ v.T))
    weights = (torch.einsum("qhd,bnhd->bhn", asked, keys) / (dim // 8) ** 0.5).softmax(-1)
    pooled = torch.einsum("bhn,bnhd->bhd", weights, values).flatten(1) @ out.T
    close(encoder(crops()), torch.nn.functional.layer_norm(pooled, (dim,)))


def test_missing_and_unexpected_weights_are_listed(timm, tmp_path):
    tiny()
    state = reference(timm).state_dict()
    state["stray"] = state.pop("norm.bias")
    with pytest.raises(BadInput, match="missing 'trunk.norm.bias'; unexpected 'trunk.stray'"):
        get_encoder("tiny", weights=save(tmp_path, state))


def test_a_card_of_another_width_is_refused(timm, tmp_path):
    tiny(dim=17)
    with pytest.raises(BadInput, match="card says 17 features.*gives 16"):
        get_encoder("tiny", weights=save(tmp_path, reference(timm).state_dict()))


def test_provenance_tells_weights_and_versions(timm, tmp_path):
    tiny()
    found = get_encoder("tiny", weights=save(tmp_path, reference(timm).state_dict()), revision="v2").provenance
    assert found["revision"] == "v2" and len(found["sha256"]) == 64 and found["timm"] == timm.__version__
    assert all(type(value) is str for name, value in found.items() if name != "canary")


def test_any_timm_model_pools_as_timm_does_and_leaves_its_classifier_out(timm, tmp_path):
    model = timm.create_model("test_resnet", pretrained=False).eval()
    card = encoder_card("timm:test_resnet")
    encoder = get_encoder("timm:test_resnet", weights=save(tmp_path, model.state_dict()))
    assert encoder.card == card and card.dim == model.num_features
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (card.mean, card.std))
    images = (crops(size=64).float() / 255 - mean) / std
    close(encoder(crops(size=64)), model.forward_head(model.forward_features(images), pre_logits=True))


SAMPLE = ["mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_050", "lcnet_050", "efficientvit_b0"]
SAMPLE += [
    "hgnetv2_b0",
    "fasternet_t0",
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "gemma4_vit_167m_enc",  # pools nothing
]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_card_gives_the_width_that_comes_out(timm, name):
    """A sample of what `benchmarks/timm_widths.py` looks at: some have a layer behind the pooling, some no pooling."""
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    from sq_imputer.encoders._timm import _Tower

    card = encoder_card(f"timm:{name}")
    with torch.device("meta"):
        tower = _Tower(card, timm).eval()
        assert tower(torch.empty(2, 3, card.size_px, card.size_px)).shape == (2, card.dim)


def test_a_layer_behind_the_pooling_is_a_part_of_the_encoder(timm, tmp_path):
    model = timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=0).eval()
    encoder = get_encoder("timm:mobilenetv3_small_050", weights=save(tmp_path, model.state_dict()))
    assert encoder(crops(size=64)).shape == (5, model.head_hidden_size) and encoder.card.dim != model.num_features


def test_an_unknown_timm_model_shows_its_relatives(timm):
    with pytest.raises(MissingKey, match=r"no encoder 'timm:resnet19'; timm has .*'resnet18'"):
        get_encoder("timm:resnet19")


@pytest.mark.parametrize("name", [name for name in BUILTIN if name != "texture"])
def test_the_architecture_of_a_card_gives_its_width(timm, name):
    from sq_imputer.encoders._timm import _Tower

    card = BUILTIN[name]
    with torch.device("meta"):  # shapes only: the largest would need gigabytes
        tower = _Tower(card, timm)
        assert tower(torch.empty(2, 3, card.size_px, card.size_px)).shape == (2, card.dim) == (2, tower.dim(card))


# Parameters in millions, as published with the models.
@pytest.mark.parametrize(
    ("name", "millions"), [("uni", 303), ("uni2-h", 681), ("virchow2", 631), ("h-optimus-0", 1135), ("gigapath", 1135)]
)
def test_the_architecture_of_a_card_has_the_published_size(timm, name, millions):
    from sq_imputer.encoders._timm import _Tower

    with torch.device("meta"):
        tower = _Tower(BUILTIN[name], timm)
    assert sum(weight.numel() for weight in tower.parameters()) / 1e6 == pytest.approx(millions, abs=1)
