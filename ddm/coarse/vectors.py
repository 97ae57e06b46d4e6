"""Vectors for coarse spaces: constants, and linear functions of the coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddm.partition import Decomposition
from ddm.positions import check_positions


def constants(n: int, block_size: int = 1) -> np.ndarray:
    """One vector for each component of a block, (n, block_size)."""
    component = np.arange(n) % block_size
    return (component[:, None] == np.arange(block_size)).astype(np.float64)


def modes_of(near_nullspace: Any, n: int) -> np.ndarray:
    """Vectors that a user gives for a near null space, (n, k) in float64 or complex128.

    Raises:
        TypeError: numbers that these do not hold exactly.
        ValueError: another shape, or values that are not finite or all zero.
    """
    modes = np.asarray(near_nullspace)
    dtype = np.dtype(np.complex128 if modes.dtype.kind == "c" else np.float64)
    if not np.can_cast(modes.dtype, dtype):
        raise TypeError(
            f"near_nullspace: expected numbers that {dtype} holds, got {modes.dtype}; convert them"
        )
    modes = modes.astype(dtype)
    if modes.ndim != 2 or len(modes) != n or not modes.shape[1] or not np.isfinite(modes).all():
        raise ValueError(
            f"near_nullspace: expected finite values of shape ({n}, k), got {modes.shape}"
        )
    if not modes.any():
        raise ValueError("near_nullspace: every value is zero; leave it out to have constants")
    return modes


def with_linear(vectors: np.ndarray, coordinates: np.ndarray, block_size: int = 1) -> np.ndarray:
    """Vectors with the coordinates in each component beside them, (n, k + d * block_size).

    A coarse space with linear functions needs fewer iterations than one with constants alone, for
    1 + d times its columns. What depends on the others, as rigid-body modes do, `nicolaides` drops.

    Args:
        vectors: (n, k).
        coordinates: (n, d) positions of the unknowns.
        block_size: unknowns a node.

    Raises:
        ValueError: see `ddm.positions.check_positions`.
    """
    n = len(vectors)
    x = check_positions(coordinates, n)
    x = x - x.mean(axis=0)
    x = x / max(np.abs(x).max(), np.finfo(np.float64).tiny)
    linear = x[:, None, :] * constants(n, block_size)[:, :, None]
    return np.hstack([vectors, linear.reshape(n, -1)])


def coarse_vectors(
    decomposition: Decomposition,
    near_nullspace: Any = None,
    coordinates: np.ndarray | None = None,
) -> np.ndarray:
    """The vectors that a coarse space is made of on given subdomains, (n, k), as `nicolaides` asks.

    Args:
        decomposition: of the matrix.
        near_nullspace: (n, k) vectors that the coarse space is to hold; None is constants, one for
            each component of a block.
        coordinates: (n, d) positions of the unknowns, which add linear functions; None adds none.

    Raises:
        TypeError, ValueError: see `modes_of` and `with_linear`.
    """
    d = decomposition
    B = constants(d.n, d.block_size) if near_nullspace is None else modes_of(near_nullspace, d.n)
    if coordinates is not None:
        B = with_linear(B, coordinates, d.block_size)
    return nowhere_zero(B, d)


def nowhere_zero(vectors: np.ndarray, decomposition: Decomposition) -> np.ndarray:
    """Vectors (n, k) with a one in the first where all vanish on a whole subdomain.

    Such as one of unknowns that were fixed to zero and have no couplings.
    """
    d = decomposition
    size = np.bincount(d.subdomain, weights=abs(vectors).sum(axis=1)[d.node])
    lost = d.node[size[d.subdomain] == 0]
    if not len(lost):
        return vectors
    vectors = vectors.copy()
    vectors[lost, 0] = 1
    return vectors
