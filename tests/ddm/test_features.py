"""What the network sees: free of units and numbering, and right by direct computation."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from small_problems import laplacian, small_setup

from ddm.coarse import partition_of_unity
from ddm.features import N_FEATURES, SchwarzGraph, interface_room, schwarz_graph
from ddm.partition import decompose, partition
from sparsetorch import CSRTensor, Pattern

LEVELS = {
    "fine_edges": "fine",
    "coarse_edges": "coarse",
    "cross_edges": "cross",
}


def seen(A, owner, overlap: int = 1) -> SchwarzGraph:
    d = decompose(A, owner, overlap)
    return schwarz_graph(CSRTensor.from_scipy(A), d, partition_of_unity(d), dtype=torch.float64)


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
    torch.testing.assert_close(1e6 * one.room, two.room)


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
    scale = np.sqrt(np.diag(D))
    edges = dense(graph.fine, graph.fine_edges).numpy()
    stored = D != 0
    assert np.allclose(edges[stored][:, 0], (D / np.outer(scale, scale))[stored])
    assert np.array_equal(edges[stored][:, 1], (owner[:, None] == owner)[stored])
    assert np.array_equal(edges[stored][:, 2], np.eye(len(D))[stored])
    nodes = graph.fine_nodes.numpy()
    assert np.allclose(nodes[:, 0], D.sum(1) / np.diag(D))
    assert np.allclose(nodes[:, 1], 0)  # an M-matrix has no positive couplings
    assert np.allclose(nodes[:, 2], (stored.sum(1) - 1) / 6 - 1)
    assert np.array_equal(nodes[:, 3], d.multiplicity - 1)
    hops = np.full(len(D), 4)
    for k in (3, 2, 1, 0):
        near = np.linalg.matrix_power(stored.astype(float), k) @ (d.multiplicity > 1) > 0
        hops[near] = k
    assert np.array_equal(nodes[:, 4], hops / 4)
    P = partition_of_unity(d).to_dense().numpy()
    cross = dense(graph.cross, graph.cross_edges).numpy()
    held = P > 0
    assert np.array_equal(cross[held][:, 0], P[held])
    owns = owner[:, None] == np.arange(P.shape[1])
    assert np.array_equal(cross[held][:, 2], owns[held])
    assert np.array_equal(cross[held][:, 3], ~owns[held])


def test_interface_room_keeps_rows_dominant():
    """Never more than what couples outside; with positive couplings, less."""
    A = laplacian(12)
    owner = partition(A, 6)
    d = decompose(A, owner)
    room = interface_room(CSRTensor.from_scipy(A), d)
    assert np.allclose(room, d.outside)
    i, j = (int(node) for node in np.argwhere(np.triu(A.toarray(), 1) < 0)[0])
    A[i, j] = A[j, i] = 0.8 * A[i, i]  # an obtuse pair of triangles
    d = decompose(A, owner)
    room = interface_room(CSRTensor.from_scipy(A), d)
    assert (room >= 0).all()
    assert (room <= d.outside).all()
    assert (room < d.outside).any()
    for part in range(d.n_subdomains):
        here = d.subdomain == part
        local = A.toarray()[np.ix_(d.node[here], d.node[here])]
        excess = np.diag(local) - (abs(local).sum(1) - np.diag(local))
        assert (room[here] <= np.maximum(excess, 0) + 1e-12).all()


def test_positions_point_to_ring_entries():
    setup = small_setup(12, 6)
    d, inputs = setup.decomposition, setup.inputs
    entry = d.interface[inputs.ring_entry.numpy()]
    ring = inputs.ring.numpy()
    assert np.array_equal(d.block_row[entry], ring)
    assert np.array_equal(d.block_col[entry], ring)
    assert not d.own[ring].any()
    assert (d.outside[ring] > 0).all()
    first, second = (d.interface[entries] for entries in inputs.pair_entry.numpy())
    p, q = ring[inputs.pair_row.numpy()], ring[inputs.pair_col.numpy()]
    assert (p < q).all()
    assert np.array_equal(d.block_row[first], p)
    assert np.array_equal(d.block_col[first], q)
    assert np.array_equal(d.block_row[second], q)
    assert np.array_equal(d.block_col[second], p)
    degree = np.bincount(np.concatenate([p, q]), minlength=len(d.node))[ring]
    assert np.array_equal(inputs.degree, np.maximum(degree, 1))
    cross = inputs.graph.cross
    assert np.array_equal(cross.row[inputs.local], d.node)
    assert np.array_equal(cross.col[inputs.local], d.subdomain)


def test_one_subdomain_has_no_ring():
    inputs = small_setup(8, 1).inputs
    assert len(inputs.ring) == inputs.n_interface == 0
    for name in N_FEATURES:
        assert getattr(inputs.graph, name).isfinite().all()


def test_to_moves_everything():
    inputs = small_setup().inputs
    moved = inputs.to("cpu")
    for field in fields(inputs):
        if isinstance(value := getattr(inputs, field.name), torch.Tensor):
            assert torch.equal(getattr(moved, field.name), value)
    assert moved.n_interface == inputs.n_interface


def test_matrices_and_prolongations_that_do_not_fit_are_refused():
    A = laplacian(8)
    d = decompose(A, partition(A, 4))
    matrix, P = CSRTensor.from_scipy(A), partition_of_unity(d)
    with pytest.raises(ValueError, match=r"P: expected shape \(36, 4\), got \(4, 36\)"):
        schwarz_graph(matrix, d, P.T)
    owned_only = torch.zeros(36, 4, dtype=torch.float64)
    owned_only[torch.arange(36), torch.from_numpy(d.owner)] = 1
    with pytest.raises(ValueError, match="P: its pattern lacks some unknowns of the overlapping"):
        schwarz_graph(matrix, d, CSRTensor.from_dense(owned_only))
    negative = A.copy()
    negative.setdiag(np.where(np.arange(36) == 7, -1.0, A.diagonal()))
    with pytest.raises(ValueError, match="A: diagonal entry 7 is -1; MG-GNN needs a positive"):
        schwarz_graph(CSRTensor.from_scipy(negative), d, P)


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
    d = decompose(one_way, owner)
    with pytest.raises(ValueError, match="A: its pattern is not symmetric; symmetrise it with"):
        schwarz_graph(CSRTensor.from_scipy(one_way), d, partition_of_unity(d))
