"""The norms as one formula of PyTorch's own operators: what compiles, and what kernels equal."""

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu


def to_wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def norm(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float) -> Tensor:
    """See `ops.rms_norm` without z, and else `ops.gated_rms_norm`."""
    gated = to_wide(x) if z is None else to_wide(x) * silu(to_wide(z))
    parts = gated.unflatten(-1, (groups, -1))
    found = rms_norm(parts, parts.shape[-1:], None, eps).flatten(-2)
    return (found * weight.to(found.dtype)).to(x.dtype)
