"""LU factorization on CUDA, by cuDSS through nvmath-python, which is an optional dependency."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.factorization import Factorization
from sparsetorch.linalg.krylov import check_right_hand_side


class _Plan:
    """One solver of nvmath for one pattern: planned once, factors of one set of values at a time.

    The solver takes one right-hand side, since nvmath fixes their number when it plans.
    """

    def __init__(self) -> None:
        self.solver: Any = None
        self.factored: CSRTensor | None = None

    def factor(self, A: CSRTensor) -> None:
        """Have the factors of A in the solver; nothing is done where they are there."""
        if A is self.factored:
            return
        self.factored = None  # should this be interrupted
        crow = A.pattern.crow
        values = A.values.detach().contiguous()
        matrix = torch.sparse_csr_tensor(
            crow, A.pattern.col.to(crow.dtype), values, A.shape, check_invariants=False
        )
        if self.solver is None:
            nvmath = importlib.import_module("nvmath.sparse.advanced")
            self.solver = nvmath.DirectSolver(matrix, values.new_zeros(A.shape[0]))
            self.solver.plan()
        else:
            self.solver.reset_operands(a=matrix)
        self.solver.factorize()
        self.factored = A

    def solve(self, A: CSRTensor, b: Tensor) -> Tensor:
        """The solution for b (n,)."""
        self.factor(A)
        self.solver.reset_operands(b=b)
        return self.solver.solve()


class CuDSS(Factorization):
    """Factors of a matrix on CUDA, and of its transpose, which are made when first needed.

    cuDSS solves no transposed systems. Factorizations made by `refactorized` share their plans,
    which hold the factors of one of them at a time: taking turns between them is right, but
    factorizes again at each turn.
    """

    def __init__(self, matrices: tuple[CSRTensor, CSRTensor], plans: tuple[_Plan, _Plan]):
        self._matrices = matrices  # A and its transpose
        self._plans = plans

    @property
    def matrix(self) -> CSRTensor:
        """See `Factorization.matrix`."""
        return self._matrices[0]

    def __reduce__(self):
        raise TypeError(
            "factors by cuDSS cannot be copied or pickled; keep the matrix, and factorize it again"
        )

    def solve(self, b: Tensor, transpose: bool = False) -> Tensor:
        """See `Factorization.solve`; column by column."""
        A, plan = self._matrices[transpose], self._plans[transpose]
        check_right_hand_side(A, b)
        x = torch.empty_like(b.detach(), memory_format=torch.contiguous_format)
        for to, column in zip(x.view(len(x), -1).mT, b.detach().reshape(len(b), -1).mT):
            to.copy_(plan.solve(A, column.contiguous()))
        return x

    @property
    def T(self) -> CuDSS:
        """The factorization of the transposed matrix."""
        (A, turned), (plan, turned_plan) = self._matrices, self._plans
        return CuDSS((turned, A), (turned_plan, plan))

    def slogdet(self) -> tuple[Tensor, Tensor]:
        """Not to be had: raises NotImplementedError."""
        raise NotImplementedError(
            "slogdet: cuDSS gives no determinant of a general matrix; use A.to('cpu')"
        )

    def _refactorized(self, A: CSRTensor) -> CuDSS:
        """With the same plans."""
        return _factored(A, self._plans)


def cudss(A: CSRTensor) -> CuDSS:
    """Factors of a square matrix by cuDSS.

    Raises:
        ImportError: nvmath-python is not installed.
    """
    try:
        importlib.import_module("nvmath.sparse.advanced")
    except ImportError as error:
        raise ImportError(
            "A: direct methods on CUDA need cuDSS: pip install 'nvmath-python[cu13]' (or [cu12], "
            "as torch.version.cuda says); or use A.to('cpu'), or an iterative method"
        ) from error
    return _factored(A, (_Plan(), _Plan()))


def _factored(A: CSRTensor, plans: tuple[_Plan, _Plan]) -> CuDSS:
    plans[0].factor(A)
    return CuDSS((A, A.T), plans)
