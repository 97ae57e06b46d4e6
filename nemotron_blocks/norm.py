"""Norms of root mean square: of the residual stream, and gated in groups behind the scan."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsetorch_kernels import gated_rms_norm, rms_norm


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
        return rms_norm(x, self.weight, self.eps)


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
        return gated_rms_norm(y, z, self.weight, self.groups, self.eps)
