"""Whole numbers that a user gives: of iterations, unknowns, right-hand sides."""

from __future__ import annotations

import math


def check_count(name: str, value: float, unit: str, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`; 3.0 is one, NaN and infinity are not.

    Raises:
        TypeError: no number.
        ValueError: naming the argument, its unit and the value.
    """
    if isinstance(value, str) or not hasattr(value, "__int__"):
        raise TypeError(f"{name}: expected a whole number, got {type(value).__name__}")
    if not math.isfinite(value) or value != int(value) or value < least:
        raise ValueError(f"{name}: expected at least {least} {unit}, got {value}")
