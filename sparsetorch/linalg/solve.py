"""The differentiable solve: one implicit adjoint for every method.

With x = A^-1 b and a gradient g of x,

    lambda = A^-H g,    gradient of b = lambda,    gradient of A = -lambda x^H on A's pattern,

and the tangent is dx = A^-1 (db - dA x). (PyTorch's gradient is that of the real and the imaginary
part, real + i imaginary; for real numbers ^H is ^T.) Lambda comes from the transposed system,
conj(lambda) = A^-T conj(g), for which no values need to be conjugated. Both are made of solves and
sparse products that are differentiable themselves, so derivatives of every order are exact up to
the solver's tolerance. Nothing is differentiated through an iteration, and the preconditioner has
no gradient: the solution does not depend on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.batch import solve_batch
from sparsetorch.linalg.batched_gradients import map_gradients
from sparsetorch.linalg.chebyshev import Bounds
from sparsetorch.linalg.compiled import compiled_solve
from sparsetorch.linalg.dtypes import HALF, conjugate, rounded, widened
from sparsetorch.linalg.krylov import Callback, Preconditioner, check_system, starting_point
from sparsetorch.linalg.mapped import map_solve
from sparsetorch.linalg.methods import DIRECT, METHODS, Method, solver_for
from sparsetorch.linalg.solution import Solution
from sparsetorch.linalg.solvers import Solver, product
from sparsetorch_kernels import Layout, nestable, sddmm

__all__ = ["METHODS", "Method", "Options", "solve", "solve_by"]


class Options(TypedDict, total=False):
    """The options of the iterative methods, as `solve` describes them."""

    preconditioner: Preconditioner | None
    preconditioner_T: Preconditioner | None
    rtol: float | None
    atol: float
    maxiter: int | None
    x0: Tensor | None
    restart: int | None
    bounds: Bounds | None
    callback: Callback | None


@overload
def solve(
    A: CSRTensor,
    b: Tensor,
    method: Method = ...,
    *,
    full_output: Literal[True],
    **options: Unpack[Options],
) -> Solution: ...
@overload
def solve(
    A: CSRTensor,
    b: Tensor,
    method: Method = ...,
    *,
    full_output: Literal[False] = ...,
    **options: Unpack[Options],
) -> Tensor: ...
def solve(
    A: CSRTensor,
    b: Tensor,
    method: Method = "direct",
    *,
    preconditioner: Preconditioner | None = None,
    preconditioner_T: Preconditioner | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    restart: int | None = None,
    bounds: Bounds | None = None,
    callback: Callback | None = None,
    full_output: bool = False,
) -> Tensor | Solution:
    """Solve A x = b, differentiably in `A.values` and `b`, in reverse and forward mode.

    A: a square CSRTensor or a batch of them, of any floating or complex dtype. b: (n,) or (n, k),
    same dtype and device; for a batch of matrices (*batch, n), (*batch, n, k), or (n,) for all of
    them, as in `torch.linalg.solve`. They are solved one after the other.
    method: "direct" (on the CPU the factorization that suits A: Cholesky, L D L^T or LU, see
    `factorized`; made once for all right-hand sides, the adjoint and higher derivatives); for a
    symmetric, or if complex Hermitian, A "cholesky" (which fails where A is not positive definite),
    "ldlt" (where A needs exchanges of rows), "cg" (positive definite), "block_cg" (the same for all
    columns of b at once), "minres" (definite or not) or "chebyshev" (positive definite; no inner
    products); for any A "gmres", "fgmres" (for a preconditioner that changes) or "bicgstab" (short
    recurrences). The iterative methods take b column by column and stop at
    |b - A x| <= max(rtol |b|, atol), rtol 1e-6 in single and 1e-10 in double precision by default,
    or after maxiter (10 n; at least 1000 for chebyshev) iterations. Where rounding holds the
    residual above the tolerance, but below sqrt(eps) |b|, they stop there and the Solution's
    `detail` says where. The direct method fails where not a digit of the
    residual is right, on matrices that are singular to working precision. restart: steps per cycle,
    for gmres and fgmres. bounds: (smallest, largest) eigenvalue, for chebyshev. Adjoint and tangent
    solves use the same tolerances. x0, like b, and callback(iteration, residual norm) serve the
    forward solve only.

    float16 and bfloat16: everything is done in float32, adjoints and tangents too, and x and the
    gradients are rounded once (entries beyond the range of float16 become infinite, as in
    `Tensor.to`). Callables get float32; the Solution's residuals are those before rounding.

    preconditioner: approximates A^-1; a callable r -> z on (n,), an object with `apply(r)`, or a
    CSRTensor. The adjoint solve is preconditioned by `preconditioner_T` if given, which
    approximates A^-T also for complex A; by the same preconditioner, conjugated, where the method
    asks for a symmetric or Hermitian matrix (and preconditioner); by `preconditioner.T` if there is
    one; and otherwise not at all.

    In compiled code (`torch.compile`) a solve is one operator of the graph, which serves any matrix
    and, if its structure is known, costs what it costs here. Reverse mode only, of any order;
    `full_output` and callbacks are not available. A preconditioner is a CSRTensor, a Jacobi or
    BlockJacobi, also made in the graph, or another object made outside, for each of which the
    function is compiled again, and which is then kept for good. The direct method keeps the
    factors of the last four matrices for backward passes.

    Returns x like b, or with `full_output` the Solution, whatever its status.

    Raises:
        SolveError: the solve, or later its adjoint, failed; the message says what to try.
        ValueError: a matrix that is not square, sizes, devices or options that do not fit,
            `full_output` for a batch, NaN or infinity in b (or, for direct methods, in A), or, for
            "cholesky" and "ldlt", a matrix that is not symmetric or Hermitian.
        TypeError: dtypes that differ or are no floating or complex ones.
    """
    options: Any = {
        "preconditioner": widened(preconditioner),
        "preconditioner_T": widened(preconditioner_T),
        "rtol": rtol,
        "atol": atol,
        "maxiter": maxiter,
        "restart": restart,
        "bounds": bounds,
        "callback": callback,
    }
    if isinstance(A, CSRTensor) and A.ndim > 2:
        if full_output:
            raise ValueError("full_output: expected one matrix, got a batch of them")
        return solve_batch(lambda A, b, x0: solve(A, b, method, x0=x0, **options), A, b, x0)
    check_system(A, b)
    if A.dtype in HALF:
        guess = None if x0 is None else widened(starting_point(x0, b, tuple(b.shape)))
        options |= {"x0": guess, "full_output": full_output}
        found: Any = solve(widened(A), widened(b), method, **options)
        return rounded(found, A.dtype) if full_output else found.to(A.dtype)
    if x0 is not None and method in DIRECT:
        raise ValueError(f"x0: {method!r} takes no options of the iterative methods")
    if torch.compiler.is_compiling():
        if full_output or options.pop("callback") is not None:
            raise ValueError("full_output, callback: not available in compiled code")
        return compiled_solve(A, b, method, x0, **options)
    solver = solver_for(A.pattern, A.dtype, method, **options)
    record: list[Solution] | None = [] if full_output else None
    x = _Solve.apply(A.values, b, x0, solver, record, *solver.tensors)
    return x if record is None else replace(record[0], x=x)


def solve_by(solver: Solver, values: Tensor, b: Tensor) -> Tensor:
    """x = A^-1 b by a solver that is kept, differentiable as `solve`; failures raise."""
    return _Solve.apply(values, b, None, solver, None, *solver.tensors)


class _Solve(torch.autograd.Function):
    """x = A^-1 b. With a record, the outcome goes there; without one, failures raise."""

    @staticmethod
    def forward(
        values: Tensor,
        b: Tensor,
        x0: Tensor | None,
        solver: Solver,
        record: list[Solution] | None,
        *tensors: Tensor,
    ) -> Tensor:
        solution = solver.holding(tensors).solve(values, b, x0)
        if record is None:
            solution.checked()
        else:
            record.append(solution)
        # PyTorch forbids to change in place what a function returned as a view.
        return solution.x.clone() if solution.x._is_view() else solution.x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        values, _, _, ctx.solver, _, *tensors = inputs
        ctx.save_for_backward(values, output, *tensors)
        ctx.save_for_forward(values, output, *tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, x, *tensors = ctx.saved_tensors
        adjoint = ctx.solver.holding(tensors).adjoint

        def solve_adjoint(g: Tensor) -> Tensor:
            return conjugate(
                _Solve.apply(values, conjugate(g), None, adjoint, None, *adjoint.tensors)
            )

        multiplier = map_gradients(solve_adjoint, *grads)
        need_values = ctx.needs_input_grad[0]
        gradient = None
        if need_values:
            gradient = -_outer_product(ctx.solver.layout, multiplier, conjugate(x))
        return gradient, multiplier, *(None,) * (3 + len(tensors))

    @staticmethod
    @nestable
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        values, x, *tensors = ctx.saved_tensors
        d_values, d_b, *_ = tangents
        right = torch.zeros_like(x) if d_b is None else d_b
        if d_values is not None:
            right = right - product(ctx.solver.layout, d_values, x)
        return _Solve.apply(values, right, None, ctx.solver.again, None, *tensors)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        values: Tensor,
        b: Tensor,
        x0: Tensor | None,
        solver: Solver,
        record: list[Solution] | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, int]:
        if record is not None:
            raise ValueError("full_output: not available under torch.vmap")

        def apply(many: bool, values: Tensor, b: Tensor, x0: Tensor | None, tensors: Any) -> Tensor:
            own = solver.independent() if many else solver
            return _Solve.apply(values, b, x0, own, None, *tensors)

        values_dim, b_dim, x0_dim, _, _, *tensor_dims = in_dims
        dims = (values_dim, b_dim, x0_dim, tensor_dims)
        return map_solve(apply, info.batch_size, (values, b, x0, tensors), dims)


def _outer_product(layout: Layout, u: Tensor, v: Tensor) -> Tensor:
    """`u v^T` on the pattern, (nnz,), for (n,) or (n, k) operands."""
    if u.ndim == 1:
        u, v = u[:, None], v[:, None]
    return sddmm(layout, u, v)
