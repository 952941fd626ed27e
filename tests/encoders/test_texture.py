from __future__ import annotations

import pytest
import torch

from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.encoders.texture import EOSIN, FEATURES, HEMATOXYLIN, MIN_SIZE, OCTAVES, Texture
from sq_imputer.errors import BadInput


def named(crops):
    return dict(zip(FEATURES, Texture()(crops).T, strict=True))


def stained(hematoxylin, eosin):
    """Crops `(B, 3, S, S)` of known amounts `(B, S, S)` of the two stains, by the law of Beer and Lambert."""
    h, e = (torch.nn.functional.normalize(torch.tensor(stain), dim=0) for stain in (HEMATOXYLIN, EOSIN))
    density = hematoxylin[:, None] * h.view(1, 3, 1, 1) + eosin[:, None] * e.view(1, 3, 1, 1)
    return (256 * torch.exp(-density) - 1).round().clamp(0, 255).to(torch.uint8)


def disks(grid, radius, size=224):
    """`grid` x `grid` disks of hematoxylin on eosin."""
    position = (torch.arange(size) + 0.5) % (size / grid) - size / grid / 2
    inside = (position[:, None].square() + position.square()).sqrt() < radius
    return stained(inside[None].float(), torch.full((1, size, size), 0.3))


def stripes(period, size=224):
    wave = ((torch.arange(size) // (period // 2)) % 2).float()
    return stained(wave.expand(1, size, size), torch.full((1, size, size), 0.2))


def noise(n=5, size=64, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_every_number_has_a_name_of_its_own():
    assert len(set(FEATURES)) == len(FEATURES) == TEXTURE.dim == Texture()(noise()).shape[1]
    assert Texture.names() == FEATURES
    groups = {name.split("_")[0] for name in FEATURES}
    assert groups == {"od", "hed", "color", "tex", "layout", "grad", "nuc", "tissue", "lbp", "ring"}


def test_batch_size_does_not_change_the_features():
    crops = noise(19)
    whole = Texture()(crops)
    for size in (1, 7):
        torch.testing.assert_close(
            torch.cat([Texture()(part) for part in crops.split(size)]), whole, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("size", [MIN_SIZE, 45, 224])
@pytest.mark.parametrize("value", [0, 255])
def test_empty_crops_give_finite_features(size, value):
    assert Texture()(torch.full((1, 3, size, size), value, dtype=torch.uint8)).isfinite().all()


def test_crops_too_small_for_the_octaves_are_refused():
    with pytest.raises(BadInput, match="32 pixels or more a side, got 31"):
        Texture()(noise(size=31))


def test_turning_and_mirroring_a_crop_changes_nothing():
    # Smooth, so that no local pattern hangs on the rounding of a tie.
    smooth = torch.nn.functional.avg_pool2d(noise(4, 128).float(), 9, 1, 4).to(torch.uint8)
    expected = Texture()(smooth)
    for turned in (smooth.rot90(1, (2, 3)), smooth.flip(3)):
        torch.testing.assert_close(Texture()(turned), expected, rtol=1e-3, atol=2e-3)


def test_the_amounts_of_the_stains_are_recovered():
    found = named(stained(torch.full((1, 64, 64), 0.6), torch.full((1, 64, 64), 0.3)))
    assert found["hed_h_mean"].item() == pytest.approx(0.6, abs=0.02)
    assert found["hed_e_mean"].item() == pytest.approx(0.3, abs=0.02)
    assert found["hed_residual_mean"].item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("octave", range(1, OCTAVES + 1))
def test_stripes_have_their_energy_in_their_octave(octave):
    found = named(stripes(2**octave))
    energy = [found[f"tex_h_axes{k}"].item() for k in range(1, OCTAVES + 1)]
    assert energy.index(max(energy)) == octave - 1


def test_peaks_count_nuclei():
    for grid in (4, 8):
        # Moved off the grid of the halved maps, where a peak would be shared by several pixels.
        peaks = named(disks(grid, 6).roll((1, 1), (2, 3)))[
            "nuc_l2_peaks20"
        ].item()  # per 100 pixels of a quarter's side
        assert peaks / 100 * 56**2 == pytest.approx(grid**2, abs=0.01)


def test_larger_nuclei_have_more_area_per_border():
    sizes = [named(disks(7, radius))["nuc_size"].item() for radius in (3, 6, 12)]
    assert sizes == sorted(sizes) and sizes[2] - sizes[0] > 0.5


def test_stripes_are_coherent_and_noise_is_not():
    gray = noise(1, 224)[:, :1].expand(-1, 3, -1, -1)
    assert named(stripes(8))["grad_d1_coherence"] > 0.9
    assert named(gray)["grad_d1_coherence"] < 0.1


def test_glass_is_not_tissue():
    amount = torch.zeros(1, 128, 128)
    amount[..., :64] = 0.8
    found = named(stained(amount, amount))
    assert found["tissue_l1_20"].item() == pytest.approx(0.5, abs=0.02)
    assert found["layout_d_half"] > named(stained(amount * 0 + 0.4, amount * 0 + 0.4))["layout_d_half"] + 1


def test_rings_tell_the_center_from_the_corners():
    axis = torch.linspace(-1, 1, 128)
    center = ((axis[:, None].square() + axis.square()).sqrt() < 1 / 3).float()[None]
    found = named(stained(center, center))
    assert found["ring_h_0"].item() == pytest.approx(1, abs=0.1)
    assert found["ring_h_3"].item() == pytest.approx(0, abs=0.02)


def test_local_patterns_are_shares():
    found = named(noise(3))
    for level in (1, 2):
        total = sum(found[f"lbp_l{level}_{k}"] for k in range(10))
        torch.testing.assert_close(total, torch.ones(3))
