from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from sq_imputer.errors import BadInput
from sq_imputer.nn import sequence
from sq_imputer.nn.scan import scan_on, selective_scan
from sq_imputer.nn.sequence import BiMamba, Direction, Gated, Trunk, dilations, fused_scan, in_bins, width_before


@pytest.fixture(autouse=True)
def seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_a_direction_sees_nothing_that_comes_later():
    ahead, x = Direction(8, 1, 4, scan_on), torch.randn(2, 50, 8)
    changed = x.clone()
    changed[:, 30:] = torch.randn(2, 20, 8)
    said, other = ahead(x)[0], ahead(changed)[0]
    torch.testing.assert_close(said[:, :30], other[:, :30])
    assert not torch.allclose(said[:, 30], other[:, 30])


def test_the_way_back_is_flip_forward_flip():
    """Acceptance 7: with directions exchanged, a flipped sequence gives the flipped answer."""
    block, x = BiMamba(8, state=4), torch.randn(2, 45, 8)
    said = block(x)
    block.ahead, block.back = block.back, block.ahead
    torch.testing.assert_close(block(x.flip(1)).flip(1), said)
    assert not torch.allclose(block(x), said, atol=1e-4)  # directions differ


def test_directions_share_the_projections_in_and_out():
    """Acceptance 7: tied projections are one tensor, which both directions give gradient to."""
    block, x = BiMamba(8, state=4), torch.randn(1, 20, 8)
    assert [name for name, _ in block.named_parameters() if "ward" in name] == ["inward.weight", "outward.weight"]

    def gradient(*silent: str) -> torch.Tensor:
        block.zero_grad()
        kept = {name: getattr(block, name).skip for name in silent}
        v, gate = block.inward(block.norm(x)).chunk(2, dim=-1)
        ahead = 0 if "ahead" in kept else block.ahead(v)[0]
        back = 0 if "back" in kept else block.back(v.flip(1))[0].flip(1)
        (x + block.outward((ahead + back) * torch.nn.functional.silu(gate))).sum().backward()
        return block.outward.weight.grad.clone()

    torch.testing.assert_close(gradient("ahead") + gradient("back"), gradient(), atol=1e-5, rtol=1e-4)


def test_first_steps_lie_between_a_thousandth_and_a_tenth():
    steps = torch.nn.functional.softplus(Direction(64, 4, 16, scan_on).step.bias)
    assert steps.min() >= 0.99e-3 and steps.max() <= 1.01e-1 and steps.max() / steps.min() > 10


@pytest.mark.parametrize("name", ["bimamba", "dilated", "pooled"])
def test_a_trunk_sees_both_ends_and_is_the_same_in_parts_that_are_computed_again(name, monkeypatch):
    trunk = Trunk(name, 8, 2, reach=12, state=4)
    x = torch.randn(1, 25, width_before(name, 8), requires_grad=True)
    trunk(x)[0, 12].sum().backward()
    reached = x.grad[0].abs().sum(dim=1) > 0
    assert reached[0] and reached[-1]
    before, x.grad = x.grad.clone(), None
    monkeypatch.setattr(sequence, "LONG", 0)
    monkeypatch.setattr(sequence, "PART", 40)  # of five bases
    trunk(x)[0, 12].sum().backward()
    torch.testing.assert_close(x.grad, before)


def test_dilations_grow_by_the_least_factor_that_reaches():
    assert dilations(4, 20) == [1, 2, 4, 8]
    assert dilations(4, 68) == [1, 3, 9, 27]
    seen = Trunk("dilated", 4, 3, reach=50)
    assert sum(2 * block.conv.dilation[0] for block in seen.blocks) >= 50
    with pytest.raises(BadInput, match=r"2 dilated blocks see 12 positions .* must see 100\. Pass 4 layers"):
        Trunk("dilated", 4, 2, reach=100)


def test_pooled_blocks_say_one_thing_of_ten_bases_unless_they_are_fine():
    x = torch.randn(1, 25, width_before("pooled", 4))
    coarse, fine = Trunk("pooled", 4, 2, reach=100)(x), Trunk("pooled", 4, 2, fine=True)(x)
    assert coarse.shape == fine.shape == (1, 25, 4)
    assert torch.equal(coarse[:, 10:11].expand(-1, 10, -1), coarse[:, 10:20])
    assert not torch.allclose(fine[:, 10], fine[:, 11]) and not torch.allclose(coarse[:, 19], coarse[:, 20])


def test_a_gated_block_keeps_the_length():
    assert Gated(4, 5)(torch.randn(2, 17, 4)).shape == (2, 17, 4)


def test_other_backbones_are_refused_with_what_to_do(monkeypatch):
    with pytest.raises(BadInput, match="expected one of 'bimamba', 'dilated', 'pooled', 'mamba_ssm'"):
        Trunk("transformer", 8, 1)
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(BadInput, match="needs the package mamba-ssm and CUDA .* backbone='bimamba'"):
        Trunk("mamba_ssm", 8, 1)


def test_the_kernel_of_others_is_called_as_ours(monkeypatch):
    """Its sequences lie as (B, D, L): a stand-in that undoes this and calls ours gives the same."""

    def kernel(u, step, A, B, C):
        return selective_scan(*(one.transpose(1, 2) for one in (u, step)), A, B.mT, C.mT).transpose(1, 2)

    inner = ModuleType("mamba_ssm.ops.selective_scan_interface")
    inner.selective_scan_fn = kernel
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, inner.__name__, inner)
    given = torch.randn(1, 9, 3), torch.rand(1, 9, 3), -torch.rand(3, 2), torch.randn(1, 9, 2), torch.randn(1, 9, 2)
    torch.testing.assert_close(fused_scan()(None, *given)[0], selective_scan(*given))


def test_bins_are_means_of_equal_stretches():
    x = torch.arange(12.0).view(1, 12, 1)
    torch.testing.assert_close(in_bins(x, 3)[0, :, 0], torch.tensor([1.5, 5.5, 9.5]))
