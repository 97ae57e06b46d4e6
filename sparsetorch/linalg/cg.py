"""Conjugate gradients: Hestenes and Stiefel (1952); Saad, Iterative Methods, algorithm 9.1."""

from __future__ import annotations

import math

from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.krylov import (
    Callback,
    Monitor,
    Operator,
    Outcome,
    Preconditioner,
    norm,
    numbers,
    real_dot,
    run,
)
from sparsetorch.linalg.solution import Solution, Status


def cg(
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
    """Solve A x = b for a symmetric positive definite A by preconditioned conjugate gradients.

    A: a square CSRTensor or a callable x -> A x on (n,). b: (n,), or (n, k) solved column by
    column; of any floating or complex dtype. A and the preconditioner are Hermitian if complex.
    preconditioner: symmetric positive definite; a callable r -> z, an object with `apply(r)`, or a
    CSRTensor. Stops at |b - A x| <= max(rtol |b|, atol), with rtol 1e-6 in single and 1e-10 in
    double precision by default, or after maxiter (10 n) iterations. x0: initial guess, like b.
    callback: called with (iteration, residual norm). A CSRTensor whose entries have squares beyond
    the range of the dtype is divided by a power of two first; a callable is taken as it is.

    No gradients are recorded: `sparsetorch.linalg.solve` is the differentiable call. A failure is
    the solution's status. Equivalent to `scipy.sparse.linalg.cg`.

    float16 and bfloat16 are solved in float32, which is also what callables get, and x is rounded
    once.

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


def _iterate(
    multiply: Operator, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    r = b - multiply(x)
    status = monitor.record(float(norm(r)))
    if status is not None:
        return Outcome(x, status)
    p = z = precondition(r)
    rz = real_dot(r, z)
    while True:
        q = multiply(p)
        pq = real_dot(p, q)
        for name, curvature in zip(("r.M r", "p.A p"), numbers(rz, pq)):
            if math.isnan(curvature):
                return Outcome(x, Status.DIVERGED, f"{name} is NaN")
            if curvature <= 0:
                return Outcome(x, Status.INDEFINITE, f"{name} = {curvature:.3g}")
        step = rz / pq
        x = x + step * p
        r = r - step * q
        status = monitor.record(float(norm(r)))
        if status is not None:
            return Outcome(x, status)
        z = precondition(r)
        rz, rz_before = real_dot(r, z), rz
        p = z + (rz / rz_before) * p
