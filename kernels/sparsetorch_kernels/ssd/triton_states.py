"""The states of the scan as Triton kernels, and what forward and backward share to launch them.

The state of a head is followed through the sequence, chunk by chunk, by a program that has it in
registers: it reaches memory only where it is asked for. So that there are programs enough for a
GPU, the sequence is cut into segments of several chunks. A first run finds what each segment adds
to the state, and the factor by which it keeps what was there; a second one begins each segment with
what `first` and the segments before it come to. Gradients of states take the same way backwards.

Suffixes as in `gemm.py`. In the kernels, `size` is the number of positions of the chunk at hand:
the last one may be shorter than SIZE. A state is (BLOCK_N, BLOCK_P), so that it is an operand of
the products without being transposed. Offsets of tiles are int64: they leave int32 before a batch
of long sequences fills a GPU.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.ssd.gemm import Arguments
from sparsetorch_kernels.ssd.triton_tiles import DOTS, carry, dot, load_tile, store_tile, to_end

LEAST = tl.constexpr(-110.0)  # exp of it is 0 in float32
PROGRAMS = 256  # aimed at in a run: two for each multiprocessor of an H100


class StateTiles(NamedTuple):
    """The largest blocks of positions and channels of a program that follows a state."""

    q: int
    p: int
    stages: int  # tiles loaded ahead


RUN_TIME = ("batch", "length", "chunks", "segments", "stride", "positions", "n_parts")
"""What changes with the length: kernels are not compiled again for some values of these."""

STATE_TILES = {
    torch.bfloat16: StateTiles(128, 64, 2),
    torch.float16: StateTiles(64, 32, 1),
    torch.float32: StateTiles(32, 16, 1),  # products in full float32 take more instructions
}


@triton.jit(do_not_specialize=RUN_TIME)
def sums_kernel(
    dt, A, sums, length, heads, chunks,
    SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """sums[b, m, h, q] = the sum of dt A over the chunk's positions up to q.

    A step below LEAST leaves nothing of what was before it, as LEAST does; as it is it would make
    all sums after it large, and their differences coarse.
    """
    blocks = tl.cdiv(heads, BLOCK_H)
    chunk = tl.program_id(0).to(tl.int64) // blocks  # of all batches
    h = (tl.program_id(0) % blocks) * BLOCK_H + tl.arange(0, BLOCK_H)
    start = (chunk % chunks) * SIZE
    q = tl.arange(0, BLOCK_Q)
    rows = dt + ((chunk // chunks) * length + start) * heads
    steps = load_tile(rows, q, tl.minimum(SIZE, length - start), heads, h, heads).to(tl.float32)
    rates = tl.load(A + h, mask=h < heads, other=0.0).to(tl.float32)
    steps = tl.maximum(steps * rates[None, :], LEAST)
    total = tl.trans(tl.cumsum(steps.to(tl.float64), axis=0)).to(tl.float32)
    store_tile(sums + chunk * heads * SIZE, total, h, heads, SIZE, q, SIZE)


@triton.jit
def place(heads, segments, head_dim, BLOCK_P: tl.constexpr):
    """This program's block of channels, head, segment and batch."""
    blocks = tl.cdiv(head_dim, BLOCK_P)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    h, program = program % heads, program // heads
    return block, h, program % segments, (program // segments).to(tl.int64)


@triton.jit
def state_at(first, added, kept, segment, row, rows, n, state, p, head_dim):
    """The state at which a segment begins, of row b heads + h; rows: of a batch's states."""
    elements = head_dim * state
    now = tl.trans(load_tile(first + row * elements, p, head_dim, state, n, state))
    for _ in range(0, segment):
        more = tl.trans(load_tile(added + row * elements, p, head_dim, state, n, state))
        now = now * tl.load(kept + row) + more
        row += rows
    return now


@triton.jit
def kept_by(s, seq, m, size, HAS_SEQ: tl.constexpr):
    """The factor by which chunk m keeps the state before it."""
    factor = tl.exp(tl.load(s + size - 1))
    if HAS_SEQ:
        earlier = tl.load(seq - tl.where(m > 0, 1, 0))
        factor = tl.where(tl.load(seq + size - 1) == earlier, factor, 0.0)
    return factor


@triton.jit(do_not_specialize=RUN_TIME)
def states_kernel(
    v, w, dt, sums, seq, first, added, kept, last, out, other, inner,
    batch, length, heads, chunks, segments, stride, head_dim, state, ratio,
    v_batch, v_row, w_batch, w_row,
    BACK: tl.constexpr, FOLLOW: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BLOCK_P channels of a head's state, through a segment of `stride` chunks.

    A chunk adds the sum of weight_q w_q v_q^T. The weight is dt_q exp(s_e - s_q), by which x and B
    add to the state; if BACK, exp(s_q), by which C reads it: the gradient of y and C then give that
    of the state, from the last chunk to the first.

    If FOLLOW, out[m, b, h], (state, head_dim), is the state before chunk m, if BACK the gradient of
    the one after it, and `last` the final state or the gradient of the first; if BACK, `inner`
    takes the parts of exp(s_e) H . G', with the states H in `other`. Else `added` and `kept` are
    written.
    """
    block, h, segment, b = place(heads, segments, head_dim, BLOCK_P)
    p, n = block * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    row, rows = b * heads + h, batch * heads
    now = tl.zeros([BLOCK_N, BLOCK_P], dtype=tl.float32)
    if FOLLOW:
        now += state_at(first, added, kept, segment, row, rows, n, state, p, head_dim)
    factor = 1.0
    v += b * v_batch + h * head_dim
    w += b * w_batch + h // ratio * state
    dt += b * length * heads + h
    seq += b * length
    sums += (b * chunks * heads + h) * SIZE
    for i in tl.range(
        segment * stride, tl.minimum((segment + 1) * stride, chunks), num_stages=STAGES
    ):
        m = (chunks - 1 - i) if BACK else i
        start = tl.full([], m * SIZE, tl.int64)
        size = tl.minimum(SIZE, length - m * SIZE)
        s, here = sums + start * heads, seq + start
        end = kept_by(s, here, m, size, HAS_SEQ)
        if FOLLOW:
            at = ((m * batch + b) * heads + h) * head_dim * state
            store_tile(out + at, now, n, state, head_dim, p, head_dim)
            if BACK:
                before = load_tile(other + at, n, state, head_dim, p, head_dim).to(tl.float32)
                part = ((b * chunks + m) * heads + h) * tl.cdiv(head_dim, BLOCK_P) + block
                tl.store(inner + part, end * tl.sum(before * now))
        now *= end
        factor *= end
        s_e = tl.load(s + size - 1)
        for first_q in range(0, SIZE, BLOCK_Q):
            q = first_q + tl.arange(0, BLOCK_Q)
            s_q = tl.load(s + q, mask=q < size, other=0.0)
            if BACK:
                weight = carry(s_q, here, q, size, m, HAS_SEQ)
            else:
                weight = to_end(s_q, s_e, here, q, size, HAS_SEQ)
                steps = dt + (start + q) * heads
                weight *= tl.load(steps, mask=q < size, other=0.0).to(tl.float32)
            left = load_tile(w + start * w_row, q, size, w_row, n, state)
            right = load_tile(v + start * v_row, q, size, v_row, p, head_dim)
            right = right.to(tl.float32) * weight[:, None]
            now += dot(tl.trans(left), right, ROUND, DOT, PRECISION)
    if FOLLOW:
        if segment == segments - 1:
            at = last + row * head_dim * state
            store_tile(at, tl.trans(now), p, head_dim, state, n, state)
    else:
        row += segment.to(tl.int64) * rows
        at = added + row * head_dim * state
        store_tile(at, tl.trans(now), p, head_dim, state, n, state)
        tl.store(kept + row, factor)


class Segments(NamedTuple):
    """How a sequence is cut, and what each segment but the last does to the state."""

    stride: int  # chunks in each
    count: int
    added: Tensor  # (count - 1, B, H, P, N)
    kept: Tensor  # (count - 1, B, H)


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
        self.size, self.dtype, self.dot = chunk_size, x.dtype, DOTS[x.dtype]
        self.block_n = power_of_two(self.state)

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

    def segments(self, v: Tensor, w: Tensor, sums: Tensor, block_p: int, back: bool) -> Segments:
        """Segments for programs of block_p channels, with what each of them does."""
        sequences = self.batch * self.heads * triton.cdiv(self.head_dim, block_p)
        stride = triton.cdiv(self.chunks, max(1, PROGRAMS // sequences))
        count = triton.cdiv(self.chunks, stride)
        shape = (count - 1, self.batch, self.heads)
        found = Segments(
            stride, count, self.new(*shape, self.head_dim, self.state), self.new(*shape)
        )
        if count > 1:
            unused = (sums,) * 4
            self._states(v, w, sums, found, count - 1, back, unused)
        return found

    def follow(
        self, v: Tensor, w: Tensor, sums: Tensor, first: Tensor, other: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The states before all chunks (M, B, H, N, P) from the first (B, H, P, N), and the last.

        With those states as `other`, the gradients of the states after all chunks, from the last,
        and that of the first. Also the parts of exp(s_e) H . G' (B, M, H, parts).
        """
        back, block_p = other is not None, self._tiles().p
        found = self.segments(v, w, sums, block_p, back)
        kept = torch.float32 if self.dtype == torch.float16 else self.dtype
        shape = (self.chunks, self.batch, self.heads, self.state, self.head_dim)
        out = self.x.new_empty(shape, dtype=kept)
        last = torch.empty_like(first)
        parts = triton.cdiv(self.head_dim, block_p) if back else 0
        inner = self.new(self.batch, self.chunks, self.heads, parts)
        tensors = (last, out, out if other is None else other, inner)
        self._states(v, w, sums, found, found.count, back, tensors, first)
        return out, last, inner

    def _states(self, v, w, sums, found: Segments, count: int, back: bool, tensors, first=None):
        tiles, follow = self._tiles(), first is not None
        programs = count * self.batch * self.heads * triton.cdiv(self.head_dim, tiles.p)
        states_kernel[(programs,)](
            v, w, self.dt, sums, self.seq, sums if first is None else first, found.added,
            found.kept, *tensors, self.batch, self.length, self.heads, self.chunks, count,
            found.stride, self.head_dim, self.state, self.ratio, *v.stride()[:2], *w.stride()[:2],
            BACK=back, FOLLOW=follow, HAS_SEQ=self.has_seq, SIZE=self.size,
            BLOCK_Q=tiles.q, BLOCK_P=tiles.p, BLOCK_N=self.block_n, STAGES=tiles.stages,
            **self.dot,
        )  # fmt: skip

    def _tiles(self) -> StateTiles:
        return state_tiles(self.dtype, self.size, self.head_dim, self.state)


def state_tiles(dtype: torch.dtype, size: int, head_dim: int, state: int) -> StateTiles:
    """What fits chunks of a size, heads and states."""
    tiles = STATE_TILES[dtype]
    q, stages = (tiles.q, tiles.stages) if state <= 128 else (min(tiles.q, 64), 1)
    return StateTiles(min(power_of_two(size), q), min(power_of_two(head_dim), tiles.p), stages)


def power_of_two(size: int) -> int:
    """The power of two that holds a size, 16 at least: the shortest side of a product."""
    return max(triton.next_power_of_2(size), 16)


def _rows_apart(t: Tensor) -> Tensor:
    """t (B, L, H, P) as it is if each of its rows (H, P) is contiguous, else a copy."""
    *_, heads, last = t.shape
    packed = t.stride(3) == 1 and (t.stride(2) == last or heads == 1)
    return t if packed else t.contiguous()
