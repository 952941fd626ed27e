r"""The selective scan of state-space models: its length costs time and memory in proportion, no more.

Of a sequence of D channels each has a state of N numbers, which every step lets decay and adds to, both as the input
says:

.. math::

    h_t = e^{\Delta_t A} h_{t-1} + \Delta_t u_t B_t, \qquad y_t = \langle C_t, h_t \rangle

**Established** (Gu and Dao 2023): the recurrence and its gradient. **Ours**: how it is computed. On a CPU the steps are
gone through one by one, compiled (`sq_imputer.nn.scan_cpu`). Elsewhere the sequence is cut, in plain PyTorch, into
segments, and each of these into chunks that are stepped through side by side: once for what the chunks end with, which
is carried from chunk to chunk, and once for the states. Either way few states are kept; the others are computed again
for the gradient, which is the same recurrence from the end. Numbers of less than 32 bits are raised to 32: in half
precision the product of many decays is lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

# B sequences, L steps, D channels, N states of a channel; S steps of a segment, made of M chunks of K steps

CHUNK = 32
NUMBERS = {"cpu": 2**19, "cuda": 2**26}  # of the states of a segment: a cache of a CPU, few launches on a GPU
COMPILED = True  # on a CPU


def selective_scan(u_BLD: Tensor, step_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor) -> Tensor:
    """What the states say, `(B, L, D)`, from the first step to the last.

    Parameters
    ----------
    u_BLD
        The sequence.
    step_BLD
        How far each step goes; 0 leaves the state as it is.
    A_DN
        How fast the states decay, negative.
    B_BLN, C_BLN
        What the input adds to the states, and what is read of them.
    """
    return scan_on(None, u_BLD, step_BLD, A_DN, B_BLN, C_BLN)[0]


def scan_on(start_BND: Tensor | None, u_BLD: Tensor, step_BLD: Tensor, A_DN: Tensor, B_BLN: Tensor, C_BLN: Tensor):
    """The same, from states that an earlier part of the sequence ended with, and the states that this part ends with.

    Parameters
    ----------
    start_BND
        States before the first step; zeros if `None`.
    u_BLD, step_BLD, A_DN, B_BLN, C_BLN
        As of :func:`selective_scan`.
    """
    with torch.autocast(u_BLD.device.type, enabled=False):
        u, step, A, B, C = (one.float() if one.itemsize < 4 else one for one in (u_BLD, step_BLD, A_DN, B_BLN, C_BLN))
        start_BND = u.new_zeros(len(u), *A.T.shape) if start_BND is None else start_BND
        if COMPILED and u.device.type == "cpu":
            from sq_imputer.nn.scan_cpu import scanned

            return scanned(start_BND, A.T, u, step, B, C)
        length = u.shape[1]
        sequences = [_steps_first(one, -length % CHUNK) for one in (u, step, B, C)]
        y_LBD, end_BND = _Scan.apply(start_BND, A.T.contiguous(), *sequences)
        return y_LBD[:length].transpose(0, 1), end_BND


def _steps_first(x_BLX: Tensor, lack: int) -> Tensor:
    """`(L, B, X)`, with steps of length 0 at the end: they leave the state as it is."""
    x = x_BLX.transpose(0, 1)
    return torch.cat([x, x.new_zeros(lack, *x.shape[1:])]) if lack else x.contiguous()


class _Scan(torch.autograd.Function):
    """The scan of whole chunks; states lie as `(N, D)`, since channels are many."""

    @staticmethod
    def forward(ctx, start_BND, A_ND, *sequences):
        u_LBD, starts = sequences[0], []
        y_LBD = torch.empty_like(u_LBD)
        for at in _segments(u_LBD, A_ND):
            starts.append(start_BND)
            u, step, B, C = (one[at] for one in sequences)
            h_SBND, _ = _states(u, step, A_ND, B, start_BND)
            y_LBD[at] = _over_states(C, h_SBND[1:])
            start_BND = h_SBND[-1].clone()
        ctx.save_for_backward(A_ND, *sequences, *starts)
        return y_LBD, start_BND

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_LBD, later_BND):  # the latter, at every turn: what comes later asks of the state before it
        A_ND, u, step, B, C, *starts = ctx.saved_tensors
        sequences = (u, step, B, C)
        of_A, found = torch.zeros_like(A_ND), [torch.empty_like(one) for one in sequences]
        for at, start in reversed(list(zip(_segments(u, A_ND), starts, strict=True))):
            parts = [one[at] for one in sequences]
            later_BND, own_A, *own = _gradients(A_ND, *parts, start, grad_LBD[at].contiguous(), later_BND)
            of_A += own_A
            for whole, part in zip(found, own, strict=True):
                whole[at] = part
        return later_BND, of_A, *found


def _segments(u_LBD: Tensor, A_ND: Tensor) -> list[slice]:
    """Segments, of whole chunks each."""
    length, rows, _ = u_LBD.shape
    numbers = NUMBERS.get(u_LBD.device.type, NUMBERS["cuda"])
    size = max(numbers // (rows * A_ND.numel() * CHUNK), 1) * CHUNK
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _over_states(x_SBN: Tensor, h_SBND: Tensor) -> Tensor:
    """Sum over the states `(S, B, D)`, each times its number."""
    return torch.bmm(x_SBN.flatten(0, 1)[:, None], h_SBND.flatten(0, 1)).view(*h_SBND.shape[:2], -1)


def _over_channels(x_SBD: Tensor, h_SBND: Tensor) -> Tensor:
    """Sum over the channels `(S, B, N)`, each times its number."""
    turned = h_SBND.flatten(0, 1).transpose(1, 2)  # a row times a matrix: ten times as quick
    return torch.bmm(x_SBD.flatten(0, 1)[:, None], turned).view(*h_SBND.shape[:2], -1)


def _states(u, step, A_ND, B, start_BND) -> tuple[Tensor, Tensor]:
    """States of a segment after the one before it, and how they decay, after which nothing does: `(S + 1, B, N, D)`."""
    shape = (len(u) + 1, *start_BND.shape)
    h_SBND, decay_SBND = u.new_empty(shape), u.new_empty(shape)
    h_SBND[0], decay_SBND[-1] = start_BND, 1
    torch.mul(step[:, :, None], A_ND, out=decay_SBND[:-1]).exp_()
    torch.mul((step * u)[:, :, None], B[..., None], out=h_SBND[1:])
    _sweep(decay_SBND[:-1], h_SBND[1:], start_BND)
    return h_SBND, decay_SBND


def _sweep(decay_SBND: Tensor, x_SBND: Tensor, start_BND: Tensor, way: int = 1) -> None:
    """Make states, in place, of what is added to them, from a state before the first; or from the last, if `way` is -1.

    Chunks lie side by side, so that a step is one of all of them.
    """
    shape = (-1, CHUNK, start_BND.numel())
    decay_MKW, x_MKW, state_MW = decay_SBND.view(shape), x_SBND.view(shape), start_BND.reshape(1, -1)
    decays, added = decay_MKW.unbind(1)[::way], x_MKW.unbind(1)[::way]
    if len(x_MKW) > 1:
        end_MW, kept_MW = added[0].clone(), decays[0].clone()
        for decay, x in zip(decays[1:], added[1:], strict=True):
            torch.addcmul(x, decay, end_MW, out=end_MW)
            kept_MW *= decay
        befores = [state_MW[0]]
        for end, kept in list(zip(end_MW, kept_MW, strict=True))[::way][:-1]:
            befores.append(torch.addcmul(end, kept, befores[-1]))
        state_MW = torch.stack(befores[::way])
    for decay, x in zip(decays, added, strict=True):
        state_MW = torch.addcmul(x, decay, state_MW, out=x)


def _gradients(A_ND, u, step, B, C, start_BND, grad_SBD, later_BND) -> tuple[Tensor, ...]:
    """What a segment asks of the state before it, and the gradients of A and of its parts of the sequences."""
    h_SBND, decay_SBND = _states(u, step, A_ND, B, start_BND)
    of_C = _over_channels(grad_SBD, h_SBND[1:])
    rate_SBND = h_SBND[:-1].mul_(decay_SBND[:-1])  # by the exponent of the decay
    asked_SBND = C[..., None] * grad_SBD[:, :, None]  # of every state, and, swept back, by all that comes after it
    _sweep(decay_SBND[1:], asked_SBND, later_BND, way=-1)
    rate_SBND *= asked_SBND
    of_input = _over_states(B, asked_SBND)
    of_B, of_step = _over_channels(step * u, asked_SBND), of_input * u
    for rate, A in zip(rate_SBND.unbind(2), A_ND, strict=True):
        of_step.addcmul_(rate, A)
    of_A = rate_SBND.mul_(step[:, :, None]).sum(dim=(0, 1))
    return decay_SBND[0] * asked_SBND[0], of_A, of_input * step, of_step, of_B, of_C
