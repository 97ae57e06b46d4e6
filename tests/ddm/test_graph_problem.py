"""Graph Laplacians, grounded and with their null space."""

from typing import Any

import networkx
import numpy as np
import pytest
import scipy.sparse as sp
from manufactured import solved
from scipy.sparse.csgraph import laplacian

from ddm.problems import graph_laplacian


def two_parts() -> sp.csr_array:
    """A weighted ring of 6 nodes and a path of 4."""
    ring, path = networkx.cycle_graph(6), networkx.path_graph(4)
    graph = networkx.to_scipy_sparse_array(networkx.disjoint_union(ring, path), dtype=float)
    weights = sp.triu(graph).tocsr()
    weights.data[:] = np.random.default_rng(0).uniform(0.5, 2, weights.nnz)
    return sp.csr_array(weights + weights.T)


def test_it_is_scipys_laplacian_with_a_null_vector_for_each_component():
    W = two_parts()
    problem: Any = graph_laplacian(W, singular="nullspace")
    assert np.allclose(problem.A.toarray(), laplacian(W).toarray())
    assert problem.kind == "symmetric"
    assert problem.nullspace.shape == (10, 2)
    assert abs(problem.A @ problem.nullspace).max() < 1e-14
    assert problem.b[:6].sum() == pytest.approx(0, abs=1e-14)
    assert problem.b[6:].sum() == pytest.approx(0, abs=1e-14)


def test_grounding_fixes_one_node_of_each_component():
    problem = graph_laplacian(two_parts())
    u = solved(problem)
    L = np.asarray(laplacian(two_parts().toarray()))
    b = graph_laplacian(two_parts(), singular="nullspace").b
    assert np.linalg.eigvalsh(problem.A.toarray()).min() > 0
    assert np.allclose(L @ u, b)
    zero = np.flatnonzero(u == 0)
    assert len(zero) == 2
    assert zero[0] < 6 <= zero[1]


def test_loops_do_not_count():
    W = two_parts()
    looped = W + 5 * sp.eye_array(10)
    assert np.allclose(graph_laplacian(looped).A.toarray(), graph_laplacian(W).A.toarray())


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (np.ones((2, 3)), "expected a square matrix of weights, got shape"),
        (np.zeros((0, 0)), "expected a square matrix"),
        ([[0, 1], [2, 0]], "it is not symmetric"),
        ([[0, -1], [-1, 0]], "expected weights of at least 0, got -1"),
        ([[0, np.nan], [np.nan, 0]], "some weights are not finite"),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 3]], "1 nodes have no edges, the first is 2"),
    ],
)
def test_what_is_no_graph_is_refused(graph, message):
    with pytest.raises(ValueError, match=f"graph: {message}"):
        graph_laplacian(sp.csr_array(np.array(graph, dtype=float)))


def test_other_arguments_are_checked():
    W = two_parts()
    with pytest.raises(TypeError, match="graph: expected a SciPy sparse matrix"):
        graph_laplacian(W.toarray())
    with pytest.raises(TypeError, match="graph: expected real weights"):
        graph_laplacian(W.astype(complex))
    with pytest.raises(ValueError, match=r"source: expected shape \(10,\), got \(3,\)"):
        graph_laplacian(W, np.ones(3))
    with pytest.raises(ValueError, match=r"coordinates: expected finite values of shape \(10, d\)"):
        graph_laplacian(W, coordinates=np.ones((3, 2)))
    with pytest.raises(ValueError, match="it has 2 null vector"):
        graph_laplacian(W, singular="refuse")
    with pytest.raises(ValueError, match="problem: its unknowns have no coordinates"):
        _ = graph_laplacian(W).coordinates


@pytest.mark.parametrize("singular", ["ground", "nullspace"])
def test_many_components_do_not_make_many_vectors(singular):
    """A coarse function a subdomain: constants on each component are constants."""
    pairs = sp.csr_array(sp.block_diag([np.ones((2, 2))] * 50, format="csr"))
    problem = graph_laplacian(pairs, singular=singular)
    assert problem.near_nullspace is not None
    assert problem.near_nullspace.shape == (100, 1)
