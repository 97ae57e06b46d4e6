"""The frame of every Krylov method: operators, right-hand sides, the stopping rule, the history."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from sparsetorch.checks import check_count, check_tolerance
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
from sparsetorch.linalg.dtypes import DEFAULT_RTOL, SOLVABLE, names, rounded, widened
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.linalg.solution import Solution, Status
from sparsetorch.structure import refuse_compiled

Operator = Callable[[Tensor], Tensor]

# Conjugate gradients may raise the residual by up to the square root of the condition number on
# the way; what grows beyond this is not on a way to anything.
GROWTH_LIMIT = 1e8

INSTEAD = "use sparsetorch.linalg.solve(A, b, method), which does"


class Applicable(Protocol):
    """A linear operator as an object with `apply`."""

    def apply(self, r: Tensor, /) -> Tensor:
        """The image of a vector (n,)."""
        ...


Preconditioner = Operator | Applicable | CSRTensor


class Monitor:
    """The stopping rule and the residual history of one right-hand side.

    Stops when the residual norm is at most max(rtol |b|, atol).
    """

    def __init__(
        self, b_norm: float, rtol: float, atol: float, maxiter: int, callback: Callback | None
    ):
        self.tolerance = max(rtol * b_norm, atol)
        self.b_norm = b_norm
        self.maxiter = maxiter
        self.callback = callback
        self.residuals: list[float] = []

    @property
    def iterations(self) -> int:
        """Iterations done; the first residual is that of the initial guess."""
        return len(self.residuals) - 1

    def record(self, residual: float) -> Status | None:
        """Note the residual norm after an iteration; a status means stop."""
        self.residuals.append(residual)
        if self.callback is not None:
            self.callback(self.iterations, residual)
        if residual <= self.tolerance:
            return Status.CONVERGED
        if not residual <= GROWTH_LIMIT * max(self.b_norm, self.residuals[0]):  # NaN, too
            return Status.DIVERGED
        return Status.MAXITER if self.iterations >= self.maxiter else None


class Iteration(Protocol):
    """A Krylov method for one right-hand side (n,), starting at x."""

    def __call__(
        self, multiply: Operator, precondition: Operator, b: Tensor, x: Tensor, monitor: Monitor
    ) -> Outcome:
        """Iterate until the monitor says stop."""
        ...


@torch.no_grad()
def run(
    iteration: Iteration,
    A: CSRTensor | Operator,
    b: Tensor,
    *,
    preconditioner: Preconditioner | None,
    rtol: float | None,
    atol: float,
    maxiter: int | None,
    x0: Tensor | None,
    callback: Callback | None,
    any_units: bool = True,
) -> Solution:
    """Run an iteration on each column of b, without recording gradients.

    Half precision is widened here, all of it, and x rounded: what an iteration does in it would
    only be rounding. any_units: whether the iteration does the same for A and for a multiple of it,
    which then takes the place of an A whose squares leave the range of the dtype.
    """
    refuse_compiled("an iterative method by itself", INSTEAD)
    check_right_hand_side(A, b)
    check_tolerances(rtol, atol)
    maxiter = checked_maxiter(maxiter, 10 * b.shape[0])
    start, dtype = widened(starting_point(x0, b, tuple(b.shape))), b.dtype
    A, b, preconditioner = widened(A), widened(b), widened(preconditioner)
    if any_units and (scale := matrix_scale(A)) != 1:

        def solve_divided(A: Any, preconditioner: Preconditioner | None, x0: Tensor) -> Solution:
            return run(
                iteration, A, b, preconditioner=preconditioner, rtol=rtol, atol=atol,
                maxiter=maxiter, x0=x0, callback=callback,
            )  # fmt: skip

        return rounded(divided(solve_divided, A, preconditioner, start, scale), dtype)
    if not in_range(b):

        def solve(b: Tensor, x0: Tensor, atol: float, callback: Callback | None) -> Solution:
            return run(
                iteration, A, b, preconditioner=preconditioner, rtol=rtol, atol=atol,
                maxiter=maxiter, x0=x0, callback=callback,
            )  # fmt: skip

        return rounded(rescaled(solve, b.detach(), start, atol, callback), dtype)
    multiply = checked_operator("A", A)
    precondition = (
        _identity if preconditioner is None else checked_operator("preconditioner", preconditioner)
    )
    rtol = DEFAULT_RTOL[b.dtype] if rtol is None else rtol
    outcomes: list[Outcome] = []
    histories: list[list[float]] = []
    for column, guess in zip(columns_of(b.detach()), columns_of(start)):
        monitor = Monitor(float(norm(column)), rtol, atol, maxiter, callback)
        if monitor.b_norm == 0:
            outcomes.append(Outcome(torch.zeros_like(column), Status.CONVERGED))
            histories.append([0.0])
            continue
        with in_full_precision(b.device):
            outcome = _refined(iteration, multiply, precondition, column, guess.clone(), monitor)
        outcomes.append(outcome)
        histories.append(monitor.residuals)
    return rounded(combine(start, outcomes, histories), dtype)


def matrix_scale(A: CSRTensor | Operator) -> float:
    """What to divide a matrix by so that squares of its entries are in range, a power of two.

    1 if they are, and for a callable, whose entries are not known.
    """
    return exact_scale(widened(A).values) if isinstance(A, CSRTensor) else 1.0


def divided(
    solve: Callable[[CSRTensor, Preconditioner | None, Tensor], Solution],
    A: CSRTensor | Operator,
    preconditioner: Preconditioner | None,
    start: Tensor,
    scale: float,
) -> Solution:
    """The x of A x = b from `solve` for (A / scale) y = b: y = scale x, and scale M is for it."""
    assert isinstance(A, CSRTensor)
    multiple = None if preconditioner is None else _multiple(preconditioner, scale)
    found = solve(A / scale, multiple, start * scale)
    x = found.x / scale
    if not bool(x.isfinite().all()) and found.converged:
        return replace(found, x=x, status=Status.DIVERGED, detail="the solution overflows")
    return replace(found, x=x)


def _multiple(preconditioner: Preconditioner, factor: float) -> Operator:
    precondition = checked_operator("preconditioner", preconditioner)
    return lambda r: precondition(r) * factor


def _refined(
    iteration: Iteration,
    multiply: Operator,
    precondition: Operator,
    b: Tensor,
    x: Tensor,
    monitor: Monitor,
) -> Outcome:
    """Iterate, and again from there while b - A x is larger than the iteration believed.

    The two drift apart by rounding; starting anew closes the gap as far as the precision allows.
    """
    before = math.inf
    while True:
        try:
            outcome = iteration(multiply, precondition, b, x, monitor)
        except OverflowError:  # of Python's numbers, which do not become infinite
            monitor.residuals = monitor.residuals or [math.inf]
            return Outcome(x, Status.DIVERGED, "a number overflows")
        residual = float(norm(b - multiply(outcome.x)))
        monitor.residuals[-1] = residual
        if outcome.status is not Status.CONVERGED or residual <= monitor.tolerance:
            return outcome
        if residual > 0.5 * before:
            # A gap beyond the square root of the precision is more than rounding.
            allowed = math.sqrt(torch.finfo(b.dtype).eps) * monitor.b_norm
            accurate = residual <= max(allowed, 10 * monitor.tolerance)
            if not accurate:
                return outcome._replace(status=Status.INACCURATE)
            relative = residual / monitor.b_norm
            return outcome._replace(
                detail=f"rounding holds the relative residual at {relative:.1e}"
            )
        x, before = outcome.x, residual
        monitor.residuals.pop()  # the next round records this residual as its first


def as_operator(name: str, operator: Preconditioner) -> Operator:
    """A callable x -> y from a CSRTensor, a callable, or an object with `apply`."""
    if isinstance(operator, CSRTensor):
        return operator.detach().matvec
    # An nn.Module has an `apply` of another meaning, so callables come first.
    if callable(operator):
        return operator
    if hasattr(operator, "apply"):
        return operator.apply
    raise TypeError(
        f"{name}: expected a CSRTensor, a callable r -> z or an object with apply(r), got "
        f"{type(operator).__name__}"
    )


def checked_operator(name: str, operator: Preconditioner) -> Operator:
    """`as_operator` with images that are compared with what they are images of.

    Raises:
        TypeError: an image that is not a tensor, or of another dtype.
        ValueError: one of another shape or on another device.
    """
    apply = as_operator(name, operator)

    def image(r: Tensor) -> Tensor:
        if isinstance(operator, CSRTensor):
            expected = (operator.shape, operator.dtype, operator.device)
            if expected != ((r.shape[0], r.shape[0]), r.dtype, r.device):
                raise ValueError(
                    f"{name}: expected {r.dtype} of shape {(r.shape[0], r.shape[0])} on "
                    f"{r.device} like the system, got {operator!r}"
                )
        z = apply(r)
        if not isinstance(z, Tensor) or z.dtype != r.dtype:
            got = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(f"{name}: expected a tensor of {r.dtype} for one, got {got}")
        if z.shape != r.shape or z.device != r.device:
            raise ValueError(
                f"{name}: expected shape {tuple(r.shape)} on {r.device} for a vector like that, "
                f"got {tuple(z.shape)} on {z.device}"
            )
        return z

    return image


def starting_point(
    x0: Tensor | None, b: Tensor, shape: tuple[int, ...], name: str = "x0"
) -> Tensor:
    """The initial guess, by default zeros, detached.

    Raises:
        ValueError: it is not of this shape, or its dtype or device is not that of b.
    """
    if x0 is None:
        return b.new_zeros(shape)
    if (x0.shape, x0.dtype, x0.device) != (shape, b.dtype, b.device):
        raise ValueError(
            f"{name}: expected {b.dtype} of shape {shape} on {b.device}, got {x0.dtype} of shape "
            f"{tuple(x0.shape)} on {x0.device}"
        )
    return x0.detach()


def check_tolerances(rtol: float | None, atol: float) -> None:
    """Raise TypeError or ValueError unless both are finite numbers of at least 0; rtol may be None.

    `atol` may not: it has no default that depends on the dtype.
    """
    if rtol is not None:
        check_tolerance("rtol", rtol)
    check_tolerance("atol", atol)


def checked_maxiter(maxiter: int | None, default: int) -> int:
    """The iteration limit as an int.

    Raises:
        TypeError, ValueError: as `check_count`, for a whole number of at least 0.
    """
    if maxiter is None:
        return default
    return check_count("maxiter", maxiter, "iterations", least=0)


def norm(v: Tensor) -> Tensor:
    """The 2-norm, 0-d. PyTorch's own takes |z| of each complex number first: ten times as long."""
    parts = torch.view_as_real(v.resolve_conj()) if v.is_complex() else v
    return torch.linalg.vector_norm(parts)


