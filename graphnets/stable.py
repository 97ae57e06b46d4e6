"""Numbers for combinations of numbers that are the same in every file and every run."""

from __future__ import annotations

import numpy as np


def stable_ids(*columns: np.ndarray) -> np.ndarray:
    """One non-negative int64 for each row of columns (n,) of integers, by a 63-bit hash.

    Rows that differ get different numbers but for a chance of about n^2 / 2^64. The mixing is that
    of splitmix64, G. Steele, D. Lea, C. Flood, OOPSLA 2014.
    """
    state = np.full(len(columns[0]), len(columns), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            state = _mixed(state ^ _mixed(column.astype(np.uint64)))
    return (state >> np.uint64(1)).astype(np.int64)


def _mixed(z: np.ndarray) -> np.ndarray:
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
