"""One- and two-level restricted Schwarz methods with interface values and a coarse space.

One level (restricted additive Schwarz, optimized if L is not zero):

    M = sum_i Rt_i^T (R_i A R_i^T + L_i)^-1 R_i

R_i restricts to the overlapping subdomain i, Rt_i to what it owns. Two levels, coarse after fine:

    I - M2 A = (I - P A0^-1 P^T A)(I - M A),     A0 = P^T A P

Cai and Sarkis (1999); St-Cyr, Gander and Thomas (2007); Taghibakhshi et al. (2023), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from ddm.coarse import check_coarse
from ddm.local import DenseBlocks, SparseBlocks, blown_up_by, local_solver, refuse_gradient
from ddm.partition import Decomposition
from sparsetorch import CSRTensor
from sparsetorch.linalg import Factorization, SolveError, factorized

# Coarse matrices up to this size are inverted densely: cheap, and differentiable.
DENSE_COARSE_UP_TO = 512


def robin(decomposition: Decomposition, theta: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Interface values of the Robin condition with one weight, (len(decomposition.interface),).

    `L_pp = -(1 - theta) outside_p`: theta = 1 leaves the Dirichlet condition of RAS, theta = 0
    gives the Neumann condition of a matrix with zero row sums.

    Raises:
        ValueError: theta is negative or not finite.
    """
    if not 0 <= theta < float("inf"):
        raise ValueError(f"theta: expected a weight of at least 0, got {theta}")
    d = decomposition
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    return torch.from_numpy((row == col) * -(1 - theta) * d.outside[row]).to(dtype)


