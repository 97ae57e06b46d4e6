"""Orderings that make a matrix narrow, or its factors sparse.

Both return `order`, (n,): node order[k] comes k-th, so that `A.submatrix(order, order)` is the
reordered matrix, `x[order]` a reordered vector, and `torch.argsort(order)` the way back.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee as scipy_reverse_cuthill_mckee
from torch import Tensor

from sparsetorch import ordering
from sparsetorch.graph.adjacency import check_square, host_graph, symmetrized
from sparsetorch.pattern import Pattern
from sparsetorch.structure import finding_structure


@finding_structure("reverse_cuthill_mckee")
def reverse_cuthill_mckee(pattern: Pattern) -> Tensor:
    """An ordering that keeps entries near the diagonal: order (n,), int64, on pattern's device.

    For the graph of A + A^T; computed on the host by `scipy.sparse.csgraph.reverse_cuthill_mckee`.
    A. George, J. W. H. Liu, *Computer Solution of Large Sparse Positive Definite Systems*,
    Prentice-Hall (1981), chapter 4.

    Raises:
        TypeError, ValueError: not a square pattern, or one too large for int32 indices.
    """
    if check_square(pattern) == 0:
        return torch.zeros(0, dtype=torch.int64, device=pattern.device)
    graph = host_graph(symmetrized(pattern))
    order = scipy_reverse_cuthill_mckee(graph, symmetric_mode=True)
    return torch.from_numpy(order.astype(np.int64)).to(pattern.device)


@finding_structure("minimum_degree")
def minimum_degree(pattern: Pattern) -> Tensor:
    """An ordering that keeps Cholesky and LU factors sparse: order (n,), int64, pattern's device.

    Approximate minimum degree on the graph of A + A^T (P. R. Amestoy, T. A. Davis, I. S. Duff, SIAM
    J. Matrix Anal. Appl. 17 (1996)), computed on the host, each connected component on its own;
    without the C++ library SuperLU's multiple minimum degree (J. W. H. Liu, ACM Trans. Math.
    Software 11 (1985)). No factor is computed.

    Raises:
        TypeError, ValueError: not a square pattern; without the C++ library, one too large for
            int32 indices.
    """
    check_square(pattern)
    return ordering.minimum_degree(symmetrized(pattern).to("cpu")).to(pattern.device)
