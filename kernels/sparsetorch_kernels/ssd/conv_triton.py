"""The causal convolution as Triton kernels, for CUDA: a pass over the inputs, two backward.

The functions have the signatures of `conv.forward` and `conv.backward`. Positions before the first
are those of the earlier inputs: t = -(K - 1) to -1. Import this module only where Triton is
installed; see `triton_tiles.py` on how it is tested.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.launch import on_device_of
from sparsetorch_kernels.ssd.checks import sum_dtype

ROWS, COLUMNS = 64, 64


@triton.jit
def document(seq, t, length):
    """The documents of positions t; what is before the first position belongs to its own."""
    return tl.load(seq + tl.minimum(tl.maximum(t, 0), length - 1))


@triton.jit
def input_rows(
    x, initial, t, c, length, channels, row, TAPS: tl.constexpr, HAS_INITIAL: tl.constexpr
):
    """The inputs at positions t and channels c, 0 beyond the end."""
    inside = ((t >= 0) & (t < length))[:, None] & (c < channels)[None, :]
    rows = tl.load(x + t[:, None] * row + c[None, :], mask=inside, other=0.0)
    if HAS_INITIAL:
        before = ((t < 0) & (t > -TAPS))[:, None] & (c < channels)[None, :]
        at = initial + (t + TAPS - 1)[:, None] * channels + c[None, :]
        rows = tl.where((t < 0)[:, None], tl.load(at, mask=before, other=0.0), rows)
    return rows


@triton.jit
def convolve(
    x, initial, weight, bias, seq, t, c, length, channels, row,
    TAPS: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SEQ: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """The convolution at positions t, before the activation."""
    total = t[:, None].to(SUM) * 0.0 + c[None, :].to(SUM) * 0.0
    if HAS_BIAS:
        total += tl.load(bias + c, mask=c < channels, other=0.0).to(SUM)[None, :]
    for k in tl.static_range(TAPS):
        from_ = t + (k - TAPS + 1)
        rows = input_rows(x, initial, from_, c, length, channels, row, TAPS, HAS_INITIAL).to(SUM)
        if HAS_SEQ:
            same = document(seq, t, length) == document(seq, from_, length)
            rows = tl.where(same[:, None], rows, 0.0)
        total += (
            rows * tl.load(weight + c * TAPS + k, mask=c < channels, other=0.0).to(SUM)[None, :]
        )
    return total


@triton.jit(do_not_specialize=["length"])
def conv_kernel(
    x, weight, bias, initial, seq, y, length, channels, batch_step, row,
    TAPS: tl.constexpr, SILU: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_SEQ: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """y at ROWS positions and COLUMNS channels."""
    blocks_c, blocks_t = tl.cdiv(channels, COLUMNS), tl.cdiv(length, ROWS)
    program = tl.program_id(0).to(tl.int64)
    c = (program % blocks_c) * COLUMNS + tl.arange(0, COLUMNS)
    t = (program // blocks_c % blocks_t) * ROWS + tl.arange(0, ROWS)
    b = program // blocks_c // blocks_t
    total = convolve(
        x + b * batch_step, initial + b * (TAPS - 1) * channels, weight, bias, seq + b * length,
        t, c, length, channels, row, TAPS, HAS_INITIAL, HAS_BIAS, HAS_SEQ, SUM,
    )  # fmt: skip
    if SILU:
        total = total / (1.0 + tl.exp(-total))
    to = y + (b * length + t)[:, None] * channels + c[None, :]
    tl.store(to, total, mask=(t < length)[:, None] & (c < channels)[None, :])


@triton.jit(do_not_specialize=["length"])
def conv_acted_kernel(
    g, x, weight, bias, initial, seq, acted, grad_weight, grad_bias,
    length, channels, batch_step, row,
    TAPS: tl.constexpr, SILU: tl.constexpr, HAS_INITIAL: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_SEQ: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The gradient of ROWS sums before the activation, from g, that of y; and what comes of them.

    grad_weight (K, blocks, C) and grad_bias (blocks, C) take a block's parts.
    """
    blocks_c, blocks_t = tl.cdiv(channels, COLUMNS), tl.cdiv(length, ROWS)
    program = tl.program_id(0).to(tl.int64)
    c = (program % blocks_c) * COLUMNS + tl.arange(0, COLUMNS)
    block = program // blocks_c  # of all batches
    blocks, b = tl.num_programs(0) // blocks_c, block // blocks_t
    t = (block % blocks_t) * ROWS + tl.arange(0, ROWS)
    x, seq = x + b * batch_step, seq + b * length
    initial = initial + b * (TAPS - 1) * channels
    inside = (t < length)[:, None] & (c < channels)[None, :]
    at = (b * length + t)[:, None] * channels + c[None, :]
    total = tl.load(g + at, mask=inside, other=0.0).to(SUM)
    if SILU:
        sums = convolve(
            x, initial, weight, bias, seq, t, c, length, channels, row,
            TAPS, HAS_INITIAL, HAS_BIAS, HAS_SEQ, SUM,
        )  # fmt: skip
        sigmoid = 1.0 / (1.0 + tl.exp(-sums))
        total *= sigmoid * (1.0 + sums * (1.0 - sigmoid))
    part = block * channels + c
    tl.store(grad_bias + part, tl.sum(total, axis=0), mask=c < channels)
    for k in tl.static_range(TAPS):
        from_ = t + (k - TAPS + 1)
        rows = input_rows(x, initial, from_, c, length, channels, row, TAPS, HAS_INITIAL).to(SUM)
        if HAS_SEQ:
            same = document(seq, t, length) == document(seq, from_, length)
            rows = tl.where(same[:, None], rows, 0.0)
        to = grad_weight + k * blocks * channels + part
        tl.store(to, tl.sum(total * rows, axis=0), mask=c < channels)
    tl.store(acted + at, total, mask=inside)  # last: what was loaded above serves until here


