"""The order in which Cholesky eliminates: a permutation, little fill, components on their own."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from cholesky_cases import CASES, dominant, grid, pattern_of, random_spd
from scipy import sparse
from scipy.spatial import Delaunay
from torch import Tensor

from sparsetorch import CSRTensor
from sparsetorch.ordering import by_superlu
from sparsetorch_kernels import cholesky_is_compiled, eliminate, order_by_minimum_degree

pytestmark = pytest.mark.skipif(
    not cholesky_is_compiled(), reason="no C++ library: approximate minimum degree is NOT tested"
)


def delaunay(n: int, dimensions: int, seed: int) -> sparse.csr_array:
    """The graph of a triangulation of random points."""
    points = np.random.default_rng(seed).random((n, dimensions))
    simplices = Delaunay(points).simplices
    k = dimensions + 1
    at = np.repeat(simplices, k, 1).ravel(), np.tile(simplices, (1, k)).ravel()
    return dominant(sparse.csr_array(sparse.coo_array((np.ones(len(at[0])), at), shape=(n, n))))


def order_of(matrix: sparse.csr_array, dtype=torch.int64) -> Tensor:
    return order_by_minimum_degree(*pattern_of(matrix, dtype))


def fill(matrix: sparse.csr_array, order: Tensor) -> int:
    """Entries of the factor below its diagonal, by eliminating one node after the other."""
    n, filled = matrix.shape[0], 0
    crow, col, _ = (index.tolist() for index in pattern_of(matrix))
    near = [set(col[a:b]) - {i} for i, (a, b) in enumerate(pairwise(crow))]
    for i in order.tolist():
        filled += len(near[i])
        for j in near[i]:
            near[j] = (near[j] | near[i]) - {i, j}
    assert n == len(order)
    return filled


def panel_size(matrix: sparse.csr_array, order: Tensor) -> int:
    """Numbers in the panels of the factor: nearly its entries."""
    return eliminate(*pattern_of(matrix), order).size


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("matrix", CASES.values(), ids=CASES)
def test_every_column_comes_once(matrix, dtype):
    order = order_of(matrix, dtype)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(matrix.shape[0]))


@pytest.mark.parametrize("seed", range(30))
def test_random_patterns_of_any_density(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(3, 90))
    matrix = random_spd(n, float(generator.random()) ** 3, seed)
    order = order_of(matrix)
    assert order.sort().values.tolist() == list(range(n))
    pattern = CSRTensor.from_scipy(matrix).pattern
    assert fill(matrix, order) <= 1.2 * fill(matrix, by_superlu(pattern)) + 5


@pytest.mark.parametrize("seed", range(5))
def test_trees_do_not_fill(seed):
    n = 400
    parent = [int(np.random.default_rng([seed, i]).integers(0, i)) for i in range(1, n)]
    edges = sparse.coo_array((np.ones(n - 1), (range(1, n), parent)), shape=(n, n))
    tree = dominant(sparse.csr_array(edges))
    assert fill(tree, order_of(tree)) == n - 1


@pytest.mark.parametrize(
    "matrix",
    [grid(60, 70), grid(12, 13, 14), delaunay(4000, 2, 0), delaunay(1500, 3, 1)],
    ids=["grid in the plane", "grid in space", "triangles", "tetrahedra"],
)
def test_factors_are_about_as_sparse_as_with_superlu_s_order(matrix):
    ours = panel_size(matrix, order_of(matrix))
    theirs = panel_size(matrix, by_superlu(CSRTensor.from_scipy(matrix).pattern))
    assert ours <= 1.2 * theirs
    assert ours <= 0.5 * panel_size(matrix, torch.arange(matrix.shape[0]))


def test_components_are_ordered_each_on_its_own_whatever_the_number_of_threads():
    parts = [delaunay(300 + k, 2, k) for k in range(80)]  # two tasks
    together = sparse.csr_array(sparse.block_diag(parts))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(order_of(together))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    first = 0
    for part in parts:
        n = part.shape[0]
        assert torch.equal(found[0][first : first + n], first + order_of(part))
        first += n


def test_columns_that_couple_with_most_others_come_last():
    n, hubs = 2000, (3, 700, 1999)
    dense = sparse.lil_array(grid(40, 50))
    for hub in hubs:
        dense[hub, ::3] = 0.1
        dense[::3, hub] = 0.1
    matrix = dominant(sparse.csr_array(dense))
    order = order_of(matrix)
    assert sorted(order[-3:].tolist()) == list(hubs)
    assert order.sort().values.tolist() == list(range(n))


def test_cliques_are_no_exceptions():
    # Each row couples with more than 10 sqrt(n) others.
    rng, size = np.random.default_rng(0), 400
    joined = sparse.lil_array(sparse.block_diag([np.ones((size, size))] * 3))
    for first in (0, size):
        rows, cols = (at + rng.choice(size, 12, replace=False) for at in (first, first + size))
        joined[rows, cols] = 1.0
    shuffled = rng.permutation(3 * size)
    matrix = dominant(sparse.csr_array(sparse.csr_array(joined)[shuffled][:, shuffled]))
    theirs = panel_size(matrix, by_superlu(CSRTensor.from_scipy(matrix).pattern))
    assert panel_size(matrix, order_of(matrix)) <= 1.1 * theirs


def test_entries_in_any_order_and_twice():
    matrix = grid(9, 11)
    crow, col, _ = pattern_of(matrix)
    n = len(crow) - 1
    rows = [col[a:b].flip(0).repeat_interleave(2) for a, b in pairwise(crow.tolist())]
    where = {
        (i, j): k for k, (i, j) in enumerate((i, j) for i in range(n) for j in rows[i].tolist())
    }
    mirror = torch.tensor([where[j, i] for i in range(n) for j in rows[i].tolist()])
    order = order_by_minimum_degree(2 * crow, torch.cat(rows), mirror)
    assert order.sort().values.tolist() == list(range(n))
    assert fill(matrix, order) <= 1.3 * fill(matrix, order_of(matrix))


def test_what_is_not_symmetric_is_refused():
    crow, col, mirror = pattern_of(grid(4, 5))
    for broken in (
        (crow, col, mirror.flip(0)),
        (crow, col.flip(0), mirror),
        (crow, col + 100, mirror),
        (crow.flip(0), col, mirror),
        (crow, col, mirror - 1),
    ):
        with pytest.raises(ValueError, match="the pattern is not symmetric"):
            order_by_minimum_degree(*broken)
    with pytest.raises(ValueError, match="mirror: expected"):
        order_by_minimum_degree(crow, col, mirror[:-1])
    with pytest.raises(ValueError, match="crow: expected at least one entry"):
        order_by_minimum_degree(crow[:0], col, mirror)
    with pytest.raises(
        TypeError, match=r"col: expected torch.int32 or torch.int64, got torch.int16"
    ):
        order_by_minimum_degree(crow, col.short(), mirror)
    with pytest.raises(ValueError, match=r"mirror: expected one dimension on the CPU, got shape"):
        order_by_minimum_degree(crow, col, mirror[None])
