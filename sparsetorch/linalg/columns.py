"""Right-hand sides one after the other, and what becomes of their solutions.

A method that squares entries of b loses those whose squares are not in the range of the dtype:
1e-200 in float64, 1e-23 in float32, where gradients do get to. Such a b is divided by a power of
two first, which changes no digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparsetorch.linalg.solution import Solution, Status
from sparsetorch.structure import outside_transforms, plain

Callback = Callable[[int, float], Any]
# A solve of one column (n,) from a start, with this atol, reporting to this callback.
ColumnSolve = Callable[[Tensor, Tensor, float, Callback | None], Solution]


class Outcome(NamedTuple):
    """How the iteration for one right-hand side ended."""

    x: Tensor
    status: Status
    detail: str = ""


def columns_of(b: Tensor) -> tuple[Tensor, ...]:
    """The vectors of (n,) or (n, k)."""
    return b.unbind(1) if b.ndim == 2 else (b,)


def combine(start: Tensor, outcomes: list[Outcome], histories: list[list[float]]) -> Solution:
    """One solution, shaped like the start, from those of its columns: the first failure counts."""
    if not outcomes:
        return Solution(torch.zeros_like(start), Status.CONVERGED, 0, [])
    failures = [i for i, outcome in enumerate(outcomes) if outcome.status is not Status.CONVERGED]
    column = failures[0] if failures else 0
    _, status, detail = outcomes[column]
    x = outcomes[0].x
    if start.ndim == 2:
        x = torch.stack([outcome.x for outcome in outcomes], dim=1)
        detail = ", ".join(filter(None, [f"column {column}" if failures else "", detail]))
    longest = max(map(len, histories))
    held = [history + history[-1:] * (longest - len(history)) for history in histories]
    residuals = [max(step) for step in zip(*held)]
    return Solution(x, status, longest - 1, residuals, detail)


def in_range(b: Tensor) -> bool:
    """Whether the squares of all columns, and those of their residuals, can be represented."""
    return all(_scale(largest, b.dtype) == 1 for largest in _largest(b))


def rescaled(
    solve: ColumnSolve, b: Tensor, start: Tensor, atol: float, callback: Callback | None
) -> Solution:
    """Solve for the columns of b, each divided by a power of two that brings it into range."""
    outcomes: list[Outcome] = []
    histories: list[list[float]] = []
    for column, guess, largest in zip(columns_of(b), columns_of(start), _largest(b)):
        scale = _scale(largest, b.dtype)

        def report(iteration: int, residual: float, scale: float = scale) -> Any:
            return callback(iteration, residual * scale) if callback else None

        found = solve(column / scale, guess / scale, atol / scale, callback and report)
        x, status, detail = found.x * scale, found.status, found.detail
        if not bool(x.isfinite().all()):
            status, detail = Status.DIVERGED, "the solution overflows"
        outcomes.append(Outcome(x, status, detail))
        histories.append([scale * residual for residual in found.residuals])
    return combine(start, outcomes, histories)


def _largest(b: Tensor) -> list[float]:
    """The largest |b_ij| of each column."""
    if b.shape[0] == 0:
        return [0.0] * (b.shape[1] if b.ndim == 2 else 1)
    return b.detach().abs().amax(0).reshape(-1).tolist()


def exact_scale(values: Tensor) -> float:
    """What to divide values by so that their squares can be represented: 1, or a power of two."""
    return _scale(float(values.abs().max()) if values.numel() else 0.0, values.dtype)


def unit_scale(values: Tensor) -> float:
    """The power of two that brings the largest |value| to between 1 and 2; 1 if there is none.

    Of all members under `torch.vmap`. What compares with absolute numbers, as ARPACK does, works on
    values divided by it as it does on others.
    """
    with outside_transforms():
        found = plain(values).detach()
        largest = float(found.abs().max()) if found.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return 1.0
    return _power_below(largest, values.dtype)


def _scale(largest: float, dtype: torch.dtype) -> float:
    """1, or the power of two below the largest entry where squares leave the dtype's range."""
    limits = torch.finfo(dtype)
    low, high = math.sqrt(limits.tiny) / limits.eps, math.sqrt(limits.max) * limits.eps
    if largest == 0 or low <= largest <= high or not math.isfinite(largest):
        return 1.0
    return _power_below(largest, dtype)


def _power_below(number: float, dtype: torch.dtype) -> float:
    # Not below the smallest normal number, whose reciprocal can be represented as well.
    return max(math.ldexp(1.0, math.frexp(number)[1] - 1), torch.finfo(dtype).tiny)
