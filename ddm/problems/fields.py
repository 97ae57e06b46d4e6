"""Synthetic random coefficients, one value or tensor an element: for training and tests."""

from __future__ import annotations

from typing import Any

import numpy as np


def _centres(mesh: Any) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the elements, (m, d), scaled to the unit box of the mesh, and as they are."""
    centre = mesh.p[:, mesh.t].mean(axis=1)
    low = mesh.p.min(axis=1, keepdims=True)
    return ((centre - low) / np.ptp(mesh.p, axis=1).max()).T, centre.T


def _check(contrast: float, **counts: int) -> None:
    if not 1 <= contrast < np.inf:
        raise ValueError(f"contrast: expected a ratio of at least 1, got {contrast}")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")


def checkerboard(mesh: Any, seed: int, *, contrast: float = 1e4, cells: int = 8) -> np.ndarray:
    """Boxes with log-uniform values between 1 and `contrast`, (m,): `cells` along the longest side.

    Raises:
        ValueError: a contrast below 1, fewer than 1 cell.
    """
    _check(contrast, cells=cells)
    unit, _ = _centres(mesh)
    cell = np.minimum((unit * cells).astype(int), cells - 1)
    values = np.random.default_rng(seed).random((cells,) * unit.shape[1])
    return contrast ** values[tuple(cell.T)]


def channels(
    mesh: Any, seed: int, *, contrast: float = 1e4, count: int = 5, width: float = 0.03
) -> np.ndarray:
    """`contrast` in straight channels of random place and direction, 1 elsewhere, (m,).

    Args:
        mesh: triangles or tetrahedra.
        seed: of the random numbers.
        contrast: ratio of the two values.
        count: number of channels.
        width: half their thickness, as a share of the longest side.

    Raises:
        ValueError: a contrast below 1, fewer than 1 channel.
    """
    _check(contrast, count=count)
    unit, _ = _centres(mesh)
    rng = np.random.default_rng(seed)
    inside = np.zeros(len(unit), dtype=bool)
    for _ in range(count):
        through, direction = unit[rng.integers(len(unit))], _direction(rng, unit.shape[1])
        away = unit - through
        away = away - np.outer(away @ direction, direction)
        inside |= np.linalg.norm(away, axis=1) < width
    return np.where(inside, contrast, 1.0)


def inclusions(
    mesh: Any, seed: int, *, contrast: float = 1e4, count: int = 20, radius: float = 0.08
) -> np.ndarray:
    """Balls of random place, radius up to `radius` and value between 1 and `contrast`, (m,).

    Values are log-uniform; the matrix around the balls has the value 1. The radius is a share of
    the longest side.

    Raises:
        ValueError: a contrast below 1, fewer than 1 ball.
    """
    _check(contrast, count=count)
    unit, _ = _centres(mesh)
    rng = np.random.default_rng(seed)
    field = np.ones(len(unit))
    for _ in range(count):
        centre, size = unit[rng.integers(len(unit))], radius * rng.uniform(0.3, 1)
        value = contrast ** rng.random()
        field[np.linalg.norm(unit - centre, axis=1) < size] = value
    return field


def rotated_anisotropy(mesh: Any, seed: int, *, ratio: float = 100.0, cells: int = 1) -> np.ndarray:
    """Tensors with eigenvalue 1 along a random direction and 1 / `ratio` across it, (m, d, d).

    Args:
        mesh: triangles or tetrahedra.
        seed: of the random numbers.
        ratio: of the eigenvalues.
        cells: boxes along the longest side, each with a direction of its own; 1: one direction.

    Raises:
        ValueError: a ratio below 1, fewer than 1 cell.
    """
    _check(ratio, cells=cells)
    unit, _ = _centres(mesh)
    d = unit.shape[1]
    cell = np.minimum((unit * cells).astype(int), cells - 1)
    rng = np.random.default_rng(seed)
    directions = np.stack([_direction(rng, d) for _ in range(cells**d)])
    along = directions[np.ravel_multi_index(tuple(cell.T), (cells,) * d)]
    return np.eye(d) / ratio + (1 - 1 / ratio) * along[:, :, None] * along[:, None, :]


def _direction(rng: np.random.Generator, d: int) -> np.ndarray:
    vector = rng.standard_normal(d)
    return vector / np.linalg.norm(vector)
