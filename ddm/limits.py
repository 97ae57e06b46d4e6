"""Where a solve may end: the tolerance and the number of iterations that a user gives."""

from __future__ import annotations

from sparsetorch.checks import check_count


def check_limits(rtol: float, maxiter: int) -> int:
    """`maxiter` as an int, if it and the tolerance are limits that a solve can have.

    Raises:
        TypeError: `maxiter` is no number.
        ValueError: naming what does not fit.
    """
    check_rtol(rtol)
    return check_count("maxiter", maxiter, "iteration")


def check_rtol(rtol: float) -> None:
    """Refuse a tolerance that no solve can have.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    if not 0 < rtol < 1:
        raise ValueError(f"rtol: expected a number between 0 and 1, got {rtol}")
