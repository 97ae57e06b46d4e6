"""A Poisson matrix in a magnetic field, and Helmholtz's: complex matrices of a grid.

A magnetic field turns the entries of a Poisson matrix by Peierls' phases (R. Peierls 1933) and
leaves it Hermitian positive definite; taking a damped wave number k^2 (1 - i eps) off the diagonal
makes it neither Hermitian nor symmetric.
"""

import torch

from sparsetorch import CSRTensor, eye, poisson

Z = torch.complex128


def magnetic(n: int, field: float = 0.3, dtype: torch.dtype = Z) -> CSRTensor:
    """The Poisson matrix of an n x n grid, with a phase of `field` around each cell."""
    A = poisson(n, n, dtype=Z)
    row, col = A.pattern.row.long(), A.pattern.col.long()
    phases = torch.exp(1j * field * (row // n) * (col % n - row % n))
    return A.with_values((A.values * phases).to(dtype))


def helmholtz(n: int, k: float = 0.9, dtype: torch.dtype = Z) -> CSRTensor:
    return magnetic(n, dtype=dtype) - k**2 * (1 - 0.4j) * eye(n * n, dtype=dtype)
