r"""The selective scan on a CPU: the recurrence step by step, compiled, and its gradient.

Sixteen channels lie side by side in the registers of the processor. Forwards a state is written down every 64 steps;
backwards these steps are made again from it, and then gone through from the end. What several channels ask of one
number is summed in an order that does not hang on how many threads there are. The power of two of 32 bits is a
polynomial, which is off by a part in four million; that of 64 bits is the system's, and several times as slow.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from torch import Tensor

# B sequences, L steps, D channels, N states of a channel; M chunks of K steps, V channels side by side

CHUNK = 64
LANES = 16
GROUP = 2 * LANES  # channels of which sums are made before those of other threads are added
STATE, RATE, ASKED, OF_RATE = range(4)  # rows of tables of lanes: by state,
STEP, ADDED, SAID, OF_ADDED, OF_STEP = range(5)  # of a step,
DECAY, DECAYED, OF_B, OF_C = range(4)  # and by both, of a chunk
POWERS = (1.0, 0.6931469775984718, 0.2402224208491888, 0.055507337442443606, 0.009671512660581463, 0.00132647268990864)


def scanned(start_BND: Tensor, A_ND: Tensor, u_BLD: Tensor, step_BLD: Tensor, B_BLN: Tensor, C_BLN: Tensor):
    """What the states say, `(B, L, D)`, and the last of them `(B, N, D)`.

    Parameters
    ----------
    start_BND
        States before the first step.
    A_ND, u_BLD, step_BLD, B_BLN, C_BLN
        As of :func:`sq_imputer.nn.scan.selective_scan`.
    """
    channels = len(A_ND.T)
    lack = -channels % LANES  # channels whose steps are 0
    whole = (torch.nn.functional.pad(one, (0, lack)) if lack else one for one in (start_BND, A_ND, u_BLD, step_BLD))
    y_BLD, end_BND = _Scan.apply(*(one.contiguous() for one in (*whole, B_BLN, C_BLN)))
    return y_BLD[..., :channels], end_BND[..., :channels]


class _Scan(torch.autograd.Function):
    """The scan of whole blocks of channels; rates are of powers of two."""

    @staticmethod
    def forward(ctx, start_BND, A_ND, u, step, B, C):
        rates_BND = (A_ND * math.log2(math.e)).expand(start_BND.shape)
        y_BLD, end_BND = torch.empty_like(u), start_BND.clone()
        borders_BMND = u.new_empty(len(u), -(-u.shape[1] // CHUNK), *A_ND.shape)
        _each(_forward, u, step, rates_BND, B, C, end_BND, borders_BMND, y_BLD)
        ctx.save_for_backward(rates_BND, u, step, B, C, borders_BMND)
        return y_BLD, end_BND

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_BLD, later_BND):
        rates_BND, u, step, B, C, borders_BMND = ctx.saved_tensors
        grads = grad_BLD.contiguous(), later_BND.clone(memory_format=torch.contiguous_format)
        of_A, of_u, of_step = u.new_zeros(rates_BND.shape), torch.empty_like(u), torch.empty_like(u)
        of_B, of_C = B.new_empty(2, len(u), -(-u.shape[2] // GROUP), *B.shape[1:])
        _each(_backward, u, step, rates_BND, B, C, borders_BMND, *grads, of_A, of_u, of_step, of_B, of_C)
        return grads[1], of_A.sum(0), of_u, of_step, of_B.sum(1), of_C.sum(1)


def _each(kernel, u_BLD: Tensor, *more: Tensor) -> None:
    """Call a kernel for every sequence and group of channels, on as many threads as torch has."""
    arrays = [one.numpy() for one in (u_BLD, *more)]
    tasks = [(row, group) for row in range(len(u_BLD)) for group in range(-(-u_BLD.shape[2] // GROUP))]
    threads = min(torch.get_num_threads(), len(tasks))

    def one(task: tuple[int, int]) -> None:
        kernel(task[1], *(array[task[0]] for array in arrays))

    if threads < 2:
        for task in tasks:
            one(task)
        return
    with ThreadPoolExecutor(threads) as pool:  # threads of numba would change how many torch has
        list(pool.map(one, tasks))


def _power(x):
    """Two to the x."""


@overload(_power, jit_options={"fastmath": {"contract"}})
def _power_of(x):
    if x != types.float32:
        return lambda x: np.exp2(x)
    c0, c1, c2, c3, c4, c5 = (np.float32(c) for c in POWERS)
    least, most, shift, bits = np.float32(-126), np.float32(126), np.float32(1.5 * 2**23), np.int32(23)

    def single(x):
        x = min(max(x, least), most)
        near = np.float32(x + shift)  # the nearest whole number is in its last bits
        r = x - (near - shift)
        part = np.float32(c0 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * c5)))))
        return np.int32(part.view(np.int32) + (near.view(np.int32) << bits)).view(np.float32)

    return single


# What is not finite has to stay so: not all of fastmath. Rows of one array instead of several arrays: a loop over few
# arrays is turned into one over vectors, one over many is not, since all would have to be held against each other.
_compiled = njit(cache=True, nogil=True, fastmath={"contract"})


@_compiled
def _forward(group, u, step, rates, B, C, end, borders, y):
    states, channels = rates.shape
    of_N, of_t = np.empty((states, 2, LANES), u.dtype), np.empty((3, LANES), u.dtype)
    for lane in range(group * GROUP, min((group + 1) * GROUP, channels), LANES):
        for n in range(states):
            for v in range(LANES):
                of_N[n, STATE, v], of_N[n, RATE, v] = end[n, lane + v], rates[n, lane + v]
        for t in range(len(u)):
            if t % CHUNK == 0:
                for n in range(states):
                    for v in range(LANES):
                        borders[t // CHUNK, n, lane + v] = of_N[n, STATE, v]
            for v in range(LANES):
                of_t[STEP, v], of_t[ADDED, v], of_t[SAID, v] = step[t, lane + v], step[t, lane + v] * u[t, lane + v], 0
            for n in range(states):
                into, out = B[t, n], C[t, n]
                for v in range(LANES):
                    state = _power(of_t[STEP, v] * of_N[n, RATE, v]) * of_N[n, STATE, v] + of_t[ADDED, v] * into
                    of_N[n, STATE, v] = state
                    of_t[SAID, v] += out * state
            for v in range(LANES):
                y[t, lane + v] = of_t[SAID, v]
        for n in range(states):
            for v in range(LANES):
                end[n, lane + v] = of_N[n, STATE, v]


@_compiled
def _backward(group, u, step, rates, B, C, borders, grad, asked, of_A, of_u, of_step, of_B, of_C):
    states, channels = rates.shape
    of_N, kept_KN = np.empty((states, 4, LANES), u.dtype), np.empty((CHUNK, states, 4, LANES), u.dtype)
    for m in range(len(borders) - 1, -1, -1):
        at = slice(m * CHUNK, min((m + 1) * CHUNK, len(u)))
        kept_KN[:, :, OF_B:] = 0
        for lane in range(group * GROUP, min((group + 1) * GROUP, channels), LANES):
            lanes = slice(lane, lane + LANES)
            for n in range(states):
                for v in range(LANES):
                    of_N[n, STATE, v], of_N[n, RATE, v] = borders[m, n, lane + v], rates[n, lane + v]
                    of_N[n, ASKED, v], of_N[n, OF_RATE, v] = asked[n, lane + v], of_A[n, lane + v]
            own_u, own_step, own_grad = u[at, lanes], step[at, lanes], grad[at, lanes]
            _again(of_N, kept_KN, own_u, own_step, B[at], own_grad)
            _back(of_N, kept_KN, own_u, own_step, B[at], C[at], own_grad, of_u[at, lanes], of_step[at, lanes])
            for n in range(states):
                for v in range(LANES):
                    asked[n, lane + v], of_A[n, lane + v] = of_N[n, ASKED, v], of_N[n, OF_RATE, v]
        for k in range(at.stop - at.start):
            for n in range(states):
                of_B[group, at.start + k, n] = _total(kept_KN[k, n, OF_B])
                of_C[group, at.start + k, n] = _total(kept_KN[k, n, OF_C])


@njit(inline="always")
def _again(of_N, kept_KN, u, step, B, grad):
    """States of a chunk once more: what is kept of each, and what is asked of C."""
    of_t = np.empty((3, LANES), u.dtype)
    for t in range(len(u)):
        for v in range(LANES):
            of_t[STEP, v], of_t[ADDED, v], of_t[SAID, v] = step[t, v], step[t, v] * u[t, v], grad[t, v]
        for n in range(len(of_N)):
            into = B[t, n]
            for v in range(LANES):
                decay = _power(of_t[STEP, v] * of_N[n, RATE, v])
                decayed = decay * of_N[n, STATE, v]
                state = decayed + of_t[ADDED, v] * into
                of_N[n, STATE, v] = state
                kept_KN[t, n, DECAY, v], kept_KN[t, n, DECAYED, v] = decay, decayed
                kept_KN[t, n, OF_C, v] += of_t[SAID, v] * state


@njit(inline="always")
def _back(of_N, kept_KN, u, step, B, C, grad, of_u, of_step):
    """From the end of a chunk: what all that follows asks of each state, and of what made it."""
    of_t, scale = np.empty((5, LANES), u.dtype), u.dtype.type(math.log(2))
    for t in range(len(u) - 1, -1, -1):
        for v in range(LANES):
            of_t[STEP, v], of_t[ADDED, v], of_t[SAID, v] = step[t, v], step[t, v] * u[t, v], grad[t, v]
            of_t[OF_ADDED, v], of_t[OF_STEP, v] = 0, 0
        for n in range(len(of_N)):
            into, out = B[t, n], C[t, n]
            for v in range(LANES):
                ask = of_N[n, ASKED, v] + out * of_t[SAID, v]
                kept_KN[t, n, OF_B, v] += ask * of_t[ADDED, v]
                of_t[OF_ADDED, v] += ask * into
                of_N[n, ASKED, v] = ask * kept_KN[t, n, DECAY, v]
                rate = ask * kept_KN[t, n, DECAYED, v]
                of_t[OF_STEP, v] += rate * of_N[n, RATE, v]
                of_N[n, OF_RATE, v] += rate * of_t[STEP, v]
        for v in range(LANES):
            of_u[t, v] = of_t[OF_ADDED, v] * step[t, v]
            of_step[t, v] = of_t[OF_ADDED, v] * u[t, v] + of_t[OF_STEP, v] * scale


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _total(row):
    total = row[0]
    for v in range(1, LANES):
        total += row[v]
    return total
