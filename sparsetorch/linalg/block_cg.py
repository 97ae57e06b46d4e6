"""Block conjugate gradients: O'Leary (1980), in the form BCGrQ of Dubrulle (2001).

All columns of b share one Krylov space, so that k columns take fewer steps than one does alone, and
one product with a block of vectors per step. Dubrulle's form keeps an M-orthonormal basis Q of the
residuals R = Q C in the place of R itself: it does not break down where columns converge at
different times. Here the basis comes from a singular value decomposition, which finds the rank:
columns that are zero or depend on others leave the block.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.columns import Callback, in_range, rescaled
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, rounded, widened
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.linalg.krylov import (
    GROWTH_LIMIT,
    INSTEAD,
    Operator,
    Preconditioner,
    check_right_hand_side,
    check_tolerances,
    checked_maxiter,
    checked_operator,
    divided,
    matrix_scale,
    starting_point,
)
from sparsetorch.linalg.solution import Solution, Status
from sparsetorch.structure import refuse_compiled


def block_cg(
    A: CSRTensor | Operator,
    b: Tensor,
    *,
    preconditioner: Preconditioner | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve A X = B for all columns of B at once by preconditioned block conjugate gradients.

    A: a square CSRTensor, symmetric positive definite, or a callable X -> A X on (n, k). b: (n, k)
    or (n,); of any floating or complex dtype; columns may be zero, equal or dependent. A and the
    preconditioner are Hermitian if complex. preconditioner: symmetric positive definite; a callable
    r -> z on (n,), an object with `apply(r)`, or a CSRTensor. Each column stops at |b - A x| <=
    max(rtol |b|, atol), with rtol 1e-6 in single and 1e-10 in double precision by default, or all
    after maxiter (10 n) iterations. x0: initial guess, like b. callback: called with (iteration,
    largest residual norm).

    In exact arithmetic the error of each column, in the norm of A, is at most that of `cg` after as
    many steps. Each step costs 4 n k^2 operations beside the product with A, so k of some tens
    pays. No gradients are recorded: `solve(A, b, "block_cg")` is the differentiable call. A failure
    is the solution's status. Nearest equivalent: Belos' BlockCGSolMgr.

    float16 and bfloat16 are solved in float32, which is also what callables get, and x is rounded
    once. A CSRTensor with entries out of range is rescaled as in `cg`.

    Raises:
        TypeError, ValueError: an argument does not fit, or b is not finite.
    """
    refuse_compiled("an iterative method by itself", INSTEAD)
    check_right_hand_side(A, b)
    check_tolerances(rtol, atol)
    maxiter = checked_maxiter(maxiter, 10 * b.shape[0])
    start, dtype = widened(starting_point(x0, b, tuple(b.shape))), b.dtype
    A, b, preconditioner = widened(A), widened(b), widened(preconditioner)
    if (scale := matrix_scale(A)) != 1:

        def solve_divided(A: Any, preconditioner: Preconditioner | None, x0: Tensor) -> Solution:
            return block_cg(
                A, b, preconditioner=preconditioner, rtol=rtol, atol=atol, maxiter=maxiter,
                x0=x0, callback=callback,
            )  # fmt: skip

        return rounded(divided(solve_divided, A, preconditioner, start, scale), dtype)
    if not in_range(b):

        def solve(b: Tensor, x0: Tensor, atol: float, callback: Callback | None) -> Solution:
            return block_cg(
                A, b, preconditioner=preconditioner, rtol=rtol, atol=atol, maxiter=maxiter,
                x0=x0, callback=callback,
            )  # fmt: skip

        return rounded(rescaled(solve, b.detach(), start, atol, callback), dtype)
    n, k = b.shape[0], b.shape[1] if b.ndim == 2 else 1
    with torch.no_grad(), in_full_precision(b.device):
        system = _System(A, preconditioner, b.detach().reshape(n, k))
        norms = torch.linalg.vector_norm(system.b, dim=0)
        relative = DEFAULT_RTOL[b.dtype] if rtol is None else rtol
        monitor = BlockMonitor(norms, relative, atol, maxiter, callback)
        x = torch.where(norms > 0, start.reshape(n, k), 0)  # as in `cg`: zero for a zero column
        x, status, detail = _refined(system, x, monitor)
    x = x.reshape(b.shape)
    iterations = len(monitor.residuals) - 1
    return rounded(Solution(x, status, iterations, monitor.residuals, detail), dtype)