class Schwarz:
    """A Schwarz preconditioner: `M r` by `apply`, `T e = (I - M A) e` by `propagate`.

    Args:
        A: (n, n) matrix.
        decomposition: of A.
        interface: values added to the local matrices at `decomposition.interface`; None adds none.
        P: (n, S) prolongation of the coarse space; None leaves one level.
        local: "dense" (differentiable), "sparse", "auto", or a layout made by `local_solver`.
        coarse: "dense" (differentiable), "sparse" or "auto".

    With both solvers dense, which "auto" picks where a gradient is required, `apply` and
    `propagate` are differentiable in `interface`, `P.values` and their argument.

    Raises:
        ValueError: shapes or dtypes that do not fit; a singular local or coarse matrix; a sparse
            solver where a gradient is required.
    """

    def __init__(
        self,
        A: CSRTensor,
        decomposition: Decomposition,
        *,
        interface: Tensor | None = None,
        P: CSRTensor | None = None,
        local: str | DenseBlocks | SparseBlocks = "auto",
        coarse: str = "auto",
    ) -> None:
        d = decomposition
        if A.ndim != 2:
            raise ValueError(f"A: expected one matrix, got shape {tuple(A.shape)}")
        d.check_pattern(A.pattern)
        self.A = A
        self.decomposition = d
        self.interface = interface
        values = A.values[torch.from_numpy(d.block_source).to(A.device)]
        if interface is not None:
            if interface.shape != (len(d.interface),):
                raise ValueError(
                    f"interface: expected shape ({len(d.interface)},), one value for each entry of "
                    f"decomposition.interface, got {tuple(interface.shape)}"
                )
            if interface.dtype != A.dtype:
                raise TypeError(
                    f"interface: expected {A.dtype} like A, got {interface.dtype}; convert with .to"
                )
            where = torch.from_numpy(d.interface).to(A.device)
            values = values.index_add(0, where, interface)
        differentiable = torch.is_grad_enabled() and values.requires_grad
        if local == "auto" and differentiable:
            local = "dense"
        self.local = local_solver(d, local, A.device) if isinstance(local, str) else local
        if differentiable and isinstance(self.local, SparseBlocks):
            raise ValueError(
                "local: sparse local solves have no gradient, but the local matrices require one; "
                "use local='dense', or torch.no_grad()"
            )
        self.factors = self.local.factor(values)
        self.P = P
        if P is not None:
            check_coarse(P, d.n)
            self.coarse = CoarseSolver(P.T @ (A @ P), coarse)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, n)."""
        return (self.decomposition.n, self.decomposition.n)

    def _correct(self, r: Tensor, transpose: bool = False) -> Tensor:
        """Coarse correction `P A0^-1 P^T r`, (n, k) -> (n, k)."""
        assert self.P is not None
        return self.P @ self.coarse.solve(self.P.T @ r, transpose)

    def apply(self, r: Tensor) -> Tensor:
        """`M r` for r of shape (n,) or (n, k).

        Raises:
            ValueError: another shape, or r requires a gradient that a sparse solve does not record.
            TypeError: another dtype than that of A.
        """
        self._check(r)
        if r.dim() == 1:
            return self.apply(r.unsqueeze(-1)).squeeze(-1)
        z = self.local.apply(self.factors, r)  # type: ignore[arg-type]
        if self.P is not None:
            z = z + self._correct(r - self.A @ z)
        return z

    __call__ = apply

    def apply_transposed(self, r: Tensor) -> Tensor:
        """`M^T r` for r of shape (n,) or (n, k); raises like `apply`."""
        self._check(r)
        if r.dim() == 1:
            return self.apply_transposed(r.unsqueeze(-1)).squeeze(-1)
        if self.P is None:
            return self.local.apply(self.factors, r, transpose=True)  # type: ignore[arg-type]
        c = self._correct(r, transpose=True)
        z = self.local.apply(self.factors, r - self.A.T @ c, transpose=True)  # type: ignore[arg-type]
        return c + z

    @property
    def T(self) -> Callable[[Tensor], Tensor]:
        """The transposed preconditioner: what `sparsetorch.linalg.solve` takes for its adjoint."""
        return self.apply_transposed

    def propagate(self, e: Tensor) -> Tensor:
        """`T e = (I - M A) e`, the error after one stationary iteration, for e (n,) or (n, k)."""
        return e - self.apply(self.A @ e)

    def _check(self, r: Tensor) -> None:
        n = self.decomposition.n
        if r.dim() not in (1, 2) or r.shape[0] != n:
            raise ValueError(f"r: expected shape ({n},) or ({n}, k), got {tuple(r.shape)}")
        if r.dtype != self.A.dtype:
            raise TypeError(f"r: expected {self.A.dtype} like A, got {r.dtype}; convert with .to")

    def as_linear_operator(self) -> LinearOperator:
        """The preconditioner as SciPy's `M`, with its adjoint."""
        dtype = self.A.dtype

        def on_arrays(function: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
            def apply(r: np.ndarray) -> np.ndarray:
                moved = torch.as_tensor(r, dtype=dtype, device=self.A.device)
                return function(moved).detach().cpu().numpy()

            return apply

        operator: Any = LinearOperator  # its __new__ takes what type checkers look for in __init__
        return operator(
            self.shape,
            matvec=on_arrays(self.apply),
            rmatvec=on_arrays(self.apply_transposed),
            matmat=on_arrays(self.apply),
            dtype=torch.empty(0, dtype=dtype).numpy().dtype,
        )


class CoarseSolver:
    """Solves with the coarse matrix: a dense inverse if small, else a sparse factorization."""

    def __init__(self, A0: CSRTensor, kind: str = "auto") -> None:
        if kind not in ("auto", "dense", "sparse"):
            raise ValueError(f"coarse: expected 'auto', 'dense' or 'sparse', got {kind!r}")
        differentiable = torch.is_grad_enabled() and A0.values.requires_grad
        if kind == "sparse" and differentiable:
            raise ValueError(
                "coarse: the sparse coarse solve has no gradient, but P or A requires one; use "
                "coarse='dense', or torch.no_grad()"
            )
        small = A0.shape[0] <= DENSE_COARSE_UP_TO or A0.device.type != "cpu"
        dense = kind == "dense" or (kind == "auto" and (small or differentiable))
        self.inverse: Tensor | None = None
        self.factors: Factorization | None = None
        singular = (
            f"P: the coarse matrix P^T A P, {tuple(A0.shape)}, is singular; columns of P must be "
            "linearly independent (subdomains that overlap wholly give equal ones: take fewer, or "
            "less overlap) and A nonsingular on their span"
        )
        if dense:
            self.inverse, _ = torch.linalg.inv_ex(A0.to_dense())
        else:
            try:
                self.factors = factorized(A0.detach())
            except SolveError as error:
                raise ValueError(singular) from error
        if len(blown_up_by(lambda r: self.solve(r[:, None])[:, 0], A0.detach().diagonal())):
            raise ValueError(singular)

    def solve(self, r: Tensor, transpose: bool = False) -> Tensor:
        """`A0^-1 r`, or `A0^-T r`, for r (S, k)."""
        if self.inverse is not None:
            return (self.inverse.mT if transpose else self.inverse) @ r
        assert self.factors is not None
        refuse_gradient("coarse", r)
        return self.factors.solve(r, transpose=transpose)
