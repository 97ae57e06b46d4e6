"""Coarse spaces enriched by what a method itself is slow at.

Random errors are, after some iterations, made of what the method is slow at. Cut into the parts
that subdomains own, they become columns of the coarse space,

    P' = [P, R_i^T D_i R_i E],   D_i one on owned unknowns, else zero,

so that each subdomain corrects its own share of them. Adaptive smoothed aggregation finds near-null
vectors in the same way: Brezina, Falgout, MacLachlan, Manteuffel, McCormick and Ruge (2005), SIAM
Review 47. Vectors are cut into subdomains by Frank and Vuik (2001), SIAM J. Sci. Comput. 23.
Weighted by a partition of unity, or smoothed, the columns help less: such errors are rough at the
interfaces, where each subdomain's solve ends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddm.coarse.nicolaides import local_modes, prolongation_of
from ddm.partition import Decomposition
from ddm.rates import random_errors
from ddm.schwarz import Schwarz, largest_eigenvalue
from sparsetorch import CSRTensor, hstack
from sparsetorch.checks import check_count

ITERATIONS = {"restricted": 8, "symmetric": 16}
"""Iterations of slow errors: what CG is slow at stands out less."""
NEGLIGIBLE = 1e-3  # size of a subdomain's piece, against the largest
SEED = 1  # not that of the errors by which `ddm.safeguard` measures rates


@torch.no_grad()
def slow_subspace(
    method: Schwarz, vectors: int, *, iterations: int | None = None, seed: int = SEED
) -> Tensor:
    """Orthonormal errors that a method is slow to reduce, (n, vectors), by subspace iteration.

    Those of `I - M A`; of `I - M A / c` where the method is symmetric, with the largest eigenvalue
    c of M A, since CG is slow at the errors to which M A does least.

    Args:
        method: of A.
        vectors: number of errors.
        iterations: applications to each; None is 8, and 16 for a symmetric method.
        seed: of the errors that it begins with.

    Raises:
        TypeError, ValueError: a number that is no whole one or below 1; more vectors than unknowns.
    """
    if iterations is None:
        iterations = ITERATIONS["symmetric" if method.is_symmetric else "restricted"]
    vectors = check_count("vectors", vectors, "error")
    iterations = check_count("iterations", iterations, "iteration")
    n = method.shape[0]
    if vectors > n:
        raise ValueError(f"vectors: expected at most {n}, the unknowns, got {vectors}")
    step = 1 / largest_eigenvalue(method.apply, method.A) if method.is_symmetric else 1.0
    E = random_errors(method, vectors, seed)
    for _ in range(iterations):
        E, _ = torch.linalg.qr(E - step * method.apply(method.A @ E))
    return E


def enriched(
    method: Schwarz, vectors: int = 4, *, iterations: int | None = None, seed: int = SEED
) -> Schwarz:
    """A method with pieces of its own slow errors in its coarse space, see `ddm.enrichment`.

    It needs fewer iterations, above all where a few coarse functions a subdomain do not tell what
    the coefficients do: jumps, anisotropy, elasticity. The coarse problem, solved directly whatever
    solved the one before, gets `vectors` more unknowns for each subdomain that owns more than twice
    as many. The set-up costs as much as `iterations` iterations with so many right-hand sides, and
    the new coarse matrix.

    Args:
        method: of one level or two. Its local factors are shared. One level gets a second, in
            the way of its `levels`; "balanced" where that would make a method for CG unsymmetric.
        vectors: errors, and columns for each subdomain.
        iterations, seed: see `slow_subspace`.

    Differentiable in what `method` is, but for the new columns.

    Raises:
        TypeError: no `Schwarz` method.
        TypeError, ValueError: see `slow_subspace` and `Schwarz.with_coarse_space`.
        ValueError: no subdomain owns more than twice as many unknowns as there are vectors.
    """
    if not isinstance(method, Schwarz):
        raise TypeError(f"method: expected a ddm.Schwarz, got {type(method).__name__}")
    vectors = check_count("vectors", vectors, "error")
    d = method.decomposition
    large = torch.bincount(torch.from_numpy(d.owner), minlength=d.n_subdomains) > 2 * vectors
    if not large.any():
        raise ValueError(
            f"vectors: expected fewer, or larger subdomains: none of {d.n_subdomains} owns more "
            f"than {2 * vectors} unknowns, twice the {vectors} columns that each would get"
        )
    E = slow_subspace(method, vectors, iterations=iterations, seed=seed)
    pieces = _pieces(d, E, large)
    if method.P is not None:
        return method.with_coarse_space(hstack([method.P, pieces]))
    unsymmetric = method.levels in ("multiplicative", "adef1")
    levels = "balanced" if method.is_symmetric and unsymmetric else None  # for CG it stays
    return method.with_coarse_space(pieces, levels=levels)


def _pieces(d: Decomposition, E: Tensor, large: Tensor) -> CSRTensor:
    """`R_i^T D_i R_i E` of errors (n, k), orthonormal in each subdomain.

    None where the errors vanish, and none but in `large` subdomains, (S,): what is left of a
    partition is small, and its own columns of P may say all that these would.
    """
    host = E.cpu().to(torch.complex128 if E.is_complex() else torch.float64)
    local, keep, rows = local_modes(d, host.numpy(), weights="owned")
    squares = torch.zeros(d.n_subdomains, dtype=torch.float64, device="cpu")
    squares.index_add_(0, torch.from_numpy(d.owner), (host.abs() ** 2).sum(1))
    some = large & (squares > NEGLIGIBLE**2 * squares.max())
    return prolongation_of(d, local, keep & some[:, None], rows).to(E.device, E.dtype)
