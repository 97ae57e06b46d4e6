"""Whole numbers that a user gives: of iterations, unknowns, right-hand sides."""

from __future__ import annotations

import math


def check_count(name: str, value: float, unit: str, least: int = 1) -> int:
    """The value as an int, if it is a whole number of at least `least`.

    3.0 and NumPy's integers are whole numbers; NaN and infinity are not.

    Raises:
        TypeError: no number.
        ValueError: naming the argument, its unit and the value.
    """
    if isinstance(value, str) or not hasattr(value, "__int__"):
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}")
    if not math.isfinite(value) or value != int(value) or value < least:
        raise ValueError(f"{name}: expected at least {least} {unit}, got {value}")
    return int(value)
