"""A matrix seen node by node: traces and norms of its blocks, which no turn of the axes changes."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian

import ddm
from ddm.condensed import Condensed
from ddm.partition import Decomposition, decompose, partition
from sparsetorch import CSRTensor


@pytest.fixture(scope="module")
def body() -> tuple[sp.csr_array, Decomposition]:
    """An elastic body's matrix and its subdomains."""
    problem = ddm.elasticity(delaunay(8), dirichlet={lambda x, y: x < 1e-9: 0.0})
    A = problem.with_all_couplings().A
    return A, decompose(A, partition(A, 4, block_size=2), 2, block_size=2)


def condensed(A: sp.csr_array, d: Decomposition) -> Condensed:
    return Condensed.of(CSRTensor.from_scipy(A), d)


def test_with_one_unknown_a_node_it_is_the_matrix():
    A = laplacian(9)
    d = decompose(A, partition(A, 4))
    c = condensed(A, d)
    np.testing.assert_array_equal(c.matrix.to_dense().numpy(), A.toarray())
    np.testing.assert_array_equal(c.norms, abs(A.data))
    np.testing.assert_array_equal(c.diagonal, A.diagonal())
    np.testing.assert_array_equal(c.local_diagonal, A.diagonal()[d.node])
    for name in ("owner", "subdomain", "node", "own", "layer", "multiplicity"):
        np.testing.assert_array_equal(getattr(c, name), getattr(d, name))


def test_blocks_are_their_traces_and_norms(body):
    A, d = body
    c = condensed(A, d)
    n = d.n // 2
    blocks = A.toarray().reshape(n, 2, n, 2).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(c.matrix.to_dense(), np.trace(blocks, axis1=2, axis2=3) / 2)
    norms = np.linalg.norm(blocks, axis=(2, 3)) / np.sqrt(2)
    np.testing.assert_allclose(c.norms, norms[c.row, c.col])
    assert not np.delete(norms, c.row * n + c.col).any()
    np.testing.assert_allclose(c.diagonal_norms, norms.diagonal())
    np.testing.assert_allclose(c.row_sum, c.matrix.to_dense().sum(1), atol=1e-12)
    np.testing.assert_allclose(c.local_diagonal, A.diagonal().reshape(-1, 2).sum(1)[c.node])


def test_local_nodes_are_those_of_the_decomposition(body):
    A, d = body
    c = condensed(A, d)
    assert (c.n, c.n_subdomains) == (d.n // 2, d.n_subdomains)
    np.testing.assert_array_equal(np.repeat(2 * c.node, 2) + np.tile([0, 1], len(c.node)), d.node)
    for name in ("subdomain", "own", "layer"):
        np.testing.assert_array_equal(np.repeat(getattr(c, name), 2), getattr(d, name))
    np.testing.assert_array_equal(np.repeat(c.multiplicity, 2), d.multiplicity)
    x = np.arange(len(d.node), dtype=float)
    np.testing.assert_array_equal(c.summed(x), x[::2] + x[1::2])


def test_turning_the_axes_changes_nothing(body):
    A, d = body
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    Q = sp.block_diag([turn] * (d.n // 2), format="csr")
    turned = sp.csr_array(Q @ A @ Q.T)
    one, two = condensed(A, d), condensed(turned, d)
    np.testing.assert_allclose(two.matrix.to_dense(), one.matrix.to_dense(), atol=1e-12)
    dense = [torch.zeros(c.n, c.n, dtype=torch.float64) for c in (one, two)]
    for matrix, c in zip(dense, (one, two)):
        matrix[c.row, c.col] = torch.from_numpy(c.norms)
    torch.testing.assert_close(*dense)
