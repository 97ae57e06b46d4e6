"""The backward of the scan as Triton kernels, for CUDA.

The formulas are those of `gemm_backward.py`, and so are the names: g is the gradient of y, later
and to_end are parts of that of u = dt x. Sums and scores are computed again. Each kernel owns what
it writes: no atomics, so that a gradient is the same at each run.

Suffixes as in `gemm.py`; the conventions of the kernels as in `triton.py`.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.ssd import gemm_backward
from sparsetorch_kernels.ssd.gemm import Arguments
from sparsetorch_kernels.ssd.gemm_backward import Gradients
from sparsetorch_kernels.ssd.triton import (
    Launch,
    carry,
    decay,
    device,
    dot,
    load_tile,
    store_tile,
    to_end,
)


@triton.jit
def pass_back_kernel(
    grads, states, final, first, kept, sums, seq, batch, length, heads, chunks, elements,
    HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From the gradient of the state before each chunk by its own outputs, that of the one after.

    grads (M, B, H, elements) is overwritten. first (B, H, elements) is the gradient of the state
    before all, kept (B, M, H, blocks) the parts of exp(s_e) H . G'.
    """
    blocks = tl.cdiv(elements, BLOCK)
    block = tl.program_id(0).to(tl.int64) % blocks
    program = tl.program_id(0).to(tl.int64) // blocks  # b heads + h
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < elements
    after = tl.load(final + program * elements + at, mask=inside, other=0.0).to(tl.float32)
    b, h = program // heads, program % heads
    row, start = program + (chunks - 1) * batch * heads, program * 0 + (chunks - 1) * SIZE
    for i in range(0, chunks):
        size = tl.minimum(SIZE, length - start)
        own = tl.load(grads + row * elements + at, mask=inside, other=0.0)
        before = tl.load(states + row * elements + at, mask=inside, other=0.0)
        tl.store(grads + row * elements + at, after, mask=inside)
        end = size - 1 + tl.arange(0, 1)
        place = (b * chunks + chunks - 1 - i) * heads + h
        s_e = tl.load(sums + place * SIZE + end)
        factor = carry(s_e, seq + b * length + start, end, size, start, HAS_SEQ)
        inner = tl.sum(before * after, axis=0)
        tl.store(kept + place * blocks + block + tl.arange(0, 1), factor * inner)
        after = after * factor + own
        row, start = row - batch * heads, start - SIZE
    tl.store(first + program * elements + at, after, mask=inside)


@triton.jit
def power_of_two(x):
    """The largest power of two up to x, a float32 of zero or more; 0 below normal numbers."""
    return (x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)


