"""Neumann matrices of the overlapping subdomains: the energy of what lies inside each.

Those of all subdomains are one block-diagonal matrix (N, N), positive semidefinite, and summed over
the subdomains they are at most k1 A, where k1 is the number of subdomains that hold one element (or
one coupling). GenEO and Robin conditions are made from them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddm.matrix_properties import check_matrix, has_nonnegative_rows, is_symmetric, is_z_matrix
from ddm.partition import Decomposition, find_local
from sparsetorch import CSRTensor, Pattern


def assembled_neumann(
    decomposition: Decomposition, dofs: np.ndarray, matrices: np.ndarray
) -> CSRTensor:
    """Neumann matrices from the element matrices that lie inside each subdomain, (N, N).

    Args:
        decomposition: of the matrix that the elements add up to.
        dofs: (m, k) integers, the unknowns of each element, -1 for eliminated ones.
        matrices: (m, k, k), the element matrices.

    Raises:
        TypeError: `dofs` are not integers.
        ValueError: shapes that do not fit, unknowns outside -1 .. n - 1, or matrices with NaN.
    """
    d = decomposition
    check_elements(dofs, matrices, d.n)
    element, subdomain = _pairs(d, dofs)
    unknowns = dofs[element]
    local = find_local(d.first, d.node, subdomain[:, None], np.maximum(unknowns, 0))
    present = unknowns >= 0
    whole = np.flatnonzero(((local >= 0) | ~present).all(axis=1))
    local = np.where(present[whole], local[whole], -1)
    size = len(d.node)
    return CSRTensor.from_coo(*local_entries(local, matrices[element[whole]]), (size, size))


def local_entries(local: np.ndarray, matrices: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and values of element matrices (m, k, k), by local numbers of their unknowns.

    Args:
        local: (m, k), -1 for unknowns that are left out.
        matrices: (m, k, k).
    """
    both = (local[:, :, None] >= 0) & (local[:, None, :] >= 0)
    row = np.broadcast_to(local[:, :, None], both.shape)[both]
    col = np.broadcast_to(local[:, None, :], both.shape)[both]
    return torch.from_numpy(row), torch.from_numpy(col), torch.from_numpy(matrices[both])


def check_elements(dofs: np.ndarray, matrices: np.ndarray, n: int) -> None:
    """Refuse element matrices that do not fit n unknowns.

    Raises:
        TypeError, ValueError: see `assembled_neumann`.
    """
    if dofs.dtype.kind not in "iu":
        raise TypeError(f"dofs: expected integers, got {dofs.dtype}")
    if dofs.ndim != 2 or matrices.shape != (*dofs.shape, dofs.shape[1]):
        raise ValueError(
            "dofs, matrices: expected shapes (m, k) and (m, k, k), got "
            f"{dofs.shape} and {matrices.shape}"
        )
    if dofs.size and not (dofs.min() >= -1 and dofs.max() < n):
        raise ValueError(f"dofs: expected unknowns -1 .. {n - 1}, got {dofs.min()} .. {dofs.max()}")
    if not np.isfinite(matrices).all():
        raise ValueError("matrices: some entries are NaN or infinite")


def _pairs(d: Decomposition, dofs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elements and the subdomains that hold their first unknown, as two flat arrays."""
    some = np.flatnonzero((dofs >= 0).any(axis=1))
    first = dofs[some, (dofs[some] >= 0).argmax(axis=1)]
    by_node = d.subdomain[np.argsort(d.node, kind="stable")]
    starts = np.cumsum(d.multiplicity) - d.multiplicity
    counts = d.multiplicity[first]
    step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(some, counts), by_node[np.repeat(starts[first], counts) + step]


def algebraic_neumann(A: CSRTensor, decomposition: Decomposition) -> CSRTensor:
    """Neumann matrices of an M-matrix, from its entries alone, (N, N).

    Such a matrix is a sum of couplings `-a_ij (e_i - e_j)(e_i - e_j)^T` and of row sums on the
    diagonal, all of them positive semidefinite; each subdomain gets those that lie inside. Equal
    to the assembled ones for linear elements on triangles, up to the couplings along the edge of a
    subdomain.

    Raises:
        TypeError: A is no CSRTensor.
        ValueError: see `check_m_matrix`; A is not what the decomposition was made from.
    """
    d = decomposition
    check_matrix("A", A)
    d.check_pattern(A.pattern)
    check_m_matrix(A)
    matrix = A.detach().to("cpu")
    local = matrix.values[torch.from_numpy(d.block_source)].clone()
    diagonal = torch.from_numpy(d.block_row == d.block_col)
    local[diagonal] -= torch.from_numpy(d.outside).to(local.dtype)
    crow, col = torch.from_numpy(d.block_crow), torch.from_numpy(d.block_col)
    return CSRTensor(Pattern(crow, col, (len(d.node), len(d.node))), local)


def check_m_matrix(A: CSRTensor) -> None:
    """Refuse a matrix whose entries do not give Neumann matrices, see `algebraic_neumann`.

    Raises:
        ValueError: A is complex, not symmetric, has positive entries off the diagonal, or negative
            row sums.
    """
    matrix = A.detach().to("cpu")
    refuse = "algebraic Neumann matrices need a symmetric M-matrix; give those of the elements"
    if matrix.dtype.is_complex:
        raise ValueError(f"A: {refuse}, got {matrix.dtype}")
    if not is_symmetric(matrix):
        raise ValueError(f"A: {refuse}; it is not symmetric")
    if not is_z_matrix(matrix):
        raise ValueError(f"A: {refuse}; it has positive entries off the diagonal")
    if not has_nonnegative_rows(matrix):
        raise ValueError(f"A: {refuse}; it has negative row sums")
