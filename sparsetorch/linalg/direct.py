"""LU factorization on the CPU, by SciPy's SuperLU; kept, so that it also serves the adjoint."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.krylov import check_right_hand_side, check_system
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.structure import INT32_MAX

# A diagonal entry this close to the largest of its column is taken as the pivot: it keeps the
# symmetric ordering, and costs a digit of accuracy at worst.
DIAGONAL_PREFERENCE = 0.1


class Factorization:
    """The LU factors of one square matrix, for any number of right-hand sides.

    Made by `factorized`. Calling it solves, so it is a preconditioner for nearby matrices; `T` is
    the factorization of the transpose, made of the same factors.
    """

    def __init__(self, A: CSRTensor, lu: SuperLU, transposed: bool = False):
        self._A = A
        self._lu = lu
        self._transposed = transposed

    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """x with A x = b, or A^T x = b: (n,) or (n, k), like b. No gradients are recorded.

        Raises:
            TypeError, ValueError: b does not fit the matrix, or is not finite.
        """
        check_right_hand_side(self._A, b)
        # SuperLU holds the factors of A^T, whose CSC arrays are the CSR arrays of A.
        direction = "N" if transpose != self._transposed else "T"
        x = self._lu.solve(np.ascontiguousarray(b.detach().numpy()), direction)
        return torch.from_numpy(x)

    def __call__(self, b: Tensor) -> Tensor:
        """The solution of A x = b."""
        return self.solve(b)

    @property
    def T(self) -> Factorization:
        """The factorization of the transposed matrix."""
        return Factorization(self._A, self._lu, not self._transposed)


def factorized(A: CSRTensor) -> Factorization:
    """Factorize a square float32 or float64 matrix on the CPU.

    The ordering is minimum degree on A + A^T, with a preference for diagonal pivots, where the
    pattern is symmetric, and COLAMD elsewhere. Equivalent to `scipy.sparse.linalg.splu`.

    Raises:
        SolveError: the matrix is singular; rows and columns that are empty are named.
        ValueError: a batch of matrices, not square, not on the CPU, NaN or infinity among the
            values, or too many entries for SuperLU's 32-bit indices.
        TypeError: other dtypes.
    """
    check_system(A, A.values.new_zeros(A.shape[-2]))
    if A.device.type != "cpu":
        raise ValueError(
            f"A: the direct method runs on the CPU, got {A.device}; use A.to('cpu') or an "
            "iterative method"
        )
    if A.nnz > INT32_MAX:
        raise ValueError(f"A: expected at most {INT32_MAX} entries, got {A.nnz}")
    values = A.values.detach()
    if not bool(values.isfinite().all()):
        raise ValueError("A.values: expected finite numbers, got NaN or infinity")
    _refuse_empty(A)
    indices = [index.to(torch.int32).numpy() for index in (A.pattern.col, A.pattern.crow)]
    transposed = sp.csc_array((values.contiguous().numpy(), *indices), shape=A.pattern.shape)
    try:
        if A.pattern.is_symmetric:
            lu = splu(
                transposed,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=DIAGONAL_PREFERENCE,
                options={"SymmetricMode": True},
            )
        else:
            lu = splu(transposed, permc_spec="COLAMD")
    except RuntimeError as error:
        raise SolveError(_singular(A, str(error))) from error
    return Factorization(A, lu)


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
