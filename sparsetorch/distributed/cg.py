"""Conjugate gradients for a distributed matrix: as `sparsetorch.linalg.cg`, in lockstep.

Every decision is made from sums over all processes, so that all decide alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsetorch.distributed.groups import Group
from sparsetorch.distributed.matrix import DistributedCSR
from sparsetorch.distributed.reductions import norm, total
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, names
from sparsetorch.linalg.krylov import (
    Callback,
    Monitor,
    Operator,
    Outcome,
    Preconditioner,
    as_operator,
    check_tolerances,
    checked_maxiter,
    columns_of,
    combine,
    starting_point,
)
from sparsetorch.linalg.solution import Solution, Status


@torch.no_grad()
def cg(
    A: DistributedCSR,
    b: Tensor,
    *,
    preconditioner: Preconditioner | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A by preconditioned conjugate gradients.

    A: square, with one partition for rows and columns; Hermitian if complex; that it is, is not
    checked. b: the local rows, (n_local,), or (n_local, k) solved column by column; single or
    double precision. preconditioner: positive definite like A, of local vectors; such as
    `Jacobi(A.diagonal_block())` or `ic0(A.diagonal_block())`. rtol, atol, maxiter, x0 and callback
    as in `sparsetorch.linalg.cg`, norms being those of whole vectors.

    An iteration costs a product, and two all_reduces of three numbers together. No gradients are
    recorded: `sparsetorch.distributed.solve` is the differentiable call. A failure is the
    solution's status, the same in all processes.

    Raises:
        TypeError, ValueError: an argument does not fit, or b is not finite in some process.
    """
    check_spd_system(A, b)
    check_tolerances(rtol, atol)
    maxiter = checked_maxiter(maxiter, 10 * A.shape[0])
    start = starting_point(x0, b, tuple(b.shape))
    precondition = _identity
    if preconditioner is not None:
        precondition = as_operator("preconditioner", preconditioner)
    norms = norm(b.detach()[:, None] if b.ndim == 1 else b.detach(), A.group)
    if not bool(norms.isfinite().all()):
        raise ValueError("b: expected finite numbers, got NaN or infinity in some process")
    rtol = DEFAULT_RTOL[b.dtype] if rtol is None else rtol
    A = A.detach()
    outcomes, histories = [], []
    for column, guess, b_norm in zip(columns_of(b.detach()), columns_of(start), norms.tolist()):
        monitor = Monitor(b_norm, rtol, atol, maxiter, callback)
        if b_norm == 0:
            outcomes.append(Outcome(torch.zeros_like(column), Status.CONVERGED))
            histories.append([0.0])
            continue
        outcomes.append(_refined(A, precondition, column, guess.clone(), monitor))
        histories.append(monitor.residuals)
    return combine(start, outcomes, histories)


def check_spd_system(A: DistributedCSR, b: Tensor) -> None:
    """Raise TypeError or ValueError unless the matrix may be symmetric and b fits it."""
    if not isinstance(A, DistributedCSR):
        raise TypeError(f"A: expected a DistributedCSR, got {type(A).__name__}")
    if A.blocks.rows != A.blocks.cols:
        raise ValueError(
            f"A: expected a square matrix with one partition for rows and columns, got shape "
            f"{A.shape}, rows from {A.blocks.rows} and columns from {A.blocks.cols}"
        )
    A.check_operand("b", b)
    if A.dtype not in DEFAULT_RTOL:
        raise TypeError(f"A: expected {names(DEFAULT_RTOL)}, got {A.dtype}")


def _refined(
    A: DistributedCSR, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    """Iterate, and again from there while b - A x is larger than the iteration believed."""
    before = math.inf
    while True:
        outcome = _iterate(A, precondition, b, x, monitor)
        residual = float(norm(b - A @ outcome.x, A.group))
        monitor.residuals[-1] = residual
        if outcome.status is not Status.CONVERGED or residual <= monitor.tolerance:
            return outcome
        if residual > 0.5 * before:
            # A gap beyond the square root of the precision is more than rounding.
            allowed = math.sqrt(torch.finfo(b.dtype).eps) * monitor.b_norm
            if residual > max(allowed, 10 * monitor.tolerance):
                return outcome._replace(status=Status.INACCURATE)
            relative = residual / monitor.b_norm
            detail = f"rounding holds the relative residual at {relative:.1e}"
            return outcome._replace(detail=detail)
        x, before = outcome.x, residual
        monitor.residuals.pop()  # the next round records this residual as its first


def _iterate(
    A: DistributedCSR, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    r = b - A @ x
    z = precondition(r)
    rr, rz = _sums(A.group, (r, r), (r, z))
    p = z
    while True:
        status = monitor.record(math.sqrt(rr))
        if status is not None:
            return Outcome(x, status)
        q = A @ p
        (pq,) = _sums(A.group, (p, q))
        for name, curvature in (("r.M r", rz), ("p.A p", pq)):
            if math.isnan(curvature):
                return Outcome(x, Status.DIVERGED, f"{name} is NaN")
            if curvature <= 0:
                return Outcome(x, Status.INDEFINITE, f"{name} = {curvature:.3g}")
        x = x + (rz / pq) * p
        r = r - (rz / pq) * q
        z = precondition(r)
        before = rz
        rr, rz = _sums(A.group, (r, r), (r, z))
        p = z + (rz / before) * p


def _sums(group: Group, *pairs: tuple[Tensor, Tensor]) -> list[float]:
    """The inner products, which are real, of several pairs of vectors, by one all_reduce."""
    return total(torch.stack([torch.vdot(u, v).real for u, v in pairs]), group).tolist()


def _identity(r: Tensor) -> Tensor:
    return r
