"""Positions of unknowns, as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_positions(coordinates: Any, n: int) -> np.ndarray:
    """Positions of n unknowns, (n, d) in float64.

    Raises:
        TypeError: not real numbers.
        ValueError: another shape, or values that are not finite.
    """
    array = np.asarray(coordinates)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"coordinates: expected real numbers, got {array.dtype}")
    array = array.astype(np.float64)
    expected = f"coordinates: expected finite values of shape ({n}, d), a row for each unknown"
    if array.ndim != 2 or len(array) != n or not array.shape[1]:
        size = n // len(array) if array.ndim == 2 and len(array) and n % len(array) == 0 else 1
        of_nodes = f"; of nodes with {size} unknowns: np.repeat(x, {size}, axis=0)"
        raise ValueError(f"{expected}, got shape {array.shape}{of_nodes if size > 1 else ''}")
    if not np.isfinite(array).all():
        raise ValueError(f"{expected}, got some that are not finite")
    return array


def positions_of(coordinates: Any, n: int) -> np.ndarray | None:
    """Coordinates (n, d) in float64, or None; without a column that is constant, as z in a plane.

    Raises:
        TypeError, ValueError: see `check_positions`; the same for all unknowns.
    """
    if coordinates is None:
        return None
    array = check_positions(coordinates, n)
    if n > 1:
        array = array[:, np.ptp(array, axis=0) > 0]
        if not array.shape[1]:
            raise ValueError("coordinates: all unknowns have the same; leave them out")
    return array
