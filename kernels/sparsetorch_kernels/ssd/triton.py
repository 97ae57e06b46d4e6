"""The forward of the scan as Triton kernels, for CUDA; the backward is in `triton_backward.py`.

The formulas are those of `gemm.py`, chunk by chunk: sums of a = dt A; scores C B^T, once per group;
what a chunk adds to the state; the states, passed on from chunk to chunk; the outputs. Products of
bfloat16 matrices are made in bfloat16, of float16 matrices in TF32, which has their precision and
the range of float32, and of float32 matrices in float32; all are added up in float32.

Suffixes as in `gemm.py`. In the kernels, `size` is the number of positions of the chunk at hand:
the last one may be shorter than SIZE. Offsets are int64: they leave int32 before a batch of long
sequences fills a GPU.

Import this module only where Triton is installed. With `TRITON_INTERPRET=1` in the environment
before the first import of Triton, the kernels run on CPU tensors, which is how they are tested
without a GPU.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false
import contextlib
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.ssd import gemm
from sparsetorch_kernels.ssd.gemm import Arguments

LONGEST_BLOCK = 64  # positions, or elements of a state's rows, in a tile

# Triton's interpreter multiplies the bits of bfloat16.
_MULTIPLIED = tl.float32 if os.environ.get("TRITON_INTERPRET") == "1" else tl.bfloat16
DOTS: dict[torch.dtype, dict[str, Any]] = {
    torch.bfloat16: {"ROUND": tl.bfloat16, "DOT": _MULTIPLIED, "PRECISION": "ieee"},
    torch.float16: {"ROUND": tl.float32, "DOT": tl.float32, "PRECISION": "tf32"},
    torch.float32: {"ROUND": tl.float32, "DOT": tl.float32, "PRECISION": "ieee"},
}


@triton.jit
def load_tile(pointer, row, rows, row_step, column, columns):
    """The elements [row, column] of a matrix of rows x columns, 0 outside."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(pointer + row[:, None] * row_step + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_tile(pointer, value, row, rows, row_step, column, columns):
    """Write the elements [row, column] of a matrix of rows x columns."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(pointer + row[:, None] * row_step + column[None, :], value, mask=inside)


@triton.jit
def dot(a, b, ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """a b, of operands rounded to ROUND and multiplied as DOT, added up in float32."""
    return tl.dot(a.to(ROUND).to(DOT), b.to(ROUND).to(DOT), input_precision=PRECISION)


@triton.jit
def carry(s_q, seq, q, size, start, HAS_SEQ: tl.constexpr):
    """exp(s_q) where the document of q began before the chunk, else 0. seq: of the chunk."""
    kept = tl.exp(s_q)
    if HAS_SEQ:
        earlier = tl.load(seq - tl.where(start > 0, 1, 0))
        same = tl.load(seq + q, mask=q < size, other=0) == earlier
        kept = tl.where(same, kept, 0.0)
    return tl.where(q < size, kept, 0.0)


@triton.jit
def to_end(s_q, s_e, seq, q, size, HAS_SEQ: tl.constexpr):
    """exp(s_e - s_q) where q is in the document of the chunk's last position e, else 0."""
    kept = tl.exp(s_e - s_q)
    if HAS_SEQ:
        same = tl.load(seq + q, mask=q < size, other=0) == tl.load(seq + size - 1)
        kept = tl.where(same, kept, 0.0)
    return tl.where(q < size, kept, 0.0)


@triton.jit
def decay(s, seq, q, k, size, STRICT: tl.constexpr, HAS_SEQ: tl.constexpr):
    """exp(s_q - s_k) for k < q, or k <= q, in one document, else 0; s: the chunk's sums."""
    s_q = tl.load(s + q, mask=q < size, other=0.0)
    s_k = tl.load(s + k, mask=k < size, other=0.0)
    both = (q[:, None] > k[None, :]) if STRICT else (q[:, None] >= k[None, :])
    both = both & (q < size)[:, None]
    if HAS_SEQ:
        seq_q = tl.load(seq + q, mask=q < size, other=0)
        seq_k = tl.load(seq + k, mask=k < size, other=0)
        both = both & (seq_q[:, None] == seq_k[None, :])
    # Masked before exp, which would overflow above the diagonal
    return tl.exp(tl.where(both, s_q[:, None] - s_k[None, :], float("-inf")))


