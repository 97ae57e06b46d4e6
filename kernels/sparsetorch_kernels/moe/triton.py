"""Products of groups of rows with a matrix each, and the gradient between them, for CUDA.

`rows` and `outer` have the signatures of `products`, which says when they run; their specification
are the loops there. No bound of a group is ever read by the CPU, so that nothing waits and all of
it can be captured in a CUDA graph. All index arithmetic is done in int64.

Import this module only where Triton is installed. With `TRITON_INTERPRET=1` in the environment
before the first import of Triton, the kernels run on CPU tensors, which is how they are tested
without a GPU.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false, reportCallIssue=false
import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.launch import on_device_of


@triton.jit
def _group_of(starts, tile, n_groups, search_steps):
    """The group that each tile belongs to: the last one that begins at or before it."""
    low = tile * 0
    high = low + n_groups
    for _ in range(0, search_steps):
        middle = (low + high) // 2
        before = tl.load(starts + middle).to(tl.int64) <= tile
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low


@triton.jit
def _rows_kernel(
    x, w, ptr, starts, out, n_groups, search_steps, n_in, n_out, out_blocks,
    x_row, x_col, w_group, w_row, w_col,
    ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, TERM: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """A tile of ROWS rows of one group times OUT columns of its matrix."""
    program = tl.program_id(0).to(tl.int64)
    tile = program // out_blocks
    j = (program % out_blocks) * OUT + tl.arange(0, OUT).to(tl.int64)
    total = tl.load(starts + n_groups).to(tl.int64)
    group = _group_of(starts, tl.minimum(tile, total - 1), n_groups, search_steps)
    # A tile beyond the last one is of no group: all its rows come after those of the last group.
    within = tile - tl.load(starts + group).to(tl.int64)
    first = tl.load(ptr + group).to(tl.int64) + within * ROWS
    last = tl.load(ptr + group + 1).to(tl.int64)
    row = first + tl.arange(0, ROWS).to(tl.int64)
    inside = row < last
    sums = tl.zeros([ROWS, OUT], dtype=SUM)
    for start in range(0, n_in, IN):
        i = start + tl.arange(0, IN).to(tl.int64)
        left = tl.load(
            x + row[:, None] * x_row + i[None, :] * x_col,
            mask=inside[:, None] & (i < n_in)[None, :], other=0.0,
        )  # fmt: skip
        right = tl.load(
            w + group * w_group + i[:, None] * w_row + j[None, :] * w_col,
            mask=(i < n_in)[:, None] & (j < n_out)[None, :], other=0.0,
        )  # fmt: skip
        sums += tl.dot(left.to(TERM), right.to(TERM), input_precision="ieee", out_dtype=SUM)
    to = out + row[:, None] * n_out + j[None, :]
    tl.store(to, sums, mask=inside[:, None] & (j < n_out)[None, :])


@triton.jit
def _outer_kernel(
    g, x, ptr, out, n_left, n_right, left_blocks, right_blocks, g_row, g_col, x_row, x_col,
    ROWS: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, TERM: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """A tile of one group's sum of outer products of rows; zeros where it has none."""
    program = tl.program_id(0).to(tl.int64)
    j = (program % right_blocks) * RIGHT + tl.arange(0, RIGHT).to(tl.int64)
    program = program // right_blocks
    i = (program % left_blocks) * LEFT + tl.arange(0, LEFT).to(tl.int64)
    group = program // left_blocks
    first = tl.load(ptr + group).to(tl.int64)
    last = tl.load(ptr + group + 1).to(tl.int64)
    sums = tl.zeros([LEFT, RIGHT], dtype=SUM)
    for start in range(0, last - first, ROWS):
        row = first + start + tl.arange(0, ROWS).to(tl.int64)
        left = tl.load(
            g + i[:, None] * g_col + row[None, :] * g_row,
            mask=(i < n_left)[:, None] & (row < last)[None, :], other=0.0,
        )  # fmt: skip
        right = tl.load(
            x + row[:, None] * x_row + j[None, :] * x_col,
            mask=(row < last)[:, None] & (j < n_right)[None, :], other=0.0,
        )  # fmt: skip
        sums += tl.dot(left.to(TERM), right.to(TERM), input_precision="ieee", out_dtype=SUM)
    to = out + (group * n_left + i)[:, None] * n_right + j[None, :]
    tl.store(to, sums, mask=(i < n_left)[:, None] & (j < n_right)[None, :])


@triton.jit
def _clear_kernel(out, ptr, size, parts, BLOCK: tl.constexpr):
    """Zeros in one part of a group's matrix if the group has no rows; nothing else is touched."""
    program = tl.program_id(0).to(tl.int64)
    group, part = program // parts, program % parts
    if tl.load(ptr + group) == tl.load(ptr + group + 1):
        for start in range(part * BLOCK, size, parts * BLOCK):
            k = start + tl.arange(0, BLOCK).to(tl.int64)
            zero = tl.zeros([BLOCK], dtype=out.dtype.element_ty)
            tl.store(out + group * size + k, zero, mask=k < size)


@triton.jit
def _activation_kernel(h, n, BLOCK: tl.constexpr, SUM: tl.constexpr):
    """h = relu(h)^2 in place."""
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK).to(tl.int64)
    value = tl.load(h + k, mask=k < n, other=0.0).to(SUM)
    # Not tl.maximum, which would turn a NaN into a zero.
    tl.store(h + k, tl.where(value < 0, 0.0, value * value), mask=k < n)