@triton.jit
def inputs_kernel(
    g, x, dt, B, D, scores, sums, seq, grads, decayed, grad_x, dots,
    batch, length, heads, chunks, head_dim, state, ratio, positions, x_batch, x_row, B_batch, B_row,
    HAS_D: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of x at BLOCK_Q positions k of a head, and four products of each position:

    g . decayed - u . later, u . to_end, x . (gradient of u), g . x.
    """
    blocks = tl.cdiv(SIZE, BLOCK_Q)
    program = tl.program_id(0).to(tl.int64)
    k_block = program % blocks
    program = program // blocks
    h, m, b = program % heads, program // heads % chunks, program // heads // chunks
    group, start = h // ratio, m * SIZE
    size = tl.minimum(SIZE, length - start)
    k, p = k_block * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_P)
    s, here = sums + program * SIZE, seq + b * length + start
    own = scores + ((b * chunks + m) * (heads // ratio) + group) * SIZE * SIZE
    at = (b * length + start) * heads * head_dim + h * head_dim
    row = heads * head_dim
    after = grads + ((m * batch + b) * heads + h) * head_dim * state
    end = tl.zeros([BLOCK_Q, BLOCK_P], dtype=tl.float32)
    for first in range(0, state, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        keys = load_tile(B + b * B_batch + start * B_row + group * state, k, size, B_row, n, state)
        rows = load_tile(after, p, head_dim, state, n, state)
        end += dot(keys, tl.trans(rows), ROUND, DOT, PRECISION)
    s_k = tl.load(s + k, mask=k < size, other=0.0)
    end *= to_end(s_k, tl.load(s + size - 1), here, k, size, HAS_SEQ)[:, None]
    steps = dt + (b * length + start + k) * heads + h
    dt_k = tl.load(steps, mask=k < size, other=0.0).to(tl.float32)
    power = power_of_two(dt_k)
    rest = tl.where(power > 0.0, dt_k, 1.0) / tl.where(power > 0.0, power, 1.0)
    later = tl.zeros([BLOCK_Q, BLOCK_P], dtype=tl.float32)  # times rest, as it is added up
    for q_block in range(k_block, blocks):
        q = q_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        weight = decay(s, here, q, k, size, True, HAS_SEQ)
        cb = load_tile(own, q, size, SIZE, k, size)
        # Rounded as in `outputs_kernel`: its sums and these cancel, up to what few steps leave.
        weight = tl.where(q[:, None] > k[None, :], cb * weight * rest[None, :], 0.0)
        later += dot(
            tl.trans(weight), load_tile(g + at, q, size, row, p, head_dim), ROUND, DOT, PRECISION
        )
    g_k = load_tile(g + at, k, size, row, p, head_dim).to(tl.float32)
    inputs = x + b * x_batch + start * x_row + h * head_dim
    x_k = load_tile(inputs, k, size, x_row, p, head_dim).to(tl.float32)
    scores_k = tl.load(own + k * SIZE + k, mask=k < size, other=0.0)
    passed = -power * tl.sum(x_k * later, axis=1)
    grad_u = later / rest[:, None] + end + g_k * scores_k[:, None]
    result = grad_u * dt_k[:, None]
    if HAS_D:
        result += g_k * tl.load(D + h).to(tl.float32)
    store_tile(grad_x + at, result, k, size, row, p, head_dim)
    passed += tl.sum(g_k * load_tile(decayed + at, k, size, row, p, head_dim), axis=1)
    to = dots + program * SIZE + k
    tl.store(to, passed, mask=k < SIZE)
    tl.store(to + positions, dt_k * tl.sum(x_k * end, axis=1), mask=k < SIZE)
    tl.store(to + 2 * positions, tl.sum(x_k * grad_u, axis=1), mask=k < SIZE)
    tl.store(to + 3 * positions, tl.sum(x_k * g_k, axis=1), mask=k < SIZE)


@triton.jit
def grad_scores_kernel(
    g, x, dt, sums, seq, out, length, heads, chunks, head_dim, ratio, x_batch, x_row,
    HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[b, m, g, q, k] = the sum over the group's heads of exp(s_q - s_k) g_q . u_k, k <= q."""
    blocks = tl.cdiv(SIZE, BLOCK_Q)
    program = tl.program_id(0).to(tl.int64)
    k_block, q_block = program % blocks, program // blocks % blocks
    program = program // (blocks * blocks)
    groups = heads // ratio
    group, m, b = program % groups, program // groups % chunks, program // groups // chunks
    start = m * SIZE
    size = tl.minimum(SIZE, length - start)
    q = q_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    k = k_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
    p = tl.arange(0, BLOCK_P)
    total = tl.zeros([BLOCK_Q, BLOCK_Q], dtype=tl.float32)
    if k_block <= q_block:
        for i in range(0, ratio):
            h = group * ratio + i
            at = (b * length + start) * heads + h
            g_q = load_tile(g + at * head_dim, q, size, heads * head_dim, p, head_dim)
            inputs = x + b * x_batch + start * x_row + h * head_dim
            x_k = load_tile(inputs, k, size, x_row, p, head_dim)
            dt_k = tl.load(dt + at + k * heads, mask=k < size, other=0.0).to(tl.float32)
            s = sums + ((b * chunks + m) * heads + h) * SIZE
            weight = decay(s, seq + b * length + start, q, k, size, False, HAS_SEQ)
            product = dot(g_q, tl.trans(x_k), ROUND, DOT, PRECISION)
            total += product * weight * dt_k[None, :]
    store_tile(out + program * SIZE * SIZE, total, q, SIZE, SIZE, k, SIZE)


@triton.jit
def grad_groups_kernel(
    grad_scores, other, v, dt, states, sums, seq, out,
    batch, length, heads, chunks, head_dim, state, ratio, other_batch, other_row, v_batch, v_row,
    READ: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of C if READ, of B else, at BLOCK_Q positions of a group.

    That of C_q is the sum over k of grad_scores[q, k] B_k and of exp(s_q) g_q H over the heads;
    that of B_k the sum over q of grad_scores[q, k] C_q and of exp(s_e - s_k) u_k G'.
    """
    blocks, blocks_n = tl.cdiv(SIZE, BLOCK_Q), tl.cdiv(state, BLOCK_N)
    program = tl.program_id(0).to(tl.int64)
    n = (program % blocks_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    block = program // blocks_n % blocks
    program = program // (blocks_n * blocks)
    groups = heads // ratio
    group, m, b = program % groups, program // groups % chunks, program // groups // chunks
    start = m * SIZE
    size = tl.minimum(SIZE, length - start)
    q, p = block * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_P)
    here = seq + b * length + start
    total = tl.zeros([BLOCK_Q, BLOCK_N], dtype=tl.float32)
    tile = grad_scores + program * SIZE * SIZE
    rows = other + b * other_batch + start * other_row + group * state
    for i in range(0, blocks):
        k = i * BLOCK_Q + tl.arange(0, BLOCK_Q)
        if READ:
            weight = load_tile(tile, q, size, SIZE, k, size)
        else:
            weight = tl.trans(load_tile(tile, k, size, SIZE, q, size))
        total += dot(weight, load_tile(rows, k, size, other_row, n, state), ROUND, DOT, PRECISION)
    for i in range(0, ratio):
        h = group * ratio + i
        s = sums + ((b * chunks + m) * heads + h) * SIZE
        s_q = tl.load(s + q, mask=q < size, other=0.0)
        if READ:
            factor = carry(s_q, here, q, size, start, HAS_SEQ)
        else:
            factor = to_end(s_q, tl.load(s + size - 1), here, q, size, HAS_SEQ)
            steps = dt + (b * length + start + q) * heads + h
            factor *= tl.load(steps, mask=q < size, other=0.0).to(tl.float32)
        left = load_tile(
            v + b * v_batch + start * v_row + h * head_dim, q, size, v_row, p, head_dim
        )
        left = left.to(tl.float32) * factor[:, None]
        right = states + ((m * batch + b) * heads + h) * head_dim * state
        total += dot(
            left, load_tile(right, p, head_dim, state, n, state), ROUND, DOT, PRECISION
        )  # fmt: skip
    to = out + (b * length + start) * groups * state + group * state
    store_tile(to, total, q, size, groups * state, n, state)


@triton.jit
def grad_decay_kernel(
    dots, kept, dt, A, seq, grad_dt, grad_A, length, heads, chunks, positions, kept_blocks,
    HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """The gradient of dt at the positions of a chunk, and its part of that of A."""
    program = tl.program_id(0).to(tl.int64)
    h, m, b = program % heads, program // heads % chunks, program // heads // chunks
    start = m * SIZE
    size = tl.minimum(SIZE, length - start)
    q = tl.arange(0, BLOCK_Q)
    here = seq + b * length + start
    passed = tl.load(dots + program * SIZE + q, mask=q < size, other=0.0)
    crossing = tl.load(dots + positions + program * SIZE + q, mask=q < size, other=0.0)
    whole = tl.zeros([1], dtype=tl.float32)
    for i in range(0, kept_blocks):
        whole += tl.load(kept + program * kept_blocks + i + tl.arange(0, 1))
    rate = tl.load(A + h).to(tl.float32)
    grad_rate = tl.zeros([1], dtype=tl.float32)
    for first in range(0, SIZE, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        from_j = q[:, None] >= j[None, :]
        if HAS_SEQ:
            seq_q = tl.load(here + q, mask=q < size, other=0)
            seq_j = tl.load(here + j, mask=j < size, other=0)
            from_j = from_j & (seq_q[:, None] == seq_j[None, :])
        grad_a = tl.sum(tl.where(from_j, passed[:, None], 0.0), axis=0) + whole
        grad_a += tl.sum(tl.where(q[:, None] < j[None, :], crossing[:, None], 0.0), axis=0)
        place = (b * length + start + j) * heads + h
        dt_j = tl.load(dt + place, mask=j < size, other=0.0).to(tl.float32)
        own = tl.load(dots + 2 * positions + program * SIZE + j, mask=j < size, other=0.0)
        tl.store(grad_dt + place, own + grad_a * rate, mask=j < size)
        grad_rate += tl.sum(grad_a * dt_j, axis=0)
    tl.store(grad_A + program + tl.arange(0, 1), grad_rate)


def backward(
    arguments: Arguments,
    decayed: Tensor,
    states: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor,
    chunk_size: int,
) -> Gradients:
    """See `gemm_backward.backward`; of the states, the first alone has been kept."""
    if arguments.x_BLHP.numel() == 0 or arguments.B_BLGN.numel() == 0:
        return gemm_backward.backward(
            arguments, decayed, states, grad_y, grad_final_state, chunk_size
        )
    grads = Gradients(arguments, grad_final_state, states.dtype)
    with device(grad_y):
        _Backward(arguments, decayed, states, grad_y.contiguous(), grads, chunk_size).run()
    return grads


class _Backward(Launch):
    """The kernels of a backward, one after another."""

    def __init__(self, arguments, decayed, first, grad_y, grads: Gradients, chunk_size: int):
        super().__init__(arguments, chunk_size)
        self.decayed, self.g, self.grads = decayed, grad_y, grads
        self.sums_BMHQ = self.sums()
        self.states_MBHPN, _ = self.states(first, self.sums_BMHQ)
        self.after_MBHPN = self.outer(self.g, self.C, self.sums_BMHQ, read=True)
        self.dots_4BMHQ = self.new(4, *self.sums_BMHQ.shape)

    def run(self) -> None:
        """Fill in the gradients."""
        kept = self._pass_back()
        self._inputs()
        self._groups()
        self._decays(kept)
        if self.has_D:
            self.grads.D_H += self.dots_4BMHQ[3].sum((0, 1, 3))

    def _pass_back(self) -> Tensor:
        elements, block = self.head_dim * self.state, 512
        blocks = triton.cdiv(elements, block)
        kept = self.new(self.batch, self.chunks, self.heads, blocks)
        first = torch.empty_like(self.grads.state_BHPN)
        pass_back_kernel[(self.batch * self.heads * blocks,)](
            self.after_MBHPN, self.states_MBHPN, self.grads.state_BHPN, first, kept,
            self.sums_BMHQ, self.seq, self.batch, self.length, self.heads, self.chunks, elements,
            HAS_SEQ=self.has_seq, SIZE=self.size, BLOCK=block,
        )  # fmt: skip
        self.grads.state_BHPN = first
        return kept

    def _inputs(self) -> None:
        options: dict[str, Any] = {"num_warps": 8}  # with 4, registers would spill
        inputs_kernel[(self.batch * self.chunks * self.heads * self.blocks,)](
            self.g, self.x, self.dt, self.B, self.D, self.scores(), self.sums_BMHQ, self.seq,
            self.after_MBHPN, self.decayed, self.grads.x_BLHP, self.dots_4BMHQ,
            self.batch, self.length, self.heads, self.chunks, self.head_dim, self.state,
            self.ratio, self.sums_BMHQ.numel(), *self.x.stride()[:2], *self.B.stride()[:2],
            HAS_D=self.has_D, HAS_SEQ=self.has_seq, BLOCK_P=self.block_p, BLOCK_N=self.block_n,
            **self.chunk, **self.dot, **options,
        )  # fmt: skip

    def _groups(self) -> None:
        grad_scores = self.new(self.batch, self.chunks, self.groups, self.size, self.size)
        programs = self.batch * self.chunks * self.groups * self.blocks
        grad_scores_kernel[(programs * self.blocks,)](
            self.g, self.x, self.dt, self.sums_BMHQ, self.seq, grad_scores, self.length,
            self.heads, self.chunks, self.head_dim, self.ratio, *self.x.stride()[:2],
            HAS_SEQ=self.has_seq, BLOCK_P=self.block_p, **self.chunk, **self.dot,
        )  # fmt: skip
        for read, other, v, states, out in (
            (True, self.B, self.g, self.states_MBHPN, self.grads.C_BLGN),
            (False, self.C, self.x, self.after_MBHPN, self.grads.B_BLGN),
        ):
            grad_groups_kernel[(programs * triton.cdiv(self.state, self.block_n),)](
                grad_scores, other, v, self.dt, states, self.sums_BMHQ, self.seq, out,
                self.batch, self.length, self.heads, self.chunks, self.head_dim, self.state,
                self.ratio, *other.stride()[:2], *v.stride()[:2],
                READ=read, HAS_SEQ=self.has_seq, BLOCK_P=self.block_p, BLOCK_N=self.block_n,
                **self.chunk, **self.dot,
            )  # fmt: skip

    def _decays(self, kept: Tensor) -> None:
        grad_A = self.new(self.batch, self.chunks, self.heads)
        block = triton.next_power_of_2(self.size)
        grad_decay_kernel[(grad_A.numel(),)](
            self.dots_4BMHQ, kept, self.dt, self.A, self.seq, self.grads.dt_BLH, grad_A,
            self.length, self.heads, self.chunks, self.sums_BMHQ.numel(), kept.shape[-1],
            HAS_SEQ=self.has_seq, SIZE=self.size, BLOCK_Q=block, BLOCK_J=min(block, 32),
        )  # fmt: skip
        self.grads.A_H += grad_A.sum((0, 1))
