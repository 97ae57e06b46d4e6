"""Matrices made from scratch: identity, diagonals, random entries, Poisson stencils."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsetorch.checks import checked_shape
from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern
from sparsetorch.stacking import kron
from sparsetorch.structure import finding_structure, split_keys

Device = torch.device | str | None


def eye(
    m: int,
    n: int | None = None,
    k: int = 0,
    dtype: torch.dtype | None = None,
    device: Device = None,
) -> CSRTensor:
    """An (m, n) matrix with ones on diagonal k, by default the m x m identity. As `scipy.sparse`'s.

    Raises:
        ValueError: a negative size.
    """
    shape = checked_shape((m, m if n is None else n))
    ones = torch.ones(_diagonal_length(shape, k), dtype=dtype, device=device)
    return diags([ones], [k], shape)


def diags(
    diagonals: Sequence[Tensor | float] | Tensor,
    offsets: Sequence[int] | int = 0,
    shape: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: Device = None,
) -> CSRTensor:
    """A matrix with the given diagonals. As `scipy.sparse.diags_array`; differentiable in them.

    Args:
        diagonals: each (*batch, length) with the length of its diagonal, or a number for all of it;
            a 1-D tensor alone is one diagonal.
        offsets: which diagonal each is; 0 the main one, 1 that above it, -1 that below it. A number
            where there is one diagonal.
        shape: by default square, and large enough for the first tensor among the diagonals.
        dtype, device: where all diagonals are numbers.

    Raises:
        ValueError: a length that does not fit, an offset given twice or outside the matrix, or
            only numbers and no shape.
        TypeError: tensors of different dtypes or another than `dtype`, or something else than
            tensors and numbers.
    """
    if isinstance(diagonals, Tensor) and diagonals.ndim == 1:
        given: list[Any] = [diagonals]
    else:
        given = list(diagonals)
    places = [offsets] if isinstance(offsets, int | np.integer) else list(offsets)
    for d in given:
        if not isinstance(d, Tensor | Number):
            raise TypeError(
                f"diagonals: expected tensors and numbers, got {type(d).__name__}; "
                "torch.as_tensor makes a tensor"
            )
    if len(given) != len(places):
        raise ValueError(f"offsets: expected {len(given)} like diagonals, got {len(places)}")
    if len(set(places)) != len(places):
        raise ValueError(f"offsets: expected different diagonals, got {places}")
    tensors = [d for d in given if isinstance(d, Tensor)]
    if shape is None:
        sized = [d.shape[-1] + abs(k) for d, k in zip(given, places) if isinstance(d, Tensor)]
        if not sized:
            raise ValueError("shape: expected one, as all diagonals are numbers")
        shape = (sized[0], sized[0])
    shape = checked_shape(shape)
    like = tensors[0] if tensors else torch.empty(0, dtype=dtype, device=device)
    if dtype not in (None, like.dtype):
        raise TypeError(f"dtype: expected {like.dtype} like the diagonals, got {dtype}")
    values: list[Tensor] = []
    for d, k in zip(given, places):
        length = _diagonal_length(shape, k)
        if length == 0 and max(shape) > 0:
            raise ValueError(f"offsets: diagonal {k} is outside a matrix of shape {shape}")
        if not isinstance(d, Tensor):
            d = like.new_full((length,), d)
        if d.dtype != like.dtype:
            raise TypeError(f"diagonals: expected one dtype, got {like.dtype} and {d.dtype}")
        if d.ndim < 1 or d.shape[-1] != length:
            raise ValueError(
                f"diagonals: expected length {length} for diagonal {k} of shape {shape}, got "
                f"{tuple(d.shape)}"
            )
        values.append(d)
    batch = torch.broadcast_shapes(*(d.shape[:-1] for d in values))
    stacked = torch.cat([d.expand(*batch, -1) for d in values], -1)
    pattern, order = _banded(shape, places, stacked.device)
    return CSRTensor(pattern, stacked.index_select(-1, order))


def _banded(
    shape: tuple[int, int], offsets: Sequence[int], device: torch.device
) -> tuple[Pattern, Tensor]:
    """The pattern of these diagonals, and which entry of them, one after another, each one is."""
    with finding_structure("diags"):
        keys: list[Tensor] = []
        for k in offsets:
            along = torch.arange(_diagonal_length(shape, k), device=device)
            keys.append((along + max(-k, 0)) * shape[1] + along + max(k, 0))
        order = torch.argsort(torch.cat(keys))
        return Pattern.trusted(*split_keys(torch.cat(keys)[order], shape), shape), order


def random(
    m: int,
    n: int,
    density: float = 0.01,
    dtype: torch.dtype | None = None,
    device: Device = None,
    generator: torch.Generator | None = None,
) -> CSRTensor:
    """An (m, n) matrix with `round(density m n)` entries in random places, uniform in [0, 1).

    As `scipy.sparse.random_array`. The places are drawn on the CPU.

    Raises:
        ValueError: a density outside [0, 1], or a negative size.
    """
    shape = checked_shape((m, n))
    if not 0 <= density <= 1:
        raise ValueError(f"density: expected a number from 0 to 1, got {density}")
    with finding_structure("random"):
        pattern = _random_pattern(shape, round(density * m * n), generator)
    values = torch.rand(pattern.nnz, generator=generator, dtype=dtype).to(device)
    return CSRTensor(pattern.to(values.device), values)


def _random_pattern(
    shape: tuple[int, int], wanted: int, generator: torch.Generator | None
) -> Pattern:
    places = shape[0] * shape[1]
    if wanted > places // 2:  # what is left out is the smaller set
        absent = _distinct(places, places - wanted, generator)
        stored = torch.ones(places, dtype=torch.bool)
        stored[absent] = False
        keys = torch.nonzero(stored)[:, 0]
    else:
        keys = _distinct(places, wanted, generator)
    crow, col = split_keys(keys, shape)
    return Pattern.trusted(crow, col, shape)


def _distinct(bound: int, count: int, generator: torch.Generator | None) -> Tensor:
    """`count` different numbers below `bound`, sorted; `count` is at most half of `bound`."""
    keys = torch.empty(0, dtype=torch.int64)
    while len(keys) < count:
        more = torch.randint(bound, (2 * (count - len(keys)),), generator=generator)
        keys = torch.unique(torch.cat([keys, more]))
    surplus = torch.randperm(len(keys), generator=generator)[: len(keys) - count]
    kept = torch.ones(len(keys), dtype=torch.bool)
    kept[surplus] = False
    return keys[kept]


def poisson(*sizes: int, dtype: torch.dtype | None = None, device: Device = None) -> CSRTensor:
    """The 3-, 5- or 7-point stencil of -Laplace on a grid of 1, 2 or 3 dimensions.

    `poisson(30, 20)` has one row per point of a 30 x 20 grid, the last dimension running fastest;
    Dirichlet boundary, spacing 1: the diagonal is twice the dimension, neighbours are -1. As
    `pyamg.gallery.poisson`.

    Raises:
        ValueError: no size, more than three, or one below 1.
    """
    if not 1 <= len(sizes) <= 3 or not all(isinstance(n, Integral) and n >= 1 for n in sizes):
        raise ValueError(
            f"sizes: expected one to three integers of at least 1, as in poisson(30, 20), got "
            f"{sizes}"
        )
    result = None
    for n in sizes:
        if n == 1:
            line = diags([2.0], [0], (1, 1), dtype, device)
        else:
            line = diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n), dtype, device)
        if result is None:
            result = line
        else:
            here = eye(n, dtype=dtype, device=device)
            rest = eye(result.shape[0], dtype=dtype, device=device)
            result = kron(result, here) + kron(rest, line)
    assert result is not None
    return result


def _diagonal_length(shape: tuple[int, int], k: int) -> int:
    return max(0, min(shape[0] + min(k, 0), shape[1] - max(k, 0)))
