"""A solver: one system with one way to solve it, and the same for its adjoint.

The two classes share an interface, which differentiation (`solve.py`) is written against:
`solve(values, b, x0)` on plain tensors, `adjoint` for the transposed matrix, `again` for further
right-hand sides of the same matrix, and `independent` for other values on the same pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.direct import DirectMethod, factorized
from sparsetorch.linalg.factorization import Factorization
from sparsetorch.linalg.krylov import Callback, Preconditioner, as_operator
from sparsetorch.linalg.solution import Solution, SolveError, Status
from sparsetorch.pattern import Pattern
from sparsetorch_kernels import Layout, spmm, spmv


class Solver(Protocol):
    """What `solve` needs from a solver."""

    @property
    def layout(self) -> Layout:
        """The matrix, or its transpose if that is what is solved with."""
        ...

    @property
    def adjoint(self) -> Solver:
        """The solver of the transposed system."""
        ...

    @property
    def again(self) -> Solver:
        """The solver of the same system for further right-hand sides."""
        ...

    def independent(self) -> Solver:
        """A solver of the same kind that has seen no values yet."""
        ...

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that its preconditioners are made of."""
        ...

    def holding(self, tensors: Sequence[Tensor]) -> Solver:
        """The same solver with others in their place: members of a batch, or unwrapped ones."""
        ...

    def solve(self, values: Tensor, b: Tensor, x0: Tensor | None = None) -> Solution:
        """Solve with these values (nnz,), right-hand side (n,) or (n, k), and guess like it."""
        ...


@dataclass(frozen=True, eq=False)
class DirectSolver:
    """Factors, made by the first solve and shared with the adjoint."""

    pattern: Pattern
    method: DirectMethod = "auto"
    transposed: bool = False
    factors: list[Factorization] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        """See `Solver`."""
        return self.pattern.layout.T if self.transposed else self.pattern.layout

    @property
    def adjoint(self) -> DirectSolver:
        """See `Solver`."""
        return replace(self, transposed=not self.transposed)

    @property
    def again(self) -> DirectSolver:
        """See `Solver`."""
        return self

    def independent(self) -> DirectSolver:
        """See `Solver`."""
        return replace(self, factors=[])

    @property
    def tensors(self) -> list[Tensor]:
        """See `Solver`."""
        return []

    def holding(self, tensors: Sequence[Tensor]) -> DirectSolver:
        """See `Solver`."""
        return self

    def factorization(self, values: Tensor) -> Factorization:
        """The factors of the matrix itself, never of its transpose.

        Raises:
            SolveError: there are none.
        """
        if not self.factors:
            self.factors.append(factorized(CSRTensor(self.pattern, values), self.method))
        return self.factors[0]

    def solve(self, values: Tensor, b: Tensor, x0: Tensor | None = None) -> Solution:
        """See `Solver`."""
        try:
            factors = self.factorization(values)
        except SolveError as error:
            return replace(error.solution, x=torch.full_like(b, float("nan")))
        x = factors.solve(b, self.transposed)
        if not bool(x.isfinite().all()):
            return Solution(x, Status.SINGULAR, 0, [], "the solution overflows")
        if b.numel() == 0:
            return Solution(x, Status.CONVERGED, 0, [0.0])
        residual = torch.linalg.vector_norm(b - product(self.layout, values, x), dim=0)
        # Rounding makes a zero pivot a tiny one, which LU does not report: the solution is then
        # so large that not a digit of its residual is right.
        lost = residual > 0.1 * torch.linalg.vector_norm(b, dim=0)
        largest = float(residual.max())
        if bool(lost.any()):
            detail = f"to working precision: the residual norm is {largest:.1e}"
            return Solution(x, Status.SINGULAR, 0, [largest], detail)
        return Solution(x, Status.CONVERGED, 0, [largest])


@dataclass(frozen=True, eq=False)
class KrylovSolver:
    """An iteration, its options, and preconditioners for the system and for its adjoint.

    The callback belongs to the first solve only.
    """

    pattern: Pattern
    iterate: Callable[..., Solution]
    options: dict[str, Any]
    preconditioner: Preconditioner | None
    preconditioner_T: Preconditioner | None
    callback: Callback | None = None
    transposed: bool = False

    @property
    def layout(self) -> Layout:
        """See `Solver`."""
        return self.pattern.layout.T if self.transposed else self.pattern.layout

    @property
    def adjoint(self) -> KrylovSolver:
        """See `Solver`."""
        return replace(
            self.again,
            preconditioner=self.preconditioner_T,
            preconditioner_T=self.preconditioner,
            transposed=not self.transposed,
        )

    @property
    def again(self) -> KrylovSolver:
        """See `Solver`."""
        return replace(self, callback=None)

    def independent(self) -> KrylovSolver:
        """See `Solver`."""
        return self

    @property
    def tensors(self) -> list[Tensor]:
        """See `Solver`."""
        leaves = pytree.tree_leaves((self.preconditioner, self.preconditioner_T))
        return [leaf.detach() for leaf in leaves if isinstance(leaf, Tensor)]

    def holding(self, tensors: Sequence[Tensor]) -> KrylovSolver:
        """See `Solver`."""
        leaves, form = pytree.tree_flatten((self.preconditioner, self.preconditioner_T))
        others = iter(tensors)
        leaves = [next(others) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        forward, backward = pytree.tree_unflatten(leaves, form)
        return replace(self, preconditioner=forward, preconditioner_T=backward)

    def solve(self, values: Tensor, b: Tensor, x0: Tensor | None = None) -> Solution:
        """See `Solver`."""
        A = CSRTensor(self.pattern, values.detach())
        return self.iterate(
            A.T if self.transposed else A,
            b,
            preconditioner=self.preconditioner,
            x0=x0,
            callback=self.callback,
            **self.options,
        )


class Conjugated:
    """The preconditioner r -> conj(M conj(r)): the transpose of a Hermitian M."""

    def __init__(self, preconditioner: Preconditioner):
        self.preconditioner = preconditioner

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (n,)."""
        return as_operator("preconditioner", self.preconditioner)(r.conj().resolve_conj()).conj()


pytree.register_pytree_node(
    Conjugated,
    lambda node: ([node.preconditioner], None),
    lambda children, _: Conjugated(*children),
    serialized_type_name="sparsetorch.linalg.solvers.Conjugated",
)


def product(layout: Layout, values: Tensor, x: Tensor) -> Tensor:
    """The matrix times x, (n,) or (n, k)."""
    return spmv(layout, values, x) if x.ndim == 1 else spmm(layout, values, x)