def real_dot(u: Tensor, v: Tensor) -> Tensor:
    """The inner product where theory says that it is real, as r . M r of a Hermitian M; 0-d."""
    return torch.vdot(u, v).real


def numbers(*scalars: Tensor) -> list[Any]:
    """0-d tensors as numbers of Python, in one transfer; real ones are floats."""
    together = torch.stack([s.to(_widest(scalars)) for s in scalars]).tolist()
    return [n if s.is_complex() else n.real for n, s in zip(together, scalars)]


def _widest(scalars: tuple[Tensor, ...]) -> torch.dtype:
    return next((s.dtype for s in scalars if s.is_complex()), scalars[0].dtype)


def check_right_hand_side(A: CSRTensor | Operator, b: Tensor, *, rectangular: bool = False) -> None:
    """Check b, (n,) or (n, k), by itself and against the matrix.

    A `rectangular` A has to be a CSRTensor, of any shape; others may be callables.

    Raises:
        TypeError: b is not a tensor of a dtype that solves take, or not of the matrix's dtype.
        ValueError: a batch of matrices, one that is not square, a shape or device that does not
            fit, or NaN or infinity in b.
    """
    if rectangular or isinstance(A, CSRTensor):
        check_system(A, b, rectangular=rectangular)
    else:
        _check_form(b, SOLVABLE)
    if not bool(b.isfinite().all()):
        raise ValueError(
            "b: expected finite numbers, got NaN or infinity (in a backward pass, b is the "
            "gradient of the solution)"
        )


