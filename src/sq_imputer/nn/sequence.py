r"""Blocks that read DNA base by base, and pass on as many positions as they were given; by name.

`bimamba`: every block reads the sequence in both directions by a selective scan (`sq_imputer.nn.scan`),

.. math::

    x + W_o\,\big[(s(v) + \mathrm{flip}\,s'(\mathrm{flip}\,v)) \odot \mathrm{SiLU}(z)\big],
    \qquad (v, z) = W_i\,\mathrm{RMSNorm}(x)

where the two directions share :math:`W_i` and :math:`W_o`, and each scan :math:`s` has a short causal convolution,
steps and states of its own. `mamba_ssm` is the same block, of the same weights, with the CUDA kernel of that package.
`dilated`: gated convolutions whose dilations grow by the least factor with which the last position they see lies
`reach` bases away; quick on a CPU for windows of some hundred bases. `pooled`: a convolution of 15 bases, and then the
same blocks over means of ten bases; for many windows, the quickest.

**Established** (Gu and Dao 2023; Schiff et al. 2024): the block, its sizes and initial values, both directions added,
tied projections. **Ours**: the factor of the dilations; and that of a long sequence little is kept: a block is computed
again for the gradient, and a scan goes through it part by part, each of which fits into a cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sq_imputer.errors import BadInput, listed
from sq_imputer.nn.scan import scan_on

# B sequences, L positions, W width, I inner width, N states of a channel, R rank of the steps, K taps of a convolution

BACKBONES = ("bimamba", "dilated", "pooled", "mamba_ssm")
LONG = 2**23  # numbers of an input, above which blocks keep theirs alone and are computed again for the gradient
PART = 2**19  # numbers of a part, of which a CPU goes through several one by one, computing each again
LEAST_STEP, MOST_STEP = 1e-3, 1e-1
TAPS = 5
FIRST, NARROW, POOL = 15, 8, 10  # of `pooled`: taps of its first convolution, width before it, bases of a mean


def in_bins(x_BLW: Tensor, bins: int) -> Tensor:
    """Positions `(B, L, W)` as means of so many equal stretches, `(B, bins, W)`."""
    return F.adaptive_avg_pool1d(x_BLW.transpose(1, 2), bins).transpose(1, 2)


class Trunk(nn.Module):
    """Blocks of one kind, and a norm.

    Parameters
    ----------
    name
        `"bimamba"`, `"dilated"`, `"pooled"`, or `"mamba_ssm"` where that package and a GPU are there.
    width
        Width of the positions; what is given to `"pooled"` is as wide as :func:`width_before` says.
    layers
        Number of blocks.
    reach
        Bases on either side that `dilated` or `pooled` blocks must see together.
    state
        Numbers in a state of a scan.
    normed
        Whether every position is brought to one size before each block and at the end. A mask that positions are
        multiplied by is undone by that.
    fine
        Whether `"pooled"` blocks read base by base all the same.
    """

    def __init__(
        self,
        name: str,
        width: int,
        layers: int,
        *,
        reach: int = 0,
        state: int = 16,
        normed: bool = True,
        fine: bool = False,
    ) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise BadInput(f"backbone is {name!r}; expected one of {listed(BACKBONES)}.")
        self.first, self.pool = None, 1
        if name == "pooled":
            self.first = nn.Conv1d(NARROW, width, FIRST, padding=FIRST // 2)
            self.pool = 1 if fine else POOL
        if name in ("dilated", "pooled"):
            blocks = [Gated(width, dilation) for dilation in dilations(layers, -(-reach // self.pool))]
        else:
            scan = fused_scan() if name == "mamba_ssm" else scan_on
            blocks = [BiMamba(width, state, scan) for _ in range(layers)]
        self.blocks, self.norm = nn.ModuleList(blocks), nn.RMSNorm(width)
        for part in () if normed else (self, *blocks):
            part.norm = nn.Identity()

    def forward(self, x_BLW: Tensor) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`."""
        length = x_BLW.shape[1]
        if self.first is not None:
            x_BLW = F.silu(self.first(x_BLW.transpose(1, 2))).transpose(1, 2)
        if self.pool > 1:
            x_BLW = F.avg_pool1d(x_BLW.transpose(1, 2), self.pool, ceil_mode=True).transpose(1, 2)
        for block in self.blocks:
            x_BLW = block(x_BLW)
        x_BLW = self.norm(x_BLW)
        return x_BLW.repeat_interleave(self.pool, dim=1)[:, :length] if self.pool > 1 else x_BLW


def width_before(name: str, width: int) -> int:
    """Width of the positions that a trunk is given."""
    return NARROW if name == "pooled" else width


