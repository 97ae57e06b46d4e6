"""Norms of root mean square: of the residual stream, and gated in groups behind the scan.

On the CPU the derivative is by hand: it takes half the time of torch's, and keeps the inputs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vecdot
from torch.nn.functional import rms_norm, silu


class RMSNorm(nn.Module):
    """x / rms(x) times a weight, in float32, and back to the dtype of x.

    Equivalent to `torch.nn.RMSNorm` where x is float32.

    Args:
        width: of the last dimension.
        eps: added to the mean square.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        if by_hand(x):
            if not torch.is_grad_enabled():  # to call a function of autograd takes as long again
                return _normed(x, self.weight, self.eps)
            return _RMSNorm.apply(x, self.weight, self.eps)
        wide = to_wide(x)
        return rms_norm(wide, wide.shape[-1:], self.weight.to(wide.dtype), self.eps).to(x.dtype)


class GatedRMSNorm(nn.Module):
    """The norm of y silu(z), of each group of channels by itself.

    The gate comes before the norm, as in all published models of the family. Groups are those that
    share B and C, so that tensor-parallel ranks that split them need not talk.

    Args:
        width: of the last dimension.
        groups: that divide it.
        eps: added to the mean square.
    """

    def __init__(self, width: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """(..., width) of the scan and of the gate -> (..., width)."""
        if by_hand(y):
            if not torch.is_grad_enabled():
                return _gated(y, z, self.weight, self.groups, self.eps)
            return _GatedRMSNorm.apply(y, z, self.weight, self.groups, self.eps)
        gated = (to_wide(y) * silu(to_wide(z))).unflatten(-1, (self.groups, -1))
        found = rms_norm(gated, gated.shape[-1:], None, self.eps).flatten(-2)
        return (found * self.weight.to(found.dtype)).to(y.dtype)


def by_hand(x: Tensor) -> bool:
    """Whether the derivatives below are the faster ones."""
    return x.is_cpu and not torch.compiler.is_compiling()


def to_wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / rms(x), (..., 1)."""
    return (vecdot(x, x) / x.shape[-1] + eps).rsqrt()[..., None]


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = to_wide(x)
    return (wide * _scale(wide, eps)).mul_(weight).to(x.dtype)


def _gated(y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
    gated = silu(to_wide(z)).mul_(to_wide(y)).unflatten(-1, (groups, -1))
    return (gated * _scale(gated, eps)).flatten(-2).mul_(weight).to(y.dtype)


def _to_input(to_normed: Tensor, normed: Tensor, scale: Tensor) -> Tensor:
    """The derivative with respect to x from that with respect to normed = x scale(x)."""
    along = vecdot(to_normed, normed)[..., None] / normed.shape[-1]
    return torch.addcmul(to_normed, normed, along, value=-1) * scale


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return _normed(x, weight, eps)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        # The scale is computed anew from x, so that this can be differentiated again.
        x, weight = ctx.saved_tensors
        wide, to_y = to_wide(x), to_wide(change)
        scale = _scale(wide, ctx.eps)
        normed = wide * scale
        to_weight = vecdot(to_y.flatten(0, -2), normed.flatten(0, -2), dim=0)
        to_x = _to_input(to_y * weight, normed, scale)
        return to_x.to(x.dtype), to_weight.to(weight.dtype), None


class _GatedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
        ctx.save_for_backward(y, z, weight)
        ctx.groups, ctx.eps = groups, eps
        return _gated(y, z, weight, groups, eps)

    @staticmethod
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        y, z, weight = ctx.saved_tensors
        wide_y, wide_z, to_out = to_wide(y), to_wide(z), to_wide(change)
        sigmoid = wide_z.sigmoid()
        gate = wide_z * sigmoid
        gated = (wide_y * gate).unflatten(-1, (ctx.groups, -1))
        scale = _scale(gated, ctx.eps)
        normed = gated * scale
        to_weight = vecdot(to_out.flatten(0, -2), normed.flatten(-2).flatten(0, -2), dim=0)
        to_normed = (to_out * weight).unflatten(-1, (ctx.groups, -1))
        to_gated = _to_input(to_normed, normed, scale).flatten(-2)
        slope = sigmoid + gate * (1 - sigmoid)  # of silu
        return (
            (to_gated * gate).to(y.dtype),
            (to_gated * wide_y * slope).to(z.dtype),
            to_weight.to(weight.dtype),
            None,
            None,
        )
