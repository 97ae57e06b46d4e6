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
SEQUENTIAL, DIVERGING = "viridis", "PuOr"


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


def colour_map(values: np.ndarray, symmetric: bool | None = None) -> tuple[str, float, float]:
    """Name and limits of the colour map for real values: diverging about 0 if they change sign.

    Args:
        values: those that are drawn.
        symmetric: True or False decides.
    """
    low, high = float(np.min(values, initial=0.0)), float(np.max(values, initial=0.0))
    size = max(-low, high) or 1.0
    if symmetric is None:
        symmetric = low < -1e-9 * size and high > 1e-9 * size
    if symmetric:
        return DIVERGING, -size, size
    low, high = (float(np.min(values)), float(np.max(values))) if len(values) else (0.0, 1.0)
    return SEQUENTIAL, low, high if high > low else low + size