@triton.jit
def sums_kernel(
    dt, A, sums, length, heads, chunks,
    SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """sums[b, m, h, q] = the sum of dt A over the chunk's positions up to q."""
    blocks = tl.cdiv(heads, BLOCK_H)
    chunk = tl.program_id(0).to(tl.int64) // blocks  # of all batches
    h = (tl.program_id(0) % blocks) * BLOCK_H + tl.arange(0, BLOCK_H)
    start = (chunk % chunks) * SIZE
    q = tl.arange(0, BLOCK_Q)
    rows = dt + ((chunk // chunks) * length + start) * heads
    steps = load_tile(rows, q, tl.minimum(SIZE, length - start), heads, h, heads).to(tl.float32)
    rates = tl.load(A + h, mask=h < heads, other=0.0).to(tl.float32)
    total = tl.trans(tl.cumsum(steps * rates[None, :], axis=0))
    store_tile(sums + chunk * heads * SIZE, total, h, heads, SIZE, q, SIZE)


@triton.jit
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


@triton.jit
def outer_kernel(
    v, w, dt, sums, seq, out, batch, length, heads, chunks, head_dim, state, ratio,
    v_batch, v_row, w_batch, w_row,
    READ: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK_Q: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out[m, b, h] = the sum over the chunk of weight_q v_q w_q^T, (head_dim, state).

    The weight is dt_q exp(s_e - s_q), by which x and B add to the state, or if READ exp(s_q), by
    which C reads it: the gradient of y and C then give that of the state.
    """
    blocks_n = tl.cdiv(state, BLOCK_N)
    program = tl.program_id(0).to(tl.int64)
    n = (program % blocks_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    program = program // blocks_n
    h, b, m = program % heads, program // heads % batch, program // heads // batch
    start = m * SIZE
    size = tl.minimum(SIZE, length - start)
    p = tl.arange(0, BLOCK_P)
    s = sums + ((b * chunks + m) * heads + h) * SIZE
    s_e = tl.load(s + size - 1)
    here = seq + b * length + start
    total = tl.zeros([BLOCK_P, BLOCK_N], dtype=tl.float32)
    for first in range(0, SIZE, BLOCK_Q):
        q = first + tl.arange(0, BLOCK_Q)
        s_q = tl.load(s + q, mask=q < size, other=0.0)
        if READ:
            weight = carry(s_q, here, q, size, start, HAS_SEQ)
        else:
            weight = to_end(s_q, s_e, here, q, size, HAS_SEQ)
            steps = dt + (b * length + start + q) * heads + h
            weight *= tl.load(steps, mask=q < size, other=0.0).to(tl.float32)
        rows = load_tile(
            v + b * v_batch + start * v_row + h * head_dim, q, size, v_row, p, head_dim
        )
        right = w + b * w_batch + start * w_row + (h // ratio) * state
        columns = load_tile(right, q, size, w_row, n, state).to(tl.float32) * weight[:, None]
        total += dot(tl.trans(rows), columns, ROUND, DOT, PRECISION)
    store_tile(out + program * head_dim * state, total, p, head_dim, state, n, state)


@triton.jit
def pass_kernel(
    states, first, final, sums, seq, batch, length, heads, chunks, elements,
    HAS_SEQ: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What each chunk adds to the state becomes the state before it; and the state after all."""
    blocks = tl.cdiv(elements, BLOCK)
    program = tl.program_id(0).to(tl.int64)
    at = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    program = program // blocks  # b heads + h
    inside = at < elements
    state = tl.load(first + program * elements + at, mask=inside, other=0.0)
    b, h = program // heads, program % heads
    row, start = program, program * 0
    for m in range(0, chunks):
        size = tl.minimum(SIZE, length - start)
        added = tl.load(states + row * elements + at, mask=inside, other=0.0)
        tl.store(states + row * elements + at, state, mask=inside)
        end = size - 1 + tl.arange(0, 1)
        s_e = tl.load(sums + ((b * chunks + m) * heads + h) * SIZE + end)
        state = state * carry(s_e, seq + b * length + start, end, size, start, HAS_SEQ) + added
        row, start = row + batch * heads, start + SIZE
    tl.store(final + program * elements + at, state, mask=inside)


@triton.jit
def outputs_kernel(
    x, dt, C, D, scores, sums, seq, states, y, decayed,
    batch, length, heads, chunks, head_dim, state, ratio, x_batch, x_row, C_batch, C_row,
    KEEP: tl.constexpr, HAS_D: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y_q and decayed_q of BLOCK_Q positions of a head."""
    blocks = tl.cdiv(SIZE, BLOCK_Q)
    program = tl.program_id(0).to(tl.int64)
    q_block = program % blocks
    program = program // blocks
    h, m, b = program % heads, program // heads % chunks, program // heads // chunks
    g, start = h // ratio, m * SIZE
    size = tl.minimum(SIZE, length - start)
    q, p = q_block * BLOCK_Q + tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_P)
    s = sums + program * SIZE
    here = seq + b * length + start
    before = states + ((m * batch + b) * heads + h) * head_dim * state
    total = tl.zeros([BLOCK_Q, BLOCK_P], dtype=tl.float32)
    for first in range(0, state, BLOCK_N):
        n = first + tl.arange(0, BLOCK_N)
        c = load_tile(C + b * C_batch + start * C_row + g * state, q, size, C_row, n, state)
        rows = load_tile(before, p, head_dim, state, n, state)
        total += dot(c, tl.trans(rows), ROUND, DOT, PRECISION)
    s_q = tl.load(s + q, mask=q < size, other=0.0)
    total *= carry(s_q, here, q, size, start, HAS_SEQ)[:, None]
    own = scores + ((b * chunks + m) * (heads // ratio) + g) * SIZE * SIZE
    inputs = x + b * x_batch + start * x_row + h * head_dim
    steps = dt + (b * length + start) * heads + h
    for k_block in range(0, q_block + 1):
        k = k_block * BLOCK_Q + tl.arange(0, BLOCK_Q)
        dt_k = tl.load(steps + k * heads, mask=k < size, other=0.0).to(tl.float32)
        weight = decay(s, here, q, k, size, True, HAS_SEQ)
        cb = load_tile(own, q, size, SIZE, k, size)
        # Scores above the diagonal of a block are of no use, those above its diagonal not written.
        weight = tl.where(q[:, None] > k[None, :], cb * weight * dt_k[None, :], 0.0)
        x_k = load_tile(inputs, k, size, x_row, p, head_dim)
        total += dot(weight, x_k, ROUND, DOT, PRECISION)
    to = (b * length + start) * heads * head_dim + h * head_dim
    if KEEP:
        store_tile(decayed + to, total, q, size, heads * head_dim, p, head_dim)
    dt_q = tl.load(steps + q * heads, mask=q < size, other=0.0).to(tl.float32)
    skip = dt_q * tl.load(own + q * SIZE + q, mask=q < size, other=0.0)
    if HAS_D:
        skip += tl.load(D + h).to(tl.float32)
    total += skip[:, None] * load_tile(inputs, q, size, x_row, p, head_dim).to(tl.float32)
    store_tile(y + to, total, q, size, heads * head_dim, p, head_dim)


class Launch:
    """The sizes, strides and compile-time constants that all kernels of a scan share."""

    def __init__(self, arguments: Arguments, chunk_size: int):
        x, dt, A, B, C, D, seq_idx = arguments
        self.batch, self.length, self.heads, self.head_dim = x.shape
        self.groups, self.state = B.shape[2:]
        self.ratio = self.heads // self.groups
        self.chunks = triton.cdiv(self.length, chunk_size)
        self.x, self.B, self.C = map(_rows_apart, (x, B, C))
        self.dt, self.A = dt.contiguous(), A.contiguous()
        self.D = self.A if D is None else D.contiguous()  # stands in for what is not read
        self.seq = self.A if seq_idx is None else seq_idx.contiguous()
        self.has_D, self.has_seq = D is not None, seq_idx is not None
        self.size = chunk_size
        self.block_q = min(max(triton.next_power_of_2(chunk_size), 16), LONGEST_BLOCK)
        self.block_p = max(triton.next_power_of_2(self.head_dim), 16)
        # Products in full float32 take twice the registers.
        longest = LONGEST_BLOCK // 2 if x.dtype == torch.float32 else LONGEST_BLOCK
        self.block_n = max(min(triton.next_power_of_2(self.state), longest), 16)
        self.blocks = triton.cdiv(chunk_size, self.block_q)
        self.dot = DOTS[x.dtype]
        self.chunk: dict[str, Any] = {"SIZE": chunk_size, "BLOCK_Q": self.block_q}

    def new(self, *shape: int) -> Tensor:
        """Memory for sums."""
        return self.x.new_empty(shape, dtype=torch.float32)

    def sums(self) -> Tensor:
        """The sums of dt A within each chunk (B, M, H, SIZE)."""
        out = self.new(self.batch, self.chunks, self.heads, self.size)
        block = min(triton.next_power_of_2(self.heads), 16)
        sums_kernel[(self.batch * self.chunks * triton.cdiv(self.heads, block),)](
            self.dt, self.A, out, self.length, self.heads, self.chunks,
            SIZE=self.size, BLOCK_Q=triton.next_power_of_2(self.size), BLOCK_H=block,
        )  # fmt: skip
        return out

    def scores(self) -> Tensor:
        """C B^T within each chunk (B, M, G, SIZE, SIZE), on and below the diagonal."""
        out = self.new(self.batch, self.chunks, self.groups, self.size, self.size)
        scores_kernel[(self.batch * self.chunks * self.groups * self.blocks**2,)](
            self.B, self.C, out, self.length, self.groups, self.chunks, self.state,
            *self.B.stride()[:2], *self.C.stride()[:2],
            BLOCK_N=self.block_n, **self.chunk, **self.dot,
        )  # fmt: skip
        return out

    def outer(self, v: Tensor, w: Tensor, sums: Tensor, read: bool) -> Tensor:
        """The weighted products of v (B, L, H, P) and w (B, L, G, N) of each chunk."""
        out = self.new(self.chunks, self.batch, self.heads, self.head_dim, self.state)
        programs = self.chunks * self.batch * self.heads * triton.cdiv(self.state, self.block_n)
        outer_kernel[(programs,)](
            v, w, self.dt, sums, self.seq, out, self.batch, self.length, self.heads, self.chunks,
            self.head_dim, self.state, self.ratio, *v.stride()[:2], *w.stride()[:2],
            READ=read, HAS_SEQ=self.has_seq, BLOCK_P=self.block_p, BLOCK_N=self.block_n,
            **self.chunk, **self.dot,
        )  # fmt: skip
        return out

    def states(self, first: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """The state before each chunk (M, B, H, P, N) and the one after all, from the first."""
        states = self.outer(self.x, self.B, sums, read=False)
        final, elements, block = torch.empty_like(first[0]), self.head_dim * self.state, 512
        pass_kernel[(self.batch * self.heads * triton.cdiv(elements, block),)](
            states, first, final, sums, self.seq, self.batch, self.length, self.heads, self.chunks,
            elements, HAS_SEQ=self.has_seq, SIZE=self.size, BLOCK=block,
        )  # fmt: skip
        return states, final


def forward(
    arguments: Arguments, initial_state: Tensor | None, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `gemm.forward`; but of the states, the first alone is kept.

    All of them take several times the memory of x, and the backward makes them again in little
    time.
    """
    x, B = arguments.x_BLHP, arguments.B_BLGN
    if x.numel() == 0 or B.numel() == 0:
        return gemm.forward(arguments, initial_state, chunk_size, keep)
    launch = Launch(arguments, chunk_size)
    decayed = launch.new(*(x.shape if keep else (0,)))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    first = launch.new(1, launch.batch, launch.heads, launch.head_dim, launch.state)
    first.zero_() if initial_state is None else first.copy_(initial_state)
    with device(x):
        sums, scores = launch.sums(), launch.scores()
        states, final = launch.states(first, sums)
        outputs_kernel[(launch.batch * launch.chunks * launch.heads * launch.blocks,)](
            launch.x, launch.dt, launch.C, launch.D, scores, sums, launch.seq, states, y, decayed,
            launch.batch, launch.length, launch.heads, launch.chunks, launch.head_dim,
            launch.state, launch.ratio, *launch.x.stride()[:2], *launch.C.stride()[:2],
            KEEP=keep, HAS_D=launch.has_D, HAS_SEQ=launch.has_seq, BLOCK_P=launch.block_p,
            BLOCK_N=launch.block_n, **launch.chunk, **launch.dot,
        )  # fmt: skip
    return y, final, decayed, first if keep else first[:0]


def _rows_apart(t: Tensor) -> Tensor:
    """t (B, L, H, P) as it is if each of its rows (H, P) is contiguous, else a copy."""
    *_, heads, last = t.shape
    packed = t.stride(3) == 1 and (t.stride(2) == last or heads == 1)
    return t if packed else t.contiguous()


def device(t: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(t.device) if t.is_cuda else contextlib.nullcontext()
