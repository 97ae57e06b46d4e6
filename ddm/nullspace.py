"""The null space of a singular symmetric matrix, such as that of a pure Neumann problem."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddm.matrix_properties import rounding
from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, factorized

TOLERANCE = 1e-3
"""Residuals of null vectors may be this many times the root of the unit of A's rounding."""


class NullSpace:
    """An orthonormal basis of the null space of A and of A^H, (n, k).

    Raises:
        TypeError: not a tensor or array, or complex for a real A.
        ValueError: not (n, k) with independent columns, or A or A^H does not annihilate them.
    """

    def __init__(self, A: CSRTensor, vectors: Tensor | np.ndarray) -> None:
        if not isinstance(vectors, Tensor | np.ndarray):
            raise TypeError(f"nullspace: expected a tensor, got {type(vectors).__name__}")
        basis = torch.as_tensor(vectors)
        if basis.is_complex() and not A.dtype.is_complex:
            raise TypeError(f"nullspace: expected real vectors for {A.dtype}, got {basis.dtype}")
        basis = basis.to(A.device, A.dtype)
        if basis.ndim != 2 or basis.shape[0] != A.shape[0] or basis.shape[1] < 1:
            raise ValueError(
                f"nullspace: expected shape ({A.shape[0]}, k), got {tuple(basis.shape)}"
            )
        self.basis, triangle = torch.linalg.qr(basis)
        eps = torch.finfo(A.dtype).eps
        pivots = triangle.diagonal().abs()
        if not (pivots > eps**0.5 * basis.norm(dim=0).max()).all():
            raise ValueError("nullspace: expected independent columns, finite and not zero")
        matrix = A.detach()
        unit = rounding(matrix.values.cpu().numpy())  # of float32, too, where A came in it
        size = matrix.map(torch.abs).sum(-1).max()
        for name, operator in (("A", matrix), ("A^H", matrix.H)):
            residual = float((operator @ self.basis).abs().max() / size)
            if not residual <= TOLERANCE * unit**0.5:
                raise ValueError(
                    f"nullspace: {name} does not annihilate it, the residual is {residual:.1e} of "
                    f"|A|; a matrix whose left null space is another one must be made regular, by "
                    "fixing an unknown"
                )

    def project(self, r: Tensor, conjugate: bool = False) -> Tensor:
        """The part of r (n, m) that is orthogonal to the basis, or to its conjugate."""
        basis = self.basis.conj() if conjugate else self.basis
        return r - basis @ (basis.mH @ r)

    def coarse(self, P: CSRTensor) -> Tensor:
        """Null space of `P^H A P` that A's null space gives rise to, (S, m) with m <= k.

        Those combinations of null vectors that P represents.

        Raises:
            ValueError: the columns of P are dependent.
        """
        coefficients = represented(P.detach(), self.basis)
        _, sizes, turned = torch.linalg.svd(
            self.basis - P.detach() @ coefficients, full_matrices=False
        )
        within = sizes < torch.finfo(P.dtype).eps ** 0.5
        return coefficients @ turned.mH[:, within]


def represented(P: CSRTensor, vectors: Tensor) -> Tensor:
    """Coefficients c for which P c is nearest to the vectors (n, k) in the 2-norm, (S, k).

    Raises:
        ValueError: the columns of P are dependent.
    """
    gram, right = (P.H @ P).to("cpu"), (P.H @ vectors).cpu()
    try:
        return factorized(gram).solve(right).to(P.device)
    except SolveError as error:
        raise ValueError("P: its columns are dependent; drop those that others span") from error
