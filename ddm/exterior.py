"""What lies outside a subdomain, as its local matrix knows it: the room of Robin conditions."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.coarse.neumann import local_entries
from ddm.given import check_sum
from ddm.partition import Decomposition, find_local
from ddm.problems.problem import Elements
from sparsetorch import CSRTensor, Pattern


def exterior(
    A: CSRTensor, decomposition: Decomposition, elements: Elements | None = None
) -> Tensor:
    """What lies outside adds these values to local matrices, (len(decomposition.interface),).

    E_i = A_i - N_i, with the Neumann matrix N_i, so that `N_i + theta E_i` is the local matrix of a
    Robin condition, and `N_i + S E_i S` that of one with a weight for each unknown, S diagonal with
    the square roots of the weights. With positive weights that is positive semidefinite where N_i
    and E_i are, as sums of element matrices; definite where E_i is on the unknowns it touches, as
    for scalar equations. In elasticity an exterior that holds a subdomain by a single node could
    leave a rotation, which has not been seen.

    Args:
        A: (n, n).
        decomposition: of A.
        elements: whose sum is A: E_i is that of the elements which subdomain i holds in part. None
            takes the diagonal matrix of `interface_room`, for real A, which for an M-matrix is that
            of the algebraic Neumann matrices.

    Raises:
        TypeError, ValueError: `elements` that fail `ddm.given.check_sum`.
        ValueError: A does not store some coupling of theirs.
    """
    if elements is not None:
        return _of_elements(A, decomposition, elements).to(A.device)
    d = decomposition
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    room = interface_room(A, d)
    return torch.from_numpy((row == col) * room[row]).to(A.device, A.dtype)


def interface_room(A: CSRTensor, d: Decomposition) -> np.ndarray:
    """How much of each local diagonal entry interface values may take, (N,).

    The smaller of `d.outside`, what the Neumann condition takes, and the amount by which the row of
    the local matrix is diagonally dominant, at least 0. For an M-matrix with nonnegative row sums
    the two agree. Where couplings are positive (obtuse triangles) the second is smaller, and taking
    `d.outside`, or half of it, can make local matrices indefinite.
    """
    A = A.detach().to("cpu", torch.float64)
    diagonal = A.diagonal()
    off = A.map(torch.abs).sum(-1) - diagonal.abs()  # in all of the row
    excess = (diagonal - off).numpy()[d.node] + d.outside
    return np.clip(excess, 0.0, d.outside)


def _of_elements(A: CSRTensor, d: Decomposition, elements: Elements) -> Tensor:
    """The sum of the elements that each subdomain holds in part, at `d.interface`.

    Away from the outermost layer a subdomain holds elements whole, and they are not looked at.
    """
    d.check_pattern(A.pattern)
    dofs, matrices = elements.dofs, elements.matrices
    check_sum(elements, A.detach().to("cpu").to_scipy())
    element, subdomain = _outermost(d, dofs)
    unknowns = dofs[element]
    local = find_local(d.first, d.node, subdomain[:, None], np.maximum(unknowns, 0))
    cut = np.flatnonzero(((local < 0) & (unknowns >= 0)).any(axis=1))
    local = np.where(unknowns[cut] >= 0, local[cut], -1)
    row, col, values = local_entries(local, matrices[element[cut]])
    crow, cols, size = torch.from_numpy(d.block_crow), torch.from_numpy(d.block_col), len(d.node)
    place = Pattern.trusted(crow, cols, (size, size)).find(row, col).numpy()
    at = np.full(len(d.block_col) + 1, -1)  # the last one for couplings that A does not store
    at[d.interface] = np.arange(len(d.interface))
    at = at[place]
    if (at < 0).any():
        raise ValueError(
            "elements: A does not store all of their couplings; those that add up to zero must be "
            "stored, too, as elements.assemble(n) does"
        )
    found = torch.zeros(len(d.interface), dtype=A.dtype, device="cpu")
    return found.index_add(0, torch.from_numpy(at), values.to(A.dtype))


def _outermost(d: Decomposition, dofs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Elements with unknowns in the outermost layer of a subdomain, and these subdomains."""
    outer = d.layer == d.overlap
    count = np.bincount(d.subdomain[outer], minlength=d.n_subdomains)
    crow = np.concatenate([[0], np.cumsum(count)])
    ones = np.ones(int(outer.sum()), dtype=np.int8)
    layer = sp.csr_array((ones, d.node[outer], crow), shape=(d.n_subdomains, d.n))
    element, place = np.nonzero(dofs >= 0)
    ones = np.ones(len(element), dtype=np.int8)
    held = sp.csr_array((ones, (dofs[element, place], element)), shape=(d.n, len(dofs)))
    touched = sp.csr_array(layer @ held)
    return touched.indices, np.repeat(np.arange(d.n_subdomains), np.diff(touched.indptr))
