"""One matrix in every contender's form on a device, and what its products have to be.

The references are written with PyTorch's dense operations alone, in float64, some columns at a
time: slow, and independent of every contender.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from array_peer import DTYPES, ArrayPeer
from scipy import sparse
from torch import Tensor

from sparsetorch import CSRTensor

Results = tuple[Tensor, ...]
Contender = Callable[[], tuple[Any, ...]]
COLUMNS = 32  # of a reference at a time: 1.3 GB for 5 million entries


class Contest(NamedTuple):
    """What the results have to be, who computes them, and the bytes that have to move for it."""

    want: Results  # float64
    contenders: dict[str, Contender]
    moved: int


class Problem:
    """A square matrix with int32 indices, and random dense operands."""

    def __init__(
        self,
        matrix: sparse.csr_array,
        dtype: torch.dtype,
        device: torch.device,
        peer: ArrayPeer | None,
    ):
        self.matrix = matrix
        self.A = CSRTensor.from_scipy(matrix, dtype, device)
        self.pattern, self.values = self.A.pattern, self.A.values
        self.n, self.nnz = self.pattern.shape[0], self.pattern.nnz
        self.csr = self.A.to_torch()
        self.row, self.col = self.pattern.row.long(), self.pattern.col.long()
        self.exact = self.values.double()
        self.dtype, self.device = dtype, device
        self.peer = peer if dtype in DTYPES else None
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        numbers = torch.randn(*shape, generator=self.generator)
        return numbers.to(self.device, self.dtype)

    def by_peer(self, make: Callable[[ArrayPeer], Contender]) -> dict[str, Contender]:
        """The contender of the peer with SciPy's interface, if it is there and has the dtype."""
        if self.peer is None:
            return {}
        try:
            return {self.peer.name: make(self.peer)}
        except Exception as refusal:
            return {self.peer.name: _raising(refusal)}

    def product(self, X: Tensor, *, transpose: bool = False) -> Tensor:
        """A X or A^T X; X (n,) or (n, k)."""
        to, of = (self.col, self.row) if transpose else (self.row, self.col)
        dense = X.reshape(self.n, -1)
        out = dense.new_zeros(dense.shape, dtype=torch.float64)
        for part in _parts(dense.shape[1]):
            terms = self.exact.unsqueeze(1) * dense[:, part].double()[of]
            out[:, part] = torch.zeros_like(out[:, part]).index_add(0, to, terms)
        return out.reshape(X.shape)

    def largest(self, X: Tensor) -> Tensor:
        """max over the stored (i, j) of a_ij x_j; X (n, k)."""
        out = X.new_zeros(X.shape, dtype=torch.float64)
        for part in _parts(X.shape[1]):
            terms = self.exact.unsqueeze(1) * X[:, part].double()[self.col]
            row = self.row.unsqueeze(1).expand(terms.shape)
            out[:, part] = torch.zeros_like(out[:, part]).scatter_reduce(
                0, row, terms, "amax", include_self=False
            )
        return out

    def entries(self, U: Tensor, V: Tensor) -> Tensor:
        """<u_i, v_j> at the stored (i, j); U, V (n,) or (n, k)."""
        left, right = U.reshape(self.n, -1), V.reshape(self.n, -1)
        out = self.exact.new_zeros(self.nnz)
        for part in _parts(left.shape[1]):
            out += (left[self.row, part].double() * right[self.col, part].double()).sum(1)
        return out

    def softmax(self) -> Tensor:
        """exp(a_ij) over the sum of row i."""
        zeros = self.exact.new_zeros(self.n)
        largest = zeros.scatter_reduce(0, self.row, self.exact, "amax", include_self=False)
        weights = (self.exact - largest[self.row]).exp()
        return weights / zeros.index_add(0, self.row, weights)[self.row]

    def from_scipy(self, values: Any) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _raising(refusal: Exception) -> Contender:
    def call() -> tuple[Any, ...]:
        raise refusal

    return call


def _parts(k: int) -> Iterator[slice]:
    return (slice(start, start + COLUMNS) for start in range(0, k, COLUMNS))
