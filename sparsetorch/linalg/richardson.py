"""Preconditioned Richardson iteration: what a preconditioner does alone."""

from __future__ import annotations

from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.krylov import Callback, Monitor, Operator, Outcome, Preconditioner, run
from sparsetorch.linalg.solution import Solution


def richardson(
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
    """Solve A x = b by the stationary iteration `x <- x + M (b - A x)`.

    It converges if the spectral radius of I - M A is below one, at that rate: the measure of a
    preconditioner itself. A: a square CSRTensor or a callable x -> A x on (n,). b: (n,), or (n, k)
    solved column by column; of any floating or complex dtype. preconditioner: M, a callable r -> z,
    an object with `apply(r)`, or a CSRTensor. Stops at |b - A x| <= max(rtol |b|, atol), with rtol
    1e-6 in single and 1e-10 in double precision by default, or after maxiter (10 n) iterations. x0:
    initial guess, like b. callback: called with (iteration, residual norm).

    No gradients are recorded. A failure is the solution's status. Saad, Iterative Methods, section
    4.1; equivalent to PETSc's KSPRICHARDSON.

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
    while (status := monitor.record(float(r.norm()))) is None:
        x = x + precondition(r)
        r = b - multiply(x)
    return Outcome(x, status)
