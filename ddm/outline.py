"""Outlines of plane regions with holes: closed polygons, (k, 2) corners each, and their checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def polygon_area(outline: np.ndarray) -> float:
    """Signed area of the polygon with the given corners, (k, 2); positive if counterclockwise."""
    x, y = outline.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def closed_spline(points: np.ndarray, samples: int = 8) -> np.ndarray:
    """Points on the closed uniform cubic B-spline of (k, 2) control points, (samples k, 2)."""
    t = np.arange(samples)[:, None, None] / samples
    before, here, after, last = (np.roll(points, shift, axis=0) for shift in (1, 0, -1, -2))
    curve = (
        (1 - t) ** 3 * before
        + (3 * t**3 - 6 * t**2 + 4) * here
        + (-3 * t**3 + 3 * t**2 + 3 * t + 1) * after
        + t**3 * last
    ) / 6  # (samples, k, 2)
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def contains(outline: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point lies inside a polygon, by the even-odd rule."""
    (x, y), (x1, y1), (x2, y2) = point, outline.T, np.roll(outline, -1, axis=0).T
    spans = (y1 > y) != (y2 > y)
    crossing = x1[spans] + (y - y1[spans]) * (x2 - x1)[spans] / (y2 - y1)[spans]
    return bool(np.count_nonzero(crossing > x) % 2)


def check_outlines(outline: np.ndarray, holes: Sequence[np.ndarray]) -> None:
    """Refuse a region that is not one: gmsh may never return from curves that meet.

    Raises:
        ValueError: a polygon meets itself or another, or a hole lies outside the outline or within
            another hole.
    """
    loops = [outline, *holes]
    names = ["outline", *(f"holes[{k}]" for k in range(len(holes)))]
    loop = np.repeat(np.arange(len(loops)), [len(corners) for corners in loops])
    first, second = _meetings(loops, loop)
    if len(first):
        pair = (loop[first[0]], loop[second[0]])
        name, other = names[max(pair)], names[min(pair)]
        raise ValueError(
            f"{name}: it meets {'itself' if name == other else other}; outlines must not cross or "
            "touch, nor name a corner twice"
        )
    for k, hole in enumerate(holes):
        if not contains(outline, hole[0]):
            raise ValueError(f"holes[{k}]: it lies outside the outline")
        for other in (j for j in range(len(holes)) if j != k and contains(holes[j], hole[0])):
            raise ValueError(f"holes[{k}]: it lies within holes[{other}]")


def _meetings(loops: Sequence[np.ndarray], loop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of edges that have a point in common and are not neighbours in their polygon."""
    start = np.concatenate(loops)
    end = np.concatenate([np.roll(corners, -1, axis=0) for corners in loops])
    first = np.cumsum([0, *(len(corners) for corners in loops)])[loop]
    index = np.arange(len(loop)) - first
    size = np.bincount(loop)[loop]
    # Only edges whose bounding boxes overlap can meet: pairs that overlap in x, and of these in y.
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.argsort(low[:, 0])
    count = np.searchsorted(low[order, 0], high[order, 0], side="right") - np.arange(len(loop)) - 1
    behind = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    place = np.repeat(np.arange(len(loop)), count)
    i, j = order[place], order[place + 1 + behind]
    step = (index[j] - index[i]) % size[i]
    apart = (loop[i] != loop[j]) | ((step != 1) & (step != size[i] - 1))
    near = apart & (low[i, 1] <= high[j, 1]) & (low[j, 1] <= high[i, 1])
    i, j = i[near], j[near]

    def sides(edge: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Product of the sides of `edge`'s line on which the two ends of `other` lie."""
        u, v, w = end[edge] - start[edge], start[other] - start[edge], end[other] - start[edge]
        return (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) * (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0])

    meet = (sides(i, j) <= 0) & (sides(j, i) <= 0)
    return i[meet], j[meet]
