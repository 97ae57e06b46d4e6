"""The incidence matrix of the rows of a sparse matrix and its entries, in the kernels' form."""

from __future__ import annotations

import torch

from sparsetorch.structure import expand_rows
from sparsetorch_kernels import Layout


def incidence(layout: Layout) -> Layout:
    """The (n_rows, nnz) matrix with a one for each entry, in its row.

    Column k is entry k of the values, also where the layout is a transpose, which reads them
    through a permutation. Its own values, all ones, are those of the layout in turn, row by row.
    """
    crow, nnz = layout.crow, layout.col.shape[0]
    entries = torch.arange(nnz + 1, dtype=crow.dtype, device=crow.device)
    row = expand_rows(crow, nnz)
    if layout.perm is None:
        return Layout(crow, entries[:-1], None, entries, row, None, layout.n_rows, nnz)
    # Place k is entry perm[k]; each row of the transpose is one entry, and has one place.
    owner, where = torch.empty_like(row), torch.empty_like(row)
    owner[layout.perm.long()] = row
    where[layout.perm.long()] = entries[:-1]
    return Layout(crow, layout.perm, None, entries, owner, where, layout.n_rows, nnz)
