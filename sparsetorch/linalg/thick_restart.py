"""The thick-restart Lanczos method: Wu and Simon (2000), Thick-restart Lanczos for symmetric
eigenvalue problems; every vector is orthogonalised against all others of the basis, twice.

The projection T is real and symmetric for a complex Hermitian operator as well, and for one that
is self-adjoint in the inner product x^H M y of a positive definite M.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparsetorch.linalg.krylov import Operator, real_dot

# Positions of the k wanted among ascending Ritz values, the most wanted first or in any order.
WANTED: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "LA": lambda w, k: np.arange(len(w))[::-1][:k],
    "SA": lambda w, k: np.arange(len(w))[:k],
    "LM": lambda w, k: np.argsort(-np.abs(w), kind="stable")[:k],
    "SM": lambda w, k: np.argsort(np.abs(w), kind="stable")[:k],
    "BE": lambda w, k: np.concatenate(
        [np.arange(len(w))[: k // 2], np.arange(len(w))[::-1][: k - k // 2]]
    ),
}


class RitzPairs(NamedTuple):
    """Approximate eigenpairs, and the norms of their residuals."""

    w: np.ndarray  # (k,)
    V: Tensor  # (n, k)
    residuals: np.ndarray  # (k,)
    restarts: int
    converged: bool


def thick_restart(
    multiply: Operator,
    v0: Tensor,
    k: int,
    which: str,
    ncv: int,
    tol: float,
    maxiter: int,
    mass: Operator | None = None,
) -> RitzPairs:
    """The k eigenpairs at an end of the spectrum of a self-adjoint operator, on any device.

    v0: (n,), the start, real or complex. which: as in `scipy.sparse.linalg.eigsh`. ncv: vectors of
    the basis, from k + 1 (k if that is n) to n. tol: of the residual, relative to the eigenvalue; 0
    is machine precision. maxiter: restarts. mass: the product with M, in whose inner product the
    operator is self-adjoint and V orthonormal; that of the identity by default.
    """
    mass = mass or _identity
    precision = torch.finfo(v0.dtype).eps
    basis = v0.new_empty(ncv + 1, v0.shape[0])
    basis[0] = v0 / _norm(v0, mass)
    T = np.zeros((ncv, ncv))
    size, restarts = 0, 0
    while True:
        last = _extend(multiply, mass, basis, T, size, precision)
        theta, Y = np.linalg.eigh(T)
        wanted = WANTED[which](theta, k)
        residuals = np.abs(last * Y[-1, wanted])
        bounds = max(tol, precision) * np.maximum(np.abs(theta[wanted]), precision ** (2 / 3))
        converged = bool((residuals <= bounds).all())
        if converged or restarts == maxiter:
            V = basis[:ncv].mT @ torch.from_numpy(Y[:, wanted].copy()).to(basis)
            return RitzPairs(theta[wanted], V, residuals, restarts, converged)
        # More than is wanted is kept, or the next round would start from too little.
        size = k + (ncv - k) // 2
        kept = WANTED[which](theta, size)
        basis[:size] = torch.from_numpy(Y[:, kept].T.copy()).to(basis) @ basis[:ncv]
        basis[size] = basis[ncv]
        T[:] = 0
        T[np.arange(size), np.arange(size)] = theta[kept]
        T[size, :size] = T[:size, size] = last * Y[-1, kept]
        restarts += 1


def _extend(
    multiply: Operator, mass: Operator, basis: Tensor, T: np.ndarray, size: int, precision: float
) -> float:
    """Lanczos steps from `size` vectors and one more to a full basis; the last off-diagonal."""
    beta = 0.0
    for j in range(size, len(T)):
        w, first = _orthogonalised(multiply(basis[j]), basis[: j + 1], mass)
        w, second = _orthogonalised(w, basis[: j + 1], mass)
        numbers = [(first[j] + second[j]).real, _norm(w, mass), first.norm()]
        T[j, j], beta, within = torch.stack(numbers).tolist()
        if beta <= 10 * precision * within:  # an invariant subspace: go on beside it
            beta = 0.0
            generator = torch.Generator().manual_seed(j)
            w = torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w)
            for _ in range(2):
                w, _ = _orthogonalised(w, basis[: j + 1], mass)
        norm = _norm(w, mass)
        basis[j + 1] = torch.where(norm > 0, w / norm, 0)  # nothing is left where ncv is n
        if j + 1 < len(T):
            T[j, j + 1] = T[j + 1, j] = beta
    return beta


def _orthogonalised(w: Tensor, basis: Tensor, mass: Operator) -> tuple[Tensor, Tensor]:
    components = (basis @ mass(w).conj()).conj()
    return w - components @ basis, components


def _norm(w: Tensor, mass: Operator) -> Tensor:
    return real_dot(w, mass(w)).sqrt()


def _identity(w: Tensor) -> Tensor:
    return w
