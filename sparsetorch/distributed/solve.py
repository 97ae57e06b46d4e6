"""The differentiable solve with a distributed matrix: the implicit adjoint, in lockstep.

With x = A^-1 b and a gradient g of x: lambda = A^-H g is the gradient of b, and -lambda x^H on A's
pattern that of the values, for which a process needs the halo of x and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from sparsetorch.distributed.cg import cg, check_spd_system
from sparsetorch.distributed.matrix import DistributedCSR
from sparsetorch.linalg.dtypes import conjugate
from sparsetorch.linalg.krylov import Callback, Preconditioner
from sparsetorch.linalg.solution import Solution
from sparsetorch.linalg.solvers import Conjugated
from sparsetorch_kernels import nestable


class Options(TypedDict, total=False):
    """The options of `solve`, as `sparsetorch.distributed.cg` describes them."""

    preconditioner: Preconditioner | None
    rtol: float | None
    atol: float
    maxiter: int | None
    x0: Tensor | None
    callback: Callback | None


@overload
def solve(
    A: DistributedCSR, b: Tensor, *, full_output: Literal[True], **options: Unpack[Options]
) -> Solution: ...
@overload
def solve(
    A: DistributedCSR,
    b: Tensor,
    *,
    full_output: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...
def solve(
    A: DistributedCSR,
    b: Tensor,
    *,
    preconditioner: Preconditioner | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
    full_output: bool = False,
) -> Tensor | Solution:
    """Solve A x = b by conjugate gradients, differentiably in `A.values` and the local b.

    Arguments as for `sparsetorch.distributed.cg`. The adjoint and tangent solves use the same
    tolerances and preconditioner; x0 and callback serve the forward solve only. Derivatives of
    every order, in reverse and forward mode, are exact up to the tolerance. As entries (i, j) and
    (j, i) may be in two processes, their gradients are those of entries that vary on their own.

    Returns the local rows of x, like b, or with `full_output` the Solution, whatever its status.

    Raises:
        SolveError: the solve, or later its adjoint, failed; in all processes alike.
        TypeError, ValueError: an argument does not fit.
    """
    check_spd_system(A, b)
    options = {
        "preconditioner": preconditioner,
        "rtol": rtol,
        "atol": atol,
        "maxiter": maxiter,
    }
    record: list[Solution] = []
    once = {"x0": x0, "callback": callback, "record": record if full_output else None}
    x = _Solve.apply(A.values, b, A.detach(), options, once)
    return replace(record[0], x=x) if full_output else x


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, b: Tensor, A: DistributedCSR, options: dict, once: dict) -> Tensor:
        initial = {name: once[name] for name in ("x0", "callback") if name in once}
        solution = cg(A.with_values(values), b, **options, **initial)
        if once.get("record") is None:
            return solution.checked().x
        once["record"].append(solution)
        return solution.x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        values, _, ctx.A, ctx.options, _ = inputs
        ctx.save_for_backward(values, output)
        ctx.save_for_forward(values, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, x = ctx.saved_tensors
        options = ctx.options
        if x.is_complex() and options["preconditioner"] is not None:
            options = options | {"preconditioner": Conjugated(options["preconditioner"])}
        right = conjugate(grads[0])
        multiplier = conjugate(_Solve.apply(values, right, ctx.A.T, options, {}))
        gradient = -ctx.A.outer(multiplier, conjugate(x)) if ctx.needs_input_grad[0] else None
        return gradient, multiplier, None, None, None

    @staticmethod
    @nestable
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        values, x = ctx.saved_tensors
        d_values, d_b, *_ = tangents
        right = torch.zeros_like(x) if d_b is None else d_b
        if d_values is not None:
            right = right - ctx.A.with_values(d_values) @ x
        return _Solve.apply(values, right, ctx.A, ctx.options, {})
