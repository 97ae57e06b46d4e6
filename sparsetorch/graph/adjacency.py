"""A pattern as the graph that an algorithm reads: square, symmetric, or SciPy's on the host."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from sparsetorch.pattern import Pattern
from sparsetorch.structure import INT32_MAX, expand_ranges


def check_square(pattern: Pattern) -> int:
    """The number of nodes.

    Raises:
        TypeError: not a Pattern.
        ValueError: a pattern that is not square.
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(
            f"pattern: expected a Pattern, got {type(pattern).__name__}; a CSRTensor has one in "
            "A.pattern"
        )
    if pattern.shape[0] != pattern.shape[1]:
        raise ValueError(f"pattern: expected a square one, got shape {pattern.shape}")
    return pattern.shape[0]


def symmetrized(pattern: Pattern) -> Pattern:
    """The pattern of A + A^T, which is the pattern itself where that is symmetric."""
    return pattern if pattern.is_symmetric else pattern.union(pattern.T).pattern


def host_graph(pattern: Pattern) -> sp.csr_array:
    """The pattern as a SciPy array of ones with the int32 indices that SciPy's algorithms read.

    Raises:
        ValueError: more entries than int32 can count.
    """
    if max(pattern.nnz, *pattern.shape) > INT32_MAX:
        raise ValueError(
            f"pattern: SciPy's graph algorithms take up to {INT32_MAX} rows and entries, got "
            f"{pattern!r}"
        )
    col, crow = (i.to("cpu", torch.int32).numpy() for i in (pattern.col, pattern.crow))
    return sp.csr_array((np.ones(pattern.nnz), col, crow), shape=pattern.shape)


def neighbours(pattern: Pattern, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The columns stored in the rows `nodes` (k,): (position among nodes, column), both int64."""
    starts = pattern.crow[nodes]
    owner, entry = expand_ranges(starts, pattern.crow[nodes + 1] - starts)
    return owner, pattern.col[entry].long()
