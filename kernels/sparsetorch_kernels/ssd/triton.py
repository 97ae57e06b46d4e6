"""The forward of the scan as Triton kernels, for CUDA; the backward is in `triton_backward.py`.

The formulas are those of `gemm.py`. States are followed through segments of the sequence, as
`triton_states.py` says, and the outputs made on the way, from scores that are never written to
memory. The conventions of the kernels and how they are tested are told there and in
`triton_tiles.py`.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.launch import on_device_of
from sparsetorch_kernels.ssd.gemm import Arguments
from sparsetorch_kernels.ssd.triton_states import (
    RUN_TIME,
    Launch,
    kept_by,
    place,
    power_of_two,
    state_at,
)
from sparsetorch_kernels.ssd.triton_tiles import carry, dot, load_tile, store_tile, to_end


class Tiles(NamedTuple):
    """The longest chunk, the most channels and the warps of a program; tiles loaded ahead."""

    chunk: int
    p: int
    warps: int
    stages: int


# In short chunks more of the work goes through the state, which costs less than scores.
TILES = {
    torch.bfloat16: Tiles(64, 64, 4, 1),
    torch.float16: Tiles(64, 32, 8, 1),
    torch.float32: Tiles(32, 16, 8, 1),
}
FROM_REGISTERS = Tiles(64, 64, 8, 2)  # for bfloat16 where products take their operands from there


@triton.jit(do_not_specialize=RUN_TIME)
def outputs_kernel(
    x, dt, B, C, D, sums, seq, first, added, kept, last, y,
    batch, length, heads, chunks, segments, stride, head_dim, state, ratio,
    x_batch, x_row, B_batch, B_row, C_batch, C_row,
    HAS_D: tl.constexpr, HAS_SEQ: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y of BLOCK_P channels of a head, over a segment of `stride` chunks; and the final state."""
    block, h, segment, b = place(heads, segments, head_dim, BLOCK_P)
    p, n = block * BLOCK_P + tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_N)
    q, g = tl.arange(0, BLOCK_Q), h // ratio
    row, width = b * heads + h, heads * head_dim
    now = state_at(first, added, kept, segment, row, batch * heads, n, state, p, head_dim)
    x += b * x_batch + h * head_dim
    B += b * B_batch + g * state
    C += b * C_batch + g * state
    dt += b * length * heads + h
    y += b * length * width + h * head_dim
    seq += b * length
    sums += (b * chunks * heads + h) * SIZE
    skip = tl.load(D + h).to(tl.float32) if HAS_D else 0.0
    for m in tl.range(
        segment * stride, tl.minimum((segment + 1) * stride, chunks), num_stages=STAGES
    ):
        start = tl.full([], m * SIZE, tl.int64)
        size = tl.minimum(SIZE, length - m * SIZE)
        s, here = sums + start * heads, seq + start
        s_q, s_e = tl.load(s + q, mask=q < size, other=0.0), tl.load(s + size - 1)
        dt_q = tl.load(dt + (start + q) * heads, mask=q < size, other=0.0).to(tl.float32)
        queries = load_tile(C + start * C_row, q, size, C_row, n, state)
        keys = load_tile(B + start * B_row, q, size, B_row, n, state)
        inputs = load_tile(x + start * x_row, q, size, x_row, p, head_dim)
        total = dot(queries, now, ROUND, DOT, PRECISION)
        total *= carry(s_q, here, q, size, m, HAS_SEQ)[:, None]
        # The state goes on before scores are made: so fewer registers are taken at a time.
        weight = to_end(s_q, s_e, here, q, size, HAS_SEQ) * dt_q
        u = inputs.to(tl.float32) * weight[:, None]
        now *= kept_by(s, here, m, size, HAS_SEQ)
        now += dot(tl.trans(keys), u, ROUND, DOT, PRECISION)
        scores = dot(queries, tl.trans(keys), ROUND, DOT, PRECISION)
        from_end = size - 1 - q  # compared in each chunk: kept, the results would fill registers
        seen = from_end[:, None] <= from_end[None, :]
        if HAS_SEQ:
            document = tl.load(here + q, mask=q < size, other=0)
            seen = seen & (document[:, None] == document[None, :])
        # Masked before exp, which would overflow above the diagonal
        decay = tl.exp(tl.where(seen, s_q[:, None] - s_q[None, :], float("-inf")))
        total += dot(scores * decay * dt_q[None, :], inputs, ROUND, DOT, PRECISION)
        if HAS_D:
            total += skip * inputs.to(tl.float32)
        store_tile(y + start * width, total, q, size, width, p, head_dim)
    if segment == segments - 1:
        at = last + row * head_dim * state
        store_tile(at, tl.trans(now), p, head_dim, state, n, state)


def forward(
    arguments: Arguments, initial_state: Tensor | None, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `gemm.forward`; but of the states the first alone is kept, and nothing else.

    All of them take the memory of x or several times as much, and the backward makes them again in
    little time; and it needs no `decayed`.
    """
    x = arguments.x_BLHP
    capability = torch.cuda.get_device_capability(x.device) if x.is_cuda else (9, 0)
    tiles = tiles_for(x.dtype, capability[0])
    launch = Launch(arguments, min(chunk_size, tiles.chunk))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    first = launch.new(1, launch.batch, launch.heads, launch.head_dim, launch.state)
    if initial_state is None:
        first.zero_()
    else:
        first.copy_(initial_state)
    final = torch.empty_like(first[0])
    block_p = min(power_of_two(launch.head_dim), tiles.p)
    with on_device_of(x):
        sums = launch.sums()
        found = launch.segments(launch.x, launch.B, sums, block_p, back=False)
        blocks = triton.cdiv(launch.head_dim, block_p)
        outputs_kernel[(launch.batch * launch.heads * found.count * blocks,)](
            launch.x, launch.dt, launch.B, launch.C, launch.D, sums, launch.seq, first,
            found.added, found.kept, final, y,
            launch.batch, launch.length, launch.heads, launch.chunks, found.count,
            found.stride, launch.head_dim, launch.state, launch.ratio,
            *launch.x.stride()[:2], *launch.B.stride()[:2], *launch.C.stride()[:2],
            HAS_D=launch.has_D, HAS_SEQ=launch.has_seq, SIZE=launch.size,
            BLOCK_Q=power_of_two(launch.size), BLOCK_P=block_p, BLOCK_N=launch.block_n,
            STAGES=tiles.stages, num_warps=tiles.warps, **launch.dot,
        )  # fmt: skip
    return y, final, launch.new(0), first if keep else first[:0]


def tiles_for(dtype: torch.dtype, major: int) -> Tiles:
    """Those of Hopper and of its like, else of the GPUs before and of consumers' ones."""
    from_registers = dtype == torch.bfloat16 and major not in (9, 10)
    return FROM_REGISTERS if from_registers else TILES[dtype]
