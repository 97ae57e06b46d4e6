"""Partitions in pieces: split, attached to neighbours, gathered; nodes with several unknowns."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dense_elements import elasticity
from scipy.sparse.csgraph import connected_components
from small_problems import laplacian, line, random_matrix

from ddm.coarse import partition_of_unity
from ddm.partition import decompose, partition
from ddm.partitioners import PARTITIONERS
from ddm.pieces import node_graph, repair
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres


def check_connected(A: sp.csr_array, owner: np.ndarray) -> None:
    for part in range(owner.max() + 1):
        inside = np.flatnonzero(owner == part)
        assert len(inside)
        assert connected_components(A[inside][:, inside])[0] == 1


def test_pieces_are_split_and_small_ones_join_the_part_that_they_meet_most():
    owner = np.array([0, 0, 0, 1, 1, 0, 2, 2, 2, 7, 7, 7])
    split = repair(line(12), owner, smallest=1)
    assert split.tolist() == [0, 0, 0, 2, 2, 1, 3, 3, 3, 4, 4, 4]
    joined = repair(line(12), owner, smallest=2)
    assert joined.max() == 3
    assert joined[5] in (joined[4], joined[6])
    star = np.zeros((6, 6))
    star[0, 1:] = star[1:, 0] = -1
    star[4, 5] = star[5, 4] = -1
    star += np.diag(np.full(6, 7.0))
    # Node 3 has one neighbour in part 0; nodes 4 and 5 pull each other.
    assert repair(sp.csr_array(star), np.array([0, 0, 0, 1, 2, 2]), smallest=2).tolist() == [
        0, 0, 0, 0, 1, 1,
    ]  # fmt: skip


def test_a_partitioner_may_make_small_parts_but_not_small_pieces(monkeypatch):
    parts = np.array([0] * 20 + [1] + [2] * 9 + [0] + [2] * 9)
    monkeypatch.setitem(PARTITIONERS, "metis", lambda *_: parts)
    owner = partition(line(40), 3)
    assert np.bincount(owner).tolist() == [20, 1, 9, 10]  # part 0 has lost its second piece
    assert repair(line(40), parts).max() == 2


def test_small_pieces_join_each_other_where_they_must():
    assert repair(line(4), np.arange(4), smallest=10).tolist() == [0, 0, 0, 0]
    assert repair(line(8), np.arange(8), smallest=2).max() <= 3


@pytest.mark.parametrize("seed", range(5))
def test_any_partition_becomes_one_of_connected_parts(seed):
    A = laplacian(14, seed)
    wild = np.random.default_rng(seed).integers(0, 9, A.shape[0])
    for smallest in (1, 3, None):
        owner = repair(A, wild, smallest=smallest)
        check_connected(A, owner)
        limit = A.shape[0] / 9 / 4 if smallest is None else smallest
        assert np.bincount(owner).min() >= limit
    same = partition(A, 9)
    assert np.array_equal(repair(A, same), same)


@pytest.mark.parametrize("method", ["metis", "lloyd"])
def test_isolated_unknowns_and_components_are_solved_exactly(method):
    """Rows of the identity, as some codes leave them on a Dirichlet boundary."""
    mesh = laplacian(14)
    A = sp.csr_array(sp.block_diag([sp.eye_array(50), mesh, laplacian(9, seed=1)], format="csr"))
    owner = partition(A, 12, method=method)
    sizes = np.bincount(owner)
    assert (sizes > 0).all()
    alone = np.unique(owner[:50])
    assert len(alone) <= 12  # gathered, not 50 subdomains
    d = decompose(A, owner)
    matrix = CSRTensor.from_scipy(A)
    b = random_matrix(d.n, 1)[:, 0]
    for P in (None, partition_of_unity(d)):
        M = Schwarz(matrix, d, P=P)
        z = M.apply(b)
        solution = fgmres(matrix, b, preconditioner=M, rtol=1e-10, maxiter=100)
        assert solution.converged
    torch.testing.assert_close(Schwarz(matrix, d).apply(b)[:50], b[:50])
    assert z.isfinite().all()


def test_a_diagonal_matrix_is_solved_at_once():
    A = sp.csr_array(sp.diags_array(np.arange(1.0, 31)))
    for n_parts in (1, 5, 30):
        d = decompose(A, partition(A, n_parts))
        r = random_matrix(30, 1)[:, 0]
        expected = r / torch.arange(1.0, 31, dtype=torch.float64)
        torch.testing.assert_close(Schwarz(CSRTensor.from_scipy(A), d).apply(r), expected)


@pytest.mark.parametrize("overlap", [1, 2, 4, 50])
def test_nodes_of_a_vector_problem_stay_whole(overlap):
    problem = elasticity(8)
    A, n = problem.A, problem.A.shape[0]
    owner = partition(A, 5, block_size=2)
    assert np.array_equal(owner[0::2], owner[1::2])
    d = decompose(A, owner, overlap, block_size=2)
    assert d.block_size == 2
    assert np.array_equal(d.node[0::2] + 1, d.node[1::2])
    assert (d.node[0::2] % 2 == 0).all()
    for name in ("subdomain", "layer", "own"):
        values = getattr(d, name)
        assert np.array_equal(values[0::2], values[1::2])
    # The same as overlap grown in the graph of nodes, each node a single unknown.
    graph = sp.csr_array(node_graph(A, 2) + sp.eye_array(n // 2))
    scalar = decompose(graph, owner[::2], overlap)
    assert np.array_equal(scalar.node, d.node[0::2] // 2)
    assert np.array_equal(scalar.layer, d.layer[0::2])
    dense = A.toarray()
    for i in range(d.n_subdomains):
        members = d.node[d.subdomain == i]
        start = int(d.sizes[:i].sum())
        block = (d.block_row >= start) & (d.block_row < start + len(members))
        local = np.zeros((len(members), len(members)))
        local[d.block_row[block] - start, d.block_col[block] - start] = A.data[
            d.block_source[block]
        ]
        assert np.array_equal(local, dense[np.ix_(members, members)])
    if overlap == 50:
        assert (d.sizes == n).all()


def test_a_node_graph_couples_nodes_that_any_unknowns_couple():
    A = np.eye(6)
    A[0, 5] = 1
    graph = node_graph(sp.csr_array(A), 2).toarray()
    assert graph.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_arguments_that_do_not_fit_are_refused():
    problem = elasticity(5)
    A, n = problem.A, problem.A.shape[0]
    owner = partition(A, 3, block_size=2)
    with pytest.raises(ValueError, match=f"block_size: expected a divisor of {n}, the number"):
        partition(A, 3, block_size=3)
    for block_size in (0, -2, 1.5, math.nan, math.inf):
        message = f"block_size: expected at least 1 unknown at a node, got {block_size}"
        for refuse in (decompose, repair):
            with pytest.raises(ValueError, match=message):
                refuse(A, owner, block_size=block_size)  # type: ignore
        with pytest.raises(ValueError, match=message):
            partition(A, 3, block_size=block_size)  # type: ignore
    message = rf"n_parts: expected an integer from 1 to {n // 2}, the number of nodes, got {n}"
    with pytest.raises(ValueError, match=message):
        partition(A, n, block_size=2)
    split = owner.copy()
    split[4] = (split[4] + 1) % 3
    with pytest.raises(ValueError, match="owner: the 2 unknowns of node 2 belong to different"):
        decompose(A, split, block_size=2)
    decompose(A, split)
    with pytest.raises(ValueError, match="owner: the 2 unknowns of node 2"):
        repair(A, split, block_size=2)
    with pytest.raises(ValueError, match=r"owner: expected parts 0 \.\. S-1.* part 1 is empty"):
        decompose(A, 2 * owner, block_size=2)
    assert np.array_equal(repair(A, 2 * owner, block_size=2), owner)
    with pytest.raises(ValueError, match=r"owner: expected parts 0 \.\. S-1, got -1 for unkn"):
        decompose(A, owner - 1)
    with pytest.raises(TypeError, match="block_size: expected a whole number, got str"):
        decompose(A, owner, block_size="2")  # type: ignore


def test_complex_matrices_are_partitioned_by_their_pattern():
    A = laplacian(12)
    turned = sp.csr_array(A * np.exp(1j))
    owner = partition(A, 6)
    assert np.array_equal(partition(turned, 6), owner)
    real, other = decompose(A, owner, 2), decompose(turned, owner, 2)
    assert np.allclose(real.outside, other.outside)
    assert other.outside.dtype == np.float64


def test_whole_floats_are_sizes():
    A = elasticity(5).A
    owner = partition(A, 3.0, block_size=2.0)  # type: ignore
    assert np.array_equal(owner, partition(A, 3, block_size=2))
    d = decompose(A, owner, 2.0, block_size=np.float64(2))  # type: ignore
    assert (type(d.overlap), type(d.block_size)) == (int, int)
    assert np.array_equal(d.node, decompose(A, owner, 2, block_size=2).node)
    assert np.array_equal(repair(A, owner, block_size=2.0), owner)  # type: ignore


def test_numbers_of_parts_may_be_large_where_they_may_skip():
    A = laplacian(9)
    owner = partition(A, 4)
    large = np.array([7, 10**11, 10**11 + 1, 2**62])[owner]
    assert np.array_equal(repair(A, large), owner)
    with pytest.raises(ValueError, match=r"owner: expected parts 0 \.\. S-1, got 184467"):
        repair(A, np.where(owner == 0, 2**64 - 1, owner).astype(np.uint64))
