"""One- and two-level Schwarz methods with interface values and a coarse space.

One level, with V_i and W_i by form (`ddm.transfer`):

    F = sum_i R_i^T V_i (R_i A R_i^T + L_i)^-1 W_i R_i

    restricted   V_i owned, W_i = I       RAS; ORAS if L is not zero
    additive     V_i = W_i = I            AS; symmetric
    symmetric    V_i = W_i = D_i          SORAS, with the partition of unity D_i

R_i restricts to the overlapping subdomain i. Two levels, with `Q = P (P^H A P)^-1 P^H`:

    multiplicative   F + Q - Q A F                  coarse after fine; A-DEF2
    adef1            F + Q - F A Q                  coarse before fine; A-DEF1
    additive         F + Q
    balanced         (I - Q A) F (I - A Q) + Q      BNN
    symmetric        I - M A = (I - w F A)(I - Q A)(I - w F A), a V-cycle with damping w

Cai and Sarkis (1999); St-Cyr, Gander and Thomas (2007); Haferssas, Jolivet and Nataf (2017) for
SORAS; Tang, Nabben, Vuik and Erlangga (2009), J. Sci. Comput. 39, for the names of two levels.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ddm.coarse.nicolaides import check_coarse
from ddm.coarse.solver import CoarseFactory, CoarseSolver, check_kind
from ddm.interface import robin
from ddm.local import LocalSolver, local_solver
from ddm.matrix_properties import check_matrix
from ddm.nullspace import NullSpace
from ddm.partition import Decomposition
from ddm.scipy_operator import ScipyOperator
from ddm.transfer import Form, transfer
from sparsetorch import CSRTensor
from sparsetorch.checks import check_tensor
from sparsetorch.linalg.full_precision import in_full_precision
from sparsetorch.structure import outside_transforms
from sparsetorch_kernels import watched

__all__ = ["Levels", "Schwarz", "robin"]

Levels = Literal["multiplicative", "adef1", "additive", "balanced", "symmetric"]
Sweep = Callable[[Tensor], Tensor]


class Schwarz(ScipyOperator):
    """A Schwarz preconditioner: `M r` by `apply`, `T e = (I - M A) e` by `propagate`.

    Args:
        A: (n, n) matrix, real or complex.
        decomposition: of A.
        interface: values added to the local matrices at `decomposition.interface`; None adds none.
        P: (n, S) prolongation of the coarse space; None leaves one level.
        form: "restricted", "additive" or "symmetric", see above.
        levels: "multiplicative", "adef1", "additive", "balanced" or "symmetric", see above.
        damping: w of levels="symmetric"; None is the inverse of the largest eigenvalue of F A,
            estimated by the power method.
        local: "dense", "sparse", "auto", or a layout made by `local_solver`, see `LocalSolver`.
        coarse: "dense", "sparse", "auto", or a function of the coarse matrix and of a basis of its
            null space, or None, that makes a method for it, as `ddm.multilevel.recursive` returns.
        factor_dtype: of the local factors, such as torch.float32 for a float64 matrix; None is A's.
        nullspace: (n, k) basis of the null space of a singular, symmetric or Hermitian A; M then
            acts on its orthogonal complement, so that Krylov methods solve consistent systems.

    `apply` and `propagate` are differentiable in `interface`, `P.values`, `A.values` and their
    argument.

    In CG use a method whose `is_symmetric` is true, for A and interface values that are symmetric:
    where the local matrices are positive definite it is positive definite too, and M A of
    levels="symmetric" has eigenvalues up to 1.

    Raises:
        TypeError: arguments of other types, or dtypes that do not fit.
        ValueError: shapes that do not fit; a layout of another decomposition; a singular local or
            coarse matrix; a `nullspace` that A does not annihilate.
    """

    def __init__(
        self,
        A: CSRTensor,
        decomposition: Decomposition,
        *,
        interface: Tensor | None = None,
        P: CSRTensor | None = None,
        form: Form = "restricted",
        levels: Levels = "multiplicative",
        damping: float | None = None,
        local: str | LocalSolver = "auto",
        coarse: str | CoarseFactory = "auto",
        factor_dtype: torch.dtype | None = None,
        nullspace: Tensor | np.ndarray | None = None,
    ) -> None:
        d = decomposition
        check_matrix("A", A)
        if A.ndim != 2:
            raise ValueError(f"A: expected one matrix, got shape {tuple(A.shape)}")
        if not isinstance(d, Decomposition):
            raise TypeError(
                f"decomposition: expected a Decomposition, got {type(d).__name__}; "
                "ddm.partition.decompose makes one"
            )
        if damping is not None and not 0 < damping < float("inf"):
            raise ValueError(f"damping: expected a positive number, got {damping}")
        _check_levels(levels, form)
        check_kind(coarse)
        self.A, self.decomposition, self.interface = A, d, interface
        self.form, self.levels, self.damping = form, levels, 1.0
        with outside_transforms():  # what follows from the decomposition alone has no derivatives
            d.check_pattern(A.pattern)
            self.transfer = transfer(d, form, A.device)
            self.local = _layout(d, local, A.device)
        values = _local_values(A, d, interface)
        self.factor_dtype = (
            A.dtype if factor_dtype is None else check_factor_dtype(A.dtype, factor_dtype)
        )
        with in_full_precision(A.device):
            self.factors = self.local.factor(values.to(self.factor_dtype))
        self.null = None if nullspace is None else NullSpace(A, nullspace)
        self.P = P
        if P is not None:
            self._take_coarse_space(P, coarse)
        if P is not None and levels == "symmetric":
            self.damping = self._damping(damping, values)

    def _take_coarse_space(self, P: CSRTensor, coarse: str | CoarseFactory) -> None:
        A = self.A
        check_matrix("P", P)
        check_coarse(P, self.decomposition.n)
        if A.dtype.is_complex and not P.dtype.is_complex:
            P = P.to(A.dtype)
        null = None if self.null is None else self.null.coarse(P)
        # Kept, since making it moves all entries, which takes longer than a product with it.
        self.P, self._restriction = P, P.H
        with in_full_precision(A.device):
            self.coarse = CoarseSolver(self._restriction @ (A @ P), coarse, null)

    def with_coarse_space(
        self, P: CSRTensor, coarse: str | CoarseFactory = "auto", *, levels: Levels | None = None
    ) -> Schwarz:
        """The same method, local factors and all, with another coarse space.

        Args:
            P: (n, S) prolongation.
            coarse: how the new coarse problem is solved, see `Schwarz`.
            levels: how both levels are combined from now on; None leaves that as it is.

        Raises:
            ValueError: P does not fit, or the coarse matrix is singular; a method without the
                damping that its `levels` would need.
        """
        other = copy(self)
        other.levels = levels or self.levels
        _check_levels(other.levels, self.form)
        check_kind(coarse)
        if other.levels == "symmetric" and (self.P is None or self.levels != "symmetric"):
            raise ValueError("levels: this method has no damping for a V-cycle; make a new Schwarz")
        other._take_coarse_space(P, coarse)
        return other

    def _damping(self, asked: float | None, values: Tensor) -> float:
        if asked is not None:
            return asked
        if torch.is_grad_enabled() and values.requires_grad:
            raise ValueError("damping: its estimate has no gradient; give the number")
        return 1 / largest_eigenvalue(self._fine, self.A)

    @property
    def is_symmetric(self) -> bool:
        """Whether M is symmetric, or Hermitian, for A and interface values that are."""
        if self.form == "restricted":
            return False
        return self.P is None or (
            self.levels in ("additive", "balanced", "symmetric") and self.coarse.is_symmetric
        )

    def _fine(self, r: Tensor, transpose: bool = False) -> Tensor:
        """`F r`, or `F^T r`."""
        local = self.transfer.restrict(r, transpose).to(self.factor_dtype)
        z = self.local.solve(self.factors, local, transpose)
        return self.transfer.prolong(z.to(r.dtype), transpose)

    def _correct(self, r: Tensor, transpose: bool = False) -> Tensor:
        """Coarse correction `Q r = P A0^-1 P^H r`, or `Q^T r`: (n, k) -> (n, k)."""
        assert self.P is not None
        if transpose:
            return self.P.conj() @ self.coarse.solve(self._restriction.conj() @ r, True)
        return self.P @ self.coarse.solve(self._restriction @ r)

    def apply(self, r: Tensor) -> Tensor:
        """`M r` for r of shape (n,) or (n, k).

        Raises:
            ValueError: another shape.
            TypeError: no tensor, or one of another dtype than that of A.
        """
        return self._apply(r, transpose=False)

    __call__ = apply

    def apply_transposed(self, r: Tensor) -> Tensor:
        """`M^T r` for r of shape (n,) or (n, k); raises like `apply`."""
        return self._apply(r, transpose=True)

    @property
    def T(self) -> Callable[[Tensor], Tensor]:
        """The transposed preconditioner: what `sparsetorch.linalg.solve` takes for its adjoint."""
        return self.apply_transposed

    def _apply(self, r: Tensor, transpose: bool) -> Tensor:
        self._check(r)
        if r.dim() == 1:
            return self._apply(r.unsqueeze(-1), transpose).squeeze(-1)
        with in_full_precision(r.device):  # the coarse solve is a product, which autocast rounds
            if self.null is None:
                return self._combined(r, transpose)
            z = self._combined(self.null.project(r, transpose), transpose)
            return self.null.project(z, transpose)

    def _combined(self, r: Tensor, transpose: bool) -> Tensor:
        """`M r`, or `M^T r`, of both levels, for r (n, k)."""
        if self.P is None:
            return self._fine(r, transpose)
        if self.levels == "additive":
            return self._fine(r, transpose) + self._correct(r, transpose)
        A = self.transposed_matrix() if transpose else self.A
        if self.levels == "balanced":
            c = self._correct(r, transpose)
            z = self._fine(r - A @ c, transpose)
            return c + z - self._correct(A @ z, transpose)
        first, *others = self._sweeps(transpose)
        z = first(r)
        for sweep in others:
            z = z + sweep(r - A @ z)
        return z

    def transposed_matrix(self) -> CSRTensor:
        """A^T, kept as P's transpose is unless derivatives are to reach A."""
        return self.A.T if watched(self.A.values) else self._kept_transpose

    @cached_property
    def _kept_transpose(self) -> CSRTensor:
        return self.A.T

    def _sweeps(self, transpose: bool) -> list[Sweep]:
        """Approximate solves in turn, each for what the ones before it have left."""

        def fine(r: Tensor) -> Tensor:
            return self._fine(r, transpose) * self.damping

        def coarse(r: Tensor) -> Tensor:
            return self._correct(r, transpose)

        if self.levels == "symmetric":
            return [fine, coarse, fine]
        coarse_last = (self.levels == "multiplicative") != transpose
        return [fine, coarse] if coarse_last else [coarse, fine]

    def propagate(self, e: Tensor) -> Tensor:
        """`T e = (I - M A) e`, the error after one stationary iteration, for e (n,) or (n, k)."""
        return e - self.apply(self.A @ e)

    def _check(self, r: Tensor) -> None:
        check_tensor("r", r)
        n = self.decomposition.n
        if r.dim() not in (1, 2) or r.shape[0] != n:
            raise ValueError(f"r: expected shape ({n},) or ({n}, k), got {tuple(r.shape)}")
        if r.dtype != self.A.dtype:
            raise TypeError(f"r: expected {self.A.dtype} like A, got {r.dtype}; convert with .to")


