"""Jacobi: the inverse of the diagonal."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.csr import CSRTensor
from sparsetorch.pattern import Pattern
from sparsetorch.precond.pytrees import register
from sparsetorch.precond.vectors import check_vectors
from sparsetorch.structure import outside_transforms, plain


class Jacobi:
    """The preconditioner z = D^-1 r, D the diagonal of A; its own transpose.

    A: one square CSRTensor. Applied outside a solver it is differentiable in `A.values` and r.

    Raises:
        ValueError: A is a batch or not square, or its diagonal has a zero (which compiled code
            cannot look for: there a solve with it diverges).
    """

    def __init__(self, A: CSRTensor):
        check_square(A)
        diagonal = A.diagonal()
        if not torch.compiler.is_compiling():
            _refuse_zeros(diagonal)
        self.inverse_diagonal = 1 / diagonal  # (n,)

    def __call__(self, r: Tensor) -> Tensor:
        """D^-1 r, r (..., n).

        Raises:
            ValueError: another size or device.
            TypeError: another dtype; a matrix in half precision is applied to float32, too, in
                which such systems are solved.
        """
        check_vectors("Jacobi", r, self.inverse_diagonal.shape[-1], self.inverse_diagonal)
        return self.inverse_diagonal * r

    @property
    def T(self) -> Jacobi:
        """The transpose, which is this."""
        return self


register(Jacobi, ("inverse_diagonal",))


def jacobi(A: CSRTensor) -> Jacobi:
    """`Jacobi(A)`, by a name like those of the other preconditioners; raises as it does."""
    return Jacobi(A)


def _refuse_zeros(diagonal: Tensor) -> None:
    with outside_transforms():
        zeros = torch.nonzero(plain(diagonal) == 0)
    if len(zeros):
        raise ValueError(
            f"A: Jacobi divides by the diagonal, which is zero in {len(zeros)} rows, the first "
            f"of them row {int(zeros[0, -1])}"
        )


def copied(A: CSRTensor) -> CSRTensor:
    """A matrix that stays as it is where a step of an optimizer changes `A.values` in place."""
    return A.with_values(A.values.clone())


def check_square(A: CSRTensor) -> None:
    """Raise TypeError or ValueError unless A is one square CSRTensor."""
    if not isinstance(A, CSRTensor):
        raise TypeError(f"A: expected a CSRTensor, got {type(A).__name__}")
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A: expected one square matrix, got shape {tuple(A.shape)}")


def check_diagonal(name: str, argument: str, pattern: Pattern) -> None:
    """Raise ValueError unless the whole diagonal of a square pattern is stored."""
    stored = pattern.diagonal.rows
    if stored.shape[0] < pattern.shape[0]:
        whole = torch.ones(pattern.shape[0], dtype=torch.bool, device=pattern.device)
        missing = torch.nonzero(whole.index_fill(0, stored.long(), False))[:, 0]
        raise ValueError(
            f"{argument}: {name} needs the whole diagonal, which is not stored in {len(missing)} "
            f"rows, the first of them row {int(missing[0])}; store it with A.add_diagonal(d)"
        )
