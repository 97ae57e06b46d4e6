"""The public norms: arguments checked, derivatives by hand, which keep nothing but the arguments.

On the CPU that takes half the time of PyTorch's own. In half precision it keeps a fraction of the
memory: PyTorch would keep several tensors in float32 that are computed on the way.
"""

import functools
import importlib.util
import inspect
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vecdot
from torch.nn.functional import silu

from sparsetorch_kernels._register import transformed, watched
from sparsetorch_kernels.autocast import as_given
from sparsetorch_kernels.norm import reference
from sparsetorch_kernels.norm.reference import to_wide

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean of x^2 + eps) times the weight: x (..., w), weight (w,) -> (..., w).

    float16, bfloat16, float32 or float64; means are in float32 (float64 for float64), and the
    result is rounded once, to the dtype of x. The weight may have another of these dtypes.

    Differentiable any number of times, in either mode; it compiles and maps. Raises TypeError or
    ValueError naming the argument that does not fit. Equivalent to `torch.nn.functional.rms_norm`
    in float32.
    """
    if not _fit(x, weight):
        _refuse("x", x, weight)
    return _call(x, None, weight, 1, eps)


def gated_rms_norm(
    y: Tensor, z: Tensor, weight: Tensor, groups: int = 1, eps: float = 1e-5
) -> Tensor:
    """`rms_norm` of y silu(z), of each of `groups` groups of channels by itself.

    y and z (..., w) of one dtype, weight (w,) -> (..., w). Otherwise as `rms_norm`. Equivalent to
    `RMSNormGated` of mamba-ssm with `norm_before_gate=False` and groups of w / groups.
    """
    if not _fit(y, weight):
        _refuse("y", y, weight)
    if not isinstance(z, Tensor) or z.dtype != y.dtype:
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"z: expected a tensor of {y.dtype} as y, got {got}")
    if z.shape != y.shape or z.device != y.device:
        raise ValueError(
            f"z: expected {tuple(y.shape)} on {y.device} as y, got {tuple(z.shape)} on {z.device}"
        )
    if groups < 1 or y.shape[-1] % groups:
        raise ValueError(f"groups: expected a divisor of {y.shape[-1]} channels, got {groups}")
    return _call(y, z, weight, groups, eps)


def _fit(x: Tensor, weight: Tensor) -> bool:
    """Whether they do; what does not, `_refuse` names, which takes longer than a short norm."""
    return (
        isinstance(x, Tensor)
        and isinstance(weight, Tensor)
        and x.dtype in DTYPES
        and weight.dtype in DTYPES
        and x.shape[-1:] == weight.shape
        and x.device == weight.device
    )


def _refuse(given: str, x: Tensor, weight: Tensor) -> None:
    for name, tensor in ((given, x), ("weight", weight)):
        if not isinstance(tensor, Tensor) or tensor.dtype not in DTYPES:
            got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{name}: expected a tensor of real floating-point numbers, got {got}")
    raise ValueError(
        f"weight: expected a number for each of the last dimension of {tuple(x.shape)} on "
        f"{x.device}, got {tuple(weight.shape)} on {weight.device}"
    )


def _call(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float) -> Tensor:
    if torch.compiler.is_compiling() or transformed():
        return reference.norm(x, z, weight, groups, eps)
    # To call a function of autograd takes as long as a short norm.
    if watched(x, weight) or (z is not None and watched(z)):
        return _Norm.apply(x, z, weight, groups, eps)
    return _forward(x, z, weight, groups, eps)


def _forward(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float) -> Tensor:
    if (kernels := _kernels(x, groups)) is not None:
        return kernels.forward(x, z, weight, groups, eps)
    with as_given(x):
        return _plain(x, z, weight, groups, eps)


def _plain(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float) -> Tensor:
    gated = to_wide(x) if z is None else silu(to_wide(z)).mul_(to_wide(x))
    if groups > 1:
        gated = gated.unflatten(-1, (groups, -1))
    found = gated * _scale(gated, eps)
    if groups > 1:
        found = found.flatten(-2)
    return found.mul_(weight).to(x.dtype)


def _backward(
    g: Tensor, x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradients of x, z and the weight, in PyTorch, so that they can be differentiated too."""
    wide, to_out = to_wide(x), to_wide(g)
    gated, gate, slope = wide, None, None
    if z is not None:
        wide_z = to_wide(z)
        sigmoid = wide_z.sigmoid()
        gate = wide_z * sigmoid
        slope = sigmoid + gate * (1 - sigmoid)  # of silu
        gated = wide * gate
    gated = gated.unflatten(-1, (groups, -1))
    scale = _scale(gated, eps)
    normed = gated * scale
    flat = normed.flatten(-2)
    to_weight = vecdot(to_out.flatten(0, -2), flat.flatten(0, -2), dim=0).to(weight.dtype)
    to_normed = (to_out * weight).unflatten(-1, (groups, -1))
    along = vecdot(to_normed, normed)[..., None] / normed.shape[-1]
    to_gated = (torch.addcmul(to_normed, normed, along, value=-1) * scale).flatten(-2)
    if gate is None or slope is None:
        return to_gated.to(x.dtype), None, to_weight
    return (to_gated * gate).to(x.dtype), (to_gated * wide * slope).to(x.dtype), to_weight


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / rms(x), (..., 1)."""
    return (vecdot(x, x) / x.shape[-1] + eps).rsqrt()[..., None]


class _Norm(torch.autograd.Function):
    forward = staticmethod(_forward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, z, weight, ctx.groups, ctx.eps = inputs
        ctx.save_for_backward(x, z, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        x, z, weight = ctx.saved_tensors
        kernels = None if torch.is_grad_enabled() else _kernels(x, ctx.groups)
        call = _backward if kernels is None else kernels.backward
        with as_given(x):
            return *call(g, x, z, weight, ctx.groups, ctx.eps), None, None


# `apply` asks for the signature on every call; computing it takes longer than a short norm.
_forward.__signature__ = inspect.signature(_forward)  # pyright: ignore


def _kernels(x: Tensor, groups: int) -> ModuleType | None:
    """The Triton kernels where they serve."""
    kernels = _triton() if x.is_cuda else None
    return kernels if kernels and x.shape[-1] <= kernels.WIDEST * groups else None


@functools.cache
def _triton() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None  # normal for PyTorch's CPU builds
    from sparsetorch_kernels.norm import triton

    return triton
