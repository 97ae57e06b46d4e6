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
from sparsetorch.linalg.bicgstab import bicgstab
from sparsetorch.linalg.block_cg import block_cg
from sparsetorch.linalg.cg import cg
from sparsetorch.linalg.chebyshev import Bounds, chebyshev
from sparsetorch.linalg.dtypes import HALF, rounded, widened
from sparsetorch.linalg.fgmres import fgmres
from sparsetorch.linalg.gmres import gmres
from sparsetorch.linalg.krylov import Callback, Preconditioner, check_system, starting_point
from sparsetorch.linalg.minres import minres
from sparsetorch.linalg.solution import Solution
from sparsetorch.linalg.solvers import Conjugated, DirectSolver, KrylovSolver, Solver, product
from sparsetorch_kernels import Layout, sddmm

Method = Literal[
    "direct",
    "cholesky",
    "cg",
    "block_cg",
    "minres",
    "chebyshev",
    "gmres",
    "fgmres",
    "bicgstab",
]
METHODS = {
    "cg": cg,
    "block_cg": block_cg,
    "minres": minres,
    "chebyshev": chebyshev,
    "gmres": gmres,
    "fgmres": fgmres,
    "bicgstab": bicgstab,
}
SYMMETRIC = ("cg", "block_cg", "minres", "chebyshev")
PARTICULAR = {"restart": ("gmres", "fgmres"), "bounds": ("chebyshev",)}


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
    method: "direct" (on the CPU: Cholesky where A is real and symmetric positive definite, else LU;
    factorized once for all right-hand sides, the adjoint and higher derivatives) or "cholesky"
    (which fails where A is not); for a symmetric, or if complex Hermitian, A "cg" (positive
    definite), "block_cg" (the same for all columns of b at once), "minres" (definite or not) or
    "chebyshev" (positive definite; no inner products); for any A "gmres", "fgmres" (for a
    preconditioner that changes) or "bicgstab" (short recurrences). The iterative methods take b
    column by column and stop at |b - A x| <= max(rtol |b|, atol), rtol 1e-6 in single and 1e-10 in
    double precision by default, or after maxiter (10 n; at least 1000 for chebyshev) iterations.
    Where rounding holds the residual above the tolerance, but below sqrt(eps) |b|, they stop there
    and the Solution's `detail` says where. The direct method fails where not a digit of the
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

    Returns x like b, or with `full_output` the Solution, whatever its status.

    Raises:
        SolveError: the solve, or later its adjoint, failed; the message says what to try.
        ValueError: a matrix that is not square, sizes, devices or options that do not fit,
            `full_output` for a batch, NaN or infinity in b (or, for direct methods, in A), or, for
            "cholesky", a matrix that is not symmetric.
        TypeError: dtypes that differ or are no floating or complex ones, or "cholesky" for a
            complex matrix.
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
    solver: Solver
    if method in ("direct", "cholesky"):
        given = (preconditioner, preconditioner_T, rtol, maxiter, x0, restart, bounds, callback)
        if atol != 0.0 or any(option is not None for option in given):
            raise ValueError(f"method: {method!r} takes no options of the iterative methods")
        solver = DirectSolver(A.pattern, "auto" if method == "direct" else "cholesky")
    elif method in METHODS:
        options = {"rtol": rtol, "atol": atol, "maxiter": maxiter}
        options |= _particular(method, restart=restart, bounds=bounds)
        if preconditioner_T is None:
            preconditioner_T = _transposed(preconditioner, method, A.dtype)
        solver = KrylovSolver(
            A.pattern, METHODS[method], options, preconditioner, preconditioner_T, callback
        )
    else:
        known = ", ".join(map(repr, METHODS))
        raise ValueError(f"method: expected 'direct', 'cholesky', {known}, got {method!r}")
    record: list[Solution] | None = [] if full_output else None
    x = _Solve.apply(A.values, b, x0, solver, record, *solver.tensors)
    return x if record is None else replace(record[0], x=x)


def _particular(method: Method, **options: Any) -> dict[str, Any]:
    """The options that are given, none of which may belong to other methods only."""
    given = {name: option for name, option in options.items() if option is not None}
    for name in given:
        if method not in PARTICULAR[name]:
            raise ValueError(f"{name}: for {' and '.join(PARTICULAR[name])}, not for {method!r}")
    return given


def _transposed(
    preconditioner: Preconditioner | None, method: Method, dtype: torch.dtype
) -> Preconditioner | None:
    if method in SYMMETRIC:
        if preconditioner is None or not dtype.is_complex:
            return preconditioner
        return Conjugated(preconditioner)
    return getattr(preconditioner, "T", None)


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
            return solution.checked().x
        record.append(solution)
        return solution.x

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
        values_dim, b_dim, x0_dim, _, _, *tensors_dims = in_dims
        if values_dim is None and all(dim is None for dim in tensors_dims):
            # One matrix: the mapped dimension joins the columns, and one factorization serves all.
            columns = _last(b, b_dim, info.batch_size)
            guesses = None if x0 is None else _last(x0, x0_dim, info.batch_size).flatten(1)
            x = _Solve.apply(values, columns.flatten(1), guesses, solver, None, *tensors)
            return x.reshape(columns.shape), columns.ndim - 1

        def member(t: Tensor, dim: int | None, i: int) -> Tensor:
            return t if dim is None else t.select(dim, i)

        solutions = [
            _Solve.apply(
                member(values, values_dim, i),
                member(b, b_dim, i),
                None if x0 is None else member(x0, x0_dim, i),
                solver.independent(),
                None,
                *(member(t, dim, i) for t, dim in zip(tensors, tensors_dims)),
            )
            for i in range(info.batch_size)
        ]
        if not solutions:
            return (b.new_empty(0, *b.shape), 0) if b_dim is None else (torch.empty_like(b), b_dim)
        return torch.stack(solutions), 0


def conjugate(t: Tensor) -> Tensor:
    """The complex conjugate, written out: gradients reach users, and NumPy refuses lazy ones."""
    return t.conj().resolve_conj() if t.is_complex() else t


def _last(t: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with its mapped dimension behind the others, or repeated if it has none."""
    return t.unsqueeze(-1).expand(*t.shape, size) if dim is None else t.movedim(dim, -1)


def _outer_product(layout: Layout, u: Tensor, v: Tensor) -> Tensor:
    """`u v^T` on the pattern, (nnz,), for (n,) or (n, k) operands."""
    if u.ndim == 1:
        u, v = u[:, None], v[:, None]
    return sddmm(layout, u, v)
