"""The order in which a direct method eliminates unknowns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spilu
from torch import Tensor

from sparsetorch.structure import INT32_MAX

if TYPE_CHECKING:
    from sparsetorch.pattern import Pattern


def minimum_degree(pattern: Pattern) -> Tensor:
    """A fill-reducing order of a symmetric pattern's columns: (n,) int64, the k-th to eliminate.

    SuperLU's multiple minimum degree (Liu, ACM TOMS 11, 1985), which SciPy gives away only with a
    factorization: that of a dominant matrix, incomplete, with everything dropped.

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
