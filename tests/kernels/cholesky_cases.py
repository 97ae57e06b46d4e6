"""Symmetric matrices for the tests of Cholesky's kernels."""

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import transpose_structure


def dominant(matrix) -> sparse.csr_array:
    """A positive definite matrix with the pattern of `matrix` + its transpose + the diagonal."""
    matrix = sparse.csr_array(matrix + matrix.T)
    sums = np.asarray(abs(matrix).sum(1)).ravel()
    return sparse.csr_array(matrix + sparse.diags_array(sums + 1.0))


def random_spd(n: int, density: float, seed: int) -> sparse.csr_array:
    entries = sparse.random_array((n, n), density=density, rng=np.random.default_rng(seed))
    return dominant(entries - 2 * entries.multiply(entries > 0.5))


def grid(*sizes: int) -> sparse.csr_array:
    """The Laplacian of a grid of these sizes, with Dirichlet conditions."""
    matrix = sparse.csr_array((1, 1))
    for n in sizes:
        above = sparse.eye_array(n, k=1)
        line = 2 * sparse.eye_array(n) - above - above.T
        matrix = sparse.kron(matrix, sparse.eye_array(n)) + sparse.kron(
            sparse.eye_array(matrix.shape[0]), line
        )
    matrix = sparse.csr_array(matrix)
    matrix.eliminate_zeros()
    return matrix


def arrow(n: int, first: bool) -> sparse.csr_array:
    """A full row and column: first, where natural order fills the matrix, or last."""
    dense = np.eye(n)
    at = 0 if first else n - 1
    dense[at], dense[:, at] = 0.1, 0.1
    return dominant(sparse.csr_array(dense))


CASES = {
    "empty": sparse.csr_array((0, 0)),
    "1x1": sparse.csr_array([[4.0]]),
    "diagonal": sparse.csr_array(sparse.diags_array(np.arange(1.0, 8.0))),
    "dense": random_spd(37, 1.0, 0),
    "arrow from the left": arrow(20, first=True),
    "arrow to the right": arrow(20, first=False),
    "disconnected": sparse.csr_array(
        sparse.block_diag([grid(5), grid(3, 4), sparse.eye_array(2), random_spd(9, 0.4, 2)])
    ),
    "path": grid(150),
    "2-D": grid(13, 17),
    "3-D": grid(5, 7, 6),
    "random": random_spd(120, 0.03, 3),
}


def pattern_of(matrix: sparse.csr_array, dtype=torch.int64) -> tuple[Tensor, Tensor, Tensor]:
    """crow, col and the mirror of each entry."""
    matrix.sort_indices()
    crow, col = (torch.from_numpy(i).to(dtype) for i in (matrix.indptr, matrix.indices))
    return crow, col, transpose_structure(crow, col, len(crow) - 1)[2]
