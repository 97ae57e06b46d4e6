"""A matrix of blocks and its subdomains, seen node by node: one number for each block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch

from ddm.partition import Decomposition
from sparsetorch import CSRTensor


@dataclass(frozen=True, eq=False)
class Condensed:
    """Traces and Frobenius norms of the blocks of A, and the decomposition's local nodes.

    With one unknown a node, the traces are A's entries. They do not change with the axes that the
    components of a vector refer to.

    Attributes:
        matrix: (n, n) traces of the blocks over the block size, with a symmetric pattern.
        norms: (nnz,) Frobenius norms of the blocks over the root of the block size.
        row, col: (nnz,) of its entries.
        owner: (n,) subdomain of each node.
        subdomain, node, own, layer: (M,) of the local nodes, see `Decomposition`.
        block_size: unknowns a node.
    """

    matrix: CSRTensor
    norms: np.ndarray
    row: np.ndarray
    col: np.ndarray
    owner: np.ndarray
    subdomain: np.ndarray
    node: np.ndarray
    own: np.ndarray
    layer: np.ndarray
    block_size: int

    @classmethod
    def of(cls, A: CSRTensor, d: Decomposition) -> Self:
        """Of a matrix, on the CPU, and its decomposition."""
        size = d.block_size
        first = slice(None, None, size)
        if size == 1:
            matrix = A.to(torch.float64)
            norms = matrix.values.abs().numpy()
        else:
            blocks = sp.bsr_array(A.to(torch.float64).to_scipy(), blocksize=(size, size))
            blocks.sort_indices()
            traces = np.trace(blocks.data, axis1=1, axis2=2) / size
            norms = np.sqrt((blocks.data**2).sum(axis=(1, 2)) / size)
            shape = (d.n // size, d.n // size)
            matrix = CSRTensor.from_scipy(
                sp.csr_array((traces, blocks.indices, blocks.indptr), shape=shape)
            )
        return cls(
            matrix=matrix,
            norms=norms,
            row=matrix.pattern.row.numpy(),
            col=matrix.pattern.col.numpy(),
            owner=d.owner[first],
            subdomain=d.subdomain[first],
            node=d.node[first] // size,
            own=d.own[first],
            layer=d.layer[first],
            block_size=size,
        )

    @property
    def n(self) -> int:
        """Number of nodes."""
        return len(self.owner)

    @property
    def n_subdomains(self) -> int:
        """Number of subdomains."""
        return int(self.owner.max()) + 1

    @cached_property
    def values(self) -> np.ndarray:
        """Entries of `matrix`, (nnz,)."""
        return self.matrix.values.numpy()

    @cached_property
    def diagonal(self) -> np.ndarray:
        """Diagonal of `matrix`, (n,)."""
        return self.matrix.diagonal().numpy()

    @cached_property
    def diagonal_norms(self) -> np.ndarray:
        """Norms of the diagonal blocks, (n,)."""
        return self.norms[self.row == self.col]

    @cached_property
    def row_sum(self) -> np.ndarray:
        """Row sums of `matrix`, (n,)."""
        return np.bincount(self.row, weights=self.values, minlength=self.n)

    @cached_property
    def multiplicity(self) -> np.ndarray:
        """Number of subdomains that hold each node, (n,)."""
        return np.bincount(self.node, minlength=self.n)

    @property
    def local_diagonal(self) -> np.ndarray:
        """Traces of the diagonal blocks at the local nodes, (M,)."""
        return self.diagonal[self.node] * self.block_size

    def summed(self, x: np.ndarray) -> np.ndarray:
        """Values at local unknowns (N,), summed over the components of each local node, (M,)."""
        return x.reshape(-1, self.block_size).sum(axis=1)
