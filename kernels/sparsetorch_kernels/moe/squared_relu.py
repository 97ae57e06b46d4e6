"""relu(x)^2 that keeps its result only.

The result is what the layer behind it keeps anyway, so that the activation costs no memory of its
own; `torch.relu(x).square()` keeps relu(x) beside it.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from sparsetorch_kernels._register import watched
from sparsetorch_kernels.csr.checks import HALF
from sparsetorch_kernels.forward_mode import nestable


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2, which keeps nothing but the result for its derivatives.

    x of any shape, float16, bfloat16, float32 or float64. The derivative is 2 sqrt(y): where y is
    not zero, its root is x. Differentiable any number of times, in reverse and forward mode; it
    compiles and maps. Equivalent to `torch.relu(x).square()` (Primer, So et al., arXiv:2109.08668).

    Raises:
        TypeError: x is not a tensor of floating-point numbers.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a tensor of floating-point numbers, got {got}")
    if torch.compiler.is_compiling():  # a compiler decides by itself what to compute again
        return torch.relu(x).square()
    return _SquaredRelu.apply(x) if watched(x) else _forward(x)


def _forward(x: Tensor) -> Tensor:
    y = x.clamp_min(0)
    return y.mul_(y)


class _SquaredRelu(torch.autograd.Function):
    generate_vmap_rule = True

    forward = staticmethod(_forward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        (y,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _slope(y) * g
        return (g * root(y)).mul_(2)  # g may be a batch where y is none

    @staticmethod
    @nestable
    def jvp(ctx: Any, tangent: Tensor):
        (y,) = ctx.saved_tensors
        return _slope(y) * tangent


# `apply` asks for the signature on every call; computing it takes longer than a short activation.
_forward.__signature__ = inspect.signature(_forward)  # pyright: ignore


def root(y: Tensor) -> Tensor:
    """The square root of squares, many of which are zero."""
    if y.dtype in HALF or not y.is_cpu:
        return y.sqrt()
    # MKL's root takes six times as long where its argument is zero (torch 2.13).
    return y.clamp_min(torch.finfo(y.dtype).tiny).rsqrt_().mul_(y)


def _slope(y: Tensor) -> Tensor:
    """2 sqrt(y), whose own derivative is 0 where y is: that of the root is infinite there."""
    positive = y > 0
    return 2 * torch.where(positive, torch.where(positive, y, 1).sqrt(), 0)
