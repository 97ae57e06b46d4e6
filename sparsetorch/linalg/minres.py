"""MINRES: Paige and Saunders (1975), Solution of sparse indefinite systems of linear equations."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.krylov import (
    Callback,
    Monitor,
    Operator,
    Outcome,
    Preconditioner,
    norm,
    run,
)
from sparsetorch.linalg.lanczos import Lanczos
from sparsetorch.linalg.solution import Solution, Status


def minres(
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
    """Solve A x = b for a symmetric A, definite or not, by the minimal residual method.

    Arguments, stopping rule, dtypes and result are those of `cg`, with A (n, n) Hermitian if
    complex (for one with A = A^T and complex entries use gmres or bicgstab). preconditioner: M,
    positive definite even where A is not. Each step makes r . M r as small as it can be,
    r = b - A x; reported is |r|.

    A singular A is solved if b is in its range; otherwise the status is BREAKDOWN, and x minimises
    |b - A x| (without a preconditioner). Equivalent to `scipy.sparse.linalg.minres`, which takes
    |A| |x| into its stopping rule and no complex numbers.

    Raises:
        TypeError, ValueError: an argument does not fit, or b is not finite.
    """
    return run(
        _iterate,
        A,
        b,
        preconditioner=preconditioner,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        x0=x0,
        callback=callback,
    )


class Step(NamedTuple):
    """A column of the triangular factor R, and how far to go along the new direction."""

    two_above: float
    above: float
    diagonal: float
    length: float


class TridiagonalLeastSquares:
    """min |beta e_1 - T y|, by rotations [[c, s], [s, -c]] as columns of T arrive; on the host.

    Afterwards `residual` is the minimum, `c` and `s` the last rotation, and `slope` what
    |A r| / (|A| |r|) was before.
    """

    def __init__(self, beta: float, precision: float):
        self.residual = beta
        self.c, self.s = -1.0, 0.0
        self.slope = 1.0
        self._precision = precision
        self._above = 0.0  # entries of the next column that rotations have reached already
        self._two_above = 0.0
        self._norm = 0.0

    def append(self, column: tuple[float, float, float]) -> Step | None:
        """Add a column of T; None, and no change, if A maps the residual so far to zero."""
        _, alpha, beta = column
        above = self.c * self._above + self.s * alpha
        pivot = self.s * self._above - self.c * alpha
        next_above = -self.c * beta
        self._norm = max(self._norm, math.hypot(*column))
        self.slope = math.hypot(pivot, next_above) / self._norm if self._norm else 0.0
        if self.slope <= 10 * self._precision:
            return None
        two_above, self._two_above, self._above = self._two_above, self.s * beta, next_above
        diagonal = math.hypot(pivot, beta)
        self.c, self.s = pivot / diagonal, beta / diagonal
        length = self.c * self.residual
        self.residual *= self.s
        return Step(two_above, above, diagonal, length)


def _iterate(
    multiply: Operator, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    outcome = _minimise(multiply, precondition, b, x, monitor)
    if outcome.status is Status.MAXITER and not _looks_symmetric(multiply, b, outcome.x):
        kind = "Hermitian" if b.is_complex() else "symmetric"
        return outcome._replace(detail=f"the matrix is not {kind}")
    return outcome


def _looks_symmetric(multiply: Operator, u: Tensor, v: Tensor) -> bool:
    """Whether u^H A v = (A u)^H v, up to half the digits."""
    Au, Av = multiply(u), multiply(v)
    scale = norm(u) * norm(Av) + norm(v) * norm(Au)
    return bool(
        (torch.vdot(u, Av) - torch.vdot(Au, v)).abs() <= math.sqrt(torch.finfo(u.dtype).eps) * scale
    )


def _minimise(
    multiply: Operator, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    r = b - multiply(x)
    status = monitor.record(float(norm(r)))
    if status is not None:
        return Outcome(x, status)
    lanczos = Lanczos(multiply, precondition, r)
    if failure := lanczos.failure():
        return Outcome(x, *failure)
    precision = torch.finfo(b.dtype).eps
    problem = TridiagonalLeastSquares(lanczos.beta, precision)
    minimum: tuple[Tensor, float] | None = None
    direction = direction_before = torch.zeros_like(x)
    unit = lanczos.v  # the residual is problem.residual times this, which M alone makes a unit
    while True:
        q = lanczos.q
        column = lanczos.step()
        if failure := lanczos.failure():
            return Outcome(x, *failure)
        step = problem.append(column)
        if step is None:
            return Outcome(x, Status.BREAKDOWN)
        if minimum is None and problem.slope <= math.sqrt(precision):
            minimum = x, monitor.residuals[-1]
        rest = q - step.above * direction - step.two_above * direction_before
        direction, direction_before = rest / step.diagonal, direction
        x = x + step.length * direction
        unit = problem.s * unit - problem.c * lanczos.v
        status = monitor.record(abs(problem.residual) * float(norm(unit)))
        if minimum is not None and monitor.residuals[-1] <= 0.5 * minimum[1]:
            # Either A is ill-conditioned, or b is not in its range and rounding makes the method
            # believe that it has left the minimum.
            if float(norm(b - multiply(x))) > 0.75 * minimum[1]:
                return Outcome(minimum[0], Status.BREAKDOWN)
            minimum = None
        if status is not None:
            return Outcome(x, status)
