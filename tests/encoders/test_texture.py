from __future__ import annotations

import pytest
import torch

from sq_imputer.encoders._cards import TEXTURE
from sq_imputer.encoders._texture_maps import BLOCK, EOSIN, HALO, HEMATOXYLIN, OCTAVES
from sq_imputer.encoders._windows import Boxes
from sq_imputer.encoders.texture import FEATURES, MIN_SIZE, Texture
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
    crops = noise(9)
    whole = Texture()(crops)
    for size in (2, 7):
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


@pytest.mark.parametrize("size", [32, 33, 45, 64, 100, 201, 224])
def test_turning_and_mirroring_a_crop_changes_nothing(size):
    contrast = torch.linspace(0.2, 1, 6).view(-1, 1, 1, 1)
    smooth = (torch.nn.functional.avg_pool2d(noise(6, size + 4).float(), 5, 1) * contrast).to(torch.uint8)
    expected = Texture()(smooth)
    spread = expected.std(0).clamp_min(1e-3)
    for turned in (smooth.rot90(1, (2, 3)), smooth.flip(3), smooth.flip(2)):
        assert ((Texture()(turned) - expected).abs() / spread).max() < 1e-3


def boxes(*corners, side):
    low = torch.tensor(corners, dtype=torch.float64)
    return Boxes(torch.zeros(len(low), dtype=torch.long), low, low + side)


def test_a_window_is_described_alike_in_a_small_image_and_in_a_large_one():
    image = torch.nn.functional.avg_pool2d(noise(1, 324).float(), 5, 1).to(torch.uint8)
    corners, side = ((70.0, 90.0), (101.25, 64.5), (127.9, 96.0)), torch.tensor([60.5, 60.5])
    large = Texture().windows(image, boxes(*corners, side=side))
    alone = []
    for y, x in corners:
        top, left = (int(at // BLOCK) * BLOCK - HALO for at in (y, x))
        part = image[:, :, top : top + 6 * BLOCK, left : left + 6 * BLOCK]
        alone.append(Texture().windows(part, boxes((y - top, x - left), side=side)))
    assert ((torch.cat(alone) - large).abs() / large.std(0).clamp_min(1e-3)).max() < 1e-3
    # a window that is moved by ten pixels is another
    moved = Texture().windows(image, boxes(*((y + 10, x) for y, x in corners), side=side))
    assert ((moved - large).abs() / large.std(0).clamp_min(1e-3)).max() > 0.1


@pytest.mark.parametrize("side", [32.0, 64.0])
def test_a_window_that_moves_by_a_hair_is_described_alike(side):
    """Also where it only just reaches into tissue, holds a single nucleus, or begins at a whole pixel."""
    image = disks(8, 10, 256)
    image[..., :128] = 255
    inner = 256 - 2 * HALO - side - 1
    generator = torch.Generator().manual_seed(0)
    low = HALO + 0.5 + torch.rand(2000, 2, generator=generator, dtype=torch.float64) * inner
    low[:1000, 1] = 128 - side - 8 + 16 * torch.rand(1000, generator=generator, dtype=torch.float64)
    low[::2] = low[::2].round()
    moved = low + 1e-4 * (2.0 * (torch.rand(2000, 2, generator=generator, dtype=torch.float64) > 0.5) - 1)
    maps, extent = Texture().maps(image), torch.full((2,), side, dtype=torch.float64)
    found, again = (
        Texture().gather(maps, Boxes(torch.zeros(len(at), dtype=torch.long), at, at + extent)) for at in (low, moved)
    )
    assert ((again - found).abs() / found.std(0).clamp_min(1e-3)).max() < 0.03  # with bare roots it is 2


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
        peaks = named(disks(grid, 6).roll((1, 1), (2, 3)))["nuc_l2_peaks2"].item()  # per 100 pixels of a quarter's side
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
    assert found["tissue_l1_1"].item() == pytest.approx(0.5, abs=0.02)
    assert found["layout_density_half"] > named(stained(amount * 0 + 0.4, amount * 0 + 0.4))["layout_density_half"] + 1


def test_rings_tell_the_center_from_the_corners():
    axis = torch.linspace(-1, 1, 128)
    center = ((axis[:, None].square() + axis.square()).sqrt() < 1 / 3).float()[None]
    found = named(stained(center, center))
    assert found["ring_hed_h_0"].item() == pytest.approx(1, abs=0.1)
    assert found["ring_hed_h_3"].item() == pytest.approx(0, abs=0.02)


def test_local_patterns_are_shares():
    found = named(noise(3))
    for level in (1, 2):
        total = sum(found[f"lbp_l{level}_{k}"] for k in range(10))
        torch.testing.assert_close(total, torch.ones(3))