@torch.no_grad()
def largest_eigenvalue(F: Sweep, A: CSRTensor, iterations: int = 30) -> float:
    """The largest eigenvalue of F A by the power method: with 2 as the limit, near enough."""
    generator = torch.Generator("cpu").manual_seed(0)
    e = torch.randn(A.shape[0], 1, generator=generator, dtype=torch.float64, device="cpu")
    e = e.to(A.device, A.dtype)
    size = 1.0
    for _ in range(iterations):
        e = F(A @ (e / e.norm()))
        size = float(e.norm())
    return size


def _check_levels(levels: str, form: str) -> None:
    if levels not in get_args(Levels):
        raise ValueError(
            f"levels: expected one of {sorted(get_args(Levels))} (A-DEF2 is "
            f"'multiplicative', BNN 'balanced'), got {levels!r}"
        )
    if levels == "symmetric" and form == "restricted":
        raise ValueError(
            "levels: a V-cycle of restricted sweeps is indefinite and diverges in general; "
            "take form='additive' or 'symmetric'"
        )


def _layout(d: Decomposition, local: str | LocalSolver, device: torch.device) -> LocalSolver:
    if isinstance(local, str):
        return local_solver(d, local, device)
    if not hasattr(local, "factor") or not hasattr(local, "solve"):
        raise TypeError(
            "local: expected 'auto', 'dense', 'sparse' or a layout that ddm.local.local_solver "
            f"made, got {type(local).__name__}"
        )
    if getattr(local, "decomposition", d) is not d:
        raise ValueError("local: expected a layout of this decomposition, got that of another one")
    return local


