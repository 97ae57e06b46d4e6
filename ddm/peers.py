"""What Schwarz methods have to be measured against: algebraic multigrid and a factorization."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.extras import extra
from ddm.factors import KeptFactors
from ddm.matrix_properties import is_symmetric, positive_share
from ddm.nullspace import NullSpace
from ddm.scipy_operator import ScipyOperator
from sparsetorch import CSRTensor

POSITIVE = 0.13
"""Up to this share of positive couplings Ruge and Stueben's method is taken; Poisson's equation on
good tetrahedra has 0.11."""


class _Peer(ScipyOperator):
    """A preconditioner by `apply` on (n,) or (n, k), for the same uses as `Schwarz`."""

    is_symmetric = True

    def __init__(self, A: CSRTensor, null: NullSpace | None = None) -> None:
        self.A, self.null = A, null

    def __call__(self, r: Tensor) -> Tensor:
        """`M r`."""
        return self.apply(r)

    def propagate(self, e: Tensor) -> Tensor:
        """`(I - M A) e`."""
        return e - self.apply(self.A @ e)


class Multigrid(_Peer):
    """PyAMG's V-cycle: Ruge-Stueben for what is nearly a scalar M-matrix, else aggregation.

    The latter is smoothed aggregation with the near null space.

    Args:
        A: (n, n).
        near_nullspace: (n, k).
        block_size: unknowns a node.
        symmetric: whether A is, or Hermitian.
        null: null space of a singular A; M then acts on its complement.

    Raises:
        ImportError: PyAMG is missing.

    Ruge and Stueben (1987); Vanek, Mandel and Brezina (1996).
    """

    def __init__(
        self,
        A: CSRTensor,
        near_nullspace: np.ndarray,
        *,
        block_size: int,
        symmetric: bool,
        null: NullSpace | None = None,
    ) -> None:
        super().__init__(A, null)
        self.is_symmetric = symmetric
        pyamg = extra("pyamg")
        matrix = sp.csr_matrix(A.to_scipy())
        # PyAMG estimates spectral radii from vectors of NumPy's global generator.
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        try:
            if block_size == 1 and _nearly_m_matrix(matrix):
                self.kind = "Ruge-Stueben"
                self.hierarchy: Any = pyamg.ruge_stuben_solver(matrix)
            else:
                self.kind = "smoothed aggregation"
                blocks = matrix.tobsr((block_size, block_size)) if block_size > 1 else matrix
                self.hierarchy = pyamg.smoothed_aggregation_solver(
                    blocks,
                    B=near_nullspace.astype(matrix.dtype),
                    symmetry=_symmetry(matrix, symmetric),
                )
        finally:
            np.random.set_state(state)  # noqa: NPY002
        self._cycle = self.hierarchy.aspreconditioner(cycle="V")
        self._arguments = (near_nullspace, block_size)

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew from the matrix: PyAMG's hierarchies cannot be pickled."""
        return _multigrid, (self.A, *self._arguments, self.is_symmetric, self.null)

    @property
    def nnz(self) -> int:
        """Stored entries of the matrices of all levels."""
        return sum(level.A.nnz for level in self.hierarchy.levels)

    def apply_transposed(self, r: Tensor) -> Tensor:
        """`M^T r` of a symmetric cycle, for r (n,) or (n, k).

        Raises:
            NotImplementedError: the matrix is not symmetric, or Hermitian.
        """
        if not self.is_symmetric:
            return super().apply_transposed(r)
        return self.apply(r.conj()).conj()

    def apply(self, r: Tensor) -> Tensor:
        """`M r` for r (n,) or (n, k)."""
        if r.dim() == 1:
            return self.apply(r[:, None])[:, 0]
        r = r if self.null is None else self.null.project(r)
        z = [torch.from_numpy(self._cycle.matvec(column.numpy())) for column in r.T.contiguous()]
        z = torch.stack(z, dim=1)
        return z if self.null is None else self.null.project(z)


def _multigrid(
    A: CSRTensor,
    near_nullspace: np.ndarray,
    block_size: int,
    symmetric: bool,
    null: NullSpace | None,
) -> Multigrid:
    return Multigrid(A, near_nullspace, block_size=block_size, symmetric=symmetric, null=null)


def _nearly_m_matrix(A: sp.csr_matrix) -> bool:
    if A.dtype.kind == "c":
        return False
    return bool((A.diagonal() > 0).all()) and positive_share(A) <= POSITIVE


def _symmetry(A: sp.csr_matrix, symmetric: bool) -> str:
    if symmetric:
        return "hermitian"
    return "symmetric" if is_symmetric(A) else "nonsymmetric"


class Direct(_Peer):
    """A factorization of the whole matrix, see `sparsetorch.linalg.factorized`.

    With derivatives in the values of A and in what it is applied to.

    Raises:
        SolveError: A is singular.
    """

    def __init__(self, A: CSRTensor) -> None:
        super().__init__(A)
        self.factors = KeptFactors.of(A)

    def apply(self, r: Tensor) -> Tensor:
        """`A^-1 r` for r (n,) or (n, k)."""
        return self.factors.solve(r)

    def apply_transposed(self, r: Tensor) -> Tensor:
        """`A^-T r` for r (n,) or (n, k)."""
        return self.factors.solve(r, transpose=True)
