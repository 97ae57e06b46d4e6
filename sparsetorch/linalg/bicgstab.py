"""BiCGSTAB: van der Vorst (1992); Saad, Iterative Methods, algorithm 7.7."""

from __future__ import annotations

import cmath

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
    numbers,
    run,
)
from sparsetorch.linalg.solution import Solution, Status


def bicgstab(
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
    """Solve A x = b for a general A by right-preconditioned BiCGSTAB: seven vectors, no basis.

    Arguments, stopping rule, dtypes and result are those of `cg`, with any square A, called twice
    per iteration, and any preconditioner that is fixed and linear.

    The residual does not fall monotonically. Where the recurrence would divide by zero it starts
    anew from the best x so far if that is better than where it last started; otherwise the status
    is LANCZOS_BREAKDOWN. Equivalent to `scipy.sparse.linalg.bicgstab`.

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
    while True:
        before = float(norm(r))
        outcome = _from_shadow(multiply, precondition, r, x, monitor)
        if outcome.status is not Status.LANCZOS_BREAKDOWN:
            return outcome
        x = outcome.x
        r = b - multiply(x)
        if not float(norm(r)) < before:
            return outcome


def _from_shadow(
    multiply: Operator, precondition: Operator, r: Tensor, x: Tensor, monitor: Monitor
) -> Outcome:
    """Iterate with the shadow residual r until the monitor says stop, or up to a division by 0.

    After a breakdown, x is the one with the smallest residual.
    """
    precision = torch.finfo(r.dtype).eps
    shadow, p, rho = r, r, torch.vdot(r, r)
    shadow_norm = smallest = float(norm(r))
    best = x
    while True:
        y = precondition(p)
        v = multiply(y)
        sigma = torch.vdot(shadow, v)
        product, v_norm = numbers(sigma, norm(v))
        if failure := _vanishing("r0.A M p", product, v_norm, shadow_norm, precision):
            return Outcome(best, *failure)
        step = rho / sigma
        s = r - step * v
        z = precondition(s)
        t = multiply(z)
        ts, t_norm, s_norm = numbers(torch.vdot(t, s), norm(t), norm(s))
        if s_norm <= monitor.tolerance:  # half a step is enough, and t may be zero
            monitor.record(s_norm)
            return Outcome(x + step * y, Status.CONVERGED)
        if failure := _vanishing("s.A M s", ts, t_norm, s_norm, precision):
            return Outcome(best, *failure)
        omega = ts / t_norm**2
        x = x + step * y + omega * z
        r = s - omega * t
        rho_before, rho = rho, torch.vdot(shadow, r)
        residual, rho_value = numbers(norm(r), rho)
        status = monitor.record(residual)
        if status is not None:
            return Outcome(x, status)
        if residual < smallest:
            best, smallest = x, residual
        if failure := _vanishing("r0.r", rho_value, residual, shadow_norm, precision):
            return Outcome(best, *failure)
        p = r + (rho / rho_before) * (step / omega) * (p - omega * v)


def _vanishing(
    name: str, product: float | complex, first: float, second: float, precision: float
) -> tuple[Status, str] | None:
    """Why an inner product of two vectors with these norms cannot be divided by, if so."""
    if cmath.isnan(product):
        return Status.DIVERGED, f"{name} is NaN"
    if first == 0:
        return Status.BREAKDOWN, f"{name} = 0, as A M maps a vector to zero"
    if abs(product) <= precision * first * second:
        return Status.LANCZOS_BREAKDOWN, f"{name} = {product:.3g}"
    return None
