"""Colours for neighbouring subdomains and for values, which the colour-blind can tell apart."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

# The "light" scheme of P. Tol, "Colour schemes", SRON technical note 3.2 (2021): distinct in every
# kind of colour blindness, and light, so that dark lines and dots stand out from it.
TINTS = [
    "#77aadd", "#eedd88", "#ffaabb", "#44bb99", "#99ddff",
    "#ee8866", "#bbcc33", "#aaaa00", "#dddddd",
]  # fmt: skip
INK = "#333333"
PALE = "#ececec"
LAYERS = ["#1f4e79", "#4292c6", "#9ecae1", "#deebf7"]
"""The owned part of a subdomain, and its layers of overlap outwards."""
LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"]
"""Of curves: M. Okabe and K. Ito (2008), distinct for the colour-blind."""
SEQUENTIAL, DIVERGING, FROM_WHITE = "viridis", "PuOr", "Blues"


def adjacent(A: sp.csr_array, owner: np.ndarray) -> np.ndarray:
    """Pairs (k, 2) of subdomains that entries of A couple, each pair once, smaller number first."""
    row = np.repeat(np.arange(len(owner)), np.diff(A.indptr))
    pairs = np.sort(np.stack([owner[row], owner[A.indices]], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def colours_of(A: sp.csr_array, owner: np.ndarray) -> np.ndarray:
    """A number of a tint for each subdomain, (S,), so that neighbours differ; greedy.

    With more than `len(TINTS)` subdomains that all meet one another, some share a tint.
    """
    n_parts = int(owner.max()) + 1
    neighbours: list[list[int]] = [[] for _ in range(n_parts)]
    for a, b in adjacent(A, owner):
        neighbours[a].append(b)
        neighbours[b].append(a)
    colours = np.full(n_parts, -1)
    for part in sorted(range(n_parts), key=lambda p: -len(neighbours[p])):
        taken = set(colours[neighbours[part]])
        colours[part] = next(c for c in range(n_parts) if c not in taken)
    return colours % len(TINTS)


def colour_map(
    values: np.ndarray, symmetric: bool | None = None, *, from_white: bool = False
) -> tuple[str, float, float]:
    """Name and limits of the colour map for real values: diverging about 0 if they change sign.

    Args:
        values: those that are drawn.
        symmetric: True or False decides.
        from_white: for functions that are zero in most places: white is zero, and values of the
            other sign below a tenth of the largest are not told from it.
    """
    low, high = float(np.min(values, initial=0.0)), float(np.max(values, initial=0.0))
    size = max(-low, high) or 1.0
    if symmetric is None:
        little = (0.1 if from_white else 1e-9) * size
        symmetric = low < -little and high > little
    if symmetric:
        return DIVERGING, -size, size
    if from_white:
        return (FROM_WHITE, 0.0, high or 1.0) if high >= -low else (f"{FROM_WHITE}_r", low, 0.0)
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
    return SEQUENTIAL, low, high if high > low else low + size