def check_system(
    A: CSRTensor | Operator,
    b: Tensor,
    *,
    rectangular: bool = False,
    dtypes: Collection[torch.dtype] = SOLVABLE,
) -> None:
    """Check that a matrix and a right-hand side belong together, without reading their values.

    Raises:
        TypeError: A is not a CSRTensor, b not a tensor of one of the dtypes, or these differ.
        ValueError: a batch of matrices, one that is not square unless `rectangular`, or sizes or
            devices that differ.
    """
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    if A.ndim != 2:
        raise ValueError(
            f"A: expected one matrix, got a batch of shape {tuple(A.shape[:-2])}; linalg.solve "
            "takes batches, and torch.vmap maps what differentiates"
        )
    if A.shape[0] != A.shape[1] and not rectangular:
        raise ValueError(f"A: expected a square matrix, got shape {tuple(A.shape)}")
    _check_form(b, dtypes)
    if b.shape[0] != A.shape[0]:
        raise ValueError(f"b: expected {A.shape[0]} rows like A, got shape {tuple(b.shape)}")
    if b.dtype != A.dtype:
        raise TypeError(f"b: expected {A.dtype} like A, got {b.dtype}; convert one with .to(dtype)")
    if b.device != A.device:
        raise ValueError(f"b: expected on {A.device} like A, got {b.device}; move one with .to")


def _check_form(b: Tensor, dtypes: Collection[torch.dtype]) -> None:
    if not isinstance(b, Tensor) or b.dtype not in dtypes:
        kind = b.dtype if isinstance(b, Tensor) else type(b).__name__
        raise TypeError(f"b: expected a tensor of {names(dtypes)}, got {kind}")
    if b.ndim not in (1, 2):
        raise ValueError(f"b: expected shape (n,) or (n, k), got {tuple(b.shape)}")


def _identity(r: Tensor) -> Tensor:
    return r
