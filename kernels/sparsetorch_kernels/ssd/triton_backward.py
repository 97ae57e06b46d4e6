"""The backward of the scan as Triton kernels, for CUDA.

The formulas are those of `gemm_backward.py`, and so are the names: g is the gradient of y, later
and to_end are parts of that of u = dt x. States, sums and scores are computed again. Each kernel
owns what it writes: no atomics, so that a gradient is the same at each run.

One thing is not as there. The sum over positions q >= j of g_q . decayed_q - u_q . later_q has each
pair of positions after j twice, with both signs. With P_qk = exp(s_q - s_k) (C_q . B_k) (g_q . u_k)
it is made of the sums of P's rows less those of its columns: the same numbers, which cancel where
products that were rounded differently would not; and nothing has to be kept by the forward.

Suffixes as in `gemm.py`; the conventions of the kernels as in `triton_states.py`.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.launch import on_device_of
from sparsetorch_kernels.ssd.gemm import Arguments
from sparsetorch_kernels.ssd.gemm_backward import Gradients
from sparsetorch_kernels.ssd.triton_states import RUN_TIME, Launch, power_of_two
from sparsetorch_kernels.ssd.triton_tiles import (
    carry,
    decay,
    dot,
    load_tile,
    store_tile,
    to_end,
)


class Blocks(NamedTuple):
    """A tile's positions and channels, and its part of a state's rows; warps of a program."""

    q: int
    p: int
    n: int
    warps: int


LONGEST_BLOCK = 64  # positions in a tile
# Of a state's rows, where heads have up to 64 channels; half as many where they have more
LONGEST_PART = {torch.bfloat16: 128, torch.float16: 64, torch.float32: 32}


@triton.jit(do_not_specialize=RUN_TIME)
def scores_kernel(
    B, C, scores, length, groups, chunks, state, B_batch, B_row, C_batch, C_row,
    SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """scores[b, m, g, q, k] = C_q . B_k, for the blocks on and below the diagonal."""
    blocks = tl.cdiv(SIZE, BLOCK_Q)
    program = tl.program_id(0).to(tl.int64)
    k_block, q_block = program % blocks, program // blocks % blocks
    program = program // (blocks * blocks)
    g, m, b = program % groups, program // groups % chunks, program // groups // chunks
    start = m * SIZE
    size = tl.minimum(SIZE, length - start)
    if k_block <= q_block:
        q = q_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        k = k_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        left = C + b * C_batch + start * C_row + g * state
        right = B + b * B_batch + start * B_row + g * state
        total = tl.zeros([BLOCK_Q, BLOCK_Q], dtype=tl.float32)
        for first in range(0, state, BLOCK_N):
            n = first + tl.arange(0, BLOCK_N)
            c = load_tile(left, q, size, C_row, n, state)
            rows = load_tile(right, k, size, B_row, n, state)
            total += dot(c, tl.trans(rows), ROUND, DOT, PRECISION)
        store_tile(scores + program * SIZE * SIZE, total, q, SIZE, SIZE, k, SIZE)


@triton.jit(do_not_specialize=RUN_TIME)
def inputs_kernel(
    g, x, dt, B, D, scores, sums, seq, grads, grad_x, dots,
    batch, length, heads, chunks, head_dim, state, ratio, positions, x_batch, x_row, B_batch, B_row,
    HAS_D: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of x at BLOCK_Q positions k of a head, and three products of each position:

    u . to_end, x . (gradient of u), g . x.
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
        rows = load_tile(after, n, state, head_dim, p, head_dim)
        end += dot(keys, rows, ROUND, DOT, PRECISION)
    s_k = tl.load(s + k, mask=k < size, other=0.0)
    end *= to_end(s_k, tl.load(s + size - 1), here, k, size, HAS_SEQ)[:, None]
    steps = dt + (b * length + start + k) * heads + h
    dt_k = tl.load(steps, mask=k < size, other=0.0).to(tl.float32)
    later = tl.zeros([BLOCK_Q, BLOCK_P], dtype=tl.float32)
    for q_block in range(k_block, blocks):
        q = q_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        weight = decay(s, here, q, k, size, True, HAS_SEQ)
        cb = load_tile(own, q, size, SIZE, k, size)
        weight = tl.where(q[:, None] > k[None, :], cb * weight, 0.0)
        g_q = load_tile(g + at, q, size, row, p, head_dim)
        later += dot(tl.trans(weight), g_q, ROUND, DOT, PRECISION)
    g_k = load_tile(g + at, k, size, row, p, head_dim).to(tl.float32)
    inputs = x + b * x_batch + start * x_row + h * head_dim
    x_k = load_tile(inputs, k, size, x_row, p, head_dim).to(tl.float32)
    scores_k = tl.load(own + k * SIZE + k, mask=k < size, other=0.0)
    grad_u = later + end + g_k * scores_k[:, None]
    result = grad_u * dt_k[:, None]
    if HAS_D:
        result += g_k * tl.load(D + h).to(tl.float32)
    store_tile(grad_x + at, result, k, size, row, p, head_dim)
    to, positions = dots + program * SIZE + k, tl.full([], positions, tl.int64)
    tl.store(to, dt_k * tl.sum(x_k * end, axis=1), mask=k < SIZE)
    tl.store(to + positions, tl.sum(x_k * grad_u, axis=1), mask=k < SIZE)
    tl.store(to + 2 * positions, tl.sum(x_k * g_k, axis=1), mask=k < SIZE)


@triton.jit(do_not_specialize=RUN_TIME)
def grad_scores_kernel(
    g, x, dt, scores, sums, seq, out, parts,
    length, heads, chunks, head_dim, ratio, positions, x_batch, x_row,
    HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[b, m, g, q, k] = the sum over the group's heads of exp(s_q - s_k) g_q . u_k, k <= q.

    For each head also parts[i, b, m, h, q], one for each block i: what the pairs of q and the
    block's positions add to the sums of P's rows less those of its columns.
    """
    blocks = tl.cdiv(SIZE, BLOCK_Q)
    positions = tl.full([], positions, tl.int64)
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
    if k_block <= q_block:
        total = tl.zeros([BLOCK_Q, BLOCK_Q], dtype=tl.float32)
        own = load_tile(scores + program * SIZE * SIZE, q, size, SIZE, k, size)
        own = tl.where(q[:, None] > k[None, :], own, 0.0)  # those above were not written
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
            product *= weight * dt_k[None, :]
            total += product
            pairs = own * product
            rows, columns = tl.sum(pairs, axis=1), tl.sum(pairs, axis=0)
            to = parts + ((b * chunks + m) * heads + h) * SIZE
            if k_block == q_block:
                tl.store(to + k_block * positions + q, rows - columns, mask=q < SIZE)
            else:
                tl.store(to + k_block * positions + q, rows, mask=q < SIZE)
                tl.store(to + q_block * positions + k, -columns, mask=k < SIZE)
        store_tile(out + program * SIZE * SIZE, total, q, SIZE, SIZE, k, SIZE)


