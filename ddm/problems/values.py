"""Numbers, arrays and functions of the coordinates, evaluated where a form needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Source = Callable[..., Any]


def _numbers(value: Any, name: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name}: expected numbers or a function that gives some, got {value!r}")
    return array


def evaluate(value: Any, x: np.ndarray, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """A constant, or a function of the coordinates, at points.

    Args:
        value: a number (an array of `shape`), or a function of x, y (and z) that gives one for
            each point.
        x: (d, *points) coordinates.
        name: of the argument, for errors.
        shape: of the value at one point.

    Returns:
        (*shape, *points).

    Raises:
        TypeError: no numbers.
        ValueError: another shape, or values that are not finite.
    """
    points = x.shape[1:]
    whole = (*shape, *points)
    found = _numbers(value(*x) if callable(value) else value, name)
    if not callable(value) and found.shape == shape:
        found = found.reshape(shape + (1,) * len(points))
    elif found.shape not in (whole, shape + (1,) * len(points), ()) or (shape and found.ndim == 0):
        wanted = f"shape {shape}" if shape else "a number"
        got = f"shape {found.shape} for coordinates of shape {points}"
        raise ValueError(
            f"{name}: expected {wanted} at each point, got {got if callable(value) else found}"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"{name}: some of its values are not finite")
    return np.broadcast_to(found, whole)


def on_elements(value: Any, x: np.ndarray, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """The same at quadrature points (d, m, q), where an array (m, *shape) is a value an element."""
    array = None if callable(value) else _numbers(value, name)
    if array is None or array.ndim <= len(shape):
        return evaluate(value, x, name, shape)
    if array.shape != (x.shape[1], *shape):
        raise ValueError(
            f"{name}: expected one value of shape {shape}, or an array of shape "
            f"{(x.shape[1], *shape)}: one an element; got shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: some of its values are not finite")
    return np.broadcast_to(np.moveaxis(array, 0, -1)[..., None], (*shape, *x.shape[1:]))


def real(values: np.ndarray, name: str) -> np.ndarray:
    """The same values, which are real.

    Raises:
        ValueError: they are complex.
    """
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: expected real values, got {values.dtype}")
    return values


def positive(values: np.ndarray, name: str) -> np.ndarray:
    """The same values (m, q), all real and positive.

    Raises:
        ValueError: naming the first element with one that is not.
    """
    if (real(values, name) <= 0).any():
        first = int(np.flatnonzero((values <= 0).any(axis=-1))[0])
        raise ValueError(
            f"{name}: expected positive values, got {values[first].min():g} in element {first}"
        )
    return values


def tensor(value: Any, x: np.ndarray, name: str) -> np.ndarray:
    """A diffusion coefficient at quadrature points, (m, q), or (d, d, m, q) for a tensor.

    Raises:
        ValueError: not positive, or a tensor that is not symmetric positive definite.
    """
    d, m = x.shape[:2]
    found = _numbers(value(*x) if callable(value) else value, name)
    one = (d, d, *x.shape[1:]) if callable(value) else (d, d)
    if found.shape not in (one, (m, d, d)):
        return positive(on_elements(value, x, name), name)
    K = real(on_elements(value, x, name, (d, d)), name)
    # One tensor, or one an element, has one set of eigenvalues, not one a quadrature point.
    different = (
        found if callable(value) else np.moveaxis(found.reshape(-1, 1, d, d), (0, 1), (2, 3))
    )
    if abs(different - different.swapaxes(0, 1)).max() > 1e-12 * abs(different).max():
        raise ValueError(f"{name}: expected symmetric tensors")
    smallest = np.linalg.eigvalsh(np.moveaxis(different, (0, 1), (-2, -1)))[..., 0]
    positive(smallest, f"{name}: eigenvalues of the tensor")
    return K