def again(call, x_BLW: Tensor, *more, keep: bool):
    """What `call` makes of this; all that lies between is made again for the gradient, unless it is to be kept."""
    if keep or not torch.is_grad_enabled():
        return call(x_BLW, *more)
    return checkpoint(call, x_BLW, *more, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn in it


class BiMamba(nn.Module):
    """A residual block that reads a sequence from both ends.

    Parameters
    ----------
    width
        Width of the positions; twice as wide inside.
    state
        Numbers in the state of a channel.
    scan
        What scans, as :func:`sq_imputer.nn.scan.scan_on` does.
    """

    def __init__(self, width: int, state: int = 16, scan=scan_on) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.inward = nn.Linear(width, 4 * width, bias=False)
        self.ahead = Direction(2 * width, math.ceil(width / 16), state, scan)
        self.back = Direction(2 * width, math.ceil(width / 16), state, scan)
        self.outward = nn.Linear(2 * width, width, bias=False)

    def forward(self, x_BLW: Tensor) -> Tensor:
        """`(B, L, W)` to `(B, L, W)`."""
        parts = x_BLW.split(self._size(x_BLW), dim=1)
        keep, before, backs = len(parts) == 1 and x_BLW.numel() <= LONG, None, []
        for part in reversed(parts):
            y_BPI, before = again(self._backwards, part, before, keep=keep)
            backs.append(y_BPI)
        before, found = None, []
        for part, back in zip(parts, reversed(backs), strict=True):
            y_BPW, before = again(self._forwards, part, back, before, keep=keep)
            found.append(y_BPW)
        return torch.cat(found, dim=1)

    def _size(self, x_BLW: Tensor) -> int:
        """Positions of a part."""
        rows, length, width = x_BLW.shape
        if x_BLW.numel() <= 4 * PART or x_BLW.device.type != "cpu":
            return length
        return max(PART // (rows * width), 1)

    def _backwards(self, x_BPW: Tensor, before):
        """What the way back says of a part, and what it ends with."""
        v_BPI = F.linear(self.norm(x_BPW), self.inward.weight[: 2 * x_BPW.shape[2]])
        y_BPI, after = self.back(v_BPI.flip(1), before)
        return y_BPI.flip(1), after

    def _forwards(self, x_BPW: Tensor, back_BPI: Tensor, before):
        """What the block makes of a part, and what the way ahead ends with."""
        v_BPI, gate_BPI = self.inward(self.norm(x_BPW)).chunk(2, dim=-1)
        ahead_BPI, after = self.ahead(v_BPI, before)
        return x_BPW + self.outward((ahead_BPI + back_BPI).to(gate_BPI) * F.silu(gate_BPI)), after


class Direction(nn.Module):
    """What one direction has of its own: a short convolution, steps, and the states of a scan."""

    def __init__(self, inner: int, rank: int, state: int, scan, taps: int = 4) -> None:
        super().__init__()
        self.scan, self.rank, self.state, self.taps = scan, rank, state, taps
        self.conv = nn.Conv1d(inner, inner, taps, groups=inner)
        self.said = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = nn.Linear(rank, inner)
        self.log_rate = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.step.weight, -(rank**-0.5), rank**-0.5)
        first = torch.empty(inner).uniform_(math.log(LEAST_STEP), math.log(MOST_STEP)).exp()
        with torch.no_grad():  # so that the softplus of the bias is that step
            self.step.bias.copy_(first + (-torch.expm1(-first)).log())

    def forward(self, v_BLI: Tensor, before: tuple[Tensor, Tensor] | None = None):
        """`(B, L, I)` to `(B, L, I)`, no position of which sees a later one; and what a next part begins with."""
        last, start = before or (v_BLI.new_zeros(len(v_BLI), self.taps - 1, v_BLI.shape[2]), None)
        v_BLI = torch.cat([last, v_BLI], dim=1)
        u_BLI = F.silu(self.conv(v_BLI.transpose(1, 2)).transpose(1, 2))
        low_BLR, B_BLN, C_BLN = self.said(u_BLI).split([self.rank, self.state, self.state], dim=-1)
        step_BLI = F.softplus(self.step(low_BLR).float())
        y_BLI, end = self.scan(start, u_BLI, step_BLI, -self.log_rate.exp(), B_BLN, C_BLN)
        return y_BLI + self.skip * u_BLI, (v_BLI[:, 1 - self.taps :].clone(), end)


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
        return again(self._whole, x_BLW, keep=x_BLW.numel() <= LONG)

    def _whole(self, x_BLW: Tensor) -> Tensor:
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
        f"{layers} dilated blocks see {most} positions on either side; they must see {reach}. "
        f"Pass {needed} layers, a shorter window, or backbone='bimamba'."
    )


def fused_scan():
    """The scan of the package mamba_ssm, called as :func:`sq_imputer.nn.scan.scan_on` is, of whole sequences."""
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise BadInput(
            f"backbone 'mamba_ssm' needs the package mamba-ssm and CUDA ({error}). Install it, or pass "
            "backbone='bimamba': the same block of the same weights."
        ) from error

    def scan(start: None, u_BLD: Tensor, step_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor):
        with torch.autocast(u_BLD.device.type, enabled=False):
            turned = (one.float().transpose(1, 2).contiguous() for one in (u_BLD, step_BLD, B_BLN, C_BLN))
            u, step, B, C = turned
            return selective_scan_fn(u, step, A_DN.float(), B, C).transpose(1, 2), None

    return scan
