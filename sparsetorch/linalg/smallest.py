"""Whether all eigenvalues of smallest magnitude were found: by counting those that there are.

A Hermitian S - t I = P^T L D L^H P has as many negative eigenvalues as D (Sylvester's law of
inertia), so two factorizations count the eigenvalues of S between -t and t.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.cholesky import ldlt, symbolic
from sparsetorch.linalg.solution import SolveError
from sparsetorch_kernels import cholesky_is_compiled

# A factorization of this size takes less than a second, far less than Lanczos' method inside of a
# spectrum does.
LARGEST_MATRIX, LARGEST_FACTOR = 10**5, 10**7


def n_missed(S: CSRTensor, w: Tensor, bound: float) -> int:
    """How many eigenvalues of S are closer to zero than the furthest of w (k,) and not among them.

    bound: on the eigenvalues' absolute values. What differs from the furthest by rounding only is
    not counted. 0 also where S is too large to be factorized for that, or needs exchanges of rows.
    """
    furthest, precision = float(w.abs().max()), torch.finfo(w.dtype).eps
    radius = furthest - max(math.sqrt(precision) * furthest, 100 * precision * bound)
    if radius <= 0 or not _is_affordable(S):
        return 0
    try:
        inside = _n_below(S, radius) - _n_below(S, -radius)
    except SolveError:
        return 0
    return max(inside - int((w.abs() < radius).sum()), 0)


def _n_below(S: CSRTensor, t: float) -> int:
    """The number of eigenvalues below t."""
    shift = S.values.new_full((S.shape[0],), -t)
    return ldlt(S.add_diagonal(shift)).n_negative


def _is_affordable(S: CSRTensor) -> bool:
    if S.device.type != "cpu" or S.shape[0] > LARGEST_MATRIX or not cholesky_is_compiled():
        return False
    pattern = S.pattern.with_diagonal.pattern
    return symbolic(pattern, S.dtype).size <= LARGEST_FACTOR
