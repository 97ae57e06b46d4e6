"""The matrices of the benchmarks, made with SciPy alone."""

import numpy as np
from scipy import sparse


def poisson(n: int) -> sparse.csr_array:
    """The 5-point Laplacian on an n x n grid, (n^2, n^2)."""
    eye, above = sparse.eye_array(n), sparse.eye_array(n, k=1)
    line = 2 * eye - above - above.T
    matrix = sparse.csr_array(sparse.kron(line, eye) + sparse.kron(eye, line))
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix


def power_law(n: int) -> sparse.csr_array:
    """Laplacian plus identity of a graph with n nodes and about 2 n edges, whose degrees fall as
    rank^-0.6 (Chung and Lu 2002), the nodes in random order."""
    generator = np.random.default_rng(0)
    weights = np.arange(1, n + 1) ** -0.6
    ends = generator.choice(n, (2, 21 * n // 8), p=weights / weights.sum())
    ends = generator.permutation(n)[ends]
    half = sparse.csr_array((np.ones(ends.shape[1]), ends), shape=(n, n))
    links = sparse.csr_array(half + half.T)
    links = sparse.csr_array(links - sparse.diags_array(links.diagonal()))
    links.data[:] = 1
    links.eliminate_zeros()
    return sparse.csr_array(sparse.diags_array(links.sum(1) + 1) - links)
