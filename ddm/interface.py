"""Interface values: what optimized Schwarz methods add to local matrices on the ring."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.partition import Decomposition, decompose
from sparsetorch import CSRTensor, Pattern
from sparsetorch.checks import check_count
from sparsetorch.linalg import SolveError, factorized


def robin(
    decomposition: Decomposition, theta: complex, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Interface values of the Robin condition with one weight, (len(decomposition.interface),).

    `L_pp = -(1 - theta) outside_p`: theta = 1 leaves the Dirichlet condition of RAS, theta = 0
    gives the Neumann condition of a matrix with zero row sums. A complex theta, for a complex
    dtype, is an absorbing condition (Helmholtz); the sign of its imaginary part is that of A's.

    Raises:
        TypeError: a complex theta for a real dtype.
        ValueError: theta, or its real part, is negative or not finite.
    """
    check_theta(theta)
    if theta.imag and not dtype.is_complex:
        raise TypeError(f"dtype: expected a complex one for theta = {theta}, got {dtype}")
    d = decomposition
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    return torch.from_numpy((row == col) * -(1 - theta) * d.outside[row]).to(dtype)


def robin_between(
    A: CSRTensor, decomposition: Decomposition, neumann: CSRTensor, theta: float
) -> Tensor:
    """Interface values for which local matrices are `theta A_i + (1 - theta) N_i`.

    Between the Dirichlet (theta = 1) and the Neumann matrix (theta = 0) they are positive definite
    for every theta in (0, 1], for elasticity and anisotropy too, where `robin` may make them
    indefinite.

    Args:
        A: (n, n).
        decomposition: of A.
        neumann: (N, N), from `ddm.coarse.assembled_neumann` or `algebraic_neumann`.
        theta: weight.

    Raises:
        ValueError: theta is negative or not finite; the Neumann matrices differ from those of A
            away from the ring.
    """
    check_theta(theta)
    return -(1 - theta) * _neumann_gap(A, decomposition, neumann).to(A.device)


def _neumann_gap(A: CSRTensor, d: Decomposition, neumann: CSRTensor) -> Tensor:
    """`A_i - N_i` at the entries of `d.interface`; raises like `robin_between`."""
    d.check_pattern(A.pattern)
    values = A.detach().to("cpu").values[torch.from_numpy(d.block_source)]
    size = (len(d.node), len(d.node))
    crow, col = torch.from_numpy(d.block_crow), torch.from_numpy(d.block_col)
    local = CSRTensor(Pattern.trusted(crow, col, size), values)
    difference = local - neumann.to("cpu")
    at = torch.from_numpy(d.interface)
    if difference.nnz > len(values):  # neumann has entries where A stores none
        at = difference.pattern.find(torch.from_numpy(d.block_row)[at], col[at])
    found = difference.values[at]
    rest = difference.values.index_fill(0, at, 0.0)
    if rest.abs().square().sum() > 1e-16 * values.abs().square().sum():
        raise ValueError(
            "neumann: it differs from A away from the ring's couplings; the elements must add up "
            "to A, and A must store the couplings of all elements, also those that add up to zero: "
            "problem.elements.assemble(n) does"
        )
    return found


def schur(
    A: CSRTensor, decomposition: Decomposition, layers: int = 1, *, lump: bool = False
) -> Tensor:
    """Interface values computed from what lies just outside: `L = -A_IE A_EE^-1 A_EI`.

    E are the next `layers` layers of the graph around the subdomain. Of the Schur complement only
    the entries of `decomposition.interface` are kept, or with `lump` its row sums on the diagonal:
    no fill. Where E holds all of the exterior and nothing is cut off, A_i + L is the inverse of the
    subdomain's block of A^-1, the optimal condition of Gander, Loisel and Szyld (2012), SIAM J.
    Matrix Anal. Appl. 33. More than one layer often makes things worse at an overlap of 1: the
    entries that are cut off count.

    Args:
        A: (n, n), real or complex.
        decomposition: of A.
        layers: width of the patch.
        lump: row sums on the diagonal instead of the entries.

    Raises:
        TypeError, ValueError: `layers` is no whole number of at least 1.
        ValueError: the matrix of a patch is singular.
    """
    layers = check_count("layers", layers, "layer")
    d = decomposition
    d.check_pattern(A.pattern)
    matrix = A.detach().to("cpu")
    wide = decompose(matrix.to_scipy(), d.owner, d.overlap + layers, block_size=d.block_size)
    inner = wide.layer <= d.overlap  # in order, the local unknowns of d
    number = np.where(inner, np.cumsum(inner), np.cumsum(~inner)) - 1
    row, col = wide.block_row, wide.block_col
    values = matrix.values[torch.from_numpy(wide.block_source)].numpy()

    def part(rows: np.ndarray, cols: np.ndarray) -> sp.csr_array:
        at = rows[row] & cols[col]
        shape = (int(rows.sum()), int(cols.sum()))
        return sp.csr_array((values[at], (number[row[at]], number[col[at]])), shape=shape)

    # Columns of A_EI, those of one subdomain side by side: the subdomains are solved for together.
    A_EI = sp.coo_array(part(~inner, inner))
    boundary = np.unique(A_EI.col)
    L = torch.zeros(len(d.interface), dtype=A.dtype, device="cpu")
    if len(boundary) == 0:  # nothing is outside, or it does not depend on what is inside
        return L.to(A.device)
    rank, width = _ranks(d.subdomain, boundary)
    right = np.zeros((A_EI.shape[0], width), dtype=values.dtype)
    right[A_EI.row, rank[A_EI.col]] = A_EI.data
    try:
        X = factorized(CSRTensor.from_scipy(part(~inner, ~inner))).solve(torch.from_numpy(right))
    except SolveError as error:
        raise ValueError("A: the matrix of a patch is singular; take other layers") from error
    Y = torch.from_numpy(part(inner, ~inner) @ X.numpy())  # (N, width)
    p, q = d.block_row[d.interface], d.block_col[d.interface]
    if lump:
        L[torch.from_numpy(p == q)] = -Y.sum(1)[torch.from_numpy(p[p == q])]
        return L.to(A.device)
    known = rank[q] >= 0
    at = torch.from_numpy(np.flatnonzero(known))
    L[at] = -Y[torch.from_numpy(p[known]), torch.from_numpy(rank[q[known]])]
    return L.to(A.device)


def _ranks(subdomain: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, int]:
    """Number of each chosen local unknown within its subdomain, -1 for others; how many at most."""
    counts = np.bincount(subdomain[chosen])
    starts = np.cumsum(counts) - counts
    rank = np.full(len(subdomain), -1)
    rank[chosen] = np.arange(len(chosen)) - starts[subdomain[chosen]]
    return rank, int(counts.max())


def check_theta(theta: complex) -> None:
    """Raise ValueError unless a Robin weight, or its real part, is finite and at least 0."""
    if not (np.isfinite(theta) and np.real(theta) >= 0):
        raise ValueError(f"theta: expected a weight of at least 0, got {theta}")