@triton.jit
def _gradient_kernel(
    g_act, act, gate, g_gate, n_cols, HAS_GATE: tl.constexpr, COLS: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """One row of the gradient of the pre-activation, in place of that of the activation."""
    row = tl.program_id(0).to(tl.int64)
    weight = tl.load(gate + row).to(SUM) if HAS_GATE else 1.0
    sums = tl.zeros([COLS], dtype=SUM)
    for start in range(0, n_cols, COLS):
        j = start + tl.arange(0, COLS).to(tl.int64)
        place, inside = row * n_cols + j, j < n_cols
        g = tl.load(g_act + place, mask=inside, other=0.0).to(SUM)
        a = tl.load(act + place, mask=inside, other=0.0).to(SUM)
        sums += g * a
        tl.store(g_act + place, 2 * weight * g * tl.sqrt(a), mask=inside)
    if HAS_GATE:
        tl.store(g_gate + row, tl.sum(sums, axis=0))


def rows(x: Tensor, w: Tensor, ptr: Tensor) -> Tensor:
    """x (R, I), w (E, I, O), ptr (E + 1,) -> (R, O). See `products.rows`."""
    (n_rows, n_in), (n_groups, _, n_out) = x.shape, w.shape
    out = x.new_empty(n_rows, n_out)
    if out.numel() == 0:
        return out
    size = _tile(x, n_rows, n_groups)
    # As many tiles as there can be: how many a group needs is known on the GPU alone.
    tiles = triton.cdiv(n_rows, size.rows) + min(n_groups, n_rows)
    needed = (ptr.diff() + size.rows - 1) // size.rows
    starts = torch.cat([needed.new_zeros(1), needed.cumsum(0)])
    out_blocks = triton.cdiv(n_out, size.width)
    with on_device_of(x):
        _rows_kernel[(tiles * out_blocks,)](
            x, w, ptr, starts, out, n_groups, n_groups.bit_length(), n_in, n_out, out_blocks,
            *x.stride(), *w.stride(),
            ROWS=size.rows, OUT=size.width, IN=size.depth, TERM=_term_type(x), SUM=_sum_type(x),
            num_warps=size.warps,
        )  # fmt: skip
    return out


def outer(g: Tensor, x: Tensor, ptr: Tensor) -> Tensor:
    """g (R, O), x (R, I), ptr (E + 1,) -> (E, O, I). See `products.outer`."""
    n_groups, n_left, n_right = ptr.shape[0] - 1, g.shape[1], x.shape[1]
    out = g.new_empty(n_groups, n_left, n_right)
    if out.numel() == 0:
        return out
    size = _tile(x, n_left, 1)
    left_blocks, right_blocks = triton.cdiv(n_left, size.rows), triton.cdiv(n_right, size.width)
    with on_device_of(x):
        _outer_kernel[(n_groups * left_blocks * right_blocks,)](
            g, x, ptr, out, n_left, n_right, left_blocks, right_blocks, *g.stride(), *x.stride(),
            ROWS=size.depth, LEFT=size.rows, RIGHT=size.width, TERM=_term_type(x),
            SUM=_sum_type(x), num_warps=size.warps,
        )  # fmt: skip
    return out


def clear_(out: Tensor, ptr: Tensor) -> Tensor:
    """Zeros in the matrices of a contiguous out (E, O, I) whose groups have no rows.

    The others are neither read nor written, as they are where a mask says what to fill.
    """
    n_groups, size = out.shape[0], out.shape[1] * out.shape[2]
    parts = min(triton.cdiv(size, 1024), 64)
    if n_groups and parts:
        with on_device_of(out):
            _clear_kernel[(n_groups * parts,)](out, ptr, size, parts, BLOCK=1024)
    return out


def activate_(h: Tensor) -> Tensor:
    """relu(h)^2 in place of a contiguous h, in one pass over memory."""
    if h.numel():
        with on_device_of(h):
            grid = (triton.cdiv(h.numel(), 1024),)
            _activation_kernel[grid](h, h.numel(), BLOCK=1024, SUM=_sum_type(h))
    return h


def gradient_(g_act: Tensor, act: Tensor, gate: Tensor | None) -> Tensor | None:
    """The gradient of h in place of that of act = relu(h)^2, weighted; and that of the weights.

    g_act, act (R, M) contiguous, gate (R,) or None -> (R,), the products <g_act, act> of each row.
    """
    g_gate = None if gate is None else torch.empty_like(gate)
    if act.shape[0]:
        with on_device_of(act):
            _gradient_kernel[(act.shape[0],)](
                g_act, act, g_act if gate is None else gate, g_gate, act.shape[1],
                HAS_GATE=gate is not None, COLS=min(triton.next_power_of_2(act.shape[1]), 1024),
                SUM=_sum_type(act),
            )  # fmt: skip
    return g_gate


class _Tile(NamedTuple):
    """Of a product: rows and columns of the result, terms at a time, and warps."""

    rows: int
    width: int
    depth: int
    warps: int


def _tile(x: Tensor, n_rows: int, n_groups: int) -> _Tile:
    """By dtype; no more rows than a group has on average, since the rest would be for nothing."""
    rows = min(max(triton.next_power_of_2(n_rows // n_groups), 16), 128)
    if x.dtype == torch.float64:
        return _Tile(min(rows, 32), 32, 16, 4)
    if x.dtype == torch.float32:
        return _Tile(min(rows, 64), 64, 32, 4)
    return _Tile(rows, 128, 32, 8 if rows == 128 else 4)


def _sum_type(t: Tensor) -> tl.dtype:
    """The precision in which products are added up: float32 at least."""
    return tl.float64 if t.dtype == torch.float64 else tl.float32


def _term_type(t: Tensor) -> tl.dtype:
    """In which numbers are multiplied: their own dtype."""
    if t.dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET") == "1":
        return tl.float32  # the interpreter multiplies the bits of bfloat16 as integers
    return _TYPES[t.dtype]


_TYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}
