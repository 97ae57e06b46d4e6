"""The order in which a direct method eliminates unknowns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spilu
from torch import Tensor

from sparsetorch.structure import INT32_MAX
from sparsetorch_kernels import cholesky_is_compiled, order_by_minimum_degree

if TYPE_CHECKING:
    from sparsetorch.pattern import Pattern


def minimum_degree(pattern: Pattern) -> Tensor:
    """A fill-reducing order of a symmetric pattern's columns: (n,) int64, the k-th to eliminate.

    Approximate minimum degree, by `sparsetorch_kernels.order_by_minimum_degree`; SuperLU's order
    where the C++ library could not be compiled.

    Raises:
        ValueError: the pattern is not symmetric; without the C++ library, more entries than
            SuperLU's 32-bit indices can count.
    """
    if not pattern.is_symmetric:
        raise ValueError(f"pattern: expected a symmetric one, got {pattern!r}")
    if not cholesky_is_compiled():
        return by_superlu(pattern)
    mirror = pattern.layout.t_perm
    assert mirror is not None
    return order_by_minimum_degree(pattern.crow, pattern.col, mirror)


def by_superlu(pattern: Pattern) -> Tensor:
    """SuperLU's multiple minimum degree (Liu, ACM TOMS 11, 1985), as `minimum_degree`.

    SciPy gives it away only with a factorization: that of a dominant matrix, incomplete, with
    everything dropped.

    Raises:
        ValueError: more entries than SuperLU's 32-bit indices can count.
    """
    n = pattern.shape[0]
    if pattern.nnz + n > INT32_MAX:
        raise ValueError(f"pattern: expected at most {INT32_MAX - n} entries, got {pattern.nnz}")
    if pattern.nnz == 0:
        return torch.arange(n)
    crow, col = (index.to(torch.int32).numpy() for index in (pattern.crow, pattern.col))
    ones = sp.csc_array((np.ones(pattern.nnz, dtype=np.float32), col, crow), shape=(n, n))
    dominant = sp.csc_array(ones + sp.diags_array(np.full(n, 2.0 * n, dtype=np.float32)))
    factors = spilu(
        dominant,
        drop_tol=1.0,
        fill_factor=1,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    # SuperLU numbers the columns: perm_c[i] is when column i is eliminated.
    order = np.empty(n, dtype=np.int64)
    order[factors.perm_c] = np.arange(n)
    return torch.from_numpy(order)