def _local_values(A: CSRTensor, d: Decomposition, interface: Tensor | None) -> Tensor:
    """Values of `A_i + L_i`, (block nnz,)."""
    values = A.values[torch.from_numpy(d.block_source).to(A.device)]
    if interface is None:
        return values
    if not isinstance(interface, Tensor):
        raise TypeError(f"interface: expected a tensor, got {type(interface).__name__}")
    if interface.shape != (len(d.interface),):
        raise ValueError(
            f"interface: expected shape ({len(d.interface)},), one value for each entry of "
            f"decomposition.interface, got {tuple(interface.shape)}"
        )
    if interface.dtype != A.dtype:
        raise TypeError(
            f"interface: expected {A.dtype} like A, got {interface.dtype}; convert with .to"
        )
    return values.index_add(0, torch.from_numpy(d.interface).to(A.device), interface)


def check_factor_dtype(dtype: torch.dtype, asked: torch.dtype) -> torch.dtype:
    """The dtype that is asked for local factors of a matrix of `dtype`.

    Raises:
        TypeError: it is neither single nor double precision, or complex where the matrix is not.
    """
    allowed = (
        (torch.complex64, torch.complex128) if dtype.is_complex else (torch.float32, torch.float64)
    )
    if asked not in allowed:
        raise TypeError(f"factor_dtype: expected {allowed[0]} or {allowed[1]}, got {asked}")
    return asked
