"""Solves with the coarse matrix of a two-level method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from ddm.factors import KeptFactors
from ddm.local import SingularError, blown_up_by
from sparsetorch import CSRTensor, bmat
from sparsetorch.linalg import SolveError

DENSE_UP_TO = 512
"""Coarse matrices up to this size are inverted densely: cheaper to apply."""


class CoarseMethod(Protocol):
    """What stands in for the inverse of the coarse matrix, such as a Schwarz method of its own.

    With a true attribute `is_symmetric` it counts as symmetric, for a symmetric matrix; without
    one it does not, and the method that it is part of is not for CG.
    """

    def apply(self, r: Tensor) -> Tensor:
        """The approximate solution for r (columns, k)."""
        ...

    def apply_transposed(self, r: Tensor) -> Tensor:
        """The same of the transpose."""
        ...


CoarseFactory = Callable[[CSRTensor, Tensor | None], CoarseMethod]
"""Of the coarse matrix, and an orthonormal basis (S, k) of its null space, or None."""


class CoarseSolver:
    """Solves with the coarse matrix: a dense inverse if small, else a sparse factorization.

    Args:
        A0: (S, S) coarse matrix.
        kind: "dense", "sparse", "auto", or a function of A0 and of the basis of its null space
            that makes an approximate solve.
        null: (S, k) basis of its null space, both from the left and the right; solutions are then
            those of the pseudo-inverse.

    `nnz` are the stored entries of A0, which it does not keep.

    Raises:
        ValueError: another `kind`.
        SingularError: A0 is singular beyond `null`; a ValueError, too.
    """

    def __init__(
        self, A0: CSRTensor, kind: str | CoarseFactory = "auto", null: Tensor | None = None
    ) -> None:
        self.null = None if null is None or not null.shape[1] else torch.linalg.qr(null)[0]
        self.nnz = A0.nnz
        self.inverse: Tensor | None = None
        self.factors: KeptFactors | None = None
        self.method: CoarseMethod | None = None
        check_kind(kind)
        if callable(kind):
            self.method = kind(A0, self.null)
            return
        small = A0.shape[0] <= DENSE_UP_TO or A0.device.type != "cpu"
        dense = kind == "dense" or (kind == "auto" and small)
        system = A0 if self.null is None else _bordered(A0, self.null)
        if dense:
            self.inverse, _ = torch.linalg.inv_ex(system.to_dense())
        else:
            try:
                self.factors = KeptFactors.of(system)
            except SolveError as error:
                raise SingularError(_singular(A0)) from error
        if len(blown_up_by(lambda r: self.solve(r[:, None])[:, 0], A0.detach().diagonal())):
            raise SingularError(_singular(A0))

    @property
    def is_symmetric(self) -> bool:
        """Whether the solve is symmetric, or Hermitian, for a matrix that is."""
        return self.method is None or getattr(self.method, "is_symmetric", False)

    def apply(self, r: Tensor) -> Tensor:
        """`A0^-1 r` for r (S, k)."""
        return self.solve(r)

    def apply_transposed(self, r: Tensor) -> Tensor:
        """`A0^-T r` for r (S, k)."""
        return self.solve(r, transpose=True)

    def solve(self, r: Tensor, transpose: bool = False) -> Tensor:
        """`A0^-1 r`, or `A0^-T r`, for r (S, k)."""
        if self.method is not None:
            return self.method.apply_transposed(r) if transpose else self.method.apply(r)
        size, borders = r.shape[0], 0 if self.null is None else self.null.shape[1]
        if borders:
            r = torch.cat([r, r.new_zeros(borders, r.shape[1])])
        if self.inverse is not None:
            x = (self.inverse.mT if transpose else self.inverse) @ r
        else:
            assert self.factors is not None
            x = self.factors.solve(r, transpose)
        return x[:size] if borders else x


def check_kind(kind: str | CoarseFactory) -> None:
    """Refuse what `CoarseSolver` does not know.

    Raises:
        ValueError: another `kind`.
    """
    if not callable(kind) and kind not in ("auto", "dense", "sparse"):
        raise ValueError(f"coarse: expected 'auto', 'dense' or 'sparse', got {kind!r}")


def _bordered(A0: CSRTensor, null: Tensor) -> CSRTensor:
    """`[[A0, s Z], [s Z^H, 0]]`, whose inverse holds the pseudo-inverse of A0; Z orthonormal."""
    Z = CSRTensor.from_dense(null * A0.detach().diagonal().abs().max())
    blocks: Any = [[A0, Z], [Z.H, None]]
    return bmat(blocks)


def _singular(A0: CSRTensor) -> str:
    return (
        f"P: the coarse matrix P^T A P, {tuple(A0.shape)}, is singular; columns of P must be "
        "linearly independent (subdomains that overlap wholly give equal ones: take fewer, or "
        "less overlap) and A nonsingular on their span (give the null space of a singular A, "
        "Schwarz(..., nullspace=ones))"
    )
