"""Tokens of crops, and windows that a transformer describes together by its patch tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixtures_of_verbs import *  # noqa: F403
from safetensors.torch import load_file, save_file

import sq_imputer as sqi
from sq_imputer import encoders
from sq_imputer.contract import CropSpec
from sq_imputer.encoders import get_encoder, in_blocks
from sq_imputer.encoders._cards import EncoderCard
from sq_imputer.encoders._windows import Boxes
from sq_imputer.section.around import Tokens
from sq_imputer.section.features import compute, reader
from sq_imputer.section.slide import Slide

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_pool": "avg"}
SPEC = CropSpec(60.0, 32)


@pytest.fixture
def vit(monkeypatch, tmp_path):
    """A random transformer of 4 x 4 patches, which is known as "tiny"; its weights are in a file."""
    timm = pytest.importorskip("timm", reason="timm is an extra: sq-imputer[encoders]", exc_type=ImportError)
    monkeypatch.setattr(encoders, "_registered", {})
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0, **TINY)
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    known = {"license": "BSD-3-Clause", "commercial": True, "gated": False, "architecture": "vit_tiny_patch16_224"}
    look = {"name": "tiny", "dim": 16, "size_px": 32, "mpp": 1.9, "mean": (0.7, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    encoders.register_encoder(EncoderCard(**look, **known, options=TINY, pool="model"))
    return tmp_path / "tiny.safetensors"


def crops(n: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_tokens_of_texture_are_those_of_the_parts():
    encoder, pixels = get_encoder("texture"), crops(2, 224)
    found = encoder.tokens(pixels)
    assert found.shape == (2, 7, 7, encoder.card.dim)
    mean = encoder.names().index("od_r_mean")
    parts = -torch.log10((pixels[:, 0].float() + 1) / 256).unfold(1, 32, 32).unfold(2, 32, 32).mean((3, 4))
    assert np.corrcoef(found[..., mean].flatten(), parts.flatten())[0, 1] > 0.95
    assert encoder.tokens(pixels, None).shape == found.shape and encoder.tokens(pixels, 2).shape[1:3] == (2, 2)


def test_who_describes_crops_as_a_whole_has_no_tokens(monkeypatch):
    monkeypatch.setattr(encoders, "_brought", set())
    monkeypatch.setattr(encoders, "_registered", {})
    encoders.from_callable(lambda x: x.mean((2, 3)), "mean", size_px=32)
    with pytest.raises(sqi.BadInput, match="'mean' has no tokens"):
        get_encoder("mean").tokens(crops())


def test_the_mean_of_all_tokens_is_the_feature_of_a_crop(vit):
    encoder = get_encoder("tiny", weights=vit)
    form, pixels = in_blocks(encoder), crops()
    assert encoder.tokens(pixels, None).shape == (3, 4, 4, 16) and encoder.tokens(pixels, 2).shape == (3, 2, 2, 16)
    torch.testing.assert_close(form(pixels), encoder(pixels))
    low = torch.zeros(3, 2, dtype=torch.float64)
    together = form.windows(pixels, Boxes(torch.arange(3), low, low + 32))
    torch.testing.assert_close(together, encoder(pixels), rtol=1e-4, atol=1e-5)
    assert encoder.block == 0 and form.block == 8 and "described" not in encoder.provenance


@pytest.fixture
def of_colors(vit, tmp_path):
    """The same transformer, whose patches say their color alone: nothing is attended to, and no place is known."""
    state = load_file(vit)
    for name, weight in state.items():
        if name == "pos_embed" or name.startswith("blocks") and (".proj." in name or ".fc2." in name):
            weight.zero_()
    save_file(state, tmp_path / "colors.safetensors")
    return get_encoder("tiny", weights=tmp_path / "colors.safetensors")


def test_patch_tokens_run_from_the_top_left_line_by_line(of_colors):
    colors = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200], [120, 90, 240]], dtype=torch.uint8)
    said = of_colors.tokens(colors[:, :, None, None].expand(-1, -1, 32, 32), None)[:, 0, 0]
    assert torch.pdist(said).min() > 0.1
    quarters = colors.view(2, 2, 3).permute(2, 0, 1).repeat_interleave(16, 1).repeat_interleave(16, 2)[None]
    expected = said.view(2, 2, 16).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(of_colors.tokens(quarters, None)[0], expected)
    torch.testing.assert_close(of_colors.tokens(quarters, 2)[0], said.view(2, 2, 16))
    flat = Tokens(of_colors, 2, 32).encode(quarters)
    torch.testing.assert_close(flat.view(4, 16), said)


@pytest.mark.parametrize("grid", [1, 2])
def test_tokens_on_a_grid_are_means_of_the_patches_in_each_part(grid, vit):
    encoder, pixels = get_encoder("tiny", weights=vit), crops()
    every, each = encoder.tokens(pixels, None), 4 // grid
    parts = every.view(3, grid, each, grid, each, 16).mean((2, 4))
    torch.testing.assert_close(encoder.tokens(pixels, grid), parts)


def test_windows_together_hang_on_their_place_alone(vit, section):
    slide, form = Slide.from_sdata(section), in_blocks(get_encoder("tiny", weights=vit))
    every = compute(reader(slide.frame, slide.centers_px, SPEC, form, dense=True), form)
    some = compute(reader(slide.frame, slide.centers_px[3:9], SPEC, form, dense=True), form)
    np.testing.assert_allclose(some, every[3:9], rtol=1e-5, atol=1e-5)
    alone = compute(reader(slide.frame, slide.centers_px, SPEC, form, dense=False), form)
    assert 0.1 < np.corrcoef(alone.ravel(), every.ravel())[0, 1] < 0.9999  # what lies around is seen as well


def test_nobody_gets_them_who_did_not_ask_and_who_did_keeps_them(vit, patients):
    config = {"encoders": ("tiny",), "size_px": 32, "extent_um": 60.0, "context_um": ()}
    how = {"genes": 4, "config": config, "weights": vit, "progress": False}
    plain, fitted = (sqi.tl.fit(patients["P1"], "ridge", **how, dense=dense) for dense in (None, True))
    assert "described" not in plain.encoded["tiny"] and fitted.encoded["tiny"]["described"] == "patch tokens"
    sqi.tl.predict(patients["P2"], fitted, weights=vit, progress=False)
    said = sqi.io.pythonic(patients["P2"].tables["imputed"].uns["sq_imputer"])["ridge"]["encoders"]
    assert [one["described"] for one in said.values()] == ["patch tokens"]
    with pytest.raises(sqi.BadInput, match="fitted on patch tokens of encoder 'tiny'.*Leave out dense="):
        sqi.tl.predict(patients["P3"], fitted, weights=vit, dense=False)


def test_places_of_a_convolutional_model_lie_where_it_sees_them(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is an extra: sq-imputer[encoders]", exc_type=ImportError)
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "r.safetensors")
    encoder = get_encoder("timm:test_resnet", weights=tmp_path / "r.safetensors")
    size, pixels = encoder.card.size_px, crops(2, encoder.card.size_px)
    pixels[1] = pixels[0]
    pixels[1, :, : size // 8, -size // 8 :] //= 4  # at the top, on the right
    one, other = encoder.tokens(pixels, None)
    moved = (one - other).norm(dim=-1)
    assert moved.argmax() == moved.shape[1] - 1


def test_an_architecture_without_patches_says_so(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm", reason="timm is an extra: sq-imputer[encoders]", exc_type=ImportError)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "r.safetensors")
    encoder = get_encoder("timm:test_resnet", weights=tmp_path / "r.safetensors")
    size = encoder.card.size_px
    assert encoder.tokens(crops(2, size), None).shape[::3] == (2, encoder.card.dim)
    with pytest.raises(sqi.BadInput, match="'timm:test_resnet' sees crops alone: test_resnet has no grid of patches"):
        in_blocks(encoder)
