"""What the network sees: free of units and numbering, and right by direct computation."""

from dataclasses import fields

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import laplacian, small_setup

from ddm.coarse import partition_of_unity, smooth
from ddm.exterior import exterior
from ddm.features import N_FEATURES, SchwarzGraph, schwarz_graph
from ddm.partition import decompose, partition
from ddm.problems import random_problem
from ddm.setup import set_up
from sparsetorch import CSRTensor, Pattern

LEVELS = {
    "fine_edges": "fine",
    "coarse_edges": "coarse",
    "cross_edges": "cross",
}


def seen(A, owner, overlap: int = 1) -> SchwarzGraph:
    d, matrix = decompose(A, owner, overlap), CSRTensor.from_scipy(A)
    return schwarz_graph(matrix, d, exterior(matrix, d), smoothing=2, dtype=torch.float64)


def dense(pattern: Pattern, features: torch.Tensor) -> torch.Tensor:
    """Edge features as matrices, (rows, cols, features), NaN where there is no edge."""
    full = torch.full((*pattern.shape, features.shape[1]), torch.nan, dtype=features.dtype)
    return full.index_put((pattern.row.long(), pattern.col.long()), features)


@pytest.mark.parametrize("overlap", [1, 2])
def test_scaling_the_matrix_changes_nothing(overlap):
    A = laplacian(12)
    owner = partition(A, 6)
    one, two = seen(A, owner, overlap), seen(1e6 * A, owner, overlap)
    for name in N_FEATURES:
        torch.testing.assert_close(getattr(one.graph, name), getattr(two.graph, name))
    assert torch.equal(one.held, two.held)


def test_renumbering_renumbers():
    A = laplacian(12)
    owner = partition(A, 6)
    rng = np.random.default_rng(0)
    p, q = rng.permutation(A.shape[0]), rng.permutation(owner.max() + 1)
    one, two = seen(A, owner).graph, seen(A[p][:, p], q[owner[p]]).graph
    fine, coarse = torch.from_numpy(p), torch.from_numpy(np.argsort(q))
    order = {"fine": (fine, fine), "coarse": (coarse, coarse), "cross": (fine, coarse)}
    torch.testing.assert_close(two.fine_nodes, one.fine_nodes[fine])
    torch.testing.assert_close(two.coarse_nodes, one.coarse_nodes[coarse])
    for name, level in LEVELS.items():
        first = dense(getattr(one, level), getattr(one, name))
        second = dense(getattr(two, level), getattr(two, name))
        rows, cols = order[level]
        torch.testing.assert_close(second, first[rows][:, cols], equal_nan=True)


def test_features_by_direct_computation():
    A = laplacian(10)
    owner = partition(A, 4)
    d = decompose(A, owner)
    graph = seen(A, owner).graph
    D = A.toarray()
    diagonal = np.diag(D)
    scale = np.sqrt(np.outer(diagonal, diagonal))
    edges = dense(graph.fine, graph.fine_edges).numpy()
    stored = D != 0
    assert np.allclose(edges[stored][:, 0], (D / scale)[stored])
    assert np.allclose(edges[stored][:, 1], abs(D / scale)[stored])
    assert np.allclose(edges[stored][:, 2], np.log(diagonal[:, None] / diagonal)[stored] / 4)
    assert np.array_equal(edges[stored][:, 3], (owner[:, None] == owner)[stored])
    assert np.array_equal(edges[stored][:, 4], np.eye(len(D))[stored])
    nodes = graph.fine_nodes.numpy()
    assert np.allclose(nodes[:, 0], D.sum(1) / diagonal)
    assert np.allclose(nodes[:, 1], 0)  # an M-matrix has no positive couplings
    assert np.allclose(nodes[:, 2], (stored.sum(1) - 1) / 6 - 1)
    assert np.array_equal(nodes[:, 3], d.multiplicity - 1)
    hops = np.full(len(D), 4)
    for k in (3, 2, 1, 0):
        near = np.linalg.matrix_power(stored.astype(float), k) @ (d.multiplicity > 1) > 0
        hops[near] = k
    assert np.array_equal(nodes[:, 4], hops / 4)


def test_features_of_local_nodes_by_direct_computation():
    A = laplacian(10)
    owner = partition(A, 4)
    d, matrix = decompose(A, owner, 2), CSRTensor.from_scipy(A)
    inputs = seen(A, owner, 2)
    cross = inputs.graph.cross_edges.numpy()[inputs.local.numpy()]
    P = smooth(partition_of_unity(d), matrix, 2)
    diagonal = A.diagonal()[d.node]
    assert np.allclose(cross[:, 0], 1 / d.multiplicity[d.node])
    assert np.array_equal(cross[:, 1], d.own)
    assert np.array_equal(cross[:, 2], d.layer / 2)
    # For an M-matrix what the outside adds to the diagonal is what it couples with.
    assert np.allclose(cross[:, 3], d.outside / diagonal)
    assert np.allclose(cross[:, 4], d.outside / diagonal)
    assert np.allclose(cross[:, 5], P.to_dense()[d.node, d.subdomain])
    assert np.allclose(cross[:, 6], (matrix @ P).to_dense()[d.node, d.subdomain] / diagonal)
    rough = abs(A.sum(axis=1)) > 1e-8 * A.diagonal()
    touching = np.array([rough[d.node[d.subdomain == k]].any() for k in range(d.n_subdomains)])
    assert np.array_equal(cross[:, 7], touching[d.subdomain])


