"""Norms of root mean square: of the residual stream, and gated in groups behind the scan."""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
        wide = _wide(x)
        return rms_norm(wide, (wide.shape[-1],), self.weight.to(wide.dtype), self.eps).to(x.dtype)


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
        gated = _wide(y) * silu(_wide(z))
        grouped = gated.unflatten(-1, (self.groups, -1))
        found = rms_norm(grouped, (grouped.shape[-1],), None, self.eps).flatten(-2)
        return (found * self.weight.to(found.dtype)).to(y.dtype)


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()
