"""GenEO: the local eigenvectors whose energy outside weighs more than their energy inside.

In the overlapping subdomain i, with its Neumann matrix N_i, its part A_i of A, and the partition of
unity D_i, the pencil

    N_i v = nu D_i A_i D_i v

has small eigenvalues for the functions that a one-level method is slow on. Those with nu below a
threshold t go into the coarse space as `R_i^T D_i v`. Then for one-level additive Schwarz with
balanced levels (BNN)

    cond(M A) <= k0 max(1, k1 / t),

where k0 is the number of colours of the subdomains, and k1 the number of subdomains that one
element belongs to, whatever the coefficients are.

Spillane, Dolean, Hauret, Nataf, Pechstein and Scheichl (2014), Numer. Math. 126; in the form of
Dolean, Jolivet and Nataf (2015), An Introduction to Domain Decomposition Methods, section 7.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ddm.coarse.neumann import algebraic_neumann
from ddm.coarse.nicolaides import prolongation_of
from ddm.coarse.segments import gram, segment_sums, turned
from ddm.matrix_properties import check_matrix, is_symmetric
from ddm.partition import Decomposition
from ddm.size_classes import size_classes
from sparsetorch import CSRTensor, Pattern
from sparsetorch.checks import check_count
from sparsetorch.linalg import SolveError, factorized

DENSE_UP_TO = 128
"""Up to this many unknowns in every subdomain, all eigenpairs are found densely."""
TOLERANCE, MAXITER = 1e-7, 60
SHIFT = 1e-2  # of shift-and-invert: N_i may be singular, N_i + SHIFT D_i A_i D_i is not


class NoEigenvalueError(ValueError):
    """No local eigenvalue is below the threshold: one level does without a coarse space."""


def geneo(
    A: CSRTensor,
    decomposition: Decomposition,
    *,
    neumann: CSRTensor | None = None,
    threshold: float | None = 0.1,
    count: int | None = None,
) -> CSRTensor:
    """Prolongation of the GenEO coarse space, (n, columns).

    Args:
        A: (n, n) symmetric positive definite, real.
        decomposition: of A.
        neumann: (N, N) from `assembled_neumann`; None finds it from A, which must then be a
            symmetric M-matrix.
        threshold: eigenvalues below it are taken; None takes `count`.
        count: at most so many of each subdomain.

    Raises:
        TypeError: a complex matrix, or one that is no CSRTensor; a `neumann` that is none; a
            `count` that is no number.
        ValueError: a local matrix is not positive definite; neither threshold nor count, or none
            that fit; see `algebraic_neumann`.
        NoEigenvalueError: a ValueError, no eigenvalue is below the threshold.
    """
    d = decomposition
    check_matrix("A", A)
    if A.dtype.is_complex:
        raise TypeError(f"A: GenEO takes real symmetric matrices, got {A.dtype}")
    if threshold is None and count is None:
        raise ValueError("threshold, count: expected at least one of the two")
    if threshold is not None and not 0 < threshold < float("inf"):
        raise ValueError(f"threshold: expected a positive number, got {threshold}")
    if count is not None:
        count = check_count("count", count, "eigenvector a subdomain")
    d.check_pattern(A.pattern)
    if not is_symmetric(A):
        raise ValueError("A: GenEO takes symmetric matrices; take nicolaides for others")
    if neumann is None:
        neumann = algebraic_neumann(A, d)
    if not isinstance(neumann, CSRTensor):
        raise TypeError(
            f"neumann: expected a CSRTensor, got {type(neumann).__name__}; "
            "ddm.coarse.assembled_neumann makes one"
        )
    if tuple(neumann.shape) != (len(d.node), len(d.node)):
        size = len(d.node)
        raise ValueError(f"neumann: expected ({size}, {size}), got {tuple(neumann.shape)}")
    values, vectors = local_eigenpairs(A, d, neumann, threshold, count)
    keep = values < (float("inf") if threshold is None else threshold)
    keep &= torch.isfinite(values)
    if count is not None:
        keep[:, count:] = False
    if not keep.any():
        raise NoEigenvalueError(
            f"threshold: no subdomain has an eigenvalue below {threshold:g} (the smallest is "
            f"{float(values.min()):.3g}), so one level needs no coarse space; raise it"
        )
    return prolongation_of(d, vectors, keep)


def local_eigenpairs(
    A: CSRTensor,
    d: Decomposition,
    neumann: CSRTensor,
    threshold: float | None,
    count: int | None,
) -> tuple[Tensor, Tensor]:
    """Smallest eigenvalues (S, k), ascending, inf where there are no more, and D_i v, (N, k).

    With w = D_i v the pencil is (D_i^-1 N_i D_i^-1, A_i); w is A_i-orthonormal.
    """
    block = Pattern(
        torch.from_numpy(d.block_crow),
        torch.from_numpy(d.block_col),
        (len(d.node), len(d.node)),
    )
    local = CSRTensor(block, A.detach().to("cpu").values[torch.from_numpy(d.block_source)])
    inverse_weights = torch.from_numpy(d.multiplicity[d.node]).to(local.dtype)
    scaled = neumann.detach().scale_rows(inverse_weights).scale_cols(inverse_weights)
    if d.sizes.max() <= DENSE_UP_TO:
        return _dense(d, scaled, local)
    return _iterated(d, scaled, local, threshold, count)


def _dense(d: Decomposition, N: CSRTensor, A: CSRTensor) -> tuple[Tensor, Tensor]:
    most = int(d.sizes.max())
    values = A.values.new_full((d.n_subdomains, most), float("inf"))
    vectors = A.values.new_zeros(len(d.node), most)
    starts = d.first[:-1]
    for subdomains, m in size_classes(d.sizes):
        real = np.arange(m) < d.sizes[subdomains][:, None]
        left, right = (_blocks(M, d, subdomains, m, starts) for M in (N, A))
        padding = torch.from_numpy(~real).to(A.dtype)
        factor, info = torch.linalg.cholesky_ex(right + torch.diag_embed(padding))
        if info.any():
            _refuse(int(subdomains[int(torch.nonzero(info)[0, 0])]))
        half = torch.linalg.solve_triangular(factor, left, upper=False)
        K = torch.linalg.solve_triangular(factor, half.mT, upper=False)
        K = (K + K.mT) / 2
        # Eigenvalues of the padding come last, beyond all others.
        beyond = 2 * K.abs().sum(-1).amax(-1) + 1
        w, U = torch.linalg.eigh(K + torch.diag_embed(padding * beyond[:, None]))
        W = torch.linalg.solve_triangular(factor.mT, U, upper=True)
        inside = torch.arange(m, device="cpu") < torch.from_numpy(d.sizes[subdomains])[:, None]
        values[torch.from_numpy(subdomains), :m] = w.where(inside, float("inf"))
        batch, slot = np.nonzero(real)
        local = torch.from_numpy(starts[subdomains][batch] + slot)
        vectors[local, :m] = W[torch.from_numpy(batch), torch.from_numpy(slot)]
    return values, vectors


def _blocks(
    M: CSRTensor, d: Decomposition, subdomains: np.ndarray, m: int, starts: np.ndarray
) -> Tensor:
    """The diagonal blocks of some subdomains, padded with zeros, (S, m, m)."""
    row, col = M.pattern.row.long(), M.pattern.col.long()
    rank = np.full(d.n_subdomains, -1)
    rank[subdomains] = np.arange(len(subdomains))
    rank_of, start_of = torch.from_numpy(rank[d.subdomain]), torch.from_numpy(starts[d.subdomain])
    entry = torch.nonzero(rank_of[row] >= 0)[:, 0]
    row, col = row[entry], col[entry]
    place = (rank_of[row] * m + row - start_of[row]) * m + col - start_of[row]
    flat = M.values.new_zeros(len(subdomains) * m * m).index_copy(0, place, M.values[entry])
    return flat.view(-1, m, m)


def _iterated(
    d: Decomposition, N: CSRTensor, A: CSRTensor, threshold: float | None, count: int | None
) -> tuple[Tensor, Tensor]:
    """All subdomains at once by subspace iteration with shift-and-invert."""
    try:
        shifted = N + A * SHIFT
        factors = factorized((shifted + shifted.T) * 0.5, "cholesky")  # but for rounding the same
    except SolveError as error:
        raise ValueError(_indefinite("some subdomain")) from error
    wanted = min(count or 6, int(d.sizes.max()))
    limit = float("inf") if threshold is None else threshold
    while True:
        k = min(wanted + max(4, wanted // 2), int(d.sizes.max()))
        values, vectors = _subspace(d, N, A, factors.solve, k, wanted, limit)
        enough = (values[:, wanted - 1] >= limit) | (values[:, wanted - 1] == float("inf"))
        if count is not None or wanted >= d.sizes.max() or bool(enough.all()):
            return values[:, :wanted], vectors[:, :wanted]
        wanted = min(2 * wanted, int(d.sizes.max()))


def _subspace(
    d: Decomposition,
    N: CSRTensor,
    A: CSRTensor,
    solve: Callable[[Tensor], Tensor],
    k: int,
    wanted: int,
    limit: float,
) -> tuple[Tensor, Tensor]:
    """Subspace iteration with k vectors until `wanted` eigenvalues, up to 2 limit, stand still."""
    generator = torch.Generator("cpu").manual_seed(0)
    shape = len(d.node), k
    X = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu").to(A.dtype)
    before = X.new_full((d.n_subdomains, wanted), float("nan"))
    values = before
    for _ in range(MAXITER):
        values, X = _rayleigh_ritz(d, N, A, solve(A @ X))
        checked = values[:, :wanted].clamp(max=2 * limit)
        still = (checked - before).abs() <= TOLERANCE * (SHIFT + checked)
        if bool((still | (checked == before)).all()):  # equal infinities, too
            break
        before = checked
    return values, X


def _rayleigh_ritz(
    d: Decomposition, N: CSRTensor, A: CSRTensor, Y: Tensor
) -> tuple[Tensor, Tensor]:
    """Ritz values (S, k), ascending, inf where Y is dependent, and A-orthonormal vectors (N, k)."""
    subdomain, n_subdomains = torch.from_numpy(d.subdomain), d.n_subdomains
    scale = segment_sums(Y * (A @ Y), subdomain, n_subdomains).sqrt()  # (S, k)
    Y = Y / scale.where(scale > 0, 1)[subdomain]
    squares, directions = torch.linalg.eigh(gram(Y, A @ Y, subdomain, n_subdomains))
    independent = squares > 1e-11 * squares[:, -1:]
    whiten = directions / squares.where(independent, 1).sqrt()[:, None, :]
    whiten = whiten * independent[:, None, :]
    H = whiten.mT @ gram(Y, N @ Y, subdomain, n_subdomains) @ whiten
    beyond = 2 * H.abs().sum(-1).amax(-1) + 1
    H = (H + H.mT) / 2 + torch.diag_embed((~independent) * beyond[:, None])
    values, U = torch.linalg.eigh(H)
    count = independent.sum(1, keepdim=True)
    values = values.where(torch.arange(Y.shape[1], device=Y.device) < count, float("inf"))
    return values, turned(Y, whiten @ U, subdomain)


def _refuse(subdomain: int) -> None:
    raise ValueError(_indefinite(f"subdomain {subdomain}"))


def _indefinite(which: str) -> str:
    return (
        f"A: the local matrix of {which} is not positive definite; GenEO needs a symmetric "
        "positive definite matrix, take ddm.coarse.nicolaides for others"
    )
