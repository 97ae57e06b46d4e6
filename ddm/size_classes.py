"""Subdomains grouped by size, so that batches of dense matrices carry little padding."""

from __future__ import annotations

import numpy as np

RATIO = 2**0.5
"""Largest over smallest side in a class: padding at most doubles the entries."""


def size_classes(sizes: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Classes of subdomains, (S,) sizes: pairs of (their numbers, ascending; the largest size).

    From the largest size down, each class holds what is within a factor of `RATIO`: as many classes
    as the logarithm of the sizes' spread.
    """
    classes = []
    left = np.arange(len(sizes))
    while len(left):
        largest = int(sizes[left].max())
        chosen = sizes[left] * RATIO >= largest
        classes.append((left[chosen], largest))
        left = left[~chosen]
    return classes
