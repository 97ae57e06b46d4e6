"""LU factorization on the CPU, by SciPy's SuperLU; kept, so that it also serves the adjoint."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.compiled_factors import compiled_factored_solve
from sparsetorch.linalg.factorization import Factorization
from sparsetorch.linalg.krylov import check_right_hand_side
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.structure import INT32_MAX

# A diagonal entry this close to the largest of its column is taken as the pivot: it keeps the
# symmetric ordering, and costs a digit of accuracy at worst.
DIAGONAL_PREFERENCE = 0.1


@dataclass(frozen=True, eq=False)
class Ordering:
    """A matrix with rows and columns in SuperLU's order, in CSC form, for new values.

    order: unknown order[k] comes k-th. gather: which value of the matrix each entry is.
    """

    order: np.ndarray
    gather: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray


class LU(Factorization):
    """P A Q = L U, with row interchanges."""

    def __init__(
        self, A: CSRTensor, lu: SuperLU, ordering: Ordering | None = None, transposed: bool = False
    ):
        self._A = A.detach()
        self._lu = lu
        self._ordering = ordering
        self._transposed = transposed

    @property
    def matrix(self) -> CSRTensor:
        """See `Factorization.matrix`."""
        return self._A.T if self._transposed else self._A

    def __reduce__(self):
        # SuperLU's factors cannot be stored; those of the matrix, as it was, are found anew.
        return _factored_again, (self._A, self._transposed)

    def __copy__(self) -> LU:
        return LU(self._A, self._lu, self._ordering, self._transposed)

    def __deepcopy__(self, memo: dict) -> LU:
        return copy.copy(self)  # nothing in it ever changes

    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """See `Factorization.solve`."""
        if torch.compiler.is_compiling():
            return compiled_factored_solve(self, b, transpose)
        check_right_hand_side(self._A, b)
        # SuperLU holds the factors of A^T, whose CSC arrays are the CSR arrays of A.
        direction = "N" if transpose != self._transposed else "T"
        right = np.ascontiguousarray(b.detach().resolve_conj().resolve_neg().numpy())
        if self._ordering is None:
            return torch.from_numpy(self._lu.solve(right, direction))
        x = np.empty_like(right)
        x[self._ordering.order] = self._lu.solve(right[self._ordering.order], direction)
        return torch.from_numpy(x)

    @property
    def T(self) -> LU:
        """The factorization of the transposed matrix."""
        return LU(self._A, self._lu, self._ordering, not self._transposed)

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """See `Factorization.slogdet`; the signs of both permutations count."""
        lu = self._lu
        pivots = torch.from_numpy(lu.U.diagonal())
        swaps = _parity(lu.perm_r) * _parity(lu.perm_c)
        return swaps * pivots.sgn().prod(), pivots.abs().log().sum()

    def _refactorized(self, A: CSRTensor) -> LU:
        """With the order of the columns, but other pivots."""
        A = A.T if self._transposed else A
        ordering = self._ordering or _ordering(self._A, self._lu)
        data = values_of(A)[ordering.gather]
        matrix = sp.csc_array((data, ordering.indices, ordering.indptr), shape=A.pattern.shape)
        return LU(_kept(A), _factored(A, matrix, "NATURAL"), ordering, self._transposed)


def lu(A: CSRTensor) -> LU:
    """The LU factors of a square matrix; see `factorized` for errors."""
    if A.nnz > INT32_MAX:
        raise ValueError(f"A: expected at most {INT32_MAX} entries, got {A.nnz}")
    _refuse_empty(A)
    indices = [index.to(torch.int32).numpy() for index in (A.pattern.col, A.pattern.crow)]
    transposed = sp.csc_array((values_of(A), *indices), shape=A.pattern.shape)
    order = "MMD_AT_PLUS_A" if A.pattern.is_symmetric else "COLAMD"
    return LU(_kept(A), _factored(A, transposed, order))


def _kept(A: CSRTensor) -> CSRTensor:
    """The matrix as it is now, whatever becomes of its values."""
    return A.with_values(A.values.detach().clone())


def _factored_again(A: CSRTensor, transposed: bool) -> LU:
    factors = lu(A)
    return factors.T if transposed else factors


def values_of(A: CSRTensor) -> np.ndarray:
    """The stored values as an array."""
    return A.values.detach().contiguous().resolve_conj().resolve_neg().numpy()


def _factored(A: CSRTensor, transposed: sp.csc_array, order: str) -> SuperLU:
    try:
        if A.pattern.is_symmetric:
            return splu(
                transposed,
                permc_spec=order,
                diag_pivot_thresh=DIAGONAL_PREFERENCE,
                options={"SymmetricMode": True},
            )
        return splu(transposed, permc_spec=order)
    except RuntimeError as error:
        raise SolveError(_singular(A, str(error))) from error


def _ordering(A: CSRTensor, lu: SuperLU) -> Ordering:
    order = np.argsort(lu.perm_c)
    indices = (A.pattern.col.numpy(), A.pattern.crow.numpy())
    numbers = sp.csc_array((np.arange(A.nnz), *indices), shape=A.pattern.shape)
    permuted = sp.csc_array(numbers[order][:, order])
    permuted.sort_indices()
    return Ordering(
        order,
        permuted.data,
        permuted.indices.astype(np.int32),
        permuted.indptr.astype(np.int32),
    )


def _parity(permutation: np.ndarray) -> int:
    """1 for an even permutation, -1 for an odd one: by the number of its cycles."""
    n = len(permutation)
    graph = sp.csr_array((np.ones(n), permutation, np.arange(n + 1)), shape=(n, n))
    cycles = sp.csgraph.connected_components(graph, return_labels=False) if n else 0
    return 1 if (n - cycles) % 2 == 0 else -1


def _refuse_empty(A: CSRTensor) -> None:
    t_crow, _ = A.pattern.layout.transposed
    for name, pointers in (("row", A.pattern.crow), ("column", t_crow)):
        empty = torch.nonzero(pointers.diff() == 0)[:, 0]
        if len(empty):
            others = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
            raise SolveError(_singular(A, f"{name} {int(empty[0])} has no entries{others}"))


def _singular(A: CSRTensor, detail: str) -> Solution:
    x = A.values.new_full((A.shape[-1],), float("nan"))
    return Solution(x, Status.SINGULAR, 0, [], detail)
