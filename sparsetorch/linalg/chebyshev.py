"""The Chebyshev semi-iteration: Golub and Varga (1961); Saad, Iterative Methods, algorithm 12.1."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.krylov import (
    Callback,
    Monitor,
    Operator,
    Outcome,
    Preconditioner,
    check_right_hand_side,
    matrix_scale,
    norm,
    run,
)
from sparsetorch.linalg.lanczos import eigenvalue_bounds
from sparsetorch.linalg.solution import Solution, Status

Bounds = tuple[float, float]


def chebyshev(
    A: CSRTensor | Operator,
    b: Tensor,
    *,
    bounds: Bounds | None = None,
    preconditioner: Preconditioner | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    maxiter: int | None = None,
    x0: Tensor | None = None,
    callback: Callback | None = None,
) -> Solution:
    """Solve A x = b for a symmetric positive definite A, without inner products to choose steps.

    Arguments, stopping rule, dtypes and result are those of `cg`, but for maxiter, which is at
    least 1000 by default: the iteration does not end after n steps. bounds: (smallest, largest)
    eigenvalue of A, or of M A with a preconditioner M; a largest one that is too small makes it
    diverge, a smallest one that is too large makes it slow. By default they are estimated, once for
    all columns, by up to 100 steps of Lanczos, which are not counted as iterations. Equivalent to
    PETSc's KSPCHEBYSHEV.

    Raises:
        TypeError, ValueError: an argument does not fit, or b is not finite.
    """
    check_right_hand_side(A, b)
    maxiter = max(10 * b.shape[0], 1000) if maxiter is None else maxiter
    unit = matrix_scale(A) if preconditioner is None else 1.0
    return run(
        SemiIteration(bounds, unit),
        A,
        b,
        preconditioner=preconditioner,
        rtol=rtol,
        atol=atol,
        maxiter=maxiter,
        x0=x0,
        callback=callback,
    )


class SemiIteration:
    """The iteration, with bounds that are given or estimated when it first runs.

    unit: what `run` divides the matrix by, and the given bounds are to be divided by with it.
    """

    def __init__(self, bounds: Bounds | None, unit: float = 1.0):
        self.unit = unit
        self.bounds: Bounds | None = None
        if bounds is not None:
            low, high = checked_bounds(bounds)
            self.bounds = low / unit, high / unit

    def __call__(
        self, multiply: Operator, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
    ) -> Outcome:
        """See `krylov.Iteration`."""
        r = b - multiply(x)
        status = monitor.record(float(norm(r)))
        if status is not None:
            return Outcome(x, status)
        if self.bounds is None:
            self.bounds = eigenvalue_bounds(multiply, precondition, b)
        low, high = self.bounds
        detail = (
            f"with eigenvalues taken to be from {low * self.unit:.3g} to {high * self.unit:.3g}"
        )
        if not low > 0:
            return Outcome(x, Status.DIVERGED if math.isnan(low) else Status.INDEFINITE, detail)
        d = torch.zeros_like(x)
        for momentum, length in coefficients(self.bounds):
            d = momentum * d + length * precondition(r)
            x = x + d
            r = r - multiply(d)
            status = monitor.record(float(norm(r)))
            if status is not None:
                break
        assert status is not None
        return Outcome(x, status, "" if status is Status.CONVERGED else detail)


def coefficients(bounds: Bounds) -> Iterator[tuple[float, float]]:
    """The numbers of d <- momentum d + length M r, x <- x + d, for eigenvalues within bounds.

    With theta and delta half the sum and half the difference of the bounds, rho_0 = delta / theta
    and rho_k = 1 / (2 theta / delta - rho_{k-1}), they are rho_k rho_{k-1} and 2 rho_k / delta;
    written so that delta may be zero.
    """
    low, high = bounds
    theta, delta = (high + low) / 2, (high - low) / 2
    rho = delta / theta
    yield 0.0, 1 / theta
    while True:
        inverse = 1 / (2 * theta - delta * rho)
        yield delta * inverse * rho, 2 * inverse
        rho = delta * inverse


def checked_bounds(bounds: Bounds) -> Bounds:
    """The bounds as two floats.

    Raises:
        ValueError: they are not two finite numbers, 0 < smallest <= largest.
    """
    numbers = tuple(float(bound) for bound in bounds)
    if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] < math.inf:
        raise ValueError(
            "bounds: expected (smallest, largest) eigenvalue, 0 < smallest <= largest, got "
            f"{bounds}"
        )
    return numbers[0], numbers[1]