def test_nodes_away_from_the_boundary_are_held():
    A = laplacian(30)
    owner = partition(A, 40)
    d, inputs = decompose(A, owner), seen(A, owner)
    rough = abs(A.sum(axis=1)) > 1e-8 * A.diagonal()
    touching = {int(k) for k in d.subdomain[rough[d.node]]}
    free = np.unique(d.node[np.isin(d.subdomain, list(touching))])
    expected = np.ones(A.shape[0])
    expected[free] = 0
    assert 0 < expected.sum() < A.shape[0]
    assert np.array_equal(inputs.held[:, 0], expected)


def test_local_nodes_point_to_their_cross_edges():
    setup = small_setup(12, 6, overlap=2)
    d, inputs = setup.decomposition, setup.inputs
    cross = inputs.graph.cross
    assert np.array_equal(cross.row[inputs.local], d.node)
    assert np.array_equal(cross.col[inputs.local], d.subdomain)


@pytest.mark.parametrize("kind", ["elasticity", "elasticity_3d"])
def test_blocks_are_seen_node_by_node_and_do_not_feel_the_axes(kind):
    problem = random_problem(kind, 1, 300).with_all_couplings()
    size, n = problem.block_size, len(problem.b)
    owner = partition(problem.A, 5, block_size=size)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))
    full = np.kron(np.eye(n // size), turn)
    turned = sp.csr_array(full @ problem.A @ full.T)
    stored = abs(problem.A).tocsr()
    stored.data[:] = 1e-300  # the same pattern, with zeros where blocks have them
    blocks = np.kron(np.eye(n // size), np.ones((size, size)))
    pattern = sp.csr_array(blocks @ stored @ blocks)
    graphs = []
    for matrix in (problem.A + pattern, turned + pattern):
        A = sp.csr_array(matrix)
        A.sort_indices()
        setup = set_up(A, owner, block_size=size, dtype=torch.float64)
        graphs.append(setup.inputs)
        assert len(setup.inputs.local) == len(setup.decomposition.node) // size
        assert setup.inputs.graph.cross.shape == (n // size, owner.max() + 1)
    one, two = (g.graph for g in graphs)
    torch.testing.assert_close(one.fine_edges, two.fine_edges, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.fine_nodes, two.fine_nodes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.coarse_edges, two.coarse_edges, rtol=1e-4, atol=1e-5)


def test_one_subdomain_has_no_ring():
    inputs = small_setup(8, 1).inputs
    assert len(inputs.local) == 36
    for name in N_FEATURES:
        assert getattr(inputs.graph, name).isfinite().all()


def test_to_moves_everything():
    inputs = small_setup().inputs
    moved = inputs.to("cpu")
    for field in fields(inputs):
        if isinstance(value := getattr(inputs, field.name), torch.Tensor):
            assert torch.equal(getattr(moved, field.name), value)


def test_a_diagonal_that_is_not_positive_is_refused():
    A = laplacian(8)
    owner = partition(A, 4)
    A.setdiag(np.where(np.arange(36) == 7, -1.0, A.diagonal()))
    with pytest.raises(ValueError, match="A: diagonal entry 7 is -1; MG-GNN needs a positive"):
        seen(A, owner)


def test_a_pattern_that_is_not_symmetric_is_refused():
    A = laplacian(8)
    owner = partition(A, 4)
    d = decompose(A, owner)
    entry = d.block_source[d.interface]
    row, col = (index[entry] for index in (np.repeat(np.arange(36), np.diff(A.indptr)), A.indices))
    lost = entry[np.flatnonzero(row < col)[0]]
    keep = np.arange(A.nnz) != lost
    coo = A.tocoo()
    one_way = type(A)((coo.data[keep], (coo.row[keep], coo.col[keep])), shape=A.shape)
    with pytest.raises(ValueError, match="A: its pattern is not symmetric; symmetrise it with"):
        seen(one_way, owner)


def test_a_coarse_matrix_with_a_negative_diagonal_is_refused():
    """A shifted Laplacian: its own diagonal is positive."""
    A = laplacian(12)
    shifted = sp.csr_array(A - 1.5 * sp.eye_array(A.shape[0]))
    assert (shifted.diagonal() > 0).all()
    with pytest.raises(ValueError, match=r"A: it is indefinite, as the energy -.* shows"):
        seen(shifted, partition(A, 4))