@triton.jit(do_not_specialize=RUN_TIME)
def grad_groups_kernel(
    grad_scores, other, v, C, dt, states, sums, seq, out, parts,
    batch, length, heads, chunks, head_dim, state, ratio, positions,
    other_batch, other_row, v_batch, v_row, C_batch, C_row,
    READ: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradient of C if READ, of B else, at BLOCK_Q positions of a group.

    That of C_q is the sum over k of grad_scores[q, k] B_k and of exp(s_q) g_q H over the heads;
    that of B_k the sum over q of grad_scores[q, k] C_q and of exp(s_e - s_k) u_k G'. If READ, also
    parts[i, b, m, h, q]: exp(s_q) g_q . (H C_q), of the block i of the state's columns.
    """
    blocks, blocks_n = tl.cdiv(SIZE, BLOCK_Q), tl.cdiv(state, BLOCK_N)
    program = tl.program_id(0).to(tl.int64)
    block_n = program % blocks_n
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    block = (program // blocks_n % blocks).to(tl.int32)
    positions = tl.full([], positions, tl.int64)
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
    if READ:
        queries = load_tile(
            C + b * C_batch + start * C_row + group * state, q, size, C_row, n, state
        ).to(tl.float32)
    for i in range(0 if READ else block, block + 1 if READ else blocks):
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
        right = tl.trans(load_tile(right, n, state, head_dim, p, head_dim))
        product = dot(left, right, ROUND, DOT, PRECISION)
        total += product
        if READ:
            to = parts + block_n * positions + ((b * chunks + m) * heads + h) * SIZE + q
            tl.store(to, tl.sum(product * queries, axis=1), mask=q < SIZE)
    to = out + (b * length + start) * groups * state + group * state
    store_tile(to, total, q, size, groups * state, n, state)


@triton.jit(do_not_specialize=RUN_TIME)
def grad_decay_kernel(
    parts, dots, kept, dt, A, seq, grad_dt, grad_A,
    length, heads, chunks, positions, n_parts, kept_blocks,
    HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """The gradient of dt at the positions of a chunk, and its part of that of A."""
    program = tl.program_id(0).to(tl.int64)
    h, m, b = program % heads, program // heads % chunks, program // heads // chunks
    start = m * SIZE
    size = tl.minimum(SIZE, length - start)
    q = tl.arange(0, BLOCK_Q)
    here = seq + b * length + start
    positions = tl.full([], positions, tl.int64)
    passed = tl.zeros([BLOCK_Q], dtype=tl.float32)
    for i in range(0, n_parts):
        at = parts + i * positions + program * SIZE + q
        passed += tl.load(at, mask=q < size, other=0.0)
    crossing = tl.load(dots + program * SIZE + q, mask=q < size, other=0.0)
    whole = tl.zeros([1], dtype=tl.float32)
    for i in range(0, kept_blocks):
        whole += tl.load(kept + program * kept_blocks + i + tl.arange(0, 1))
    rate = tl.load(A + h).to(tl.float32)
    grad_rate = tl.zeros([1], dtype=tl.float32)
    for first in range(0, SIZE, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        later = passed[:, None]
        if HAS_SEQ:
            seq_q = tl.load(here + q, mask=q < size, other=0)
            seq_j = tl.load(here + j, mask=j < size, other=0)
            later = tl.where(seq_q[:, None] == seq_j[None, :], later, 0.0)
        terms = tl.where(q[:, None] >= j[None, :], later, crossing[:, None])
        grad_a = tl.sum(terms, axis=0) + whole
        place = (b * length + start + j) * heads + h
        dt_j = tl.load(dt + place, mask=j < size, other=0.0).to(tl.float32)
        own = tl.load(dots + positions + program * SIZE + j, mask=j < size, other=0.0)
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
    """See `gemm_backward.backward`; the first of the states has been kept alone, and no decayed."""
    grads = Gradients(arguments, grad_final_state, states.dtype)
    with on_device_of(grad_y):
        _Backward(arguments, grad_y.contiguous(), grads, chunk_size).run(states[0])
    return grads


class _Backward(Launch):
    """The kernels of a backward, one after another."""

    def __init__(self, arguments, grad_y: Tensor, grads: Gradients, chunk_size: int):
        super().__init__(arguments, chunk_size)
        self.g, self.grads = grad_y, grads
        self.tiles = blocks_for(self.dtype, chunk_size, self.head_dim, self.state)
        self.block_q, self.part_n = self.tiles.q, self.tiles.n
        self.blocks = triton.cdiv(chunk_size, self.block_q)
        self.blocks_n = triton.cdiv(self.state, self.part_n)
        self.chunk: dict[str, Any] = {
            "SIZE": chunk_size,
            "BLOCK_Q": self.block_q,
            "BLOCK_P": self.tiles.p,
        }

    def run(self, first: Tensor) -> None:
        """Fill in the gradients, from the first state on."""
        self.sums_BMHQ = self.sums()
        self.states_MBHNP, _, _ = self.follow(self.x, self.B, self.sums_BMHQ, first)
        self.after_MBHNP, self.grads.state_BHPN, self.kept_BMHI = self.follow(
            self.g, self.C, self.sums_BMHQ, self.grads.state_BHPN, self.states_MBHNP
        )
        self.scores_BMGQK = self._scores()
        self.dots_3BMHQ = self.new(3, *self.sums_BMHQ.shape)
        self.parts_IBMHQ = self.new(self.blocks + self.blocks_n, *self.sums_BMHQ.shape)
        self._inputs()
        self._groups()
        self._decays()
        if self.has_D:
            self.grads.D_H += self.dots_3BMHQ[2].sum((0, 1, 3))

    def _scores(self) -> Tensor:
        """C B^T within each chunk (B, M, G, SIZE, SIZE), on and below the diagonal."""
        out = self.new(self.batch, self.chunks, self.groups, self.size, self.size)
        scores_kernel[(self.batch * self.chunks * self.groups * self.blocks**2,)](
            self.B, self.C, out, self.length, self.groups, self.chunks, self.state,
            *self.B.stride()[:2], *self.C.stride()[:2],
            SIZE=self.size, BLOCK_Q=self.block_q, BLOCK_N=self.part_n, **self.dot,
        )  # fmt: skip
        return out

    def _inputs(self) -> None:
        options: dict[str, Any] = {"num_warps": self.tiles.warps}
        inputs_kernel[(self.batch * self.chunks * self.heads * self.blocks,)](
            self.g, self.x, self.dt, self.B, self.D, self.scores_BMGQK, self.sums_BMHQ, self.seq,
            self.after_MBHNP, self.grads.x_BLHP, self.dots_3BMHQ,
            self.batch, self.length, self.heads, self.chunks, self.head_dim, self.state,
            self.ratio, self.sums_BMHQ.numel(), *self.x.stride()[:2], *self.B.stride()[:2],
            HAS_D=self.has_D, HAS_SEQ=self.has_seq, BLOCK_N=self.part_n,
            **self.chunk, **self.dot, **options,
        )  # fmt: skip

    def _groups(self) -> None:
        grad_scores = self.new(self.batch, self.chunks, self.groups, self.size, self.size)
        programs = self.batch * self.chunks * self.groups * self.blocks
        positions = self.sums_BMHQ.numel()
        grad_scores_kernel[(programs * self.blocks,)](
            self.g, self.x, self.dt, self.scores_BMGQK, self.sums_BMHQ, self.seq, grad_scores,
            self.parts_IBMHQ, self.length, self.heads, self.chunks, self.head_dim, self.ratio,
            positions, *self.x.stride()[:2], HAS_SEQ=self.has_seq, **self.chunk, **self.dot,
        )  # fmt: skip
        for read, other, v, states, out in (
            (True, self.B, self.g, self.states_MBHNP, self.grads.C_BLGN),
            (False, self.C, self.x, self.after_MBHNP, self.grads.B_BLGN),
        ):
            grad_groups_kernel[(programs * self.blocks_n,)](
                grad_scores, other, v, self.C, self.dt, states, self.sums_BMHQ, self.seq, out,
                self.parts_IBMHQ[self.blocks :], self.batch, self.length, self.heads, self.chunks,
                self.head_dim, self.state, self.ratio, positions,
                *other.stride()[:2], *v.stride()[:2], *self.C.stride()[:2],
                READ=read, HAS_SEQ=self.has_seq, BLOCK_N=self.part_n, **self.chunk, **self.dot,
            )  # fmt: skip

    def _decays(self) -> None:
        grad_A = self.new(self.batch, self.chunks, self.heads)
        block = triton.next_power_of_2(self.size)
        grad_decay_kernel[(grad_A.numel(),)](
            self.parts_IBMHQ, self.dots_3BMHQ, self.kept_BMHI, self.dt, self.A, self.seq,
            self.grads.dt_BLH, grad_A, self.length, self.heads, self.chunks,
            self.sums_BMHQ.numel(), len(self.parts_IBMHQ), self.kept_BMHI.shape[-1],
            HAS_SEQ=self.has_seq, SIZE=self.size, BLOCK_Q=block, BLOCK_J=min(block, 32),
        )  # fmt: skip
        self.grads.A_H += grad_A.sum((0, 1))


def blocks_for(dtype: torch.dtype, size: int, head_dim: int, state: int) -> Blocks:
    """What fits chunks of a size, heads and states."""
    p = power_of_two(head_dim)
    wide = p > 64  # registers would spill, and memory be short
    longest = LONGEST_PART[dtype] // 2 if wide else LONGEST_PART[dtype]
    q = LONGEST_BLOCK // 2 if wide and dtype == torch.float32 else LONGEST_BLOCK
    q = min(power_of_two(size), max(q, 16))
    return Blocks(q, p, min(power_of_two(state), max(longest, 16)), 8 if wide else 4)
