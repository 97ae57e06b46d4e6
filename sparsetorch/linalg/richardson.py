"""Preconditioned Richardson iteration: what a preconditioner does alone."""

from __future__ import annotations

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
    preconditioner itself. Arguments, stopping rule, dtypes and result are those of `cg`, with any
    square A and any preconditioner M. Saad, Iterative Methods, section 4.1; equivalent to PETSc's
    KSPRICHARDSON.

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
        any_units=False,
    )


def _iterate(
    multiply: Operator, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    r = b - multiply(x)
    while (status := monitor.record(float(norm(r)))) is None:
        x = x + precondition(r)
        r = b - multiply(x)
    return Outcome(x, status)
