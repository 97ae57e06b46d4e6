"""Values put into another order, which is how a transposed matrix gets its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsetorch_kernels import _native
from sparsetorch_kernels._register import watched


def permute(values: Tensor, perm: Tensor) -> Tensor:
    """`values[..., perm]` for a permutation: values (*b, n), perm (n,) int32 or int64 -> (*b, n).

    As `index_select`, but on all threads, and with a gradient that writes each place once instead
    of adding to it. Any dtype; perm is trusted as the arrays of a `Layout` are. Differentiable any
    number of times, in reverse and forward mode.
    """
    if not values.is_cpu or torch.compiler.is_compiling() or _native.ops() is None:
        return values.index_select(-1, perm)
    if watched(values, values):
        return _Permute.apply(values, perm, False)
    return _permuted(values, perm, False)


def _permuted(values: Tensor, perm: Tensor, inverse: bool) -> Tensor:
    native = _native.ops()
    assert native is not None
    plain = values.resolve_conj().resolve_neg()
    flat = plain.reshape(values.shape[:-1].numel(), values.shape[-1])
    # Not a view of another tensor: PyTorch forbids to change what a function returned as one.
    return torch.ops.aten._unsafe_view(native.permute(flat, perm, inverse), values.shape)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, perm: Tensor, inverse: bool) -> Tensor:
        return _permuted(values, perm, inverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, ctx.perm, ctx.inverse = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor):
        return _Permute.apply(grad, ctx.perm, not ctx.inverse), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _perm: None, _inverse: None):
        return _Permute.apply(tangent, ctx.perm, ctx.inverse)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, values: Tensor, perm: Tensor, inverse: bool):
        if in_dims[1] is not None:
            raise ValueError("a sparsity pattern cannot be mapped over; vmap values or operands")
        return _Permute.apply(values.movedim(in_dims[0], 0), perm, inverse), 0
