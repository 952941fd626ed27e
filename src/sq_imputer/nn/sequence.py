r"""Blocks that read DNA base by base, and pass on as many positions as they were given; by name.

`bimamba`: every block reads the sequence in both directions by a selective scan (`sq_imputer.nn.scan`),

.. math::

    x + W_o\,\big[(s(v) + \mathrm{flip}\,s'(\mathrm{flip}\,v)) \odot \mathrm{SiLU}(z)\big],
    \qquad (v, z) = W_i\,\mathrm{RMSNorm}(x)

where the two directions share :math:`W_i` and :math:`W_o`, and each scan :math:`s` has a short causal convolution,
steps and states of its own. `mamba_ssm` is the same block, of the same weights, with the CUDA kernel of that package.
`dilated`: gated convolutions whose dilations grow by the least factor with which the last position they see lies
`reach` bases away; much the quickest on a CPU for windows of some hundred bases.

**Established** (Gu and Dao 2023; Schiff et al. 2024): the block, its sizes and initial values, both directions added,
tied projections. **Ours**: one product for both directions where a projection is tied, blocks that are computed again
for the gradient where a sequence is long, and the factor of the dilations.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sq_imputer.errors import BadInput, listed
from sq_imputer.nn.scan import selective_scan

# B sequences, L positions, W width, I inner width, N states of a channel, R rank of the steps, K taps of a convolution

BACKBONES = ("bimamba", "dilated", "mamba_ssm")
LONG = 2**23  # numbers of an input, above which blocks keep theirs alone and are computed again for the gradient
LEAST_STEP, MOST_STEP = 1e-3, 1e-1
TAPS = 5


def in_bins(x_BLW: Tensor, bins: int) -> Tensor:
    """Positions `(B, L, W)` as means of so many equal stretches, `(B, bins, W)`."""
    return F.adaptive_avg_pool1d(x_BLW.transpose(1, 2), bins).transpose(1, 2)


class Trunk(nn.Module):
    """Blocks of one kind, and a norm.

    Parameters
    ----------
    name
        `"bimamba"`, `"dilated"`, or `"mamba_ssm"` where that package and a GPU are there.
    width
        Width of the positions.
    layers
        Number of blocks.
    reach
        Bases on either side that `dilated` blocks must see together.
    state
        Numbers in a state of a scan.
    normed
        Whether every position is brought to one size before each block and at the end. A mask that positions are
        multiplied by is undone by that.
    """

    def __init__(
        self, name: str, width: int, layers: int, *, reach: int = 0, state: int = 16, normed: bool = True
    ) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise BadInput(f"backbone is {name!r}; expected one of {listed(BACKBONES)}.")
        if name == "dilated":
            blocks = [Gated(width, dilation) for dilation in dilations(layers, reach)]
        else:
            scan = fused_scan() if name == "mamba_ssm" else selective_scan
            blocks = [BiMamba(width, state, scan) for _ in range(layers)]
        self.blocks, self.norm = nn.ModuleList(blocks), nn.RMSNorm(width)
        for part in () if normed else (self, *blocks):
            part.norm = nn.Identity()

    def forward(self, x_BLW: Tensor) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`."""
        again = torch.is_grad_enabled() and x_BLW.numel() > LONG
        for block in self.blocks:
            if again:  # nothing is drawn in a block, so that no random state is kept
                x_BLW = checkpoint(block, x_BLW, use_reentrant=False, preserve_rng_state=False)
            else:
                x_BLW = block(x_BLW)
        return self.norm(x_BLW)