class BlockMonitor:
    """The stopping rule for each column, and the history of the largest residual norm."""

    def __init__(
        self, norms: Tensor, rtol: float, atol: float, maxiter: int, callback: Callback | None
    ):
        self.norms = norms  # (k,), of the columns of b
        self.tolerances = (rtol * norms).clamp(min=atol)
        self.maxiter = maxiter
        self.callback = callback
        self.residuals: list[float] = []
        self._initial = 1.0  # residual norm over that of b, at the start

    def record(self, residuals: Tensor) -> Status | None:
        """Note the residual norms (k,) after an iteration; a status means stop."""
        largest, growth, done = 0.0, 0.0, True
        if residuals.numel():
            scaled = residuals / self.norms.clamp(min=torch.finfo(residuals.dtype).tiny)
            numbers = [residuals.max(), scaled.max(), (residuals <= self.tolerances).all()]
            largest, growth, done = torch.stack([n.double() for n in numbers]).tolist()
        self.residuals.append(largest)
        if self.callback is not None:
            self.callback(len(self.residuals) - 1, largest)
        if done:
            return Status.CONVERGED
        if len(self.residuals) == 1:
            self._initial = max(1.0, growth)
        if not growth <= GROWTH_LIMIT * self._initial:  # NaN, too
            return Status.DIVERGED
        return Status.MAXITER if len(self.residuals) > self.maxiter else None

    def worst(self, residuals: Tensor) -> int:
        """The column that is furthest from its tolerance."""
        return int((residuals / self.tolerances).nan_to_num(math.inf).argmax())


class Basis(NamedTuple):
    """A block W = Q C with Q^H M Q = I, and Z = M Q; r columns, the rank of W."""

    Q: Tensor  # (n, r)
    Z: Tensor  # (n, r)
    C: Tensor  # (r, k)


class _System:
    """A X = B with products for blocks."""

    def __init__(self, A: CSRTensor | Operator, preconditioner: Preconditioner | None, b: Tensor):
        self.b = b
        self.multiply: Operator = checked_operator(
            "A", A.detach().matmul if isinstance(A, CSRTensor) else A
        )
        self._precondition = (
            None if preconditioner is None else checked_operator("preconditioner", preconditioner)
        )

    def basis(self, W: Tensor) -> Basis | None:
        """M-orthonormalise a block, its rank found; None if M is not positive definite."""
        Q, R = torch.linalg.qr(W)
        U, sizes, Vh = torch.linalg.svd(R, full_matrices=False)
        rounding = 10 * max(W.shape[1], 1) * torch.finfo(W.dtype).eps
        rank = int((sizes > rounding * sizes[:1]).sum())
        Q, C = Q @ U[:, :rank], sizes[:rank, None] * Vh[:rank]
        if self._precondition is None or rank == 0:
            return Basis(Q, Q, C)
        Z = torch.stack([self._precondition(q) for q in Q.unbind(1)], 1)
        L, info = torch.linalg.cholesky_ex(Q.mH @ Z)
        if int(info):
            return None
        inverse = torch.linalg.solve_triangular(L.mH, torch.eye(rank).to(L), upper=True)
        return Basis(Q @ inverse, Z @ inverse, L.mH @ C)


def _refined(system: _System, x: Tensor, monitor: BlockMonitor) -> tuple[Tensor, Status, str]:
    """Iterate, and again from there while some b - A x is larger than the iteration believed."""
    before = math.inf
    while True:
        x, status, detail = _iterate(system, x, monitor)
        residuals = torch.linalg.vector_norm(system.b - system.multiply(x), dim=0)
        if residuals.numel() == 0:
            return x, status, detail
        monitor.residuals[-1] = float(residuals.max())
        worst = monitor.worst(residuals)
        named = f"column {worst}" if x.shape[1] > 1 else ""
        if status is not Status.CONVERGED:
            return x, status, ", ".join(filter(None, [named, detail]))
        over = float((residuals / monitor.tolerances).nan_to_num(0.0).max())
        if over <= 1:
            return x, status, detail
        if over > 0.5 * before:
            allowed = math.sqrt(torch.finfo(x.dtype).eps) * monitor.norms
            accurate = residuals <= torch.maximum(allowed, 10 * monitor.tolerances)
            if not bool(accurate.all()):
                return x, Status.INACCURATE, named
            relative = float((residuals / monitor.norms).nan_to_num(0.0).max())
            return x, status, f"rounding holds the relative residual at {relative:.1e}"
        before = over
        monitor.residuals.pop()  # the next round records this residual as its first


def _iterate(system: _System, x: Tensor, monitor: BlockMonitor) -> tuple[Tensor, Status, str]:
    """Dubrulle's algorithm from x: the residuals are Q C, the directions P, and D = P^H A P."""
    r = system.b - system.multiply(x)
    status = monitor.record(torch.linalg.vector_norm(r, dim=0))
    if status is not None:
        return x, status, ""
    # Columns of one size, so that the rank is not a matter of units.
    sizes = torch.linalg.vector_norm(r, dim=0)
    sizes = torch.where(sizes > 0, sizes, 1)
    basis = system.basis(r / sizes)
    if basis is None:
        return x, Status.INDEFINITE, "r.M r <= 0"
    C, P = basis.C * sizes, basis.Z
    while True:
        AP = system.multiply(P)
        L, info = torch.linalg.cholesky_ex(P.mH @ AP)
        if int(info):
            return x, Status.INDEFINITE, "p.A p <= 0"
        x = x + P @ torch.cholesky_solve(C, L)
        W = basis.Q - torch.cholesky_solve(AP.mH, L).mH
        basis = system.basis(W)
        if basis is None:
            return x, Status.INDEFINITE, "r.M r <= 0"
        C = basis.C @ C
        status = monitor.record(torch.linalg.vector_norm(basis.Q @ C, dim=0))
        if status is not None:
            return x, status, ""
        P = basis.Z + P @ basis.C.mH