@triton.jit(do_not_specialize=["length"])
def conv_spread_kernel(
    acted, weight, seq, grad_x, length, channels,
    TAPS: tl.constexpr, HAS_SEQ: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
):  # fmt: skip
    """The gradient of ROWS inputs, of which K - 1 are before the first; each acts on K sums."""
    blocks_c, blocks_t = tl.cdiv(channels, COLUMNS), tl.cdiv(length + TAPS - 1, ROWS)
    program = tl.program_id(0).to(tl.int64)
    c = (program % blocks_c) * COLUMNS + tl.arange(0, COLUMNS)
    block = program // blocks_c
    b = block // blocks_t
    t = (block % blocks_t) * ROWS + tl.arange(0, ROWS) - (TAPS - 1)
    seq = seq + b * length
    total = t[:, None].to(SUM) * 0.0 + c[None, :].to(SUM) * 0.0
    for i in tl.static_range(TAPS):
        later = t + i
        inside = ((later >= 0) & (later < length))[:, None] & (c < channels)[None, :]
        if HAS_SEQ:
            same = document(seq, t, length) == document(seq, later, length)
            inside = inside & same[:, None]
        at = acted + (b * length + later)[:, None] * channels + c[None, :]
        factor = tl.load(weight + c * TAPS + TAPS - 1 - i, mask=c < channels, other=0.0)
        total += tl.load(at, mask=inside, other=0.0).to(SUM) * factor.to(SUM)[None, :]
    inside = (t < length)[:, None] & (c < channels)[None, :]
    to = grad_x + (b * (length + TAPS - 1) + t + TAPS - 1)[:, None] * channels + c[None, :]
    tl.store(to, total, mask=inside)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    seq_idx: Tensor | None,
    silu: bool,
) -> Tensor:
    """See `conv.forward`."""
    x = _rows(x)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    batch, length, channels = x.shape
    programs = batch * triton.cdiv(length, ROWS) * triton.cdiv(channels, COLUMNS)
    if programs > 0:
        tensors, flags = _arguments(x, weight, bias, initial, seq_idx, silu)
        with on_device_of(x):
            conv_kernel[(programs,)](*tensors, y, length, channels, *x.stride()[:2], **flags)
    return y


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    seq_idx: Tensor | None,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `conv.backward`."""
    x, taps = _rows(x), weight.shape[1]
    batch, length, channels = x.shape
    blocks = batch * triton.cdiv(length, ROWS)
    dtype = sum_dtype(x.dtype)
    grad_x = x.new_empty((batch, taps - 1 + length, channels))
    parts = x.new_empty((taps, blocks, channels), dtype=dtype)
    bias_parts = x.new_empty((blocks, channels), dtype=dtype)
    blocks_c = triton.cdiv(channels, COLUMNS)
    if blocks * blocks_c > 0:
        acted = x.new_empty(x.shape)
        tensors, flags = _arguments(x, weight, bias, initial, seq_idx, silu)
        with on_device_of(x):
            conv_acted_kernel[(blocks * blocks_c,)](
                grad_y.contiguous(), *tensors, acted, parts, bias_parts,
                length, channels, *x.stride()[:2], **flags,
            )  # fmt: skip
            programs = batch * triton.cdiv(length + taps - 1, ROWS) * blocks_c
            read = ("TAPS", "HAS_SEQ", "ROWS", "COLUMNS", "SUM")
            conv_spread_kernel[(programs,)](
                acted, tensors[1], tensors[4], grad_x, length, channels,
                **{name: flags[name] for name in read},
            )  # fmt: skip
    else:
        grad_x.zero_()
    return grad_x, parts.sum(1).mT, bias_parts.sum(0)


def _rows(x: Tensor) -> Tensor:
    """x (B, L, C) as it is if its rows are contiguous, else a copy."""
    return x if x.stride(2) == 1 else x.contiguous()


def _arguments(
    x, weight, bias, initial, seq_idx, silu
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The tensors of both kernels, x in the place of those that are not read; and the constants."""
    others = [x if t is None else t.contiguous() for t in (bias, initial, seq_idx)]
    flags = {
        "TAPS": weight.shape[1],
        "SILU": silu,
        "HAS_BIAS": bias is not None,
        "HAS_INITIAL": initial is not None,
        "HAS_SEQ": seq_idx is not None,
        "ROWS": ROWS,
        "COLUMNS": COLUMNS,
        "SUM": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }
    return (x, weight.contiguous(), *others), flags
