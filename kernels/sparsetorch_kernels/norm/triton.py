"""The norms as Triton kernels, for CUDA: one pass over memory, either way.

The functions have the signatures of `ops._forward` and `ops._backward`. A program has the channels
of one group in registers. Import this module only where Triton is installed; with
`TRITON_INTERPRET=1` in the environment before the first import of Triton, the kernels run on CPU
tensors, which is how they are tested without a GPU.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false, reportCallIssue=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparsetorch_kernels.launch import on_device_of

WIDEST = 16384  # channels of a group
PROGRAMS = 512  # of the backward in each group: as many parts of the weight's gradient are added up


@triton.jit
def gated_row(x, z, at, z_at, inside, GATED: tl.constexpr, SUM: tl.constexpr):
    """A row's inputs, its silu(z) and that one's derivative; the latter mean nothing ungated."""
    v = tl.load(x + at, mask=inside, other=0.0).to(SUM)
    gate, slope = v, v
    if GATED:
        wide = tl.load(z + z_at, mask=inside, other=0.0).to(SUM)
        sigmoid = 1.0 / (1.0 + tl.exp(-wide))
        gate = wide * sigmoid
        slope = sigmoid + gate * (1.0 - sigmoid)
    return v, gate, slope


@triton.jit
def norm_kernel(
    x, z, weight, out, width, groups, x_row, z_row,
    EPS: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One group of one row."""
    program = tl.program_id(0).to(tl.int64)
    row, c = program // groups, (program % groups) * width + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < width
    v, gate, _ = gated_row(x, z, row * x_row + c, row * z_row + c, inside, GATED, SUM)
    if GATED:
        v = v * gate
    scale = 1.0 / tl.sqrt(tl.sum(v * v, 0) / width + EPS)
    w = tl.load(weight + c, mask=inside, other=0.0).to(SUM)
    tl.store(out + row * groups * width + c, v * scale * w, mask=inside)


@triton.jit
def norm_backward_kernel(
    g, x, z, weight, grad_x, grad_z, parts, rows, per, width, groups, g_row, x_row, z_row,
    EPS: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One group of `per` rows; parts (programs, groups * width) take theirs of the weight."""
    program = tl.program_id(0).to(tl.int64)
    block, c = program // groups, (program % groups) * width + tl.arange(0, BLOCK)
    inside = tl.arange(0, BLOCK) < width
    w = tl.load(weight + c, mask=inside, other=0.0).to(SUM)
    part = w * 0.0
    first = block * per
    for row in range(first, tl.minimum(first + per, rows)):
        v, gate, slope = gated_row(x, z, row * x_row + c, row * z_row + c, inside, GATED, SUM)
        gated = v * gate if GATED else v
        scale = 1.0 / tl.sqrt(tl.sum(gated * gated, 0) / width + EPS)
        normed = gated * scale
        to_out = tl.load(g + row * g_row + c, mask=inside, other=0.0).to(SUM)
        part += to_out * normed
        to_normed = to_out * w
        along = tl.sum(to_normed * normed, 0) / width
        to_gated = (to_normed - normed * along) * scale
        at = row * groups * width + c
        if GATED:
            tl.store(grad_x + at, to_gated * gate, mask=inside)
            tl.store(grad_z + at, to_gated * v * slope, mask=inside)
        else:
            tl.store(grad_x + at, to_gated, mask=inside)
    tl.store(parts + block * groups * width + c, part, mask=inside)


def forward(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float) -> Tensor:
    """See `ops._forward`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    rows = _rows(x)
    if rows.numel():
        width, gates = rows.shape[1] // groups, rows if z is None else _rows(z)
        with on_device_of(x):
            norm_kernel[(len(rows) * groups,)](
                rows, gates, weight.contiguous(), out, width, groups,
                rows.stride(0), gates.stride(0), **_flags(x, z is not None, width, eps),
            )  # fmt: skip
    return out


def backward(
    g: Tensor, x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See `ops._backward`."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_z = None if z is None else torch.empty_like(grad_x)
    rows = _rows(x)
    if not rows.numel():
        return grad_x, grad_z, torch.zeros_like(weight)
    per = triton.cdiv(len(rows), PROGRAMS)
    programs = triton.cdiv(len(rows), per)
    wide = torch.promote_types(x.dtype, torch.float32)
    parts = torch.empty(programs, rows.shape[1], dtype=wide, device=x.device)
    width, gates, grads = rows.shape[1] // groups, rows if z is None else _rows(z), _rows(g)
    with on_device_of(x):
        norm_backward_kernel[(programs * groups,)](
            grads, rows, gates, weight.contiguous(), grad_x, grad_x if grad_z is None else grad_z,
            parts, len(rows), per, width, groups, grads.stride(0), rows.stride(0), gates.stride(0),
            **_flags(x, z is not None, width, eps),
        )  # fmt: skip
    return grad_x, grad_z, parts.sum(0).to(weight.dtype)


def _rows(x: Tensor) -> Tensor:
    """x (..., W) as rows (R, W) whose numbers lie side by side, without a copy where they do."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def _flags(x: Tensor, gated: bool, width: int, eps: float) -> dict[str, Any]:
    """The constants of both kernels."""
    block = triton.next_power_of_2(width)
    return {
        "EPS": eps,
        "GATED": gated,
        "BLOCK": block,
        "SUM": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "num_warps": min(max(block // 512, 1), 16),
    }
