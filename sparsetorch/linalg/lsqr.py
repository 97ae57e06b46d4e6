"""LSQR: Paige and Saunders (1982), An algorithm for sparse linear equations and least squares."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.columns import (
    Callback,
    Outcome,
    columns_of,
    combine,
    exact_scale,
    in_range,
    rescaled,
)
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, rounded, widened
from sparsetorch.linalg.krylov import (
    Monitor,
    check_right_hand_side,
    check_tolerances,
    checked_maxiter,
    starting_point,
)
from sparsetorch.linalg.solution import Solution, Status
from sparsetorch.structure import refuse_compiled


def lsqr(
    A: CSRTensor,
    b: Tensor,
    *,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Minimise |b - A x| for an A of any shape; from x0 = 0, by the shortest x that does.

    A: one CSRTensor (m, n). b: (m,), or (m, k) solved column by column; of any floating or complex
    dtype. x0: initial guess, (n,) or (n, k). Stops at |r| <= max(rtol |b|, atol) for r = b - A x,
    where the system has a solution, and at |A^H r| <= rtol |A| |r|, |A| the Frobenius norm, where
    it has not; rtol is 1e-6 in single and 1e-10 in double precision by default, maxiter 10 n.
    callback: called with (iteration, residual norm). Each iteration multiplies by A and by A^H
    once. For the damped problem, |b - A x|^2 + |d x|^2, put d I below A and zeros below b.

    Returns a Solution with x (n,) or (n, k); its residuals are those of a minimum, so the last one
    need not be small. Equivalent to `scipy.sparse.linalg.lsqr`.

    float16 and bfloat16 are solved in float32, and x is rounded once.

    Raises:
        ValueError: an argument does not fit, b is not finite, or A, b or x0 requires a gradient
            where gradients are recorded: there is none for this method.
        TypeError: A is not a CSRTensor, or a dtype does not fit.
    """
    refuse_compiled("lsqr")
    check_right_hand_side(A, b, rectangular=True)
    _refuse_gradients(A.values, b, x0)
    n = A.shape[1]
    start = widened(starting_point(x0, b, (n, *b.shape[1:])))
    dtype = b.dtype
    check_tolerances(rtol, atol)
    rtol = DEFAULT_RTOL[start.dtype] if rtol is None else rtol
    maxiter = checked_maxiter(maxiter, 10 * n)
    with torch.no_grad():
        A, b = widened(A.detach()), widened(b)
        scale = exact_scale(A.values)
        A, start = A / scale, start * scale

        def solve(b: Tensor, start: Tensor, atol: float, callback: Callback | None) -> Solution:
            outcomes: list[Outcome] = []
            histories: list[list[float]] = []
            for column, x in zip(columns_of(b), columns_of(start)):
                problem = LeastSquares(A, column, rtol, atol, maxiter, callback)
                outcomes.append(problem.refined(x))
                histories.append(problem.monitor.residuals)
            return combine(start, outcomes, histories)

        by = solve if in_range(b) else partial(rescaled, solve)
        solution = by(b, start, atol, callback)
        return rounded(replace(solution, x=solution.x / scale), dtype)


class LeastSquares:
    """One matrix and one right-hand side (m,), and when an x is good enough."""

    def __init__(
        self,
        A: CSRTensor,
        b: Tensor,
        rtol: float,
        atol: float,
        maxiter: int,
        callback: Callback | None,
    ):
        self.A, self.b = A, b
        self.rtol = rtol
        self.A_norm = float(A.values.norm())
        self.monitor = Monitor(float(b.norm()), rtol, atol, maxiter, callback)

    def is_solved(self, residual: float, slope: float, slack: float = 0.0) -> bool:
        """Whether |r| or |A^H r| is small enough; `slack` is a least tolerance for both."""
        tolerance = max(self.monitor.tolerance, slack * self.monitor.b_norm)
        return residual <= tolerance or slope <= max(self.rtol, slack) * self.A_norm * residual

    def refined(self, x: Tensor) -> Outcome:
        """Iterate from x, and again from there while b - A x is worse than the iteration believed.

        The two drift apart by rounding; starting anew closes the gap as far as precision allows.
        """
        if self.monitor.b_norm == 0:
            self.monitor.record(0.0)
            return Outcome(torch.zeros_like(x), Status.CONVERGED)
        before = math.inf
        while True:
            x, status, _ = self._iterate(x)
            r = self.b - self.A.matvec(x)
            residual, slope = float(r.norm()), float(self._adjoint(r).norm())
            self.monitor.residuals[-1] = residual
            if status is not Status.CONVERGED or self.is_solved(residual, slope):
                return Outcome(x, status)
            if slope > 0.5 * before:
                # A gap beyond the square root of the precision is more than rounding.
                slack = math.sqrt(torch.finfo(x.dtype).eps)
                accurate = self.is_solved(residual, slope, slack)
                return Outcome(x, Status.CONVERGED if accurate else Status.INACCURATE)
            before = slope
            self.monitor.residuals.pop()  # the next round records this residual as its first

    def _adjoint(self, u: Tensor) -> Tensor:
        """A^H u; it is the vectors that are conjugated, not the values."""
        return self.A.rmatvec(u.conj()).conj()

    def _iterate(self, x: Tensor) -> Outcome:
        """Golub and Kahan's bidiagonalization from b - A x, and a QR factorization of its matrix.

        Steps 1 to 5 of the paper's section 4, and its notation: |r| = phi_bar and
        |A^H r| = phi_bar alpha |c|.
        """
        u, phi_bar = _normalised(self.b - self.A.matvec(x))
        v, alpha = _normalised(self._adjoint(u))
        w, rho_bar = v, alpha
        status = self.monitor.record(phi_bar)
        if status is None and self.is_solved(phi_bar, phi_bar * alpha):
            status = Status.CONVERGED
        while status is None:
            u, beta = _normalised(self.A.matvec(v) - alpha * u)
            v, alpha = _normalised(self._adjoint(u) - beta * v)
            rho = math.hypot(rho_bar, beta)
            c, s = rho_bar / rho, beta / rho
            theta, rho_bar = s * alpha, -c * alpha
            x = x + (c * phi_bar / rho) * w
            w = v - (theta / rho) * w
            phi_bar *= s
            status = self.monitor.record(phi_bar)
            if status is not Status.DIVERGED and self.is_solved(phi_bar, phi_bar * alpha * abs(c)):
                status = Status.CONVERGED
        return Outcome(x, status)


def _normalised(vector: Tensor) -> tuple[Tensor, float]:
    """A unit vector and the norm; a vector of zeros stays one."""
    norm = float(vector.norm())
    return (vector if norm == 0 else vector / norm), norm


def _refuse_gradients(values: Tensor, b: Tensor, x0: Tensor | None) -> None:
    named = {"A": values, "b": b, "x0": x0}
    wanting = [name for name, t in named.items() if t is not None and t.requires_grad]
    if wanting and torch.is_grad_enabled():
        raise ValueError(
            f"{wanting[0]}: requires a gradient, which lsqr does not compute; detach it, or solve "
            "the normal equations with sparsetorch.linalg.solve(A.T @ A, A.T @ b, 'cg')"
        )
