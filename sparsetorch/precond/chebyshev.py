"""Chebyshev polynomials as a preconditioner: Saad, Iterative Methods, section 12.3.2."""

from __future__ import annotations

import math
from itertools import islice

import torch
from torch import Tensor

from sparsetorch.checks import check_count
from sparsetorch.csr import CSRTensor
from sparsetorch.linalg.chebyshev import Bounds, checked_bounds, coefficients
from sparsetorch.linalg.lanczos import eigenvalue_bounds
from sparsetorch.precond.jacobi import Jacobi, copied
from sparsetorch.precond.pytrees import register
from sparsetorch.precond.vectors import check_vectors
from sparsetorch.structure import members, outside_transforms, refuse_compiled


class Chebyshev:
    """The preconditioner z = p(S A) S r, S diagonal, p the Chebyshev polynomial for an interval.

    Of all polynomials of its degree, 1 - t p(t) is the smallest on the interval. For a symmetric or
    Hermitian positive definite A and S it is so too, and positive definite as long as the largest
    eigenvalue of S A is below the sum of both bounds. scale: the diagonal of S, (n,). Made by
    `chebyshev`.
    """

    def __init__(self, A: CSRTensor, scale: Tensor, degree: int, bounds: Bounds):
        self.A = A
        self.scale = scale
        self.degree = degree
        self.bounds = bounds

    def __call__(self, r: Tensor) -> Tensor:
        """The image of r (..., n), by `degree` products with A; errors as in `Jacobi`."""
        check_vectors("Chebyshev", r, self.A.shape[-1], self.A.values)
        d = z = torch.zeros_like(r)
        for k, (momentum, length) in enumerate(islice(coefficients(self.bounds), self.degree + 1)):
            if k > 0:
                r = r - self.A.matvec(d)
            d = momentum * d + length * (self.scale * r)
            z = z + d
        return z

    @property
    def T(self) -> Chebyshev:
        """The same for the transposed matrix."""
        return Chebyshev(self.A.T, self.scale, self.degree, self.bounds)


register(Chebyshev, ("A", "scale"), ("degree", "bounds"))


def chebyshev(A: CSRTensor, degree: int = 3, bounds: Bounds | None = None) -> Chebyshev:
    """A Chebyshev polynomial of this degree in D^-1 A, D the diagonal of A: no inner products.

    A: one square CSRTensor, symmetric (Hermitian if complex) positive definite for a preconditioner
    that is. degree: the number of products with A; 0 is Jacobi, scaled. bounds: the interval, whose
    upper end must not be below the eigenvalues of D^-1 A; by default the smallest and largest of
    them, estimated by up to 100 steps of Lanczos, but not below largest / (2 (degree + 1)^2): an
    interval too wide for the degree loses more on it than conjugate gradients need for the few
    eigenvalues that it leaves out. Applied outside a solver it is differentiable in `A.values`,
    which are copied, and r, the bounds held fixed; under `torch.vmap` those of all members.

    Raises:
        ValueError: A is a batch or not square, its diagonal has a zero, degree is negative, bounds
            are not 0 < smallest <= largest, or, where they are estimated, A is not positive
            definite.
        TypeError: A is not a CSRTensor, or degree no number.
    """
    jacobi = Jacobi(A)
    degree = check_count("degree", degree, "products with A", least=0)
    bounds = _estimated(A, degree) if bounds is None else checked_bounds(bounds)
    return Chebyshev(copied(A), jacobi.inverse_diagonal, degree, bounds)


@torch.no_grad()
def _estimated(A: CSRTensor, degree: int) -> Bounds:
    """The bounds of A; under `torch.vmap` those of all members together."""
    refuse_compiled("chebyshev without bounds")
    floor = 0.5 / (degree + 1) ** 2
    if A.shape[0] == 0:
        return floor, 1.0
    with outside_transforms():
        each = [A.with_values(values) for values in members(A.values).detach().reshape(-1, A.nnz)]
        bounds = [_bounds_of(member, floor) for member in each]
    lowest, highest = zip(*bounds)
    return min(lowest), max(highest)


def _bounds_of(A: CSRTensor, floor: float) -> Bounds:
    jacobi = Jacobi(A)
    low, high = eigenvalue_bounds(A.matvec, jacobi, jacobi.inverse_diagonal, floor)
    if not low > 0:
        what = "D or A is not" if math.isnan(low) else f"D^-1 A has an eigenvalue below {low:.3g}"
        raise ValueError(
            f"A: expected a positive definite matrix (Hermitian if complex), but {what}"
        )
    return max(low, floor * high), high