class BiMamba(nn.Module):
    """A residual block that reads a sequence from both ends.

    Parameters
    ----------
    width
        Width of the positions; twice as wide inside.
    state
        Numbers in the state of a channel.
    scan
        What scans, as :func:`sq_imputer.nn.scan.selective_scan` does.
    """

    def __init__(self, width: int, state: int = 16, scan=selective_scan) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.inward = nn.Linear(width, 4 * width, bias=False)
        self.ahead = Direction(2 * width, math.ceil(width / 16), state, scan)
        self.back = Direction(2 * width, math.ceil(width / 16), state, scan)
        self.outward = nn.Linear(2 * width, width, bias=False)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`."""
        v_BLI, gate_BLI = self.inward(self.norm(x_BLW)).chunk(2, dim=-1)
        both_BLI = self.ahead(v_BLI) + self.back(v_BLI.flip(1)).flip(1)
        return x_BLW + self.outward(both_BLI.to(gate_BLI) * F.silu(gate_BLI))


class Direction(nn.Module):
    """What one direction has of its own: a short convolution, steps, and the states of a scan."""

    def __init__(self, inner: int, rank: int, state: int, scan, taps: int = 4) -> None:
        super().__init__()
        self.scan, self.rank, self.state = scan, rank, state
        self.conv = nn.Conv1d(inner, inner, taps, groups=inner, padding=taps - 1)
        self.said = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_rate = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        first = torch.empty(inner).uniform_(math.log(LEAST_STEP), math.log(MOST_STEP)).exp()
        with torch.no_grad():  # so that the softplus of the bias is that step
            self.step.bias.copy_(first + (-torch.expm1(-first)).log())

    def forward(self, v_BLI: Tensor) -> Tensor:
        """`(B, L, I)` to `(B, L, I)`; no position sees a later one."""
        length = v_BLI.shape[1]
        u_BLI = F.silu(self.conv(v_BLI.transpose(1, 2))[..., :length].transpose(1, 2))
        low_BLR, B_BLN, C_BLN = self.said(u_BLI).split([self.rank, self.state, self.state], dim=-1)
        step_BLI = F.softplus(self.step(low_BLR).float())
        return self.scan(u_BLI, step_BLI, -self.log_rate.exp(), B_BLN, C_BLN) + self.skip * u_BLI


class Gated(nn.Module):
    """A residual block of a gated, dilated convolution.

    Parameters
    ----------
    width
        Width of the positions.
    dilation
        Bases from tap to tap.
    taps
        Taps of the convolution, an odd number.
    """

    def __init__(self, width: int, dilation: int, taps: int = TAPS) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.conv = nn.Conv1d(width, 2 * width, taps, dilation=dilation, padding=dilation * (taps // 2))
        self.out = nn.Linear(width, width)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`."""
        said_BLW, gate_BLW = self.conv(self.norm(x_BLW).transpose(1, 2)).transpose(1, 2).chunk(2, dim=-1)
        return x_BLW + self.out(F.silu(said_BLW) * torch.sigmoid(gate_BLW))


def dilations(layers: int, reach: int, taps: int = TAPS) -> list[int]:
    """Dilations of gated blocks that together see so many bases on either side, with no base left out between."""
    for factor in range(2, taps + 1):
        found = [factor**layer for layer in range(layers)]
        if taps // 2 * sum(found) >= reach:
            return found
    most = taps // 2 * sum(taps**layer for layer in range(layers))
    needed = next(n for n in range(layers, 99) if taps // 2 * sum(taps**layer for layer in range(n)) >= reach)
    raise BadInput(
        f"backbone 'dilated' of {layers} layers sees {most} bases on either side; it must see {reach}. "
        f"Pass {needed} layers, a shorter window, or backbone='bimamba'."
    )


def fused_scan():
    """The scan of the package mamba_ssm, called as :func:`sq_imputer.nn.scan.selective_scan` is."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise BadInput(
            f"backbone 'mamba_ssm' needs the package mamba-ssm and CUDA ({error}). Install it, or pass "
            "backbone='bimamba': the same block of the same weights, in plain PyTorch."
        ) from error

    def scan(u_BLD: Tensor, step_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> Tensor:
        with torch.autocast(u_BLD.device.type, enabled=False):
            turned = (one.float().transpose(1, 2).contiguous() for one in (u_BLD, step_BLD, B_BLN, C_BLN))
            u, step, B, C = turned
            return selective_scan_fn(u, step, A_DN.float(), B, C).transpose(1, 2)

    return scan
